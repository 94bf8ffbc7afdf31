"""Files of one JSON object a line that outlive kills, full disks and editors: what can be read is read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from weatherfm.errors import some_of

_SHOWN = 5


@dataclass(frozen=True)
class Line:
    """One line of a file."""

    number: int
    """From 1."""
    content: bytes
    """With its end, where it has one: the last may have been cut short by a kill."""
    record: dict[str, Any] | None
    """None where it is no JSON object with a whole number as its `step`."""

    @property
    def whole(self) -> bool:
        """It has its end."""
        return self.content.endswith(b"\n")


def split_lines(content: bytes) -> list[Line]:
    """The lines of a file; none is lost, whatever its bytes."""
    lines = [line + b"\n" for line in content.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [Line(i, line, _parse(line)) for i, line in enumerate(lines, 1) if line]


def name_lines(lines: Iterable[Line]) -> str:
    """`line 3`, or `8 lines (3, 5, 6, 7, 9 and 3 more)`."""
    numbers = [line.number for line in lines]
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    return f"{len(numbers)} lines ({some_of(numbers, _SHOWN)})"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):  # of ValueError are both what is no UTF-8 and what is no JSON
        return None
    sound = isinstance(record, dict) and type(record.get("step")) is int
    return record if sound else None
