from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from invented_source import CHANNELS, data_config, fields, invented_source, times_every

from weatherfm.data_pipeline import loader as loaders
from weatherfm.data_pipeline.loader import SampleLoader, eligible_init_times, fixed_batches
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store_config import Period
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError

GRID = regular_grid((4, 8))
TIMES = np.delete(times_every(6, 30), [50])  # a gap at 2000-01-13T12
TRAIN = Period.model_validate("2000-01-01/2000-01-25")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("loader") / "store.zarr"
    return prepare(data_config(path, allow_gaps=True, train=TRAIN), invented_source(TIMES, GRID))


def _loader(store, **settings):
    defaults = {"input_times": [-6, 0], "lead_times": [6, 24], "batch_size": 4, "seed": 1, "workers": 2}
    return SampleLoader(store, TRAIN, **(defaults | settings))


def _state_at(moments: np.ndarray, channels=CHANNELS) -> np.ndarray:
    columns = [CHANNELS.index(name) for name in channels]
    return fields(moments.astype("datetime64[ns]"), GRID)[:, columns]


def test_samples_lie_in_the_period_and_cross_no_gap(store):
    inits = eligible_init_times(store, TRAIN, [-12, 0], [24])
    hour = np.timedelta64(1, "h")
    gap = np.datetime64("2000-01-13T12")
    expected = [
        t for t in TIMES.astype("datetime64[s]")
        if t - 12 * hour >= np.datetime64("2000-01-01") and t + 24 * hour < np.datetime64("2000-01-26")
        and not t - 12 * hour <= gap <= t + 24 * hour
    ]  # fmt: skip
    assert inits.tolist() == np.array(expected).tolist()


def test_without_period_all_of_the_store(store):
    inits = eligible_init_times(store, None, [0], [6])
    assert inits[-1] == np.datetime64("2000-01-30T12")
    assert np.datetime64("2000-01-13T06") not in inits


def test_lead_between_steps_has_no_samples(store):
    assert len(eligible_init_times(store, None, [0], [6, 9])) == 0


def test_batch_holds_what_its_times_say(store):
    loader = _loader(store, channels=["t2m", "z500"])
    batch = loader.batch(7)
    hour = np.timedelta64(1, "h")
    assert batch.history.shape == (4, 2, 2, 4, 8)
    assert batch.history.dtype == torch.float32
    assert batch.target.shape == (4, 2, 4, 8)
    assert batch.lead_time_hours.dtype == torch.int64
    for t, offset in enumerate((-6, 0)):
        expected = _state_at(batch.init_time + offset * hour, ("t2m", "z500"))
        np.testing.assert_array_equal(batch.history[:, t], expected)
    valid = batch.init_time + batch.lead_time_hours.numpy() * hour
    np.testing.assert_array_equal(batch.target, _state_at(valid, ("t2m", "z500")))


def test_an_epoch_visits_each_init_once_and_the_next_in_another_order(store):
    loader = _loader(store, batch_size=5)
    n = loader.steps_per_epoch
    assert n == len(loader.init_times) // 5
    first, second = (np.concatenate([loader.samples(e * n + i)[0] for i in range(n)]) for e in (0, 1))
    assert len(np.unique(first)) == 5 * n
    assert len(np.unique(second)) == 5 * n
    assert first.tolist() != second.tolist()


def test_batch_is_a_function_of_seed_and_step(store):
    one, two = _loader(store), _loader(store, workers=0)
    for step in (0, 3, one.steps_per_epoch + 1):
        a, b = one.batch(step), two.batch(step)
        assert a.init_time.tolist() == b.init_time.tolist()
        assert torch.equal(a.history, b.history)
        assert torch.equal(a.lead_time_hours, b.lead_time_hours)
    assert _loader(store, seed=2).samples(0)[0].tolist() != one.samples(0)[0].tolist()


def test_every_lead_is_drawn_and_leads_change_by_step(store):
    loader = _loader(store, batch_size=8)
    leads = [tuple(loader.samples(step)[1].tolist()) for step in range(20)]
    assert set(np.concatenate(leads).tolist()) == {6, 24}
    assert len(set(leads)) > 10


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_iterate_gives_the_batches_in_order_from_any_start(store, workers):
    loader = _loader(store, workers=workers)
    found = [batch.init_time.tolist() for batch in loader.iterate(5, 12)]
    assert found == [loader.samples(step)[0].tolist() for step in range(5, 12)]


def test_reading_ahead_overlaps_with_the_consumer(store, monkeypatch):
    real, reads, ahead = loaders.read_batch, [], threading.Event()

    def watched(*args):
        reads.append(args)
        if len(reads) == 3:
            ahead.set()
        return real(*args)

    monkeypatch.setattr(loaders, "read_batch", watched)

    def read_while_the_first_is_at_work(workers: int, patience: float) -> bool:
        reads.clear()
        ahead.clear()
        batches = _loader(store, workers=workers).iterate(0, 10)
        next(batches)
        found = ahead.wait(patience)
        batches.close()
        return found

    assert read_while_the_first_is_at_work(2, 120)
    assert not read_while_the_first_is_at_work(0, 0.1)


def test_leaving_early_stops_the_threads(store):
    for _ in _loader(store).iterate(0, 1000):
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_error_while_reading_ahead_reaches_the_consumer(store):
    loader = _loader(store, channels=["q700"])
    with pytest.raises(InputError, match="no channel q700"):
        next(loader.iterate(0, 3))


def test_too_few_samples(store):
    with pytest.raises(InputError, match=r"only 0 init times .*lead \[9\] h"):
        _loader(store, lead_times=[9])
    with pytest.raises(InputError, match="a batch needs 1000"):
        _loader(store, batch_size=1000)


def test_fixed_batches_cover_all_inits_in_order(store):
    inits = eligible_init_times(store, None, [0], [12])[:7]
    batches = list(fixed_batches(store, inits, [0], 12, batch_size=3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert np.concatenate([b.init_time for b in batches]).tolist() == inits.tolist()
    np.testing.assert_array_equal(batches[2].target, _state_at(inits[6:] + np.timedelta64(12, "h")))


def test_batch_moves(store):
    batch = _loader(store).batch(0)
    moved = batch.to("meta")
    assert {moved.history.device.type, moved.target.device.type, moved.lead_time_hours.device.type} == {"meta"}
    assert moved.init_time is batch.init_time
