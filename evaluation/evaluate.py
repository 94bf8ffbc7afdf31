"""Scores forecasts against the store's truth, always beside persistence and climatology on the same cases."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from weatherfm import __version__
from weatherfm.data_pipeline.access import Access
from weatherfm.data_pipeline.store.records.replaced_while_read import told_of
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.earth.variables import own_variables
from weatherfm.errors import InputError, some_of
from weatherfm.evaluation.baselines.damped_persistence import can_fit
from weatherfm.evaluation.baselines.names import ALL_BASELINES, DAMPED, PROBABILISTIC, RIDGE, name_of_mean
from weatherfm.evaluation.baselines.probabilistic_climatology import ProbabilisticClimatology
from weatherfm.evaluation.baselines.ridge_predictors import ridge_starts
from weatherfm.evaluation.baselines.seeps_climatology import require_precipitation
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.forecasts.address import split_name
from weatherfm.evaluation.forecasts.forecast_identity import identity
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.metrics.ensemble import DISTRIBUTION
from weatherfm.evaluation.metrics.events import parse_events
from weatherfm.evaluation.metrics.spectra import SpectraTransforms, spectra_left_out, spectra_transforms
from weatherfm.evaluation.regions import default_regions, mean_over, mean_weights, parse_region
from weatherfm.evaluation.results.scores_file import WEIGHTS, build_scores, means_among
from weatherfm.evaluation.scoring.case_series import series_variables
from weatherfm.evaluation.scoring.case_statistics import STATISTIC_DIMS, Wanted
from weatherfm.evaluation.scoring.cases_to_score import Cases, Choice, cases_of, refuse_learned_days
from weatherfm.evaluation.scoring.fitted import RidgeInputs, ToFit
from weatherfm.evaluation.scoring.in_parts import Work, score_in_parts
from weatherfm.evaluation.scoring.kept_parts import KeptParts
from weatherfm.evaluation.scoring.learned_days import refuse_days_of_weights
from weatherfm.evaluation.scoring.metrics_from_sums import Variables, add_event_skill, score_variables, wind_pairs
from weatherfm.evaluation.scoring.periods import periods_of
from weatherfm.evaluation.scoring.scorer import Task
from weatherfm.evaluation.scoring.shared_points import share_points, share_rows, with_points_left_out
from weatherfm.evaluation.scoring.sums_and_series import ScoredCases, join_channel_groups
from weatherfm.evaluation.significance.tested_differences import significance_variables

_log = logging.getLogger(__name__)

_WINDOW_BYTES = 512 * 2**20
"""Memory of the truth and climatology held while lead times need them, and of what is fitted; channels are taken in
groups to keep to it."""
MISSING = "none: a value that is not finite is refused"
"""The rule about missing data."""


def evaluate(
    forecast: str | Path,
    store: Store,
    others: Sequence[str | Path] = (),
    settings: EvaluationConfig | None = None,
    choice: Choice = Choice(),  # noqa: B008 - frozen
    common: bool = False,
    parts: Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> xr.Dataset:
    """Score a forecast.

    Args:
        forecast: path or address of the forecast in WeatherBench2's layout, or NAME=PATH; its initial and lead times
            are the cases.
        store: truth and climatology.
        others: further forecasts to score on the same cases; they need all of the initial times.
        settings: regions, periods, events and baselines.
        choice: channels, lead times and initial times; without it, all of the forecast.
        common: score only what all forecasts share, rows and points too; what is left out stands in the scores.
        parts: folder that keeps finished parts of the work, fits too: called again, an interrupted evaluation goes on.
            A cluster's workers must see it.
        workers: threads; without it, as many as there are cores.
        scheduler: address of a dask.distributed scheduler whose workers score; they must see the same files.

    Returns:
        Scores (`weatherfm.evaluation.results.scores_file`); `forecast` is named by the file's provenance, else
        `model`, and others by theirs, else by their file names, each ensemble followed by its mean; then the baselines.

    Raises:
        InputError: a channel, lead time or time missing on either side, another grid, wrong units or dims, a value
            that is not finite, other initial times, or cases inside days that were learned from, in any generation; a
            scheduler without `parts`.
    """
    settings = settings or EvaluationConfig()
    files = _open_all(forecast, others, store, Access.of(settings.storage_options), settings.ensemble_mean)
    store = share_rows(files, store) if common else store
    cases = cases_of(files, store, choice, common)
    store, cases = share_points(files, store, cases) if common else (store, cases)
    refuse_learned_days(cases, store)
    refuse_days_of_weights(cases.valid_times, store, {name: one.provenance for name, one in files.items()})
    land = dict(zip(store.static_names, store.static, strict=True)).get("lsm")
    regions = tuple(settings.regions or default_regions(store.grid, land))
    works = _works(files, store, cases, settings, mean_weights(store.grid, regions, land))
    record = _provenance(files, store, cases, settings, regions, works[0])
    kept = KeptParts(parts, "" if parts is None else _fingerprint(record, cases, settings, works))
    if kept.there_before and (far := [str(file.path) for file in files.values() if not isinstance(file.path, Path)]):
        _log.warning(
            "goes on with what was scored; chunks replaced since at %s are not noticed: delete %s to start anew",
            some_of(far), kept.folder,
        )  # fmt: skip
    results = score_in_parts(works, cases.init_times, kept, workers, scheduler)
    scored = {name: join_channel_groups([result[name] for result in results]) for name in results[0]}
    members = _members(files, works[0], list(scored))
    periods = periods_of(settings.by, cases.months)
    variables = _variables(scored, members, periods, cases, settings)
    coordinates = {"period": list(periods), "region": regions, "reference": list(scored)} | _coordinates(works, cases)
    scores = build_scores(variables, members, coordinates, store.grid, cases.init_times, record)
    return with_points_left_out(scores, store, cases)


def _coordinates(works: Sequence[Work], cases: Cases) -> dict[str, Sequence[Any]]:
    """Dim -> labels, of what all forecasts have alike."""
    return {
        "lead_time": cases.lead_times,
        "channel": cases.channels,
        "wind": list(wind_pairs(cases.channels)),
        "event": [str(event) for work in works for event in work.task.wanted.events],
        **_spectral_coordinates(works[0].task.wanted.spectra),
    }


def _members(files: Mapping[str, ForecastFile], work: Work, names: Sequence[str]) -> dict[str, int]:
    """Forecast -> members, 1 of a single forecast, `DISTRIBUTION` of a distribution."""
    known = {name: file.members or 1 for name, file in files.items()}
    known |= {PROBABILISTIC: work.task.members or 1, RIDGE: DISTRIBUTION}
    return {name: known.get(name, 1) for name in names}


def _variables(
    scored: Mapping[str, ScoredCases],
    members: Mapping[str, int],
    periods: Mapping[str, Sequence[int]],
    cases: Cases,
    settings: EvaluationConfig,
) -> dict[str, Variables]:
    """Forecast -> its scores, and how sure its differences from the others are."""
    variables = {name: score_variables(found, periods, members[name], cases.channels) for name, found in scored.items()}
    if set(members.values()) != {1}:  # of a single forecast it is the mean absolute error
        variables = {name: {"crps": found["mae"]} | found for name, found in variables.items()}
    if settings.series:
        variables = {name: found | series_variables(scored[name]) for name, found in variables.items()}
    add_event_skill(variables)
    own = {name: cases for name, cases in scored.items() if name not in means_among(members)}
    tested = significance_variables(own, list(scored))
    return {name: found | tested.get(name, {}) for name, found in variables.items()}


def _works(
    files: Mapping[str, ForecastFile], store: Store, cases: Cases, settings: EvaluationConfig, weights: np.ndarray
) -> list[Work]:
    """One piece of work a group of channels: what is scored, and what must be fitted before."""
    events = parse_events(settings.events, cases.channels)
    damped = settings.damped_persistence and can_fit(store, cases.lead_times)
    if settings.damped_persistence and not damped:
        _log.warning("%s has too few training days for damped persistence; it is not scored", store.path)
    ridge = _ridge_inputs(store, cases, settings) if settings.ridge_regression else None
    rain = settings.seeps and "tp" in cases.channels
    if rain:
        require_precipitation(store)
    largest = max(file.members or 1 for file in files.values())
    sampled = _sampled_members(store, cases, settings.probabilistic_climatology, largest > 1)
    transforms = spectra_transforms(store.grid) if settings.spectra else None
    works = []
    for group in _channel_groups(store, cases, max(largest, sampled or 1) + _fitted_fields(cases, damped, ridge)):
        own, seeps = tuple(event for event in events if event.channel in group), rain and "tp" in group
        mask = store.masks.get(group[0])
        seen = weights if mask is None else mean_over(weights, ~mask.ravel())
        wanted = Wanted(group, seen, own, transforms, None, frozenset(ALL_BASELINES), mask is not None)
        to_fit = ToFit(group, cases.lead_times, own, tuple(cases.months), damped, seeps, ridge)
        works.append(Work(files, store, Task(cases.lead_times, wanted, to_fit, sampled, settings.ensemble_mean)))
    return works


def _ridge_inputs(store: Store, cases: Cases, settings: EvaluationConfig) -> RidgeInputs:
    """Reads nothing, and refuses what cannot be fitted."""
    times = tuple(settings.ridge_times)
    starts, most = ridge_starts(store, cases.channels, cases.lead_times, cases.init_times, times)
    return RidgeInputs(cases.channels, times, len(starts), most)


def _fitted_fields(cases: Cases, damped: bool, ridge: RidgeInputs | None) -> int:
    """Fields, one a channel, of coefficients that are held while a group is scored."""
    predictors = 0 if ridge is None else ridge.most * len(ridge.times) + 1
    return len(cases.lead_times) * (predictors + damped)


def _sampled_members(store: Store, cases: Cases, wanted: bool | None, ensembles: bool) -> int | None:
    """Members of the probabilistic climatology; None where it is not scored."""
    if wanted is False or (wanted is None and not ensembles):
        return None
    try:
        return ProbabilisticClimatology(store, cases.channels).members
    except InputError as error:
        if wanted:
            raise
        _log.warning("probabilistic climatology is not scored: %s", error)
        return None


def _channel_groups(store: Store, cases: Cases, beside: int) -> list[tuple[str, ...]]:
    """Channels scored together: neighbours with the same mask, all of whose fields fit; one channel at least.

    That is truth and climatology up to the longest lead time, and `beside` fields: a case of an ensemble, coefficients
    that were fitted. While they are fitted, damped persistence holds no more (`fit_damped_persistence`) and ridge
    regression as much in sums (`ridge_memory`); frequencies of events, four bytes a point, month and hour, come on top.
    """
    held = 2 * (cases.lead_times[-1] // store.step_hours + 2) + beside
    size = max(1, _WINDOW_BYTES // (held * 4 * int(np.prod(store.grid.shape))))
    alike = [tuple(same) for _, same in groupby(cases.channels, lambda name: _mask_of(store, name))]
    return [same[i : i + size] for same in alike for i in range(0, len(same), size)]


def _mask_of(store: Store, channel: str) -> bytes:
    """The same for channels with the same mask."""
    return store.masks[channel].tobytes() if channel in store.masks else b""


def _open_all(
    forecast: str | Path, others: Sequence[str | Path], store: Store, access: Access, means: bool
) -> dict[str, ForecastFile]:
    files: dict[str, ForecastFile] = {}
    for given in (forecast, *others):
        name, path = split_name(given)
        file = ForecastFile(path, store.step_hours, access)
        name = name or file.name
        if name in files or name in ALL_BASELINES:
            raise InputError(
                f"two forecasts are called {name!r} (the second is {path}); give it another name: NAME={path}, or "
                "`name` when it is made"
            )
        files[name] = file
    for name in [name_of_mean(name) for name, file in files.items() if file.members and means]:
        if name in files:
            raise InputError(
                f"{name!r} is what the mean of an ensemble is called, and {files[name].path} has that name; give it "
                f"another one: NAME={files[name].path}, or set evaluation.ensemble_mean=false"
            )
    return files


def _spectral_coordinates(transforms: SpectraTransforms | None) -> dict[str, Sequence[Any]]:
    if transforms is None:
        return {}
    waves = {"wavenumber": transforms.wavenumbers.tolist(), "total_wavenumber": transforms.total_wavenumbers.tolist()}
    return {"band": transforms.bands, **waves}


def _provenance(
    files: Mapping[str, ForecastFile],
    store: Store,
    cases: Cases,
    settings: EvaluationConfig,
    regions: Sequence[str],
    work: Work,
) -> dict[str, Any]:
    return {
        "code_version": __version__,
        "grid": str(store.grid),
        "weights": WEIGHTS,
        "regions": {name: str(parse_region(name)) for name in regions},
        "climatology_period": str(store.climatology_period),
        "climatology_window_days": store.climatology_window,
        "statistics_period": str(store.periods.get("train")),
        "missing_data": _missing_data(store, cases),
        "left_out": dict(cases.left_out),
        "truth": store.manifest.get("source"),
        "store_checksum": store.manifest.get("checksum"),
        "store": {"address": str(store.path), **(told_of(store.manifest) if "checksum" in store.manifest else {})},
        "simulated": bool(store.simulated),
        "weights_sha256": {name: file.provenance.get("weights_sha256") for name, file in files.items()},
        "forecasts": {name: file.provenance | {"address": str(file.path)} for name, file in files.items()},
        "land": "cells more than half of which are land" if "lsm" in store.static_names else None,
        "spectra_left_out": spectra_left_out(store.grid) if settings.spectra else ["not asked for"],
        "baselines": _baselines(work, store),
        **({"variables": own} if (own := own_variables(cases.channels)) else {}),
    }


def _missing_data(store: Store, cases: Cases) -> str:
    masked = [name for name in cases.channels if name in store.masks]
    return f"masked points of {', '.join(masked)} are left out; otherwise {MISSING}" if masked else MISSING


def _baselines(work: Work, store: Store) -> dict[str, str]:
    """What each baseline is, in words."""
    train = store.periods.get("train")
    words = {
        "persistence": "the state at the initial time",
        "climatology": "the mean of the training days' states at this day of year and hour",
    }
    if work.task.to_fit.damped:
        words[DAMPED] = f"climatology and a share of the anomaly at the initial time, fitted at every point on {train}"
    if (ridge := work.task.to_fit.ridge) is not None:
        times = ", ".join(f"{hours}h" for hours in ridge.times)
        words[RIDGE] = (
            f"ridge regression on {ridge.most * len(ridge.times)} principal components at most of "
            f"{len(ridge.channels)} channels at {times}, with normal errors, fitted on {ridge.starts} start times in "
            f"{train}"
        )
    if work.task.members is not None:
        words[PROBABILISTIC] = (
            f"{work.task.members} states of the training days {train} near this day of year, at this hour"
        )
    return words


def _fingerprint(
    record: Mapping[str, Any],
    cases: Cases,
    settings: EvaluationConfig,
    works: Sequence[Work],
) -> str:
    """Of all that decides the scores but the bytes of the forecasts themselves: see `identity`."""
    groups = [work.task.wanted.channels for work in works]
    record = {**record, "store": None}  # its checksum is there; it may have moved
    said = [record, cases.lead_times, groups, cases.init_times.astype(str).tolist(), sorted(STATISTIC_DIMS)]
    changed = [identity(file) for file in works[0].files.values()]
    text = json.dumps([said, settings.model_dump(mode="json"), changed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
