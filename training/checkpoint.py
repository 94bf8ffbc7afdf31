"""Checkpoints: everything training needs to go on, in a folder that is there whole or not at all.

    checkpoints/step-00000200/tensors.safetensors   weights, optimizer moments, averages, running sums
                              record.json           step, scalars, settings, SHA-256 of the tensors

A folder is written under another name, flushed to disk and renamed: a reader never sees half of one. What a
killed process leaves behind starts with a dot and is removed by the next save. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from weatherfm.errors import InputError

_FORMAT = "weatherfm checkpoint 1"
_TENSORS, _RECORD = "tensors.safetensors", "record.json"
_log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """What `save_checkpoint` was given."""

    step: int
    tensors: dict[str, Tensor]
    record: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`, and any of a later step.

    A later step than the one being saved can only be a damaged checkpoint that was passed over.

    Args:
        folder: holds all checkpoints of a run; made if need be.
        checkpoint: tensors on any device; the record must be JSON-able.
        keep: at least 1.

    Returns:
        The folder of this checkpoint. One of the same step is replaced.
    """
    from safetensors.torch import save_file  # here, so that training imports without it

    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover)
    final = folder / f"step-{checkpoint.step:08d}"
    draft = folder / f".{final.name}"
    draft.mkdir()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    save_file(tensors, draft / _TENSORS)
    record = {
        "format": _FORMAT,
        "step": checkpoint.step,
        "sha256": _sha256(draft / _TENSORS),
        "record": checkpoint.record,
    }
    (draft / _RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    for path in (draft / _TENSORS, draft / _RECORD, draft):
        _flush(path)
    if final.exists():
        _remove(final)
    os.rename(draft, final)
    _flush(folder)
    others = [path for path in _folders(folder) if _step(path) <= checkpoint.step]
    for path in set(_folders(folder)) - set(others[:keep]):
        _remove(path)
    return final


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint on the CPU, or None where there is none.

    A damaged one is passed over with a warning, in favour of the one before.

    Raises:
        InputError: there are checkpoints, but every one is damaged.
    """
    damage = []
    for path in _folders(folder):
        try:
            return _load(path)
        except InputError as error:
            _log.warning("%s", error)
            damage.append(str(error))
    if damage:
        raise InputError(
            "no checkpoint can be read:\n  " + "\n  ".join(damage) + f"\n  remove {folder} to start from the beginning"
        )
    return None


def _folders(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name)]
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _remove(path: Path) -> None:
    """Remove a folder so that a kill in the middle leaves nothing that looks like a checkpoint."""
    grave = path.with_name(f".{path.name}.old")
    os.rename(path, grave)
    shutil.rmtree(grave)


def _load(path: Path) -> Checkpoint:
    from safetensors.torch import load_file

    try:
        record = json.loads((path / _RECORD).read_text())
        digest = _sha256(path / _TENSORS)
    except (OSError, ValueError) as error:
        raise InputError(f"checkpoint {path} is damaged ({error})") from None
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise InputError(f"checkpoint {path} is not of this version: its {_RECORD} does not say {_FORMAT!r}")
    if record["sha256"] != digest:
        raise InputError(f"checkpoint {path} is damaged (the checksum of {_TENSORS} differs)")
    return Checkpoint(record["step"], load_file(path / _TENSORS), record["record"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Make a file's or folder's content survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
