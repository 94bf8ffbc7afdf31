"""Training from Python: one model, or several that differ in their seed; in this process, or on others."""

from __future__ import annotations

from contextlib import nullcontext
from typing import overload

from weatherfm.errors import STOPPED
from weatherfm.face.ensemble_training import train_ensemble, ways_of
from weatherfm.face.launching import require_done
from weatherfm.face.runs import Override, RunLike, read_run
from weatherfm.face.seeds import seed_runs
from weatherfm.face.trained import Trained, TrainedEnsemble, of_folder, of_summary
from weatherfm.face.training_processes import train_on
from weatherfm.training import trainer
from weatherfm.training.upkeep.stop_signals import StopSignals


@overload
def train(
    config: RunLike,
    *overrides: Override,
    devices: int | None = None,
    restarts: int = 0,
    seeds: None = None,
    at_once: None = None,
    stop: StopSignals | None = None,
) -> Trained: ...


@overload
def train(
    config: RunLike,
    *overrides: Override,
    devices: int | None = None,
    restarts: int = 0,
    seeds: int,
    at_once: int | None = None,
    stop: StopSignals | None = None,
) -> TrainedEnsemble: ...


def train(
    config: RunLike,
    *overrides: Override,
    devices: int | None = None,
    restarts: int = 0,
    seeds: int | None = None,
    at_once: int | None = None,
    stop: StopSignals | None = None,
) -> Trained | TrainedEnsemble:
    """Train the model of a run on its store; go on from the newest checkpoint by itself.

        trained = weatherfm.train("my_run.yaml", "training.steps=500")
        model = weatherfm.load(trained.weights)
        models = [weatherfm.load(path) for path in weatherfm.train("my_run.yaml", seeds=4).weights]

    SIGTERM, SIGUSR1 and Ctrl-C end it soon, with a checkpoint: `stopped_by` names the signal, and the same call goes
    on.

    Args:
        config: path of the run's YAML file, a dict, or settings of `weatherfm.read_run`.
        overrides: settings to change, each as "section.key=value" or {"section.key": value}.
        devices: start so many processes on this machine, one for each GPU, or on its CPU cores; without it, this
            process trains.
        restarts: how often they are started again, from the newest checkpoint, when one of them fails (with `devices`).
        seeds: train so many models that differ in `training.seed` alone, each in a folder of its own inside the run's
            (seed0, seed1, ...); without it, one, in the run's folder.
        at_once: so many of them side by side, in processes of their own, each on devices of its own; without it, one
            after another.
        stop: entered already, of a program that listens to signals since before this could be called.

    Returns:
        Paths of weights and metrics, steps done, the best and the last validation; with `seeds`, the same of each as
        `members`.

    Raises:
        InputError: settings, store, layout or checkpoints that do not go together, a loss that is not finite, or
            another process that trains in the same folder. Processes of its own have told on stderr which it was.
        OutsideError: a process failed or is gone.
    """
    run, ways = read_run(config, *overrides), ways_of(devices, restarts, seeds, at_once)
    if seeds is not None:
        members: list[Trained] = []
        with StopSignals() if stop is None else nullcontext(stop) as heard:
            status = train_ensemble(run, seeds=seeds, ways=ways, stop=heard, ended=members.append)
        stopped_by = _stopped_by(status, heard)
        rest = [of_folder(member, stopped_by) for member in seed_runs(run, seeds=seeds)[len(members) :]]
        return TrainedEnsemble(run.folder, (*members, *rest))
    if ways.devices is None:
        return of_summary(run, trainer.train(run, stop))
    status = train_on(ways.devices, config, *overrides, restarts=restarts, stop=stop)
    return of_folder(run, _stopped_by(status, stop))


def _stopped_by(status: int, stop: StopSignals | None) -> str | None:
    """Why processes of their own ended early, if they did.

    Raises:
        InputError, OutsideError, KeyboardInterrupt: they failed.
    """
    if status != STOPPED:
        require_done(status, "training")
        return None
    return (stop and stop.received) or "a signal"
