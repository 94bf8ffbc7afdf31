"""Spherical power spectra: how the square of a global field is shared among scales, the same in every direction.

Legend: n field, H lat, W lon, m zonal wavenumber, l total wavenumber.

With orthonormal spherical harmonics, f = sum over l, m of a(l, m) Y(l, m), the power of total wavenumber l is

    P(l) = 1/(4 pi) sum over m = -l .. l of |a(l, m)|^2,

so that the sum over l is the area mean of f^2 (Parseval; exactly so for a field without waves shorter than the grid
resolves). Summing over m at equal l makes the spectrum independent of the direction of waves and of where the poles
are: Boer and Shepherd (1983, J. Atmos. Sci. 40, 164-184) and Lambert (1984, Atmosphere-Ocean 22, 265-282) use it for
energy in two-dimensional wavenumbers. No factor 1/2 and no wind: P is of the channel as it is, in its units squared.

The transform is that of ducc0 (Reinecke and Seljebotn 2013, doi:10.1051/0004-6361/201321494): quadrature that is exact
up to the largest l of a grid. It is linear, and apart for every m, from the Fourier coefficients of rows: on grids of
up to some 250 rows its matrices are kept and many fields are transformed together, several times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weatherfm.earth.constants import EARTH_RADIUS
from weatherfm.earth.grid import Grid

_TOLERANCE = 1e-3  # degrees; archives store coordinates in float32
_MATRICES = 2**26
"""Bytes of transform matrices that are kept; above it every field is transformed by itself."""


def spherical_geometry(grid: Grid) -> str | None:
    """ducc0's name of the grid's latitudes; None where it is no global grid on which a transform is exact.

    `CC` (Clenshaw and Curtis): equal steps, rows on both poles. `F1` (Fejér): equal steps, the outer rows half a step
    off the poles. `GL` (Gauss and Legendre): a Gaussian grid. Longitudes must go round, from any meridian.
    """
    rows = len(grid.latitude)
    if not grid.periodic:
        return None
    if _alike(grid, np.linspace(90, -90, rows)):
        return "CC"
    if _alike(grid, 90 - (np.arange(rows) + 0.5) * 180 / rows):
        return "F1"
    gaussian = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))[::-1]
    return "GL" if _alike(grid, gaussian) else None


def largest_total_wavenumber(grid: Grid, geometry: str) -> int:
    """The largest l whose every m the grid resolves: rows less one (poles: two), and less than half the columns."""
    rows, columns = grid.shape
    return min(rows - (2 if geometry == "CC" else 1), (columns - 1) // 2)


def spherical_wavelengths(wavenumbers: np.ndarray) -> np.ndarray:
    """km of total wavenumbers l: 2 pi `EARTH_RADIUS` / sqrt(l (l + 1)), Jeans' relation; infinite at 0."""
    degree = np.asarray(wavenumbers, np.float64)
    with np.errstate(divide="ignore"):
        return 2 * np.pi * EARTH_RADIUS / 1000 / np.sqrt(degree * (degree + 1))


class SphericalTransform:
    """Harmonics of fields on one grid, and their power by total wavenumber; used from any number of threads.

    Args:
        geometry: of `spherical_geometry`.
        shape: (lat, lon) of the grid.
        largest: the largest total wavenumber L.
    """

    def __init__(self, geometry: str, shape: tuple[int, int], largest: int) -> None:
        self.geometry, self.shape, self.largest = geometry, shape, largest
        kept = shape[0] * (largest + 1) * (largest + 2) // 2 * 8 <= _MATRICES
        self._matrices = self._fourier_to_harmonics() if kept else None

    def harmonics(self, fields: np.ndarray, fourier: np.ndarray) -> list[np.ndarray]:
        """a(l, m) of fields: for each m, [n, 2, l >= m] float64, real and imaginary parts.

        Args:
            fields: [n, H, W] float64.
            fourier: [n, H, W // 2 + 1] their rows' Fourier coefficients, norm "forward".
        """
        if self._matrices is None:
            each = np.stack([self._harmonics(field) for field in fields])  # [n, m, l]
            return [np.stack([each[:, m, m:].real, each[:, m, m:].imag], axis=1) for m in range(self.largest + 1)]
        parts = fourier[..., : self.largest + 1]
        rows = np.stack([parts.real, parts.imag], axis=1)  # [n, 2, H, m]
        by_wave = np.ascontiguousarray(np.moveaxis(rows, -1, 0)).reshape(len(self._matrices), -1, self.shape[0])
        return [(by_wave[m] @ matrix).reshape(len(fields), 2, -1) for m, matrix in enumerate(self._matrices)]

    def power(self, harmonics: Sequence[np.ndarray]) -> np.ndarray:
        """[n, L + 1]: power of fields of these harmonics."""
        power = np.zeros((len(harmonics[0]), self.largest + 1))
        for m, parts in enumerate(harmonics):
            power[:, m:] += _both_signs(m) * np.square(parts).sum(1)
        return power / (4 * np.pi)

    def _fourier_to_harmonics(self) -> list[np.ndarray]:
        """For each m, [H, l >= m]: a(l, m) of a row whose Fourier coefficient of m is 1; real, by symmetry."""
        rows, columns = self.shape
        whole = np.empty((self.largest + 1, rows, self.largest + 1))  # [m, H, l]
        for row in range(rows):
            impulse = np.zeros(self.shape)
            impulse[row, 0] = columns  # every Fourier coefficient is 1
            whole[:, row] = self._harmonics(impulse).real
        return [np.ascontiguousarray(whole[m, :, m:]) for m in range(self.largest + 1)]

    def _harmonics(self, field: np.ndarray) -> np.ndarray:
        """[m, l] complex a(l, m) for m >= 0, zero where l < m, of a field [H, W]."""
        from ducc0.sht import analysis_2d

        size = self.largest + 1
        harmonics = np.zeros((1, size * size), np.complex128)
        starts = np.arange(size, dtype=np.uint64) * size
        analysis_2d(map=field[None], spin=0, lmax=self.largest, mmax=self.largest, geometry=self.geometry,
                    mstart=starts, alm=harmonics, nthreads=1)  # fmt: skip
        return harmonics.reshape(size, size)


def _both_signs(m: int) -> int:
    """A real field has |a(l, -m)| = |a(l, m)|."""
    return 1 if m == 0 else 2


def _alike(grid: Grid, latitude: np.ndarray) -> bool:
    return bool(np.abs(grid.latitude - latitude).max() <= _TOLERANCE)
