"""Energy spectra of forecast, truth and error: zonal by latitude band, and spherical where the grid allows.

The mean over cases of a spectrum is the metric itself. Three of them belong together: the ratio of the forecast's to
the truth's shows what a forecast blurs, and the error's, against the truth's, at which scales it still knows anything:
an error with as much power as the truth is as bad as the mean, and twice as much is a forecast that is unrelated to it.

Legend: B case, C channel, H lat, W lon, K wavenumber.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from weatherfm.earth.grid import Grid
from weatherfm.evaluation.metrics.spherical_spectra import (
    SphericalTransform,
    largest_total_wavenumber,
    spherical_geometry,
)
from weatherfm.evaluation.metrics.zonal_spectra import band_weights, wave_power, zonal_bands, zonal_wavenumbers

_VALUES = 2**18
"""Values of one field worked on together: memory stays at some 20 MB a thread (one field, where that is larger)."""
_OF = ("forecast", "truth", "error")


@dataclass(frozen=True, eq=False)
class SpectraTransforms:
    """What of a grid's spectra can be had, and all that is the same for every field; see `spectra_transforms`."""

    shape: tuple[int, int]
    """(lat, lon)."""
    bands: tuple[str, ...]
    """Latitude bands of the zonal spectra."""
    band_weights: np.ndarray
    """[band, lat] float64, each band's sum 1."""
    wavenumbers: np.ndarray
    """[wavenumber] of the zonal spectra: 0 .. lon // 2."""
    spherical: SphericalTransform | None
    """None where the grid has no exact spherical transform."""

    @property
    def total_wavenumbers(self) -> np.ndarray:
        """[total_wavenumber] of the spherical spectra, from 0; empty without them."""
        return np.arange(0 if self.spherical is None else self.spherical.largest + 1)


def spectra_transforms(grid: Grid) -> SpectraTransforms | None:
    """What `spectra_means` needs, made once; None where the grid has no spectrum, `spectra_left_out` says why."""
    bands, geometry = zonal_bands(grid), spherical_geometry(grid)
    if not bands and geometry is None:
        return None
    weights = np.reshape([band_weights(grid, band) for band in bands], (len(bands), grid.shape[0]))
    largest = None if geometry is None else largest_total_wavenumber(grid, geometry)
    transform = None if geometry is None or not largest else SphericalTransform(geometry, grid.shape, largest)
    return SpectraTransforms(grid.shape, bands, weights, zonal_wavenumbers(grid), transform)


def spectra_left_out(grid: Grid) -> tuple[str, ...]:
    """Why this grid lacks some or all spectra, a sentence each; empty where it has them all."""
    if not grid.periodic:
        return (f"no spectra: rows of the limited area {grid} do not close, and waves would mostly measure its edges",)
    reasons = []
    if not zonal_bands(grid):
        reasons.append(f"no zonal spectra: the grid {grid} has no row in the tropics or midlatitudes")
    if spherical_geometry(grid) is None:
        reasons.append(
            f"no spherical spectra: the latitudes of the grid {grid} are neither in equal steps from pole to pole, nor "
            "in equal steps that start half a step off the poles, nor Gaussian"
        )
    return tuple(reasons)


def spectra_means(forecast: np.ndarray, truth: np.ndarray, transforms: SpectraTransforms) -> dict[str, np.ndarray]:
    """Spectra of every case and channel.

    Args:
        forecast: [B, C, H, W] float32 or float64, finite; a value that is not makes its whole spectrum not finite.
        truth: the same.
        transforms: of the fields' grid.

    Returns:
        `zonal_forecast`, `zonal_truth`, `zonal_error` -> [B, C, band, wavenumber] where the transforms have bands;
        `spherical_forecast`, `spherical_truth`, `spherical_error` -> [B, C, total_wavenumber] where it has them;
        float64 in units of the channel squared. `error` is of forecast minus truth.

    Raises:
        ValueError: fields of another shape than the transforms' or each other's.
    """
    if forecast.shape != truth.shape or forecast.shape[-2:] != transforms.shape:
        raise ValueError(
            f"fields of shapes {forecast.shape} and {truth.shape} do not fit transforms of {transforms.shape}"
        )
    leading, (rows, columns) = forecast.shape[:-2], transforms.shape
    pair = [field.reshape(-1, rows, columns) for field in (forecast, truth)]
    zonal = np.empty((3, len(pair[0]), len(transforms.bands), len(transforms.wavenumbers)))
    spherical = np.empty((3, len(pair[0]), len(transforms.total_wavenumbers)))
    for part in _parts(len(pair[0]), rows * columns):
        fields = np.stack([field[part] for field in pair]).astype(np.float64, copy=False)  # [2, n, H, W]
        fourier = np.fft.rfft(fields, axis=-1, norm="forward")  # [2, n, H, K]
        zonal[:, part] = _zonal_power(fourier, transforms)
        if transforms.spherical is not None:
            spherical[:, part] = transforms.spherical.pair_power(fields, fourier)
    means: dict[str, np.ndarray] = {}
    if transforms.bands:
        means |= {f"zonal_{of}": x.reshape(*leading, *x.shape[1:]) for of, x in zip(_OF, zonal, strict=True)}
    if transforms.spherical is not None:
        means |= {f"spherical_{of}": x.reshape(*leading, *x.shape[1:]) for of, x in zip(_OF, spherical, strict=True)}
    return means


def energy_ratio(spectrum: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Forecast's over truth's power at each wavenumber, of means over cases: below 1 blurred, above 1 too lively.

    Args:
        spectrum: [..., wavenumber] of a forecast.
        truth: of the truth, a shape that broadcasts to it.

    Returns:
        [..., wavenumber] float64; NaN where the truth has no power.
    """
    spectrum, truth = np.broadcast_arrays(np.asarray(spectrum, np.float64), np.asarray(truth, np.float64))
    return np.divide(spectrum, truth, out=np.full(spectrum.shape, np.nan), where=truth > 0)


def _zonal_power(fourier: np.ndarray, transforms: SpectraTransforms) -> np.ndarray:
    """[3, n, band, K] of Fourier coefficients [2, n, H, K]: only the rows of a band are squared."""
    power = np.empty((3, fourier.shape[1], len(transforms.bands), fourier.shape[-1]))
    for band, weights in enumerate(transforms.band_weights):
        rows = np.flatnonzero(weights)
        forecast, truth = fourier[:, :, rows[0] : rows[-1] + 1]
        inside = weights[rows[0] : rows[-1] + 1]
        for of, part in enumerate((forecast, truth, forecast - truth)):
            power[of, :, band] = inside @ wave_power(part, transforms.shape[1])
    return power


def _parts(n_fields: int, n_points: int) -> Iterator[slice]:
    size = max(1, _VALUES // n_points)
    for start in range(0, n_fields, size):
        yield slice(start, min(start + size, n_fields))
