from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.evaluation.metrics import spatial_means as spatial
from weatherfm.evaluation.metrics.array_scores import ArrayScores
from weatherfm.evaluation.metrics.case_sums import AggregationState, mean_over_cases
from weatherfm.evaluation.metrics.deterministic import wind_vector_rmse
from weatherfm.evaluation.metrics.on_device import squared_error_sum
from weatherfm.evaluation.regions import default_regions, mean_weights

GRID = regular_grid((6, 8))
CHANNELS = ("z500", "t850")


def fields(seed: int, cases: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(280, 10, (cases, len(CHANNELS), *GRID.shape)).astype(np.float32)


def scored(forecast, truth, climatology=None, grid=GRID, channels=CHANNELS, **settings) -> dict[str, np.ndarray]:
    verification = ArrayScores(grid, channels, [24], **settings)
    verification.update(forecast, truth, climatology)
    return verification.metrics()


def test_perfect_forecast():
    truth = fields(0)
    metrics = scored(truth, truth, fields(1))
    for name in ("rmse", "mse", "mae", "bias"):
        assert (metrics[name] == 0).all(), name
    np.testing.assert_allclose(metrics["acc"], 1, rtol=1e-14)
    assert metrics["rmse"].shape == (len(default_regions(GRID)), 1, 2)
    assert set(metrics) == {"rmse", "mse", "mae", "bias", "acc", "acc_centred", "activity", "activity_ratio"}


def test_constant_error():
    truth = fields(0).astype(np.float64)
    metrics = scored(truth - 3, truth)
    np.testing.assert_allclose(metrics["bias"], -3, rtol=1e-12)
    np.testing.assert_allclose(metrics["mae"], 3, rtol=1e-12)
    np.testing.assert_allclose(metrics["rmse"], 3, rtol=1e-12)
    np.testing.assert_allclose(metrics["mse"], 9, rtol=1e-12)
    assert "acc" not in metrics


def test_by_hand_on_two_points():
    # One column of interest: rows at 45 N and 45 S, area weights equal; two longitudes alike.
    grid = Grid(np.array([45.0, -45.0]), np.array([0.0, 180.0]))
    truth = np.array([[1.0, 1.0], [3.0, 3.0]])[None, None]
    forecast = np.array([[2.0, 2.0], [1.0, 1.0]])[None, None]  # errors 1 and -2
    climatology = np.array([[0.0, 0.0], [2.0, 2.0]])[None, None]  # anomalies: forecast 2, -1; truth 1, 1
    metrics = scored(forecast, truth, climatology, grid, ["t2m"], regions=["global"])
    expected = {"mse": 2.5, "rmse": np.sqrt(2.5), "mae": 1.5, "bias": -0.5, "acc": 0.5 / np.sqrt(2.5)}
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], [[[value]]], rtol=1e-14, err_msg=name)


def test_area_weights_count():
    # An error in one row alone: the mean squared error is its share of the sphere.
    truth = np.zeros((1, 2, *GRID.shape))
    forecast = truth.copy()
    forecast[:, :, 0] = 1  # 60 .. 90 N
    share = (1 - np.sin(np.deg2rad(60))) / 2
    metrics = scored(forecast, truth, regions=["global", "southern_extratropics"])
    np.testing.assert_allclose(metrics["mse"][0], share, rtol=1e-12)
    assert (metrics["mse"][1] == 0).all()


def test_the_root_is_taken_after_the_mean_over_cases():
    truth = np.zeros((2, 2, *GRID.shape))
    forecast = truth.copy()
    forecast[0] = 4  # errors 4 and 0: root of the mean 8, but 2 as the mean of the roots
    metrics = scored(forecast, truth)
    np.testing.assert_allclose(metrics["rmse"], np.sqrt(8), rtol=1e-14)


def test_anomaly_correlation_pools_cases():
    # Case 1 has anomalies 10 times larger and is uncorrelated; a mean of correlations would give 0.5.
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((2, 2, *GRID.shape))
    forecast = truth.copy()
    truth[1] *= 10
    forecast[1] = 10 * np.roll(truth[1], 3, axis=-1) / 10
    forecast[1] -= (
        truth[1]
        * (forecast[1] * truth[1] * GRID.area_weights).sum((-2, -1), keepdims=True)
        / (np.square(truth[1]) * GRID.area_weights).sum((-2, -1), keepdims=True)
    )
    metrics = scored(forecast, truth, np.zeros_like(truth), regions=["global"])
    pooled = (forecast * truth * GRID.area_weights).sum((0, 2, 3)) / np.sqrt(
        (np.square(forecast) * GRID.area_weights).sum((0, 2, 3)) * (np.square(truth) * GRID.area_weights).sum((0, 2, 3))
    )
    np.testing.assert_allclose(metrics["acc"][0, 0], pooled, rtol=1e-12)
    assert (metrics["acc"] < 0.1).all()


def test_climatology_has_no_anomaly_correlation():
    climatology = fields(1)
    metrics = scored(climatology, fields(0), climatology)
    assert np.isnan(metrics["acc"]).all()
    assert np.isfinite(metrics["rmse"]).all()


def test_a_climatology_out_of_last_bits_has_no_anomaly_correlation():
    """Scored as a forecast it had -0.42 or 0.17."""
    climatology = (5.4e4 + 100 * fields(1)).astype(np.float32)
    forecast = np.nextafter(climatology, np.float32(np.inf))
    metrics = scored(forecast, climatology + 300 * fields(0).astype(np.float32), climatology)
    assert np.isnan([metrics["acc"], metrics["acc_centred"]]).all()
    assert (metrics["activity"] > 0).all()


def test_centred_correlation_is_of_anomalies_less_their_mean_of_each_case():
    forecast, truth, climatology = fields(0, 5), fields(1, 5) + 3, fields(2, 5)
    weights = GRID.area_weights / GRID.area_weights.sum()
    own, true = forecast - climatology, truth - climatology
    own, true = (x - (x * weights).sum((-2, -1), keepdims=True) for x in (own, true))
    sums = [(x * y * weights).sum((0, 2, 3)) for x, y in ((own, true), (own, own), (true, true))]
    metrics = scored(forecast, truth, climatology, regions=["global"])
    np.testing.assert_allclose(metrics["acc_centred"][0, 0], sums[0] / np.sqrt(sums[1] * sums[2]), rtol=1e-6)
    shifted = scored(forecast + 10, truth, climatology, regions=["global"])
    np.testing.assert_allclose(shifted["acc_centred"], metrics["acc_centred"], rtol=1e-6)
    assert (np.abs(shifted["acc"] - metrics["acc"]) > 0.01).any()
    same = scored(climatology + 2, truth, climatology, regions=["global"])
    assert np.isnan(same["acc_centred"]).all()


def test_single_precision_fields_are_summed_in_double():
    truth = np.full((4, 2, *GRID.shape), 5.4e4, np.float32)
    metrics = scored(truth + np.float32(0.0625), truth)
    np.testing.assert_allclose(metrics["rmse"], 0.0625, rtol=1e-13)


@pytest.mark.parametrize("cuts", [[], [1], [3], [1, 2], [2, 5, 6], [1, 2, 3, 4, 5, 6]])
def test_any_partition_of_the_cases_gives_the_whole(cuts):
    forecast, truth, climatology = fields(0, 7), fields(1, 7), fields(2, 7)
    whole = ArrayScores(GRID, CHANNELS, [24])
    whole.update(forecast, truth, climatology)
    state = AggregationState(1, 1)
    for start, stop in itertools.pairwise([0, *cuts, 7]):
        part = ArrayScores(GRID, CHANNELS, [24])
        part.update(forecast[start:stop], truth[start:stop], climatology[start:stop])
        state = part.state + state
    assert state.cases == 7
    for name, values in state.sums.items():
        np.testing.assert_allclose(values, whole.state.sums[name], rtol=1e-12, err_msg=name)


def test_groups_of_cases_stay_apart():
    state = AggregationState(3, 2)
    state.add(1, np.array([0, 2, 0]), {"error": np.array([1.0, 10.0, 3.0])})
    np.testing.assert_array_equal(state.cases, [[0, 2], [0, 0], [0, 1]])
    mean = mean_over_cases(state.sums["error"], state.cases)
    np.testing.assert_array_equal(mean[:, 1], [2, np.nan, 10])
    assert np.isnan(mean[:, 0]).all()


def test_activity_is_that_of_the_anomaly():
    climatology = fields(0).astype(np.float64)
    truth = climatology + 4
    metrics = scored(climatology - 2, truth, climatology)
    np.testing.assert_allclose(metrics["activity"], 2, rtol=1e-12)
    np.testing.assert_allclose(metrics["activity_ratio"], 0.5, rtol=1e-12)
    np.testing.assert_allclose(metrics["acc"], -1, rtol=1e-12)


def test_wind_vector_error_is_the_length_of_the_difference():
    rng = np.random.default_rng(0)
    errors = rng.standard_normal((2, 1000))
    expected = np.sqrt(np.mean(np.hypot(*errors) ** 2))
    np.testing.assert_allclose(wind_vector_rmse(*np.square(errors).mean(1)), expected, rtol=1e-12)


def test_a_rotated_field_scores_the_same():
    """Turned round the pole together, forecast and truth are as far apart as before."""
    forecast, truth, climatology = (np.roll(fields(seed), 3, axis=-1) for seed in (0, 1, 2))
    turned = scored(forecast, truth, climatology)
    for name, values in scored(fields(0), fields(1), fields(2)).items():
        np.testing.assert_allclose(values, turned[name], rtol=1e-12, err_msg=name)


def test_lead_times_and_channels_stay_apart():
    truth = fields(0).astype(np.float64)
    verification = ArrayScores(GRID, CHANNELS, [24, 48, 72], ["global"])
    error = np.array([1.0, 2.0])[:, None, None]
    verification.update(truth + error, truth, lead_index=0)
    verification.update(truth + 10 * error, truth, lead_index=2)
    bias = verification.metrics()["bias"]
    np.testing.assert_allclose(bias[0, [0, 2]], [[1, 2], [10, 20]], rtol=1e-12)
    assert np.isnan(bias[0, 1]).all()  # nothing was scored there


def test_nothing_scored_is_nan():
    assert np.isnan(ArrayScores(GRID, CHANNELS, [24]).metrics()["rmse"]).all()


def test_a_value_that_is_not_finite_shows():
    truth = fields(0)
    forecast = truth.copy()
    forecast[3, 1, 2, 2] = np.nan
    rmse = scored(forecast, truth, regions=["global"])["rmse"]
    assert np.isnan(rmse[0, 0, 1])
    assert rmse[0, 0, 0] == 0


@pytest.mark.parametrize(("columns", "values"), [(5, 7), (48, 96), (1, 1)])
def test_pieces_do_not_change_the_result(monkeypatch, columns, values):
    whole = scored(fields(0), fields(1), fields(2))
    monkeypatch.setattr(spatial, "_COLUMNS", columns)
    monkeypatch.setattr(spatial, "_VALUES", values)
    for name, found in scored(fields(0), fields(1), fields(2)).items():
        np.testing.assert_allclose(found, whole[name], rtol=1e-12, err_msg=name)


def test_refuses_what_does_not_belong_together():
    verification = ArrayScores(GRID, CHANNELS, [24])
    with pytest.raises(ValueError, match="shapes"):
        verification.update(fields(0), fields(0)[:, :, :3])
    with pytest.raises(ValueError, match="shapes"):
        verification.update(fields(0)[:, :1], fields(0)[:, :1])
    verification.update(fields(0), fields(1))
    with pytest.raises(ValueError, match="climatology"):
        verification.update(fields(0), fields(1), fields(2))
    with pytest.raises(ValueError, match="do not belong together"):
        AggregationState(1, 1) + AggregationState(1, 2)
    with pytest.raises(ValueError, match="do not belong together"):
        verification.state.add(0, np.zeros(1, int), {n: np.ones((1, 3)) for n in verification.state.sums})
    other = AggregationState(1, 1)
    other.add(0, np.zeros(1, int), {"error": np.ones((1, 4, 2))})
    with pytest.raises(ValueError, match="only some of the cases have absolute_error"):
        verification.state + other


def test_the_squared_error_on_a_device_is_that_of_evaluation():
    grid = regular_grid((6, 12))
    forecast, truth = np.random.default_rng(5).normal(280, 10, (2, 3, 4, 6, 12)).astype(np.float32)
    scores = ArrayScores(grid, ["a", "b", "c", "d"], [24], ["global"])
    scores.update(forecast, truth)
    weights = torch.from_numpy(mean_weights(grid, ["global"])[0])
    found = squared_error_sum(torch.from_numpy(forecast), torch.from_numpy(truth), weights)
    np.testing.assert_allclose(found.numpy(), scores.sums("squared_error")[0, 0], rtol=1e-13)
