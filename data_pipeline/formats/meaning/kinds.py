"""What a field is: the state of the atmosphere, or something made of many states (a spread, a mean, an extreme, ...).

What files say about it stands in the tables of this module: MARS types and streams (GRIB's keys, and the attributes
GRIB_* that cfgrib and the Climate Data Store write into NetCDF), CF's cell_methods, and `statistic` of NOAA's PSL;
what GRIB's own templates say stands in `grib/kind_of_message.py`. A field is the state where nothing says otherwise.
What no table knows goes by the file's own word for it, and is not the state either.

Sources: ecCodes' tables of MARS types and streams (definitions/mars), WMO code table 4.10, CF conventions, appendix E.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weatherfm.data_pipeline.formats.pieces import Contents

_log = logging.getLogger(__name__)

KINDS = {
    "spread": "the spread of an ensemble",
    "ensemble_mean": "the mean of an ensemble",
    "probability": "a probability",
    "quantile": "a quantile",
    "index": "an index of how extreme a forecast is",
    "monthly_mean": "a monthly mean",
    "daily_mean": "a mean over a day or less",
    "mean": "a mean over time",
    "sum": "a sum over time",
    "maximum": "a maximum",
    "minimum": "a minimum",
    "standard_deviation": "a standard deviation",
    "anomaly": "an anomaly",
    "climatology": "a climatology",
    "difference": "a difference",
    "error": "an estimate of errors",
    "area": "a statistic over an area",
}
"""`source.kinds` -> what messages call it."""

_STATE_TYPES = {"an", "ia", "fg", "oi", "3v", "4v", "fc", "cf", "pf", "pa", "cp", "af", "si", "unknown", ""}
_TYPES = {  # MARS type, or type of processed data
    **dict.fromkeys(("es", "ses", "wes", "taes", "cs", "estdtm"), "spread"),
    **dict.fromkeys(("em", "wem", "taem", "cm", "emtm"), "ensemble_mean"),
    **dict.fromkeys(("ep", "fp", "pb", "pd"), "probability"),
    **dict.fromkeys(("cd", "ed"), "quantile"),
    **dict.fromkeys(("efi", "efic", "sot"), "index"),
    **dict.fromkeys(("fcmean", "hcmean"), "mean"),
    **dict.fromkeys(("ef", "ea", "me", "eme"), "error"),
    **dict.fromkeys(("4i", "3g", "4g", "sg"), "difference"),
    "fcmax": "maximum", "fcmin": "minimum", "fcstdev": "standard_deviation", "fa": "sum", "cl": "climatology",
}  # fmt: skip
_STREAMS = {  # every other stream holds states
    **dict.fromkeys(("mnth", "moda", "monr", "mdfa", "sfmm", "swmm", "clmn", "msmm", "mswm", "mmam"), "monthly_mean"),
    **dict.fromkeys(("mmwm", "esmm", "ehmm", "edmm", "edmo", "ewmm", "ewmo", "wamo", "wamd"), "monthly_mean"),
    **dict.fromkeys(("mofm", "wmfm", "mnfm", "mfhm", "mfwm", "mhwm", "dame"), "mean"),  # of weeks; of a day
    **dict.fromkeys(("mmsa", "smma", "mnfa", "mfaw", "mfam", "mawm"), "anomaly"),
    **dict.fromkeys(("msdc", "msda", "mnvr"), "standard_deviation"),
    **dict.fromkeys(("dacl", "dacw", "efhs", "eehs", "wehs", "wees"), "climatology"),
}  # fmt: skip
_STEPS = {  # type of statistical processing, as ecCodes calls it
    "avg": "mean", "avgd": "mean",
    **dict.fromkeys(("avgua", "avgad", "avgid", "avgas", "avgia", "avgfc", "avgu", "avgi"), "monthly_mean"),
    **dict.fromkeys(("accum", "accad", "accas", "accfc", "accia", "accua", "sum"), "sum"),
    **dict.fromkeys(("sd", "std", "stdas", "stdfc", "var", "varfc", "varas", "varia"), "standard_deviation"),
    **dict.fromkeys(("cov", "rms"), "standard_deviation"),
    "max": "maximum", "min": "minimum", "diff": "difference", "ratio": "difference", "severity": "index",
    "mode": "quantile",
}  # fmt: skip
_METHODS = {  # CF cell_methods along time or along the members
    "mean": "mean", "sum": "sum", "maximum": "maximum", "minimum": "minimum", "mid_range": "mean",
    "standard_deviation": "standard_deviation", "variance": "standard_deviation", "range": "difference",
    "median": "quantile", "mode": "quantile", "root_mean_square": "standard_deviation",
}  # fmt: skip
_OVER_MEMBERS = {"mean": "ensemble_mean", "standard_deviation": "spread", "variance": "spread"}
_INTERVALS = {  # `Grib_Statistical_Interval_Type` of netCDF-Java (THREDDS)
    "average": "mean", "accumulation": "accum", "maximum": "maximum", "minimum": "minimum", "difference": "difference",
    **dict.fromkeys(("rootmeansquare", "standarddeviation", "covariance"), "standard_deviation"),
}  # fmt: skip
_TIME = "time|valid_time|date|t|step|forecast_period|leadtime|lead_time"
_MEMBERS = "realization|number|member|members|ensemble|ensemble_member|ens"
_STATISTICS = (  # NOAA PSL's attribute `statistic`, in the order in which its words are looked for
    ("ensemble mean", "ensemble_mean"), ("ensemble spread", "spread"), ("spread", "spread"),
    ("long term mean", "climatology"), ("climatolog", "climatology"), ("anomal", "anomaly"),
    ("standard deviation", "standard_deviation"), ("std", "standard_deviation"), ("maximum", "maximum"),
    ("minimum", "minimum"), ("mean", "mean"), ("average", "mean"),
)  # fmt: skip
_WORDS = (  # in long_name and standard_name; "mean" alone is in that of sea level pressure
    (r"\b(ensemble|inter-?member)[ _]mean", "ensemble_mean"), (r"\bspread\b", "spread"),
    (r"\blong[ -]term[ -]mean|climatolog", "climatology"), (r"anomal", "anomaly"),
    (r"\bstandard[ _]deviation|\bstd[ .-]*dev|\bvariance\b", "standard_deviation"),
    (r"\bprobability\b", "probability"), (r"\b(percentile|quantile|median)\b", "quantile"),
    (r"\bmonthly\b", "monthly_mean"),
    (r"\bmaximum\b|^max\b|\b(daily|hourly) max\b", "maximum"),
    (r"\bminimum\b|^min\b|\b(daily|hourly) min\b", "minimum"),
)  # fmt: skip
_MEAN_STEPS = ("GRIB stepType avg", "GRIB_stepType avg")
_REDUCED = re.compile(r"temporal\.(daily|monthly)_(\w+)\(")
"""In the history that the Climate Data Store writes: a day's or month's statistic, by earthkit-transforms."""
_REDUCTIONS = {
    "mean": "mean", "max": "maximum", "min": "minimum", "sum": "sum", "std": "standard_deviation",
    "var": "standard_deviation", "median": "quantile",
}  # fmt: skip
_OTHER_VALUES = {"spread", "probability", "index", "standard_deviation", "anomaly", "difference", "error", "area"}
"""Kinds whose values are far from those of the field, so that `prepare` takes them for damaged ones."""


@dataclass(frozen=True)
class Clue:
    """One thing by which a file says that a field is not the state."""

    kind: str
    """Key of `KINDS`, or the file's own word."""
    said: str
    """Where it says so, e.g. `GRIB dataType es`."""


def clues_of_attributes(
    attributes: Mapping[Any, Any], shared: Mapping[Any, Any], hours: float | None, accumulated: bool
) -> tuple[Clue, ...]:
    """Why a NetCDF or Zarr variable is not the state; empty where it is.

    Args:
        attributes: of the variable.
        shared: of the file.
        hours: that a mean over time covers, None where that is not known.
        accumulated: its variable is a sum by nature.
    """

    def said(key: str) -> str:
        return str(attributes.get(key, shared.get(key, ""))).strip()

    found = [
        *clues_of_type("GRIB_dataType", said("GRIB_dataType")),
        *clues_of_stream("GRIB_stream", said("GRIB_stream")),
        *clues_of_step("GRIB_stepType", said("GRIB_stepType"), accumulated),
        *_of_methods(str(attributes.get("cell_methods", "")), hours, accumulated),
    ]
    interval = said("Grib_Statistical_Interval_Type")
    found += clues_of_step("Grib_Statistical_Interval_Type", _INTERVALS.get(interval.lower(), interval), accumulated)
    statistic = str(attributes.get("statistic", "")).lower()
    if "individual" not in statistic and (kind := next((k for word, k in _STATISTICS if word in statistic), None)):
        found.append(
            _mean_over(hours, f"statistic {statistic!r}") if kind == "mean" else Clue(kind, f"statistic {statistic!r}")
        )
    for key in ("long_name", "standard_name"):
        text = str(attributes.get(key, "")).lower().replace("_", " ")
        found += [Clue(kind, f"{key} {text!r}") for words, kind in _WORDS if re.search(words, text)][:1]
    return distinct([*found, *_of_history(str(shared.get("history", "")))])


def taken(clues: Iterable[Clue], kinds: Collection[str], constant: bool) -> bool:
    """Whether a field is one of those asked for by `source.kinds`; what is constant is the same in any of them."""
    found = {clue.kind for clue in clues}
    if not kinds or (constant and not found):
        return found <= {"daily_mean"}
    return found == set(kinds)


def describe(clues: Sequence[Clue], kinds: Collection[str]) -> str:
    """`is the spread of an ensemble (GRIB dataType es), not the field`; with `kinds`, not what was asked for."""
    asked = " and ".join(KINDS.get(kind, kind) for kind in sorted(kinds)) or "the field"
    if not clues:
        return f"is the field itself, not {asked} (source.kinds asks for {', '.join(sorted(kinds))}: leave it out)"
    told = " and ".join(f"{KINDS.get(clue.kind, 'of an unknown kind')} ({clue.said})" for clue in clues)
    cure = f"[{', '.join(clue.kind for clue in clues)}]"
    doubt = "; its values are checked as if it were the field" if {clue.kind for clue in clues} & _OTHER_VALUES else ""
    return f"is {told}, not {asked} (to take it all the same: source.kinds: {cure}{doubt})"


def clues_of_type(key: str, value: str) -> list[Clue]:
    """Of a MARS type, or type of processed data, that stands under `key`."""
    return _known(key, value, _TYPES, _STATE_TYPES)


def clues_of_stream(key: str, value: str) -> list[Clue]:
    """Of a MARS stream."""
    return _known(key, value, _STREAMS, None)


def clues_of_step(key: str, step: str, accumulated: bool) -> list[Clue]:
    """Of a type of statistical processing, as ecCodes calls it; `accumulated`: the variable is a sum by nature."""
    if step in ("instant", "unknown", "") or (accumulated and step == "accum"):
        return []
    return [Clue(_STEPS.get(step, step), f"{key} {step}")]


def besides_mean(clues: Sequence[Clue]) -> tuple[Clue, ...]:
    """Of a rate: what else it is than the mean over its own interval, of a day or less, that a mean rate is."""
    return tuple(
        clue for clue in clues if clue.kind != "daily_mean" and not (clue.kind == "mean" and clue.said in _MEAN_STEPS)
    )


def distinct(clues: Sequence[Clue]) -> tuple[Clue, ...]:
    """Each kind once; a monthly mean is not called a mean too."""
    kinds = dict.fromkeys(clue.kind for clue in clues)
    if "monthly_mean" in kinds:
        kinds.pop("mean", None)
    return tuple(next(clue for clue in clues if clue.kind == kind) for kind in kinds)


def _known(key: str, value: str, table: Mapping[str, str], states: Collection[str] | None) -> list[Clue]:
    if value in table:
        return [Clue(table[value], f"{key} {value}")]
    return [] if states is None or value in states else [Clue(value, f"{key} {value}")]


def _of_history(history: str) -> list[Clue]:
    """What the last step was that made the file: its fields look like states in all else that they say."""
    lines = history.strip().splitlines()
    done = _REDUCED.search(lines[-1]) if lines else None
    if done is None:
        return []
    how = re.search(r"\bhow=['\"]?(\w+)", lines[-1])
    word = done[2] if done[2] != "reduce" else how[1] if how else "mean"
    kind, said = _REDUCTIONS.get(word, word), f"history {done[1]}_{word}, at the first hour of its span"
    if kind != "mean":
        return [Clue(kind, said)]
    return [_mean_over(24, said) if done[1] == "daily" else Clue("monthly_mean", said)]


def _of_methods(methods: str, hours: float | None, accumulated: bool) -> list[Clue]:
    if re.search(r"\b(within|over)\s+(days|years)\b", methods):
        return [Clue("climatology", f"cell_methods {methods!r}")]
    found = []
    for names, method in re.findall(r"((?:\w+:\s*)+)(\w+)", methods):
        over = set(re.findall(r"\w+", names))
        said = f"cell_methods {methods!r}"
        if any(re.fullmatch(_MEMBERS, name) for name in over) and method != "point":
            found.append(Clue(_OVER_MEMBERS.get(method, _METHODS.get(method, method)), said))
        elif any(re.fullmatch(_TIME, name) for name in over) and method != "point":
            kind = _METHODS.get(method, method)
            if kind == "mean" and not accumulated:
                found.append(_mean_over(hours, said))
            elif not (kind == "sum" and accumulated):
                found.append(Clue(kind, said))
    return found


def _mean_over(hours: float | None, said: str) -> Clue:
    if hours is None:
        return Clue("mean", f"{said}, over an unknown span")
    kind = "daily_mean" if hours <= 24 else "monthly_mean" if 27 * 24 < hours < 32 * 24 else "mean"
    return Clue(kind, f"{said}, over {hours:g} h")


def warn_of_means(contents: Iterable[Contents]) -> None:
    """Say once which channels are means over a day or less, taken as they are."""
    found = {piece.channel: f"{piece.path}: {piece.mean}" for one in contents for piece in one.pieces if piece.mean}
    if found:
        channel, said = next(iter(found.items()))
        _log.warning(
            "%s: means over a day or less, taken as they are at the times the files give (%s, %s)",
            ", ".join(sorted(found)), channel, said,
        )  # fmt: skip
