"""Errors of reconstructed fields where they were hidden, beside two guesses that need no model.

Legend: N samples, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.errors import InputError
from weatherfm.evaluation.reconstructions.wavelengths import index_of_guess, vegetation_channels, vegetation_index


@dataclass(frozen=True, eq=False)
class VegetationScores:
    """Errors of the vegetation index NDVI on hidden points."""

    rmse: float
    bias: float
    """Mean of reconstructed less true."""
    mean: float
    """Of the truth."""
    points: int


@dataclass(frozen=True, eq=False)
class ReconstructionScores:
    """Root mean square errors on hidden points, [C] in the channels' units."""

    channels: tuple[str, ...]
    rmse: np.ndarray
    rmse_of_mean: np.ndarray
    """Of the channel's mean over the training data as a guess."""
    rmse_of_visible: np.ndarray
    """Of the mean of what is seen of the channel in the same sample as a guess."""
    samples: int
    hidden: float
    """Share of all points that were hidden and scored."""
    vegetation: VegetationScores | None
    """None without channels for it."""

    @property
    def skill(self) -> np.ndarray:
        """[C] 1 - (rmse / rmse_of_visible)^2; NaN where the guess has no error."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.rmse_of_visible > 0, 1 - (self.rmse / self.rmse_of_visible) ** 2, np.nan)


class ReconstructionSums:
    """Sums over samples, batch by batch.

    Args:
        channels: short names.
        mean: [C] of the training data.
        weights: [H, W] of the grid's cells.
    """

    def __init__(self, channels: Sequence[str], mean: np.ndarray, weights: np.ndarray) -> None:
        self._channels, self._mean, self._weights = tuple(channels), np.asarray(mean, float), np.asarray(weights, float)
        self._squares, self._weight = np.zeros((3, len(channels))), np.zeros(len(channels))
        self._samples = self._hidden = self._points = 0
        self._places = vegetation_channels(channels)
        self._vegetation = np.zeros(4)  # squares, differences, truth, points

    def add(self, truth: np.ndarray, made: np.ndarray, hidden: np.ndarray, there: np.ndarray) -> None:
        """Count a batch.

        Args:
            truth: [N, C, H, W] physical units; NaN, or anything, where it is not there.
            made: [N, C, H, W] reconstructed.
            hidden: [N, H, W] bool, what the model did not see.
            there: [N, C, H, W] bool, False at background and at points without values.

        Raises:
            InputError: a reconstruction that is not finite.
        """
        counted = hidden[:, None] & there
        if not np.isfinite(np.where(counted, made, 0)).all():
            raise InputError("the reconstruction is not finite; lower training.learning_rate and train again")
        weights = np.broadcast_to(self._weights, truth.shape)
        guesses = (made, np.broadcast_to(self._mean[:, None, None], truth.shape), self._seen_mean(truth, hidden, there))
        for total, guess in zip(self._squares, guesses, strict=True):
            error = np.where(counted, guess.astype(float) - truth, 0)
            total += (error**2 * weights).sum((0, 2, 3))
        self._weight += np.where(counted, weights, 0).sum((0, 2, 3))
        self._samples += len(truth)
        self._hidden += int(counted.any(1).sum())
        self._points += int(there.any(1).sum())
        if self._places is not None:
            self._add_vegetation(truth, made, counted.any(1))

    def _seen_mean(self, truth: np.ndarray, hidden: np.ndarray, there: np.ndarray) -> np.ndarray:
        """[N, C, 1, 1] mean of the visible points; of the training data where a sample shows none."""
        seen = np.where(there & ~hidden[:, None], np.broadcast_to(self._weights, truth.shape), 0)
        total = seen.sum((-2, -1), keepdims=True)
        mean = np.where(seen > 0, truth * seen, 0).sum((-2, -1), keepdims=True) / np.where(total > 0, total, 1)
        return np.where(total > 0, mean, self._mean[:, None, None])

    def _add_vegetation(self, truth: np.ndarray, made: np.ndarray, counted: np.ndarray) -> None:
        assert self._places is not None
        infrared, red = self._places
        true = vegetation_index(truth[:, infrared], truth[:, red])
        guessed = index_of_guess(made[:, infrared], made[:, red])
        counted = counted & np.isfinite(true)
        difference = np.where(counted, guessed - true, 0)
        self._vegetation += [
            (difference**2).sum(),
            difference.sum(),
            np.where(counted, true, 0).sum(),
            counted.sum(),
        ]

    def scores(self) -> ReconstructionScores:
        """Of all that was counted.

        Raises:
            InputError: nothing was hidden where there is something.
        """
        if not self._weight.all():
            lacking = [name for name, weight in zip(self._channels, self._weight, strict=True) if not weight]
            raise InputError(f"no point of {lacking[0]} was hidden and has a value: nothing can be scored")
        own, of_mean, of_visible = np.sqrt(self._squares / self._weight)
        squares, differences, truth, points = self._vegetation
        vegetation = None
        if points:
            bias = differences / points
            vegetation = VegetationScores(float(np.sqrt(squares / points)), bias, truth / points, int(points))
        share = self._hidden / self._points
        return ReconstructionScores(self._channels, own, of_mean, of_visible, self._samples, share, vegetation)
