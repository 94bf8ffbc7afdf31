"""How trainings ended, and where their results are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weatherfm.json_lines import split_lines
from weatherfm.training.checkpoints.export import weights_path
from weatherfm.training.checkpoints.prolong import find_checkpoint
from weatherfm.training.checkpoints.state import Progress
from weatherfm.training.run_config import RunConfig
from weatherfm.training.trainer import Summary
from weatherfm.training.upkeep.metrics_log import FILE_NAME


@dataclass(frozen=True)
class Trained:
    """How training ended, and where its results are."""

    folder: Path
    """Of the run."""
    weights: Path | None
    """The exported weights; None where training was stopped before its end."""
    metrics: Path
    """One JSON object a line: losses by step, validations."""
    steps: int
    """Optimizer steps done in all."""
    best_loss: float | None
    """Lowest validation loss, at `best_step`; None without a validation period."""
    best_step: int | None
    validation: dict[str, Any] | None
    """The last validation: `loss`, and `rmse` by channel and lead time in hours, in the channel's units."""
    stopped_by: str | None
    """Name of the signal that ended training early; the same call goes on. None: finished."""
    resumed_from: int | None
    """Step of the checkpoint that was gone on from; 0: from the beginning; None: of processes of its own."""


@dataclass(frozen=True)
class TrainedEnsemble:
    """Trainings of one run that differ in their seed alone."""

    folder: Path
    """Of the run; those of the trainings are in it."""
    members: tuple[Trained, ...]
    """One a seed, in their order; one that was not begun yet has no steps."""

    @property
    def weights(self) -> tuple[Path, ...]:
        """The exported weights of those that are finished."""
        return tuple(member.weights for member in self.members if member.weights is not None)

    @property
    def stopped_by(self) -> str | None:
        """Name of the signal that ended it early; the same call goes on. None: all are finished."""
        return next((member.stopped_by for member in self.members if member.stopped_by), None)


def of_summary(run: RunConfig, summary: Summary) -> Trained:
    """Of a training in this process."""
    metrics = run.folder / FILE_NAME
    best, ended = (summary.best_loss, summary.best_step), (summary.stopped_by, summary.resumed_from)
    return Trained(run.folder, summary.weights, metrics, summary.steps, *best, _last_validation(metrics), *ended)


def of_folder(run: RunConfig, stopped_by: str | None) -> Trained:
    """Of a training that other processes did, from what they left.

    Args:
        run: its settings.
        stopped_by: a signal, if one ended them; this training may have been finished before.
    """
    saved, metrics = find_checkpoint(run), run.folder / FILE_NAME
    progress = Progress() if saved is None else Progress(**saved.record["progress"])
    weights = weights_path(run)
    finished = stopped_by is None or (progress.is_finished(run.training) and weights.is_file())
    best, ended = (progress.best_loss, progress.best_step), (None if finished else stopped_by, None)
    found = weights if finished else None
    return Trained(run.folder, found, metrics, progress.step, *best, _last_validation(metrics), *ended)


def _last_validation(metrics: Path) -> dict[str, Any] | None:
    records = [line.record for line in split_lines(metrics.read_bytes())] if metrics.is_file() else []
    found = [record["validation"] for record in records if record and "validation" in record]
    return found[-1] if found else None
