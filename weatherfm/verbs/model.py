"""Verbs that make a model: plan, check, validate, train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from weatherfm.errors import STOPPED
from weatherfm.training.plan.machine import Machine, Training
from weatherfm.training.upkeep.stop_signals import StopSignals
from weatherfm.verbs.run import WHOLE, Overrides, Whole, as_json, importing, load, say

if TYPE_CHECKING:
    from weatherfm.face.trained import Trained
    from weatherfm.training.run_config import RunConfig


def train(
    config: Path,
    *overrides: Overrides,
    devices: Whole = None,
    restarts: Annotated[int, WHOLE] = 0,
    seeds: Whole = None,
    at_once: Whole = None,
) -> int:
    """Train the model of a run on its store; goes on from the newest checkpoint by itself. Also under torchrun.

    SIGTERM, SIGUSR1 and Ctrl-C end it soon, with a checkpoint and exit status 75: not done, start it again.

    With --seeds it trains several models that differ in training.seed alone (a deep ensemble), each in a folder of its
    own inside the run's: seed0, seed1, ... The same command goes on with those that are not finished.

    Parameters
    ----------
    config
        The run's YAML file.
    devices
        Start so many processes on this machine, one for each GPU, or on its CPU cores; without it, this one trains.
    restarts
        How often they are started again, from the newest checkpoint, when one of them fails (with --devices).
    seeds
        Train so many models, with the seeds from training.seed on; without it, one, in the run's folder.
    at_once
        So many of these side by side, each on --devices of its own; without it, one after another.
    """
    with StopSignals() as stop:  # from here on: to import PyTorch alone takes seconds
        run = load(config, overrides)
        with importing():
            from weatherfm.face.ensemble_training import train_ensemble, ways_of
            from weatherfm.face.training_processes import train_on

        ways = ways_of(devices, restarts, seeds, at_once)
        if seeds is not None:
            return train_ensemble(run, seeds=seeds, ways=ways, stop=stop, ended=_say_end)
        if devices is None:
            return 0 if train_run(run, stop) else STOPPED
        return train_on(devices, config, *overrides, restarts=restarts, stop=stop)


def plan(
    config: Path,
    *overrides: Overrides,
    machine: Annotated[Machine, Parameter(name="*")],
    training: Annotated[Training | None, Parameter(name="*")] = None,
    grid: str | None = None,
    jobs: Whole = None,
    json: bool = False,
) -> None:
    """Say what every layout of some devices holds, sends and computes, before anything is queued.

    One rank of each is simulated on this machine, whatever their number. training.batch_size stays the batch over all
    devices: layouts whose data-parallel groups do not divide it are left out. Of the section `parallel` nothing is
    asked. Times compare layouts, at rates of nodes of eight H100 if not told others; they promise nothing.

    Parameters
    ----------
    config
        The run's YAML file.
    grid
        Latitudes x longitudes, as 128x256, where the store is not prepared yet.
    jobs
        Processes that simulate; by default one a core.
    json
        Print everything as JSON.
    """
    run = load(config, overrides)
    with importing():
        from weatherfm.face.planning import plan as plan_training
        from weatherfm.training.plan.plan_as_text import to_dict, to_text

    made = plan_training(run, **vars(machine), **vars(training or Training()), grid=grid, jobs=jobs)
    say(as_json(to_dict(made)) if json else to_text(made))


def check(config: Path, *overrides: Overrides, devices: Whole = None) -> int:
    """Check that store, model, layout, training, forecast and baselines of a run fit together, computing nothing.

    Parameters
    ----------
    config
        The run's YAML file.
    devices
        How many it is to be trained on; without it, as many as its section `parallel` asks for.
    """
    run = load(config, overrides)
    with importing():
        from weatherfm.face.planning import check as check_run

    findings = check_run(run, devices=devices)
    say("\n".join(str(finding) for finding in findings))
    return 0 if all(finding.ok for finding in findings) else 2


def validate(
    config: Path,
    *overrides: Overrides,
    devices: Whole = None,
    output: Path | None = None,
    json: bool = False,
    quiet: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Show that devices compute one rank's function here, in the memory planned, how fast, and that runs go on.

    A few optimizer steps on the run's own store, with its own settings, in minutes: outputs, losses, gradients and
    weights against one rank, in float64 and in the run's precision; memory against `plan`; step time, traffic, share
    of the peak, waiting for data; a checkpoint and back. The run's folder is not touched. Also under torchrun.

    Exit status 0 where every check holds, 1 where one does not.

    Parameters
    ----------
    config
        The run's YAML file.
    devices
        Start so many processes on this machine, one for each GPU, or on its CPU cores; without it, this one alone.
    output
        Write the findings as JSON into this file too.
    json
        Print them as JSON.
    quiet
        Print nothing: the exit status alone, or with --output the file.
    """
    load(config, overrides)
    with importing():
        from weatherfm.face.validation import carry_out
        from weatherfm.training.validating.table import to_dict, to_text

    status, found = carry_out(config, *overrides, devices=devices, output=output)
    if found is None:  # another rank tells, or has told
        return status
    if not quiet:
        say(as_json(to_dict(found)) if json else to_text(found))
    return 0 if found.ok else 1


def train_run(run: RunConfig, stop: StopSignals | None = None) -> bool:
    """Train the model of a run and say where its weights are; True when training is finished.

    Args:
        run: its settings.
        stop: who listens for signals already, if anybody does.
    """
    with importing():
        from weatherfm.face.training import train as train_model

    return _say_end(train_model(run, stop=stop))


def _say_end(trained: Trained) -> bool:
    """Where the weights are, or why there are none; True when training is finished."""
    if trained.stopped_by and trained.steps == trained.resumed_from:
        say(f"stopped by {trained.stopped_by} before step {trained.steps + 1}; the same command goes on from there")
        return False
    if trained.stopped_by:
        say(f"stopped by {trained.stopped_by} at step {trained.steps}; the same command goes on from there")
        return False
    say(f"weights   {trained.weights}")
    return True
