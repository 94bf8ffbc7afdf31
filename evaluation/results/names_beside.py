"""Which files belong to scores, by their names."""

from __future__ import annotations

from pathlib import Path


def default_forecast(scores: Path) -> Path:
    """The forecast that scores are taken to be of: `pangu.zarr` beside `pangu.scores.nc`, else `forecast.zarr`."""
    return scores.parent / f"{forecast_of(scores) or 'forecast.'}zarr"


def forecast_of(scores: Path) -> str:
    """`pangu.` of `pangu.scores.nc`, nothing of others."""
    return scores.name.removesuffix("scores.nc") if scores.name.endswith(".scores.nc") else ""
