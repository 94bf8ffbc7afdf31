"""Position by place: from where on Earth a patch lies and how large it is, so that one model serves any grid.

The centre of a patch is a point (x, y, z) of the unit sphere: functions of it are periodic in longitude, and at a pole,
where all longitudes are one point, they are one value. Of each coordinate there are sines and cosines at wavelengths
from four Earth radii (half a wave from pole to pole) to a 32nd of one (200 km). They fade where a patch is too large
for them, as the mean over a patch does of a wave that runs along it (arXiv 2103.13415 does so for images): else they
would be noise there, and another one on every grid.

Legend: B batch, H rows and W columns of patches, N = H W patch tokens, D width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError

_WAVELENGTHS = 4.0 * 0.5 ** np.arange(8)
"""Earth radii."""
_MIDDLING = 5.0
"""Degrees; a patch of this size has size 0."""
WAVES = 2 * 3 * len(_WAVELENGTHS)
FEATURES = WAVES + 2


class Place(nn.Module):
    """A linear map of the features of a patch's place, added to its token; no parameter knows the grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, FEATURES))
        self.bias = nn.Parameter(torch.empty(width))
        self.rows = slice(None)  # seam: the positions that are handed in; all of them when alone

    def forward(self, x: Tensor, places: Tensor, chosen: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D], N the number of `rows`, or, where given, of the positions [B, N] `chosen`; places:
        features of all positions (`place_features`)."""
        rows = self.rows if chosen is None else chosen
        with torch.autocast(x.device.type, enabled=False):  # what runs through the blocks begins in float32
            return x + F.linear(places[rows].to(self.weight.dtype), self.weight, self.bias)


def place_features(grid: Grid, patch: tuple[int, int]) -> np.ndarray:
    """[N, 50] of the patches that a grid is cut into, row by row.

    A patch that reaches beyond the grid has the centre and the size of what of it lies on the grid, which is what it
    predicts.

    Raises:
        InputError: the grid is a plane of pixels.
    """
    if grid.plane:
        raise InputError(
            f"model.position: place is by where on Earth a patch lies, and the fields are pictures ({grid}); set "
            "model.position: learned"
        )
    rows, columns = (_edges(size, step) for size, step in zip(grid.shape, patch, strict=True))
    latitude = grid.latitude_bounds[rows]
    longitude = grid.longitude[0] + grid.longitude_step * (columns - 0.5)
    centre = (latitude[:-1] + latitude[1:]) / 2
    return features_at(
        centre[:, None],
        ((longitude[:-1] + longitude[1:]) / 2)[None],
        (latitude[:-1] - latitude[1:])[:, None],
        (longitude[1:] - longitude[:-1])[None] * np.cos(np.deg2rad(centre))[:, None],
    )


def features_at(latitude: np.ndarray, longitude: np.ndarray, height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """[N, 50] of patches by centre and size, all in degrees of a great circle: arrays that broadcast to [H, W]."""
    given = np.broadcast_arrays(*(np.asarray(values, np.float64) for values in (latitude, longitude, height, width)))
    lat, lon, height, width = (values.ravel() for values in given)
    lat, lon = np.deg2rad(lat), np.deg2rad(lon)
    centre = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)  # [N, 3]
    wavenumber = 2 * np.pi / _WAVELENGTHS
    angle = centre[..., None] * wavenumber  # [N, 3, wave]
    extent = np.deg2rad(np.sqrt((height**2 + width**2) / 2))
    kept = np.exp(-((extent[:, None] * wavenumber) ** 2) / 24)[:, None]  # of a wave, in its mean over such a stretch
    waves = np.concatenate([np.sin(angle) * kept, np.cos(angle) * kept], 1).reshape(len(lat), WAVES)
    sizes = np.log(np.stack([height, width], 1) / _MIDDLING) / 2
    return np.concatenate([waves, sizes], 1)


def _edges(size: int, step: int) -> np.ndarray:
    """Numbers of the grid points that patches begin at, and of the one behind the last."""
    return np.minimum(np.arange(-(-size // step) + 1) * step, size)
