"""Scores as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from weatherfm.errors import InputError, some_of
from weatherfm.evaluation.baselines.names import BASELINES
from weatherfm.evaluation.forecast_config import require_headline
from weatherfm.evaluation.results.lookup import (
    ensembles_of,
    lead_hours,
    models_of,
    overall,
    probabilistic_baselines_of,
    provenance_of,
)
from weatherfm.evaluation.results.words import fixed, in_words, left_out_in_words

_MOST_NAMED = 10
_HEADLINE = ("z500", "t850", "t2m", "msl", "u10", "v10")


def headline_channels(scores: xr.Dataset, wanted: Sequence[str] = ()) -> list[str]:
    """Channels to show first: those wanted, else z500 t850 t2m msl u10 v10 where scored, else the first four.

    Raises:
        InputError: a wanted channel that was not scored.
    """
    scored = [str(channel) for channel in scores["channel"].values]
    require_headline(wanted, scored)
    return list(wanted) or [channel for channel in _HEADLINE if channel in scored] or scored[:4]


def score_table(scores: xr.Dataset, channels: Sequence[str] = (), region: str | None = None) -> str:
    """RMSE, skill and ACC of every model against the baselines, a line a channel and lead time; CRPS of ensembles.

    Args:
        scores: as `evaluate` gives them.
        channels: which; without it, `headline_channels`.
        region: which; without it, the first.

    Raises:
        InputError: a channel or region that was not scored.
    """
    channels = headline_channels(scores, channels)
    regions = [str(name) for name in scores["region"].values]
    region = region or regions[0]
    if region not in regions:
        raise InputError(f"region {region!r} was not scored; scored are {', '.join(regions)}")
    here = overall(scores).sel(region=region)
    tables = [_model_table(here, model, channels) for model in models_of(scores)]
    tables = [*(_ensemble_table(here, model, channels) for model in ensembles_of(scores)), *tables]
    return "\n\n".join(tables) + _left_out(scores, channels)


def _left_out(scores: xr.Dataset, channels: Sequence[str]) -> str:
    """Which channels the tables do not show, ten by name, and what some forecast lacks."""
    others = [name for name in map(str, scores["channel"].values) if name not in channels]
    said = "".join(f"\nleft out: {text}" for text in left_out_in_words(provenance_of(scores).get("left_out") or {}))
    if not others:
        return said
    named = some_of(others, _MOST_NAMED)
    return f"\nnot shown: {named}; the scores file and the report have them, evaluation.headline chooses{said}"


def _model_table(scores: xr.Dataset, model: str, channels: Sequence[str]) -> str:
    header = ["channel", "lead", f"RMSE {model}", *BASELINES, "skill/pers.", "skill/clim.", "ACC", "units"]
    rows = [_row(score, model, channel, hours) for score, channel, hours in _lines(scores, channels)]
    return _table(_title(scores, model), header, rows)


def _ensemble_table(scores: xr.Dataset, model: str, channels: Sequence[str]) -> str:
    """Fair CRPS of an ensemble and of what else has a probability, with skill; and its spread over its error."""
    references = probabilistic_baselines_of(scores)
    named = [in_words(name) for name in references]
    header = ["channel", "lead", f"fair CRPS {model}", *named, *(f"skill/{name[:4]}." for name in named), "spread/RMSE"]
    rows = []
    for score, channel, hours in _lines(scores, channels):
        crps = [float(score["crps_fair"].sel(forecast=name)) for name in (model, *references)]
        skill = [_skill(crps[0], value) for value in crps[1:]]
        ratio = f"{float(score['spread_skill_ratio'].sel(forecast=model)):.2f}"
        units = str(score["units"].values)
        rows.append([channel, f"{hours}h", *(_number(value) for value in crps), *skill, ratio, units])
    title = f"{_title(scores, model)}, {ensembles_of(scores)[model]} members"
    return _table(title, [*header, "units"], rows)


def _lines(scores: xr.Dataset, channels: Sequence[str]) -> Iterator[tuple[xr.Dataset, str, int]]:
    for channel in channels:
        for i, hours in enumerate(lead_hours(scores)):
            yield scores.sel(channel=channel).isel(lead_time=i), channel, hours


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [_line(header, widths), "-" * len(_line(header, widths)), *(_line(row, widths) for row in rows)]
    return "\n".join([title, *lines])


def _title(scores: xr.Dataset, model: str) -> str:
    first, last = (str(time)[:10] for time in scores["init_time"].values[[0, -1]])
    kind = "SIMULATED atmosphere, " if provenance_of(scores)["simulated"] else ""
    region = str(scores["region"].values).replace("_", " ")
    return f"{model}: {region}, {kind}{scores.attrs['cases']} forecasts from {first} to {last}"


def _row(score: xr.Dataset, model: str, channel: str, hours: int) -> list[str]:
    rmse = {name: float(score["rmse"].sel(forecast=name)) for name in (model, *BASELINES)}
    skill = [_skill(rmse[model], rmse[name]) for name in BASELINES]
    acc = float(score["acc"].sel(forecast=model))
    shown = [_number(value) for value in rmse.values()]
    correlation = "-" if np.isnan(acc) else fixed(acc, 3).replace("−", "-")
    return [channel, f"{hours}h", *shown, *skill, correlation, str(score["units"].values)]


def _skill(error: float, baseline: float) -> str:
    """Share of the baseline's error that the model does without: 0 % as bad, 100 % perfect."""
    return f"{round(100 * (1 - error / baseline))} %" if baseline > 0 else "-"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value + 0.0:.3g}"  # no sign before a zero


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    last = len(cells) - 1  # units stand left, as the channel does
    pairs = enumerate(zip(cells, widths, strict=True))
    padded = [cell.ljust(w) if i in (0, last) else cell.rjust(w) for i, (cell, w) in pairs]
    return "  ".join(padded).rstrip()
