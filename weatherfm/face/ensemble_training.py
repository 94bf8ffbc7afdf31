"""Trainings of one run that differ in their seed alone: one after another, or side by side."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from weatherfm.errors import STOPPED, InputError
from weatherfm.face.arguments import count
from weatherfm.face.runs import Override, RunLike, on_command_line
from weatherfm.face.seeds import seed_runs
from weatherfm.face.trained import Trained, of_summary
from weatherfm.face.training_processes import require_devices_to_restart, train_command, train_on
from weatherfm.training import trainer
from weatherfm.training.checkpoints.export import weights_path
from weatherfm.training.run_config import RunConfig
from weatherfm.training.upkeep.stop_signals import StopSignals

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ways:
    """How the trainings are to be done."""

    devices: int | None = None
    """Processes of each; None: one, and in turn it is this one."""
    restarts: int = 0
    at_once: int = 1
    """Trainings side by side."""

    def options(self) -> list[str]:
        """On the command line of each."""
        return [] if self.devices is None else [f"--devices={self.devices}", f"--restarts={self.restarts}"]


def ways_of(devices: int | None, restarts: int, seeds: int | None, at_once: int | None) -> Ways:
    """Options, looked at before any work.

    Raises:
        InputError: restarts without devices, or trainings at once that are none.
    """
    devices, together = count(devices, "--devices"), count(at_once, "--at-once") or 1
    if restarts:
        require_devices_to_restart(devices, restarts)
    if at_once is not None and seeds is None:
        raise InputError(f"--at-once {at_once} is for several trainings; say how many with --seeds, or leave it out")
    if isinstance(seeds, int) and together > max(seeds, 1):
        raise InputError(f"--at-once {at_once} is more than the {seeds} trainings of --seeds; give {seeds} at most")
    if together > 1 and "RANK" in os.environ:
        raise InputError(
            f"--at-once {together} under torchrun: its {os.environ.get('WORLD_SIZE')} processes train one model after "
            "another; leave --at-once out"
        )
    return Ways(devices, restarts, together)


def train_ensemble(
    config: RunLike,
    *overrides: Override,
    seeds: int,
    ways: Ways,
    stop: StopSignals,
    ended: Callable[[Trained], object] = lambda trained: None,
) -> int:
    """Train each seed's run (`seed_runs`), going on where each is; returns the exit status of `weatherfm train`.

    Args:
        config: the run.
        overrides: settings to change.
        seeds: how many.
        ways: how.
        stop: entered.
        ended: told of each training that this process has done itself.

    Raises:
        InputError: wrong settings, what cannot be started here, or what a training refuses, with its seed.
        OutsideError: of the ranks of a training in this process, with its seed.
    """
    runs = seed_runs(config, *overrides, seeds=seeds)
    if ways.at_once > 1:
        return _side_by_side(runs, ways, stop)
    for place, run in enumerate(runs, 1):
        _log.info("%s, training %d of %d, in %s", run.folder.name, place, len(runs), run.folder)
        try:
            status = _train_one(run, ways, stop, ended)
        except Exception as error:
            error.add_note(_failure(run, runs))
            raise
        if status not in (0, STOPPED):
            _log.error("%s", _failure(run, runs))
        if status:
            return status
    return 0


def _train_one(run: RunConfig, ways: Ways, stop: StopSignals, ended: Callable[[Trained], object]) -> int:
    if ways.devices is not None:
        if stop.received:  # too late for the one before, which says nothing of it
            return _stopped_before(run, stop)
        return train_on(ways.devices, run, restarts=ways.restarts, stop=stop)
    trained = of_summary(run, trainer.train(run, stop))
    gc.collect()  # the model is in circles, and the next needs its memory
    ended(trained)
    return STOPPED if trained.stopped_by else 0


def _side_by_side(runs: Sequence[RunConfig], ways: Ways, stop: StopSignals) -> int:
    from weatherfm.training.ranks.launch import require_devices
    from weatherfm.training.ranks.machine_parts import machine_parts
    from weatherfm.training.ranks.side_by_side import run_side_by_side

    devices, device, together = ways.devices or 1, runs[0].training.device, min(ways.at_once, len(runs))
    require_devices(devices, ways.restarts, device, at_once=together)
    with ExitStack() as files:
        commands = {}
        for run in runs:
            arguments = files.enter_context(on_command_line(run, ()))
            commands[run.folder.name] = train_command([*arguments, *ways.options()])
        statuses = run_side_by_side(commands, machine_parts(together, devices, device), stop)
    for run in runs:
        if statuses.get(run.folder.name, 0) not in (0, STOPPED):
            _log.error("%s", _failure(run, runs))
    if failed := [status for status in statuses.values() if status not in (0, STOPPED)]:
        return failed[0]  # of those that failed, the first
    for run in runs:
        if run.folder.name not in statuses:
            return _stopped_before(run, stop)
    return max(statuses.values())


def _stopped_before(run: RunConfig, stop: StopSignals) -> int:
    _log.info("stopped by %s before %s began; the same command goes on from there", stop.received, run.folder.name)
    return STOPPED


def _failure(run: RunConfig, runs: Sequence[RunConfig]) -> str:
    there = [other.folder.name for other in runs if other is not run and weights_path(other).is_file()]
    stay = f"; {', '.join(there)} stay{'s' * (len(there) == 1)}" if there else ""
    return f"(training {run.folder.name}, in {run.folder}{stay})"
