"""Scores on the rows and points that all forecasts and the truth share, by hand."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr
from small_store import SmallStore

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.results.lookup import provenance_of
from weatherfm.evaluation.results.text_table import score_table
from weatherfm.evaluation.scoring import in_parts

GRID = Grid(np.linspace(90, -90, 9), np.arange(16) * 22.5)
LEADS = (24, 48)
SETTINGS = EvaluationConfig(regions=["global"], by=[], damped_persistence=False)


def store() -> SmallStore:
    return SmallStore(GRID, 12)


def truth() -> np.ndarray:
    """[init, lead, channel (z500, t2m), lat, lon] of eight initial times."""
    state = store().state[:, [0, 3]]
    return np.stack([state[np.arange(8) + hours // 24] for hours in LEADS], 1)


def written(path, fields, rows=slice(None), columns=slice(None)):
    """In WeatherBench2's layout."""
    dims = ("time", "prediction_timedelta", "latitude", "longitude")
    fields = fields[..., rows, columns].astype(np.float32)
    data = xr.Dataset(
        {
            "2m_temperature": (dims, fields[:, :, 1], {"units": "K"}),
            "geopotential": ((*dims[:2], "level", *dims[2:]), fields[:, :, :1], {"units": "m2 s-2"}),
        },
        {
            "time": store().times[:8].astype("datetime64[ns]"),
            "prediction_timedelta": np.array(LEADS, "m8[h]").astype("m8[ns]"),
            "level": [500],
            "latitude": GRID.latitude[rows],
            "longitude": GRID.longitude[columns],
        },
    )
    data.to_zarr(path, zarr_format=2, consolidated=True)
    return path


def by_hand(error: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """RMSE [lead, channel] of errors [init, lead, channel, lat, lon]."""
    return np.sqrt((np.square(error, dtype=np.float64) * weights).sum((-2, -1)).mean(0) / weights.sum())


def rmse_of(scores: xr.Dataset, name: str) -> np.ndarray:
    return scores["rmse"].sel(forecast=name, region="global", period="all", channel=["z500", "t2m"]).values


@pytest.fixture(scope="module")
def errors():
    return np.random.default_rng(0).normal(0, [[[30.0]], [[2.0]]], truth().shape)


@pytest.mark.parametrize(
    ("first", "second", "kept", "said"),
    [
        (slice(None), slice(0, -1), slice(0, -1), ["-90 N"]),
        (slice(1, None), slice(0, -1), slice(1, -1), ["90 N", "-90 N"]),
        (slice(1, -1), slice(1, -1), slice(1, -1), ["90 N", "-90 N"]),
    ],
    ids=["721 and 720", "without one pole each", "both without both"],
)
def test_rows_that_all_have(tmp_path, errors, first, second, kept, said):
    one = written(tmp_path / "one.zarr", truth() + errors, first)
    two = written(tmp_path / "two.zarr", truth() + 2 * errors, second)
    with pytest.raises(InputError, match=r"the grid of .* regrid the forecast"):
        evaluate(one, store(), [two], SETTINGS)
    scores = evaluate(one, store(), [two], SETTINGS, common=True)
    weights = Grid(GRID.latitude[kept], GRID.longitude).area_weights
    np.testing.assert_allclose(rmse_of(scores, "one"), by_hand(errors[..., kept, :], weights), rtol=1e-4)
    np.testing.assert_allclose(rmse_of(scores, "two"), by_hand(2 * errors[..., kept, :], weights), rtol=1e-4)
    now = np.stack([store().state[:8, [0, 3]]] * 2, 1)
    np.testing.assert_allclose(
        rmse_of(scores, "persistence"), by_hand((now - truth())[..., kept, :], weights), rtol=1e-5
    )
    np.testing.assert_array_equal(scores["latitude"], GRID.latitude[kept])
    assert provenance_of(scores)["left_out"] == {"rows": said}
    assert f"left out: rows {', '.join(said)}, which not all forecasts and the truth have" in score_table(scores)


def test_a_row_that_the_truth_lacks(tmp_path, errors):
    rows = slice(1, None)
    less = SmallStore(Grid(GRID.latitude[rows], GRID.longitude), 12)
    less.state, normal = store().state[..., rows, :], store().climatology_at
    less.climatology_at = lambda times, channels=None: normal(times, channels)[..., rows, :]
    scores = evaluate(written(tmp_path / "f.zarr", truth() + errors), less, settings=SETTINGS, common=True)
    np.testing.assert_allclose(rmse_of(scores, "f"), by_hand(errors[..., rows, :], less.grid.area_weights), rtol=1e-4)
    assert provenance_of(scores)["left_out"] == {"rows": ["90 N"]}


def test_points_without_a_value_in_one_forecast_are_scored_for_none(tmp_path, errors):
    gap = np.zeros(GRID.shape, bool)
    gap[2:4, 3:8] = True
    fields = truth() + errors
    fields[:, :, 1, gap] = np.nan
    one = written(tmp_path / "one.zarr", truth() + 2 * errors)
    two = written(tmp_path / "two.zarr", fields)
    with pytest.raises(InputError, match="a value that is not finite: t2m from 2020-01-01"):
        evaluate(one, store(), [two], SETTINGS)
    scores = evaluate(one, store(), [two], SETTINGS, common=True)
    seen = np.where(gap, 0, GRID.area_weights)
    for name, size in (("one", 2), ("two", 1)):
        expected = by_hand(size * errors, GRID.area_weights)
        expected[:, 1] = by_hand(size * errors, seen)[:, 1]
        np.testing.assert_allclose(rmse_of(scores, name), expected, rtol=1e-4)
    record = provenance_of(scores)
    assert record["left_out"] == {"points": ["10 of 144 points of t2m"]}
    assert "masked points of t2m are left out" in record["missing_data"]
    assert "left out: 10 of 144 points of t2m, which not all forecasts and the truth have" in score_table(scores)
    assert np.isnan(scores["spherical_spectrum"].sel(forecast="one", channel="t2m")).all()
    assert np.isfinite(scores["spherical_spectrum"].sel(forecast="one", channel="z500")).all()


def test_a_wind_is_scored_where_it_is_whole(tmp_path, errors):
    """A point that u lacks is left out of v, too: their squared errors are of the same points, and add up."""
    windy = store()
    windy.channels = ("z500", "t850", "u10", "v10")
    made = windy.state[np.arange(8) + 1][:, None, 2:] + errors[:, :1]
    gap = np.zeros(GRID.shape, bool)
    gap[1, 2] = gap[7, 9] = True
    made[:, :, 0, gap] = np.nan
    dims = ("time", "prediction_timedelta", "latitude", "longitude")
    names = {"10m_u_component_of_wind": made[:, :, 0], "10m_v_component_of_wind": made[:, :, 1]}
    data = xr.Dataset(
        {name: (dims, values.astype(np.float32), {"units": "m s-1"}) for name, values in names.items()},
        {
            "time": windy.times[:8].astype("datetime64[ns]"),
            "prediction_timedelta": np.array([24], "m8[h]").astype("m8[ns]"),
            "latitude": GRID.latitude,
            "longitude": GRID.longitude,
        },
    )
    data.to_zarr(tmp_path / "f.zarr", zarr_format=2)
    scores = evaluate(tmp_path / "f.zarr", windy, settings=SETTINGS, common=True)
    assert provenance_of(scores)["left_out"] == {"points": ["2 of 144 points of u10", "2 of 144 points of v10"]}
    seen = np.where(gap, 0, GRID.area_weights)
    expected = np.sqrt((by_hand(errors[:, :1], seen) ** 2).sum(-1))
    found = scores["wind_vector_rmse"].sel(forecast="f", region="global", period="all", wind="wind10m")
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_value_that_comes_and_goes_is_refused_by_name(tmp_path, errors):
    fields = truth() + errors
    fields[:, :, 1, 2] = np.nan
    fields[4, 1, 1, 6, 5:7] = np.nan
    path = written(tmp_path / "f.zarr", fields)
    said = r"t2m from 2020-01-05T00:00:00 at 48h; 2 points have no value here, and had one at the first time"
    with pytest.raises(InputError, match=said):
        evaluate(path, store(), settings=SETTINGS, common=True)
    fields[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="no point of z500 has a value in all forecasts and the truth"):
        evaluate(written(tmp_path / "g.zarr", fields), store(), settings=SETTINGS, common=True)


def test_grids_that_are_not_parts_of_one_are_refused(tmp_path, errors):
    fewer = written(tmp_path / "columns.zarr", truth() + errors, columns=slice(0, None, 2))
    with pytest.raises(InputError, match="regrid the forecast"):
        evaluate(fewer, store(), settings=SETTINGS, common=True)
    every_other = written(tmp_path / "rows.zarr", truth() + errors, slice(0, None, 2))
    with pytest.raises(InputError, match="share no run of rows with the truth's"):
        evaluate(every_other, store(), settings=SETTINGS, common=True)


@pytest.fixture
def cluster(monkeypatch):
    """Where an evaluation is sent: what travels is pickled."""

    def pretend(calls, workers, shared, scheduler):
        sent = pickle.loads(pickle.dumps(shared))
        yield from (call.function(sent, *call.arguments) for call in calls)

    monkeypatch.setattr(in_parts, "run_tasks", pretend)
    monkeypatch.setattr(in_parts, "capacity_of", lambda scheduler: (1, 2**30))
    monkeypatch.setattr(in_parts, "open_store", lambda place: store())
    return {"scheduler": "tcp://nowhere:1"}


def test_a_value_that_comes_and_goes_is_refused_by_name_on_a_cluster(tmp_path, errors, cluster):
    fields = truth() + errors
    fields[:, :, 1, 2] = np.nan
    fields[4, 1, 1, 6, 5:7] = np.nan
    with pytest.raises(InputError, match="2 points have no value here, and had one at the first time"):
        evaluate(
            written(tmp_path / "f.zarr", fields),
            store(),
            settings=SETTINGS,
            common=True,
            parts=tmp_path / "p",
            **cluster,
        )


def test_rows_points_and_fits_on_a_cluster(tmp_path, errors, cluster):
    """Workers open the store and the forecasts themselves."""
    fields = truth() + errors
    fields[:, :, 1, 3, 4] = np.nan
    path = written(tmp_path / "f.zarr", fields, slice(0, -1))
    settings = SETTINGS.model_copy(update={"events": ["t2m > 285"], "probabilistic_climatology": False})
    here = evaluate(path, store(), settings=settings, common=True)
    where = {"parts": tmp_path / "parts", **cluster}
    xr.testing.assert_identical(evaluate(path, store(), settings=settings, common=True, **where), here)
