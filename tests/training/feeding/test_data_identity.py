"""What of a store decides a run: it survives later days, and nothing else."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import toy_run
from invented_source import data_config, invented_source, times_every

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.data_pipeline.store_config import Period
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.training.checkpoints.resume import forget_other_best
from weatherfm.training.checkpoints.state import Progress
from weatherfm.training.feeding.data_identity import describe_data, fields_digest, statistics_digest
from weatherfm.training.run_config import RunConfig
from weatherfm.training.trainer import train

GRID = Grid(np.linspace(60, 30, 48), np.linspace(-20, 27, 48))  # a shard of 1 MiB holds 56 times of 2 channels
TIMES = times_every(6, 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of 160 times: two whole shards in time, and a part of a third."""
    folder = tmp_path_factory.mktemp("identity")
    prepare(data_config(folder / "store.zarr"), invented_source(TIMES[:160], GRID))
    return folder


@pytest.fixture
def store(folder):
    return open_store(folder / "store.zarr")


def first_days(store: Store, count: int) -> Period:
    """The period of the first times of a store, in whole days."""
    return Period(
        start=store.times[0].astype("datetime64[D]").item(), end=store.times[count - 1].astype("datetime64[D]").item()
    )


@pytest.mark.parametrize("count", [80, 112, 160], ids=["ends in a shard", "ends with a shard", "all"])
def test_later_days_change_nothing(folder, store, tmp_path, count, monkeypatch):
    shutil.copytree(store.path, tmp_path / "store.zarr")
    grown = append(data_config(tmp_path / "store.zarr"), invented_source(TIMES, GRID))
    assert len(grown.times) == len(TIMES)
    read, reading = [], Store.read
    monkeypatch.setattr(Store, "read", lambda self, index, *a: read.extend(index) or reading(self, index, *a))
    period = first_days(store, count)
    assert fields_digest(store, period, store.channels) == fields_digest(grown, period, store.channels)
    assert len(read) == 2 * (count % 56)  # only in the shard that other days share
    assert fields_digest(grown, first_days(store, count - 4), store.channels) != fields_digest(
        grown, period, store.channels
    )


@pytest.mark.parametrize("wrong", [3, 70], ids=["whole shard", "shared shard"])
def test_another_field_is_another_run(store, tmp_path, wrong):
    """Whether it lies in a shard of training days alone, or in one that is shared."""

    def spoil(number, values):
        times = number * 24 + np.arange(len(values))
        return values + (times == wrong)[:, None, None, None].astype(np.float32)

    prepare(data_config(tmp_path / "store.zarr"), invented_source(TIMES[:160], GRID, spoil=spoil))
    other = open_store(tmp_path / "store.zarr")
    for count in (68, 80):
        period = first_days(store, count)
        digests = [fields_digest(each, period, store.channels) for each in (store, other)]
        assert (digests[0] == digests[1]) == (wrong >= count)
    assert statistics_digest(store, store.channels) != statistics_digest(other, store.channels)


def test_what_is_known_of_the_same_store_is_not_read_again(store, monkeypatch):
    period = first_days(store, 80)
    found = describe_data(store, store.channels, [period])
    monkeypatch.delattr(Store, "read")
    assert describe_data(store, store.channels, [period], json.loads(json.dumps(found))) == found
    with pytest.raises(AttributeError):
        describe_data(store, store.channels[:1], [period], found)
    with pytest.raises(AttributeError):
        describe_data(store, store.channels, [period], found | {"manifest": "another"})


# A run on a store that grows -----------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """A run that was ended early, on a store of its own."""
    toy_run.make_store(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "weatherfm.training.trainer.Trainer.finished", property(lambda self: self.state.progress.step >= 10)
        )
        assert train(toy_run.make_run(tmp_path)).steps == 10
    return tmp_path


def grow(folder, days=30, factor=1):
    source = toy_run.waves(days)
    source.state.data[...] = source.state.data * factor
    config = toy_run.make_run(folder)
    if factor == 1:
        append(config.data, source)
    else:
        shutil.rmtree(folder / "store.zarr")
        prepare(config.data, source)


def test_a_run_goes_on_after_an_append(run, caplog):
    grow(run)
    caplog.set_level("INFO")
    summary = train(toy_run.make_run(run))
    assert (summary.resumed_from, summary.steps) == (10, 24)
    assert "forgotten" not in caplog.text


def test_other_training_fields_are_refused(run):
    grow(run, factor=2)
    with pytest.raises(
        InputError, match=r"data.fields: \w+ in the checkpoint, .*\n  data.statistics: .*\n  \(the store holds other"
    ):
        train(toy_run.make_run(run))


def as_before(folder) -> None:
    """Make the newest checkpoint one of a version that knew the manifest alone."""
    path = max((folder / "run" / "checkpoints").glob("step-*")) / "record.json"
    whole = json.loads(path.read_text())
    record = whole["record"]
    record["settings"]["data"] = {
        **{key: record["settings"]["data"][key] for key in ("channels", "train")},
        "store": record.pop("data")["manifest"],
    }
    del record["validation"]
    path.write_text(json.dumps(whole))


def test_validation_days_with_other_fields_are_other_samples():
    """As when final fields replace preliminary ones."""
    progress = Progress(step=9, best_loss=0.5, best_step=8, validations_since_best=1)
    before = {"validation": {"samples": "4 initial times", "digest": "a"}}
    assert forget_other_best(progress, before, before) is None
    now = {"validation": {"samples": "4 initial times", "digest": "b"}}
    assert "4 initial times, whose fields have changed" in forget_other_best(progress, before, now)
    assert progress == Progress(step=9)
    assert forget_other_best(progress, before, now) is None  # there is nothing to forget


def test_an_older_checkpoint_goes_on_with_the_same_store(run):
    as_before(run)
    plain = toy_run.run_settings(run, validation_samples=3)  # of which it knows nothing
    summary = train(parse_settings(RunConfig, plain, "test"))
    assert (summary.resumed_from, summary.steps) == (10, 24)


def test_an_older_checkpoint_knows_no_other_store(run):
    as_before(run)
    grow(run)
    with pytest.raises(InputError, match=r"data.store: \w+ in the checkpoint, \w+ now"):
        train(toy_run.make_run(run))
