"""THE channel table: the only map between short names, ERA5 names, CF names, units and levels.

A *variable* is a physical quantity (`z`, geopotential); a *channel* is one two-dimensional field of it
(`z500`). Tensors know channels by short name, disks know variables by ERA5 name and CF units.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from weatherfm.earth.constants import GRAVITY as GRAVITY
from weatherfm.errors import InputError


@dataclass(frozen=True)
class Variable:
    """One physical quantity as ERA5 knows it."""

    short: str
    """Short name used in tensors and on the command line."""
    era5: str
    """Long name of the ERA5 archive and of WeatherBench2."""
    standard_name: str
    """CF standard name; empty where the CF table has none."""
    units: str
    """Canonical units, CF spelling."""
    bounds: tuple[float, float]
    """Values outside are physically impossible on Earth (both ends in `units`)."""
    aliases: tuple[str, ...] = ()
    """Other names found in files (GRIB shortName, older archives, CMIP6, NCEP and its GrADS and wgrib2 names, COSMO,
    earth2studio). `u100` and the like, which others use for a pressure level, are settled in `formats/meaning/ambiguous_names.py`."""
    on_levels: bool = False
    """True for a variable on pressure levels."""
    accumulated: bool = False
    """True for a sum over a span that ends at its time, such as total precipitation; the store tells the span."""
    constant: bool = False
    """True for a field that does not change with time."""
    masked: bool = False
    """True for a field that has values over the sea alone, or over land alone: points where it never has any are left
    out of all that is computed."""
    on_wavelengths: bool = False
    """True for a variable at wavelengths of light: its levels are whole nm."""


VARIABLES: dict[str, Variable] = {
    v.short: v
    for v in (
        Variable("z", "geopotential", "geopotential", "m2 s-2", (-1.5e4, 6e5), ("gh", "hgt", "zg", "geopotential_height", "hgtprs", "fi"), on_levels=True),
        Variable("t", "temperature", "air_temperature", "K", (130, 350), ("ta", "air_temperature", "air", "tmp", "tmpprs"), on_levels=True),
        Variable("u", "u_component_of_wind", "eastward_wind", "m s-1", (-250, 250), ("ua", "uwnd", "ugrd", "ugrdprs"), on_levels=True),
        Variable("v", "v_component_of_wind", "northward_wind", "m s-1", (-250, 250), ("va", "vwnd", "vgrd", "vgrdprs"), on_levels=True),
        Variable("w", "vertical_velocity", "lagrangian_tendency_of_air_pressure", "Pa s-1", (-50, 50), ("wap", "omega", "vvel", "vvelprs"), on_levels=True),
        Variable("q", "specific_humidity", "specific_humidity", "kg kg-1", (-1e-3, 0.1), ("hus", "shum", "spfh", "spfhprs", "qv"), on_levels=True),
        Variable("r", "relative_humidity", "relative_humidity", "%", (-20, 200), ("hur", "rh", "rhum", "rhprs"), on_levels=True),
        Variable("ws", "wind_speed", "wind_speed", "m s-1", (0, 350), ("wspd",), on_levels=True),
        Variable("vo", "vorticity", "atmosphere_relative_vorticity", "s-1", (-0.02, 0.02), (), on_levels=True),
        Variable("d", "divergence", "divergence_of_wind", "s-1", (-0.02, 0.02), (), on_levels=True),
        Variable("o3", "ozone_mass_mixing_ratio", "mass_fraction_of_ozone_in_air", "kg kg-1", (-1e-6, 1e-3), (), on_levels=True),
        Variable("ciwc", "specific_cloud_ice_water_content", "mass_fraction_of_cloud_ice_in_air", "kg kg-1", (-1e-6, 0.05), (), on_levels=True),
        Variable("clwc", "specific_cloud_liquid_water_content", "mass_fraction_of_cloud_liquid_water_in_air", "kg kg-1", (-1e-6, 0.05), (), on_levels=True),
        Variable("t2m", "2m_temperature", "air_temperature", "K", (170, 350), ("2t", "t_2m", "tas", "tmp2m", "tmp_2maboveground")),
        Variable("d2m", "2m_dewpoint_temperature", "dew_point_temperature", "K", (120, 330), ("2d", "td_2m", "td2m", "dpt2m", "dpt_2maboveground", "tdps")),
        Variable("r2m", "2m_relative_humidity", "relative_humidity", "%", (-1, 150), ("2r", "r2", "hurs", "rh2m", "rh_2maboveground")),
        Variable("u10", "10m_u_component_of_wind", "eastward_wind", "m s-1", (-150, 150), ("10u", "u_10m", "uas", "u10m", "ugrd10m", "ugrd_10maboveground")),
        Variable("v10", "10m_v_component_of_wind", "northward_wind", "m s-1", (-150, 150), ("10v", "v_10m", "vas", "v10m", "vgrd10m", "vgrd_10maboveground")),
        Variable("ws10", "10m_wind_speed", "wind_speed", "m s-1", (0, 200), ("10si", "si10", "sfcwind", "ws10m", "ws_10m")),
        Variable("u100m", "100m_u_component_of_wind", "eastward_wind", "m s-1", (-150, 150), ("100u", "u100", "u_100m", "ua100m", "ugrd100m", "ugrd_100maboveground")),
        Variable("v100m", "100m_v_component_of_wind", "northward_wind", "m s-1", (-150, 150), ("100v", "v100", "v_100m", "va100m", "vgrd100m", "vgrd_100maboveground")),
        Variable("msl", "mean_sea_level_pressure", "air_pressure_at_mean_sea_level", "Pa", (8.5e4, 1.1e5), ("mslp", "prmsl", "psl", "slp", "mslet", "prmslmsl", "prmsl_meansealevel", "pmsl", "msletmsl", "mslet_meansealevel")),
        Variable("sp", "surface_pressure", "surface_air_pressure", "Pa", (4e4, 1.1e5), ("ps", "pressfc", "pres_surface")),
        Variable("skt", "skin_temperature", "surface_temperature", "K", (150, 370), ("ts", "tmpsfc", "tmp_surface")),
        Variable("sst", "sea_surface_temperature", "sea_surface_temperature", "K", (265, 315), ("tos",), masked=True),
        Variable("siconc", "sea_ice_cover", "sea_ice_area_fraction", "1", (-0.01, 1.01), ("ci", "sic"), masked=True),
        Variable("tcwv", "total_column_water_vapour", "atmosphere_mass_content_of_water_vapor", "kg m-2", (-1, 150), ("prw", "pwat", "pwatclm", "pwat_entireatmosphere_consideredasasinglelayer_", "pr_wtr", "tqv")),
        Variable("tcc", "total_cloud_cover", "cloud_area_fraction", "1", (-0.01, 1.01), ("clt", "tcdcclm", "tcdc_entireatmosphere", "clct")),
        Variable("lcc", "low_cloud_cover", "low_type_cloud_area_fraction", "1", (-0.01, 1.01), ("clcl",)),
        Variable("mcc", "medium_cloud_cover", "medium_type_cloud_area_fraction", "1", (-0.01, 1.01), ("clcm",)),
        Variable("hcc", "high_cloud_cover", "high_type_cloud_area_fraction", "1", (-0.01, 1.01), ("clch",)),
        Variable("swvl1", "volumetric_soil_water_layer_1", "", "m3 m-3", (-0.1, 1.1), (), masked=True),
        Variable("swvl2", "volumetric_soil_water_layer_2", "", "m3 m-3", (-0.1, 1.1), (), masked=True),
        Variable("swvl3", "volumetric_soil_water_layer_3", "", "m3 m-3", (-0.1, 1.1), (), masked=True),
        Variable("swvl4", "volumetric_soil_water_layer_4", "", "m3 m-3", (-0.1, 1.1), (), masked=True),
        Variable("stl1", "soil_temperature_level_1", "", "K", (170, 350), (), masked=True),
        Variable("stl2", "soil_temperature_level_2", "", "K", (170, 350), (), masked=True),
        Variable("stl3", "soil_temperature_level_3", "", "K", (170, 350), (), masked=True),
        Variable("stl4", "soil_temperature_level_4", "", "K", (170, 350), (), masked=True),
        Variable("sd", "snow_depth", "lwe_thickness_of_surface_snow_amount", "m", (-1e-3, 200), (), masked=True),
        Variable("i10fg", "instantaneous_10m_wind_gust", "wind_speed_of_gust", "m s-1", (-0.1, 200), ()),
        Variable("cape", "convective_available_potential_energy", "atmosphere_convective_available_potential_energy", "J kg-1", (-1, 2e4), ()),
        Variable("blh", "boundary_layer_height", "atmosphere_boundary_layer_thickness", "m", (0, 1.2e4), ()),
        Variable("tcw", "total_column_water", "", "kg m-2", (-1, 200), ()),
        Variable("tco3", "total_column_ozone", "atmosphere_mass_content_of_ozone", "kg m-2", (0, 0.03), ()),
        Variable("fal", "forecast_albedo", "surface_albedo", "1", (-0.01, 1.01), ()),
        Variable("sf", "snowfall", "lwe_thickness_of_snowfall_amount", "m", (-1e-3, 5), (), accumulated=True),
        Variable("ssrd", "surface_solar_radiation_downwards", "integral_wrt_time_of_surface_downwelling_shortwave_flux_in_air", "J m-2", (-1e4, 1e8), (), accumulated=True),
        Variable("strd", "surface_thermal_radiation_downwards", "integral_wrt_time_of_surface_downwelling_longwave_flux_in_air", "J m-2", (-1e4, 1e8), (), accumulated=True),
        Variable("ssr", "surface_net_solar_radiation", "integral_wrt_time_of_surface_net_downward_shortwave_flux", "J m-2", (-1e5, 1e8), (), accumulated=True),
        Variable("str", "surface_net_thermal_radiation", "integral_wrt_time_of_surface_net_downward_longwave_flux", "J m-2", (-1e8, 1e8), (), accumulated=True),
        Variable("slhf", "surface_latent_heat_flux", "integral_wrt_time_of_surface_downward_latent_heat_flux", "J m-2", (-2e8, 1e8), (), accumulated=True),
        Variable("sshf", "surface_sensible_heat_flux", "integral_wrt_time_of_surface_downward_sensible_heat_flux", "J m-2", (-2e8, 1e8), (), accumulated=True),
        Variable("tsr", "top_net_solar_radiation", "", "J m-2", (-1e5, 1e8), (), accumulated=True),
        Variable("ttr", "top_net_thermal_radiation", "", "J m-2", (-1e8, 1e5), (), accumulated=True),
        Variable("tp", "total_precipitation", "", "m", (-1e-3, 5), ("total_precipitation_6hr", "total_precipitation_12hr", "total_precipitation_24hr", "apcp", "apcpsfc", "apcp_surface", "tot_prec"), accumulated=True),
        Variable("cp", "convective_precipitation", "lwe_thickness_of_convective_precipitation_amount", "m", (-1e-3, 5), ("acpcp", "acpcpsfc", "acpcp_surface"), accumulated=True),
        Variable("lsp", "large_scale_precipitation", "lwe_thickness_of_stratiform_precipitation_amount", "m", (-1e-3, 5), ("ncpcp", "ncpcpsfc", "ncpcp_surface"), accumulated=True),
        Variable("csf", "convective_snowfall", "lwe_thickness_of_convective_snowfall_amount", "m", (-1e-3, 5), (), accumulated=True),
        Variable("lsf", "large_scale_snowfall", "lwe_thickness_of_stratiform_snowfall_amount", "m", (-1e-3, 5), (), accumulated=True),
        Variable("tisr", "toa_incident_solar_radiation", "", "J m-2", (-1, 1e8), ("toa_incident_solar_radiation_6hr", "toa_incident_solar_radiation_12hr", "toa_incident_solar_radiation_24hr"), accumulated=True),
        Variable("orography", "geopotential_at_surface", "", "m2 s-2", (-1.5e4, 1e5), ("z_surface", "zsurf", "orog", "hgtsfc", "hgt_surface", "phis", "hsurf"), constant=True),
        Variable("refl", "reflectance", "", "1", (-0.2, 2.0), (), on_wavelengths=True),
        Variable("lsm", "land_sea_mask", "land_binary_mask", "1", (-0.01, 1.01), ("land_mask", "land", "sftlf", "landsfc", "land_surface", "fr_land"), constant=True),
    )
}  # fmt: skip

_BY_ANY_NAME: dict[str, Variable] = {
    name.lower(): variable
    for variable in VARIABLES.values()
    if not variable.on_wavelengths
    for name in (variable.short, variable.era5, *variable.aliases)
}
"""Names that files of weather have; variables at wavelengths are told from files by no name."""

_SHORTEST, _LONGEST = 100, 20_000
"""nm: wavelengths of light, from ultraviolet to thermal infrared."""
_RANGE = re.compile(r"([a-z_]+)(\d{1,6})\.\.(\d{1,6})/(\d{1,6})")

_OWN: set[str] = set()
"""Short names of variables that came to the table in this process."""


def add_variables(definitions: Mapping[str, Mapping[str, Any]]) -> None:
    """Extend the table, for this process: settings, stores, weights, forecasts and scores bring their own variables.

    Args:
        definitions: short name -> the other fields of `Variable`, as `own_variables` gives them.

    Raises:
        InputError: a name that is another variable's, or a channel of one.
    """
    for short, told in definitions.items():
        try:
            low, high = map(float, told["bounds"])
            variable = Variable(short, **{**told, "bounds": (low, high), "aliases": tuple(told.get("aliases", ()))})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the definition of the variable {short!r} cannot be read ({error})") from None
        if VARIABLES.get(short) == variable:
            continue
        names = (short, variable.era5, *variable.aliases)
        for name in names:
            if (other := _known(name)) is not None:
                raise InputError(f"variable {short!r}: the name {name!r} is that of {other} already; choose another")
        VARIABLES[short] = variable
        _OWN.add(short)
        if variable.on_wavelengths:
            continue
        _BY_ANY_NAME.update(dict.fromkeys((name.lower() for name in names), variable))


def own_variables(channels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """JSON-able definitions of what `add_variables` brought, of these channels; in files beside their data."""
    used = {parse_channel(name).variable.short for name in channels} & _OWN
    return {short: _definition(VARIABLES[short]) for short in sorted(used)}


def _definition(variable: Variable) -> dict[str, Any]:
    """All fields but the short name; `on_wavelengths`, which came later, where it is true."""
    told = asdict(variable)
    return {key: value for key, value in told.items() if key != "short" and (key != "on_wavelengths" or value)}


def _known(name: str) -> str | None:
    """What a name means already, in words."""
    if (variable := find_variable(name) or VARIABLES.get(name)) is not None:
        return f"{variable.short} ({variable.era5})"
    channel = _on_level(name)
    return None if channel is None else f"{channel.variable.short} at {channel.level} {channel.level_units}"


@dataclass(frozen=True)
class Channel:
    """One field: a variable, and where it has one the pressure level in hPa, or the wavelength in nm."""

    variable: Variable
    level: int | None = None

    @property
    def name(self) -> str:
        """Short name, e.g. `z500` or `t2m`."""
        return self.variable.short if self.level is None else f"{self.variable.short}{self.level}"

    @property
    def units(self) -> str:
        """Canonical units, CF spelling."""
        return self.variable.units

    @property
    def level_units(self) -> str:
        """Of the level: hPa, or nm of a wavelength."""
        return "nm" if self.variable.on_wavelengths else "hPa"


def find_variable(name: str) -> Variable | None:
    """The variable that any of its names means (case ignored), or None."""
    return _BY_ANY_NAME.get(name.lower())


def is_wind_component(channel: str) -> bool:
    """Whether a channel is wind along a parallel or a meridian: directions that turn round behind a pole."""
    variable = find_variable(channel) or find_variable(channel.rstrip("0123456789"))
    return variable is not None and variable.standard_name in ("eastward_wind", "northward_wind")


def _on_level(name: str) -> Channel | None:
    """z500, vo850, o3500, ciwc500; None of names that mean no variable on a level."""
    for cut in range(len(name) - 1, 0, -1):  # ozone at 500 hPa is o3500, and `o35` is no variable
        variable, level = VARIABLES.get(name[:cut]), name[cut:]
        if not (level.isascii() and level.isdigit()):
            return None
        if variable is not None and variable.on_levels and 1 <= int(level) <= 1100:
            return Channel(variable, int(level))
        if variable is not None and variable.on_wavelengths and _SHORTEST <= int(level) <= _LONGEST:
            return Channel(variable, int(level))
    return None


def expand_channels(names: Iterable[Any]) -> list[Any]:
    """Ranges of wavelengths written out: `refl400..1000/5` is refl400, refl405, ... refl1000; all else as it is.

    Raises:
        InputError: a range that descends, or of no variable at wavelengths.
    """
    found: list[Any] = []
    for name in names:
        parts = _RANGE.fullmatch(name) if isinstance(name, str) else None
        if parts is None:
            found.append(name)
            continue
        short, first, last, step = parts[1], int(parts[2]), int(parts[3]), int(parts[4])
        variable = VARIABLES.get(short)
        if step < 1 or last < first or last - first > _LONGEST or (variable and not variable.on_wavelengths):
            raise InputError(
                f"{name!r} is no range of channels; write wavelengths in nm from the shortest to the longest, and the "
                "step, as refl400..1000/5"
            )
        found += [f"{short}{level}" for level in range(first, last + 1, step)]
    return found


def parse_channel(name: str) -> Channel:
    """The channel a short name means: `parse_channel("z500")` is geopotential at 500 hPa.

    Raises:
        InputError: no variable has this name, or its level is missing or out of place.
    """
    variable = VARIABLES.get(name)
    if variable is not None and not (variable.on_levels or variable.on_wavelengths):
        return Channel(variable)  # u10 is the wind at 10 m, as in ERA5; the 10 hPa wind has no short name
    if (channel := _on_level(name)) is not None:
        return channel
    if variable is not None:
        what = "wavelength in whole nm" if variable.on_wavelengths else "level in hPa"
        raise InputError(f"channel {name!r} ({variable.era5}) needs its {what}; write e.g. {name}500")
    known = [v.short + ("500" if v.on_levels or v.on_wavelengths else "") for v in VARIABLES.values()]
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    raise InputError(f"unknown channel {name!r}; {hint} (upper-air channels carry their level in hPa, as z500)")
