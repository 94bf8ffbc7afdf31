"""From the planet's sigma layers to pressure levels, hydrostatically consistent (numpy only).

K sigma layer (from the top down), P pressure level, H lat, W lon. Temperature is linear in log pressure between
layer centres, as the dynamical core assumes, isothermal from the lowest centre to the ground, and warms by
6.5 K/km below ground; geopotential is the exact integral of that profile, so dz/dlog(p) = -R t everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weatherfm.earth.constants import GRAVITY

GAS_CONSTANT = 1004 * 2 / 7
"""J kg-1 K-1 of dry air, the value of the dynamical core (c_p = 1004, kappa = 2/7)."""
LAPSE_RATE = 6.5e-3
"""K m-1 below ground: the standard atmosphere's, as ECMWF extrapolates."""


@dataclass(frozen=True)
class SigmaFields:
    """The planet on its own vertical coordinate, sigma = pressure / surface pressure."""

    temperature: np.ndarray
    """[..., K, H, W] K."""
    u: np.ndarray
    """[..., K, H, W] m s-1."""
    v: np.ndarray
    """[..., K, H, W] m s-1."""
    surface_pressure: np.ndarray
    """[..., H, W] Pa."""


def layer_geopotential(temperature: np.ndarray, surface: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """[..., K, H, W] geopotential m2 s-2 at layer centres `sigma` [K] over `surface` geopotential [H, W]."""
    log_sigma = np.log(sigma).astype(temperature.dtype)
    below = temperature[..., -1:, :, :] * -log_sigma[-1]
    between = (temperature[..., 1:, :, :] + temperature[..., :-1, :, :]) / 2 * np.diff(log_sigma)[:, None, None]
    from_ground = np.flip(np.cumsum(np.flip(np.concatenate([between, below], axis=-3), axis=-3), axis=-3), axis=-3)
    return surface + GAS_CONSTANT * from_ground


def pressure_level_fields(
    fields: SigmaFields, surface: np.ndarray, sigma: np.ndarray, levels: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """`z t u v` [..., P, H, W] (m2 s-2, K, m s-1) on pressure `levels` in hPa.

    Args:
        fields: the planet on sigma layers.
        surface: [H, W] geopotential of the ground, m2 s-2.
        sigma: [K] layer centres, ascending.
        levels: pressures in hPa, in the order of P.
    """
    precision = fields.surface_pressure.dtype
    pressure = 100 * np.asarray(levels, precision)[:, None, None]
    depth = np.log(pressure / fields.surface_pressure[..., None, :, :])  # log(sigma) of each level [..., P, H, W]
    centres = np.log(sigma).astype(precision)
    upper = np.clip(np.searchsorted(centres, depth) - 1, 0, len(sigma) - 2)  # layer above each level
    weight = np.clip((depth - centres[upper]) / (centres[upper + 1] - centres[upper]), 0, 1)

    def between(layered: np.ndarray) -> np.ndarray:
        above = np.take_along_axis(layered, upper, axis=-3)
        return above + weight * (np.take_along_axis(layered, upper + 1, axis=-3) - above)

    warming = np.exp(np.maximum(depth, 0) * GAS_CONSTANT * LAPSE_RATE / GRAVITY)  # 1 above ground
    in_air = between(fields.temperature)
    lower = np.take_along_axis(fields.temperature, upper + 1, axis=-3)
    z = np.take_along_axis(layer_geopotential(fields.temperature, surface, sigma), upper + 1, axis=-3)
    z = z + GAS_CONSTANT * (in_air + lower) / 2 * (centres[upper + 1] - np.minimum(depth, 0))
    z = z - GRAVITY / LAPSE_RATE * in_air * (warming - 1)
    return {"z": z, "t": in_air * warming, "u": between(fields.u), "v": between(fields.v)}
