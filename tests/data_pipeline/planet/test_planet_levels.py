"""Sigma layers to pressure levels, against atmospheres whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from weatherfm.data_pipeline.planet.levels import (
    GAS_CONSTANT,
    LAPSE_RATE,
    SigmaFields,
    layer_geopotential,
    pressure_level_fields,
)
from weatherfm.earth.variables import GRAVITY

SIGMA = (np.arange(8) + 0.5) / 8
SURFACE = np.array([[0.0, 5000.0], [20000.0, 100.0]])


def column(temperature, pressure=None):
    """[K, 2, 2] fields; the wind of a layer is its number."""
    wind = np.broadcast_to(np.arange(8.0)[:, None, None], (8, 2, 2))
    pressure = np.array([[1.0e5, 9.5e4], [7.5e4, 1.01e5]]) if pressure is None else pressure
    return SigmaFields(np.broadcast_to(temperature, (8, 2, 2)), wind, -wind, pressure)


def test_isothermal_air_has_logarithmic_heights():
    fields = column(np.full((8, 1, 1), 250.0))
    levels = pressure_level_fields(fields, SURFACE, SIGMA, (100, 300, 700))
    pressure = 100 * np.array([100, 300, 700])[:, None, None]
    expected = SURFACE + GAS_CONSTANT * 250 * np.log(fields.surface_pressure / pressure)
    np.testing.assert_allclose(levels["z"], expected, rtol=1e-12)
    np.testing.assert_allclose(levels["t"], 250, rtol=1e-12)


def test_temperature_linear_in_log_pressure_is_kept():
    log_pressure = np.log(SIGMA)[:, None, None] + np.log(1e5)
    fields = column(20 + 20 * log_pressure, np.full((2, 2), 1e5))
    levels = pressure_level_fields(fields, SURFACE, SIGMA, (200, 500))
    depth = np.log(100 * np.array([200.0, 500.0]))
    np.testing.assert_allclose(levels["t"], (20 + 20 * depth)[:, None, None] * np.ones((2, 2)), rtol=1e-12)
    thickness = GAS_CONSTANT * (20 * (depth[1] - depth[0]) + 10 * (depth[1] ** 2 - depth[0] ** 2))
    np.testing.assert_allclose(levels["z"][0] - levels["z"][1], thickness, rtol=1e-10)


def test_layer_geopotential_starts_at_the_ground():
    temperature = np.random.default_rng(0).uniform(200, 300, (8, 2, 2))
    z = layer_geopotential(temperature, SURFACE, SIGMA)
    np.testing.assert_allclose(z[-1] - SURFACE, -GAS_CONSTANT * temperature[-1] * np.log(SIGMA[-1]))
    between = GAS_CONSTANT * temperature[2:4].mean(0) * np.log(SIGMA[3] / SIGMA[2])
    np.testing.assert_allclose(z[2] - z[3], between)


def test_hydrostatic_at_every_height_above_and_below_ground():
    fields = column(np.random.default_rng(1).uniform(200, 300, (8, 2, 2)))
    pressures = np.exp(np.linspace(np.log(70), np.log(1060), 4001))
    levels = pressure_level_fields(fields, SURFACE, SIGMA, tuple(pressures))
    slope = np.diff(levels["z"], axis=0) / np.diff(np.log(pressures))[:, None, None]
    middle = (levels["t"][1:] + levels["t"][:-1]) / 2
    np.testing.assert_allclose(slope, -GAS_CONSTANT * middle, rtol=1e-3)  # kinks of t between two of 4001 points


def test_below_ground_air_warms_and_wind_stays():
    fields = column(np.full((8, 1, 1), 280.0), np.full((2, 2), 8e4))
    levels = pressure_level_fields(fields, SURFACE, SIGMA, (800, 925))
    np.testing.assert_allclose(levels["z"][0], SURFACE, atol=1e-6)  # the ground itself
    metres_down = (levels["z"][0] - levels["z"][1]) / GRAVITY
    np.testing.assert_allclose(levels["t"][1], 280 + LAPSE_RATE * metres_down, rtol=1e-12)
    assert (metres_down > 1000).all()
    np.testing.assert_array_equal(levels["u"], 7)
    np.testing.assert_array_equal(levels["v"], -7)


@pytest.mark.parametrize("layer", [0, 3, 7])
def test_layer_centres_are_hit_exactly(layer):
    fields = column(np.random.default_rng(2).uniform(200, 300, (8, 2, 2)), np.full((2, 2), 1e5))
    levels = pressure_level_fields(fields, SURFACE, SIGMA, (1000 * SIGMA[layer],))
    np.testing.assert_allclose(levels["t"][0], fields.temperature[layer], rtol=1e-12)
    np.testing.assert_allclose(levels["u"][0], layer, atol=1e-12)
    z = layer_geopotential(fields.temperature, SURFACE, SIGMA)
    np.testing.assert_allclose(levels["z"][0], z[layer], rtol=1e-12)
