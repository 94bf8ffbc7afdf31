"""One self-contained HTML page about a masked autoencoder: pictures, errors by channel, training and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weatherfm import __version__
from weatherfm.atomic import write_atomically
from weatherfm.earth.variables import parse_channel
from weatherfm.evaluation.figures.pictures import Picture, png_picture, svg_picture
from weatherfm.evaluation.figures.training_curve import training_pictures
from weatherfm.evaluation.reconstructions.figures import Sample, error_figure, sample_figure, spectra_figure
from weatherfm.evaluation.reconstructions.scores import ReconstructionScores
from weatherfm.evaluation.reconstructions.wavelengths import colour_channels
from weatherfm.evaluation.report.rendering import render
from weatherfm.evaluation.results.words import fixed, percent

_TEMPLATE = Path(__file__).with_name("template")
_MOST_ROWS = 60
"""Channels that the table shows; of more, every so many."""


@dataclass(frozen=True)
class _Row:
    channel: str
    rmse: str
    visible: str
    mean: str
    skill: str
    units: str


@dataclass(frozen=True)
class _Pictures:
    title: str
    pictures: tuple[Picture, ...]


def write_page(
    out: Path,
    scores: ReconstructionScores,
    samples: Sequence[Sample],
    provenance: Mapping[str, Any],
    metrics_jsonl: Path | None = None,
    shown: Sequence[str] = (),
    title: str = "Reconstruction",
) -> Path:
    """Write the page, whole or not at all.

    Args:
        out: the HTML file.
        scores: on all samples.
        samples: those to show.
        provenance: JSON-able; `simulated` marks the page.
        metrics_jsonl: log of training; without it the page has no training curve.
        shown: channels to show, where these are not at wavelengths.
        title: heading.
    """
    every = -(-len(scores.channels) // _MOST_ROWS)
    context = {
        "title": title,
        "version": __version__,
        "simulated": bool(provenance.get("simulated")),
        "summary": _summary(scores, provenance),
        "headline": headline(scores),
        "legend": _legend(scores.channels),
        "samples": [_pictures(sample, shown) for sample in samples],
        "errors": svg_picture(error_figure(scores), "Error by channel"),
        "rows": [_row(scores, place) for place in range(0, len(scores.channels), every)],
        "thinned": f"Every {every}th of {len(scores.channels)} channels is shown." if every > 1 else "",
        "training": training_pictures(metrics_jsonl) if metrics_jsonl is not None else [],
        "record": json.dumps(provenance, indent=2, sort_keys=True, ensure_ascii=False),
    }
    write_atomically(out, render(context, "reconstruction.html.j2", _TEMPLATE).encode())
    return out


def headline(scores: ReconstructionScores) -> list[str]:
    """What is to be known first."""
    skill = scores.skill[np.isfinite(scores.skill)]
    lines = [_against_mean(skill)] if len(skill) else []
    if (index := scores.vegetation) is not None:
        mean, bias = fixed(index.mean, 3), fixed(index.bias, 3, plus=True)
        lines.append(
            f"NDVI on hidden pixels: mean {mean}, error {fixed(index.rmse, 3)} (RMSE), bias {bias}, of "
            f"{index.points:,} pixels."
        )
    return lines


def _against_mean(skill: np.ndarray) -> str:
    """Of finite skills, which are shares of a variance while they are not negative."""
    median, worst, best = float(np.median(skill)), float(skill.min()), float(skill.max())
    if median < 0:
        middle, largest, least = (f"{1 - one:.2g} times" for one in (median, worst, best))
        return (
            f"Worse than the mean of what is seen: the squared error is {middle} as large (median of {len(skill)} "
            f"channels; the worst {largest}, the best {least})."
        )
    explained, lowest, highest = (percent(100 * one) for one in (median, worst, best))
    return (
        f"Of the variance about the mean of what is seen, {explained} is reconstructed (median of {len(skill)} "
        f"channels; the worst {lowest}, the best {highest})."
    )


def _summary(scores: ReconstructionScores, provenance: Mapping[str, Any]) -> str:
    hidden = f"{100 * scores.hidden:.0f} % of the points hidden"
    told = f"{len(scores.channels)} channels, {scores.samples} samples, {hidden}"
    return f"{told}, {provenance['period']}" if provenance.get("period") else told


def _legend(channels: Sequence[str]) -> str:
    colours = colour_channels(channels)
    if colours is None:
        return "What the model sees is left as it is in the reconstruction. A row has one scale of colours."
    nm = "/".join(str(parse_channel(channels[place]).level) for place in colours)
    return (
        f"Red, green and blue are {nm} nm, stretched together, picture by picture. What the model sees is left as it "
        "is in the reconstruction; grey is hidden, or background."
    )


def _pictures(sample: Sample, shown: Sequence[str]) -> _Pictures:
    spectra = spectra_figure(sample)
    drawn = [png_picture(sample_figure(sample, shown), f"{sample.title}: original, seen and reconstructed", dpi=110)]
    drawn += [svg_picture(spectra, f"{sample.title}: spectra of hidden pixels")] if spectra else []
    return _Pictures(sample.title, tuple(drawn))


def _row(scores: ReconstructionScores, place: int) -> _Row:
    name, skill = scores.channels[place], scores.skill[place]
    numbers = (scores.rmse[place], scores.rmse_of_visible[place], scores.rmse_of_mean[place])
    own, visible, mean = (f"{value:.4g}" for value in numbers)
    return _Row(name, own, visible, mean, fixed(skill, 3), parse_channel(name).variable.units)
