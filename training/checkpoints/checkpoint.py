"""Checkpoints: everything training needs to go on, in a folder that is there whole or not at all.

    checkpoints/step-00000200/.metadata      which part of which tensor is where
                              __0_0.distcp   rank 0's part of weights, optimizer moments, averages, running sums
                              __1_0.distcp   rank 1's
                              record.json    step, scalars, settings, SHA-256 of the other files

All ranks write into a folder of another name, to disk; when all have done so, rank 0 renames it: a reader never sees
half of one. What a killed job leaves behind starts with a dot and is removed by the next save. Names of tensors say
nothing of the layout, so any other layout can go on from here.
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist
from torch import Tensor

from weatherfm.errors import InputError
from weatherfm.file_errors import naming
from weatherfm.training.checkpoints.tensor_files import StagedTensors, read_tensors, sha256, tensor_names, write_tensors
from weatherfm.training.ranks.coordination import Coordination

_FORMAT = "weatherfm checkpoint 2"
_RECORD = "record.json"
_log = logging.getLogger(__name__)


class CheckpointFolder:
    """All checkpoints of a run. They are written by a thread, beside training.

    Leaving it as a context waits for the one being written. Every rank must have one and call it at the same steps.

    Args:
        path: made if need be; all ranks must see the same.
        keep: so many of the newest are kept, at least 1.
        apart: the checkpoint of this step is kept beside them.
        start: step that training goes on from; None: that of whatever is newest.
    """

    def __init__(self, path: Path, keep: int, apart: int | None = None, start: int | None = None) -> None:
        self.path, self.keep, self.apart = path, keep, apart
        self._passed = {folder for folder in _finished(path) if start is not None and _step(folder) > start}
        # a group of its own: the thread's messages must not mix with training's, and NCCL carries none of the CPU
        self._ranks = Coordination(dist.new_group(backend="gloo") if dist.is_initialized() else None)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> CheckpointFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            _log.warning("the checkpoint that was being written is lost (%s)", failure)

    def save(self, step: int, tensors: Mapping[str, Tensor], record: dict[str, Any]) -> None:
        """Copy everything, then write it in the background, once the save before is done.

        When it is written, all but the newest `keep` and that of step `apart` are removed, and what was passed over,
        damaged or of a former cooldown: any of a later step, and any that lay behind `start`. One of the same step is
        replaced.

        Args:
            step: of training.
            tensors: on any device. Ranks may have different ones; the same name on several of them means parts of
                one DTensor, or copies.
            record: JSON-able; rank 0's is kept.

        Raises:
            Exception: what went wrong in the save before.
        """
        self.wait()
        text = json.dumps({"format": _FORMAT, "step": step, "record": record}, allow_nan=False)
        self._saving = self._thread.submit(self._write, step, StagedTensors(tensors), text)

    def wait(self) -> None:
        """Return when what was saved is on disk.

        Raises:
            Exception: what went wrong on this rank.
            OutsideError: what went wrong on another.
        """
        if self._saving is not None:
            concurrent.futures.wait([self._saving])
            saving, self._saving = self._saving, None
            saving.result()

    def _write(self, step: int, staged: StagedTensors, text: str) -> None:
        final = self.path / f"step-{step:08d}"
        draft = self.path / f".{final.name}"
        self._ranks.first_does(lambda: self._make_draft(draft))
        digests = write_tensors(draft, staged, self._ranks)
        self._ranks.first_does(lambda: self._commit(draft, final, json.loads(text) | {"sha256": digests}))

    def _make_draft(self, draft: Path) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob(".step-*"):
            shutil.rmtree(leftover)
        draft.mkdir()

    def _commit(self, draft: Path, final: Path, record: dict[str, Any]) -> None:
        absent = [name for name in record["sha256"] if not (draft / name).is_file()]
        if absent:
            raise InputError(
                f"{draft} is not one folder for all ranks (no {absent[0]} in it); put runs on a shared disk"
            )
        with naming(draft / _RECORD):
            (draft / _RECORD).write_text(json.dumps(record, indent=1) + "\n")
        for path in (draft / _RECORD, draft):
            _flush(path)
        if final.exists():
            _remove(final)
        os.rename(draft, final)
        _flush(self.path)
        self._passed.discard(final)
        others = [path for path in _finished(self.path) if _step(path) <= _step(final) and path not in self._passed]
        kept = {*others[: self.keep], *(path for path in others if _step(path) == self.apart)}
        for path in set(_finished(self.path)) - kept:
            _remove(path)


@dataclass(frozen=True)
class Saved:
    """A whole checkpoint on disk."""

    step: int
    record: dict[str, Any]
    path: Path

    def names(self) -> set[str]:
        """Of all its tensors."""
        return tensor_names(self.path)

    def read_into(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill tensors in place, saved on this layout or another; all ranks must call it, each with its own.

        Raises:
            InputError: on all ranks, when one has a tensor that the checkpoint has not, or in another shape.
        """
        read_tensors(self.path, tensors, Coordination())


def newest(path: Path, suits: Callable[[dict[str, Any]], bool] = lambda record: True) -> Saved | None:
    """The newest whole checkpoint in a folder, or None where there is none; the same on all ranks, which must call it.

    A damaged one is passed over with a warning, in favour of the one before.

    Args:
        path: the folder.
        suits: says of a record whether its checkpoint is wanted; the others come after those that are.

    Raises:
        InputError: there are checkpoints, but every one is damaged.
    """
    ranks, damage = Coordination(), []
    for folder in ranks.first_does(lambda: sorted(_finished(path), key=lambda one: not _suits(one, suits))):
        try:
            return _verified(folder, ranks)
        except InputError as error:
            if ranks.rank == 0:
                _log.warning("%s", error)
            damage.append(str(error))
    if damage:
        raise InputError(
            "no checkpoint can be read:\n  " + "\n  ".join(damage) + f"\n  remove {path} to start from the beginning"
        )
    return None


def saved_steps(path: Path) -> list[int]:
    """Steps of the checkpoints in a folder, whole or damaged, newest first."""
    return [_step(folder) for folder in _finished(path)]


def _suits(folder: Path, suits: Callable[[dict[str, Any]], bool]) -> bool:
    try:
        record = _read_record(folder)
    except InputError:
        return True  # told of when its turn comes
    return suits(record["record"])


def _verified(folder: Path, ranks: Coordination) -> Saved:
    """A checkpoint with a good record and files of the right content, each rank having looked at some of them."""
    record = ranks.first_does(lambda: _read_record(folder))
    digests = sorted(record["sha256"].items())
    ranks.all_do(lambda: _require_digests(folder, dict(digests[ranks.rank :: ranks.world])))
    return Saved(record["step"], record["record"], folder)


def _read_record(folder: Path) -> dict[str, Any]:
    if (folder / _RECORD).exists() and not (folder / _RECORD).is_file():
        raise InputError(f"checkpoint {folder} is damaged ({_RECORD} is no file)")
    try:
        record = json.loads((folder / _RECORD).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"checkpoint {folder} is damaged ({error})") from None
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise InputError(f"checkpoint {folder} is not of this version: its {_RECORD} does not say {_FORMAT!r}")
    return record


def _require_digests(folder: Path, digests: dict[str, str]) -> None:
    for name, expected in digests.items():
        try:
            found = sha256(folder / name)
        except OSError as error:
            raise InputError(f"checkpoint {folder} is damaged ({error})") from None
        if found != expected:
            raise InputError(f"checkpoint {folder} is damaged (the checksum of {name} differs)")


def _finished(path: Path) -> list[Path]:
    """Checkpoints, newest first."""
    found = [folder for folder in path.glob("step-*") if re.fullmatch(r"step-\d{8,}", folder.name)]
    return sorted(found, key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _remove(folder: Path) -> None:
    """Remove a folder so that a kill in the middle leaves nothing that looks like a checkpoint."""
    grave = folder.with_name(f".{folder.name}.old")
    os.rename(folder, grave)
    shutil.rmtree(grave)


def _flush(path: Path) -> None:
    """Make a file's or folder's content survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(handle)
    finally:
        os.close(handle)
