from __future__ import annotations

import numpy as np
import pytest
from small_store import CHANNELS, SmallStore

from weatherfm.data_pipeline.store_config import Period
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines.names import ALL_BASELINES, BASELINES
from weatherfm.evaluation.baselines.persistence_and_climatology import FieldWindow, climatology, training_times, truth

TIMES = np.arange("2020-01-01", "2020-01-07", dtype="datetime64[D]")


def window():
    return FieldWindow(lambda times: (times - TIMES[0]).astype(float)[:, None])


def test_names():
    assert BASELINES == ("persistence", "climatology")
    assert (*BASELINES, "damped_persistence", "ridge_regression", "probabilistic_climatology") == ALL_BASELINES


@pytest.mark.parametrize("asked", [[0, 1, 2], [4], [2, 2], [3, 1], [5, 3, 0], [0, 5, 0]])
def test_the_window_gives_each_time_its_field(asked):
    held = window()
    held.at(TIMES[1:3])
    np.testing.assert_array_equal(held.at(TIMES[asked])[:, 0], asked)
    np.testing.assert_array_equal(held.at(TIMES[asked])[:, 0], asked)  # from what is held
    assert held.reads == len({1, 2, *asked})


def test_what_the_window_holds_cannot_be_changed():
    held = window()
    for fields in (held.at(TIMES[:2]), held.at(TIMES[:1])):  # a new block, and one field of it: no copies
        with pytest.raises(ValueError, match="read-only"):
            fields += 1
    np.testing.assert_array_equal(held.at(TIMES[:2])[:, 0], [0, 1])


def test_truth_and_climatology_are_the_store_s():
    store = SmallStore()
    times, channels = store.times[[3, 5]], ("t2m", "z500")
    np.testing.assert_array_equal(truth(store, channels).at(times), store.state[[3, 5]][:, [3, 0]])
    np.testing.assert_array_equal(climatology(store, channels).at(times), store.climatology_at(times, channels))


def test_values_that_are_not_finite_are_refused():
    store = SmallStore()
    store.state[4, 1, 2, 3] = np.nan
    truth(store, ["z500"]).at(store.times)
    with pytest.raises(InputError, match=r"truth in small\.zarr .* not finite: t850 at 2020-01-05"):
        truth(store, CHANNELS).at(store.times)
    store._normal = lambda times: np.full((len(times), len(CHANNELS), *store.grid.shape), np.inf)
    with pytest.raises(InputError, match=r"climatology in small\.zarr .* not finite: z500 at 2020-01-01"):
        climatology(store, CHANNELS).at(store.times)


def test_training_times():
    store = SmallStore()
    assert len(training_times(store)) == 0  # its training days end before its first time
    store.periods["train"] = Period.model_validate("2020-01-03/2020-01-05")
    np.testing.assert_array_equal(training_times(store), store.times[2:5])
    store.periods["train"] = None
    assert len(training_times(store)) == 0
