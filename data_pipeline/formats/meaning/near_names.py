"""Names of fields that are only a part of a channel of the table, and must not be taken for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from weatherfm.earth.variables import VARIABLES

_PARTS = {
    "tp": {
        **dict.fromkeys(("cp", "convective_precipitation", "acpcp", "acpcpsfc", "acpcp_surface"), "convective"),
        "prc": "convective, a rate",
        **dict.fromkeys(("lsp", "large_scale_precipitation", "ncpcp", "ncpcpsfc", "ncpcp_surface"), "large-scale"),
    },
    "sf": {
        **dict.fromkeys(("csf", "convective_snowfall"), "convective"),
        **dict.fromkeys(("lsf", "large_scale_snowfall"), "large-scale"),
    },
    "tcc": {
        **dict.fromkeys(("lcc", "low_cloud_cover", "clcl"), "low clouds"),
        **dict.fromkeys(("mcc", "medium_cloud_cover", "clcm"), "middle clouds"),
        **dict.fromkeys(("hcc", "high_cloud_cover", "clch"), "high clouds"),
    },
}


def parts_held(missing: Iterable[str], names: Collection[str]) -> list[str]:
    """Why fields of these names are not the missing channels, a sentence each: they are parts of them."""
    return [
        f"{name} is only a part of {VARIABLES[short].era5} ({_PARTS[short][name.lower()]}); name the whole field, or "
        "add the parts up"
        for short in missing
        if short in _PARTS
        for name in sorted(names)
        if name.lower() in _PARTS[short]
    ]
