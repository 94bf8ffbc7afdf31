"""Errors of analysis that the members of an ensemble start with (`forecast.perturbation`).

What is added to a member's analysed states is one field a channel, the same at all of its input times: an analysis is
wrong today much as it was six hours ago, and a model that sees both would otherwise be shown a change that was none. It
is drawn by the channel's name, so that neither their order nor who holds which of them matters.

    scaled      independent at every point, with the standard deviation `amplitude`, in units of the channel's own
    spherical   a sum of spherical harmonics of total wavenumbers l = 1 to 63, as far as the grid has them, whose
                coefficients have variances in proportion to (l (l + 1) + 9)^-2, so that the power falls as l^-3 at
                large l; the mean square over the sphere is `amplitude`^2 on average, that over the globe's mean none

The second is the stationary field of Whittle's equation, (9 - Laplacian) f = white noise, without its mean (Lindgren,
Rue and Lindstroem 2011, doi 10.1111/j.1467-9868.2011.00777.x). It is made of each channel by itself.

Legend: I initial time, M member, C channel, H lat, W lon, L largest total wavenumber, m zonal, l total wavenumber.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.evaluation.ensemble_config import PerturbationConfig
from weatherfm.model.noise import member_draws
from weatherfm.model.truncation import is_whole_globe, spectral_matrices

_STREAMS = 3 << 32
"""Above those of others for the same member; a channel's own adds the checksum of its name."""
_LARGEST = 63
"""A larger one would add a quarter of a percent of the variance, and take matrices that grow with its square."""
_DECORRELATION = 9.0
"""Of l (l + 1), where the spectrum bends."""


class Perturbation:
    """Draws what is added to the states of members.

    Args:
        config: kind and amplitude.
        seed: of the forecast.
        domain: of the model.
        held: channels that go into it and that the states have; others stay as they are.
        device: to draw for.

    Raises:
        InputError: spherical, on an area that is not the whole globe.
    """

    def __init__(
        self, config: PerturbationConfig, seed: int, domain: Domain, held: Sequence[str], device: torch.device
    ) -> None:
        self.config, self.seed, self.domain, self.held, self.device = config, seed, domain, held, device
        self._harmonics = Harmonics(domain.grid, device) if config.kind == "spherical" else None

    def fields(self, inits: np.ndarray, numbers: Sequence[int]) -> Tensor:
        """[I, M, C, H, W] float32 on the device, in normalised units; zeros at points of masks.

        Args:
            inits: [I] datetime64.
            numbers: [M] of the members.
        """
        domain = self.domain
        made = torch.zeros(len(inits), len(numbers), len(domain.channels), *domain.grid.shape, device=self.device)
        for name in self.held:
            own = made[:, :, domain.channels.index(name)]
            own += self.config.amplitude * self._field(_STREAMS + zlib.crc32(name.encode()), inits, numbers)
            if name in domain.masks:
                own[:, :, torch.from_numpy(domain.masks[name]).to(self.device)] = 0
        return made

    def _field(self, stream: int, inits: np.ndarray, numbers: Sequence[int]) -> Tensor:
        """[I, M, H, W] of unit variance."""
        shape = self.domain.grid.shape if self._harmonics is None else self._harmonics.shape
        drawn = torch.from_numpy(member_draws(stream, shape, self.seed, inits, numbers)).to(self.device)
        fields = drawn if self._harmonics is None else self._harmonics.fields(drawn)
        return fields.unflatten(0, (len(inits), len(numbers)))


class Harmonics:
    """Smooth fields on a global grid from standard normal numbers, of unit variance.

    Raises:
        InputError: no whole globe, or one of fewer than three latitudes.
    """

    def __init__(self, grid: Grid, device: torch.device) -> None:
        H, W = grid.shape
        largest = require_harmonics(grid)
        matrices = spectral_matrices(grid, largest)
        functions = matrices["synthesis"][0] * spectrum(largest) ** 0.5 * (H * W) ** 0.5  # [m, H, l]
        self.shape = (largest + 1, largest + 1, 2)
        """[m, l, cosine and sine] of the numbers for a field; those that have no harmonic are of no effect."""
        self._functions = torch.from_numpy(functions).float().to(device)
        self._waves = torch.from_numpy(matrices["waves"]).float().to(device)

    def fields(self, drawn: Tensor) -> Tensor:
        """[n, m, l, 2] -> [n, H, W]."""
        rows = torch.einsum("mhl,nmlp->nhmp", self._functions, drawn)
        return torch.einsum("nhmp,wmp->nhw", rows, self._waves)


def require_harmonics(grid: Grid) -> int:
    """The largest total wavenumber of perturbations on a grid.

    Raises:
        InputError: no whole globe, or one of fewer than three latitudes.
    """
    largest = min(_LARGEST, grid.shape[0] - 2, (grid.shape[1] - 1) // 2)
    if not is_whole_globe(grid) or largest < 1:
        raise InputError(
            f"forecast.perturbation spherical is for whole globes, and the grid is {grid}; set "
            "forecast.perturbation.kind: scaled"
        )
    return largest


def spectrum(largest: int) -> np.ndarray:
    """[L + 1] variance of each coefficient by total wavenumber; over all 2 l + 1 of each they sum up to 1."""
    degrees = np.arange(largest + 1)
    variance = np.where(degrees > 0, (degrees * (degrees + 1) + _DECORRELATION) ** -2.0, 0)
    return variance / ((2 * degrees + 1) @ variance)
