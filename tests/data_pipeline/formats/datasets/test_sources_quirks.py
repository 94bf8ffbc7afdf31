"""Every quirk of NetCDF and Zarr files is normalised on opening, or refused with the file's name."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, TIMES, field, open_files, wave, write_netcdf

from weatherfm.earth.variables import GRAVITY
from weatherfm.errors import InputError


def upper_air(name="z", units="m**2 s**-2", levels=(500, 850), dim="level", level_units=None) -> xr.Dataset:
    """[time, level, latitude, longitude]; each level has its own base value."""
    values = np.stack([wave(base=100.0 * level) for level in levels], axis=1)
    dims = ("time", dim, "latitude", "longitude")
    dataset = xr.Dataset(
        {name: (dims, values, {"units": units})},
        coords={"time": TIMES, dim: list(levels), "latitude": LATITUDE, "longitude": LONGITUDE},
    )
    if level_units:
        dataset[dim].attrs["units"] = level_units
    return dataset


def check(data, expected) -> None:
    """The state's one channel is `expected` [time, lat, lon]."""
    np.testing.assert_array_equal(data.state["latitude"], LATITUDE)
    np.testing.assert_array_equal(data.state["longitude"], LONGITUDE)
    np.testing.assert_allclose(data.state.values[:, 0], expected, rtol=2e-7)  # rounded to float32


# --- grids ---


def test_latitude_order_and_dimension_order(tmp_path):
    dataset = field().isel(latitude=slice(None, None, -1)).transpose("longitude", "latitude", "time")
    check(open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"]), wave())


def test_longitudes_from_minus_180(tmp_path):
    dataset = field().assign_coords(longitude=(LONGITUDE + 180) % 360 - 180).sortby("longitude")
    assert dataset.longitude[0] == -180
    check(open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"]), wave())


@pytest.mark.parametrize("start", [0, -180])
def test_repeated_meridian_is_dropped(tmp_path, start):
    longitude = np.arange(start, start + 361, 45.0)
    check(open_files(write_netcdf(tmp_path / "x.nc", field(longitude=longitude)), ["t2m"]), wave())


@pytest.mark.parametrize("given", [[340.0, 350.0, 0.0, 10.0], [0.0, 10.0, 340.0, 350.0], [-20.0, -10.0, 0.0, 10.0]])
def test_limited_area_across_the_prime_meridian_stays_together(tmp_path, given):
    data = open_files(write_netcdf(tmp_path / "x.nc", field(longitude=np.array(given))), ["t2m"])
    np.testing.assert_array_equal(data.state["longitude"], [-20, -10, 0, 10])
    np.testing.assert_allclose(data.state.values[:, 0], wave(longitude=np.array([-20, -10, 0, 10.0])), rtol=2e-7)


def test_limited_area_across_the_date_line(tmp_path):
    data = open_files(write_netcdf(tmp_path / "x.nc", field(longitude=np.array([170.0, 180.0, -170.0]))), ["t2m"])
    np.testing.assert_array_equal(data.state["longitude"], [170, 180, 190])


def test_short_names_rounding_and_radians(tmp_path):
    noisy = field(longitude=np.float32(LONGITUDE) + np.float32(-1e-6)).rename(latitude="lat", longitude="lon")
    data = open_files(write_netcdf(tmp_path / "x.nc", noisy), ["t2m"])
    np.testing.assert_allclose(data.state["longitude"], LONGITUDE, atol=1e-4)
    radians = field().assign_coords(latitude=np.deg2rad(LATITUDE), longitude=np.deg2rad(LONGITUDE))
    for name in ("latitude", "longitude"):
        radians[name].attrs["units"] = "radians"
    data = open_files(write_netcdf(tmp_path / "y.nc", radians), ["t2m"])
    np.testing.assert_allclose(data.state["latitude"], LATITUDE, atol=1e-9)


def test_coordinates_named_apart_from_their_dimensions(tmp_path):
    dataset = field().rename(latitude="lat", longitude="lon").rename_dims(lat="y", lon="x")
    check(open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"]), wave())


@pytest.mark.parametrize("name", ["latitude", "longitude"])
def test_fill_values_as_coordinates_are_refused(tmp_path, name):
    dataset = field().assign_coords({name: np.full(field().sizes[name], 9.969209968386869e36)})
    with pytest.raises(InputError, match=rf"x\.nc: its {name} holds fill values"):
        open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])


def test_curvilinear_and_missing_coordinates_are_refused(tmp_path):
    flat = field().rename(latitude="y", longitude="x").drop_vars(["x", "y"])
    curved = flat.assign_coords(lat=(("y", "x"), np.zeros((4, 8))), lon=(("y", "x"), np.zeros((4, 8))))
    with pytest.raises(InputError, match=r"no field on a latitude-longitude grid .*y 4"):
        open_files(write_netcdf(tmp_path / "x.nc", curved), ["t2m"])
    with pytest.raises(InputError, match=r"'latitude' has no values"):
        open_files(write_netcdf(tmp_path / "y.nc", field().drop_vars("latitude")), ["t2m"])


def test_files_on_different_grids_are_refused(tmp_path):
    write_netcdf(tmp_path / "a.nc", field())
    write_netcdf(tmp_path / "b.nc", field("d2m").isel(latitude=slice(3)))
    with pytest.raises(InputError, match=r"different grids: t2m in .*a\.nc .*d2m in .*b\.nc"):
        open_files(tmp_path / "*.nc", ["t2m", "d2m"])


# --- levels and names ---


@pytest.mark.parametrize("dim", ["level", "pressure_level", "isobaricInhPa", "lev", "plev"])
def test_level_dimension_names(tmp_path, dim):
    data = open_files(write_netcdf(tmp_path / "x.nc", upper_air(dim=dim)), ["z850"])
    check(data, wave(base=85000.0))


@pytest.mark.parametrize(("dim", "units"), [("plev", "Pa"), ("plev", None), ("isobaricInPa", None), ("p", "pascals")])
def test_levels_in_pascal(tmp_path, dim, units):
    dataset = upper_air(dim=dim).assign_coords({dim: [50000.0, 85000.0]})
    if units:
        dataset[dim].attrs["units"] = units
    check(open_files(write_netcdf(tmp_path / "x.nc", dataset), ["z500"]), wave(base=50000.0))


def test_level_as_scalar_in_the_name_or_in_the_config(tmp_path):
    one = upper_air().isel(level=1)
    check(open_files(write_netcdf(tmp_path / "scalar.nc", one), ["z850"]), wave(base=85000.0))
    bare = one.drop_vars("level")
    check(open_files(write_netcdf(tmp_path / "bare.nc", bare), ["z850"], levels={"z": 850}), wave(base=85000.0))
    named = bare.rename(z="geopotential_850")
    check(open_files(write_netcdf(tmp_path / "named.nc", named), ["z850"]), wave(base=85000.0))


def test_levels_by_file_pattern(tmp_path):
    for i, level in enumerate((500, 850)):
        write_netcdf(tmp_path / f"z{level}_x.nc", upper_air().isel(level=i).drop_vars("level"))
    data = open_files(tmp_path / "*.nc", ["z850", "z500"], levels={"z500*": 500, "z850*": 850})
    check(data, wave(base=85000.0))
    np.testing.assert_allclose(data.state.values[:, 1], wave(base=50000.0), rtol=2e-7)


def test_missing_level_names_the_cure(tmp_path):
    bare = upper_air("t", "K").isel(level=0).drop_vars("level")
    with pytest.raises(InputError, match=r"holds no channel t500; .*level not told.*source\.levels"):
        open_files(write_netcdf(tmp_path / "x.nc", bare), ["t500"])


def test_winds_at_10_hpa_and_100_hpa_are_not_those_at_10_m_and_100_m(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", upper_air("u", "m s-1", levels=(10, 100)))
    check(open_files(path, ["u100"]), wave(base=10000.0))
    for channel in ("u10", "u100m"):
        with pytest.raises(InputError, match=f"holds no channel {channel}"):
            open_files(path, [channel])
    at_height = field("u100", "m s-1")
    at_height["u100"].attrs["long_name"] = "100 metre U wind component"
    check(open_files(write_netcdf(tmp_path / "y.nc", at_height), ["u100m"]), wave())


def test_levels_without_a_name_are_passed_over(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", upper_air(levels=(0.5, 500.0, 1050.5), level_units="hPa"))
    check(open_files(path, ["z500"]), wave(base=50000.0))


@pytest.mark.parametrize(
    ("name", "channel"), [("geopotential", "z500"), ("Z", "z500"), ("hus", "q500"), ("zg", "z500")]
)
def test_long_names_and_aliases(tmp_path, name, channel):
    units = "kg kg**-1" if channel == "q500" else "m2 s-2"
    check(open_files(write_netcdf(tmp_path / "x.nc", upper_air(name, units)), [channel]), wave(base=50000.0))


def test_rename_and_short_name_attribute(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", field("var167"))
    check(open_files(path, ["t2m"], rename={"var167": "t2m"}), wave())
    with pytest.raises(InputError, match=r"rename maps 'var167' to an unknown name: unknown channel 't2n'"):
        open_files(path, ["t2m"], rename={"var167": "t2n"})
    told = field("var167")
    told["var167"].attrs["GRIB_shortName"] = "2t"
    check(open_files(write_netcdf(tmp_path / "y.nc", told), ["t2m"]), wave())


def test_two_names_for_one_channel_prefer_the_table_order(tmp_path):
    both = [field("prmsl", "Pa", base=1e5), field("mslet", "Pa", base=9e4)]
    for i, order in enumerate((both, both[::-1])):
        path = write_netcdf(tmp_path / f"{i}.nc", xr.merge(order))
        check(open_files(path, ["msl"]), wave(base=1e5))


def test_surface_variable_on_levels_or_odd_dimensions_is_not_taken(tmp_path):
    with pytest.raises(InputError, match="holds no channel tcc"):
        open_files(write_netcdf(tmp_path / "x.nc", upper_air("tcc", "1")), ["tcc"])
    hybrid = upper_air("t", "K", dim="hybrid")
    with pytest.raises(InputError, match=r"holds no channel t500.*t \(over hybrid\)"):
        open_files(write_netcdf(tmp_path / "y.nc", hybrid), ["t500"])


def test_missing_channel_names_what_there_is(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", xr.merge([field(), upper_air()]))
    with pytest.raises(InputError) as error:
        open_files(path, ["t2m", "z300", "msl"])
    message = str(error.value)
    assert "holds no channel z300, msl" in message
    assert "z (geopotential at 500, 850 hPa)" in message
    assert "t2m" in message
    assert "source.rename" in message


# --- units ---


@pytest.mark.parametrize(
    ("name", "units", "base", "channel", "expected"),
    [
        ("t2m", "degC", 7.0, "t2m", lambda x: x + 273.15),
        ("msl", "hPa", 1000.0, "msl", lambda x: 100 * x),
        ("hgt", "m", 5500.0, "z500", lambda x: GRAVITY * x),
        ("tp", "mm", 2.0, "tp", lambda x: x / 1000),
    ],
)
def test_units_are_converted(tmp_path, name, units, base, channel, expected):
    path = write_netcdf(tmp_path / "x.nc", field(name, units, base))
    levels = {"hgt": 500} if name == "hgt" else {}
    data = open_files(path, [channel], levels=levels, sums="12h")
    check(data, expected(wave(base=base)))
    assert data.attributes["channels"][channel]["units"] == units
    assert data.attributes["accumulated"] == (["tp"] if name == "tp" else [])


def test_unknown_units_are_refused_unless_the_config_tells(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", field(units=None))
    with pytest.raises(InputError, match=r"x\.nc: its variable t2m does not say its units.*source\.units: {t2m"):
        open_files(path, ["t2m"])
    check(open_files(path, ["t2m"], units={"t2m": "degC"}), wave() + 273.15)
    wrong = write_netcdf(tmp_path / "y.nc", field(units="m"))
    with pytest.raises(InputError, match="do not convert to K"):
        open_files(wrong, ["t2m"])
    check(open_files(wrong, ["t2m"], units={"t2m": "K"}), wave())


def test_packed_integers_and_fill_values(tmp_path):
    dataset = field()
    dataset["t2m"][1, 2, 3] = np.nan
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": np.int16(-32767)}
    path = write_netcdf(tmp_path / "x.nc", dataset, encoding={"t2m": packing})
    state = open_files(path, ["t2m"]).state.values
    assert np.isnan(state[1, 0, 2, 3])
    np.testing.assert_allclose(state[:, 0], dataset["t2m"], atol=0.0051)  # half a packing step and rounding
    unwritten = field()
    unwritten["t2m"][0, 0, 0] = 9.969209968386869e36  # what the library leaves where nothing was written
    assert np.isnan(open_files(write_netcdf(tmp_path / "y.nc", unwritten), ["t2m"]).state.values[0, 0, 0, 0])


# --- constant fields ---


def test_static_fields(tmp_path):
    surface = xr.merge(
        [field("z", "m**2 s**-2", base=50.0).isel(time=[0]), field("lsm", None, base=0.5).isel(time=0, drop=True)]
    )
    write_netcdf(tmp_path / "static.nc", surface.isel(latitude=slice(None, None, -1)))
    weather = write_netcdf(tmp_path / "t.nc", field())
    data = open_files(weather, ["t2m"], ("lsm", "orography"), static_paths=[str(tmp_path / "static.nc")])
    assert list(data.static["static"].values) == ["lsm", "orography"]
    assert data.static.dtype == np.float32
    np.testing.assert_allclose(data.static[1], wave(base=50.0)[0], rtol=2e-7)
    with pytest.raises(InputError, match="holds no static field lsm"):
        open_files(weather, ["t2m"], ("lsm",))
    with pytest.raises(InputError, match=r"orography does not change with time.*data\.static"):
        open_files(tmp_path / "*.nc", ["orography"])


def test_a_changing_field_is_no_orography(tmp_path):
    write_netcdf(tmp_path / "z.nc", field("z", "m2 s-2", base=5e4))
    with pytest.raises(InputError, match=r"z was taken for orography, but it changes with time.*source\.levels"):
        open_files([write_netcdf(tmp_path / "t.nc", field()), tmp_path / "z.nc"], ["t2m"], ("orography",))


def test_surface_and_upper_air_geopotential_together(tmp_path):
    write_netcdf(tmp_path / "a.nc", upper_air())
    write_netcdf(tmp_path / "b.nc", field("z", "m**2 s**-2", base=50.0).isel(time=[0]))
    data = open_files(tmp_path / "*.nc", ["z850"], ("orography",))
    check(data, wave(base=85000.0))
    np.testing.assert_allclose(data.static[0], wave(base=50.0)[0], rtol=2e-7)


# --- lazy reading ---


def test_state_is_lazy_bounded_and_pickles(tmp_path, monkeypatch):
    import weatherfm.data_pipeline.formats.reading.blocks as blocks

    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * 4 * 8 * 2)  # two fields
    write_netcdf(tmp_path / "a.nc", upper_air())
    data = open_files(tmp_path / "a.nc", ["z850", "z500"])
    assert dask.is_dask_collection(data.state.data)
    assert data.state.chunks[:2] == ((1, 1, 1, 1), (2,))
    part = pickle.loads(pickle.dumps(data.state))[2:, 1, ::2, 3]
    np.testing.assert_allclose(part.compute(scheduler="threads"), wave(base=50000.0)[2:, ::2, 3], rtol=2e-7)
    reversed_times = data.state.isel(time=[3, 0], channel=[1])
    np.testing.assert_allclose(reversed_times.values[:, 0], wave(base=50000.0)[[3, 0]], rtol=2e-7)


def test_blocks_follow_the_chunks_of_the_file(tmp_path, monkeypatch):
    import weatherfm.data_pipeline.formats.reading.blocks as blocks

    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * 4 * 8 * 3)
    path = write_netcdf(tmp_path / "a.nc", field(), encoding={"t2m": {"chunksizes": (2, 4, 8)}})
    assert open_files(path, ["t2m"]).state.chunks[0] == (2, 2)


def test_model_levels_and_model_constants_are_no_pressure_levels(tmp_path):
    numbered = upper_air("t", "K", levels=(1, 2))
    numbered["level"].attrs["long_name"] = "model_level_number"
    with pytest.raises(InputError, match=r"holds no channel t1.*t \(over level\)"):
        open_files(write_netcdf(tmp_path / "x.nc", numbered), ["t1"])
    constant = upper_air("t", "K").isel(level=0, drop=True).assign(P0=((), 1e5, {"units": "Pa"}))
    with pytest.raises(InputError, match="level not told"):
        open_files(write_netcdf(tmp_path / "y.nc", constant), ["t1000"])
