"""Scores forecasts against the store's truth, always beside persistence and climatology on the same cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from weatherfm import __version__
from weatherfm.data_pipeline.store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines import BASELINES, climatology, truth
from weatherfm.evaluation.forecast_file import ForecastFile
from weatherfm.evaluation.metrics import METRICS, Verification
from weatherfm.evaluation.regions import default_regions
from weatherfm.evaluation.scores import WEIGHTS, build_scores

_WINDOW_BYTES = 512 * 2**20
"""Memory of the truth and climatology held while lead times need them; channels are taken in groups to keep to it."""
_BLOCK_BYTES = 32 * 2**20
"""Memory of one block of initial times at one lead time, one forecast."""


def evaluate(
    forecast: str | Path,
    store: Store,
    others: Sequence[str | Path] = (),
    regions: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
) -> xr.Dataset:
    """Score a forecast.

    Args:
        forecast: path of the forecast in WeatherBench2's layout; its initial and lead times are the cases.
        store: truth and climatology.
        others: further forecasts to score on the same cases; they need the very same initial times.
        regions: see `weatherfm.evaluation.regions`; without it, all that suit the grid.
        channels: short names; without it, all of the forecast.

    Returns:
        Scores (`weatherfm.evaluation.scores`); `forecast` is named by the file's provenance, else `model`, and others
        by theirs, else by their file names; then persistence and climatology.

    Raises:
        InputError: a channel, lead time or time missing on either side, another grid, wrong units or dims, a value
            that is not finite, other initial times, or cases inside the days that climatology and statistics are of.
    """
    files = _open_all(forecast, others)
    main = next(iter(files.values()))
    channels = tuple(channels or main.channels)
    regions = tuple(regions or default_regions(store.grid))
    _check_store(main, store, channels)
    for file in files.values():
        file.require(channels, main.lead_times, store.grid)
        _check_same_cases(main, file)
    _check_periods(main, store)

    groups = _channel_groups(main, store, channels)
    parts: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in (*files, *BASELINES)}
    total = len(main.init_times) * len(groups)
    with tqdm(total=total, desc="evaluate", unit="case", disable=None) as bar:
        for group in groups:
            for name, verification in _score(files, store, group, regions, bar).items():
                parts[name].append(verification.metrics())
    metrics = {
        name: {metric: np.concatenate([part[metric] for part in found], axis=-1) for metric in METRICS}
        for name, found in parts.items()
    }
    record = _provenance(files, store)
    return build_scores(metrics, regions, main.lead_times, channels, store.grid, main.init_times, record)


def _score(
    files: Mapping[str, ForecastFile], store: Store, channels: Sequence[str], regions: Sequence[str], bar: tqdm
) -> dict[str, Verification]:
    """Stream over the cases in order of time; each truth field is read once."""
    main = next(iter(files.values()))
    names = (*files, *BASELINES)
    verifications = {name: Verification(store.grid, channels, main.lead_times, regions) for name in names}
    states, normals = truth(store, channels), climatology(store, channels)
    for block in _blocks(len(main.init_times), 4 * len(channels) * int(np.prod(store.grid.shape))):
        inits = main.init_times[block]
        for window in (states, normals):
            window.forget_before(inits[0])
        now = states.at(inits)
        for lead_index, hours in enumerate(main.lead_times):
            valid = inits + np.timedelta64(hours, "h")
            observed, normal = states.at(valid), normals.at(valid)
            verifications["persistence"].update(now, observed, normal, lead_index)
            verifications["climatology"].update(normal, observed, normal, lead_index)
            for name, file in files.items():
                fields = file.read(block, hours, channels)
                verifications[name].update(fields, observed, normal, lead_index)
        bar.update(len(inits))
    return verifications


def _blocks(count: int, case_bytes: int) -> Iterator[np.ndarray]:
    """Indices of the cases, block by block."""
    step = max(1, _BLOCK_BYTES // case_bytes)
    for start in range(0, count, step):
        yield np.arange(start, min(start + step, count))


def _channel_groups(main: ForecastFile, store: Store, channels: Sequence[str]) -> list[Sequence[str]]:
    """Channels scored together: all of them, unless the fields within one longest lead time would not fit."""
    held = 2 * (main.lead_times[-1] // store.step_hours + 2)  # truth and climatology
    size = max(1, _WINDOW_BYTES // (held * 4 * int(np.prod(store.grid.shape))))
    return [channels[i : i + size] for i in range(0, len(channels), size)]


def _open_all(forecast: str | Path, others: Sequence[str | Path]) -> dict[str, ForecastFile]:
    files: dict[str, ForecastFile] = {}
    for path in (forecast, *others):
        file = ForecastFile(path)
        if file.name in files or file.name in BASELINES:
            raise InputError(
                f"two forecasts are called {file.name!r} (the second is {path}); give it another name, by "
                "`name` when it is made or by the folder's name"
            )
        files[file.name] = file
    return files


def _check_store(main: ForecastFile, store: Store, channels: Sequence[str]) -> None:
    if not len(main.init_times):
        raise InputError(f"{main.path} holds no initial time; forecast again")
    if missing := [channel for channel in channels if channel not in store.channels]:
        raise InputError(
            f"{store.path} lacks {', '.join(missing)} to score against; it has {', '.join(store.channels)}: prepare "
            "them, or score other channels"
        )
    spans = np.asarray((0, *main.lead_times), "timedelta64[h]")
    needed = np.unique(main.init_times[:, None] + spans)
    absent = needed[~np.isin(needed, store.times)]
    if len(absent):
        raise InputError(
            f"{store.path} lacks {len(absent)} of the {len(needed)} times that {main.path} is scored at, the first is "
            f"{absent[0]}; forecast from initial times whose lead times the store covers"
        )


def _check_same_cases(main: ForecastFile, other: ForecastFile) -> None:
    if np.array_equal(main.init_times, other.init_times):
        return
    common = np.intersect1d(main.init_times, other.init_times)
    raise InputError(
        f"{other.path} has {len(other.init_times)} initial times, {main.path} has {len(main.init_times)}, and "
        f"{len(common)} are common: scores on different cases say nothing; forecast both from the same initial times"
    )


def _check_periods(main: ForecastFile, store: Store) -> None:
    """Climatology and statistics must not know the cases."""
    valid = np.unique(main.init_times[:, None] + np.asarray(main.lead_times, "timedelta64[h]"))
    for what, period in (("climatology", store.climatology_period), ("training", store.periods.get("train"))):
        known = period.contains(valid) if period is not None else np.zeros(len(valid), bool)
        if known.any():
            raise InputError(
                f"{known.sum()} of {len(valid)} times to score, the first {valid[known][0]}, lie in the {what} period "
                f"{period} of {store.path}: scores would be too good; forecast other days, or prepare the store with "
                "an earlier data.train"
            )


def _provenance(files: Mapping[str, ForecastFile], store: Store) -> dict[str, Any]:
    return {
        "code_version": __version__,
        "grid": str(store.grid),
        "weights": WEIGHTS,
        "climatology_period": str(store.climatology_period),
        "climatology_window_days": store.climatology_window,
        "truth": store.manifest.get("source"),
        "store_checksum": store.manifest.get("checksum"),
        "simulated": bool(store.simulated),
        "weights_sha256": {name: file.provenance.get("weights_sha256") for name, file in files.items()},
        "forecasts": {name: file.provenance for name, file in files.items()},
    }
