"""Triangular truncation of global fields: what is left are spherical harmonics up to a total wavenumber.

Legend: B batch, C channel, H lat, W lon, L largest total wavenumber, m zonal wavenumber.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError


def truncated(fields: Tensor, waves: Tensor, rows: Tensor) -> Tensor:
    """Fields [B, C, H, W] without total wavenumbers above L, by matrices of `truncation_matrices`."""
    coefficients = torch.einsum("bchw,wmp->mbchp", fields, waves)
    return torch.einsum("mgh,mbchp,wmp->bcgw", rows, coefficients, waves)


def truncation_matrices(grid: Grid, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """What takes a field to the nearest one, by area, that has no total wavenumber above L.

    For each m the rows of Fourier coefficients are projected onto the associated Legendre functions of degrees m to L,
    by least squares weighted with the area of the cells. On a Gaussian grid that is fine enough this is the spectral
    transform and its inverse; on others, what comes nearest. Each field is filtered by itself: whoever holds some
    channels filters these.

    Args:
        grid: global.
        largest: L.

    Returns:
        Orthonormal cosines and sines [W, m, 2], and projections of rows [m, H, H].

    Raises:
        InputError: an area that is not the whole globe, or too few longitudes for L.
    """
    latitude, columns = np.deg2rad(grid.latitude), grid.shape[1]
    if not grid.periodic or set(np.abs(grid.latitude_bounds[[0, -1]])) != {90}:
        raise InputError(f"model.truncation is for the whole globe; this grid is {grid}; set it to null")
    if 2 * largest >= columns:
        raise InputError(
            f"model.truncation {largest} needs more than {2 * largest} longitudes, this grid has {columns}; lower it"
        )
    wavenumbers = np.arange(largest + 1)
    angles = 2 * np.pi * np.arange(columns)[:, None] / columns * wavenumbers
    waves = np.stack([np.cos(angles), np.sin(angles)], -1) * np.sqrt(np.where(wavenumbers, 2, 1) / columns)[:, None]
    root = np.sqrt(np.broadcast_to(grid.area_weights, grid.shape)[:, :1])
    bases = (np.linalg.qr(root * _legendre(m, largest, latitude))[0] for m in wavenumbers)
    return waves, np.stack([basis @ basis.T * root.T / root for basis in bases])


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
