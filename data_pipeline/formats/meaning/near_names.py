"""Names of fields that are nearly a channel of the table and must not be taken for it."""

from __future__ import annotations

from dataclasses import dataclass

from weatherfm.earth.variables import VARIABLES

_RATE = (
    "is a rate, not the sum {era5}: multiply it by the seconds that each value stands for, give it units of "
    "{units}, and name it with source.rename: {{{name}: {short}}}"
)
_PART = "is only a part of {era5} ({part}); name the whole field, or add the parts up"

_RATES = {
    "tp": (
        "pr", "prate", "tprate", "mtpr", "avg_tprate", "mean_total_precipitation_rate", "precipitation_flux",
        "pratesfc", "prate_surface", "precipitation_rate",
    ),
    "tisr": ("rsdt", "mtdwswrf", "avg_tdswrf", "mean_top_downward_short_wave_radiation_flux"),
}  # fmt: skip
_PARTS = {
    "tp": {
        "cp": "convective", "convective_precipitation": "convective", "acpcp": "convective", "acpcpsfc": "convective",
        "prc": "convective, a rate", "lsp": "large-scale", "large_scale_precipitation": "large-scale",
    },
    "tcc": {
        "lcc": "low clouds", "mcc": "middle clouds", "hcc": "high clouds", "low_cloud_cover": "low clouds",
        "medium_cloud_cover": "middle clouds", "high_cloud_cover": "high clouds",
    },
}  # fmt: skip


@dataclass(frozen=True)
class NearMiss:
    """Why a field is not the variable it looks like."""

    short: str
    """Short name of that variable."""
    reason: str

    def told(self, name: str) -> str:
        """The reason as a sentence about the field `name`."""
        variable = VARIABLES[self.short]
        text = self.reason.format(name=name, short=variable.short, era5=variable.era5, units=variable.units)
        return f"{name} {text}"


_BY_NAME = {name: NearMiss(short, _RATE) for short, names in _RATES.items() for name in names} | {
    name: NearMiss(short, _PART.replace("{part}", part))
    for short, parts in _PARTS.items()
    for name, part in parts.items()
}


def near_miss(name: str) -> NearMiss | None:
    """Why a field of this name is not the channel it looks like; None for all other names."""
    return _BY_NAME.get(name.lower())
