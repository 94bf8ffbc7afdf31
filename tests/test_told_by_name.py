"""What is refused is told by what the file says of it, with a cure that works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, TIMES, field, open_files, wave, write_netcdf

from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.file_states import open_file_states
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.errors import InputError


def on_layer(path: Path, short: str, name: str, units: str, base: float, layer: str, level: float) -> Path:
    """As cfgrib writes a field of one layer."""
    dataset = field(name, units, base)
    dataset[name].attrs.update(GRIB_shortName=short, GRIB_typeOfLevel=layer)
    return write_netcdf(path, dataset.assign_coords({layer: level}))


@pytest.mark.parametrize(
    ("short", "name", "units", "base", "layer", "level", "channel"),
    [
        ("2t", "t2m", "K", 280.0, "heightAboveGround", 80.0, "t2m"),
        ("2t", "t2m", "K", 280.0, "unknown", 0.0, "t2m"),
        ("tcc", "tcc", "1", 0.5, "convectiveCloudLayer", 0.0, "tcc"),
        ("10u", "u10", "m s-1", 5.0, "heightAboveGround", 30.0, "u10"),
        ("msl", "msl", "Pa", 1e5, "tropopause", 0.0, "msl"),
        ("swvl1", "swvl1", "m3 m-3", 0.3, "depthBelowLandLayer", 7.0, "swvl1"),
    ],
)
def test_a_single_level_on_an_odd_layer(tmp_path, short, name, units, base, layer, level, channel):
    path = on_layer(tmp_path / "x.nc", short, name, units, base, layer, level)
    told = f"{channel} lies on the layer {layer} {level:g} .*source\\.rename: .'{short}:{layer}:{level:g}': {channel}"
    for read in (open_files, lambda path, channels: open_file_states([str(path)], channels)):
        with pytest.raises(InputError, match=told):
            read(path, [channel])
    answered = open_files(path, [channel], rename={f"{short}:{layer}:{level:g}": channel}).state
    np.testing.assert_allclose(answered.values[:, 0], wave(base=base), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("units", "calendar", "says"),
    [
        ("hours since analysis", None, "'hours since analysis'"),
        ("days since 2000-02-27", "none", "'days since 2000-02-27' with \"calendar 'none'\""),
        ("days since 0000-00-00", "365_days", "'days since 0000-00-00'"),
        ("months since jan 1899", None, "'months since jan 1899'"),
    ],
)
def test_times_from_no_date(tmp_path, units, calendar, says):
    attributes = {"units": units} | ({"calendar": calendar} if calendar else {})
    dataset = field().drop_vars("time").assign_coords(time=("time", np.arange(len(TIMES)), attributes))
    path = write_netcdf(tmp_path / "x.nc", dataset)
    with pytest.raises(InputError, match=r"its times are counted in .*no date to count from") as caught:
        open_files(path, ["t2m"])
    assert says in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_times_before_any_weather(tmp_path):
    dataset = field().drop_vars("time").assign_coords(time=("time", np.arange(4.0), {"units": "days since 0001-01-01"}))
    path = write_netcdf(tmp_path / "x.nc", dataset)
    with pytest.raises(InputError, match=r"t2m is at 0001-01-01.*no weather is known of that year"):
        open_files(path, ["t2m"])


@pytest.mark.parametrize("units", ["1", "level", "sigma_level"])
def test_levels_in_other_units(tmp_path, units):
    dims = ("time", "lev", "latitude", "longitude")
    values = np.stack([wave(), wave(base=270.0)], axis=1)
    coords = {"time": TIMES, "lev": [850.0, 500.0], "latitude": LATITUDE, "longitude": LONGITUDE}
    dataset = xr.Dataset({"t": (dims, values, {"units": "K"})}, coords=coords)
    dataset["lev"].attrs["units"] = units
    path = write_netcdf(tmp_path / "x.nc", dataset)
    told = rf"t: its levels lev \(850, 500\) have the units '{units}', which are none of pressure.*source\.units"
    with pytest.raises(InputError, match=told):
        open_files(path, ["t500"])
    state = open_files(path, ["t500"], units={"lev": "hPa"}).state
    np.testing.assert_allclose(state.values[:, 0], wave(base=270.0), rtol=1e-6)


def test_monthly_means_through_prepare(tmp_path, real_data):
    """The values of the folder's README, read with netCDF4: 269.597 K, and 0.00156747 m a day."""
    paths = [str(real_data / "cases" / "cds-monthly-means" / "data_1.nc")]

    def config(name: str, **settings) -> DataConfig:
        source = {"kind": "files", "paths": paths, "kinds": ["monthly_mean"]}
        period = {"start": "1984-01-01", "end": "1985-12-31"}
        return DataConfig(store=str(tmp_path / name), source=source, channels=["t2m", "tp"], period=period,
                          climatology_window=None, **settings)  # fmt: skip

    with pytest.raises(InputError, match=r"times are a month apart .*step=24h and allow_gaps=true"):
        prepare(config("a.zarr"), workers=1)
    store = prepare(config("b.zarr", step="24h", allow_gaps=True), workers=1)
    state = xr.open_zarr(tmp_path / "b.zarr", consolidated=False)["state"]
    assert state.sizes["time"] == 24
    here = state.sel(latitude=40.74, longitude=285.73, method="nearest").isel(time=0)
    np.testing.assert_allclose(here.values, [269.597, 0.00156747], rtol=3e-6)
    assert store.manifest["source"]["attributes"]["accumulation"]["tp"]["window_hours"] == 24
