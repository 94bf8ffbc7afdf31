"""The course of training, read from metrics.jsonl: loss, validation loss, learning rate."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from weatherfm.errors import InputError
from weatherfm.evaluation.figures.pictures import Picture, style, svg_picture
from weatherfm.json_lines import name_lines, split_lines

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainingCurve:
    """Numbers by training step, ascending, each step once."""

    steps: np.ndarray
    """[n] int."""
    loss: np.ndarray
    """[n]."""
    learning_rate: np.ndarray
    """[n]; NaN where it was not logged."""
    validation_steps: np.ndarray
    """[m] int."""
    validation_loss: np.ndarray
    """[m]."""

    def __bool__(self) -> bool:
        return bool(len(self.steps) or len(self.validation_steps))


def read_training_curve(path: str | Path) -> TrainingCurve:
    """Read metrics.jsonl; of a step logged twice the later line counts. Lines that cannot be read are left out, with a
    warning; silently a last one that was cut short by a kill, or is being written.

    Raises:
        InputError: no such file, or one without any record of training.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no training log {path}; name the metrics.jsonl of a run, or leave it out")
    losses: dict[int, float] = {}
    rates: dict[int, float] = {}
    validation: dict[int, float] = {}
    for record in _records(path):
        step = record["step"]
        if "loss" in record:
            losses[step] = float(record["loss"])
            rates[step] = float(record.get("learning_rate", np.nan))
        if "validation" in record:
            validation[step] = float(record["validation"]["loss"])
    steps, validation_steps = sorted(losses), sorted(validation)
    return TrainingCurve(
        np.array(steps, int),
        np.array([losses[step] for step in steps]),
        np.array([rates[step] for step in steps]),
        np.array(validation_steps, int),
        np.array([validation[step] for step in validation_steps]),
    )


def training_pictures(metrics_jsonl: str | Path) -> list[Picture]:
    """Loss and learning rate; none for a log without a line."""
    curve = read_training_curve(metrics_jsonl)
    if not curve:
        return []
    pictures = [svg_picture(loss_figure(curve), "Training and validation loss by step")]
    if np.isfinite(curve.learning_rate).any():
        pictures.append(svg_picture(learning_rate_figure(curve), "Learning rate by step"))
    return pictures


def loss_figure(curve: TrainingCurve) -> Figure:
    """Training loss as logged (thin) and smoothed, and validation loss, on a logarithmic axis."""
    with style():
        figure = Figure(figsize=(4.5, 3.1), layout="constrained")
        axes = figure.add_subplot()
        if len(curve.steps):
            smooth = running_median(curve.loss)
            axes.plot(curve.steps, curve.loss, color="#0072B2", alpha=0.3, linewidth=0.8)
            axes.plot(curve.steps, smooth, color="#0072B2", label="training")
        if len(curve.validation_steps):
            axes.plot(
                curve.validation_steps, curve.validation_loss, "o-", color="#D55E00", markersize=4, label="validation"
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.set(xlabel="Step", ylabel="Loss [1]")
        axes.set_title("Loss (normalised, weighted)")
        axes.legend(fontsize=8.5)
    return figure


def learning_rate_figure(curve: TrainingCurve) -> Figure:
    """Learning rate by step."""
    with style():
        figure = Figure(figsize=(4.5, 3.1), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(curve.steps, 1e4 * curve.learning_rate, color="#4D4D4D")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.set_ylim(bottom=0)
        axes.set(xlabel="Step", ylabel="Learning rate [10⁻⁴]")
        axes.set_title("Learning rate")
    return figure


def running_median(values: np.ndarray, share: float = 0.04) -> np.ndarray:
    """Median over a window of `share` of the curve (at least 3 points), shorter at the ends; same length."""
    half = max(1, round(share * len(values) / 2))
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def _records(path: Path) -> list[dict[str, Any]]:
    lines = split_lines(path.read_bytes())
    records = [line.record for line in lines if line.record is not None and _is_of_training(line.record)]
    unreadable = [line for line in lines if line.whole and (line.record is None or not _is_of_training(line.record))]
    if unreadable and not records:
        raise InputError(f"no line of {path} is a record of training; name another metrics.jsonl")
    if unreadable:
        _log.warning("%s of %s cannot be read and are left out", name_lines(unreadable), path)
    return records


def _is_of_training(record: dict[str, Any]) -> bool:
    """Its numbers are numbers."""
    validation = record.get("validation", {"loss": 0.0})
    numbers = [record.get("loss", 0.0), record.get("learning_rate", 0.0)]
    numbers.append(validation.get("loss") if isinstance(validation, dict) else None)
    return all(isinstance(number, int | float) for number in numbers)
