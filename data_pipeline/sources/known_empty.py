"""Variables that public copies of ERA5 list, or are thought to have, and do not hold: refused before anything moves.

Seen by many in the copies themselves (github.com/google-research/weatherbench2: issues 124, 161, 274 and 290, pull
request 296). A variable that turns up here is a word in a message, never a change of values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from weatherfm.data_pipeline.fields.derived import inputs_of
from weatherfm.earth.variables import VARIABLES, parse_channel
from weatherfm.errors import InputError

_ARCO = "source.kind=arco (0.25 degrees, hourly; data.regrid brings it to any grid)"
_CDS = "source.kind=cds"
_EVERYWHERE_NAN = "is there by name, but every value is NaN"
_FRACTION = "is a fraction of one there and says no units"

_FLUXES = (
    "mean_surface_net_long_wave_radiation_flux",
    "mean_surface_net_short_wave_radiation_flux",
    "mean_top_downward_short_wave_radiation_flux",
    "mean_top_net_long_wave_radiation_flux",
    "mean_top_net_short_wave_radiation_flux",
)
_NAN_IN_FINE_COPIES = (
    *_FLUXES,
    "2m_dewpoint_temperature",
    "potential_vorticity",
    "mean_vertically_integrated_moisture_divergence",
    "leaf_area_index_high_vegetation",
    "leaf_area_index_low_vegetation",
)
_NO_SST = {"sea_surface_temperature": _EVERYWHERE_NAN}

EMPTY: dict[str, dict[str, str]] = {
    "1440x721": dict.fromkeys(_NAN_IN_FINE_COPIES, _EVERYWHERE_NAN),
    "240x121": dict.fromkeys(
        (*_NAN_IN_FINE_COPIES, "geostrophic_wind_speed", "ageostrophic_wind_speed"), _EVERYWHERE_NAN
    ),
    "512x256": {**dict.fromkeys(_FLUXES, _EVERYWHERE_NAN), "2m_dewpoint_temperature": "is not in this copy"},
    "64x32": {
        **dict.fromkeys(_FLUXES, _EVERYWHERE_NAN),
        "2m_dewpoint_temperature": "could only come from the 0.25-degree copy, where every value is NaN",
    },
    "1959-2022-6h-64x32_equiangular_conservative.zarr": _NO_SST,
    "1959-2022-6h-128x64_equiangular_conservative.zarr": _NO_SST,
    "1959-2022-1h-240x121_equiangular_with_poles_conservative.zarr": _NO_SST,
    "1959-2022-1h-360x181_equiangular_with_poles_conservative.zarr": _NO_SST,
    "1959-2022-6h-64x33.zarr": {"*": "is NaN everywhere, as all of this copy is"},
}
"""A resolution of the shipped settings, or the name of another WeatherBench2 copy -> ERA5's long name -> what is wrong;
`*` stands for every variable."""

WHO_HAS: dict[str, str] = {
    "2m_dewpoint_temperature": f"{_ARCO} and {_CDS} have it",
    "sea_surface_temperature": f"the copies of 2023_01_10 (source.resolution), {_ARCO} and {_CDS} have it",
    "*": f"the other copies (source.resolution), {_ARCO} and {_CDS} hold ERA5",
}
"""ERA5's long name -> where to get it; `*` for those without a word of their own."""

NEVER_TAKEN: dict[str, str] = {"relative_humidity": _FRACTION}
"""Long names that are not read from any of WeatherBench2's copies -> why; computed from others where possible."""


def refuse_empty(channels: Sequence[str], copy: str, address: str) -> None:
    """See that a copy can give all channels, as far as is known of it.

    Args:
        channels: short names, constant fields among them.
        copy: key of `EMPTY`; others are not known, and nothing is refused.
        address: for the message.

    Raises:
        InputError: channels that it does not hold, each with the reason and what has them.
    """
    empty = EMPTY.get(copy, {})
    texts = []
    for name in channels:
        lacking = _lacking(name, empty)
        if lacking is None:
            continue
        source, reason = lacking
        of = "" if source == name else f" (which {name} would be computed from)"
        remedy = WHO_HAS.get(VARIABLES[parse_channel(source).variable.short].era5, WHO_HAS["*"])
        texts.append(f"{source}{of} {reason}; {remedy}, or leave {name} out")
    if texts:
        raise InputError(f"{address} cannot give all of data.channels: " + "; ".join(texts))


def never_taken(names: Collection[str]) -> dict[str, str]:
    """Short name of a variable -> why it is not read, for those of the channels `names` that never are."""
    variables = {parse_channel(name).variable for name in names}
    return {v.short: NEVER_TAKEN[v.era5] for v in variables if v.era5 in NEVER_TAKEN}


def _lacking(name: str, empty: Mapping[str, str]) -> tuple[str, str] | None:
    """(channel, reason) of what is missing for channel `name`: itself, or something it would be computed from."""
    variable = parse_channel(name).variable
    inputs = inputs_of(name)
    reason = empty.get(variable.era5, empty.get("*"))
    if reason is not None and (inputs is None or "*" in empty):
        return name, reason
    for part in inputs or ():
        if part != name and (found := _lacking(part, empty)) is not None:
            return found
    return None
