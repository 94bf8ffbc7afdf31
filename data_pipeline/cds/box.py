"""Which part of the Earth, on which grid, is asked of the Climate Data Store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from weatherfm.data_pipeline.formats.orientation import orientation_of
from weatherfm.data_pipeline.source_config import CdsSource
from weatherfm.data_pipeline.store_config import DataConfig, RegridConfig
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError

NATIVE_STEP = 0.25
"""Degrees between points of ERA5's fields as the store keeps them."""


@dataclass(frozen=True)
class Box:
    """Part of a regular grid that contains (0 N, 0 E): rows and columns counted in steps from there."""

    step: float
    """Degrees."""
    north: int
    west: int
    south: int
    east: int

    @classmethod
    def globe(cls, step: float) -> Box:
        """The whole Earth, both poles included."""
        quarter = round(90 / step)
        return cls(step, quarter, 0, -quarter, 4 * quarter - 1)

    @property
    def area(self) -> list[float]:
        """Degrees [north, west, south, east], as the store wants it."""
        return [round(index * self.step, 6) for index in (self.north, self.west, self.south, self.east)]

    @cached_property
    def grid(self) -> Grid:
        """Of the fields that come."""
        latitude = np.arange(self.north, self.south - 1, -1) * self.step
        return orientation_of(latitude, np.arange(self.west, self.east + 1) * self.step).grid


def box_of(data: DataConfig) -> Box:
    """The part of the store's grid that the settings need: `data.area`, wider where it will be regridded.

    Raises:
        InputError: a grid that does not reach the poles evenly, or an area that holds no points of it.
    """
    assert isinstance(data.source, CdsSource)
    step, globe = data.source.grid, Box.globe(data.source.grid)
    if abs(globe.north * step - 90) > 1e-9:
        raise InputError(f"90 is not a multiple of source.grid {step:g}; choose e.g. 0.25, 0.5, 1, 1.5 or 2.5")
    if data.area is None:
        return globe
    margin = 0 if data.regrid is None else math.ceil(_spacing(data.regrid) / step) + 1
    small = 1e-6  # a hundredth of a metre: an edge on a row of points keeps the row
    north = min(math.floor(data.area.north / step + small) + margin, globe.north)
    south = max(math.ceil(data.area.south / step - small) - margin, globe.south)
    west = math.ceil(data.area.west / step - small) - margin
    east = math.floor(data.area.east / step + small) + margin
    if east - west >= globe.east:
        west, east = globe.west, globe.east
    if north - south < 1 or east - west < 1:
        raise InputError(
            f"data.area holds {max(0, north - south + 1)} x {max(0, east - west + 1)} points of a grid of {step:g} "
            "degrees, and a field needs 2 x 2; widen it or lower source.grid"
        )
    return Box(step, north, west, south, east)


def _spacing(regrid: RegridConfig) -> float:
    """Degrees between points of the grid that is wanted."""
    return regrid.resolution if regrid.resolution is not None else 90 / (regrid.gaussian or 1)
