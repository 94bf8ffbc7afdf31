"""Zonal spectra by latitude band: how the square of a field is shared among waves along its rows (numpy only).

Legend: n field, H lat, K zonal wavenumber.

Of a row f(j), j = 0 .. W - 1, the discrete Fourier transform is F(k) = 1/W sum over j of f(j) exp(-2 pi i j k / W), and

    S(0) = |F(0)|^2,    S(k) = 2 |F(k)|^2,    S(W/2) = |F(W/2)|^2 where W is even,

so that the sum of S over k = 0 .. W // 2 is the row's mean of f^2 (Parseval): units are the square of the field's. A
band's spectrum is the mean of its rows, weighted by the areas of their cells, at equal *wavenumber*; its sum is the
band's area mean of f^2.

WeatherBench2 (`derived_variables.py`, ZonalEnergySpectrum) multiplies each row by its circumference in metres, so that
the sum over k is the integral along the row, counts k = W/2 twice, and averages rows at equal *wavelength*. Here the
circumference is left out: the sum is then an area mean, in the units of the mean squared error it stands beside, and
ratios of spectra of a row are the same. A row of WeatherBench2 is S times 2 pi `EARTH_RADIUS` cos(latitude).
"""

from __future__ import annotations

import numpy as np

from weatherfm.earth.constants import EARTH_RADIUS
from weatherfm.earth.grid import Grid

_TOLERANCE = 1e-3  # degrees; archives store coordinates in float32

ZONAL_BANDS: dict[str, tuple[float, float]] = {
    "northern_midlatitudes": (30.0, 60.0),
    "tropics": (-20.0, 20.0),
    "southern_midlatitudes": (-60.0, -30.0),
}
"""Southern and northern limit in degrees, rows on a limit included. Rows of a band have circumferences of 0.94 to 1
(tropics) or 0.5 to 0.87 of the equator's; towards a pole one wavenumber would soon be any wavelength."""


def zonal_bands(grid: Grid) -> tuple[str, ...]:
    """The bands that have a row on this grid; none on a limited area, whose rows do not close."""
    return tuple(band for band in ZONAL_BANDS if grid.periodic and _rows(grid, band).any())


def band_weights(grid: Grid, band: str) -> np.ndarray:
    """[lat] float64 areas of the band's rows, sum 1, zero outside it."""
    areas = np.where(_rows(grid, band), grid.area_weights[:, 0], 0.0)
    return areas / areas.sum()


def zonal_wavenumbers(grid: Grid) -> np.ndarray:
    """[wavenumber] int64: waves around a circle of latitude, from 0 to half the number of columns."""
    return np.arange(grid.shape[1] // 2 + 1)


def zonal_wavelengths(grid: Grid, band: str) -> np.ndarray:
    """[wavenumber] km: the band's circumference, the area mean of its rows', over the wavenumber; infinite at 0."""
    shortening = band_weights(grid, band) @ np.cos(np.deg2rad(grid.latitude))
    wavenumbers = zonal_wavenumbers(grid).astype(np.float64)
    wavenumbers[0] = np.nan
    return np.nan_to_num(2 * np.pi * EARTH_RADIUS / 1000 * shortening / wavenumbers, nan=np.inf)


def wave_power(fourier: np.ndarray, columns: int) -> np.ndarray:
    """S of the module's formula, of F [..., wavenumber] complex of rows of `columns` points."""
    power = np.square(fourier.real)
    power += np.square(fourier.imag)
    power[..., 1 : (columns + 1) // 2] *= 2
    return power


def _rows(grid: Grid, band: str) -> np.ndarray:
    south, north = ZONAL_BANDS[band]
    return (grid.latitude >= south - _TOLERANCE) & (grid.latitude <= north + _TOLERANCE)
