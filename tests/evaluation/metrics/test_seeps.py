"""SEEPS and its climatology, against the paper's matrix and properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from synthetic_files import field, write_netcdf

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import DataConfig, Period
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines.seeps_climatology import dry_threshold, seeps_climatology
from weatherfm.evaluation.metrics.case_sums import AggregationState, mean_over_cases
from weatherfm.evaluation.metrics.seeps import SeepsClimatology, seeps_means, seeps_metrics
from weatherfm.evaluation.regions import mean_weights

GRID = regular_grid((6, 12))
DRY, LIGHT, HEAVY = 1e-4, 1e-3, 1e-2
"""m, one amount of each category of `climate`."""


def climate(p1: float | np.ndarray, grid: Grid = GRID) -> SeepsClimatology:
    """The same probability in all months; heavy from 5 mm on."""
    shape = (12, *grid.shape)
    return SeepsClimatology(np.broadcast_to(p1, shape), np.full(shape, 5e-3, np.float32), dry_threshold(24), 24)


def score(forecast, truth, climatology, regions=("global",), months=None, grid=GRID) -> np.ndarray:
    """[R] SEEPS of all cases."""
    months = np.full(len(forecast), 1) if months is None else months
    means = seeps_means(forecast, truth, months, climatology, mean_weights(grid, regions))
    assert {name: values.shape for name, values in means.items()} == dict.fromkeys(
        ("seeps_sum", "seeps_weight"), (len(forecast), len(regions))
    )
    return seeps_metrics({name: values.mean(0) for name, values in means.items()})["seeps"]


def everywhere(amount: float, cases: int = 1) -> np.ndarray:
    return np.full((cases, *GRID.shape), amount)


def drawn(p1: float, cases: int, seed: int) -> np.ndarray:
    """Amounts at random with the climatological frequencies."""
    frequencies = [p1, 2 * (1 - p1) / 3, (1 - p1) / 3]
    return np.random.default_rng(seed).choice([DRY, LIGHT, HEAVY], (cases, *GRID.shape), p=frequencies)


def test_matrix_by_hand():
    # p1 = 0.4: p3 = 0.2, so 1 / (1 - p1) = 5/3, 1 / p3 = 5, 1 / p1 = 2.5, 1 / (1 - p3) = 1.25
    expected = np.array([[0, 5 / 3, 20 / 3], [2.5, 0, 5], [3.75, 1.25, 0]]) / 2
    amounts = (DRY, LIGHT, HEAVY)
    found = [[score(everywhere(f), everywhere(o), climate(0.4)).item() for o in amounts] for f in amounts]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("p1", [0.1, 0.33, 0.85])
def test_a_constant_forecast_has_one_in_climatology(p1):
    """Exactly: the truth's categories are averaged with their climatological frequencies."""
    frequencies = np.array([p1, 2 * (1 - p1) / 3, (1 - p1) / 3])
    for forecast in (DRY, LIGHT, HEAVY):
        errors = [score(everywhere(forecast), everywhere(truth), climate(p1)).item() for truth in (DRY, LIGHT, HEAVY)]
        assert frequencies @ errors == pytest.approx(1, rel=1e-12)


def test_a_random_forecast_has_one_in_the_long_run():
    # 72,000 cases whose errors have a standard deviation of about 1.1: four standard errors are 0.016
    assert score(drawn(0.5, 1000, 1), drawn(0.5, 1000, 2), climate(0.5)) == pytest.approx(1, abs=0.016)


def test_a_perfect_forecast_has_none():
    rain = np.random.default_rng(0).gamma(0.3, 5e-3, (7, *GRID.shape)).astype(np.float32)
    assert score(rain, rain, climate(0.5)) == 0
    assert score(rain.astype(np.float64), rain, climate(0.5)) == 0  # an ensemble's mean comes in double precision


def test_amounts_on_a_threshold_belong_below_it():
    limits = climate(0.5)
    on_dry = everywhere(limits.dry_threshold)
    for precision in (np.float32, np.float64):
        assert score(on_dry.astype(precision), everywhere(0.0), limits) == 0
        assert score(everywhere(5e-3).astype(np.float32).astype(precision), everywhere(LIGHT), limits) == 0
    assert score(everywhere(np.nextafter(np.float32(5e-3), 1)), everywhere(LIGHT), limits) > 0


def test_points_that_are_hardly_ever_dry_or_wet_are_left_out():
    p1 = np.full(GRID.shape, 0.5)
    p1[:2], p1[2], p1[3] = 0.0999, 0.8501, np.nan  # northern four rows of six
    forecast = everywhere(HEAVY)
    forecast[:, :4] = np.nan  # not looked at
    weights = mean_weights(GRID, ["global", "northern_extratropics", "southern_extratropics"])
    means = seeps_means(forecast, everywhere(HEAVY), np.array([1]), climate(p1), weights)
    expected = GRID.area_weights[4:].sum() / GRID.area_weights.sum()
    np.testing.assert_allclose(means["seeps_weight"], [[expected, 0, 1]], rtol=1e-12)
    np.testing.assert_array_equal(seeps_metrics(means)["seeps"], [[0, np.nan, 0]])


def test_the_area_that_is_scored_has_all_the_weight():
    p1 = np.full(GRID.shape, 0.5)
    p1[1:] = 0.99
    wrong = everywhere(DRY)
    wrong[:, 0, :3] = LIGHT  # a quarter of the only row that is scored
    assert score(wrong, everywhere(DRY), climate(p1)) == pytest.approx(0.25 * 0.5 / 0.5, rel=1e-12)


def test_months_have_their_own_climatology():
    p1 = np.full((12, *GRID.shape), 0.5)
    p1[6] = 0.2
    p1[11] = 0.9
    months = np.array([7, 1, 12, 7])
    means = seeps_means(everywhere(LIGHT, 4), everywhere(DRY, 4), months, climate(p1), mean_weights(GRID, ["global"]))
    np.testing.assert_allclose(means["seeps_sum"][:, 0], [2.5, 1, 0, 2.5], rtol=1e-12)
    np.testing.assert_allclose(means["seeps_weight"][:, 0], [1, 1, 0, 1], rtol=1e-12)


def test_values_that_are_not_finite_are_not_dry():
    for value in (np.nan, np.inf):
        forecast = everywhere(DRY, 2)
        forecast[1, 3, 4] = value
        means = seeps_means(
            forecast, everywhere(DRY, 2), np.array([1, 1]), climate(0.5), mean_weights(GRID, ["global"])
        )
        np.testing.assert_array_equal(means["seeps_sum"], [[0], [np.nan]])


def test_any_partition_of_the_cases_merges_to_the_whole():
    rng = np.random.default_rng(3)
    forecast, truth = rng.gamma(0.3, 5e-3, (2, 40, *GRID.shape)).astype(np.float32)
    months, limits = rng.integers(1, 13, 40), climate(rng.uniform(0, 1, (12, *GRID.shape)))
    weights = mean_weights(GRID, ["global", "tropics", "northern_extratropics"])

    def state(cases):
        total = AggregationState(12, 1)
        total.add(0, months[cases] - 1, seeps_means(forecast[cases], truth[cases], months[cases], limits, weights))
        return total

    def result(total):
        return seeps_metrics({k: mean_over_cases(v.sum(0), total.cases.sum(0)) for k, v in total.sums.items()})["seeps"]

    parts = np.split(rng.permutation(40), [1, 5, 22])
    merged = result(state(parts[3]) + state(parts[0]) + (state(parts[2]) + state(parts[1])))
    np.testing.assert_allclose(merged, result(state(np.arange(40))), rtol=1e-12)


def test_large_fields_are_scored_in_pieces():
    grid = regular_grid((180, 360))
    rng = np.random.default_rng(4)
    forecast, truth = rng.gamma(0.3, 5e-3, (2, 3, *grid.shape)).astype(np.float32)
    whole = score(forecast, truth, climate(0.5, grid), ("global", "europe"), grid=grid)
    categories = [np.digitize(x, [dry_threshold(24), 5e-3], right=True) for x in (forecast, truth)]
    matrix = np.array([[0, 2, 8], [2, 0, 6], [3.2, 1.2, 0]]) / 2
    errors = matrix[categories[0], categories[1]].reshape(3, -1).mean(0)
    np.testing.assert_allclose(whole, mean_weights(grid, ["global", "europe"]) @ errors, rtol=1e-10)


class RainStore:
    """Precipitation in memory with the face of a store: gamma-distributed, drier to the south."""

    path = Path("rain.zarr")
    channels = ("t2m", "tp")
    grid = GRID
    masks: dict[str, np.ndarray] = {}

    def __init__(self, train: str | None = "2001-2003", hours: int | None = 24, step: int = 24) -> None:
        self.step_hours = step
        self.times = np.arange("2001-01-01", "2005-01-01", np.timedelta64(step, "h"), "datetime64[s]")
        self.periods = {"train": None if train is None else Period.model_validate(train)}
        self.manifest = {
            "channels": [{"name": "t2m", "accumulation_hours": None}, {"name": "tp", "accumulation_hours": hours}]
        }
        wetness = np.linspace(1.5, 0.15, GRID.shape[0])[:, None] + np.zeros(GRID.shape)
        rng = np.random.default_rng(5)
        self.rain = rng.gamma(wetness, 4e-3, (len(self.times), *GRID.shape)).astype(np.float32)
        self.most_fields = 0

    def read(self, indices, channels):
        assert channels == ["tp"]
        self.most_fields = max(self.most_fields, len(indices))
        return self.rain[indices][:, None]


def in_month(store: RainStore, month: int) -> np.ndarray:
    """[n, lat, lon] of the training days, by numpy alone."""
    months = store.times.astype("datetime64[M]").astype(int) % 12 + 1
    return store.rain[(months == month) & store.periods["train"].contains(store.times)]


def test_climatology_is_of_the_training_days_by_month():
    store = RainStore()
    found = seeps_climatology(store)
    assert (found.dry_threshold, found.accumulation_hours) == (float(np.float32(2.5e-4)), 24)
    for month in (1, 8):
        rain = in_month(store, month)
        np.testing.assert_array_equal(found.dry_probability[month - 1], (rain <= np.float32(2.5e-4)).mean(0))
        wet = np.where(rain > np.float32(2.5e-4), rain, np.nan)
        expected = np.nanquantile(wet.astype(np.float64), 2 / 3, axis=0)
        np.testing.assert_allclose(found.heavy_threshold[month - 1], expected, rtol=1e-6)  # kept in single precision


def test_light_is_twice_as_frequent_as_heavy():
    found, rain = seeps_climatology(RainStore(), least_wet=1), in_month(RainStore(), 5)
    heavy = (rain > found.heavy_threshold[4]).sum(0)
    light = (rain > found.dry_threshold).sum(0) - heavy
    assert (abs(light - 2 * heavy) <= 2).all()  # whole numbers of cases: off by less than one heavy case


def test_the_training_years_own_forecasts_score_one():
    """Always light, against the very cases that the climatology is of."""
    store = RainStore()
    found, rain = seeps_climatology(store), in_month(RainStore(), 5)
    light = np.broadcast_to((found.dry_threshold + found.heavy_threshold[4].astype(float)) / 2, rain.shape)
    # a threshold between two of some 50 wet cases divides them 2 : 1 to within one case
    assert score(light, rain, found, months=np.full(len(rain), 5)) == pytest.approx(1, abs=0.01)


def test_other_days_do_not_matter():
    store = RainStore()
    before = seeps_climatology(store)
    store.rain[~store.periods["train"].contains(store.times)] = np.nan
    after = seeps_climatology(store)
    np.testing.assert_array_equal(before.dry_probability, after.dry_probability)
    np.testing.assert_array_equal(before.heavy_threshold, after.heavy_threshold)


def test_bounded_memory_gives_the_same():
    whole, pieces = seeps_climatology(RainStore()), seeps_climatology(RainStore(), memory=4 * 93 * 5)
    np.testing.assert_array_equal(whole.dry_probability, pieces.dry_probability)
    np.testing.assert_array_equal(whole.heavy_threshold, pieces.heavy_threshold)


def test_reads_no_more_at_a_time_than_it_may(monkeypatch):
    monkeypatch.setattr("weatherfm.evaluation.baselines.seeps_climatology._BATCH_BYTES", 4 * 10 * np.prod(GRID.shape))
    store = RainStore()
    np.testing.assert_array_equal(
        seeps_climatology(store).heavy_threshold, seeps_climatology(RainStore()).heavy_threshold
    )
    assert store.most_fields == 10


def test_only_months_that_are_asked_for():
    found = seeps_climatology(RainStore(), months=[2, 8])
    has = np.isfinite(found.dry_probability).any((1, 2))
    assert (np.flatnonzero(has) + 1).tolist() == [2, 8]


def test_too_few_wet_cases_are_not_scored(caplog):
    store = RainStore()
    enough = seeps_climatology(store, least_wet=40)
    wet = (in_month(store, 5) > enough.dry_threshold).sum(0)
    np.testing.assert_array_equal(np.isfinite(enough.dry_probability[4]), wet >= 40)
    np.testing.assert_array_equal(np.isfinite(enough.heavy_threshold[4]), wet >= 40)
    assert 0 < (wet >= 40).sum() < wet.size
    assert caplog.text == ""
    few = seeps_climatology(RainStore("2001-01-01/2001-01-10"))
    assert "SEEPS is undefined everywhere" in caplog.text
    assert np.isnan(score(everywhere(DRY), everywhere(DRY), few)).all()


def test_dry_thresholds():
    assert dry_threshold(6) == np.float32(1e-4)
    assert dry_threshold(24) == np.float32(2.5e-4)
    assert dry_threshold(12) == pytest.approx(1e-4 * np.sqrt(2.5), rel=1e-6)  # single precision
    assert seeps_climatology(RainStore(hours=6, step=24), months=[]).dry_threshold == dry_threshold(6)
    assert seeps_climatology(RainStore(hours=None, step=12), months=[]).accumulation_hours == 12
    with pytest.raises(InputError, match="positive number of hours, got 0"):
        dry_threshold(0)


def test_refused():
    store = RainStore()
    store.channels = ("t2m", "z500")
    with pytest.raises(InputError, match=r"needs precipitation \(tp\).*rain.zarr does not have; it holds t2m z500"):
        seeps_climatology(store)
    with pytest.raises(InputError, match="names no training days; set train"):
        seeps_climatology(RainStore(train=None))
    with pytest.raises(InputError, match=r"holds no time of its training days .1990-01-01/1999-12-31."):
        seeps_climatology(RainStore(train="1990-1999"))
    store = RainStore()
    store.rain[40, 2, 3] = np.nan
    with pytest.raises(InputError, match="not finite everywhere; `weatherfm verify` names the times"):
        seeps_climatology(store)


def test_of_a_store_on_disk(tmp_path):
    times = np.arange("2020-01-01", "2020-03-01", np.timedelta64(6, "h"), "datetime64[h]").astype("datetime64[ns]")
    rain: xr.Dataset = field("tp", "m", times=times)
    rain["tp"].values[:] = np.random.default_rng(6).gamma(0.5, 2e-3, rain["tp"].shape)
    path = write_netcdf(tmp_path / "tp.nc", rain)
    settings = {
        "store": str(tmp_path / "store.zarr"),
        "source": {"kind": "files", "paths": [str(path)], "sums": "6h"},
        "channels": ["tp"],
        "train": "2020-01-01/2020-02-15",
        "climatology_window": None,
    }
    prepare(DataConfig.model_validate(settings))
    store = open_store(tmp_path / "store.zarr")
    found = seeps_climatology(store, least_wet=10)
    assert (found.accumulation_hours, found.dry_threshold) == (6, dry_threshold(6))
    assert found.scored()[:2].all()
    assert not found.scored()[2:].any()
    january = store.read(np.flatnonzero(store.times < np.datetime64("2020-02-01")))[:, 0]
    np.testing.assert_array_equal(found.dry_probability[0], (january <= np.float32(1e-4)).mean(0))
