"""Does a run go on where it was saved? Some steps, a checkpoint, and the last ones again in a new process group.

It is the user's run in a folder of its own beside the run's, which is gone in the end.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from weatherfm.device import choose_device
from weatherfm.training.checkpoints.export import weights_paths
from weatherfm.training.run_config import RunConfig
from weatherfm.training.trainer import train
from weatherfm.training.validating.bounds import TIMES
from weatherfm.training.validating.shortened import short, with_changes
from weatherfm.training.validating.table import Row

_SAVED, _STEPS = 2, 4
"""Steps between checkpoints, and in all."""


@contextmanager
def folder_beside(run: Path) -> Iterator[Path]:
    """A new folder beside the run's, and away again in the end; for rank 0."""
    parent = run.parent
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{run.name}-validate-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def resume_row(config: RunConfig, folder: Path, first: bool) -> Row | None:
    """Train on all ranks together, each training with a process group of its own; the row, on rank 0.

    Args:
        config: a run that is not too large to be written.
        folder: empty, for this alone.
        first: this is rank 0.

    Raises:
        KeyboardInterrupt: a signal asked to stop.
    """
    run = short(config, steps=_STEPS, checkpoint_every=_SAVED, keep_checkpoints=_STEPS, validate_every=_STEPS)
    run = with_changes(run, training={"compile": False}).model_copy(update={"run": str(folder)})
    with _quietly():
        _train(run)
        through = _take_end_away(run, first)
        saved = _train(run)
        resumed = _take_end_away(run, first)
        apart, limit = _apart(through, resumed), 0.0
        if choose_device(run.training.device).type == "cuda":  # whose kernels may not repeat themselves
            _train(run)
            limit = TIMES * _apart(resumed, _take_end_away(run, first))
    if not first:
        return None
    found = "the same weights" if apart == 0 else f"weights {apart:.1e} apart"
    told = f"{found} after {_STEPS} steps, the last {_STEPS - saved} resumed"
    bound = f"{limit:.1e} ({TIMES:g} x two resumed)" if limit else "to the bit"
    ok = 0 < saved < _STEPS and apart <= limit
    return Row("resume", "checkpoint and back", told, bound, ok, apart, limit)


def _train(run: RunConfig) -> int:
    """Train, and return the step that was gone on from."""
    summary = train(run)
    if summary.stopped_by is not None:
        raise KeyboardInterrupt(summary.stopped_by)
    return summary.resumed_from


def _take_end_away(run: RunConfig, first: bool) -> dict[str, Tensor]:
    """The weights that training ended with; they and the last checkpoint are no longer there."""
    if not first:
        return {}
    from safetensors.torch import load_file

    shutil.rmtree(run.folder / "checkpoints" / f"step-{_STEPS:08d}")
    found = {f"{path.name} {name}": tensor for path in weights_paths(run) for name, tensor in load_file(path).items()}
    for path in weights_paths(run):
        path.unlink()
    return found


def _apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Largest relative difference of a tensor; 0 where all are the same to the bit."""
    if one.keys() != other.keys():
        return float("inf")
    differ = [name for name, tensor in one.items() if not torch.equal(tensor, other[name])]
    sizes = {name: max(float(one[name].double().norm()), 1e-30) for name in differ}
    return max((float((one[n].double() - other[n].double()).norm()) / sizes[n] for n in differ), default=0.0)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what training says of itself."""
    log = logging.getLogger("weatherfm.training")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)
