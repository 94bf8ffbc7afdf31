"""Global fields by total wavenumber: what is predicted ends at one, and learns how much to keep of each below.

Legend: B batch, C channel, H lat, W lon, L largest total wavenumber, m zonal wavenumber, l total wavenumber.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import is_wind_component
from weatherfm.errors import InputError
from weatherfm.model.tokenizer import at_hand

_PACE = 4.0
"""Adam moves a number by about the learning rate a step; a factor has to go further than weights do."""
_LARGEST_MATRICES = 2**30
"""Bytes that every device may be asked to hold."""


class Truncation(nn.Module):
    """Fields without total wavenumbers above L; each below is multiplied by a factor, 1 + 4 `gain`.

    A factor that is learned is what Wiener's filter is: small where a channel's predictions are mostly noise. It
    starts at one (`initial`). Every channel has factors of its own, so that whoever holds some channels filters these.

    Args:
        channels: short names.
        largest: L.
    """

    rows: Tensor | None = None
    """Seam, as of the tokenizer."""
    of_data = ("winds",)

    def __init__(self, channels: Sequence[str], largest: int) -> None:
        super().__init__()
        self.winds = [is_wind_component(name) for name in channels]
        self.gain = nn.Parameter(torch.empty(len(channels), largest + 1))

    def forward(self, fields: Tensor, waves: Tensor, analysis: Tensor, synthesis: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W], by `spectral_matrices`."""
        coefficients = torch.einsum("bchw,wmp->mbchp", fields, waves)
        gain = 1 + _PACE * at_hand(self.gain, self.rows).to(fields.dtype)  # not 1 + gain in bfloat16
        parts, order = [], []
        for kind in (False, True):
            if own := [c for c, wind in enumerate(self.winds) if wind == kind]:
                kept = torch.einsum("mlh,mbchp->mbclp", analysis[int(kind)], coefficients[:, :, own])
                parts.append(torch.einsum("mhl,mbclp->mbchp", synthesis[int(kind)], kept * gain[own, :, None]))
                order += own
        rows = torch.cat(parts, 2)[:, :, [order.index(c) for c in range(len(order))]]
        return torch.einsum("mbchp,wmp->bchw", rows, waves)


def is_whole_globe(grid: Grid) -> bool:
    """Whether the cells of a grid cover all of the sphere."""
    return grid.periodic and set(np.abs(grid.latitude_bounds[[0, -1]])) == {90}


def spectral_matrices(grid: Grid, largest: int) -> dict[str, np.ndarray]:
    """What takes a field to its coefficients, and back to the nearest one, by area, without total wavenumbers above L.

    For each m the rows of Fourier coefficients are projected onto associated Legendre functions of degrees up to L,
    made orthonormal, from the lowest degree on, by the area of the cells: of order m for scalars. Components of a
    vector with wavenumbers up to L are cos^(m - 1) latitude, for m = 0 cos latitude, times polynomials of sin latitude
    (they are sums of m P / cos latitude and dP / dlatitude), which functions of order |m - 1| span: as scalars they
    would lose the flow across a pole. On a Gaussian grid that is fine enough this is the spectral transform and its
    inverse; on others, what comes nearest.

    Args:
        grid: global.
        largest: L; memory grows with L^2 H.

    Returns:
        `waves`, orthonormal cosines and sines [W, m, 2]; `analysis` [2, m, l, H] and `synthesis` [2, m, H, l] of
        scalars and of wind components, m and l from 0 to L.

    Raises:
        InputError: an area that is not the whole globe, a grid too coarse for L, or one too fine for these matrices.
    """
    H, W = grid.shape
    if not is_whole_globe(grid):
        raise InputError(f"model.truncation is for the whole globe; this grid is {grid}; set it to null")
    if 2 * largest >= W or largest > H - 2:  # a row on a pole says little
        raise InputError(
            f"model.truncation {largest} needs {largest + 2} latitudes and {2 * largest + 1} longitudes or more, this "
            f"grid has {H} and {W}; lower it"
        )
    if (size := 4 * 4 * (largest + 1) ** 2 * H) > _LARGEST_MATRICES:
        raise InputError(
            f"model.truncation {largest} would take {size / 1e9:.3g} GB of matrices on every device; lower it, or set "
            "it to null"
        )
    waves, analysis, synthesis = _matrices(grid.latitude.tobytes(), grid.area_weights[:, 0].tobytes(), W, largest)
    return {"waves": waves, "analysis": analysis, "synthesis": synthesis}


@lru_cache(maxsize=4)
def _matrices(latitudes: bytes, areas: bytes, columns: int, largest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    latitude, root = np.deg2rad(np.frombuffer(latitudes)), np.sqrt(np.frombuffer(areas))[:, None]
    wavenumbers = np.arange(largest + 1)
    angles = 2 * np.pi * np.arange(columns)[:, None] / columns * wavenumbers
    waves = np.stack([np.cos(angles), np.sin(angles)], -1) * np.sqrt(np.where(wavenumbers, 2, 1) / columns)[:, None]
    bases = np.zeros((2, largest + 1, len(latitude), largest + 1))
    for m in range(largest + 1):
        for kind, order in enumerate((m, abs(m - 1))):
            bases[kind, m, :, order:], _ = np.linalg.qr(root * _legendre(order, largest, latitude))
    return waves, (bases * root).swapaxes(-1, -2), bases / root


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
