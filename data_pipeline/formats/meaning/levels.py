"""Pressure levels of a coordinate, and what makes one doubt that they are pressures at all.

Model output calls its levels `level` or `lev` too, and numbers them 1, 2, 3: without units these read like 1, 2, 3 hPa.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.formats.units import pressure_factor

STANDARD = frozenset({1, 2, 3, 5, 7, *range(10, 1101, 10), *range(25, 1101, 25)})
"""hPa, of the levels that archives keep fields on."""
_HIGHEST = 1100.5  # hPa: no surface lies under more
_A_FEW = 4  # successive whole hPa that a file with units may have, as ERA5's 1, 2, 3
_ODD = 20  # raw values behind which a wrong unit is told by what they would be in another


def levels_in_hpa(coordinate: xr.Variable, name: str) -> np.ndarray:
    """[level] pressure in hPa; without units, values above 2000 (or the name `isobaricInPa`) mean Pa."""
    values = np.atleast_1d(np.asarray(coordinate.values, np.float64))
    factor = pressure_factor(str(coordinate.attrs.get("units", "")))
    if factor is None:
        factor = 0.01 if name.lower().endswith("inpa") or values.max(initial=0) > 2000 else 1.0
    pressure = values * factor
    return np.where(np.abs(pressure - np.round(pressure)) < 1e-3, np.round(pressure), pressure)  # float32 noise


def doubt_of_levels(coordinate: xr.Variable, name: str) -> str | None:
    """Why the values of a coordinate cannot be believed to be pressures, and how to say what they are, or None."""
    reason = why_no_pressures(coordinate, name)
    return None if reason is None else _cure(name, reason)


def why_no_pressures(coordinate: xr.Variable, name: str) -> str | None:
    """Why the values of a coordinate cannot be believed to be pressures, as a sentence about them, or None.

    Believed are values with units of pressure that are possible, and without units those that are mostly the levels of
    archives in hPa or Pa; never those with other units.
    """
    values, levels = np.atleast_1d(np.asarray(coordinate.values, np.float64)), levels_in_hpa(coordinate, name)
    units = str(coordinate.attrs.get("units", "")).strip()
    if units and pressure_factor(units) is None and not name.lower().endswith(("inhpa", "inpa")):
        return f"{_shown(values)} have the units {units!r}, which are none of pressure"
    told = pressure_factor(units) is not None or name.lower().endswith(("inhpa", "inpa"))
    reason = _odd_units(values, levels, units) if told else _odd_numbers(levels)
    return None if reason is None else f"{_shown(values)} {reason}"


def _shown(values: np.ndarray) -> str:
    return f"({', '.join(f'{value:g}' for value in values[:4])}{', ...' if len(values) > 4 else ''})"


def _cure(name: str, reason: str) -> str:
    return (
        f"its levels {name} {reason}; say their units with source.units: {{{name}: hPa}} (or Pa), or, where "
        "there is one level, which it is with source.levels: {t: 850}; levels of a model have to be brought to "
        "pressure levels first"
    )


def _odd_numbers(levels: np.ndarray) -> str | None:
    """Why numbers without units are no hPa, or None."""
    known = [level in STANDARD for level in levels.tolist()]
    if levels.max(initial=0) < 10 or 2 * sum(known) <= len(known):
        return "have no units and may be numbers of levels, or sigma, and no pressures"
    return None


def _odd_units(values: np.ndarray, levels: np.ndarray, units: str) -> str | None:
    """Why values with units of pressure are not in these units, or None."""
    if levels.max(initial=0) > _HIGHEST or levels.min(initial=0) < 0:
        return f"are said to be in {units}, which would be up to {levels.max():g} hPa"
    ascending = np.sort(levels)
    if len(levels) > _A_FEW and (np.diff(ascending) == 1).all() and ascending[0] <= 1:
        return f"are said to be in {units}, but run through all whole numbers as numbers of levels do"
    if not _archived(levels) and _archived(values) and levels.max() < _ODD:
        return f"are said to be in {units}, but are the usual levels in hPa"
    return None


def _archived(levels: np.ndarray) -> bool:
    return all(level in STANDARD for level in levels.tolist())
