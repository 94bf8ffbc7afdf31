"""Our forecasts meet what WeatherBench-X and WeatherBench2 ask of a forecast, by what their readers are known to do.

WeatherBench-X (google-research/weatherbenchX, `data_loaders/xarray_loaders.py`, `base.py` and `latency_wrappers.py`)
cannot be installed here. Facts of its `PredictionsFromXarray`, which the tests go through with xarray alone:

- a path that ends in `.zarr` is opened by `xarray.open_zarr` without options (others by `xarray.open_dataset`, which
  knows a Zarr store by that ending, too);
- `time` becomes `init_time` and `prediction_timedelta` becomes `lead_time` if the latter is a coordinate;
- variables are taken by ERA5's long names, then `.sel(level=[...])` or whatever the user wants;
- a chunk is `.sel(init_time=<datetime64[ns] array>, lead_time=<timedelta64 array or slice>)`, computed;
- with `add_nan_mask`, every variable gets a coordinate `mask` that is False where it is NaN;
- latency wrappers subtract initial times from each other and move both coordinates by the difference;
- targets are looked up at `init_time + lead_time`, and predictions are subtracted from them by coordinates.

WeatherBench2 (`evaluation.py`, `schema.py`) also turns latitudes to ascend with `.sel`, and compares them with the
truth's to 1e-3 degrees.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

from weatherfm.earth.grid import regular_grid
from weatherfm.evaluation.forecasts.writer import ForecastContents, ForecastWriter

CHANNELS = ("z500", "t850", "t2m", "msl")
GRID = regular_grid((4, 8))
INITS = np.datetime64("2020-01-01", "s") + np.arange(5) * np.timedelta64(12, "h")
LEADS = (6, 12, 24)
FIELDS = np.arange(5 * 3 * 4 * 32, dtype=np.float32).reshape(5, 3, 4, 4, 8)
"""[init, lead, channel, lat, lon], each value once."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("forecast") / "ours.zarr"
    writer = ForecastWriter(path, ForecastContents(CHANNELS, GRID, INITS, LEADS, {"simulated": False}))
    for block in writer.remaining():
        for lead in range(len(LEADS)):
            writer.write(block, lead, FIELDS[block, lead])
        writer.block_done(block)
    writer.finish()
    return path


def open_as_they_do(path) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning of today about decoding is a changed result of tomorrow
        opened = xr.open_zarr(str(path))
    return opened.rename({"time": "init_time", "prediction_timedelta": "lead_time"})


def test_coordinates_have_the_types_that_are_selected_by(path):
    with xr.open_zarr(path, decode_timedelta=True) as opened:
        assert opened.indexes["time"].dtype.kind == "M"
        assert opened.indexes["prediction_timedelta"].dtype == np.dtype("timedelta64[ns]")
        assert opened["level"].dtype == np.int64
        for name in ("time", "prediction_timedelta", "level", "latitude", "longitude"):
            assert opened[name].dims == (name,)
            assert opened.indexes[name].is_unique
        assert set(opened.data_vars) == {
            "geopotential",
            "temperature",
            "2m_temperature",
            "mean_sea_level_pressure",
        }
        assert all(array.dtype == np.float32 for array in opened.data_vars.values())
        for dims in (array.dims for array in opened.data_vars.values()):
            assert dims[:2] == ("time", "prediction_timedelta")
            assert dims[-2:] == ("latitude", "longitude")


@pytest.mark.parametrize("unit", ["ns", "h"])
def test_a_chunk_of_predictions(path, unit):
    predictions = open_as_they_do(path)[["geopotential", "2m_temperature"]].sel(level=[500])
    inits = np.array(["2020-01-01T12", "2020-01-02T12"], "datetime64[ns]")
    leads = np.array([6, 24], "timedelta64[h]").astype(f"timedelta64[{unit}]")
    chunk = predictions.sel(init_time=inits, lead_time=leads).compute()
    assert dict(chunk.sizes) == {"init_time": 2, "lead_time": 2, "level": 1, "latitude": 4, "longitude": 8}
    np.testing.assert_array_equal(chunk["geopotential"].sel(level=500), FIELDS[[1, 3]][:, [0, 2], 0])
    np.testing.assert_array_equal(chunk["2m_temperature"], FIELDS[[1, 3]][:, [0, 2], 2])


def test_lead_times_as_a_slice(path):
    day = slice(np.timedelta64(0, "h"), np.timedelta64(12, "h"))
    chunk = open_as_they_do(path).sel(init_time=INITS.astype("datetime64[ns]"), lead_time=day)
    np.testing.assert_array_equal(chunk["mean_sea_level_pressure"], FIELDS[:, :2, 3])


def test_a_mask_tells_levels_that_were_not_forecast(path):
    chunk = open_as_they_do(path).sel(init_time=INITS[:1].astype("datetime64[ns]")).compute()
    masks = {name: ~np.isnan(array) for name, array in chunk.data_vars.items()}
    masked = chunk["temperature"].assign_coords(mask=masks["temperature"])
    assert bool(masked["mask"].sel(level=850).all())
    assert not bool(masked["mask"].sel(level=500).any())
    assert bool(masks["2m_temperature"].all())


def test_targets_at_valid_times_line_up(path):
    """The error of a forecast against its own values at the same place is zero, and nothing is lost on the way."""
    chunk = open_as_they_do(path)[["2m_temperature"]].compute()
    inits, leads = chunk["init_time"], chunk["lead_time"]
    valid = inits + leads
    times = np.unique(valid.values)
    analysis = xr.Dataset(
        {"2m_temperature": (("valid_time", "latitude", "longitude"), np.ones((len(times), 4, 8), np.float32))},
        coords={"valid_time": times, "latitude": GRID.latitude[::-1], "longitude": GRID.longitude},
    )
    difference = chunk - analysis.sel(valid_time=valid)
    assert difference["2m_temperature"].shape == (5, 3, 4, 8)
    np.testing.assert_array_equal(difference["2m_temperature"].sortby("latitude", ascending=False), FIELDS[:, :, 2] - 1)


def test_a_latency_moves_both_times(path):
    predictions = open_as_they_do(path)
    nominal = predictions["init_time"].values
    query, latency = np.datetime64("2020-01-02T06", "ns"), np.timedelta64(6, "h")
    behind = (nominal + latency - query).astype(int)
    available = nominal[np.nanargmax(np.where(behind <= 0, behind, np.nan))]
    assert available == INITS[2]
    offset = query - available
    chunk = predictions.sel(init_time=[available], lead_time=np.array([0, 6], "timedelta64[h]") + offset)
    moved = chunk.assign_coords(init_time=chunk.init_time + offset, lead_time=chunk.lead_time - offset)
    assert moved["init_time"].values.tolist() == [query.astype(int)]
    np.testing.assert_array_equal(moved["2m_temperature"][0], FIELDS[2, [0, 1], 2])


def test_weatherbench2_turns_latitudes(path):
    with xr.open_zarr(path, chunks=None) as opened:
        turned = opened.sel(latitude=opened.latitude.values[::-1])
        np.testing.assert_allclose(turned["latitude"], GRID.latitude[::-1], atol=1e-3)
        np.testing.assert_array_equal(turned["2m_temperature"], FIELDS[:, :, 2, ::-1])
