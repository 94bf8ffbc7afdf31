"""Other steps for a run of `schedule: constant_cooldown`: until the cooldown begins, shorter and longer ones are one.

A checkpoint from before the cooldown belongs to all of them, and one from within it to those with that cooldown alone.
So the last one before it is kept, and a run that is to be longer goes back to it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from weatherfm.training.checkpoints.checkpoint import Saved, newest, saved_steps
from weatherfm.training.ranks.coordination import Coordination
from weatherfm.training.run_config import RunConfig, TrainingConfig

_log = logging.getLogger(__name__)

AHEAD = ("steps", "cooldown_steps", "min_learning_rate")
"""Settings of training that decide nothing before the cooldown."""


def cooldown_record(settings: TrainingConfig) -> dict[str, Any]:
    """What a checkpoint records of the cooldown: its length, also where the settings leave it open."""
    begins = settings.cooldown_begins
    return {} if begins is None else {"cooldown_steps": settings.steps - begins}


def is_before_cooldown(saved: Mapping[str, Any], training: Mapping[str, Any]) -> bool:
    """Whether all steps of a checkpoint come before the cooldown, of its own run and of another.

    Args:
        saved: record of the checkpoint.
        training: what the other run records of its training settings.
    """
    both = [one for one in (saved["settings"]["training"], training) if one.get("schedule") == "constant_cooldown"]
    return len(both) == 2 and saved["progress"]["step"] <= min(one["steps"] - one["cooldown_steps"] for one in both)


def find_checkpoint(config: RunConfig) -> Saved | None:
    """The newest whole checkpoint that a run can go on from as far as its steps are concerned; on all ranks.

    Where there is none such, the newest whole one, to be refused by what differs.

    Raises:
        InputError: there are checkpoints, but every one is damaged.
    """
    now = config.training.model_dump(mode="json") | cooldown_record(config.training)

    def suits(record: Mapping[str, Any]) -> bool:
        return is_before_cooldown(record, now) or not _differing(record, now)

    folder = config.folder / "checkpoints"
    saved = newest(folder, suits)
    if saved is not None and is_before_cooldown(saved.record, now):
        passed = Coordination().first_does(lambda: max(saved_steps(folder))) > saved.step
        if passed or _differing(saved.record, now):
            _log.info("the cooldown begins at step %d of %d", config.training.cooldown_begins, config.training.steps)
        if passed:
            _log.info("going back to the checkpoint of step %d; what came after it is dropped", saved.step)
    return saved


def _differing(saved: Mapping[str, Any], training: Mapping[str, Any]) -> list[str]:
    """Settings that are others than the checkpoint's, of those that the cooldown follows from."""
    return [key for key in AHEAD if saved["settings"]["training"].get(key) != training.get(key)]
