"""A task as threads and clusters are given it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """One task: small, so that making and sending it costs nothing beside its work."""

    name: str
    """For messages."""
    function: Callable[..., Any]
    """Called with what all tasks share, then the arguments. It may be called again when a worker died in it."""
    arguments: tuple[Any, ...]
