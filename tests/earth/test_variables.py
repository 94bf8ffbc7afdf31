"""The channel table: every name leads to one variable, and unknown names are refused with a suggestion."""

from __future__ import annotations

import eccodes
import pytest

from weatherfm.data_pipeline.formats.units import conversion_to
from weatherfm.earth.variables import (
    _OWN,
    VARIABLES,
    add_variables,
    expand_channels,
    find_variable,
    own_variables,
    parse_channel,
)
from weatherfm.errors import InputError


def test_no_name_means_two_variables():
    names = [n.lower() for v in VARIABLES.values() for n in {v.short, v.era5, *v.aliases}]
    assert len(names) == len(set(names))


def test_every_variable_is_found_by_every_name_and_has_sane_bounds():
    for variable in VARIABLES.values():
        for name in (variable.short, variable.era5, *variable.aliases):
            found = None if variable.on_wavelengths else variable  # these are told from files by no name
            assert find_variable(name) is found
            assert find_variable(name.upper()) is found
        assert variable.bounds[0] < variable.bounds[1]
        assert variable.units


@pytest.mark.parametrize(
    ("name", "era5", "level", "units"),
    [
        ("z500", "geopotential", 500, "m2 s-2"),
        ("q1000", "specific_humidity", 1000, "kg kg-1"),
        ("o350", "ozone_mass_mixing_ratio", 50, "kg kg-1"),
        ("o3500", "ozone_mass_mixing_ratio", 500, "kg kg-1"),
        ("t2m", "2m_temperature", None, "K"),
        ("u10", "10m_u_component_of_wind", None, "m s-1"),
        ("u100m", "100m_u_component_of_wind", None, "m s-1"),
        ("u100", "u_component_of_wind", 100, "m s-1"),
        ("ciwc850", "specific_cloud_ice_water_content", 850, "kg kg-1"),
        ("u850", "u_component_of_wind", 850, "m s-1"),
        ("msl", "mean_sea_level_pressure", None, "Pa"),
        ("ws500", "wind_speed", 500, "m s-1"),
        ("ws10", "10m_wind_speed", None, "m s-1"),
        ("r2m", "2m_relative_humidity", None, "%"),
        ("r2", "relative_humidity", 2, "%"),
    ],
)
def test_parse_channel(name, era5, level, units):
    channel = parse_channel(name)
    assert (channel.variable.era5, channel.level, channel.units, channel.name) == (era5, level, units, name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t2n", "did you mean 't2m'"),
        ("z", "write e.g. z500"),
        ("nonsense99", "known are"),
        ("msl500", "unknown channel"),
        ("z5000", "unknown channel"),
        ("z0", "unknown channel"),
    ],
)
def test_unknown_channels_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        parse_channel(name)


def test_the_table_agrees_with_ecmwfs_parameter_database():
    """Units and names as ecCodes has them, for every variable that it knows by our short name or an alias."""
    known = 0
    for variable in VARIABLES.values():
        if variable.constant or (found := parameter(variable)) is None:
            continue  # geopotential of the surface has a parameter of its own, and its height an alias here
        known += 1
        units, in_netcdf = found
        assert conversion_to(variable, units).is_identity, (variable.short, units)
        assert in_netcdf == "unknown" or find_variable(in_netcdf) is variable, (variable.short, in_netcdf)
    assert known >= 60


def parameter(variable) -> tuple[str, str] | None:
    """(units, name in NetCDF) of a variable by ecCodes; None where its short name is no parameter."""
    kind = "regular_ll_pl_grib1" if variable.on_levels else "regular_ll_sfc_grib1"
    for short in (variable.short, *variable.aliases):
        message = eccodes.codes_grib_new_from_samples(kind)
        try:
            eccodes.codes_set(message, "shortName", short)
            if eccodes.codes_get(message, "shortName") == short:
                return tuple(eccodes.codes_get(message, key) for key in ("units", "cfVarName"))
        except eccodes.CodesInternalError:
            continue
        finally:
            eccodes.codes_release(message)
    return None


# --- wavelengths ---


@pytest.mark.parametrize(("name", "level"), [("refl550", 550), ("refl100", 100), ("refl12000", 12000)])
def test_wavelengths_are_levels_in_nm(name, level):
    channel = parse_channel(name)
    assert (channel.name, channel.level, channel.level_units, channel.units) == (name, level, "nm", "1")
    assert parse_channel("w550").level_units == "hPa"


@pytest.mark.parametrize("name", ["refl99", "refl20001", "refl-5"])
def test_what_is_no_light_is_unknown(name):
    with pytest.raises(InputError, match="unknown channel"):
        parse_channel(name)


def test_ranges_of_wavelengths_are_written_out():
    assert expand_channels(["t2m", "refl400..410/4", "refl500..500/1"]) == [
        "t2m", "refl400", "refl404", "refl408", "refl500",
    ]  # fmt: skip
    assert expand_channels(["t500", 5]) == ["t500", 5]


@pytest.mark.parametrize("name", ["refl410..400/2", "refl400..410/0", "z500..850/50", "refl0..900000/1"])
def test_ranges_that_are_none(name):
    with pytest.raises(InputError, match="is no range of channels; write wavelengths in nm"):
        expand_channels([name])


def test_own_variables_at_wavelengths_keep_their_kind(request):
    request.addfinalizer(lambda: [(VARIABLES.pop(name, None), _OWN.discard(name)) for name in ("radiance", "haze")])
    told = {"era5": "own_radiance", "standard_name": "", "units": "W m-2", "bounds": [0, 9]}
    add_variables({"radiance": told | {"on_wavelengths": True}, "haze": told | {"era5": "own_haze", "on_levels": True}})
    kept = own_variables(["radiance700", "haze700"])
    assert kept["radiance"]["on_wavelengths"] is True
    assert "on_wavelengths" not in kept["haze"]  # as stores were written before there were any
    with pytest.raises(InputError, match="is that of refl"):
        add_variables({"refl": told | {"on_wavelengths": True}})
