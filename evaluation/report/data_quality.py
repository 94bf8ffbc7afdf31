"""The section of a report on the data: what `weatherfm verify --output` found out about the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from weatherfm.data_pipeline.verification.report import FORMAT, REMEDIES
from weatherfm.errors import InputError
from weatherfm.evaluation.figures.coverage import coverage_figure
from weatherfm.evaluation.figures.pictures import Picture, svg_picture
from weatherfm.evaluation.results.lookup import provenance_of
from weatherfm.evaluation.results.words import name_in_words, number, pretty_units

_MOST_PROBLEMS = 40
_MOST_LENGTH = 400


@dataclass(frozen=True)
class ChannelRow:
    """A channel in the table, every number as text."""

    channel: str
    words: str
    units: str
    minimum: str
    mean: str
    maximum: str
    std: str
    missing: str
    usual_change: str
    jump: str
    """The largest change from field to field, as a multiple of the usual one."""
    jump_at: str
    bad: bool
    """True where a problem names the channel."""


@dataclass(frozen=True)
class Quality:
    """What the section shows."""

    ok: bool
    verdict: str
    caution: str
    """What keeps this from being about the scores' data, or nothing."""
    facts: list[str]
    files: str
    rows: list[ChannelRow]
    problems: list[dict[str, str]]
    """severity, check, message, remedy."""
    n_more: int
    """Problems beyond those shown."""
    coverage: Picture | None


def read_quality(path: str | Path) -> dict[str, Any]:
    """What `weatherfm verify STORE --output FILE` wrote.

    Raises:
        InputError: no such file, or another kind of file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file; name the findings that `weatherfm verify --output` has written")
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"no findings at {path}; make them with `weatherfm verify STORE --output {path}`") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); mend that, as by its permissions") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); make it anew with `weatherfm verify --output`") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("identity"), str):
        raise InputError(f"{path} is no file of `weatherfm verify --output` ({FORMAT}); make one with this version")
    return data


def is_of_another_store(found: Mapping[str, Any], scores: xr.Dataset) -> bool:
    """True when the findings are about another store, or another state of it, than the scores are."""
    scored = provenance_of(scores).get("store_checksum")
    return scored is not None and scored != found["identity"]


def quality_section(path: str | Path, scores: xr.Dataset) -> Quality:
    """The findings as a section.

    Raises:
        InputError: the file cannot be read, or is about another store than the scores.
    """
    found = read_quality(path)
    try:
        return _section(path, found, scores)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is damaged ({type(error).__name__}: {str(error)[:100]}); make it anew with `weatherfm verify "
            "--output`"
        ) from error


def _section(path: str | Path, found: Mapping[str, Any], scores: xr.Dataset) -> Quality:
    if is_of_another_store(found, scores):
        raise InputError(
            f"{path} is about another store, or another state of it ({found['path']}), than these scores; verify the "
            "store that was scored, or score again"
        )
    known = provenance_of(scores).get("store_checksum") is not None
    problems = sorted(found["problems"], key=lambda problem: problem["severity"] != "error")  # errors first
    named = {problem["channel"] for problem in problems if problem["severity"] == "error"}
    return Quality(
        ok=found["ok"],
        verdict=_verdict(found),
        caution="" if known else f"The scores do not say which store they are of; this is about {found['path']}.",
        facts=found["facts"],
        files=_files(found["files"]),
        rows=[_row(channel, channel["name"] in named) for channel in found["channels"]],
        problems=[_problem(problem) for problem in problems[:_MOST_PROBLEMS]],
        n_more=max(0, len(problems) - _MOST_PROBLEMS),
        coverage=_coverage(found),
    )


def _verdict(found: Mapping[str, Any]) -> str:
    n_errors = sum(problem["severity"] == "error" for problem in found["problems"])
    n_warnings = len(found["problems"]) - n_errors
    counts = f"{n_errors} error{'' if n_errors == 1 else 's'}, {n_warnings} warning{'' if n_warnings == 1 else 's'}"
    return f"The data are sound ({counts})." if found["ok"] else f"The data are not sound ({counts})."


def _files(files: Mapping[str, Any]) -> str:
    if not files:
        return ""
    state = "every one is as it was written" if not files["bad"] else f"{files['bad']} are missing or damaged"
    return f"{files['count']} files, {files['bytes'] / 2**20:,.1f} MiB, compared with their SHA-256 checksums: {state}."


def _row(channel: Mapping[str, Any], bad: bool) -> ChannelRow:
    missing, jump = channel["missing"], channel["largest_jump"]
    texts = {
        name: "–" if channel[name] is None else number(channel[name])
        for name in ("minimum", "mean", "maximum", "std", "usual_change")
    }
    return ChannelRow(
        channel=channel["name"],
        words=name_in_words(channel["name"]),
        units=pretty_units(channel["units"]),
        missing="none" if missing == 0 else f"{100 * missing:.2g} %",
        jump="–" if jump is None else f"{jump:.2g} ×",
        jump_at="" if jump is None else f"{channel['largest_jump_at'].replace('T', ' ')} UTC",
        bad=bad,
        **texts,
    )


def _problem(problem: Mapping[str, Any]) -> dict[str, str]:
    message = problem["message"]
    return {
        "severity": problem["severity"],
        "check": problem["check"],
        "message": message if len(message) <= _MOST_LENGTH else f"{message[: _MOST_LENGTH - 1]}…",
        "remedy": REMEDIES.get(problem["remedy"], ""),
    }


def _coverage(found: Mapping[str, Any]) -> Picture | None:
    if not found["coverage"]:
        return None
    coverage = found["coverage"]
    n_missing = sum(run["count"] for run in coverage["missing"])
    text = f"Times covered, {coverage['start']} to {coverage['end']}: {coverage['count']} there, {n_missing} missing"
    return svg_picture(coverage_figure(coverage, found["problems"]), text)
