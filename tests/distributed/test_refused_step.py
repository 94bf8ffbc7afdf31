"""A step that is not finite is refused on all ranks in the same words, with samples that only one of them has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import test_train_layouts as layouts
import toy_run
from spawn_ranks import spawn

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.training.run_config import RunConfig
from weatherfm.training.trainer import train

HOLE = np.datetime64("2000-01-05T12:00")


def message_on(rank: int, folder: Path, layout: dict) -> str:
    read = Store.read

    def with_hole(self, indices, channels=None, out=None):
        fields = read(self, indices, channels, out)
        if "t850" in (channels or self.channels):
            fields[self.times[indices] == HOLE, list(channels or self.channels).index("t850"), 2, 3] = np.nan
        return fields

    plain = layouts.settings(folder, "holed", layout, steps=200, cache="off", validate_every=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "read", with_hole)
        with pytest.raises(InputError, match="stopped at step") as caught:
            train(parse_settings(RunConfig, plain, "test"))
    return str(caught.value)


@pytest.mark.parametrize("layout", [layouts.SHARD, layouts.TP], ids=lambda layout: "-".join(layout))
def test_samples_and_channels_of_any_rank_are_named_on_all(tmp_path, layout):
    toy_run.make_store(tmp_path)
    messages = spawn(2, message_on, tmp_path, layout)
    assert messages[0] == messages[1]
    assert "missing values in t850:" in messages[0]
    samples = messages[0].partition("samples: ")[2].splitlines()[0].split(", ")
    assert samples[0]
    for sample in samples:
        init, lead = sample.split(" +")
        assert HOLE in (np.datetime64(init), np.datetime64(init) + np.timedelta64(int(lead[:-1]), "h"))
