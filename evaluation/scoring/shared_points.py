"""The grid points that all forecasts and the truth have, where scores are asked for on what they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.fields.masks import Masks
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.scoring.cases_to_score import Cases
from weatherfm.evaluation.scoring.metrics_from_sums import wind_pairs

_TOLERANCE = 1e-3  # degrees; archives store coordinates in float32
POINTS = "points_left_out"
"""Coordinate of scores, [channel, lat, lon] bool: points that no score counts, where some forecast has none."""


@dataclass(frozen=True, eq=False)
class SharedPoints:
    """Rows, and points of some channels that no score counts; it may travel."""

    rows: slice
    """Of the truth's grid."""
    masks: Masks
    """Channel -> [lat, lon] bool of these rows: without a value in the truth or in a forecast."""
    left_out: tuple[str, ...] = ()
    """Latitudes of rows that the truth or some forecast lacks."""

    def on(self, store: Store) -> Store:
        """The store as if it had these rows and masks."""
        whole = store.whole if isinstance(store, _StoreOfPoints) else store
        return cast(Store, _StoreOfPoints(whole, self))


class _StoreOfPoints:
    """All else is the store's own."""

    def __init__(self, store: Store, points: SharedPoints) -> None:
        self.whole, self.points = store, points
        rows = points.rows
        self.grid = Grid(store.grid.latitude[rows], store.grid.longitude)
        self.masks = points.masks
        self.static = store.static[:, rows]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def read(self, time_indices: Sequence[int] | np.ndarray, channels: Sequence[str] | None = None) -> np.ndarray:
        """As `Store.read`."""
        return self.whole.read(time_indices, channels)[..., self.points.rows, :]

    def climatology_at(self, times: np.ndarray, channels: Sequence[str] | None = None) -> np.ndarray:
        """As `Store.climatology_at`."""
        return self.whole.climatology_at(times, channels)[..., self.points.rows, :]


def points_of(store: Store) -> SharedPoints | None:
    """What `SharedPoints.on` was told; None of a store as it is."""
    return store.points if isinstance(store, _StoreOfPoints) else None


def share_rows(files: Mapping[str, ForecastFile], store: Store) -> Store:
    """The store, and the forecasts too, on the rows that all have, as of 721 and 720 rows; as they are where all agree.

    Raises:
        InputError: other columns, or no run of rows in common.
    """
    grids = {str(file.path): file.grid for file in files.values()}
    if all(grid == store.grid for grid in grids.values()):
        return store
    latitude = store.grid.latitude
    there = np.ones(len(latitude), bool)
    for path, grid in grids.items():
        if not _same_columns(grid, store.grid):
            raise InputError(f"the grid of {path} is {grid}, that of the truth is {store.grid}; regrid the forecast")
        there &= (np.abs(latitude[:, None] - grid.latitude) <= _TOLERANCE).any(1)
    found = np.flatnonzero(there)
    if len(found) < 2 or (np.diff(found) > 1).any():
        told = "; ".join(f"{path}: {grid}" for path, grid in grids.items())
        raise InputError(
            f"these grids share no run of rows with the truth's, {store.grid}: {told}; regrid the forecasts"
        )
    kept = latitude[found]
    return on_rows(files.values(), store, kept, _gone([store.grid, *grids.values()], kept))


def on_rows(files: Iterable[ForecastFile], store: Store, latitude: np.ndarray, left_out: tuple[str, ...]) -> Store:
    """The store on these rows, a run of its own and of each forecast's; the forecasts then have no others."""
    for file in files:
        file.keep_rows(latitude)
    first = int(np.abs(store.grid.latitude - latitude[0]).argmin())
    rows = slice(first, first + len(latitude))
    masks = {name: mask[rows] for name, mask in store.masks.items()}
    return SharedPoints(rows, masks, left_out).on(store)


def share_points(files: Mapping[str, ForecastFile], store: Store, cases: Cases) -> tuple[Store, Cases]:
    """The store without the points at which a forecast has no value at its first time, and the cases, which say so.

    A point that one component of a wind lacks is left out of both.

    Args:
        files: forecast -> file.
        store: as `share_rows` gives it.
        cases: what is scored.

    Raises:
        InputError: no point left of a channel.
    """
    known = points_of(store) or SharedPoints(slice(0, len(store.grid.latitude)), store.masks)
    masks, said = dict(known.masks), []
    for file in files.values():
        for name, missing in file.missing_points(cases.channels, cases.init_times[0], cases.lead_times[0]).items():
            masks[name] = masks.get(name, np.zeros(store.grid.shape, bool)) | missing
    for pair in wind_pairs(cases.channels).values():
        if lacking := [masks[name] for name in pair if name in masks]:
            either: np.ndarray = np.any(lacking, 0)
            masks |= dict.fromkeys(pair, either)  # a wind is scored where it is whole
    for name, mask in masks.items():
        extra = int(mask.sum()) - int(known.masks[name].sum() if name in known.masks else 0)
        if mask.all():
            raise InputError(f"no point of {name} has a value in all forecasts and the truth; score other channels")
        if extra:
            said.append(f"{extra} of {mask.size} points of {name}")
    left = {"rows": list(known.left_out), "points": said}
    store = replace(known, masks=masks).on(store) if said else store
    return store, replace(cases, left_out={**cases.left_out, **{kind: names for kind, names in left.items() if names}})


def has_rows(grid: Grid, latitude: np.ndarray) -> bool:
    """True where rows [lat] degrees are a run of the grid's own."""
    first = int(np.abs(grid.latitude - latitude[0]).argmin())
    own = grid.latitude[first : first + len(latitude)]
    return len(own) == len(latitude) and bool(np.abs(own - latitude).max() <= _TOLERANCE)


def with_points_left_out(scores: xr.Dataset, store: Store, cases: Cases) -> xr.Dataset:
    """Scores that say which points none of them counts, where `share_points` left some out: maps need them.

    Args:
        scores: of `build_scores`.
        store: as `share_points` gives it.
        cases: as `share_points` gives them.
    """
    if "points" not in cases.left_out:
        return scores
    none = np.zeros(store.grid.shape, bool)
    masks = [store.masks.get(str(name), none) for name in scores["channel"].values]
    return scores.assign_coords({POINTS: (("channel", "latitude", "longitude"), np.stack(masks))})


def _gone(grids: Sequence[Grid], kept: np.ndarray) -> tuple[str, ...]:
    every = np.concatenate([grid.latitude for grid in grids])
    gone = every[np.abs(every[:, None] - kept).min(1) > _TOLERANCE]
    return tuple(f"{latitude:g} N" for latitude in np.unique(gone.round(3))[::-1])


def _same_columns(one: Grid, other: Grid) -> bool:
    if one.plane or other.plane or len(one.longitude) != len(other.longitude):
        return False
    return bool(np.abs(one.longitude - other.longitude).max() <= _TOLERANCE)
