"""What `evaluate --channel --lead --init --every` mean, as text and as Python has it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from weatherfm.errors import InputError
from weatherfm.evaluation.scoring.cases_to_score import Choice
from weatherfm.face.results import chosen


def test_nothing_said_is_everything():
    assert chosen() == chosen(channel=None) == Choice()


def test_texts_lists_and_spans():
    assert chosen(["z500,t2m", "msl"]).channels == ("z500", "t2m", "msl")
    assert chosen("z500").channels == ("z500",)
    assert chosen(lead=["24h,72h"]).lead_times == chosen(lead=["24h", timedelta(days=3)]).lead_times == (24, 72)
    assert chosen(lead="24h..72h/24h").lead_times == (24, 48, 72)
    assert chosen(init="2018-10").init == "2018-10"
    assert chosen(init=datetime(2018, 10, 1, 6)).init == "2018-10-01T06"
    assert chosen(every="3d").every == chosen(every=timedelta(hours=72)).every == 72


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"channel": "nonsense"}, "nonsense"),
        ({"channel": 5}, "channel is a text"),
        ({"channel": ["tp", "z500, tp"]}, "--channel names tp twice; name each once"),
        ({"lead": "soon"}, "lead_times"),
        ({"lead": ["72h", "24h"]}, "ascend"),
        ({"every": "0h"}, "init_every must be positive"),
        ({"every": "often"}, "init_every"),
    ],
)
def test_what_means_nothing_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        chosen(**given)
