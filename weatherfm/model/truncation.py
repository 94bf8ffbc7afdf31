"""Global fields by total wavenumber: what is predicted ends at one, and learns how much to keep of each below.

Legend: B batch, C channel, H lat, W lon, L largest total wavenumber, m zonal wavenumber, l total wavenumber.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError

_PACE = 4.0
"""Adam moves a number by about the learning rate a step; a factor has to go further than weights do."""


class Truncation(nn.Module):
    """Fields without total wavenumbers above L; each below is multiplied by a factor, 1 + 4 `gain`.

    A factor that is learned is what Wiener's filter is: small where a channel's predictions are mostly noise. It
    starts at one (`initial`). Every channel has factors of its own, so that whoever holds some channels filters these.

    Args:
        channels: C.
        largest: L.
    """

    def __init__(self, channels: int, largest: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.empty(channels, largest + 1))

    def forward(self, fields: Tensor, waves: Tensor, analysis: Tensor, synthesis: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W], by `spectral_matrices`."""
        coefficients = torch.einsum("bchw,wmp->mbchp", fields, waves)
        gain = 1 + _PACE * self.gain.to(fields.dtype)  # not 1 + gain in bfloat16
        coefficients = torch.einsum("mlh,mbchp->mbclp", analysis, coefficients) * gain[..., None]
        return torch.einsum("mhl,mbclp,wmp->bchw", synthesis, coefficients, waves)


def spectral_matrices(grid: Grid, largest: int) -> dict[str, np.ndarray]:
    """What takes a field to its coefficients, and back to the nearest one, by area, without total wavenumbers above L.

    For each m the rows of Fourier coefficients are projected onto the associated Legendre functions of degrees m to L,
    which are made orthonormal, from the lowest degree on, by the area of the cells. On a Gaussian grid that is fine
    enough this is the spectral transform and its inverse; on others, what comes nearest.

    Args:
        grid: global.
        largest: L; memory grows with L^2 H.

    Returns:
        `waves`, orthonormal cosines and sines [W, m, 2]; `analysis` [m, l, H] and `synthesis` [m, H, l], m and l from 0
        to L.

    Raises:
        InputError: an area that is not the whole globe, or too few longitudes for L.
    """
    latitude, (H, W) = np.deg2rad(grid.latitude), grid.shape
    if not grid.periodic or set(np.abs(grid.latitude_bounds[[0, -1]])) != {90}:
        raise InputError(f"model.truncation is for the whole globe; this grid is {grid}; set it to null")
    if 2 * largest >= W:
        raise InputError(
            f"model.truncation {largest} needs more than {2 * largest} longitudes, this grid has {W}; lower it"
        )
    wavenumbers = np.arange(largest + 1)
    angles = 2 * np.pi * np.arange(W)[:, None] / W * wavenumbers
    waves = np.stack([np.cos(angles), np.sin(angles)], -1) * np.sqrt(np.where(wavenumbers, 2, 1) / W)[:, None]
    root = np.sqrt(grid.area_weights[:, :1])
    bases = np.zeros((largest + 1, H, largest + 1))
    for m in wavenumbers:
        basis, _ = np.linalg.qr(root * _legendre(m, largest, latitude))
        bases[m, :, m : m + basis.shape[1]] = basis
    return {"waves": waves, "analysis": (bases * root).swapaxes(1, 2).copy(), "synthesis": bases / root}


def _legendre(m: int, largest: int, latitude: np.ndarray) -> np.ndarray:
    """[H, L - m + 1] associated Legendre functions of sin(latitude), of mean square one over the sphere.

    The recursion over degrees of Holmes and Featherstone (2002, doi 10.1007/s00190-002-0216-2, equations 11 and 13).
    """
    x, cosine = np.sin(latitude), np.cos(latitude)
    start = np.ones_like(x)
    for k in range(1, m + 1):
        start = start * cosine * np.sqrt((2 * k + 1) / (2 * k))
    functions = [start]
    for n in range(m + 1, largest + 1):
        scale = np.sqrt((2 * n - 1) * (2 * n + 1) / ((n - m) * (n + m)))
        value = scale * x * functions[-1]
        if n > m + 1:
            back = (2 * n + 1) * (n + m - 1) * (n - m - 1) / ((n - m) * (n + m) * (2 * n - 3))
            value = value - np.sqrt(back) * functions[-2]
        functions.append(value)
    return np.stack(functions, 1)
