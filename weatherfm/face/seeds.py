"""The trainings of one run that differ in their seed alone: their settings, folders and weights."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weatherfm.errors import InputError
from weatherfm.face.runs import Override, RunLike, read_run

if TYPE_CHECKING:
    from weatherfm.training.run_config import RunConfig


_MOST = 1000
"""Trainings of one ensemble."""


def seed_runs(config: RunLike, *overrides: Override, seeds: int) -> list[RunConfig]:
    """The run of each seed, from `training.seed` on: an ordinary one, in a folder of its own inside the run's.

        weatherfm.face.seeds.seed_runs("my_run.yaml", seeds=4)[2].folder  # runs/my_run/seed2

    All else is the same, data, statistics and store among it. In Weights & Biases they are a group.

    Args:
        config: the run.
        overrides: settings to change.
        seeds: how many.

    Raises:
        InputError: wrong settings, or fewer than two seeds.
    """
    count, run = seed_count(seeds), read_run(config, *overrides)
    first, shown = run.training.seed, run.training.wandb
    called = run.folder.resolve().name
    return [
        read_run(
            run,
            {
                "run": os.path.join(run.run, f"seed{seed}"),
                "training.seed": seed,
                "training.wandb.group": shown.group or called,
                "training.wandb.name": f"{shown.name or called}-seed{seed}",
            },
        )
        for seed in range(first, first + count)
    ]


def seed_weights(config: RunLike, *overrides: Override, seeds: int) -> list[Path]:
    """The weights of each seed's training, in the order of `seed_runs`, whose arguments these are.

    Raises:
        InputError: as `seed_runs`, or weights that are not there.
    """
    from weatherfm.training.checkpoints.export import weights_path

    paths = [weights_path(run) for run in seed_runs(config, *overrides, seeds=seeds)]
    if missing := [path for path in paths if not path.is_file()]:
        there = len(paths) - len(missing)
        raise InputError(
            f"{there} of {seeds} seeds are trained: no {', no '.join(map(str, missing))}; weatherfm train with --seeds "
            f"{seeds} makes them and leaves the others as they are"
        )
    return paths


def seed_count(given: Any) -> int:
    """How many trainings an ensemble has.

    Raises:
        InputError: no whole number, or fewer than two.
    """
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise InputError(f"--seeds must be a whole number, got {type(given).__name__} {given!r}")
    if given < 2:
        raise InputError(f"--seeds {given}: an ensemble has two trainings or more; leave --seeds out to train one")
    if int(given) > _MOST:
        raise InputError(f"--seeds {given}: that many trainings would not end; give {_MOST} at most")
    return int(given)
