"""What a GRIB message is by its headers: a state, or something made of many states (`meaning/kinds.py`).

Sources: WMO code tables 4.0 and 4.7 (edition 2), NCEP office note 388 (edition 1).
"""

from __future__ import annotations

from weatherfm.data_pipeline.formats.grib.headers import Header
from weatherfm.data_pipeline.formats.meaning.kinds import (
    Clue,
    clues_of_step,
    clues_of_stream,
    clues_of_type,
    distinct,
)

_STATE_TEMPLATES = {-1, 0, 1, 8, 11, 40, 41, 42, 43, 60, 61}
_DERIVED_TEMPLATES = {2, 3, 4, 12, 13, 14}
_TEMPLATES = {5: "probability", 9: "probability", 6: "quantile", 10: "quantile", 7: "error", 15: "area"}
_DERIVED = {  # code table 4.7, and NCEP's own
    **dict.fromkeys((0, 1, 6), "ensemble_mean"), **dict.fromkeys((2, 3, 4, 10), "spread"), 5: "index", 7: "quantile",
    8: "minimum", 9: "maximum", 192: "quantile", 193: "quantile", 194: "quantile", 195: "quantile", 199: "index",
}  # fmt: skip
_NCEP_PRODUCTS = {2: "ensemble_mean", 3: "ensemble_mean", 11: "spread", 12: "spread"}


def clues_of_header(header: Header, accumulated: bool) -> tuple[Clue, ...]:
    """Why a GRIB message is not the state; empty where it is. `accumulated`: its variable is a sum by nature."""
    found = [
        *clues_of_type("GRIB dataType", header.data_type),
        *clues_of_stream("GRIB stream", header.stream),
        *clues_of_step("GRIB stepType", header.step_type, accumulated),
    ]
    if header.template in _DERIVED_TEMPLATES:
        found.append(
            Clue(_DERIVED.get(header.derived, f"derived_{header.derived}"), f"derived forecast {header.derived}")
        )
    elif header.template not in _STATE_TEMPLATES:
        number = header.template
        found.append(Clue(_TEMPLATES.get(number, f"template_{number}"), f"product definition template {number}"))
    if header.template == -1 and header.derived in _NCEP_PRODUCTS:
        found.append(Clue(_NCEP_PRODUCTS[header.derived], f"NCEP product identifier {header.derived}"))
    return distinct(found)
