"""Where scores come from, as rows of a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.evaluation.results.lookup import lead_hours, provenance_of
from weatherfm.evaluation.results.words import left_out_in_words

Row = tuple[str, str]


def provenance_rows(scores: xr.Dataset) -> list[Row]:
    """(what, value) in words: data, cases, climatology, each forecast and the version; absent facts are left out."""
    record = provenance_of(scores)
    rows: list[Row] = [
        ("Simulated", "yes: no observed or analysed weather is in these scores" if record.get("simulated") else "no"),
        *_prefixed("Truth", record.get("truth")),
        ("Grid", record.get("grid", "")),
        ("Initial times", _span(scores["init_time"].values)),
        ("Lead times", ", ".join(f"{hours} h" for hours in lead_hours(scores))),
        ("Climatology", _climatology(record)),
        ("Area weights", record.get("weights", "")),
        ("Left out", "; ".join(left_out_in_words(record.get("left_out") or {}))),
    ]
    for name, forecast in (record.get("forecasts") or {}).items():
        rows += _forecast_rows(name, forecast)
    rows.append(("weatherfm", record.get("code_version", "")))
    return [(what, value) for what, value in rows if value]


def difference_lines(scores: xr.Dataset) -> list[str]:
    """In what scores that were merged by force differ, a line each; none for scores that were made alike."""
    found = json.loads(scores.attrs.get("differences", "[]"))
    if isinstance(found, Mapping):
        return [f"{what.replace('_', ' ')}: {_text(value)}" for what, value in found.items()]
    return [_text(line) for line in found]


def day_and_hour(time: np.datetime64) -> str:
    """`2009-01-01 12 UTC`."""
    text = str(time.astype("datetime64[h]"))
    return f"{text[:10]} {text[11:13]} UTC"


def _span(times: np.ndarray) -> str:
    first, last = (day_and_hour(time) for time in times[[0, -1]])
    return f"{len(times)} from {first} to {last}" if len(times) > 1 else first


def _climatology(record: Mapping[str, Any]) -> str:
    period, window = record.get("climatology_period"), record.get("climatology_window_days")
    if not period:
        return ""
    how = f"by day of year, {window} days around it" if window else "one mean over all days"
    return f"{period.replace('/', ' to ')}, {how}"


def _forecast_rows(name: str, forecast: Mapping[str, Any]) -> list[Row]:
    title = f"Forecast {name}"
    mode = str(forecast.get("mode", ""))
    if "rollout_step_hours" in forecast:
        mode += f" in steps of {forecast['rollout_step_hours']} h"
    return [
        (f"{title}: mode", mode),
        *_of_weights(f"{title}: weights, sha256", forecast.get("weights_sha256")),
        *_of_weights(f"{title}: model", forecast.get("model")),
        *_prefixed(f"{title}: members", forecast.get("members")),
        (f"{title}: made by", f"weatherfm {forecast['code_version']}" if "code_version" in forecast else ""),
    ]


def _of_weights(title: str, value: Any) -> list[Row]:
    """A row of one weights file, or one of each where they are the members of an ensemble."""
    if not isinstance(value, list):
        return _prefixed(title, value)
    return [row for i, entry in enumerate(value) for row in _prefixed(f"{title} ({i + 1} of {len(value)})", entry)]


def _prefixed(title: str, value: Any) -> list[Row]:
    """One row for a mapping: `key value` pairs, its kind first."""
    if not isinstance(value, Mapping):
        return [(title, _text(value))]
    pairs = sorted(value.items(), key=lambda pair: pair[0] != "kind")
    return [(title, "; ".join(f"{key.replace('_', ' ')} {_text(entry)}" for key, entry in pairs))]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(entry)}" for key, entry in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = [_text(entry) for entry in value[:6]]
        return ", ".join(shown) + (f", … ({len(value)} in all)" if len(value) > 6 else "")
    return str(value)
