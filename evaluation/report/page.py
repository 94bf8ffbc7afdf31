"""One self-contained HTML page about forecasts: score cards, curves, spectra, maps, training and provenance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from weatherfm import __version__
from weatherfm.atomic import write_atomically
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.figures.curves import published_letters
from weatherfm.evaluation.figures.plots import draw
from weatherfm.evaluation.figures.training_curve import training_pictures
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.report.case_studies import scored_name
from weatherfm.evaluation.report.data_quality import quality_section
from weatherfm.evaluation.report.group_table import all_in_one_period, limit_of_tables, period_table, region_table
from weatherfm.evaluation.report.map_sections import map_sections
from weatherfm.evaluation.report.provenance_table import day_and_hour, difference_lines, provenance_rows
from weatherfm.evaluation.report.rendering import render
from weatherfm.evaluation.report.scale_sentences import resolution_table, scale_sentences
from weatherfm.evaluation.report.scored_fields import require_scored_fields
from weatherfm.evaluation.report.scored_points import on_scored_points, require_scored_truth
from weatherfm.evaluation.report.sections import (
    card_groups,
    curve_groups,
    definitions,
    ensemble_groups,
    fits_titles,
    spectra_groups,
)
from weatherfm.evaluation.report.skill_sections import case_groups, profile_groups
from weatherfm.evaluation.results.case_counts import with_count
from weatherfm.evaluation.results.key_figures import headline, headline_lead, key_rows, too_few_to_say
from weatherfm.evaluation.results.lookup import (
    baselines_of,
    ensembles_of,
    lead_hours,
    main_region,
    models_of,
    probabilistic_baselines_of,
    provenance_of,
)
from weatherfm.evaluation.results.published_scores import published_for
from weatherfm.evaluation.results.score_card import mark_legend, shown_leads
from weatherfm.evaluation.results.scores_file import read_scores
from weatherfm.evaluation.results.skill_colours import shade_styles
from weatherfm.evaluation.results.text_table import headline_channels
from weatherfm.evaluation.results.words import in_words, region_in_words


def write_report(
    scores: xr.Dataset | str | Path,
    out: str | Path,
    forecast_path: str | Path | ForecastFile | None = None,
    store: Store | None = None,
    metrics_jsonl: str | Path | None = None,
    channels: Sequence[str] = (),
    title: str = "Forecast report",
    quality_json: str | Path | None = None,
    cases: Sequence[np.datetime64] = (),
) -> Path:
    """Write the page, whole or not at all.

    Args:
        scores: of `weatherfm evaluate`, or their file; several models in one dataset are compared.
        out: the HTML file.
        forecast_path: a forecast that was scored, its place or opened; maps need it and the store.
        store: the truth it was scored against.
        metrics_jsonl: log of training; without it the page has no training curve.
        channels: short names shown first; without it, those of `headline_channels`.
        title: heading of the page.
        quality_json: what `weatherfm verify --output` wrote; without it, the page has no section on the data.
        cases: initial times to look at closely, a section each.

    Returns:
        The path written.

    Raises:
        InputError: no scores, a channel that was not scored, a log that cannot be read, a forecast without store or
            the reverse, a forecast or a store other than the one that was scored, findings about another store, or a
            case that the forecast has not or that cannot be shown without it.
    """
    if not isinstance(scores, xr.Dataset):
        scores = read_scores(scores)
    if not models_of(scores):
        raise InputError("the scores hold baselines only; evaluate a forecast beside them")
    chosen = headline_channels(scores, channels)
    file = _open_forecast(scores, forecast_path, store)
    if len(cases) and file is None:
        raise InputError(f"case {cases[0]} needs maps; give the forecast and the store with the truth")
    context = page_context(scores, chosen, title)
    if file is not None and store is not None:  # first: what is wrong with a case or a file is said at once
        truth = on_scored_points(file, store, scores)
        require_scored_fields(file, truth, scores, chosen[0])
        context |= map_sections(file, truth, scores, chosen, cases)
    context["training"] = training_pictures(metrics_jsonl) if metrics_jsonl is not None else []
    context["quality"] = quality_section(quality_json, scores) if quality_json is not None else None
    context["curves"] = draw(
        [*curve_groups(scores, chosen), *case_groups(scores, chosen), *profile_groups(scores)], "curves"
    )
    context["ensemble"] = draw(ensemble_groups(scores, chosen), "ensemble")
    context["spectra"] = draw(spectra_groups(scores, chosen), "spectra")
    out = Path(out)
    write_atomically(out, render(context).encode())
    return out


def page_context(scores: xr.Dataset, channels: Sequence[str], title: str) -> dict[str, Any]:
    """Everything on the page that comes from the scores alone, and no pictures."""
    region, models = main_region(scores), models_of(scores)
    others = [str(name) for name in scores["region"].values if name != region]
    rows = key_rows(scores, channels)
    hours = lead_hours(scores)
    baselines = baselines_of(scores)
    limit = limit_of_tables(scores) if baselines else 0.0
    groups = [(model, _tables(scores, model, channels, limit)) for model in models] if baselines else []
    sections = ("training", "curves", "ensemble", "spectra", "maps", "mean_maps", "members", "extremes", "cases")
    return {name: [] for name in sections} | {
        "title": title,
        "version": __version__,
        "simulated": bool(provenance_of(scores).get("simulated")),
        "differences": difference_lines(scores),
        "region": region_in_words(region),
        "summary": _summary(scores),
        "grid": provenance_of(scores).get("grid", ""),
        "headline": headline(scores, channels[0]),
        "models": models,
        "ensembles": ensembles_of(scores),
        "baselines": [in_words(name) for name in baselines],
        "probabilistic": [in_words(name) for name in probabilistic_baselines_of(scores)],
        "named_skills": [f"Skill, {in_words(name)}" for name in baselines],
        "named_crps_skills": [f"CRPS skill, {in_words(name)}" for name in probabilistic_baselines_of(scores)],
        "tiles": [row for row in rows if row.lead == f"{headline_lead(scores)} h" and row.forecast == models[0]],
        "rows": rows,
        "cards": card_groups(scores, [region]),
        "other_cards": card_groups(scores, others, fits_titles(scores, others)),
        "tables": [(model, tables) for model, tables in groups if tables],
        "thinned": shown_leads(hours) != hours,
        "count": with_count("", scores, [scores.sizes["init_time"]]),
        "marks": mark_legend(scores),
        "too_few": too_few_to_say(scores),
        "shades": shade_styles(),
        "references": published_for(scores) if region == "global" else [],
        "letters": published_letters(scores),
        "scales": scale_sentences(scores, channels[0]),
        "resolutions": resolution_table(scores, channels),
        "provenance": provenance_rows(scores),
        "record": json.dumps(provenance_of(scores), indent=2, sort_keys=True, ensure_ascii=False),
        "quality": None,
        "animation": None,
        "definitions": definitions(scores),
    }


def _tables(scores: xr.Dataset, model: str, channels: Sequence[str], limit: float) -> list[Any]:
    tables = [region_table(scores, model, channels, limit), period_table(scores, model, channels, limit)]
    return [table for table in tables if table is not None and len(table.rows) > 1]


def _summary(scores: xr.Dataset) -> str:
    hours, cases, channels = lead_hours(scores), scores.sizes["init_time"], scores.sizes["channel"]
    first, last = (day_and_hour(time) for time in scores["init_time"].values[[0, -1]])
    leads = f"lead time {hours[0]} h" if len(hours) == 1 else f"lead times {hours[0]} to {hours[-1]} h"
    count = f"{cases} forecasts from {first} to {last}" if cases > 1 else f"1 forecast from {first}"
    if period := all_in_one_period(scores):
        count += f", all valid in {period}"
    ensembles = [f"{name} is an ensemble of {members} members" for name, members in ensembles_of(scores).items()]
    return ", ".join([f"{channels} channel{'s' if channels > 1 else ''}, {leads}, {count}", *ensembles])


def _open_forecast(
    scores: xr.Dataset, forecast_path: str | Path | ForecastFile | None, store: Store | None
) -> ForecastFile | None:
    """The forecast of the maps, known to be the one that was scored; None where no maps are asked for."""
    if forecast_path is None and store is None:
        return None
    if forecast_path is None or store is None:
        missing = "the forecast" if forecast_path is None else "the store with the truth"
        raise InputError(f"maps show forecast and truth, but {missing} is missing; give both, or neither for no maps")
    given = forecast_path
    file = given if isinstance(given, ForecastFile) else ForecastFile(given, store.step_hours)
    scored_name(file, scores)
    require_scored_truth(store, scores)
    return file
