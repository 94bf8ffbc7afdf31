from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr
from europe_store import EUROPE_CHANNELS, europe_store
from small_store import CHANNELS, SmallStore, TestModel, days, drift

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.store_config import Period
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines import ridge_memory
from weatherfm.evaluation.baselines import ridge_predictors as predictors_module
from weatherfm.evaluation.baselines import ridge_regression as ridge_module
from weatherfm.evaluation.baselines.damped_persistence import fit_damped_persistence
from weatherfm.evaluation.baselines.persistence_and_climatology import normals_at, states_at
from weatherfm.evaluation.baselines.principal_components import principal_components
from weatherfm.evaluation.baselines.ridge_memory import channels_together, memory_needed
from weatherfm.evaluation.baselines.ridge_predictors import ridge_predictors
from weatherfm.evaluation.baselines.ridge_regression import fit_ridge_regression
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast_config import EvaluationConfig, ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import make_forecast
from weatherfm.evaluation.results.lookup import baselines_of, probabilistic_baselines_of, provenance_of
from weatherfm.evaluation.results.score_card import references_of

LEADS = (24, 48)
GRID = regular_grid((4, 8))


class Moving(SmallStore):
    """Long waves that move east by a point a day and fade, under a little noise; training days first."""

    def __init__(self, count: int = 400, train: int = 300, seed: int = 0) -> None:
        super().__init__(GRID, 2)
        self.times = days("2001-01-01", count)
        rng = np.random.default_rng(seed)
        angle = np.deg2rad(GRID.longitude)
        waves = np.stack([np.ones(8), np.sqrt(2) * np.cos(angle), np.sqrt(2) * np.sin(angle)]) / np.sqrt(3)
        shape = (count, len(CHANNELS), *GRID.shape)
        anomaly = np.broadcast_to((rng.standard_normal((*shape[:2], 3)) @ waves)[:, :, None], shape).copy()
        for i in range(1, count):
            anomaly[i] = 0.9 * np.roll(anomaly[i - 1], 1, axis=-1) + np.sqrt(0.19) * anomaly[i]
        anomaly += 0.1 * rng.standard_normal(shape)
        self.state = (self._normal(self.times) + self.std[:, None, None] * anomaly).astype(np.float32)
        last = self.times[train - 1].astype("datetime64[D]")
        self.periods["train"] = Period.model_validate(f"2001-01-01/{last}")

    @property
    def anomalies(self) -> np.ndarray:
        return self.state.astype(np.float64) - self.climatology_at(self.times)


def fitted(store, leads=LEADS, inits=slice(310, 330), channels=CHANNELS, **options):
    known = ridge_predictors(store, CHANNELS, leads, store.times[inits], **options)
    return known, fit_ridge_regression(store, channels, known)


@pytest.fixture(scope="module")
def store():
    return Moving()


@pytest.fixture(scope="module")
def fit(store):
    return fitted(store)


def test_components_against_a_singular_value_decomposition(store):
    """Of fewer fields than values, and of more."""
    area = GRID.area_weights
    for count in (60, 300):
        fields = store.anomalies[:count]
        size = np.sqrt((np.square(fields) * area).mean((0, 2, 3), keepdims=True))
        scaled = (fields / size * np.sqrt(area / fields[0].size)).reshape(count, -1)
        expected = np.linalg.svd(scaled, full_matrices=False)
        found = principal_components(fields.astype(np.float32), area, 20)
        np.testing.assert_allclose(found.variance, expected.S[:20] ** 2 / count, rtol=1e-4)
        scores = found.of(fields)
        np.testing.assert_allclose(np.square(scores).mean(0), found.variance, rtol=1e-4)
        overlap = (scores / np.linalg.norm(scores, axis=0)).T @ expected.U[:, :20]
        np.testing.assert_allclose(np.abs(np.diag(overlap)), 1, atol=1e-3)
        assert found.share == pytest.approx(np.square(expected.S[:20]).sum() / np.square(expected.S).sum(), rel=1e-4)


def test_what_does_not_vary_is_no_component(store):
    fields = store.anomalies[:50].astype(np.float32)
    fields[:, 1:] = 0
    found = principal_components(fields, GRID.area_weights, 200)
    assert len(found.vectors) <= 32
    np.testing.assert_array_equal(found.vectors[:, 1:], 0)


def test_where_nothing_varies_the_forecast_is_the_climatology(store):
    """As of an ice-free sea that is scored alone; with a traceback before."""
    still = Moving(60, 60)
    still.state = still._normal(still.times).astype(np.float32)
    known, ridge = fitted(still, (24,), slice(2, 5))
    assert (known.now.shape, known.components.share) == ((3, 1), 0)
    normal = still.climatology_at(still.times[3:6])
    made = ridge.forecast(still.times[2:5], normal, 0)
    np.testing.assert_array_equal(made.mean, normal)
    np.testing.assert_array_equal(made.std, 0)


def test_against_least_squares_with_augmented_rows(store, fit):
    """Ridge regression is least squares with sqrt(n k) I below the predictors and zeros below the target."""
    known, ridge = fit
    n, width = known.train.shape
    assert (n, width) == (298, 298 // 4)
    x = known.components.of(store.anomalies[:298].astype(np.float32))
    np.testing.assert_allclose(known.train, x, rtol=1e-6)
    for lead, days_ahead in enumerate((1, 2)):
        y = store.anomalies[days_ahead : 298 + days_ahead]
        for channel in range(len(CHANNELS)):
            augmented = np.sqrt(n * ridge.penalties[lead, channel]) * np.eye(width)
            target = np.concatenate([y[:, channel].reshape(n, -1), np.zeros((width, 32))])
            expected = np.linalg.lstsq(np.concatenate([x, augmented]), target, rcond=None)[0]
            scale = np.abs(expected).max()
            found = ridge.coefficients[lead, :, channel].reshape(width, -1)
            np.testing.assert_allclose(found, expected, atol=1e-5 * scale)


def test_penalty_and_spread_are_those_of_held_out_blocks(store, fit):
    """Each fifth of the days forecast from the other four, one penalty after the other."""
    known, ridge = fit
    n, width = known.train.shape
    y = store.anomalies[2 : n + 2]
    area = GRID.area_weights
    for channel in range(2):
        target = y[:, channel].reshape(n, -1)
        errors = []
        for penalty in ridge_module._PENALTIES:
            squares = np.zeros(32)
            for block in np.array_split(np.arange(n), 5):
                rest = np.setdiff1d(np.arange(n), block)
                x = known.train[rest]
                b = np.linalg.solve(x.T @ x + len(rest) * penalty * np.eye(width), x.T @ target[rest])
                squares += np.square(known.train[block] @ b - target[block]).sum(0)
            errors.append(squares / n)
        best = int(np.argmin([(e * area.ravel()).sum() for e in errors]))
        assert ridge.penalties[1, channel] == ridge_module._PENALTIES[best]
        np.testing.assert_allclose(ridge.std[1, channel].ravel(), np.sqrt(errors[best]), rtol=1e-5)


def test_the_forecast_knows_the_day_and_how_sure_it_is(store):
    """No better forecast of such weather exists than the moved and damped waves, and their error is known."""
    _, ridge = fitted(store, inits=slice(305, 395))
    inits = store.times[305:395]
    for lead, days_ahead in enumerate((1, 2)):
        valid = inits + np.timedelta64(days_ahead, "D")
        found = ridge.forecast(inits, normals_at(store, CHANNELS, valid), lead)
        assert (found.mean.dtype, found.mean.shape) == (np.float32, (90, *store.state.shape[1:]))
        error = (found.mean - states_at(store, CHANNELS, valid)) / store.std[:, None, None]
        best = np.sqrt(1 - 0.9 ** (2 * days_ahead) + 0.1**2)
        rmse = np.sqrt(np.square(error).mean())
        assert rmse == pytest.approx(best, rel=0.1)
        assert np.sqrt(np.square(found.std / store.std[:, None, None]).mean()) == pytest.approx(rmse, rel=0.1)


def test_some_of_the_cases_and_channels(store, fit):
    known, ridge = fit
    normal = normals_at(store, CHANNELS, store.times[312:314] + np.timedelta64(1, "D"))
    both = ridge.forecast(store.times[312:314], normal, 0)
    one = ridge.forecast(store.times[313:314], normal[1:], 0)
    np.testing.assert_allclose(one.mean, both.mean[1:], rtol=1e-6)
    some = fit_ridge_regression(store, ["t2m", "z500"], known)
    np.testing.assert_allclose(some.std, ridge.std[:, [3, 0]], rtol=1e-6)
    np.testing.assert_array_equal(some.penalties, ridge.penalties[:, [3, 0]])


def test_blocks_and_parts_do_not_change_the_fit(store, fit, monkeypatch):
    for module in (ridge_module, predictors_module):
        monkeypatch.setattr(module, "_READ_BYTES", 1)
    monkeypatch.setattr(ridge_memory, "SUMS_BYTES", 1)
    _, again = fitted(store)
    scale = np.abs(fit[1].coefficients).max((1, 3, 4), keepdims=True)
    assert (np.abs(again.coefficients - fit[1].coefficients) < 1e-4 * scale).all()
    np.testing.assert_allclose(again.std, fit[1].std, rtol=1e-5)


def test_days_after_training_do_not_matter(fit):
    changed = Moving()
    changed.state[300:305] = np.nan
    changed.state[330:] = np.nan
    _, ridge = fitted(changed)
    np.testing.assert_array_equal(ridge.coefficients, fit[1].coefficients)
    np.testing.assert_array_equal(ridge.std, fit[1].std)
    np.testing.assert_array_equal(ridge.predictors, fit[1].predictors)


def test_earlier_input_times_stand_side_by_side(store):
    known, ridge = fitted(store, input_times=(-24, 0))
    assert ridge.coefficients.shape[1] == known.now.shape[1] == 2 * (297 // 8)
    width = known.now.shape[1] // 2
    for side, shift in enumerate((1, 0)):
        fields = store.anomalies[310 - shift : 330 - shift].astype(np.float32)
        expected = known.components.of(fields)
        np.testing.assert_allclose(known.now[:, side * width : (side + 1) * width], expected, rtol=1e-5, atol=1e-6)
    assert ridge.starts == 297  # the day before the first is not there


def test_it_travels(fit):
    copy = pickle.loads(pickle.dumps(fit[1]))
    assert (copy.lead_times, copy.starts) == (LEADS, 298)
    np.testing.assert_array_equal(copy.coefficients, fit[1].coefficients)


def test_masked_points_have_no_spread_and_do_not_matter(store, fit):
    masked = Moving()
    masked.masks = {"t2m": np.zeros(GRID.shape, bool)}
    masked.masks["t2m"][1, :3] = True
    masked.state[:, 3, 1, :3] = np.nan
    _, ridge = fitted(masked)
    np.testing.assert_array_equal(ridge.std[:, 3, 1, :3], 0)
    np.testing.assert_array_equal(ridge.coefficients[:, :, 3, 1, :3], 0)
    assert np.isfinite(ridge.coefficients).all()
    assert (ridge.std[:, 3, 2] > 0).all()


def test_long_training_is_thinned_and_all_hours_stay(store, monkeypatch):
    monkeypatch.setattr(predictors_module, "_STARTS", 100)
    assert len(ridge_predictors(store, CHANNELS, LEADS, store.times[310:311]).starts) == 100  # every third of 298
    halves = Moving()
    halves.step_hours = 12
    halves.times = np.datetime64("2001-01-01", "s") + np.arange(400) * np.timedelta64(12, "h")
    halves.periods["train"] = Period.model_validate("2001-01-01/2001-05-30")
    starts = ridge_predictors(halves, CHANNELS, LEADS, halves.times[330:331]).starts
    hours = starts.astype("datetime64[h]").astype(int) % 24
    assert len(starts) <= 100
    assert abs((hours == 0).sum() - (hours == 12).sum()) <= 1


def test_too_few_training_days_are_refused():
    store = Moving(120, 51)
    with pytest.raises(InputError, match=r"needs 50 start times .* has 49 \(train is 2001-01-01/2001-02-20\)"):
        fitted(store, inits=slice(80, 90))
    with pytest.raises(InputError, match=r"needs 100 start times"):
        fitted(Moving(120, 90), inits=slice(100, 110), input_times=(0, -24))
    assert store.reads == []


def test_cases_without_their_input_times_are_refused(store):
    with pytest.raises(InputError, match=r"states at -24h, and small.zarr lacks 1 of them, the first is 2000-12-31"):
        fitted(store, inits=slice(0, 3), input_times=(-24, 0))


def test_what_does_not_fit_into_memory_is_refused_with_numbers(store):
    needed = memory_needed(4, 32, 298, 74, 2)
    assert needed == max(4 * 128 * (298 + 74) + 16 * 128**2, 4 * 128 * 2 * 74 + 4 * 72 * 74 * 32)
    assert channels_together(69, 2048, 400) == 9
    assert channels_together(3, 721 * 1440, 400) == 1
    known = ridge_predictors(store, CHANNELS, LEADS, store.times[310:311], memory=needed)
    assert known.train.shape == (298, 74)
    with pytest.raises(InputError, match=r"would need 0\.00\d+ GiB of memory for 298 fields of 4 channels .* 74 coeff"):
        ridge_predictors(store, CHANNELS, LEADS, store.times[310:311], memory=needed - 1)


def test_values_that_are_not_finite_are_refused():
    store = Moving()
    store.state[7, 2] = np.inf
    with pytest.raises(InputError, match=r"not finite: t500 at 2001-01-08"):
        fitted(store)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"ridge_regression": True, "ridge_times": ["6h"]}, "0h and before"),
        ({"ridge_regression": True, "ridge_times": ["-24h", "-24h"]}, "each once"),
        ({"ridge_times": ["-24h"]}, "not scored"),
    ],
)
def test_settings_that_cannot_be(settings, text):
    with pytest.raises(InputError, match=text):
        parse_settings(EvaluationConfig, settings, "run.yaml")


def test_scores_beside_a_single_forecast(store, tmp_path):
    """It is a baseline with a forecast of its own and, closed, with the scores of an ensemble; in any grouping."""
    config = ForecastConfig(lead_times=["24h", "48h"])
    inits = store.times[310:330]
    path = make_forecast(TestModel(store.domain(), drift), store, inits, config, tmp_path / "f.zarr", {})
    settings = EvaluationConfig(
        ridge_regression=True,
        ridge_times=["-24h", "0h"],
        damped_persistence=False,
        events=["t850 > 280"],
    )
    scores = evaluate(path, store, settings=settings)
    assert scores["forecast"].values.tolist() == ["model", "persistence", "climatology", "ridge_regression"]
    assert scores["members"].values.tolist() == [1, 1, 1, 0]
    assert baselines_of(scores) == ["persistence", "climatology", "ridge_regression"]
    assert probabilistic_baselines_of(scores) == ["ridge_regression"]
    assert ("rmse", "ridge_regression") in references_of(scores, "model")
    own = scores.sel(forecast="ridge_regression", period="all", region="global")
    _, ridge = fitted(store, input_times=(-24, 0))
    weights = GRID.area_weights / GRID.area_weights.sum()
    for lead, days_ahead in enumerate((1, 2)):
        valid = inits + np.timedelta64(days_ahead, "D")
        found = ridge.forecast(inits, normals_at(store, CHANNELS, valid), lead)
        mse = (np.square(found.mean.astype(float) - states_at(store, CHANNELS, valid)) * weights).sum((2, 3)).mean(0)
        np.testing.assert_allclose(own["rmse"].isel(lead_time=lead), np.sqrt(mse), rtol=1e-5)
        spread = np.sqrt((np.square(found.std.astype(float)) * weights).sum((1, 2)))
        np.testing.assert_allclose(own["ensemble_spread"].isel(lead_time=lead), spread, rtol=1e-5)
        np.testing.assert_allclose(own["spread_skill_ratio"].isel(lead_time=lead), spread / np.sqrt(mse), rtol=1e-5)
    xr.testing.assert_equal(own["crps"].drop_attrs(), own["crps_fair"].rename("crps").drop_attrs())
    assert (own["crps"] < 0.8 * own["mae"]).all()  # of a Gaussian that is right, 1 / sqrt(2)
    assert (own["brier"] < scores["brier"].sel(forecast="climatology", period="all", region="global")).all()
    assert "of 4 channels at -24h, 0h" in provenance_of(scores)["baselines"]["ridge_regression"]


def test_real_weather_is_forecast_better_than_by_damped_persistence(real_data, tmp_path):
    store = europe_store(real_data, tmp_path / "store.zarr", 61)
    inits = store.times[store.periods["test"].contains(store.times)][1:-1]
    known = ridge_predictors(store, EUROPE_CHANNELS, (24,), inits, (0, -24), most=100)
    ridge = fit_ridge_regression(store, EUROPE_CHANNELS, known)
    valid = inits + np.timedelta64(24, "h")
    found = ridge.forecast(inits, normals_at(store, EUROPE_CHANNELS, valid), 0)
    damped = fit_damped_persistence(store, EUROPE_CHANNELS, (24,))
    anomaly = states_at(store, EUROPE_CHANNELS, inits) - normals_at(store, EUROPE_CHANNELS, inits)
    fields = found.mean, damped.forecast(anomaly, normals_at(store, EUROPE_CHANNELS, valid), 0)
    errors = [np.square(field - states_at(store, EUROPE_CHANNELS, valid), dtype=np.float64) for field in fields]
    ridge_rmse, damped_rmse = (np.sqrt((error * store.grid.area_weights).mean((0, 2, 3))) for error in errors)
    assert (ridge_rmse < 0.9 * damped_rmse).all()  # measured: 0.81 to 0.86
    spread = np.sqrt((np.square(found.std) * store.grid.area_weights).mean((1, 2)))
    np.testing.assert_allclose(spread, ridge_rmse, rtol=0.1)
