"""What a validation found: rows of a table, as text for people and as plain data for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

PHASES = {
    "function": "against one rank",
    "memory": "memory of a rank",
    "speed": "speed",
    "resume": "save and resume",
}
"""In their order, and what the table calls them."""


@dataclass(frozen=True)
class Row:
    """One check, or one figure that nothing is asked of."""

    phase: str
    check: str
    found: str
    bound: str = ""
    ok: bool | None = None
    """None: a figure alone."""
    value: float | None = None
    """What was found, as a number: a relative error, bytes, seconds, a share."""
    limit: float | None = None
    """What it was held to, in the same unit."""


@dataclass(frozen=True)
class Validation:
    """All that was found."""

    setting: str
    """What was validated, in words: layout, devices, precision, what was made smaller."""
    layout: str
    devices: int
    rows: tuple[Row, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By phase."""

    @property
    def ok(self) -> bool:
        """Every check holds."""
        return all(row.ok is not False for row in self.rows)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The checks that do not."""
        return tuple(row for row in self.rows if row.ok is False)


def to_text(made: Validation) -> str:
    """The table."""
    width = max(len(row.check) for row in made.rows) + 2
    found = min(max(len(row.found) for row in made.rows), 56)
    lines = [made.setting]
    for phase, title in PHASES.items():
        rows = [row for row in made.rows if row.phase == phase]
        if rows:
            lines += ["", f"{title} ({made.seconds.get(phase, 0):.0f} s)"]
            lines += [_line(row, width, found) for row in rows]
    wrong = len(made.failed)
    checks = sum(row.ok is not None for row in made.rows)
    end = f"{wrong} of {checks} checks FAILED" if wrong else f"all {checks} checks hold"
    return "\n".join([*lines, "", f"{end} ({sum(made.seconds.values()):.0f} s)"])


def _line(row: Row, width: int, found: int) -> str:
    mark = {None: "", True: "ok", False: "FAILED"}[row.ok]
    bound = f"<= {row.bound}" if row.bound[:1].isdigit() else row.bound
    return f"  {row.check:<{width}}{row.found:<{found}}  {bound:<30}{mark}".rstrip()


def to_dict(made: Validation) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "ok": made.ok,
        "setting": made.setting,
        "layout": made.layout,
        "devices": made.devices,
        "seconds": dict(made.seconds),
        "rows": [asdict(row) for row in made.rows],
    }


def of_dict(told: Mapping[str, Any]) -> Validation:
    """A validation from what `to_dict` made of it."""
    rows = tuple(Row(**row) for row in told["rows"])
    return Validation(told["setting"], told["layout"], told["devices"], rows, told["seconds"])
