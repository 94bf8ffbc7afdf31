"""Training's numbers, one JSON object a line in metrics.jsonl, and in Weights & Biases where asked for.

    {"step": 20, "loss": 0.81, "loss_by_channel": {"z500": 0.7, ...}, "loss_by_lead_time": {"24": 0.6, ...}, ...}
    {"step": 20, "validation": {"loss": 0.79, "rmse": {"z500": {"24": 512.3}}}}

A resumed run drops the lines past its checkpoint, so that no step ever stands there twice. Lines that cannot be read
stay where they are, with a warning.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any

from weatherfm.atomic import write_atomically
from weatherfm.errors import InputError
from weatherfm.file_errors import naming
from weatherfm.json_lines import name_lines, split_lines
from weatherfm.training.run_config import WandbConfig

_log = logging.getLogger(__name__)
FILE_NAME = "metrics.jsonl"


class MetricsLog:
    """Writes records of rising step; use it as a context manager.

    Args:
        folder: the run's folder, made if need be.
        step: the step training goes on from; later lines are dropped.
        wandb: `WANDB_MODE` overrides its mode.
        settings: shown beside the run in Weights & Biases.
        steps: of the run in all, past which no line in the file is believed; None: not known.

    Raises:
        InputError: Weights & Biases was asked for and cannot start.
    """

    def __init__(
        self, folder: Path, step: int, wandb: WandbConfig, settings: dict[str, Any], steps: int | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE_NAME
        self._sent = truncate(self._path, step, steps)
        self._wandb = start_wandb(folder, wandb, settings)
        self._file = self._path.open("a")

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with naming(self._path):
            self._file.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if error is None else 1)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; its `step` is the number of steps done."""
        with naming(self._path):
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
        if self._wandb is not None and record["step"] > self._sent:  # a step sent before the restart stays as it is
            self._wandb.log({key: value for key, value in record.items() if key != "step"}, step=record["step"])

    def sync(self) -> None:
        """Make what was written survive a power failure: call before the checkpoint that relies on it."""
        with naming(self._path):
            os.fsync(self._file.fileno())


def truncate(path: Path, step: int, steps: int | None = None) -> int:
    """Drop lines past `step` and a half-written last line; returns the last step the file held before.

    A line that cannot be read says nothing of its step: it is kept, and told of. The last line lacks its end when it
    was cut short, and when only its end was: what can be read is whole.

    Args:
        path: of the file; it need not be there.
        step: training goes on from.
        steps: of the run in all: a line past them is of no step that was ever done. None: not known.
    """
    if not path.is_file():
        return 0
    lines = [line for line in split_lines(path.read_bytes()) if line.whole or line.record is not None]
    if unreadable := [line for line in lines if line.record is None]:
        stays = "stays as it is" if len(unreadable) == 1 else "stay as they are"
        _log.warning("%s of %s cannot be read and %s", name_lines(unreadable), path, stays)
    kept = [line for line in lines if line.record is None or line.record["step"] <= step]
    write_atomically(path, b"".join(line.content if line.whole else line.content + b"\n" for line in kept))
    reached = [line.record["step"] for line in lines if line.record is not None]
    return max((done for done in reached if steps is None or done <= steps), default=0)


def start_wandb(folder: Path, config: WandbConfig, settings: dict[str, Any]) -> Any:
    """The Weights & Biases run of this folder, the same one after a restart; None where it is disabled.

    Offline without the package (clusters seldom have it) is none as well: all numbers are in metrics.jsonl.

    Raises:
        InputError: online without the package, or the service cannot be reached or wants a key.
    """
    mode: Any = os.environ.get("WANDB_MODE") or config.mode
    if mode == "disabled":
        return None
    remedy = "set training.wandb.mode or WANDB_MODE to offline or disabled"
    try:
        import wandb
    except ImportError:
        if mode == "offline":
            _log.warning("wandb is not installed: metrics go to %s alone", folder / FILE_NAME)
            return None
        raise InputError(f"wandb is {mode}, but the package is not installed; pip install wandb, or {remedy}") from None
    id_file = folder / "wandb_run_id"
    if not id_file.is_file():
        write_atomically(id_file, f"{secrets.token_hex(4)}\n".encode())
    try:
        return wandb.init(
            project=config.project,
            group=config.group,
            name=config.name,
            id=id_file.read_text().strip(),
            resume="allow",
            mode=mode,
            dir=str(folder),
            config=settings,
            settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )
    except (wandb.errors.Error, ValueError) as error:  # ValueError: an unknown mode
        raise InputError(f"wandb cannot start with mode {mode!r} ({error}); `wandb login`, or {remedy}") from None
