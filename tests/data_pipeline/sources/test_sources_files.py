"""Real archives through the files source, against an independent reading with netCDF4 or cfgrib."""

from __future__ import annotations

import cfgrib
import netCDF4
import numpy as np
import pytest
import xarray as xr
from synthetic_files import open_files

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError


def read(path, name: str) -> np.ndarray:
    """A NetCDF variable as netCDF4 unpacks it, missing values NaN."""
    with netCDF4.Dataset(path) as dataset:
        return np.ma.filled(dataset[name][:].astype(np.float64), np.nan)


def hypercube(path) -> xr.Dataset:
    """A homogeneous GRIB file as cfgrib reads it, without leaving an index file."""
    return cfgrib.open_dataset(path, indexpath="", errors="raise")


def times_of(data) -> np.ndarray:
    return data.state["time"].values.astype("datetime64[s]")


def check_grid(data, shape: tuple[int, int]) -> None:
    grid = Grid(data.state["latitude"].values, data.state["longitude"].values)  # refuses what is not normal
    assert grid.shape == shape
    assert data.state.shape[2:] == shape
    assert not data.simulated


def test_grib_and_netcdf_give_the_same_state(real_data):
    grib, netcdf = (
        open_files(real_data / "pairs" / f"test4.{kind}", ["z500", "t850", "z850", "t500"]) for kind in ("grib", "nc")
    )
    check_grid(grib, (181, 360))
    for name in ("time", "channel", "latitude", "longitude"):
        np.testing.assert_array_equal(grib.state[name], netcdf.state[name])
    with netCDF4.Dataset(real_data / "pairs" / "test4.nc") as dataset:
        steps = {name: dataset[name].scale_factor for name in ("z", "t")}
    for i, channel in enumerate(grib.state["channel"].values):
        half = 0.501 * steps[channel[0]] + 1e-6 * abs(grib.state[0, i].values).max()  # int16 packing, float32
        np.testing.assert_allclose(grib.state[0, i], netcdf.state[0, i], rtol=0, atol=half)
    cube = hypercube(real_data / "pairs" / "test4.grib")
    np.testing.assert_array_equal(grib.state[0, 0], cube["z"].sel(isobaricInhPa=500))
    np.testing.assert_array_equal(grib.state[0, 1], cube["t"].sel(isobaricInhPa=850))
    packed = read(real_data / "pairs" / "test4.nc", "z")
    np.testing.assert_array_equal(netcdf.state[0, 0], packed[0, 0].astype(np.float32))


def test_forecast_steps(real_data):
    path, channels = real_data / "pairs" / "pl_regular_ll.grib", ["z500", "t850", "r700"]
    with pytest.raises(InputError, match=r"lead times \(0h, 6h\); choose one"):
        open_files(path, channels)
    cube = hypercube(path)
    for lead in (0, 6):
        data = open_files(path, channels, lead_time=f"{lead}h" if lead else 0)
        at_lead = cube.sel(step=np.timedelta64(lead, "h"))
        np.testing.assert_array_equal(times_of(data), at_lead["valid_time"])
        check_grid(data, (19, 36))
        for i, (name, level) in enumerate((("z", 500), ("t", 850), ("r", 700))):
            np.testing.assert_array_equal(data.state[:, i], at_lead[name].sel(isobaricInhPa=level))


def test_ensemble_members(real_data):
    path = real_data / "era5_members" / "era5-levels-members.grib"
    with pytest.raises(InputError, match=r"10 ensemble members .*source\.number=0"):
        open_files(path, ["z500"])
    cube = hypercube(path)
    for number in (0, 7):
        data = open_files(path, ["t850", "z500"], number=number)
        check_grid(data, (61, 120))
        np.testing.assert_array_equal(times_of(data), cube["time"])
        for i, (name, level) in enumerate((("t", 850), ("z", 500))):
            expected = cube[name].sel(number=number, isobaricInhPa=level)
            np.testing.assert_array_equal(data.state[:, i], expected)


def test_global_state_of_another_archive(real_data):
    """Dims (level, longitude, latitude), latitude ascending, Gaussian, time a scalar, no channel named as ours."""
    path = real_data / "era5_global_state" / "era5_tl31_19590102T00.nc"
    data = open_files(path, ["z500", "q1000", "sst", "siconc"])
    check_grid(data, (32, 64))
    assert times_of(data).tolist() == [np.datetime64("1959-01-02T00", "s").item()]
    np.testing.assert_allclose(data.state["latitude"][[0, -1]], [85.76058712, -85.76058712])
    levels = read(path, "level").tolist()
    state = data.state.values[0]
    z = read(path, "geopotential")[levels.index(500)]
    np.testing.assert_array_equal(state[0], z.T[::-1].astype(np.float32))
    np.testing.assert_array_equal(state[1], read(path, "specific_humidity")[-1].T[::-1].astype(np.float32))
    np.testing.assert_array_equal(state[2], read(path, "sea_surface_temperature").T[::-1].astype(np.float32))


def test_one_file_a_variable_hourly(real_data):
    folder = real_data / "era5_hourly_levels"
    data = open_files(folder / "*.nc", ["u850", "q300", "tp", "u10", "sp"])
    check_grid(data, (41, 41))
    np.testing.assert_array_equal(
        times_of(data), np.datetime64("2020-01-01T00", "s") + np.arange(24) * np.timedelta64(3600, "s")
    )
    assert data.attributes["accumulated"] == data.state.attrs["accumulated"] == ["tp"]
    levels = read(folder / "ERA5_2020-01-01_pl_u.nc", "level").tolist()
    for i, (file, name, index) in enumerate(
        (("pl_u", "u", levels.index(850)), ("pl_q", "q", levels.index(300)), ("tp", "tp", None), ("u10", "u10", None))
    ):
        expected = read(folder / f"ERA5_2020-01-01_{file}.nc", name)
        expected = expected if index is None else expected[:, index]
        np.testing.assert_allclose(data.state[:, i], expected, rtol=2e-7, atol=1e-12)
    with pytest.raises(InputError, match=r"files holds channel t850, msl; held are .*q \(specific_humidity at 100,"):
        open_files(folder / "*.nc", ["t850", "u850", "msl"])


def test_fill_values_as_coordinates_are_refused_by_name(real_data):
    with pytest.raises(InputError, match=r"HICCUP_TEST\.ERA5\.sfc\.low-res\.nc: its latitude holds fill values"):
        open_files(real_data / "era5_new_cds" / "*.nc", ["t2m"])


def test_gfs_error_pages_are_refused_by_name(real_data):
    with pytest.raises(InputError) as error:
        open_files(real_data / "gfs_wind_global" / "gfs*", ["u10", "v10"])
    message = str(error.value)
    assert "2 of 82 files" in message
    assert "f000.2018101018: it is an HTML page, not data (starts with '<!DOCTYPE html" in message
    assert "f000.2018101018f3: it is an HTML page" in message


def test_gfs_analyses(real_data):
    folder = real_data / "gfs_wind_global"
    good = {"exclude": ["*2018101018*", "LICENSE"]}
    with pytest.raises(InputError, match=r"lead times \(0h, 3h\)"):
        open_files(folder / "*", ["u10", "v10"], **good)
    by_name = open_files(folder / "*", ["u10", "v10"], exclude=["*2018101018", "LICENSE", "*f3"])
    by_lead = open_files(folder / "*", ["u10", "v10"], lead_time=0, **good)
    check_grid(by_name, (181, 360))
    times = times_of(by_name)
    np.testing.assert_array_equal(times, times_of(by_lead))
    assert (times[0], times[-1], len(times)) == (np.datetime64("2018-10-06T18"), np.datetime64("2018-10-16T18"), 40)
    assert np.datetime64("2018-10-10T18") not in times  # the error page
    for i in (0, 17, 39):
        name = f"gfs.t00z.pgrb2.1p00.f000.{times[i].astype(object):%Y%m%d%H}"
        cube = hypercube(folder / name)
        np.testing.assert_array_equal(by_name.state[i], np.stack([cube["u10"], cube["v10"]]))
        np.testing.assert_array_equal(by_lead.state[i], by_name.state[i])
    later = open_files(folder / "*", ["u10"], lead_time="3h", **good)
    np.testing.assert_array_equal(times_of(later), times + np.timedelta64(3, "h"))


def test_limited_area_with_levels_from_the_config(real_data):
    folder = real_data / "era_interim_europe"
    with pytest.raises(InputError, match=r"files holds channel z500, t850; .*source\.levels: {z: 500}"):
        open_files(folder / "*.nc", ["z500", "t850", "msl"])
    data = open_files(folder / "*.nc", ["msl", "z500", "t850"], levels={"z": 500, "t": 850})
    check_grid(data, (21, 24))
    assert data.state.shape[0] == 4018
    np.testing.assert_array_equal(data.state["longitude"][[0, -1]], [-20, 14.5])
    assert (np.diff(times_of(data)) == np.timedelta64(1, "D")).all()
    part = data.state[1000:1010].values
    for i, (file, name) in enumerate((("mslp", "msl"), ("z500", "z"), ("t850", "t"))):
        expected = read(folder / f"{file}_ei_1p5deg.nc", name)[1000:1010]
        np.testing.assert_allclose(part[:, i], expected, rtol=1e-7)
    year = open_files(folder / "*.nc", ["msl"], period="2004")
    assert year.state.shape[0] == 366


def test_static_fields_need_their_units_and_the_grid_of_the_state(real_data):
    path = real_data / "static" / "era-spectral_T42_64x128.nc"
    weather = real_data / "pairs" / "test4.nc"
    with pytest.raises(InputError, match=r"64x128\.nc: its variable zsurf does not say its units.*source\.units"):
        open_files(weather, ["z500"], ("orography",), static_paths=[str(path)])
    with pytest.raises(InputError, match=r"different grids: .*test4\.nc on 181 x 360.*T42_64x128\.nc on 64 x 128"):
        open_files(weather, ["z500"], ("orography", "lsm"), static_paths=[str(path)], units={"zsurf": "m"})


def test_static_fields_beside_weather_on_their_grid(real_data, tmp_path):
    path = real_data / "static" / "era-spectral_T42_64x128.nc"
    latitude, longitude = read(path, "lat"), read(path, "lon")
    weather = xr.Dataset(
        {"t2m": (("time", "lat", "lon"), np.full((2, 64, 128), 280.0), {"units": "K"})},
        coords={"time": np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]"), "lat": latitude, "lon": longitude},
    )
    weather.to_netcdf(tmp_path / "t.nc")
    data = open_files(tmp_path / "t.nc", ["t2m"], ("lsm", "orography"), static_paths=[str(path)], units={"zsurf": "m"})
    check_grid(data, (64, 128))
    np.testing.assert_array_equal(data.static[0], read(path, "land_mask")[::-1].astype(np.float32))
    np.testing.assert_allclose(data.static[1], 9.80665 * read(path, "zsurf")[::-1], rtol=2e-7)
