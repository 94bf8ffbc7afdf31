"""What tells one simulated planet from another, its ground and its climate (numpy only)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

SPIN_UP = Path(__file__).with_name("spinup.npz")
"""Ground and spectral coefficients after `simulation.spin_up`."""


@dataclass(frozen=True)
class Conditions:
    """Of one planet, whatever its seed."""

    mountains: float = 1.0
    """Factor of the heights."""
    turn: float = 0.0
    """Degrees by which the mountains lie further east."""
    contrast: float = 60.0
    """K, equator minus pole of the equilibrium temperature."""

    @property
    def others(self) -> dict[str, float]:
        """All values of a planet other than the shipped one; of that, nothing."""
        return {} if self == SHIPPED else asdict(self)

    @property
    def told(self) -> list[str]:
        """The same in words."""
        return [f"{name} {value:g}" for name, value in self.others.items()]

    def surface_geopotential(self) -> np.ndarray:
        """[lat, lon] float32 m2 s-2 of the ground."""
        with np.load(SPIN_UP) as saved:
            shipped: np.ndarray = saved["surface_geopotential"]
        return (self.mountains * turned(shipped, self.turn)).astype(np.float32)


SHIPPED = Conditions()
"""Of the planet whose spin-up the package has."""


def turned(field: np.ndarray, degrees: float) -> np.ndarray:
    """A field [lat, lon] of fewer zonal waves than half its longitudes, moved east: each wave by its phase."""
    if degrees == 0:
        return field
    waves = np.fft.rfft(field)
    return np.fft.irfft(waves * np.exp(-1j * np.deg2rad(degrees) * np.arange(waves.shape[-1])), field.shape[-1])
