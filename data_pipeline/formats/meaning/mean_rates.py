"""Names under which files keep a mean rate of what the channel table has as a sum: `pr` of `tp`, `rsds` of `ssrd`.

Fluxes that CMIP counts upward are those of ECMWF, which counts downward, with the other sign.
"""

from __future__ import annotations

from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.earth.variables import VARIABLES, Variable
from weatherfm.errors import InputError

RATE_RANK = 10_000
"""Rank of the name of a rate: behind those of all sums."""

_NAMES = {
    "tp": (
        "pr", "prate", "tprate", "mtpr", "avg_tprate", "mean_total_precipitation_rate", "precipitation_flux",
        "pratesfc", "prate_surface", "precipitation_rate",
    ),
    "cp": ("prc", "mcpr", "avg_cpr", "mean_convective_precipitation_rate", "convective_precipitation_flux"),
    "lsp": ("mlspr", "avg_lsprate", "mean_large_scale_precipitation_rate"),
    "sf": ("prsn", "msr", "avg_tsrwe", "mean_snowfall_rate", "snowfall_flux"),
    "csf": ("mcsr", "avg_csfr", "mean_convective_snowfall_rate"),
    "lsf": ("mlssr", "avg_lssfr", "mean_large_scale_snowfall_rate"),
    "ssrd": ("rsds", "msdwswrf", "avg_sdswrf", "mean_surface_downward_short_wave_radiation_flux"),
    "strd": ("rlds", "msdwlwrf", "avg_sdlwrf", "mean_surface_downward_long_wave_radiation_flux"),
    "ssr": ("msnswrf", "avg_snswrf", "mean_surface_net_short_wave_radiation_flux"),
    "str": ("msnlwrf", "avg_snlwrf", "mean_surface_net_long_wave_radiation_flux"),
    "slhf": ("mslhf", "avg_slhtf", "mean_surface_latent_heat_flux"),
    "sshf": ("msshf", "avg_ishf", "mean_surface_sensible_heat_flux"),
    "tsr": ("mtnswrf", "avg_tnswrf", "mean_top_net_short_wave_radiation_flux"),
    "ttr": ("mtnlwrf", "avg_tnlwrf", "mean_top_net_long_wave_radiation_flux"),
    "tisr": ("rsdt", "mtdwswrf", "avg_tdswrf", "mean_top_downward_short_wave_radiation_flux"),
}  # fmt: skip
_UPWARD = {"ttr": ("rlut",), "slhf": ("hfls",), "sshf": ("hfss",)}

_BY_NAME = {name: (short, 1) for short, names in _NAMES.items() for name in names}
_BY_NAME |= {name: (short, -1) for short, names in _UPWARD.items() for name in names}


def rate_named(name: str) -> tuple[Variable, int] | None:
    """The sum that a mean rate of this name adds up to, and 1, or -1 where it counts the other way; None of others."""
    found = _BY_NAME.get(name.lower())
    return None if found is None else (VARIABLES[found[0]], found[1])


def hours_said(source: FilesSource, name: str, channel: str) -> float | None:
    """What `source.sums` says of this very rate: the hours before each time that it is the mean of.

    Raises:
        InputError: it says that the rate is a sum since a start.
    """
    if not source.names_sum(name, channel):
        return None
    said = source.sums_of(name, channel) or ""
    if not said.endswith("h"):
        raise InputError(f"its {name} is a rate, and source.sums says {said} of it; say the hours it is the mean over")
    return float(said.removesuffix("h"))


def not_said(name: str, channel: str, units: str | None) -> str:
    """Why a rate is not taken for a sum whose interval nobody says, and how to say it."""
    return (
        f"is not taken from {name}: a rate ({units}) adds up to a sum only where its file says that it is the mean "
        "over an interval, and which (cell_methods 'time: mean' with bounds of the times, or a GRIB step range), "
        f"and this one does not; if each value is the mean of the time before it, say how long that is, e.g. "
        f"source.sums: {{{name}: 24h}}"
    )


def no_rate(name: str, variable: Variable, units: str | None) -> str:
    """Why a field with the name of a rate is not taken in units of something else."""
    return (
        f"is not taken from {name}: by its name a rate, by its units ({units}) none; if it is the sum {variable.era5}, "
        f"say so with source.rename: {{{name}: {variable.short}}}, if only the units are wrong, with source.units"
    )
