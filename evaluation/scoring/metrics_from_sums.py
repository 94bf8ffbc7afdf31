"""From sums over cases to the variables of a scores dataset: means by period of the year, then metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weatherfm.earth.variables import parse_channel
from weatherfm.evaluation.metrics.case_sums import mean_over_cases
from weatherfm.evaluation.metrics.deterministic import deterministic_metrics, wind_vector_rmse
from weatherfm.evaluation.metrics.ensemble import ensemble_metrics, member_metrics
from weatherfm.evaluation.metrics.seeps import seeps_metrics
from weatherfm.evaluation.scoring.case_statistics import STATISTIC_DIMS
from weatherfm.evaluation.scoring.periods import by_period
from weatherfm.evaluation.scoring.sums_and_series import ScoredCases

Variables = dict[str, tuple[tuple[str, ...], np.ndarray]]
_PAIRS = {"u": "v", "u10": "v10", "u100m": "v100m"}
"""Eastward and northward wind by short name."""


def score_variables(
    scored: ScoredCases, periods: Mapping[str, Sequence[int]], members: int, channels: Sequence[str]
) -> Variables:
    """The scores of one forecast: variable -> (dims, values), dims (period, region, lead_time, channel) and the like.

    Args:
        scored: its cases.
        periods: name -> months (1 .. 12) of the valid time; `all` first.
        members: of the ensemble; 1 for a single forecast, `DISTRIBUTION` for one that is a distribution itself.
        channels: short names, in the order of the statistics.
    """
    sums = by_period(scored.state.sums, scored.state.cases, periods)
    means = {name: mean_over_cases(values, sums[1]) for name, values in sums[0].items()}  # [period, lead, ...]
    fields = {name: values for name, values in means.items() if STATISTIC_DIMS[name] == ("region", "channel")}
    found: Variables = {name: _by_region(values, "channel") for name, values in deterministic_metrics(fields).items()}
    if "crps_skill" in means:
        metrics = ensemble_metrics(fields, members) | member_metrics(fields, members)
        found |= {name: _by_region(values, "channel") for name, values in metrics.items()}
    if winds := wind_pairs(channels):
        found["wind_vector_rmse"] = _by_region(_wind(means["squared_error"], channels, winds), "wind")
    found |= {name: _by_region(means[name], "event") for name in ("brier", "brier_climatology") if name in means}
    if "seeps_sum" in means:
        found |= {name: _by_region(values) for name, values in seeps_metrics(means).items()}
    return found | _of_all_cases({name: values[0] for name, values in means.items()})


def add_event_skill(variables: dict[str, Variables]) -> None:
    """Beside every `brier` its skill against the frequency on training days, which climatology's statistics hold."""
    if "brier_climatology" not in variables["climatology"]:
        return
    dims, known = variables["climatology"]["brier_climatology"]
    for found in variables.values():
        with np.errstate(divide="ignore", invalid="ignore"):
            skill = 1 - found["brier"][1] / known
        found["brier_skill"] = (dims, np.where(known > 0, skill, np.nan))


def wind_pairs(channels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """`wind850` -> (`u850`, `v850`), `wind10m` -> (`u10`, `v10`): winds both of whose components are there."""
    pairs = {}
    for name in channels:
        channel = parse_channel(name)
        other = _PAIRS.get(channel.variable.short)
        if other is None:
            continue
        level = "" if channel.level is None else str(channel.level)
        height = f"{channel.variable.short.removeprefix('u').removesuffix('m')}m" if channel.level is None else level
        if f"{other}{level}" in channels:
            pairs[f"wind{height}"] = (name, f"{other}{level}")
    return pairs


def _wind(squared: np.ndarray, channels: Sequence[str], winds: Mapping[str, tuple[str, str]]) -> np.ndarray:
    """[period, lead, region, wind]."""
    at = {name: i for i, name in enumerate(channels)}
    u, v = ([at[pair[side]] for pair in winds.values()] for side in (0, 1))
    return wind_vector_rmse(squared[..., u], squared[..., v])


def _by_region(values: np.ndarray, *last: str) -> tuple[tuple[str, ...], np.ndarray]:
    """[period, lead, region, ...] with the lead time after the region."""
    return ("period", "region", "lead_time", *last), values.swapaxes(1, 2)


def _of_all_cases(mean: Mapping[str, np.ndarray]) -> Variables:
    """What is not told apart by period, [lead, ...]: rank histogram and spectra."""
    found: Variables = {}
    if "rank_counts" in mean:
        counts = mean["rank_counts"]  # [lead, region, channel, rank]
        found["rank_histogram"] = (("region", "lead_time", "channel", "rank"), counts.swapaxes(0, 1))
    for kind in ("zonal", "spherical"):
        for what, name in (("forecast", "spectrum"), ("truth", "spectrum_truth"), ("error", "spectrum_error")):
            if f"{kind}_{what}" in mean:
                dims = ("lead_time", *STATISTIC_DIMS[f"{kind}_{what}"])
                found[f"{kind}_{name}"] = (dims, mean[f"{kind}_{what}"])
    return found
