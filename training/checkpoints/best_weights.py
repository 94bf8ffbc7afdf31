"""`export: best` where a run is given other steps: weights files must be of the best validation before the cooldown.

Gone on from a checkpoint with the steps it had, a run comes by every later validation again, the same. With other steps
it does not: what a former cooldown has exported would stay.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weatherfm.model.weights import copy_weights, read_header
from weatherfm.training.checkpoints.export import weights_paths
from weatherfm.training.checkpoints.prolong import AHEAD
from weatherfm.training.checkpoints.state import Progress
from weatherfm.training.ranks.coordination import Coordination
from weatherfm.training.run_config import RunConfig


def set_best_aside(config: RunConfig) -> None:
    """Copy the best weights so far, where `export: best` has written any, for a run that goes back to this step.

    For the first rank, when the cooldown begins, before the checkpoint of that step.
    """
    for path in weights_paths(config) if config.training.export == "best" else ():
        _set_aside(path)


def _set_aside(path: Path) -> None:
    aside = _aside(path)
    if path.is_file():
        draft = aside.with_name(f".{aside.name}.{os.getpid()}")
        try:
            shutil.copyfile(path, draft)
            os.replace(draft, aside)
        finally:
            draft.unlink(missing_ok=True)


def bring_back_best(config: RunConfig, progress: Progress) -> str | None:
    """Make the weights files those of the best validation so far, as a run with these steps has it; on all ranks.

    Where those weights are gone, the best is forgotten; returns what to say of it. Nothing is done without
    `schedule: constant_cooldown` and `export: best`.

    Args:
        config: of the run.
        progress: as restored.
    """
    settings = config.training
    if settings.cooldown_begins is None or settings.export != "best" or progress.best_step is None:
        return None
    paths = weights_paths(config)
    found = Coordination().first_does(lambda: all(_bring_back(path, config, progress) for path in paths))
    if found:
        return None
    text = (
        f"the weights of the best validation so far, {progress.best_loss:.4g} at step {progress.best_step}, are not in "
        f"{config.folder}: it is forgotten, and the next validation is the best"
    )
    progress.best_loss = progress.best_step = None
    progress.validations_since_best = 0
    return text


def _bring_back(path: Path, config: RunConfig, progress: Progress) -> bool:
    """False where the best weights are not there and this run will not come by them again."""
    aside = _aside(path)
    told = {one: read_header(one)[2] for one in (path, aside) if one.is_file()}
    source = next((one for one, record in told.items() if record["step"] == progress.best_step), None)
    begins = config.training.cooldown_begins
    if source is None:  # those of a later step before the cooldown, or of this cooldown, are come by again
        last = told.get(aside, told.get(path))
        return last is not None and (begins is None or last["step"] <= begins or not _differs(last, config))
    if source is aside or _differs(told[source], config):
        copy_weights(source, path, _with_steps(told[source], config))
    if progress.step == begins:  # the run may have come here with other steps
        _set_aside(path)
    return True


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.before_cooldown{path.suffix}")


def _ahead(config: RunConfig) -> dict[str, Any]:
    return config.training.model_dump(mode="json", include=set(AHEAD))


def _differs(record: Mapping[str, Any], config: RunConfig) -> bool:
    known = record["settings"]["training"]
    return {key: known[key] for key in AHEAD if key in known} != _ahead(config)


def _with_steps(record: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """The record of weights as a run with this one's steps has it from the beginning."""
    training = {key: value for key, value in record["settings"]["training"].items() if key not in AHEAD}
    return {**record, "settings": {**record["settings"], "training": training | _ahead(config)}}
