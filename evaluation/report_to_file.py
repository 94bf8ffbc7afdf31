"""What the verb `report` writes, from paths to paths: the page, and maps as pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.errors import InputError
from weatherfm.evaluation.figures.maps.case import pick_init_times
from weatherfm.evaluation.figures.maps.panels import write_maps
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.report.data_quality import is_of_another_store, quality_section, read_quality
from weatherfm.evaluation.report.page import write_report
from weatherfm.evaluation.report.scored_points import on_scored_points
from weatherfm.evaluation.results.comparison import merge_scores
from weatherfm.evaluation.results.lookup import lead_hours
from weatherfm.evaluation.results.names_beside import default_forecast, forecast_of
from weatherfm.evaluation.results.scores_file import read_scores
from weatherfm.evaluation.results.text_table import headline_channels
from weatherfm.file_lock import hold_output

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Page:
    """What a report is made from."""

    scores: Path
    forecast: str | Path | None = None
    """For the maps, a folder or an address; without it, what `default_forecast` says."""
    access: Access = PUBLIC
    """To a private forecast."""
    store: Path | None = None
    """With the truth for the maps; without it, there are none."""
    maps: bool = False
    """Also as pictures in a folder."""
    headline: Sequence[str] = ()
    output: Path | None = None
    """Without it, report.html beside the scores."""
    quality: Path | None = None
    """Findings of `weatherfm verify`; without it, verify.json beside the scores, if it is about the same store."""
    cases: Sequence[str] = ()
    """Initial times to look at closely."""
    compare: Sequence[Path] = ()
    """Further scores."""
    force: bool = False
    """Compare scores that were not made alike."""


class Written(NamedTuple):
    """What a report has become."""

    page: Path
    """One HTML file that needs nothing beside it."""
    maps: tuple[Path, ...]
    """PNG files, where they were wanted."""


def write_page(page: Page) -> Written:
    """Write the report, and maps as pictures if wanted; returns where they are.

    Raises:
        InputError: maps without a store to take the truth from, an initial time that is no date, or scores that cannot
            be compared.
        OutsideError: the network failed.
    """
    folder = page.scores.parent
    out = page.output or folder / f"{forecast_of(page.scores)}report.html"
    fields = page.forecast or default_forecast(page.scores)
    log = folder / "metrics.jsonl"
    truth = open_store(page.store) if page.store else None
    if page.maps and truth is None:
        raise InputError("maps need the truth; say where it is with --store, or give the run's YAML file")
    wanted = page.maps or not isinstance(fields, Path) or fields.exists()
    shown = ForecastFile(fields, truth.step_hours, page.access) if truth and wanted else None  # else there are no maps
    scores = _scores(page)
    if page.quality is not None:
        read_quality(page.quality)  # before the minutes that pictures take
    maps: Sequence[Path] = ()
    with hold_output(out):
        write_report(
            scores,
            out,
            shown,
            truth if shown else None,
            log if log.is_file() else None,
            page.headline,
            quality_json=page.quality or _findings_beside(page.scores),
            cases=[_date(text) for text in page.cases],
        )
        if page.maps and truth is not None and shown is not None:
            maps = _write_maps(out.parent / "maps", shown, truth, scores, page.headline)
    return Written(out, tuple(maps))


def _write_maps(
    folder: Path, file: ForecastFile, truth: Store, scores: xr.Dataset, headline: Sequence[str]
) -> Sequence[Path]:
    """Of what was scored: the case of median error of all, at every lead time."""
    store = on_scored_points(file, truth, scores)
    channels, leads = headline_channels(scores, headline), lead_hours(scores)
    init_times = scores["init_time"].values.astype("datetime64[s]")
    median = pick_init_times(file, store, channels[0], leads[0], init_times)["median"]
    return write_maps(folder, file, store, channels, leads, median)


def _scores(page: Page) -> xr.Dataset:
    scores = read_scores(page.scores)
    if not page.compare:
        return scores
    names = [path.parent.name or path.stem for path in (page.scores, *page.compare)]
    return merge_scores([scores, *map(read_scores, page.compare)], names, page.force)


def _date(text: str) -> np.datetime64:
    try:
        return np.datetime64(text, "s")
    except ValueError:
        raise InputError(f"--case {text!r} is no date; write the initial time as 2018-10-12T00") from None


def _findings_beside(scores: Path) -> Path | None:
    """verify.json beside the scores, unless it is about another store or an earlier state of it."""
    file = scores.parent / "verify.json"
    if not file.exists():
        return None
    held = read_scores(scores)
    try:
        if is_of_another_store(read_quality(file), held):
            _log.warning("%s is about another store than the scores; it is left out of the page", file)
            return None
        quality_section(file, held)
    except InputError as error:  # nobody asked for it
        _log.warning("%s is left out of the page: %s", file, error)
        return None
    return file
