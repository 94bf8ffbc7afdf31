"""Squared errors of a trained model on the days of a period, initial time by initial time; for benches of quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

import weatherfm
from weatherfm.data_pipeline.store.states import as_states
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.baselines.damped_persistence import fit_damped_persistence
from weatherfm.evaluation.baselines.persistence_and_climatology import normals_at, states_at
from weatherfm.evaluation.forecasting.forecaster import Forecaster
from weatherfm.evaluation.forecasting.open_states import open_place


def inits_of(store: Store, run, period: str) -> np.ndarray:
    """[init] all from which every lead time ends in the period."""
    days = store.times[store.periods[period].contains(store.times)]
    return days[days + np.timedelta64(run.forecast.lead_times[-1], "h") <= days[-1]]


def errors_of(weights: Path, run, period: str, shown: Sequence[str]) -> np.ndarray:
    """Mean squared errors [init, lead, channel]."""
    model, store = weatherfm.load(weights), weatherfm.open_store(run.data.store)
    inits = inits_of(store, run, period)
    forecaster = Forecaster(
        model, as_states(open_place(run.data.store, model.domain.channels, model.provenance)), run.forecast
    )
    rows = [np.arange(i, min(i + 16, len(inits))) for i in range(0, len(inits), 16)]
    places = [model.domain.channels.index(name) for name in shown]
    guesses: dict[tuple[int, int], np.ndarray] = {}
    with closing(forecaster.make([inits[i] for i in rows])) as stream:
        for made in stream:
            for row, fields in zip(rows[made.group], made.fields[:, 0, places].numpy(), strict=True):
                guesses[int(row), made.lead] = fields
    return squared(store, inits, run, shown, lambda lead: np.stack([guesses[row, lead] for row in range(len(inits))]))


def baseline_errors(run, period: str, shown: Sequence[str]) -> dict[str, np.ndarray]:
    """[init, lead, channel] of persistence, and of damped persistence by the training days."""
    store = weatherfm.open_store(run.data.store)
    inits, hours = inits_of(store, run, period), run.forecast.lead_times
    damped = fit_damped_persistence(store, shown, hours)
    now = states_at(store, shown, inits)
    anomaly = now - normals_at(store, shown, inits)

    def fading(lead: int) -> np.ndarray:
        return damped.forecast(anomaly, normals_at(store, shown, inits + np.timedelta64(hours[lead], "h")), lead)

    return {
        "damped persistence": squared(store, inits, run, shown, fading),
        "persistence": squared(store, inits, run, shown, lambda lead: now),
    }


def squared(
    store: Store, inits: np.ndarray, run, shown: Sequence[str], guess: Callable[[int], np.ndarray]
) -> np.ndarray:
    """[init, lead, channel], weighted by area; `guess` gives [init, channel, lat, lon] of a lead time."""
    area, found = np.asarray(store.grid.area_weights), []
    for lead, hours in enumerate(run.forecast.lead_times):
        truth = states_at(store, shown, inits + np.timedelta64(hours, "h"))
        found.append((np.square(guess(lead).astype(np.float64) - truth) * area).mean((-1, -2)))
    return np.stack(found, 1)
