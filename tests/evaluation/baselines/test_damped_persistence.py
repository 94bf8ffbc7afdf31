from __future__ import annotations

import pickle

import numpy as np
import pytest
from europe_store import EUROPE_CHANNELS, europe_store
from small_store import CHANNELS, SmallStore, days

from weatherfm.data_pipeline.store_config import Period
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines import damped_persistence
from weatherfm.evaluation.baselines.damped_persistence import can_fit, fit_damped_persistence
from weatherfm.evaluation.baselines.persistence_and_climatology import (
    FieldWindow,
    normals_at,
    states_at,
)

LEADS = (24, 48, 96)


class RedNoise(SmallStore):
    """Noise whose share from step to step, `share` [C, H, W], is known, around the climatology; training days first."""

    def __init__(self, count: int = 400, train: int = 300, step_hours: int = 24, seed: int = 0) -> None:
        super().__init__(regular_grid((4, 8)), 2)
        self.step_hours = step_hours
        self.times = days("2001-01-01", count, step_hours)
        rng = np.random.default_rng(seed)
        shape = (len(CHANNELS), *self.grid.shape)
        self.share = rng.uniform(0.3, 0.9, shape)
        noise = rng.standard_normal((count, *shape))
        for i in range(1, count):
            noise[i] = self.share * noise[i - 1] + np.sqrt(1 - self.share**2) * noise[i]
        self.anomaly = self.std[:, None, None] * noise
        self.state = (self._normal(self.times) + self.anomaly).astype(np.float32)
        last = self.times[train - 1].astype("datetime64[D]")
        self.periods["train"] = Period.model_validate(f"2001-01-01/{last}")


@pytest.fixture(scope="module")
def store():
    return RedNoise()


@pytest.fixture(scope="module")
def fit(store):
    return fit_damped_persistence(store, CHANNELS, LEADS)


def test_the_coefficient_of_red_noise_is_found_at_every_point_and_lead_time():
    """Bartlett (1946): for n steps of an AR(1) process the lag autocorrelation has variance of about
    ((1 + p^2) (1 - p^2L) / (1 - p^2) - 2 L p^2L) / n, and a ratio of sums biased by about -4p/n."""
    store = RedNoise(3000, 1900)
    fit = fit_damped_persistence(store, CHANNELS, LEADS)
    assert fit.starts == 1900 - 4
    for lag, found in zip((1, 2, 4), fit.coefficients, strict=True):
        p = store.share
        variance = (1 + p**2) * (1 - p ** (2 * lag)) / (1 - p**2) - 2 * lag * p ** (2 * lag)
        scaled = (found - p**lag) / np.sqrt(variance / fit.starts)
        assert np.abs(scaled).max() < 4.5  # 128 points: one in a thousand sets of Gaussians is beyond
        assert 0.85 < np.sqrt(np.square(scaled).mean()) < 1.15  # 128 points: a standard error of 0.06


def test_against_whole_arrays(store, fit):
    """The same by one expression over all training days, in double precision."""
    anomaly = store.state.astype(np.float64) - store.climatology_at(store.times)
    now = anomaly[:296]
    for lag, found in zip((1, 2, 4), fit.coefficients, strict=True):
        expected = (now * anomaly[lag : 296 + lag]).sum(0) / np.square(now).sum(0)
        np.testing.assert_allclose(found, expected.clip(0, 1), atol=2e-6)  # sums of blocks in single precision


def test_blocks_do_not_change_the_fit(store, fit, monkeypatch):
    monkeypatch.setattr(damped_persistence, "_BLOCK_BYTES", 1)
    told = []
    one_by_one = fit_damped_persistence(store, CHANNELS, LEADS, told.append)
    assert told == [1] * fit.starts
    np.testing.assert_allclose(one_by_one.coefficients, fit.coefficients, atol=2e-6)


def test_each_training_field_is_read_once_and_no_other():
    store = RedNoise()
    fit_damped_persistence(store, CHANNELS, LEADS)
    assert sorted(store.reads) == list(store.times[:300])


def test_days_after_training_do_not_matter(fit):
    changed = RedNoise()
    changed.state[300:] = np.nan
    np.testing.assert_array_equal(fit_damped_persistence(changed, CHANNELS, LEADS).coefficients, fit.coefficients)


def test_the_forecast(store, fit):
    now, valid = store.times[310:313], store.times[312:315]
    anomaly = store.read(np.arange(310, 313)) - store.climatology_at(now)
    normal = store.climatology_at(valid)
    found = fit.forecast(anomaly, normal, 1)
    assert (found.dtype, found.shape) == (np.float32, anomaly.shape)
    np.testing.assert_allclose(found, normal + fit.coefficients[1] * anomaly, rtol=1e-6)
    np.testing.assert_array_equal(normal, store.climatology_at(valid))  # what is given stays as it was
    np.testing.assert_array_equal(fit.forecast(0 * anomaly, normal, 0), normal)


def test_channels_chosen_and_their_order(fit):
    some = fit_damped_persistence(RedNoise(), ["t2m", "z500"], LEADS)
    np.testing.assert_array_equal(some.coefficients, fit.coefficients[:, [3, 0]])


def test_it_travels(fit):
    copy = pickle.loads(pickle.dumps(fit))
    assert (copy.lead_times, copy.starts) == (LEADS, 296)
    np.testing.assert_array_equal(copy.coefficients, fit.coefficients)


def test_what_does_not_vary_and_what_swings_back_get_nothing():
    store = RedNoise()
    store.state[:, 0] = store.climatology_at(store.times)[:, 0]
    sign = (-1.0) ** np.arange(len(store.times))
    store.state[:, 1] = store.climatology_at(store.times)[:, 1] + sign[:, None, None]
    coefficients = fit_damped_persistence(store, CHANNELS, [24, 48]).coefficients
    np.testing.assert_array_equal(coefficients[:, 0], 0)
    np.testing.assert_array_equal(coefficients[0, 1], 0)
    np.testing.assert_allclose(coefficients[1, 1], 1)


def test_long_training_is_thinned_and_all_hours_stay(monkeypatch):
    store = RedNoise(2000, 1600, step_hours=6)
    monkeypatch.setattr(damped_persistence, "_STARTS", 300)
    fit = fit_damped_persistence(store, CHANNELS, [6])
    assert fit.starts == 229  # every seventh of 1599: every sixth are few enough too, but of 00 and 12 UTC only
    assert sorted(store.reads) == sorted({t + h for t in store.times[:1599:7] for h in (0, np.timedelta64(6, "h"))})
    hours = store.times[:1599:7].astype("datetime64[h]").astype(int) % 24
    assert np.ptp(np.bincount(hours, minlength=24)[::6]) <= 1


def test_few_fields_are_held_at_once(store, monkeypatch):
    held = []

    class Spied(FieldWindow):
        def at(self, times):
            fields = super().at(times)
            held.append(len(self._fields))
            return fields

    monkeypatch.setattr(damped_persistence, "FieldWindow", Spied)
    monkeypatch.setattr(damped_persistence, "_BLOCK_TIMES", 5)
    fit_damped_persistence(store, CHANNELS, LEADS)
    assert max(held) == 5 + 4  # a block, and the days to its last lead time


def test_few_fields_are_read_however_many_lead_times(monkeypatch):
    store = RedNoise(2000, 1600)
    monkeypatch.setattr(damped_persistence, "_FIELDS", 500)
    fit_damped_persistence(store, CHANNELS, LEADS)
    assert len(store.reads) == len(set(store.reads)) <= 500


@pytest.mark.parametrize("train", [13, 14, 30])
def test_too_few_training_days_are_refused(train):
    store = RedNoise(60, train)
    assert can_fit(store, LEADS) == (train >= 14)
    if train >= 14:
        assert fit_damped_persistence(store, CHANNELS, LEADS).starts == train - 4
        return
    with pytest.raises(InputError, match=r"small\.zarr has 9 \(9 at lead time 96h, train is 2001-01-01/2001-01-13\)"):
        fit_damped_persistence(store, CHANNELS, LEADS)
    assert store.reads == []


@pytest.mark.parametrize("leads", [(24, 36), (24, 24 * 300)])
def test_a_lead_time_without_any_pair_is_named(store, leads):
    assert not can_fit(store, leads)
    with pytest.raises(InputError, match=rf"has 0 \(0 at lead time {leads[1]}h"):
        fit_damped_persistence(store, CHANNELS, leads)


def test_without_training_days(store):
    untrained = SmallStore()
    assert not can_fit(untrained, LEADS)
    with pytest.raises(InputError, match=r"has 0 \(0 at lead time 96h"):
        fit_damped_persistence(untrained, CHANNELS, LEADS)


def test_a_gap_in_training_costs_the_pairs_across_it():
    store = RedNoise()
    kept = np.delete(np.arange(400), [100])
    store.times, store.state = store.times[kept], store.state[kept]
    assert fit_damped_persistence(store, CHANNELS, [24]).starts == 299 - 2


def test_values_that_are_not_finite_are_refused():
    store = RedNoise()
    store.state[7, 2] = np.inf
    with pytest.raises(InputError, match=r"not finite: t500 at 2001-01-08"):
        fit_damped_persistence(store, CHANNELS, LEADS)


@pytest.mark.parametrize("window", [61, None])
def test_real_weather_is_forecast_better_than_by_persistence_or_climatology(real_data, tmp_path, window):
    channels = EUROPE_CHANNELS
    store = europe_store(real_data, tmp_path / "store.zarr", window)
    fit = fit_damped_persistence(store, channels, (24, 72))
    inits = store.times[store.periods["test"].contains(store.times)][:-3]
    now = states_at(store, channels, inits)
    weights = store.grid.area_weights / store.grid.area_weights.sum()
    for i, hours in enumerate(fit.lead_times):
        valid = inits + np.timedelta64(hours, "h")
        observed, normal = states_at(store, channels, valid), normals_at(store, channels, valid)
        given = (fit.forecast(now - normals_at(store, channels, inits), normal, i), now, normal)
        rmse = [np.sqrt((np.square(x - observed, dtype=np.float64) * weights).sum((2, 3)).mean(0)) for x in given]
        assert (rmse[0] < 0.98 * rmse[1]).all()  # measured: 0.93 to 0.97 at 24 h, 0.81 to 0.92 at 72 h
        assert (rmse[0] < 0.98 * rmse[2]).all()  # measured: 0.44 to 0.68 at 24 h, 0.67 to 0.95 at 72 h
