"""Fields whose own words contradict their names: `t` that is a potential temperature, `qv` that is a mixing ratio."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from weatherfm.earth.variables import Variable

_OTHER = {  # short name -> words that no field of it has in its standard_name or long_name
    "t": r"\b(potential|virtual|wet[ -]?bulb|dew[ -]?point|soil|brightness) ?(point )?temperature|\bdew[ -]?point\b",
    "t2m": r"\b(potential|virtual|wet[ -]?bulb|dew[ -]?point|soil|apparent) ?(point )?temperature|\bdew[ -]?point\b",
    "vo": r"\b(absolute|potential) vorticity\b",
    "d": r"\b(moisture|flux) divergence\b",
    "q": r"\bmixing ratio\b",
    "u": r"\b(stress|gust)\b", "v": r"\b(stress|gust)\b", "u10": r"\b(stress|gust)\b", "v10": r"\b(stress|gust)\b",
    "ws": r"\bgust\b", "ws10": r"\bgust\b",
}  # fmt: skip


def contradiction(variable: Variable, name: str, attributes: Mapping[str, Any]) -> str | None:
    """Why the field `name` cannot be `variable` by its own words, and how to say that it is; None where it can."""
    words = _OTHER.get(variable.short)
    for key in ("standard_name", "long_name"):
        text = str(attributes.get(key, "")).lower().replace("_", " ")
        if words is not None and re.search(words, text):
            return (
                f"{name} is not {variable.era5} by its {key} {text!r} (if it is all the same: source.rename: "
                f"{{{name}: {variable.short}}})"
            )
    return None
