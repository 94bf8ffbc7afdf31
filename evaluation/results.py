"""What the verbs `forecast`, `evaluate` and `report` write, from paths to paths, and the lines that say so."""

from __future__ import annotations

import logging
from pathlib import Path

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.config import Period
from weatherfm.data_pipeline.store import open_store
from weatherfm.errors import InputError
from weatherfm.evaluation.config import ForecastConfig
from weatherfm.evaluation.data_quality import is_of_another_store, read_quality
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast import forecast_init_times, make_forecast
from weatherfm.evaluation.maps import write_maps
from weatherfm.evaluation.report import write_report
from weatherfm.evaluation.score_table import headline_channels, score_table
from weatherfm.evaluation.scores import read_scores, write_scores
from weatherfm.weights import load_weights, read_provenance, weights_hash

_log = logging.getLogger(__name__)


def forecast(weights: Path, store: Path, settings: ForecastConfig, init: str | None, output: Path) -> str:
    """Forecast with trained weights from initial times within days (`init`); returns where the forecast is."""
    model, data = load_weights(weights), open_store(store)
    period = parse_settings(Period, init, "--init") if init else None
    times = forecast_init_times(data, settings, model.config.input_times, period)
    provenance = {"weights_sha256": weights_hash(weights), "training": read_provenance(weights)}
    return f"forecast  {make_forecast(model, data, times, settings, output, provenance)}"


def score(
    forecast: Path, store: Path, against: list[Path], regions: list[str] | None, headline: list[str], output: Path
) -> str:
    """Score a forecast and write the scores; returns their table and where they are."""
    scores = evaluate(forecast, open_store(store), against, regions)
    write_scores(scores, output)
    return f"{score_table(scores, headline)}\nscores    {output}"


def write_page(
    scores: Path,
    forecast: Path | None,
    store: Path | None,
    maps: bool,
    headline: list[str],
    output: Path | None,
    quality: Path | None = None,
) -> str:
    """Write the report, and maps as pictures if wanted; returns where they are.

    Findings of `weatherfm verify` (`quality`) stand on the page; without it, those in verify.json beside the scores,
    where they are about the store that was scored.

    Raises:
        InputError: maps without a store to take the truth from.
    """
    folder = scores.parent
    page = output or folder / "report.html"
    fields = forecast or folder / "forecast.zarr"
    log = folder / "metrics.jsonl"
    truth = open_store(store) if store else None
    shown = fields if truth is not None and fields.exists() else None  # without both the page has no maps
    found = quality or _findings_beside(scores)
    curve = log if log.exists() else None
    write_report(scores, page, shown, truth if shown else None, curve, headline, quality_json=found)
    lines = []
    if maps:
        if truth is None:
            raise InputError("maps need the truth; say where it is with --store, or give the run's YAML file")
        files = write_maps(page.parent / "maps", fields, truth, headline_channels(read_scores(scores), headline))
        lines.append(f"maps      {len(files)} pictures in {page.parent / 'maps'}")
    return "\n".join([*lines, f"report    {page}"])


def _findings_beside(scores: Path) -> Path | None:
    """verify.json beside the scores, unless it is about another store or an earlier state of it."""
    file = scores.parent / "verify.json"
    if not file.exists():
        return None
    if is_of_another_store(read_quality(file), read_scores(scores)):
        _log.warning("%s is about another store than the scores; it is left out of the page", file)
        return None
    return file
