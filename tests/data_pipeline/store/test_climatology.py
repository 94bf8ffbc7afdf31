from __future__ import annotations

import numpy as np
import pytest

from weatherfm.data_pipeline.store.climatology import (
    DAYS,
    accumulate,
    check_coverage,
    day_index,
    window_weights,
    windowed_means,
)
from weatherfm.data_pipeline.store_config import Period
from weatherfm.errors import InputError

YEARS = np.arange(np.datetime64("2000-01-01"), np.datetime64("2003-01-01")).astype("datetime64[s]")  # one leap year


def _climatology(times: np.ndarray, values: np.ndarray, window: int | None, rows: int = 100) -> np.ndarray:
    """[dayofyear] of a single grid point, by the functions under test."""
    fields = values.astype(np.float32)[:, None, None, None]
    days, n_days = day_index(times, window), 1 if window is None else DAYS
    sums = accumulate(lambda i: fields[i], np.arange(len(times)), days, n_days, batch=50)
    counts = np.bincount(days, minlength=n_days)
    return np.concatenate([means for _, means in windowed_means(sums, counts, window, rows)])[:, 0, 0, 0]


def test_weights_are_weatherbench2s_triangle():
    # their create_window_weights(61): linspace up to 1 and down again; the division by the mean cancels here
    half = np.linspace(0, 1, 31)
    np.testing.assert_allclose(window_weights(61), np.concatenate([half, half[-2::-1]]), rtol=0, atol=1e-15)
    assert window_weights(1).tolist() == [1.0]


@pytest.mark.parametrize("window", [0, 60, -3])
def test_window_must_be_odd_and_positive(window):
    with pytest.raises(InputError, match=f"odd number of days, got {window}"):
        window_weights(window)


def test_constant_stays_constant():
    values = np.full(len(YEARS), 281.5)
    np.testing.assert_array_equal(_climatology(YEARS, values, 61), np.float32(281.5))


def test_against_the_plain_weighted_mean_round_the_year():
    values = np.random.default_rng(3).standard_normal(len(YEARS)) + 280
    found = _climatology(YEARS, values, 31, rows=7)
    day = day_index(YEARS, 31)
    for target in (0, 58, 59, 200, 364, 365):  # both ends of the ring and around 29 February
        distance = np.minimum((day - target) % DAYS, (target - day) % DAYS)
        weights = np.maximum(1 - distance / 15, 0)
        expected = np.average(values.astype(np.float32).astype(np.float64), weights=weights)
        np.testing.assert_allclose(found[target], expected, rtol=1e-7)  # float32 of a float64 mean


def test_29_february_shares_day_60_with_1_march_of_other_years():
    values = np.where(np.datetime64("2000-02-29") == YEARS, 100.0, 0.0)
    found = _climatology(YEARS, values, 3)
    # 60 is 29 February 2000 and 1 March of the two other years; a window of 3 weighs that day alone
    np.testing.assert_allclose(found[59], 100 / 3, rtol=1e-6)
    assert np.count_nonzero(found) == 1


def test_31_december_of_a_leap_year_has_day_366_for_itself():
    values = np.where(np.datetime64("2000-12-31") == YEARS, 100.0, 0.0)
    found = _climatology(YEARS, values, 1)
    assert found[365] == 100
    assert np.count_nonzero(found) == 1


def test_day_366_borrows_from_its_neighbours():
    years = YEARS[366:]  # two years without 29 February
    values = day_index(years, 61).astype(float)
    found = _climatology(years, values, 61)
    weights = 1 - np.arange(1, 30) / 30
    expected = np.sum(weights * (np.arange(364, 335, -1) + np.arange(29))) / (2 * weights.sum())
    np.testing.assert_allclose(found[365], expected, rtol=1e-6)


def test_without_window_one_mean_over_all_days():
    values = np.arange(len(YEARS), dtype=float)
    np.testing.assert_allclose(_climatology(YEARS, values, None), [values.mean()], rtol=1e-7)


def test_short_training_period_is_refused_unless_without_window():
    period = Period.model_validate("2000-01-01/2000-06-30")
    times = YEARS[:182]
    with pytest.raises(InputError, match=r"no training data for day of year \d+ at 00 UTC.*null"):
        check_coverage(times, np.array([0]), 61, period)
    check_coverage(times, np.array([0]), None, period)
    check_coverage(YEARS[:366], np.array([0]), 61, period)


def test_each_hour_needs_its_own_data():
    period = Period.model_validate("2000")
    times = np.concatenate([YEARS[:366], YEARS[100:120] + np.timedelta64(12, "h")])
    with pytest.raises(InputError, match="at 12 UTC"):
        check_coverage(np.sort(times), np.array([0, 12]), 61, period)
