"""Derived channels: formulas against known values, and channels that a source lacks computed from those it holds."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, TIMES, field, grib_message, open_files, wave, write_netcdf

from weatherfm.data_pipeline.fields.derived import (
    RECIPES,
    cure,
    inputs_of,
    resolve,
    saturation_pressure,
    saturation_pressure_over_water,
    vapour_pressure,
    with_inputs,
)
from weatherfm.data_pipeline.formats.reading import blocks
from weatherfm.data_pipeline.formats.reading import lazy_state as reading
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.grid import Grid
from weatherfm.earth.solar import toa_incident_solar_radiation
from weatherfm.earth.variables import VARIABLES
from weatherfm.errors import InputError

# --- formulas ---


def test_saturation_over_water_and_ice():
    # Smithsonian tables: 2338 Pa at 20 C over water, 38.0 Pa at -30 C over ice; Tetens is within 0.5 %
    assert saturation_pressure_over_water(np.array(293.15)) == pytest.approx(2338, rel=5e-3)
    assert saturation_pressure(np.array(293.15)) == saturation_pressure_over_water(np.array(293.15))
    assert saturation_pressure(np.array(243.15)) == pytest.approx(38.0, rel=5e-3)  # -30 C: ice alone
    assert saturation_pressure(np.array(273.16)) == pytest.approx(611.21, rel=1e-12)


def test_saturation_is_mixed_between_ice_and_water():
    middle = np.array(250.16 + 11.5)
    ice = 611.21 * np.exp(22.587 * (middle - 273.16) / (middle + 0.7))
    assert saturation_pressure(middle) == pytest.approx(0.25 * saturation_pressure_over_water(middle) + 0.75 * ice)
    temperature = np.linspace(200, 310, 2000)
    assert (np.diff(saturation_pressure(temperature)) > 0).all()


def test_humidity_of_saturated_air_is_100_percent():
    """e = es gives r = 100, at every temperature and level."""
    temperature, pressure = np.linspace(220, 305, 9), 70000.0
    e, ratio = saturation_pressure(temperature), 287.0597 / 461.5250
    humidity = ratio * e / (pressure - (1 - ratio) * e)
    np.testing.assert_allclose(vapour_pressure(humidity, pressure), e, rtol=1e-12)


def test_every_recipe_is_of_known_variables_and_says_its_formula():
    for short, recipe in RECIPES.items():
        target = VARIABLES[short]
        assert recipe.formula
        assert all(VARIABLES[name].on_levels == target.on_levels for name in recipe.inputs)
        assert target.era5
        assert not set(recipe.inputs) & set(RECIPES)  # one step, never a chain


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("r500", ("t500", "q500")),
        ("ws850", ("u850", "v850")),
        ("ws10", ("u10", "v10")),
        ("r2m", ("t2m", "d2m")),
        ("tisr", ()),
        ("t2m", None),
    ],
)
def test_inputs_of(name, inputs):
    assert inputs_of(name) == inputs
    assert with_inputs([name]) == {name, *(inputs or ())}


# --- resolving ---


def config(channels, **settings) -> DataConfig:
    return DataConfig(store="x", source={"kind": "files", "paths": ["x"]}, channels=channels, **settings)


def test_held_channels_are_taken_as_stored_and_others_computed(caplog):
    caplog.set_level(logging.INFO)
    derivation = resolve(config(["r500", "ws500", "t500"]), {"r500", "t500", "q500", "u500", "v500"})
    assert derivation.stored == ("r500", "t500", "u500", "v500")
    assert derivation.computed == {"ws500": ("u500", "v500")}
    assert "ws500 is not in the source: computed from u500, v500" in caplog.text


def test_what_cannot_be_computed_is_left_to_the_source_to_name():
    derivation = resolve(config(["r500", "t500"]), {"t500"})
    assert derivation.stored == ("r500", "t500")
    assert cure(["r500"], {"t500"}) == "; r500 could be computed from t500 and q500 (q500 missing too)"
    assert cure(["z500"], set()) == ""


def test_channels_without_any_data_are_refused():
    with pytest.raises(InputError, match=r"tisr would be computed without any data; add a channel"):
        resolve(config(["tisr"]), set())


# --- files ---


def winds(tmp_path, times=TIMES):
    """u, v, t, q on two levels, one file, and u10, v10 in another."""
    levels = xr.DataArray([850, 500], dims="level", name="level", attrs={"units": "hPa"})
    made = {"u": (10.0, "m s**-1"), "v": (-4.0, "m s**-1"), "t": (270.0, "K"), "q": (0.02, "kg kg**-1")}
    upper = xr.merge([field(name, units, base, times) for name, (base, units) in made.items()])
    upper["q"].values *= 1e-3 / 2  # g kg-1 in size
    upper = xr.concat([upper, upper * 0.9], levels).transpose("time", "level", ...)
    for name, (_, units) in made.items():
        upper[name].attrs["units"] = units
    write_netcdf(tmp_path / "upper.nc", upper)
    surface = xr.merge([field("u10", "m s**-1", 3.0, times), field("v10", "m s**-1", -1.0, times)])
    write_netcdf(tmp_path / "surface.nc", surface)
    return upper


def test_wind_speed_and_humidity_in_the_order_of_the_config(tmp_path):
    upper = winds(tmp_path)
    data = open_files(tmp_path / "*.nc", ["ws500", "u500", "r850", "ws10", "t850"])
    assert data.state["channel"].values.tolist() == ["ws500", "u500", "r850", "ws10", "t850"]
    state = data.state.values
    u, v, t, q = (upper[name].values for name in "uvtq")
    np.testing.assert_allclose(state[:, 0], np.hypot(u[:, 1], v[:, 1]), rtol=2e-7)
    np.testing.assert_array_equal(state[:, 1], u[:, 1].astype(np.float32))
    expected = 100 * vapour_pressure(q[:, 0], 85000) / saturation_pressure(t[:, 0])
    np.testing.assert_allclose(state[:, 2], expected, rtol=1e-5)  # of float32 t: es changes by 7 % a kelvin
    np.testing.assert_allclose(state[:, 3], np.hypot(wave(base=3.0), wave(base=-1.0)), rtol=1e-6)
    np.testing.assert_array_equal(state[:, 4], t[:, 0].astype(np.float32))
    assert data.attributes["derived"]["ws10"] == {"from": ["u10", "v10"], "formula": "sqrt(u10^2 + v10^2)"}
    assert set(data.attributes["derived"]) == {"ws500", "r850", "ws10"}
    assert list(data.attributes["channels"]) == ["u500", "t850", "v500", "q850", "u10", "v10"]


def test_a_part_of_the_channels_reads_only_their_inputs(tmp_path, monkeypatch):
    winds(tmp_path)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    data = open_files(tmp_path / "*.nc", ["ws500", "r850", "ws10"])
    assert data.state.chunksizes["channel"] == (1, 1, 1)
    read = []
    stored = reading.Fields._stored
    monkeypatch.setattr(
        reading.Fields, "_stored", lambda self, t, c: read.append((len(t), len(c))) or stored(self, t, c)
    )
    part = data.state.isel(channel=[2], time=slice(0, 2)).values
    assert {channels for _, channels in read} == {2}
    np.testing.assert_array_equal(part[:, 0], data.state.values[:2, 2])


def test_stored_channels_win(tmp_path):
    winds(tmp_path)
    write_netcdf(tmp_path / "speed.nc", field("si10", "m s**-1", 50.0))
    data = open_files(tmp_path / "*.nc", ["ws10", "u10"])
    np.testing.assert_allclose(data.state.values[:, 0], wave(base=50.0), rtol=2e-7)
    assert data.attributes["derived"] == {}


def test_a_value_missing_in_an_input_is_missing_in_the_result(tmp_path):
    temperature, dewpoint = field("t2m", "K", 280.0), field("d2m", "K", 275.0)
    dewpoint["d2m"].values[1, 2, 3] = np.nan
    write_netcdf(tmp_path / "t.nc", temperature)
    write_netcdf(tmp_path / "d.nc", dewpoint)
    humidity = open_files(tmp_path / "*.nc", ["r2m", "t2m"]).state.values[:, 0]
    assert np.isnan(humidity[1, 2, 3])
    assert np.isnan(humidity).sum() == 1
    assert ((np.nan_to_num(humidity, nan=50) > 0) & (np.nan_to_num(humidity, nan=50) < 100)).all()


def test_from_grib(tmp_path):
    u, v = wave(TIMES[:1], base=0.0)[0], wave(TIMES[:1], base=7.0)[0]
    (tmp_path / "x.grib").write_bytes(
        grib_message("10u", 10, "heightAboveGround", values=u) + grib_message("10v", 10, "heightAboveGround", values=v)
    )
    data = open_files(tmp_path / "x.grib", ["v10", "ws10"])
    np.testing.assert_allclose(data.state.values[0, 1], np.hypot(u, v), atol=1e-5)  # 24-bit packing


def test_a_missing_channel_says_what_it_could_be_computed_from(tmp_path):
    write_netcdf(tmp_path / "x.nc", field("u10", "m s**-1"))
    with pytest.raises(InputError, match=r"no channel ws10; .*ws10 could be computed from u10 and v10 \(v10 missing"):
        open_files(tmp_path / "x.nc", ["u10", "ws10"])


def test_solar_radiation_for_sources_that_lack_it(tmp_path):
    write_netcdf(tmp_path / "x.nc", field())
    grid = Grid(LATITUDE, LONGITUDE)
    data = open_files(tmp_path / "x.nc", ["tisr", "t2m"])
    np.testing.assert_allclose(data.state.values[:, 0], toa_incident_solar_radiation(TIMES, grid, 12), rtol=1e-6)
    assert data.attributes["accumulation"] == {"tisr": {"window_hours": 12, "source_hours": None}}
    write_netcdf(tmp_path / "one.nc", field().isel(time=[0]))
    with pytest.raises(InputError, match=r"tisr is to be computed for a single time; set data\.accumulation"):
        open_files(tmp_path / "one.nc", ["tisr", "t2m"])


def test_derived_before_regridding(tmp_path):
    """The mean of speeds, not the speed of the mean wind: two winds against one another."""
    winds(tmp_path)
    east = field("u10", "m s**-1")
    east["u10"].values[:] = np.where(np.arange(len(LONGITUDE)) % 2, 8.0, -8.0)
    still = field("v10", "m s**-1")
    still["v10"].values[:] = 0
    write_netcdf(tmp_path / "surface.nc", xr.merge([east, still]))
    data = open_source(
        DataConfig(
            store="x",
            source={"kind": "files", "paths": [str(tmp_path / "surface.nc")]},
            channels=["ws10", "u10"],
            regrid={"resolution": 90},
        )
    )
    np.testing.assert_allclose(data.state.values[:, 0], 8, rtol=1e-6)
    assert np.abs(data.state.values[:, 1]).max() < 4


def test_prepared_store_tells_where_a_channel_came_from(tmp_path):
    winds(tmp_path)
    settings = config(["ws500", "u500"], climatology_window=None)
    settings = settings.model_copy(
        update={
            "store": str(tmp_path / "s.zarr"),
            "source": settings.source.model_copy(update={"paths": [str(tmp_path / "*.nc")]}),
        }
    )
    store = prepare(settings)
    assert store.manifest["source"]["attributes"]["derived"]["ws500"]["from"] == ["u500", "v500"]
    assert store.manifest["channels"][0]["standard_name"] == "wind_speed"


def test_real_state(real_data):
    """ERA5's own global state: humidity is plausible, and saturated air is where cloud water is."""
    data = open_files(real_data / "era5_global_state" / "era5_tl31_19590102T00.nc", ["r500", "r850", "ws250", "t500"])
    humidity = data.state.values[0, :2]
    assert humidity.min() > -5
    assert humidity.max() < 130
    assert 25 < np.median(humidity[0]) < 60
    assert 40 < data.state.values[0, 2].max() < 110  # m s-1 in the jet of January
