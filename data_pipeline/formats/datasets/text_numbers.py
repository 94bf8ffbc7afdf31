"""Attributes of packing and missing values that were written as texts: no reader applies them as their writer meant."""

from __future__ import annotations

import xarray as xr

from weatherfm.errors import InputError

_PACKING = ("scale_factor", "add_offset")
_MISSING = ("_FillValue", "missing_value")


def refuse_texts(variable: xr.Variable, name: str) -> None:
    """Refuse a variable whose packing or missing value is a text.

    Raises:
        InputError: it is (without the file's name); a missing value such as `none`, that is no number, is none.
    """
    for key in (*_PACKING, *_MISSING):
        said = variable.encoding.get(key, variable.attrs.get(key))
        if isinstance(said, str) and (key in _PACKING or _is_number(said)):
            raise InputError(
                f"its variable {name} has the attribute {key} as a text ({said!r}), which is not applied to the "
                f"values; make it a number, e.g. `ncatted -a {key},{name},o,d,{said} FILE.nc`"
            )


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False
