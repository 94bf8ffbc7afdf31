"""Weights must not have learned from the days that are scored, in any generation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from weatherfm.data_pipeline.store.training_store import EARTH
from weatherfm.data_pipeline.store_config import Days
from weatherfm.errors import InputError
from weatherfm.evaluation.scoring.learned_days import generations, refuse_days_of_weights

TIMES = np.array(["2010-01-01T00", "2010-06-01T00"], "datetime64[s]")
STORE = SimpleNamespace(world=EARTH)


def weights(train: str | None, world: str | None = EARTH, before: dict | None = None) -> dict:
    days = None if train is None else Days.model_validate(train).model_dump(mode="json")
    told = {"store": {"simulated": False, "world": world, "train": days}, "settings": {"data": {}}}
    return told | ({"started_from": {"sha256": "0", "provenance": before}} if before else {})


def refuse(provenance: dict) -> None:
    refuse_days_of_weights(TIMES, STORE, {"model": {"training": provenance}})


def test_other_days_and_other_worlds_are_scored():
    refuse(weights("1979-2009", before=weights("1950-1978")))
    refuse(weights("2010", world="simulated 1234"))
    refuse({})
    refuse(weights(None, world=None))


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        (weights("2000-2010"), "2 of 2 times to score, the first 2010-01-01T00:00:00, are days that its weights were"),
        (weights("2010-05-01/2010-07-31"), "1 of 2 times to score, the first 2010-06-01"),
        (weights("2000-2005", before=weights("2010")), "days that weights that they started from were trained on"),
        (
            weights("2000", before=weights("2001", before=weights("2010"))),
            "weights 2 generations before were trained on .2010-01-01/2010-12-31.: the scores of model would be",
        ),
    ],
)
def test_days_that_a_generation_knows_are_refused(provenance, message):
    with pytest.raises(InputError, match=message):
        refuse(provenance)


def test_weights_of_before_tell_by_their_settings():
    old = {"store": {"simulated": False}, "settings": {"data": {"train": {"start": "2010-01-01", "end": "2010-12-31"}}}}
    assert [str(one.days) for one in generations(old)] == ["2010-01-01/2010-12-31"]
    with pytest.raises(InputError, match="its weights were trained on"):
        refuse(old)


def test_days_that_cannot_be_read_are_told(caplog):
    unread = weights("2010")
    unread["store"]["train"] = {"months": "2010-01"}
    refuse(unread)
    assert "training days that this version cannot read" in caplog.text
    assert "2010-01" in caplog.text
