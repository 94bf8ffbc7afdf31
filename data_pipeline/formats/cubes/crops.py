"""Where the crops of cubes lie, and which of them are for training, validation and test.

Crops stand one after the other, all of training first, then validation, then test; in each, cube by cube, and row by
row. Crops of different sets share no pixel: either whole cubes are held out, or the lower rows of each, and then no
crop reaches over the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from weatherfm.data_pipeline.formats.cubes.cube import Cube
from weatherfm.data_pipeline.picture_config import CubesSource, HeldOut
from weatherfm.errors import InputError

SETS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Crops:
    """Places of all crops."""

    cube: np.ndarray
    """[crop] position among the cubes."""
    row: np.ndarray
    """[crop] of its upper edge."""
    column: np.ndarray
    """[crop] of its left edge."""
    counts: Mapping[str, int]
    """`train`, `validation`, `test` -> how many, in this order."""

    def record(self, cubes: Sequence[Cube]) -> list[dict[str, Any]]:
        """For the manifest: of each cube and set, the first crop, and [row, column] of each."""
        ends = np.cumsum(list(self.counts.values()))
        own = np.searchsorted(ends, np.arange(len(self.cube)), side="right")
        breaks = np.flatnonzero(np.diff(own) | np.diff(self.cube)) + 1
        told = []
        for part in np.split(np.arange(len(self.cube)), breaks):
            first = int(part[0])
            places = np.stack([self.row[part], self.column[part]], 1).tolist()
            told.append(
                {
                    "cube": cubes[self.cube[first]].name,
                    "set": list(self.counts)[own[first]],
                    "first": first,
                    "at": places,
                }
            )
        return told


def lay_out(cubes: Sequence[Cube], source: CubesSource, share: Callable[[int, np.ndarray], np.ndarray] | None) -> Crops:
    """Cut all cubes.

    Args:
        cubes: of a source.
        source: size of crops, what is held out.
        share: (position of a cube, [n, 2] rows and columns of crops) -> [n] share of them that is plant; None: all.

    Raises:
        InputError: a crop larger than a picture, or a set without any crop, or without any plant.
    """
    sets = _sets_of(cubes, source)
    found: list[tuple[int, np.ndarray]] = []
    counts, plants = {}, dict.fromkeys(SETS, 0)
    for name in SETS:
        before = sum(len(places) for _, places in found)
        for position, cube in enumerate(cubes):
            for first, end in sets[name][position]:
                places = _places(cube, source, first, end)
                if share is not None and (source.least_plant or not plants[name]):  # looked at no longer than needed
                    shares = share(position, places)
                    plants[name] += int((shares > 0).sum())
                    places = places[shares >= source.least_plant]
                found.append((position, places))
        counts[name] = sum(len(places) for _, places in found) - before
    _refuse_empty(counts, source)
    if share is not None:
        _refuse_bare(counts, plants)
    at = np.concatenate([places for _, places in found])
    of = np.concatenate([np.full(len(places), position, np.int64) for position, places in found])
    return Crops(of, at[:, 0], at[:, 1], counts)


def _sets_of(cubes: Sequence[Cube], source: CubesSource) -> dict[str, list[list[tuple[int, int]]]]:
    """Set -> [cube] ranges of rows (first, behind the last), none or one."""
    held = {name: own for name in SETS[1:] if (own := getattr(source, name)) is not None}
    names = [cube.name for cube in cubes]
    for name, own in held.items():
        if idle := [p for p in own.cubes if not any(fnmatchcase(one, p) for one in names)]:
            raise InputError(f"source.{name} names {', '.join(idle)}, which no cube is called; it has {_few(names)}")
    sets: dict[str, list[list[tuple[int, int]]]] = {name: [] for name in SETS}
    for cube in cubes:
        whole = [name for name, own in held.items() if any(fnmatchcase(cube.name, p) for p in own.cubes)]
        if len(whole) > 1:
            raise InputError(f"{cube.name} is held out for validation and for test; name it in one of them")
        ranges = {whole[0]: (0, cube.shape[0])} if whole else _ranges(cube.shape[0], held)
        for name in SETS:
            sets[name].append([ranges[name]] if name in ranges else [])
    return sets


def _ranges(rows: int, held: Mapping[str, HeldOut]) -> dict[str, tuple[int, int]]:
    """Set -> its rows of a cube: training above, then validation, then test."""
    ranges, end = {}, rows
    for name in ("test", "validation"):
        if name in held and (share := held[name].rows) is not None:
            first = end - max(1, round(share * rows))
            ranges[name] = (first, end)
            end = first
    return {"train": (0, end), **ranges}


def _places(cube: Cube, source: CubesSource, first: int, end: int) -> np.ndarray:
    """[n, 2] row and column of the crops between two rows of a cube."""
    (height, width), (down, right) = source.crop_shape, source.stride_shape
    rows, columns, _ = cube.shape
    if height > rows or width > columns:
        raise InputError(
            f"a crop of {height} x {width} pixels is larger than {cube.path}, which has {rows} x {columns}; choose a "
            "smaller source.crop"
        )
    if height > end - first:
        raise InputError(
            f"the rows {first} to {end - 1} of {cube.path}, which stand alone as rows are held out, have no room for a "
            f"crop of {height}; choose a smaller source.crop, other shares of rows, or hold out whole cubes"
        )
    starts = np.meshgrid(
        np.arange(first, end - height + 1, down), np.arange(0, columns - width + 1, right), indexing="ij"
    )
    return np.stack([start.ravel() for start in starts], 1)


def _refuse_empty(counts: Mapping[str, int], source: CubesSource) -> None:
    for name in SETS:
        if counts[name] == 0 and (name == "train" or getattr(source, name) is not None):
            why = f" with {source.least_plant:.0%} of plant" if source.least_plant else ""
            raise InputError(f"no crop{why} is left for {name}; hold out fewer cubes, or lower source.least_plant")


def _refuse_bare(counts: Mapping[str, int], plants: Mapping[str, int]) -> None:
    if bare := [name for name in SETS if counts[name] and not plants[name]]:
        raise InputError(
            f"source.plant leaves nothing of the {counts[bare[0]]} crops for {bare[0]}: all of it is background; "
            "lower plant.above, or give another plant.image or other crops"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
