"""Maps of the mean error and of the RMSE at every point: where a forecast errs, and to which side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.evaluation.figures.maps.case import Case, forecasts_of, in_parts, load_case, spread_evenly, truth_at
from weatherfm.evaluation.figures.maps.map_groups import MAP_CHANNELS, MapGroup
from weatherfm.evaluation.figures.maps.sheet import Look, Sheet
from weatherfm.evaluation.figures.maps.units_and_colours import (
    ERROR_COLOURS,
    display_of,
    error_levels,
    quantity_in_words,
    round_values,
)
from weatherfm.evaluation.figures.pictures import png_picture, style
from weatherfm.evaluation.forecasts.reader import ForecastFile

MOST_CASES = 60
"""Read for these maps, spread evenly over those scored: what they cost has a bound."""


def mean_error_maps(
    file: ForecastFile, store: Store, channels: Sequence[str], lead_times: Sequence[int], init_times: np.ndarray
) -> list[MapGroup]:
    """Two maps a channel (of the first four) and lead time (hours; the first and the last).

    Of at most `MOST_CASES` of `init_times` [n] datetime64, of an ensemble of its mean; titles say of how many.

    Raises:
        InputError: a channel, lead time, grid or initial time that forecast and store do not share.
    """
    leads = list(dict.fromkeys((lead_times[0], lead_times[-1])))
    file.require(list(channels[:MAP_CHANNELS]), leads, store.grid)
    cases = spread_evenly(file.positions(init_times), MOST_CASES)
    some = f"{len(cases)} cases" if len(cases) == len(init_times) else f"{len(cases)} of {len(init_times)} cases"
    wanted = [(channel, lead) for channel in channels[:MAP_CHANNELS] for lead in leads]
    groups = []
    for channel, lead in tqdm(wanted, desc="mean errors", unit="map", disable=None):
        mean, rmse = error_by_point(file, store, channel, lead, cases)
        ground = load_case(file, store, channel, lead, file.init_times[cases[0]])
        title = f"{channel} at {lead} h, {some}" + (", spread evenly" if len(cases) < len(init_times) else "")
        pictures = (
            png_picture(mean_error_figure(ground, mean), f"Map of the mean error, {title}"),
            png_picture(rmse_figure(ground, rmse), f"Map of the RMSE, {title}"),
        )
        groups.append(MapGroup(title, "", pictures))
    return groups


def error_by_point(
    file: ForecastFile, store: Store, channel: str, lead_time: int, cases: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of forecast minus truth and its root mean square at every point.

    Args:
        file: the forecast.
        store: the truth.
        channel: short name.
        lead_time: hours.
        cases: [n] positions of initial times in the file.

    Returns:
        [lat, lon] each, in canonical units; NaN where a case has no value.
    """
    total, squares = np.zeros(store.grid.shape), np.zeros(store.grid.shape)
    for part in in_parts(cases):
        valid = file.init_times[part] + np.timedelta64(lead_time, "h")
        truth = truth_at(store, valid, channel)
        error = forecasts_of(file, store, part, lead_time, channel).astype(np.float64) - truth
        total += error.sum(0)
        squares += (error**2).sum(0)
    return total / len(cases), np.sqrt(squares / len(cases))


def mean_error_figure(ground: Case, mean: np.ndarray) -> Figure:
    """Mean error [lat, lon] in canonical units, centred on zero; `ground` is any case of the channel."""
    display = display_of(ground.channel)
    shown = display.error(mean)
    levels = error_levels(shown)
    positive = levels[levels > 0]
    kept = positive if len(positive) <= 4 else positive[1::2]
    look = Look(levels, ERROR_COLOURS)
    return _figure(ground, shown, look, "Mean of forecast − truth", "mean error", np.concatenate([-kept[::-1], kept]))


def rmse_figure(ground: Case, rmse: np.ndarray) -> Figure:
    """RMSE over cases [lat, lon] in canonical units, from zero; `ground` is any case of the channel."""
    shown = abs(display_of(ground.channel).scale) * rmse
    largest = float(np.nanpercentile(shown, 99)) if np.isfinite(shown).any() else 0.0
    levels = round_values(0, largest if largest > 0 else 1.0, 10)
    look = Look(levels, "YlOrRd")
    return _figure(ground, shown, look, "RMSE at each point", "RMSE", levels[:: 1 if len(levels) <= 9 else 2])


def _figure(ground: Case, shown: np.ndarray, look: Look, title: str, what: str, ticks: np.ndarray) -> Figure:
    with style():
        sheet = Sheet(ground, columns=1, map_width=3.7)
        drawn = sheet.draw(0, shown, look, title + (" (simulated)" if ground.simulated else ""))
        label = f"{what} of {quantity_in_words(ground.channel)} [{display_of(ground.channel).error_units}]"
        sheet.colour_bar(drawn, label, 0, 0, ticks)
    return sheet.figure
