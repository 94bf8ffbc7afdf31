"""One self-contained HTML page about a forecast: score card, curves, maps, training and provenance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr

from weatherfm import __version__
from weatherfm.atomic import write_atomically
from weatherfm.data_pipeline.store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.data_quality import quality_section
from weatherfm.evaluation.forecast_file import ForecastFile
from weatherfm.evaluation.key_figures import (
    baselines_of,
    headline,
    headline_lead,
    key_leads,
    key_rows,
    main_region,
    models_of,
    region_in_words,
)
from weatherfm.evaluation.provenance_table import day_and_hour, provenance_rows
from weatherfm.evaluation.report_pictures import curve_pictures, map_groups, training_pictures
from weatherfm.evaluation.score_table import headline_channels
from weatherfm.evaluation.scorecard import Card, legend, score_card, shown_leads
from weatherfm.evaluation.scores import lead_hours, provenance_of, read_scores

_TEMPLATE = Path(__file__).with_name("report.html.j2")


def write_report(
    scores_path: str | Path,
    out: str | Path,
    forecast_path: str | Path | None = None,
    store: Store | None = None,
    metrics_jsonl: str | Path | None = None,
    channels: Sequence[str] = (),
    init_time: np.datetime64 | None = None,
    title: str = "Forecast report",
    quality_json: str | Path | None = None,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        scores_path: scores.nc of `weatherfm evaluate`.
        out: the HTML file.
        forecast_path: the forecast that was scored; maps need it and the store.
        store: the truth it was scored against.
        metrics_jsonl: log of training; without it the page has no training curve.
        channels: short names shown first; without it, those of `headline_channels`.
        init_time: whose maps are shown; without it, that of median error in the first channel.
        title: heading of the page.
        quality_json: what `weatherfm verify --output` wrote; without it, the page has no section on the data.

    Returns:
        The path written.

    Raises:
        InputError: no scores, a channel that was not scored, a log that cannot be read, a forecast without store or
            the reverse, a forecast other than the one that was scored, or findings about another store.
    """
    scores = read_scores(scores_path)
    if not models_of(scores):
        raise InputError(f"{scores_path} holds baselines only; evaluate a forecast beside them")
    chosen = headline_channels(scores, channels)
    file = _open_forecast(scores, forecast_path, store)
    context = page_context(scores, chosen, title)
    context["training"] = training_pictures(metrics_jsonl) if metrics_jsonl is not None else []
    context["quality"] = quality_section(quality_json, scores) if quality_json is not None else None
    context["curves"] = curve_pictures(scores, chosen)
    context["maps"], context["extremes"] = [], []
    if file is not None and store is not None:
        leads = (headline_lead(scores), key_leads(scores)[-1])
        context["maps"], context["extremes"] = map_groups(file, store, chosen, leads, init_time)
    out = Path(out)
    write_atomically(out, render(context).encode())
    return out


def page_context(scores: xr.Dataset, channels: Sequence[str], title: str) -> dict[str, Any]:
    """Everything on the page that comes from the scores alone."""
    region, models = main_region(scores), models_of(scores)
    rows = key_rows(scores, channels)
    hours = lead_hours(scores)
    return {
        "title": title,
        "version": __version__,
        "simulated": bool(provenance_of(scores).get("simulated")),
        "region": region_in_words(region),
        "summary": _summary(scores),
        "grid": provenance_of(scores).get("grid", ""),
        "headline": headline(scores, channels[0]),
        "models": models,
        "baselines": baselines_of(scores),
        "tiles": [row for row in rows if row.lead == f"{headline_lead(scores)} h" and row.forecast == models[0]],
        "rows": rows,
        "cards": _cards(scores, [region]),
        "other_cards": _cards(scores, [str(name) for name in scores["region"].values if name != region]),
        "thinned": shown_leads(hours) != hours,
        "legend": legend(),
        "provenance": provenance_rows(scores),
        "record": json.dumps(provenance_of(scores), indent=2, sort_keys=True, ensure_ascii=False),
        "quality": None,
        "definitions": {name: str(array.attrs.get("long_name", "")) for name, array in scores.data_vars.items()},
    }


def render(context: dict[str, Any]) -> str:
    """The page's HTML; a value that the template wants and the context lacks is an error."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(context)


def _cards(scores: xr.Dataset, regions: Sequence[str]) -> list[tuple[str, list[Card]]]:
    """(model, cards against each baseline) for every region and model."""
    return [
        (model, [score_card(scores, model, baseline, region) for baseline in baselines_of(scores)])
        for region in regions
        for model in models_of(scores)
    ]


def _summary(scores: xr.Dataset) -> str:
    hours, cases, channels = lead_hours(scores), scores.sizes["init_time"], scores.sizes["channel"]
    first, last = (day_and_hour(time) for time in scores["init_time"].values[[0, -1]])
    leads = f"lead time {hours[0]} h" if len(hours) == 1 else f"lead times {hours[0]} to {hours[-1]} h"
    count = f"{cases} forecasts from {first} to {last}" if cases > 1 else f"1 forecast from {first}"
    return f"{channels} channel{'s' if channels > 1 else ''}, {leads}, {count}"


def _open_forecast(scores: xr.Dataset, forecast_path: str | Path | None, store: Store | None) -> ForecastFile | None:
    """The forecast of the maps, known to be the one that was scored; None where no maps are asked for."""
    if forecast_path is None and store is None:
        return None
    if forecast_path is None or store is None:
        missing = "the forecast" if forecast_path is None else "the store with the truth"
        raise InputError(f"maps show forecast and truth, but {missing} is missing; give both, or neither for no maps")
    file = ForecastFile(forecast_path)
    scored = provenance_of(scores).get("forecasts", {})
    if file.name not in scored:
        names = ", ".join(scored)
        raise InputError(f"{file.path} is called {file.name!r}, but scored were {names}; name one of these")
    same_times = np.array_equal(file.init_times, scores["init_time"].values.astype("datetime64[s]"))
    if scored[file.name] != file.provenance or not same_times:
        raise InputError(f"{file.path} is not the forecast these scores are of; evaluate it again, then report")
    return file
