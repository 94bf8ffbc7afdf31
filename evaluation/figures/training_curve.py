"""The course of training, read from metrics.jsonl: loss, validation loss, learning rate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from weatherfm.errors import InputError
from weatherfm.evaluation.figures.pictures import style


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
    """Read metrics.jsonl. A last line cut short by a kill is left out; of a step logged twice the later line counts.

    Raises:
        InputError: no such file, or a line that is no record of training.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no training log {path}; name the metrics.jsonl of a run, or leave it out")
    losses: dict[int, float] = {}
    rates: dict[int, float] = {}
    validation: dict[int, float] = {}
    for record in _records(path):
        step = int(record["step"])
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


def _records(path: Path) -> Iterator[dict[str, Any]]:
    lines = path.read_text().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            problem = None if isinstance(record, dict) and "step" in record else "it has no step"
        except json.JSONDecodeError as error:
            if number == len(lines) and not line.endswith("\n"):
                return  # training was killed while it wrote, or is still writing
            problem = str(error)
        if problem is not None:
            raise InputError(
                f"line {number} of {path} is no record of training ({problem}); name another metrics.jsonl"
            )
        yield record
