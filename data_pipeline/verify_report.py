"""What verification says: problems with their severity, and what was looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """Something wrong with a store."""

    severity: str
    """`error`: do not use the store; `warning`: know this."""
    check: str
    """What was looked at: files, metadata, times, values, statistics, climatology, splits."""
    message: str


@dataclass
class VerifyReport:
    """What was looked at and what was found."""

    path: str
    problems: list[Problem] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    """What was checked, with numbers."""

    @property
    def ok(self) -> bool:
        """True without errors; warnings may stand."""
        return not any(problem.severity == "error" for problem in self.problems)

    def error(self, check: str, message: str) -> None:
        """Note that the store must not be used."""
        self.problems.append(Problem("error", check, message))

    def warning(self, check: str, message: str) -> None:
        """Note something to know."""
        self.problems.append(Problem("warning", check, message))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        problems = [asdict(problem) for problem in self.problems]
        return {"path": self.path, "ok": self.ok, "problems": problems, "facts": self.facts}

    def to_text(self) -> str:
        """Lines for a terminal."""
        lines = [f"  {fact}" for fact in self.facts]
        lines += [f"{p.severity.upper()} {p.check}: {p.message}" for p in self.problems]
        n_errors = sum(p.severity == "error" for p in self.problems)
        n_warnings = len(self.problems) - n_errors
        verdict = "sound" if self.ok else "DAMAGED: restore the files named, or delete the store and prepare it anew"
        return "\n".join([f"{self.path}: {n_errors} errors, {n_warnings} warnings: {verdict}", *lines])
