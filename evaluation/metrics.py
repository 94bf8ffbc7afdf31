"""Scores of forecasts: statistic -> area-weighted mean over space and cases -> metric (numpy only).

A statistic is a number at every point, such as the squared error. It is averaged over the cells of a region (weights:
cell areas) and over the cases (initial times, all alike), and only then made a metric, such as the root mean squared
error: never a square root before the mean. States of parts of the cases therefore add up to that of the whole.

Legend: B case, C channel, R region, L lead time, H lat, W lon, X grid point (H * W).

The anomaly correlation is that of WeatherBench-X (`metrics/deterministic.py`, ACC): with anomalies f' = forecast -
climatology and o' = truth - climatology at the valid time,

    ACC = mean(f' o') / sqrt(mean(f'^2) mean(o'^2)),

the means taken over space *and* cases, area-weighted. It is not centred (the region's mean anomaly is not taken away)
and not a mean of correlations, one a case, as in WeatherBench2. It is NaN, undefined, where a forecast or the truth has
no anomaly: the ACC of climatology itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.evaluation.regions import default_regions, region_weights
from weatherfm.grid import Grid

_BLOCK = 2**21
"""Values that are held in float64 at a time."""

METRICS: tuple[str, ...] = ("rmse", "mse", "mae", "bias", "acc")
"""Names of all metrics; `acc` needs a climatology."""

Pair = Callable[[np.ndarray, np.ndarray], np.ndarray]

_ERRORS: dict[str, Pair] = {  # of forecast and truth
    "error": lambda forecast, truth: forecast - truth,
    "absolute_error": lambda forecast, truth: np.abs(forecast - truth),
    "squared_error": lambda forecast, truth: np.square(forecast - truth),
}
_ANOMALIES: dict[str, Pair] = {  # of the forecast's and the truth's anomaly
    "forecast_anomaly_squared": lambda forecast, truth: np.square(forecast),
    "truth_anomaly_squared": lambda forecast, truth: np.square(truth),
    "anomaly_product": lambda forecast, truth: forecast * truth,
}


@dataclass(frozen=True, eq=False)
class AggregationState:
    """Sums over cases of spatial means of statistics; `+` merges the states of different cases."""

    sums: Mapping[str, np.ndarray]
    """Statistic -> [region, lead, channel] float64."""
    cases: np.ndarray
    """[lead] int64: how many cases each sum holds."""

    @classmethod
    def zero(cls, regions: int, lead_times: int, channels: int, anomalies: bool) -> AggregationState:
        """The state of no case; `anomalies`: with the statistics of the anomaly correlation."""
        names = [*_ERRORS, *(_ANOMALIES if anomalies else ())]
        shape = (regions, lead_times, channels)
        return cls({name: np.zeros(shape) for name in names}, np.zeros(lead_times, np.int64))

    def __add__(self, other: AggregationState) -> AggregationState:
        """The state of both sets of cases.

        Raises:
            ValueError: states of different shapes, or only one of them with a climatology.
        """
        if self.sums.keys() != other.sums.keys():
            raise ValueError("one part of the cases was scored with a climatology and another without; give it always")
        if any(self.sums[name].shape != other.sums[name].shape for name in self.sums):
            shapes = (self.sums["error"].shape, other.sums["error"].shape)
            raise ValueError(f"states of shapes {shapes} [region, lead, channel] do not belong together")
        sums = {name: self.sums[name] + other.sums[name] for name in self.sums}
        return AggregationState(sums, self.cases + other.cases)

    def means(self) -> dict[str, np.ndarray]:
        """Statistic -> [region, lead, channel]; NaN where a lead time has no case."""
        cases = np.where(self.cases > 0, self.cases, np.nan)[:, None]  # [L, 1]
        return {name: total / cases for name, total in self.sums.items()}

    def metrics(self) -> dict[str, np.ndarray]:
        """Metric -> [region, lead, channel] in units of the channel (`mse`: squared; `acc`: 1, if anomalies are in)."""
        mean = self.means()
        metrics = {
            "rmse": np.sqrt(mean["squared_error"]),
            "mse": mean["squared_error"],
            "mae": mean["absolute_error"],
            "bias": mean["error"],
        }
        if "anomaly_product" in mean:
            spread = np.sqrt(mean["forecast_anomaly_squared"]) * np.sqrt(mean["truth_anomaly_squared"])
            undefined = np.full_like(spread, np.nan)
            metrics["acc"] = np.divide(mean["anomaly_product"], spread, out=undefined, where=spread > 0)
        return metrics


class Verification:
    """Scores forecasts case by case.

    Args:
        grid: grid of all fields.
        channels: names, in the order of the fields' channel dim.
        lead_times: hours; `update` refers to them by index.
        regions: names of `weatherfm.evaluation.regions`; without it, `default_regions(grid)`.

    Raises:
        InputError: a region that is unknown or has no point on the grid.
    """

    def __init__(
        self, grid: Grid, channels: Sequence[str], lead_times: Sequence[int], regions: Sequence[str] | None = None
    ) -> None:
        self.grid, self.channels, self.lead_times = grid, tuple(channels), tuple(lead_times)
        self.regions = tuple(default_regions(grid) if regions is None else regions)
        weights = region_weights(grid, self.regions)
        self._weights = (weights / weights.sum((1, 2), keepdims=True)).reshape(len(self.regions), -1)  # [R, X]
        self.state: AggregationState | None = None

    def update(
        self, forecast: np.ndarray, truth: np.ndarray, climatology: np.ndarray | None = None, lead_index: int = 0
    ) -> None:
        """Add cases of one lead time: fields [batch, channel, lat, lon] in physical units, at the valid time.

        A value that is not finite makes the metrics of its channel and lead time not finite: check before.

        Raises:
            ValueError: fields of another shape, or a climatology given for some cases only.
        """
        fields = [np.asarray(x) for x in (forecast, truth, climatology) if x is not None]
        expected = (len(fields[0]), len(self.channels), *self.grid.shape)
        if any(x.shape != expected for x in fields):
            raise ValueError(f"fields have shapes {[x.shape for x in fields]}, expected {expected}")
        rows = [x.reshape(-1, self._weights.shape[1]) for x in fields]  # [B * C, X]
        state = AggregationState.zero(*self._shape, anomalies=climatology is not None)
        state.cases[lead_index] = len(forecast)
        for name, mean in self._spatial_means(rows, state.sums).items():
            state.sums[name][:, lead_index] = mean.reshape(*expected[:2], -1).sum(0).T  # [R, C]
        self.state = state if self.state is None else self.state + state

    def metrics(self) -> dict[str, np.ndarray]:
        """Metric -> [region, lead, channel]; NaN where nothing was scored."""
        state = AggregationState.zero(*self._shape, anomalies=False) if self.state is None else self.state
        return state.metrics()

    @property
    def _shape(self) -> tuple[int, int, int]:
        return len(self.regions), len(self.lead_times), len(self.channels)

    def _spatial_means(self, rows: list[np.ndarray], names: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Statistic -> [B * C, R], in float64."""
        means = {name: np.empty((len(rows[0]), len(self.regions))) for name in names}
        step = max(1, _BLOCK // self._weights.shape[1])
        for start in range(0, len(rows[0]), step):
            part = slice(start, start + step)
            for name, values in _statistics([x[part].astype(np.float64) for x in rows]):
                means[name][part] = values @ self._weights.T
        return means


def _statistics(fields: list[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Every statistic at every point, from forecast, truth and, where given, climatology."""
    forecast, truth, *climatology = fields
    for name, statistic in _ERRORS.items():
        yield name, statistic(forecast, truth)
    if climatology:
        anomalies = (forecast - climatology[0], truth - climatology[0])
        for name, statistic in _ANOMALIES.items():
            yield name, statistic(*anomalies)
