"""Regridding of fields whose values and cell means are known: orders of convergence, poles, winds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import sph_harm_y

from weatherfm.data_pipeline.fields.regrid import Regridder
from weatherfm.data_pipeline.fields.regrid_weights import longitude_bounds
from weatherfm.data_pipeline.fields.target_grid import global_grid
from weatherfm.data_pipeline.store_config import RegridConfig
from weatherfm.earth.grid import Grid, regular_grid

TARGET = Grid(np.linspace(90, -90, 118), np.arange(233) * 360 / 233)  # both poles, all places between other points
STEPS = [4, 2, 1, 0.5]
FAMILIES = {
    "cells": lambda step: global_grid(RegridConfig(resolution=step)),
    "poles": lambda step: global_grid(RegridConfig(resolution=step, poles=True)),
    "Gaussian": lambda step: global_grid(RegridConfig(gaussian=round(90 / step))),
}


def angles(grid):
    """(latitude [lat, 1], longitude [lon]) in radians."""
    return np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)


def harmonic(grid, degree, order):
    lat, lon = angles(grid)
    return sph_harm_y(degree, order, np.pi / 2 - lat, lon + 0.1).real


def rotation(grid, tilt=1.1):
    """[component, lat, lon] wind of a solid body that turns about an axis tilted from the Earth's by `tilt`."""
    lat, lon = angles(grid)
    eastward = np.cos(tilt) * np.cos(lat) + np.sin(tilt) * np.sin(lat) * np.cos(lon - 0.4)
    return np.stack([eastward, np.broadcast_to(-np.sin(tilt) * np.sin(lon - 0.4), grid.shape)])


def orders(errors):
    return np.log2(np.array(errors[:-1]) / errors[1:])


def largest_errors(family, method, field, vector=False):
    errors = []
    for step in STEPS:
        one = Regridder(FAMILIES[family](step), TARGET, method)
        moved = one(field(one.source).astype(np.float32), vector)
        errors.append(np.abs(moved - field(TARGET)).max())
    return errors


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("degree", "order"), [(2, 0), (3, 1), (5, 3), (8, 8)])
def test_bilinear_converges_at_second_order_up_to_the_poles(family, degree, order):
    errors = largest_errors(family, "bilinear", lambda grid: harmonic(grid, degree, order))
    assert (orders(errors) > 1.8).all(), errors
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_winds_converge_at_second_order_up_to_the_poles(family):
    errors = largest_errors(family, "bilinear", rotation, vector=True)
    assert (orders(errors) > 1.8).all(), errors


def test_winds_taken_for_scalars_would_not_converge_at_the_poles():
    assert largest_errors("cells", "bilinear", rotation)[-1] > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_nearest_converges_at_first_order(family):
    errors = largest_errors(family, "nearest", lambda grid: harmonic(grid, 3, 1))
    assert errors[-1] < errors[0] / 4
    assert errors[-1] < 0.01


def test_bilinear_is_exact_for_what_is_linear():
    """Between points, in degrees, and round the meridian where the source ends."""
    source, target = Grid(np.linspace(90, -90, 19), np.arange(0, 360, 10.0)), regular_grid((45, 90))

    def field(grid):
        return 200 + grid.latitude[:, None] - np.abs(grid.longitude - 180)

    moved = Regridder(source, target, "bilinear")(field(source).astype(np.float32))
    np.testing.assert_allclose(moved, field(target), rtol=0, atol=2e-5)  # float32 of 300


def mean_sine(grid):
    """Cell means of sin(latitude)."""
    edges = np.sin(np.deg2rad(grid.latitude_bounds))
    return np.broadcast_to(((edges[:-1] + edges[1:]) / 2)[:, None], grid.shape)


def mean_wave(grid):
    """Cell means of cos(latitude) cos(longitude)."""
    lat, lon = np.deg2rad(grid.latitude_bounds), np.deg2rad(longitude_bounds(grid))
    over_latitude = np.diff(lat / 2 + np.sin(2 * lat) / 4) / np.diff(np.sin(lat))
    return over_latitude[:, None] * (np.diff(np.sin(lon)) / np.diff(lon))


def nested(n, columns_from=0.5):
    return Grid(regular_grid((n, 2 * n)).latitude, (np.arange(2 * n) + columns_from) * 180 / n)


@pytest.mark.parametrize("mean", [mean_sine, mean_wave])
@pytest.mark.parametrize(
    ("source", "target"),
    [(regular_grid((96, 192)), regular_grid((32, 64))), (nested(128), nested(32)), (nested(90), nested(30))],
    ids=["1.875 to 5.625", "1.40625 to 5.625", "2 to 6"],
)
def test_cell_means_are_exact_where_edges_coincide(mean, source, target):
    moved = Regridder(source, target, "conservative")(mean(source).astype(np.float32))
    np.testing.assert_allclose(moved, mean(target), rtol=0, atol=2e-7)  # float32 of 1


@pytest.mark.parametrize("mean", [mean_sine, mean_wave])
@pytest.mark.parametrize("family", FAMILIES)
def test_cell_means_converge_where_cells_are_cut(mean, family):
    """A source cell that a target edge cuts counts as constant: an error of its size squared over the target's."""
    target, errors = regular_grid((16, 32)), []
    for step in STEPS:
        one = Regridder(FAMILIES[family](step), target, "conservative")
        errors.append(np.abs(one(mean(one.source).astype(np.float32)) - mean(target)).max())
        cut = np.deg2rad(step) ** 2 / np.deg2rad(11.25)
        assert errors[-1] < cut
    assert errors[-1] < errors[0] / 16


def test_to_finer_cells_converges_at_first_order():
    errors = []
    for step in STEPS[:3]:
        one = Regridder(FAMILIES["poles"](step), regular_grid((240, 480)), "conservative")
        errors.append(np.abs(one(mean_wave(one.source).astype(np.float32)) - mean_wave(one.target)).max())
    assert (orders(errors) > 0.8).all(), errors
