"""Scores on disk: one NetCDF file with everything that must agree before two of them are compared."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from weatherfm import __version__
from weatherfm.errors import InputError
from weatherfm.evaluation.metrics import METRICS
from weatherfm.grid import Grid
from weatherfm.variables import parse_channel

FORMAT = "weatherfm scores 1"
WEIGHTS = (
    "cell areas, sin(upper edge) - sin(lower edge), mean 1 over the grid; a region holds every row of points within "
    "its limits or on them"
)
_DEFINITIONS = {
    "rmse": "square root of the mean squared error over cases and area",
    "mse": "mean squared error over cases and area",
    "mae": "mean absolute error over cases and area",
    "bias": "mean of forecast minus truth over cases and area",
    "acc": "anomaly correlation over cases and area together, not centred; undefined (NaN) for climatology",
}
_COMPARABLE = ("weights", "climatology_period", "climatology_window_days", "simulated")
_SAME_TRUTH = 1e-6
"""Relative difference between two persistence scores that rounding explains."""


def build_scores(
    metrics: Mapping[str, Mapping[str, np.ndarray]],
    regions: Sequence[str],
    lead_times: Sequence[int],
    channels: Sequence[str],
    grid: Grid,
    init_times: np.ndarray,
    provenance: Mapping[str, Any],
) -> xr.Dataset:
    """The dataset of scores.

    Args:
        metrics: forecast -> metric -> [region, lead, channel].
        regions: names.
        lead_times: hours.
        channels: short names.
        grid: on which was scored.
        init_times: datetime64 [case].
        provenance: JSON-able; the keys `weights`, `climatology_period`, `climatology_window_days` and `simulated`
            must agree where two files are compared.

    Returns:
        dims (forecast, region, lead_time, channel); coordinates also `units` [channel], `init_time`, `latitude` and
        `longitude`; attribute `provenance` in JSON.
    """
    dims = ("forecast", "region", "lead_time", "channel")
    variables = {
        name: (dims, np.stack([values[name] for values in metrics.values()]), {"long_name": _DEFINITIONS[name]})
        for name in METRICS
    }
    coordinates = {
        "forecast": list(metrics),
        "region": list(regions),
        "lead_time": np.asarray(lead_times, "timedelta64[h]").astype("timedelta64[ns]"),
        "channel": list(channels),
        "units": ("channel", [parse_channel(channel).units for channel in channels]),
        "init_time": init_times.astype("datetime64[ns]"),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    attributes = {
        "format": FORMAT,
        "title": "Scores of weather forecasts" + (" of a simulated atmosphere" if provenance["simulated"] else ""),
        "simulated": "true" if provenance["simulated"] else "false",
        "cases": len(init_times),
        "code_version": __version__,
        "provenance": json.dumps(dict(provenance), sort_keys=True),
    }
    return xr.Dataset(variables, coordinates, attributes)


def write_scores(scores: xr.Dataset, path: str | Path) -> Path:
    """Write scores to NetCDF, whole or not at all; the same scores give the same bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    encoding = {
        "lead_time": {"units": "hours", "dtype": "int64"},
        "init_time": {"units": "seconds since 1970-01-01", "dtype": "int64"},
    }
    scores.to_netcdf(temporary, engine="netcdf4", encoding=encoding)
    os.replace(temporary, path)
    return path


def read_scores(path: str | Path) -> xr.Dataset:
    """Scores as `build_scores` made them, in memory.

    Raises:
        InputError: no such file, or not a file of scores.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no scores {path}; `weatherfm evaluate` writes them")
    try:
        scores = xr.load_dataset(path, engine="netcdf4", decode_timedelta=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable NetCDF file ({error}); evaluate again") from None
    if scores.attrs.get("format") != FORMAT:
        raise InputError(f"{path} holds no scores of this version of weatherfm; evaluate again")
    return scores


def provenance_of(scores: xr.Dataset) -> dict[str, Any]:
    """The record that goes with scores."""
    return json.loads(scores.attrs["provenance"])


def lead_hours(scores: xr.Dataset) -> list[int]:
    """Lead times in hours."""
    return [int(hours) for hours in scores["lead_time"].values / np.timedelta64(1, "h")]


def require_comparable(first: xr.Dataset, second: xr.Dataset) -> None:
    """Refuse to hold scores against each other that were not made alike.

    Raises:
        InputError: another grid, definition of weights, climatology, truth or set of initial times; all are named.
    """
    held, other = provenance_of(first), provenance_of(second)
    differences = [
        f"{key} ({held.get(key)} / {other.get(key)})" for key in _COMPARABLE if held.get(key) != other.get(key)
    ]
    grids = [Grid(scores["latitude"].values, scores["longitude"].values) for scores in (first, second)]
    if grids[0] != grids[1]:
        differences.append(f"grid ({grids[0]} / {grids[1]})")
    times = [scores["init_time"].values for scores in (first, second)]
    if not np.array_equal(times[0], times[1]):
        differences.append(f"initial times ({_span(times[0])} / {_span(times[1])})")
    elif not differences and not _same_truth(first, second):
        differences.append("truth (the scores of persistence or climatology differ)")
    if differences:
        raise InputError(
            f"these scores cannot be compared, they differ in {'; '.join(differences)}; evaluate the forecasts together"
        )


def _span(times: np.ndarray) -> str:
    first, last = times[[0, -1]].astype("datetime64[h]")
    return f"{len(times)} from {first} to {last}"


def _same_truth(first: xr.Dataset, second: xr.Dataset) -> bool:
    """Persistence and climatology know nothing of the model: on the same truth they score the same."""
    baselines = [scores["mse"].sel(forecast=["persistence", "climatology"]) for scores in (first, second)]
    one, other = xr.align(*baselines, join="inner")
    if not one.size:
        raise InputError("these scores share no channel, lead time and region; evaluate the forecasts together")
    return bool(np.allclose(one, other, rtol=_SAME_TRUTH, atol=0))
