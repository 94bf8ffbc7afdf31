"""Energy spectra of forecast, truth and error: zonal by latitude band, and spherical where the grid allows.

The mean over cases of a spectrum is the metric itself. Three of them belong together: the ratio of the forecast's to
the truth's shows what a forecast blurs, and the error's, against the truth's, at which scales it still knows anything:
an error with as much power as the truth is as bad as the mean, and twice as much is a forecast that is unrelated to it.

Legend: B case, C channel, H lat, W lon, K wavenumber.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
_Waves = tuple[list[np.ndarray], list[np.ndarray]]
"""Band -> Fourier coefficients [n, H of the band, K] complex; m -> harmonics [n, 2, l >= m], none without transform."""


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


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Fields in waves, some fields at a time: all that spectra of them and of their differences need."""

    leading: tuple[int, ...]
    """Dims of the fields before latitude and longitude."""
    pieces: list[_Waves]
    """As `_transformed` gives them."""
    spectra: tuple[np.ndarray, np.ndarray]
    """Their own power: zonal [all, band, K] and spherical [all, L + 1]."""


def coefficients_of(fields: np.ndarray, transforms: SpectraTransforms) -> Coefficients:
    """Transform fields [..., H, W], once for all that they are compared with.

    Held are some four bytes for each byte of fields in single precision: rows of bands, and harmonics.

    Raises:
        ValueError: fields of another shape than the transforms'.
    """
    if fields.shape[-2:] != transforms.shape:
        raise ValueError(f"fields of shape {fields.shape} do not fit transforms of {transforms.shape}")
    pieces = list(_transformed(fields, transforms))
    own = [_power(waves, degrees, transforms) for waves, degrees in pieces]
    zonal, spherical = (np.concatenate(power) for power in zip(*own, strict=True))
    return Coefficients(fields.shape[:-2], pieces, (zonal, spherical))


def spectra_means(
    forecast: np.ndarray, truth: np.ndarray | Coefficients, transforms: SpectraTransforms
) -> dict[str, np.ndarray]:
    """Spectra of every case and channel.

    Args:
        forecast: [B, C, H, W] float32 or float64, finite; a value that is not makes its whole spectrum not finite.
        truth: the same, or what `coefficients_of` makes of it: then it is not transformed again.
        transforms: of the fields' grid.

    Returns:
        `zonal_forecast`, `zonal_truth`, `zonal_error` -> [B, C, band, wavenumber] where the transforms have bands;
        `spherical_forecast`, `spherical_truth`, `spherical_error` -> [B, C, total_wavenumber] where it has them;
        float64 in units of the channel squared. `error` is of forecast minus truth.

    Raises:
        ValueError: fields of another shape than the transforms' or each other's.
    """
    known = truth if isinstance(truth, Coefficients) else coefficients_of(truth, transforms)
    if forecast.shape != (*known.leading, *transforms.shape):
        raise ValueError(
            f"fields of shape {forecast.shape} do not fit a truth of {known.leading} fields and transforms of "
            f"{transforms.shape}"
        )
    found = []
    for own, other in zip(_transformed(forecast, transforms), known.pieces, strict=True):
        rows, harmonics = ([x - y for x, y in zip(own[i], other[i], strict=True)] for i in (0, 1))
        found.append((*_power(*own, transforms), *_power(rows, harmonics, transforms)))
    zonal, spherical, *errors = (np.concatenate(power) for power in zip(*found, strict=True))
    means: dict[str, np.ndarray] = {}
    if transforms.bands:
        means |= dict(zip([f"zonal_{of}" for of in _OF], (zonal, known.spectra[0], errors[0]), strict=True))
    if transforms.spherical is not None:
        means |= dict(zip([f"spherical_{of}" for of in _OF], (spherical, known.spectra[1], errors[1]), strict=True))
    return {name: power.reshape(*known.leading, *power.shape[1:]) for name, power in means.items()}


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


def _bands(transforms: SpectraTransforms) -> list[tuple[slice, np.ndarray]]:
    """Rows of each band, and their weights: only these are squared."""
    found = []
    for weights in transforms.band_weights:
        inside = np.flatnonzero(weights)
        rows = slice(int(inside[0]), int(inside[-1]) + 1)
        found.append((rows, weights[rows]))
    return found


def _transformed(fields: np.ndarray, transforms: SpectraTransforms) -> Iterator[_Waves]:
    """A few of the fields [..., H, W] at a time."""
    flat = fields.reshape(-1, *transforms.shape)
    for part in _parts(len(flat), transforms.shape[0] * transforms.shape[1]):
        some = flat[part].astype(np.float64, copy=False)
        waves = np.fft.rfft(some, axis=-1, norm="forward")  # [n, H, K]
        harmonics = [] if transforms.spherical is None else transforms.spherical.harmonics(some, waves)
        yield [waves[:, rows].copy() for rows, _ in _bands(transforms)], harmonics


def _power(
    fourier: Sequence[np.ndarray], harmonics: Sequence[np.ndarray], transforms: SpectraTransforms
) -> tuple[np.ndarray, np.ndarray]:
    """Zonal [n, band, K] and spherical [n, L + 1]; empty without bands, or transform."""
    bands = zip(_bands(transforms), fourier, strict=True)
    rows = [inside @ wave_power(waves, transforms.shape[1]) for (_, inside), waves in bands]
    zonal = np.stack(rows, axis=1) if rows else np.empty((0, 0, 0))
    return zonal, np.empty((0, 0)) if transforms.spherical is None else transforms.spherical.power(harmonics)


def _parts(n_fields: int, n_points: int) -> Iterator[slice]:
    size = max(1, _VALUES // n_points)
    for start in range(0, n_fields, size):
        yield slice(start, min(start + size, n_fields))
