"""Colours of skill: diverging, neutral in the middle, on a scale that is chosen from the numbers shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import matplotlib
import numpy as np

from weatherfm.evaluation.results.words import percent

COLOURS = "BrBG"
"""Diverging, white in the middle, told apart with any kind of colour vision: brown is worse, green better."""
LIMITS = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 100.0)
"""Skills in percent at which a scale may end; beyond the last, all of a colour."""
REACH = 0.42
"""Share of the colour map on either side of its middle: the outermost colours are too dark for numbers."""
_FINE = 10.0
"""Limit up to which numbers have a decimal."""
_STEPS = 12
"""Shades on either side of the middle."""
_PALE = 0.78
"""Share of white in the colour of what is not significant."""
_INSIDE = 90
"""Per cent of the values that a scale holds."""


@dataclass(frozen=True)
class Cell:
    """One number on its colour."""

    text: str
    shade: str
    """Class of the page's styles, see `shade_styles`."""
    title: str
    """What the number is, in words; empty where a page has too many."""


def limit_for(values: np.ndarray) -> float:
    """The least of `LIMITS` that nine in ten of the skills (percent, any shape, NaN left out) lie within."""
    sizes = np.abs(values[np.isfinite(values)])
    reach = float(np.percentile(sizes, _INSIDE)) if sizes.size else 0.0
    return next((limit for limit in LIMITS if reach <= limit), LIMITS[-1])


def digits_for(limit: float) -> int:
    """Decimals of the numbers on a scale: one where it ends at 10 % or before."""
    return 1 if limit <= _FINE else 0


def colour_of(value: float, limit: float, sure: bool | None = None) -> tuple[str, str]:
    """Background and ink of a skill in percent; grey where there is none, pale where it is known not to be sure.

    `limit` is the skill at which the colour is deepest.
    """
    if not isfinite(value):
        return "#eceff1", "#546069"
    place = 0.5 + REACH * float(np.clip(value / limit, -1, 1))
    red, green, blue, _ = matplotlib.colormaps[COLOURS](place)
    if sure is False:
        red, green, blue = (_PALE + (1 - _PALE) * part for part in (red, green, blue))
        return matplotlib.colors.to_hex((red, green, blue)), "#4f5b65"
    light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return matplotlib.colors.to_hex((red, green, blue)), "#10181f" if light > 0.22 else "#ffffff"


def shade_of(value: float, limit: float, sure: bool | None) -> str:
    """The class of a cell: `s0` (worst) to `s24`, `p` instead of `s` where pale, `n` where there is no number."""
    if not isfinite(value):
        return "n"
    return f"{'p' if sure is False else 's'}{_STEPS + round(float(np.clip(value / limit, -1, 1)) * _STEPS)}"


def shade_styles() -> list[tuple[str, str, str]]:
    """(class, background, ink) of every class that `shade_of` gives, whatever the limit."""
    values = [step / _STEPS for step in range(-_STEPS, _STEPS + 1)]
    pairs = [(value, sure) for sure in (None, False) for value in values] + [(float("nan"), None)]
    return [(shade_of(value, 1, sure), *colour_of(value, 1, sure)) for value, sure in pairs]


def legend(limit: float) -> tuple[Cell, ...]:
    """Colours from worst to best with their numbers, the middle neutral; the ends hold all that is beyond."""
    values: Sequence[float] = [limit * part for part in (-1, -0.5, 0, 0.5, 1)]
    digits = 0 if all(value == round(value) for value in values) else 1
    texts = [percent(value, digits) for value in values]
    texts[0], texts[-1] = f"≤ {texts[0]}", f"≥ {texts[-1]}" if limit < 100 else texts[-1]  # no skill is beyond 100 %
    return tuple(Cell(text, shade_of(value, limit, None), "") for text, value in zip(texts, values, strict=True))
