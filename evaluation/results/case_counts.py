"""How many cases a score is of, and which periods of the year are of the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from weatherfm.evaluation.scoring.periods import ALL, MONTHS, SEASONS


def cases_of(scores: xr.Dataset, period: str, hours: int) -> np.ndarray:
    """[case] bool: forecasts of so many hours that are valid in a period: `all`, a season or a month."""
    valid = scores["init_time"].values + np.timedelta64(hours, "h")
    months = valid.astype("datetime64[M]").astype(np.int64) % 12 + 1
    return np.full(len(valid), True) if period == ALL else np.isin(months, (SEASONS | MONTHS)[period])


def distinct_periods(scores: xr.Dataset, leads: Sequence[int]) -> list[tuple[str, ...]]:
    """Periods scored, those of the same cases at all lead times (hours) together; without those of none.

    `[("all", "SON")]` where all cases are of one season: to show it twice would say nothing.
    """
    found: dict[bytes, list[str]] = {}
    for period in map(str, scores["period"].values) if "period" in scores.dims else [ALL]:
        cases = np.stack([cases_of(scores, period, hours) for hours in leads])
        if cases.any():
            found.setdefault(cases.tobytes(), []).append(period)
    return [tuple(names) for names in found.values()]


def with_count(text: str, scores: xr.Dataset, counts: Sequence[int]) -> str:
    """`text, 35 cases`, `text, 11 to 12 cases`; the text alone of scores merged by force, whose cases may differ."""
    if "differences" in scores.attrs:
        return text
    low, high = min(counts), max(counts)
    return f"{text}, {low} to {high} cases" if low != high else f"{text}, {high} case{'' if high == 1 else 's'}"
