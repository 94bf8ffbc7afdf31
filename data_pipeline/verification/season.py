"""Is summer where it should be? Swapped hemispheres or a calendar half a year off turn it round."""

from __future__ import annotations

import numpy as np

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.verification.channel_scan import ChannelScan
from weatherfm.data_pipeline.verification.report import VerifyReport
from weatherfm.earth.variables import parse_channel

_SEASONAL = {"t2m": (0, 0), "skt": (0, 0), "t": (400, 1000), "z": (300, 700)}
"""Variables that are higher in summer, and from which level to which (hPa)."""
_WARM, _COLD = (7, 8), (1, 2)
"""Months at the height of northern summer and winter."""
_FEWEST = 10
"""Times of each that a judgement takes."""


def check_season(store: Store, report: VerifyReport, channel: int, scan: ChannelScan) -> None:
    """In July and August the north (against the south, where there is one) must be warmer than in January and February.

    Not asked of simulated planets, of grids within 20 degrees of the equator, or of less than both seasons.
    """
    parsed = parse_channel(store.channels[channel])
    levels = _SEASONAL.get(parsed.variable.short)
    if store.simulated or levels is None or not levels[0] <= (parsed.level or 0) <= levels[1]:
        return
    if not scan.frame.contrast.any():
        return
    months = store.times.astype("datetime64[M]").astype(np.int64) % 12 + 1
    known = np.isfinite(scan.contrast)
    warm, cold = (scan.contrast[known & np.isin(months, season)] for season in (_WARM, _COLD))
    if min(len(warm), len(cold)) < _FEWEST or warm.mean() > cold.mean():
        return
    message = (
        f"{parsed.name} has its seasons turned round: north less south is {warm.mean():.4g} {parsed.units} in July and "
        f"August, {cold.mean():.4g} in January and February; hemispheres swapped, or a wrong calendar"
    )
    report.error("changes", message, kind="season", remedy="source", channel=parsed.name, value=float(warm.mean()))
