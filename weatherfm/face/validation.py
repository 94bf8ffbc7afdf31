"""Proof on the user's own machine, from Python: in this process, on those that torchrun started, or on new ones."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from weatherfm.atomic import write_atomically
from weatherfm.errors import OutsideError
from weatherfm.face.arguments import count, file_to_write
from weatherfm.face.launching import require_done
from weatherfm.face.runs import Override, RunLike, on_command_line, read_run
from weatherfm.face.training_processes import verb_command
from weatherfm.training.validating.table import Validation, of_dict, to_dict

if TYPE_CHECKING:
    from weatherfm.training.run_config import RunConfig


def validate(
    config: RunLike,
    *overrides: Override,
    devices: int | None = None,
    output: str | os.PathLike[str] | None = None,
) -> Validation:
    """Show that a layout of devices computes one rank's function here, in the memory planned, how fast, and resumes.

        found = weatherfm.validate("my_run.yaml", "parallel.tp=2", devices=2)
        found.ok, [row.check for row in found.failed]

    It takes a few optimizer steps on the run's own store, with its own settings; the run's folder is not touched. Where
    one device alone cannot take the model, one with fewer blocks is compared; the table says so.

    Args:
        config: path of the run's YAML file, a dict, or settings of `weatherfm.read_run`.
        overrides: settings to change, each as "section.key=value" or {"section.key": value}.
        devices: start so many processes on this machine, one for each GPU, or on its CPU cores; without it, this
            process alone.
        output: file to write the findings into, as JSON.

    Returns:
        `rows`, each with what was found and what it was held to; `ok`, whether every check holds.
        `weatherfm.training.validating.table.to_text` makes the table of it.

    Raises:
        InputError: settings, store or layout that do not go together. Processes of its own have told on stderr which.
        OutsideError: a process failed or is gone.
    """
    status, found = carry_out(config, *overrides, devices=devices, output=output)
    require_done(status, "validation")
    if found is None:
        raise OutsideError("this is not the first of several ranks, which alone knows what was found")
    return found


def carry_out(
    config: RunLike,
    *overrides: Override,
    devices: int | None = None,
    output: str | os.PathLike[str] | None = None,
) -> tuple[int, Validation | None]:
    """As `validate`; the exit status of what did not come to a result, and the result, which only the first rank has.

    Raises:
        InputError, OutsideError: as `validate`, but for what other processes have told.
    """
    path = None if output is None else file_to_write(output, "--output", ".json")
    if (number := count(devices, "--devices")) is not None:
        status, found = _on_processes(number, config, *overrides)
    else:
        from weatherfm.training.validate import validate_run  # brings the trainer

        status, found = 0, validate_run(read_run(config, *overrides))
    if path is not None and found is not None:
        write_atomically(path, (json.dumps(to_dict(found), indent=1) + "\n").encode())
    return status, found


def _on_processes(devices: int, config: RunLike, *overrides: Override) -> tuple[int, Validation | None]:
    """On processes of its own, whose first writes what was found into a file."""
    from weatherfm.training.ranks.launch import launch, require_devices

    run = read_run(config, *overrides)
    require_devices(devices, 0, run.training.device)
    with (
        tempfile.TemporaryDirectory(prefix="weatherfm") as folder,
        on_command_line(config, overrides) as arguments,
        _removing_folder_of(run),
    ):
        path = Path(folder) / "validation.json"
        status = launch(verb_command("validate", [*arguments, "--quiet", "--output", str(path)]), devices)
        if not path.is_file():
            return status or 1, None
        return 0, of_dict(json.loads(path.read_text()))


@contextmanager
def _removing_folder_of(run: RunConfig) -> Iterator[None]:
    """Name the folder in which the processes save and resume, and remove it where they could not."""
    from weatherfm.training.save_and_resume import NAMED, name_beside

    os.environ[NAMED] = end = uuid.uuid4().hex[:8]
    try:
        yield
    finally:
        del os.environ[NAMED]
        shutil.rmtree(name_beside(run.folder, end), ignore_errors=True)
