"""Pictures of reconstructions: originals beside what was seen and what was made of it; errors and spectra.

Legend: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from weatherfm.evaluation.figures.pictures import GREY, style
from weatherfm.evaluation.reconstructions.scores import ReconstructionScores
from weatherfm.evaluation.reconstructions.wavelengths import (
    colour_channels,
    vegetation_channels,
    vegetation_index,
    wavelengths_of,
)

_TRUE, _MADE, _GUESS = "#1b2733", "#0072B2", "#D55E00"
_Row: TypeAlias = tuple[tuple[str, str, str], list[Any], dict[str, Any], str]
"""Titles, three images, properties of the images, label of the colour bar ('': none)."""
_SPAN, _NDVI_SPAN = 0.02, 0.1
"""Of the scale of colours at least, of reflectance and NDVI, so that noise does not fill it."""
_SPECTRA = ("#0072B2", "#D55E00", "#009E73")


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture or state, physical units."""

    title: str
    channels: tuple[str, ...]
    truth: np.ndarray
    """[C, H, W]; NaN where there is nothing."""
    made: np.ndarray
    """[C, H, W] as the model gives it, visible points included."""
    hidden: np.ndarray
    """[H, W] bool."""

    @property
    def filled(self) -> np.ndarray:
        """[C, H, W] what was seen, with what was made where nothing was; NaN where there is nothing."""
        made = np.where(np.isnan(self.truth), np.nan, self.made)
        return np.where(self.hidden, made, self.truth)


def sample_figure(sample: Sample, shown: Sequence[str] = ()) -> Figure:
    """Original, what the model saw, reconstruction; in colours where channels are at wavelengths, with the vegetation
    index below if there are channels for it; else a row for each of the channels `shown`."""
    rows = list(_rows(sample, shown))
    height, width = sample.hidden.shape
    panel = 2.3
    size = (3 * panel + 1.0, len(rows) * (panel * min(1.6, max(0.45, height / width)) + 0.4))
    with style():
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(rows), 3, squeeze=False)
        for axes_row, (titles, images, look, bar) in zip(grid, rows, strict=True):
            for axes, title, image in zip(axes_row, titles, images, strict=True):
                drawn = axes.imshow(image, interpolation="nearest", **look)
                axes.set_title(title, fontsize=9)
                axes.set(xticks=[], yticks=[])
                axes.grid(False)
                axes.set_facecolor("#d9dde1")
                for side in axes.spines.values():
                    side.set_visible(False)
            if bar:
                figure.colorbar(drawn, ax=axes_row.tolist(), label=bar, fraction=0.03, pad=0.02)
    return figure


def _rows(sample: Sample, shown: Sequence[str]) -> Iterator[_Row]:
    titles = ("original", "what the model sees", "reconstruction")
    colours = colour_channels(sample.channels)
    if colours is None:
        for name in shown:
            yield _map_row(sample, name, titles)
        return
    low, high = _stretch(sample.truth[list(colours)])
    pictures = []
    for fields in (sample.truth, np.where(sample.hidden, np.nan, sample.truth), sample.filled):
        rgb = np.moveaxis((fields[list(colours)] - low) / (high - low), 0, -1)  # [H, W, 3]
        pictures.append(np.where(np.isnan(rgb), 0.85, np.clip(rgb, 0, 1)))
    yield titles, pictures, {}, ""
    places = vegetation_channels(sample.channels)
    if places is not None:
        true, made = (vegetation_index(x[places[0]], x[places[1]]) for x in (sample.truth, sample.filled))
        seen = np.where(sample.hidden, np.nan, true)
        named = ("NDVI of the original", "where it is seen", "of the reconstruction")
        both = np.stack([true, made])
        both = both[np.isfinite(both)]
        least, most = np.percentile(both, [2, 98]).tolist() if len(both) else (0.0, 0.0)
        middle, half = (least + most) / 2, max(most - least, _NDVI_SPAN) / 2
        look = {"cmap": "RdYlGn", "vmin": middle - half, "vmax": middle + half}
        yield named, [true, seen, made], look, "NDVI"


def _map_row(sample: Sample, name: str, titles: tuple[str, str, str]) -> _Row:
    place = sample.channels.index(name)
    true, made = sample.truth[place], sample.filled[place]
    low, high = np.nanpercentile(true, [1, 99]) if np.isfinite(true).any() else (0, 1)
    look = {"cmap": "viridis", "vmin": low, "vmax": high}
    return titles, [true, np.where(sample.hidden, np.nan, true), made], look, name


def _stretch(fields: np.ndarray) -> tuple[float, float]:
    """The 2nd and 98th percentile of three channels together: dark pictures are seen, and their colours stay."""
    inside = fields[np.isfinite(fields)]
    if not len(inside):
        return 0.0, 1.0
    low, high = np.percentile(inside, [2, 98]).tolist()
    return low, max(high, low + _SPAN)


def error_figure(scores: ReconstructionScores) -> Figure:
    """RMSE by wavelength, or by channel, beside that of the two guesses."""
    nm = wavelengths_of(scores.channels)
    order = np.arange(len(scores.channels)) if nm is None else np.argsort(nm)
    lines = (
        ("reconstruction", scores.rmse, _MADE, "-"),
        ("mean of what is seen", scores.rmse_of_visible, _GUESS, "--"),
        ("mean of the training data", scores.rmse_of_mean, GREY, ":"),
    )
    with style():
        figure = Figure(figsize=(7.2, 3.1), layout="constrained")
        axes = figure.add_subplot()
        for name, values, colour, dashes in lines:
            if nm is not None:
                axes.plot(nm[order], values[order], dashes, color=colour, label=name)
            else:  # units differ from channel to channel
                share = values / scores.rmse_of_mean
                axes.plot(order, share, dashes, color=colour, label=name, marker="o", markersize=3)
        if nm is None:
            axes.set_xticks(order, scores.channels, rotation=90, fontsize=7)
            axes.set(ylabel="RMSE / that of the training mean")
        else:
            axes.set(xlabel="Wavelength [nm]", ylabel="RMSE on hidden pixels [reflectance]")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8.5)
    return figure


def spectra_figure(sample: Sample, count: int = 3) -> Figure | None:
    """True and reconstructed spectra of a few hidden pixels, dark, middling and bright; None without wavelengths, or
    where nothing is hidden."""
    nm = wavelengths_of(sample.channels)
    inside = sample.hidden & np.isfinite(sample.truth).all(0)
    if nm is None or not inside.any():
        return None
    order = np.argsort(nm)
    places = np.argwhere(inside)
    brightness = sample.truth[:, inside].mean(0)
    ranks = np.argsort(brightness)[(np.linspace(0.1, 0.9, count) * (len(brightness) - 1)).astype(int)]
    with style():
        figure = Figure(figsize=(7.2, 3.1), layout="constrained")
        axes = figure.add_subplot()
        for colour, rank in zip(_SPECTRA, ranks, strict=False):
            row, column = places[rank]
            axes.plot(nm[order], sample.truth[order, row, column], color=colour, label=f"row {row}, column {column}")
            axes.plot(nm[order], sample.made[order, row, column], "--", color=colour)
        axes.set(xlabel="Wavelength [nm]", ylabel="Reflectance")
        axes.set_title("Spectra of hidden pixels: true (line) and reconstructed (dashes)", fontsize=9.5)
        axes.legend(fontsize=8)
    return figure
