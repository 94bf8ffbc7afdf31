"""Fields as other packages and archives call them: each is the channel that it is, or is asked about."""

from __future__ import annotations

import logging

import eccodes
import netCDF4
import numpy as np
import pytest
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, TIMES, field, grib_message, open_files, wave, write_netcdf

from weatherfm.data_pipeline.formats.meaning.names import Doubt, Meaning, NameRules
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.sources.file_states import open_dataset_states, open_file_states
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

G = 9.80665
CASES = "cases/made"


def several(*fields: tuple[str, float], units="m s-1", **attributes) -> xr.Dataset:
    """Surface variables, each with its own base value; `attributes` are of all."""
    merged = xr.merge([field(name, units, base) for name, base in fields])
    for name, _ in fields:
        merged[name].attrs.update(attributes)
    return merged


def upper(name: str, units: str, base: float, level: float, level_units="hPa") -> xr.Dataset:
    """[time, level, latitude, longitude] on one level."""
    dims, values = ("time", "plev", "latitude", "longitude"), wave(base=base)[:, None]
    coords = {"time": TIMES, "plev": [level], "latitude": LATITUDE, "longitude": LONGITUDE}
    dataset = xr.Dataset({name: (dims, values, {"units": units})}, coords=coords)
    dataset["plev"].attrs["units"] = level_units
    return dataset


def first(data) -> list[float]:
    """Mean over latitudes and longitudes of each channel at the first time; `wave` has nearly its base as mean."""
    return [round(float(value), 2) for value in data.state[0].mean(("latitude", "longitude"))]


def mean_of(base: float) -> float:
    """The mean of `wave` at its first time."""
    return round(float(wave(base=base)[0].mean()), 2)


# --- what others call what we have ---


@pytest.mark.parametrize(
    ("name", "units", "value", "channel", "expected"),
    [
        ("u10m", "m s-1", 5.0, "u10", 5.0),  # earth2studio
        ("v10m", "m s-1", 5.0, "v10", 5.0),
        ("u100m", "m s-1", 5.0, "u100m", 5.0),
        ("z500", "m2 s-2", 5e4, "z500", 5e4),
        ("q850", "kg kg-1", 0.01, "q850", 0.01),
        ("tcwv", "kg m-2", 20.0, "tcwv", 20.0),
        ("2t", "K", 280.0, "t2m", 280.0),  # anemoi
        ("10u", "m s-1", 5.0, "u10", 5.0),
        ("100v", "m s-1", 5.0, "v100m", 5.0),
        ("q_850", "kg kg-1", 0.01, "q850", 0.01),
        ("t_500", "K", 250.0, "t500", 250.0),
        ("tas", "K", 280.0, "t2m", 280.0),  # CMIP6
        ("uas", "m s-1", 5.0, "u10", 5.0),
        ("psl", "Pa", 1e5, "msl", 1e5),
        ("ps", "Pa", 1e5, "sp", 1e5),
        ("zg500", "m", 5500.0, "z500", 5500 * G),
        ("ua850", "m s-1", 9.0, "u850", 9.0),
        ("tos", "degC", 15.0, "sst", 288.15),
        ("siconc", "%", 50.0, "siconc", 0.5),
        ("clt", "%", 50.0, "tcc", 0.5),
        ("ua100m", "m s-1", 7.0, "u100m", 7.0),  # CORDEX
        ("PRMSL_meansealevel", "Pa", 1e5, "msl", 1e5),  # wgrib2 -netcdf
        ("HGT_500mb", "gpm", 5500.0, "z500", 5500 * G),
        ("TMP_850mb", "K", 270.0, "t850", 270.0),
        ("UGRD_10maboveground", "m s-1", 5.0, "u10", 5.0),
        ("ugrd10m", "m s-1", 5.0, "u10", 5.0),  # GrADS data server
        ("slp", "millibars", 1000.0, "msl", 1e5),  # NCEP reanalysis
        ("pr_wtr", "kg/m^2", 20.0, "tcwv", 20.0),
        ("TD_2M", "K", 270.0, "d2m", 270.0),  # COSMO
        ("u_component_of_wind_10", "m s-1", 9.0, None, None),  # 10 hPa, which has no short name
        ("temperature_850", "K", 270.0, "t850", 270.0),  # ClimaX
    ],
)
def test_a_single_field(tmp_path, name, units, value, channel, expected):
    path = write_netcdf(tmp_path / "x.nc", field(name, units, value))
    if channel is None:
        with pytest.raises(InputError, match="holds no channel u10;"):
            open_files(path, ["u10"])
        return
    data = open_files(path, [channel])
    factor = G if units in ("m", "gpm") else {"%": 0.01, "millibars": 100}.get(units, 1)
    offset = 273.15 if units == "degC" else 0
    np.testing.assert_allclose(data.state[:, 0], wave(base=value) * factor + offset, rtol=3e-7)
    assert expected == pytest.approx(value * factor + offset)


@pytest.mark.parametrize(
    ("name", "units", "channel"), [("zg", "m", "z500"), ("hus", "1", "q500"), ("hur", "%", "r500")]
)
def test_upper_air_of_cmip6_on_noisy_pascals(tmp_path, name, units, channel):
    path = write_netcdf(tmp_path / "x.nc", upper(name, units, 50.0, 50000.0000001, "Pa"))
    factor = G if name == "zg" else 1
    np.testing.assert_allclose(open_files(path, [channel]).state[:, 0], wave(base=50.0) * factor, rtol=3e-7)


def test_a_fraction_of_relative_humidity_becomes_per_cent(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", upper("RH", "1", 0.5, 500.0))
    np.testing.assert_allclose(open_files(path, ["r500"]).state[:, 0], 100 * wave(base=0.5), rtol=3e-7)


@pytest.mark.parametrize(("name", "hours"), [("tp06", 6), ("tp12", 12), ("tp_6h", 6), ("tp6h", 6)])
def test_a_sum_whose_name_tells_its_hours(tmp_path, name, hours):
    data = open_files(write_netcdf(tmp_path / "x.nc", field(name, "m", 0.01)), ["tp"])
    np.testing.assert_allclose(data.state[:, 0], wave(base=0.01), rtol=3e-7)
    assert data.attributes["accumulation"]["tp"]["source_hours"] == hours


@pytest.mark.parametrize("name", ["pr", "prate", "tprate", "mtpr", "avg_tprate", "mean_total_precipitation_rate"])
def test_a_rate_is_no_sum(tmp_path, name):
    path = write_netcdf(tmp_path / "x.nc", field(name, "kg m-2 s-1", 1e-5))
    says = r"no channel tp: tp is not taken from {}: a rate \(kg m-2 s-1\).*source\.sums: {{{}: 24h}}"
    with pytest.raises(InputError, match=says.format(name, name)):
        open_files(path, ["tp"])
    with pytest.raises(InputError, match=says.format(name, name)):
        open_files(path, ["tp"], rename={name: "tp"})
    open_files(write_netcdf(tmp_path / "b.nc", xr.merge([field(name, "kg m-2 s-1"), field()])), ["t2m"])  # harmless
    sums = write_netcdf(tmp_path / "c.nc", field(name, "mm", 1.0))
    with pytest.raises(InputError, match=rf"by its name a rate, by its units \(mm\) none.*rename: {{{name}: tp}}"):
        open_files(sums, ["tp"])
    data = open_files(sums, ["tp"], rename={name: "tp"}, sums={name: "12h"})
    np.testing.assert_allclose(data.state[:, 0], wave(base=1.0) / 1000, rtol=3e-7)


@pytest.mark.parametrize(
    ("part", "whole", "says"),
    [
        ("cp", "tp", r"cp is only a part of total_precipitation \(convective\)"),
        ("acpcp", "tp", r"acpcp is only a part of total_precipitation \(convective\)"),
        ("lsp", "tp", r"lsp is only a part of total_precipitation \(large-scale\)"),
        ("lsf", "sf", r"lsf is only a part of snowfall \(large-scale\)"),
        ("high_cloud_cover", "tcc", r"high_cloud_cover is only a part of total_cloud_cover \(high clouds\)"),
    ],
)
def test_a_part_is_not_the_whole_but_itself(tmp_path, part, whole, says):
    units = "1" if whole == "tcc" else "m"
    path = write_netcdf(tmp_path / "x.nc", field(part, units, 0.01))
    with pytest.raises(InputError, match=rf"no channel {whole}; .*{says}"):
        open_files(path, [whole])
    both = write_netcdf(tmp_path / "y.nc", xr.merge([field(part, units, 0.01), field()]))
    with pytest.raises(InputError, match=says):
        open_file_states([str(both)], ["t2m", whole])
    channel = {"acpcp": "cp", "high_cloud_cover": "hcc"}.get(part, part)
    data = open_files(path, [channel], sums="12h")
    np.testing.assert_allclose(data.state[:, 0], wave(base=0.01), rtol=3e-7)


def test_parts_in_grib(tmp_path):
    """Values and units as ecCodes has them: kg m-2 of ncpcp, a fraction of lcc."""
    rain = grib_message("ncpcp", 0, "surface", edition=2, values=wave(TIMES[:1], base=4.0)[0])
    cover = grib_message("lcc", 0, "surface", edition=2, values=np.full((4, 8), 0.25))
    (tmp_path / "x.grib2").write_bytes(rain + cover)
    data = open_files(tmp_path / "x.grib2", ["lsp", "lcc"], sums="6h")
    message = eccodes.codes_new_from_message(rain)
    assert eccodes.codes_get(message, "units") == "kg m**-2"
    np.testing.assert_allclose(data.state[0, 0].values.ravel(), eccodes.codes_get_values(message) / 1000, rtol=1e-6)
    eccodes.codes_release(message)
    np.testing.assert_allclose(data.state[0, 1], 0.25, rtol=1e-6)
    with pytest.raises(InputError, match="lcc is only a part of total_cloud_cover"):
        open_files(tmp_path / "x.grib2", ["tcc"])


# --- names of two meanings ---


def test_heights_with_their_unit_make_the_bare_number_a_pressure(tmp_path):
    both = several(("u10m", 5.0), ("u100m", 8.0), ("u100", 30.0), ("u10", 60.0))
    path = write_netcdf(tmp_path / "x.nc", both)
    assert first(open_files(path, ["u10", "u100m", "u100"])) == [mean_of(5.0), mean_of(8.0), mean_of(30.0)]
    bare = write_netcdf(tmp_path / "y.nc", several(("u10m", 5.0), ("u100", 30.0), ("u10", 60.0)))
    assert first(open_files(bare, ["u10", "u100"])) == [mean_of(5.0), mean_of(30.0)]
    with pytest.raises(InputError, match="holds no channel u100m"):
        open_files(bare, ["u100m"])


@pytest.mark.parametrize("others", [(), ("t2m",), ("u10",), ("u500", "u850")])
def test_u100_alone_is_asked_about(tmp_path, others):
    path = write_netcdf(tmp_path / "x.nc", several(("u100", 30.0), *[(name, 1.0) for name in others]))
    says = (
        r"u100 may be u_component_of_wind at 100 hPa or 100m_u_component_of_wind.*rename: {u100: u100} or {u100: u100m}"
    )
    for channel in ("u100", "u100m"):
        with pytest.raises(InputError, match=says):
            open_files(path, [channel])
        assert first(open_files(path, [channel], rename={"u100": channel})) == [mean_of(30.0)]


@pytest.mark.parametrize(
    ("attributes", "channel"),
    [
        ({"long_name": "100 metre U wind component"}, "u100m"),
        ({"long_name": "eastward wind at 100 m"}, "u100m"),
        ({"GRIB_shortName": "100u"}, "u100m"),
        ({"GRIB_typeOfLevel": "heightAboveGround"}, "u100m"),
        ({"long_name": "eastward wind at 100 hPa"}, "u100"),
        ({"description": "U on the 100-mb surface"}, "u100"),
        ({"GRIB_typeOfLevel": "isobaricInhPa"}, "u100"),
        ({"coordinates": "time plev lat lon"}, "u100"),
    ],
)
def test_what_the_field_says_decides(attributes, channel):
    meaning = NameRules(FilesSource(kind="files", paths=["x"])).meaning("u100", attributes)
    assert isinstance(meaning, Meaning)
    assert (meaning.variable.short, meaning.level) == (("u100m", None) if channel == "u100m" else ("u", 100))


@pytest.mark.parametrize(
    ("name", "companions", "expected"),
    [
        ("u100", ["u50", "u150"], ("u", 100)),
        ("u10", [], ("u10", None)),
        ("u10", ["u50", "u500"], ("u10", None)),
        ("u10", ["u7", "u20"], None),
        ("u10", ["v10m"], ("u", 10)),
        ("z10", ["z500"], ("z", 10)),
        ("z10", [], None),
        ("T2", [], None),
        ("t2", ["t2m"], ("t", 2)),
        ("t5", ["t500", "t850"], ("t", 5)),
        ("q2", ["psfc"], None),
        ("t850", [], ("t", 850)),
        ("u10hPa", [], ("u", 10)),
    ],
)
def test_the_other_fields_of_the_file_decide(name, companions, expected):
    meaning = NameRules(FilesSource(kind="files", paths=["x"])).meaning(name, {}, frozenset(companions))
    if expected is None:
        assert isinstance(meaning, Doubt)
    else:
        assert isinstance(meaning, Meaning)
        assert (meaning.variable.short, meaning.level) == expected


def test_wrf_and_era5_tell_by_their_long_names(tmp_path):
    wrf = xr.merge(
        [several(("T2", 280.0), units="K", description="TEMP at 2 M"), several(("U10", 5.0), description="U at 10 M")]
    )
    path = write_netcdf(tmp_path / "x.nc", wrf)
    assert first(open_files(path, ["t2m", "u10"])) == [mean_of(280.0), mean_of(5.0)]
    high = write_netcdf(tmp_path / "y.nc", several(("u120", 9.0), long_name="wind at 120 m"))
    with pytest.raises(InputError, match="holds no channel u120"):
        open_files(high, ["u120"])


def test_a_field_at_a_height_is_on_no_pressure_level(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", several(("t", 280.0), units="K", GRIB_typeOfLevel="heightAboveGround"))
    with pytest.raises(InputError, match="holds no channel t850"):
        open_files(path, ["t850"], levels={"t": 850})
    ground = write_netcdf(
        tmp_path / "z.nc", several(("z", 50.0), units="m2 s-2", GRIB_typeOfLevel="hybrid").isel(time=[0])
    )
    with pytest.raises(InputError, match=r"static field orography; held are .*level not told"):
        open_files([ground, write_netcdf(tmp_path / "t.nc", field())], ["t2m"], ("orography",))


# --- two names for one channel ---


def test_two_names_with_other_values_are_refused(tmp_path):
    both = xr.merge([upper("geopotential", "m2 s-2", 5e4, 500.0), field("z500", "m2 s-2", 6e4)])
    path = write_netcdf(tmp_path / "x.nc", both)
    says = r"geopotential and z500 are both z500 and differ at 2020-01-01T00.* by up to 10000; .*{z500: z500}"
    with pytest.raises(InputError, match=says):
        open_files(path, ["z500"])
    assert first(open_files(path, ["z500"], rename={"z500": "z500"})) == [mean_of(6e4)]
    with pytest.raises(InputError, match=r"Dataset cannot be used: .*geopotential and z500 are both z500"):
        open_dataset_states(both, ["z500"])
    with pytest.raises(InputError, match="geopotential and z500 are both z500"):
        open_file_states([str(path)], ["z500"])


def test_two_names_that_differ_only_at_the_end_are_refused(tmp_path):
    other = field("z500", "m2 s-2", 5e4)
    other["z500"][-1] += 500
    path = write_netcdf(tmp_path / "x.nc", xr.merge([upper("geopotential", "m2 s-2", 5e4, 500.0), other]))
    with pytest.raises(InputError, match="differ at 2020-01-02T12"):
        open_files(path, ["z500"])


def test_two_names_with_equal_values_are_said(tmp_path, caplog):
    height = field("gh500", "gpm", 5e4)
    height["gh500"].values[:] = wave(base=5e4) / G
    path = write_netcdf(tmp_path / "x.nc", xr.merge([upper("geopotential", "m2 s-2", 5e4, 500.0), height]))
    with caplog.at_level(logging.INFO):
        data = open_files(path, ["z500"])
    assert first(data) == [mean_of(5e4)]
    assert "geopotential and gh500 are both z500, with equal values" in caplog.text


# --- end to end ---


def settings(tmp_path, path, channels, **source) -> DataConfig:
    files = {"kind": "files", "paths": [str(path)], **source}
    return DataConfig(store=str(tmp_path / "s.zarr"), source=files, channels=channels, climatology_window=None)


def test_earth2studio_names_through_prepare_and_as_states(real_data, tmp_path):
    path = real_data / CASES / "S3_e2s_all.nc"
    channels = ["u10", "u100", "u100m", "z500"]
    store = prepare(settings(tmp_path, path, channels))
    states = open_file_states([str(path)], channels)
    with netCDF4.Dataset(path) as dataset:
        expected = np.stack([dataset[name][:] for name in ("u10m", "u100", "u100m", "z500")], axis=1)
    np.testing.assert_array_equal(store.read(range(8), channels), expected)
    np.testing.assert_array_equal(states.read(states.times, channels)[:, 0], expected)


def test_u100_of_an_unknown_kind_is_refused_by_prepare_and_as_states(real_data, tmp_path):
    path = real_data / CASES / "S3_e2s_only_100hPa.nc"
    with pytest.raises(InputError, match=r"u100 may be .*source\.rename"):
        prepare(settings(tmp_path, path, ["u100m"]))
    assert not (tmp_path / "s.zarr").exists()
    with pytest.raises(InputError, match=r"the model needs u100m.*u100 may be .*source\.rename"):
        open_file_states([str(path)], ["u100m"])
    store = prepare(settings(tmp_path, path, ["u100"], rename={"u100": "u100"}))
    with netCDF4.Dataset(path) as dataset:
        np.testing.assert_array_equal(store.read(range(8), ["u100"])[:, 0], dataset["u100"][:])


def test_files_that_say_they_are_simulated(tmp_path, caplog):
    made = field().assign_attrs(simulated="true")
    store = prepare(settings(tmp_path, write_netcdf(tmp_path / "x.nc", made), ["t2m"]))
    assert store.manifest["source"]["simulated"] is True
    assert "marked as simulated" in caplog.text
    made.to_zarr(tmp_path / "x.zarr", zarr_format=2, consolidated=True)
    assert open_files(tmp_path / "x.zarr", ["t2m"]).simulated
    unused = write_netcdf(tmp_path / "other.nc", field("d2m").assign_attrs(simulated="true"))
    real = write_netcdf(tmp_path / "real.nc", field())
    assert not open_files([real, unused], ["t2m"]).simulated
