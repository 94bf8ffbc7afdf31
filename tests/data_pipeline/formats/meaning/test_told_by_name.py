"""What is refused is told by what the file says of it, with a cure that works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, TIMES, field, open_files, wave, write_netcdf

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.data_pipeline.store_config import DataConfig
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


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"long_name": "2 metre temperature ensemble spread"}, "spread"),
        ({"long_name": "Standard deviation of 2m temperature"}, "standard_deviation"),
        ({"standard_name": "air_temperature_anomaly"}, "anomaly"),
        ({"long_name": "2m temperature, 90th percentile"}, "quantile"),
        ({"long_name": "Maximum temperature at 2 metres since previous post-processing"}, "maximum"),
        ({"long_name": "Minimum 2m temperature"}, "minimum"),
        ({"long_name": "Monthly Mean of Air Temperature"}, "monthly_mean"),
        ({"long_name": "Ensemble mean of 2 metre temperature"}, "ensemble_mean"),
        ({"long_name": "Long Term Mean Air Temperature"}, "climatology"),
    ],
)
def test_what_the_long_name_says(tmp_path, attributes, kind):
    dataset = field()
    dataset["t2m"].attrs.update(attributes)
    with pytest.raises(InputError, match=rf"source\.kinds: \[{kind}"):
        open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])


def test_bounds_of_a_climatology(tmp_path):
    dataset = field()
    dataset["time"].attrs["climatology"] = "climatology_bounds"
    with pytest.raises(InputError, match=r"is a climatology \(its time has bounds of a climatology\)"):
        open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])


@pytest.mark.parametrize(
    ("name", "units", "base", "long_name", "channel"),
    [
        ("msl", "Pa", 1e5, "Mean sea level pressure", "msl"),
        ("tas", "K", 280.0, "Near-Surface Air Temperature", "t2m"),
        ("air", "K", 280.0, "4xDaily Air Temperature", "t850"),
        ("u10", "m s-1", 5.0, "10 metre U wind component", "u10"),
    ],
)
def test_names_of_states(tmp_path, name, units, base, long_name, channel):
    dataset = field(name, units, base)
    dataset[name].attrs["long_name"] = long_name
    open_files(write_netcdf(tmp_path / "x.nc", dataset), [channel], levels={"air": 850})


def test_monthly_means_labelled_in_the_middle(tmp_path):
    """As CMIP6 and CDO label them; the first of the month stands for each, as in GRIB."""
    times = np.array(["2001-01-16T12", "2001-02-15", "2001-03-16T12", "2001-04-16"], "datetime64[ns]")
    dataset = field(times=times)
    dataset["t2m"].attrs["cell_methods"] = "time: mean"
    dataset.attrs["frequency"] = "mon"
    path = write_netcdf(tmp_path / "x.nc", dataset)
    data = open_files(path, ["t2m"], kinds=["monthly_mean"], step="24h", allow_gaps=True)
    assert data.state.time.values.astype("datetime64[D]").astype(str).tolist() == [
        "2001-01-01", "2001-02-01", "2001-03-01", "2001-04-01",
    ]  # fmt: skip
    np.testing.assert_allclose(data.state.values[:, 0], wave(times), rtol=1e-6)


def test_months_that_say_nothing(tmp_path):
    """Labels a month apart at 12 UTC cannot be kept by a step of a day."""
    times = np.array(["2001-01-16T12", "2001-02-15T12", "2001-03-16T12"], "datetime64[ns]")
    source = {"kind": "files", "paths": [str(write_netcdf(tmp_path / "x.nc", field(times=times)))]}
    config = DataConfig(store=str(tmp_path / "s.zarr"), source=source, channels=["t2m"])
    with pytest.raises(InputError, match=r"a month apart .*write them at 00 UTC"):
        prepare(config, workers=1)


def test_a_pressure_level_is_no_orography(tmp_path):
    """A single time of z without its level, on the globe, nowhere below 5000 m."""
    path = write_netcdf(tmp_path / "z.nc", field("z", "m2 s-2", 52000.0, TIMES[:1]))
    surface = write_netcdf(tmp_path / "t.nc", field())
    with pytest.raises(InputError, match=r"z was taken for orography.*51988 m2 s-2 \(5301 m\).*source\.levels"):
        open_files(surface, ["t2m"], ("orography",), static_paths=[str(path)])


def forecast(path: Path) -> Path:
    """One run, steps of 6 h from 0 to 24: 1 mm an hour, as ECMWF's open data keep it (sums since the start)."""
    leads = np.arange(0, 25, 6)
    coords = {"time": TIMES[0], "step": leads.astype("timedelta64[h]"), "latitude": LATITUDE, "longitude": LONGITUDE}
    dims, rain = ("step", "latitude", "longitude"), leads[:, None, None] * np.full((1, 4, 8), 1e-3)
    fields = {"t2m": (dims, wave(TIMES[0] + coords["step"]), {"units": "K"}), "tp": (dims, rain, {"units": "m"})}
    return write_netcdf(path, xr.Dataset(fields, coords=coords))


def test_the_start_of_a_forecast_ends_no_sum(tmp_path, caplog):
    """t2m begins at the start, where no rain has fallen yet: that time is left out, and said."""
    data = open_files(forecast(tmp_path / "x.nc"), ["t2m", "tp"], lead_time="shortest", sums="since_start")
    assert data.state.time.values.astype("datetime64[h]").astype(str).tolist() == [
        "2020-01-01T06", "2020-01-01T12", "2020-01-01T18", "2020-01-02T00",
    ]  # fmt: skip
    np.testing.assert_allclose(data.state.values[:, 1], 6e-3, rtol=1e-6)
    assert "1 times left out: the sums at 2020-01-01T00 begin before the files do" in caplog.text


def test_fields_in_groups(tmp_path):
    path = tmp_path / "x.nc"
    field().to_netcdf(path, engine="netcdf4", group="forecast")
    with pytest.raises(InputError, match=r"its fields in groups \(forecast\).*ncks -G : -g forecast"):
        open_files(path, ["t2m"])


def test_no_times(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", field().isel(time=slice(0, 0)))
    with pytest.raises(InputError, match="the files with t2m hold no time at all"):
        open_files(path, ["t2m"])


def test_variables_along_a_dimension(tmp_path):
    """As earth2studio's arrays are, when written as they are."""
    coords = {"time": TIMES, "variable": ["t2m", "u10m"], "lat": LATITUDE, "lon": LONGITUDE}
    array = xr.DataArray(
        np.stack([wave(), wave(base=5.0)], axis=1), coords, ("time", "variable", "lat", "lon"), "fields"
    )
    path = write_netcdf(tmp_path / "x.nc", array.to_dataset())
    told = r"fields holds several variables along variable \(t2m, u10m, \.\.\.\): .*to_dataset\('variable'\)"
    with pytest.raises(InputError, match=told):
        open_files(path, ["t2m"])
    apart = array.to_dataset("variable")
    for name, units in (("t2m", "K"), ("u10m", "m s-1")):
        apart[name].attrs["units"] = units
    state = open_files(write_netcdf(tmp_path / "y.nc", apart), ["u10"]).state
    np.testing.assert_allclose(state.values[:, 0], wave(base=5.0), rtol=1e-6)


def test_a_dimension_of_unknown_meaning(tmp_path):
    dataset = xr.concat([field(), field(base=270.0)], "batch")
    with pytest.raises(InputError, match=r"t2m has several fields along batch, .*ncks -d batch,0"):
        open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])
