"""What verification says: each problem with its severity, where it is and what helps, and what was looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "weatherfm verify 1"
_MOST_SHOWN = 8
"""Problems of one kind that the text names; JSON has them all."""
REMEDIES = {
    "repair": "`weatherfm verify STORE --repair` writes these files again from the source",
    "source": "the source itself holds these, a repair would write them again: mend it, leave the days or the channel "
    "out, and prepare anew",
    "gap": "the source lacks these: add the files that hold them and prepare anew; until then no sample crosses a gap",
    "append": "`weatherfm append CONFIG` replaces them once the final ones are published",
    "prepare": "the store contradicts itself: restore manifest.json, or prepare the store anew",
    "settings": "correct the periods or the statistics' settings in the run's YAML file and prepare anew",
    "look": "no fault by itself; look at the source there, or leave it as it is",
    "first": "mend what is named above first",
    "remove": "remove what is not part of the store",
}
"""What helps against a problem, by the name that `Problem.remedy` gives."""


@dataclass(frozen=True)
class Stretch:
    """Times that follow each other in steps of the store, both ends included."""

    start: str
    end: str
    count: int

    def __str__(self) -> str:
        return self.start if self.count == 1 else f"{self.start} .. {self.end} ({self.count} steps)"


def stretches(times: np.ndarray, step_hours: int) -> tuple[Stretch, ...]:
    """Datetime64 `times` [n], ascending, as runs of neighbours `step_hours` apart."""
    if len(times) == 0:
        return ()
    hours = times.astype("datetime64[h]")
    breaks = np.flatnonzero(np.diff(hours) != np.timedelta64(step_hours, "h")) + 1
    return tuple(Stretch(str(run[0]), str(run[-1]), len(run)) for run in np.split(hours, breaks))


def name_stretches(found: Iterable[Stretch], most: int = 4) -> str:
    """Text for a message: the first few stretches and how many more there are."""
    listed = list(found)
    text = ", ".join(map(str, listed[:most]))
    return text if len(listed) <= most else f"{text} and {len(listed) - most} more"


@dataclass(frozen=True)
class Problem:
    """Something wrong with a store, for people and for programs."""

    severity: str
    """`error`: do not use the store; `warning`: know this."""
    check: str
    """What was looked at: files, metadata, times, splits, values, range, changes, statistics, climatology."""
    message: str
    kind: str = ""
    """What is wrong in one word, e.g. `checksum`, `gap`, `nan`, `units`, `stuck`, `jump`, `flipped`."""
    remedy: str = "prepare"
    """Key of `REMEDIES`."""
    channel: str | None = None
    files: tuple[str, ...] = ()
    """Keys within the store."""
    times: tuple[Stretch, ...] = ()
    value: float | None = None
    """The number that is wrong: a count, a share, a ratio or a value, as the message says."""


@dataclass
class VerifyReport:
    """What was looked at and what was found."""

    path: str
    identity: str = ""
    """Checksum of the manifest: which store, and which state of it, this is about."""
    simulated: bool = False
    problems: list[Problem] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    """What was checked, with numbers."""
    files: dict[str, Any] = field(default_factory=dict)
    """`count`, `bytes`, `bad`: what the checksums say."""
    coverage: dict[str, Any] = field(default_factory=dict)
    """`start`, `end`, `step_hours`, `count`, stretches `missing` and `preliminary`, and the `periods`."""
    channels: list[dict[str, Any]] = field(default_factory=list)
    """One row a channel: name, units, minimum, mean, maximum, std, missing (share), usual_change, largest_jump, ..."""

    @property
    def ok(self) -> bool:
        """True without errors; warnings may stand."""
        return not any(problem.severity == "error" for problem in self.problems)

    def error(self, check: str, message: str, **details: Any) -> None:
        """Note that the store must not be used; `details` are fields of `Problem`."""
        self._note("error", check, message, details)

    def warning(self, check: str, message: str, **details: Any) -> None:
        """Note something to know; `details` are fields of `Problem`."""
        self._note("warning", check, message, details)

    def _note(self, severity: str, check: str, message: str, details: dict[str, Any]) -> None:
        value = details.get("value")
        if value is not None and not math.isfinite(value):
            details = details | {"value": None}  # JSON has no NaN; the message says it
        self.problems.append(Problem(severity, check, message, **details))

    def bad_files(self) -> set[str]:
        """Keys of files that are missing or not as they were written: what `--repair` redoes.

        Shards that hold NaN or impossible values are not among them: their source gave these values.
        """
        return {key for problem in self.problems if problem.remedy == "repair" for key in problem.files}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"format": FORMAT, "ok": self.ok, **asdict(self)}

    def to_text(self) -> str:
        """Lines for a terminal: the verdict, what was looked at, and problems by kind with what helps."""
        n_errors = sum(problem.severity == "error" for problem in self.problems)
        verdict = "sound" if self.ok else "DAMAGED"
        lines = [f"{self.path}: {n_errors} errors, {len(self.problems) - n_errors} warnings: {verdict}"]
        lines += [f"  {fact}" for fact in self.facts]
        for severity in ("error", "warning"):
            lines += self._section(severity)
        return "\n".join(lines)

    def _section(self, severity: str) -> list[str]:
        groups: dict[tuple[str, str], list[Problem]] = {}
        for problem in self.problems:
            if problem.severity == severity:
                groups.setdefault((problem.check, problem.remedy), []).append(problem)
        lines = []
        for (check, remedy), group in groups.items():
            lines.append(f"{severity.upper()} {check} ({len(group)})")
            lines += [f"  {problem.message}" for problem in group[:_MOST_SHOWN]]
            if len(group) > _MOST_SHOWN:
                lines.append(f"  and {len(group) - _MOST_SHOWN} more; --json lists all")
            lines.append(f"  -> {REMEDIES[remedy].replace('STORE', str(Path(self.path)))}")
        return lines
