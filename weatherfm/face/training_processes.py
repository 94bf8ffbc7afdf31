"""Training on processes of its own, which speak for themselves."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from weatherfm.errors import InputError
from weatherfm.face.runs import Override, RunLike, on_command_line, read_run
from weatherfm.training.upkeep.stop_signals import StopSignals


def require_devices_to_restart(devices: int | None, restarts: int) -> int:
    """Refuse restarts of processes that nothing starts; the number of these.

    Raises:
        InputError: with what to add.
    """
    if devices is None:
        raise InputError(
            f"restarts={restarts} is for processes that are started on this machine; say how many with devices (1 for "
            "one), or leave restarts out"
        )
    return devices


def train_on(
    devices: int, config: RunLike, *overrides: Override, restarts: int = 0, stop: StopSignals | None = None
) -> int:
    """Train on processes of its own; returns the exit status of `weatherfm train`.

    Raises:
        InputError: they cannot be started here.
    """
    from weatherfm.training.ranks.launch import launch, require_devices

    require_devices(devices, restarts, read_run(config, *overrides).training.device)
    with on_command_line(config, overrides) as arguments:
        return launch(train_command(arguments), devices, restarts, stop)


def train_command(arguments: Sequence[str]) -> list[str]:
    """The program that trains, of this Python, as loud as this process."""
    return verb_command("train", arguments)


def verb_command(verb: str, arguments: Sequence[str]) -> list[str]:
    """The program that carries out a verb, of this Python, as loud as this process."""
    debug = ["--debug"] if logging.getLogger().isEnabledFor(logging.DEBUG) else []
    return [sys.executable, "-P", "-m", "weatherfm.cli", verb, *arguments, *debug]
