"""Where the single-level variables of the channel table live: fields of other layers share their names.

NCEP's files call the cover of convective, low, middle and high clouds `tcc` as they do that of the whole column.
"""

from __future__ import annotations

from weatherfm.data_pipeline.formats.meaning.names import Meaning, NameRules

_COLUMN = ("entireAtmosphere", "atmosphere", "atmosphereSingleLayer")
_SOIL = ("depthBelowLandLayer", "depthBelowLand", "soilLayer")
_LAYERS: dict[str, tuple[str, ...]] = {  # beside `surface`, which ECMWF gives to all of these in edition 1
    **dict.fromkeys(("t2m", "d2m", "r2m"), ("heightAboveGround:2",)),
    **dict.fromkeys(("u10", "v10", "ws10"), ("heightAboveGround:10",)),
    **dict.fromkeys(("u100m", "v100m"), ("heightAboveGround:100",)),
    "msl": ("meanSea",),
    "tcwv": _COLUMN,
    "tcc": _COLUMN,
    **{f"{layer[0]}cc": (f"{layer}CloudLayer",) for layer in ("low", "middle", "high")},
    "tcw": _COLUMN,
    "tco3": _COLUMN,
    "i10fg": ("heightAboveGround:10",),
    **dict.fromkeys(("tisr", "tsr", "ttr"), ("nominalTop",)),
    "sst": ("oceanSurface",),
    "siconc": ("oceanSurface",),
    **{
        f"{variable}{number}": tuple(f"{layer}:{level}" for layer in _SOIL for level in (top, number))
        for variable in ("swvl", "stl")
        for number, top in enumerate((0, 7, 28, 100), 1)  # cm, where a layer is told by its upper end
    },
}


def belongs(meaning: Meaning, layer: str, level: str) -> bool:
    """Whether a field of a single-level variable may lie on a layer (typeOfLevel and level of GRIB; empty: not told).

    A name that was renamed may stand for many layers: of `t`, the one at the surface is not that at 2 m.
    """
    own = _LAYERS.get(meaning.variable.short, ())
    anywhere = not (meaning.rank < 0 and any(one.startswith("heightAboveGround") for one in own))
    allowed = (*own, "", *(["surface"] if anywhere else []))
    named = layer in allowed or f"{layer}:{level}" in allowed
    return named or (not level and any(one.startswith(f"{layer}:") for one in allowed))


def elsewhere(meaning: Meaning, name: str, layer: str, level: str) -> str:
    """Why a field that does not belong is not the channel, and how to say that it is all the same."""
    return (
        f"lies on the layer {layer} {level} (GRIB typeOfLevel), where it is another field (if it is not: "
        f"source.rename: {{'{name}:{layer}:{level}': {meaning.variable.short}}})"
    )


def renamed(rules: NameRules, name: str, layer: str, level: str) -> Meaning | None:
    """What `source.rename` makes of `NAME:LAYER:LEVEL` or `NAME:LAYER`, as `t:surface:0`; it knows the layer."""
    return rules.renamed(f"{name}:{layer}:{level}") or rules.renamed(f"{name}:{layer}")
