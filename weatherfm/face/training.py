"""Training from Python: in this process, or on processes of its own."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weatherfm.errors import STOPPED, InputError
from weatherfm.face.arguments import count
from weatherfm.face.launching import require_done
from weatherfm.face.runs import Override, RunLike, on_command_line, read_run
from weatherfm.json_lines import split_lines
from weatherfm.training import trainer
from weatherfm.training.checkpoints.export import weights_path
from weatherfm.training.checkpoints.prolong import find_checkpoint
from weatherfm.training.run_config import RunConfig
from weatherfm.training.upkeep.metrics_log import FILE_NAME
from weatherfm.training.upkeep.stop_signals import StopSignals


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


def train(
    config: RunLike,
    *overrides: Override,
    devices: int | None = None,
    restarts: int = 0,
    stop: StopSignals | None = None,
) -> Trained:
    """Train the model of a run on its store; go on from the newest checkpoint by itself.

        trained = weatherfm.train("my_run.yaml", "training.steps=500")
        model = weatherfm.load(trained.weights)

    SIGTERM, SIGUSR1 and Ctrl-C end it soon, with a checkpoint: `stopped_by` names the signal, and the same call goes
    on.

    Args:
        config: path of the run's YAML file, a dict, or settings of `weatherfm.read_run`.
        overrides: settings to change, each as "section.key=value" or {"section.key": value}.
        devices: start so many processes on this machine, one for each GPU, or on its CPU cores; without it, this
            process trains.
        restarts: how often they are started again, from the newest checkpoint, when one of them fails (with `devices`).
        stop: entered already, of a program that listens to signals since before this could be called.

    Returns:
        Paths of weights and metrics, steps done, the best and the last validation.

    Raises:
        InputError: settings, store, layout or checkpoints that do not go together, a loss that is not finite, or
            another process that trains in the same folder. Processes of its own have told on stderr which it was.
        OutsideError: a process failed or is gone.
    """
    run, devices = read_run(config, *overrides), count(devices, "--devices")
    if devices is None and not restarts:
        summary = trainer.train(run, stop)
        ended, best = (summary.stopped_by, summary.resumed_from), (summary.best_loss, summary.best_step)
        return _trained(run, summary.weights, summary.steps, best, ended)
    status = train_on(require_devices_to_restart(devices, restarts), config, *overrides, restarts=restarts, stop=stop)
    if status != STOPPED:
        require_done(status, "training")
    saved = find_checkpoint(run)
    progress: dict[str, Any] = saved.record["progress"] if saved else {}
    best = progress.get("best_loss"), progress.get("best_step")
    stopped_by = (stop and stop.received) or "a signal" if status == STOPPED else None
    return _trained(run, None if stopped_by else weights_path(run), progress.get("step", 0), best, (stopped_by, None))


def require_devices_to_restart(devices: int | None, restarts: int) -> int:
    """Refuse restarts of processes that nothing starts; the number of these.

    Raises:
        InputError: with what to add.
    """
    if devices is None:
        raise InputError(
            f"restarts={restarts} is for processes that are started on this machine; say how many with devices (1 for "
            "one), or leave restarts out"
        )
    return devices


def train_on(
    devices: int, config: RunLike, *overrides: Override, restarts: int = 0, stop: StopSignals | None = None
) -> int:
    """Train on processes of its own, which speak for themselves; returns the exit status of `weatherfm train`.

    Raises:
        InputError: they cannot be started here.
    """
    from weatherfm.training.ranks.launch import launch, require_devices

    require_devices(devices, restarts, read_run(config, *overrides).training.device)
    debug = ["--debug"] if logging.getLogger().isEnabledFor(logging.DEBUG) else []
    with on_command_line(config, overrides) as arguments:
        command = [sys.executable, "-P", "-m", "weatherfm.cli", "train", *arguments, *debug]
        return launch(command, devices, restarts, stop)


def _trained(
    run: RunConfig,
    weights: Path | None,
    steps: int,
    best: tuple[float | None, int | None],
    ended: tuple[str | None, int | None],
) -> Trained:
    metrics = run.folder / FILE_NAME
    return Trained(run.folder, weights, metrics, steps, *best, _last_validation(metrics), *ended)


def _last_validation(metrics: Path) -> dict[str, Any] | None:
    records = [line.record for line in split_lines(metrics.read_bytes())] if metrics.is_file() else []
    found = [record["validation"] for record in records if record and "validation" in record]
    return found[-1] if found else None
