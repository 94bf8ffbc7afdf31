"""Scores deterministic forecasts that are at hand as arrays, as single cases on maps are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weatherfm.earth.grid import Grid
from weatherfm.evaluation.metrics.case_sums import AggregationState, mean_over_cases
from weatherfm.evaluation.metrics.deterministic import deterministic_means, deterministic_metrics
from weatherfm.evaluation.regions import default_regions, mean_over, mean_weights


class ArrayScores:
    """Scores forecasts case by case.

    Args:
        grid: grid of all fields.
        channels: names, in the order of the fields' channel dim.
        lead_times: hours; `update` refers to them by index.
        regions: names of `weatherfm.evaluation.regions`; without it, `default_regions(grid)`.
        points: [lat, lon] bool, to be scored; without it, all.

    Raises:
        InputError: a region that is unknown or has no point on the grid.
    """

    def __init__(
        self,
        grid: Grid,
        channels: Sequence[str],
        lead_times: Sequence[int],
        regions: Sequence[str] | None = None,
        points: np.ndarray | None = None,
    ) -> None:
        self.grid, self.channels, self.lead_times = grid, tuple(channels), tuple(lead_times)
        self.regions = tuple(default_regions(grid) if regions is None else regions)
        weights = mean_weights(grid, self.regions)
        self._weights = weights if points is None or points.all() else mean_over(weights, points.ravel())
        self.state = AggregationState(1, len(self.lead_times))

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
        means = deterministic_means(fields[0], fields[1], self._weights, fields[2] if len(fields) > 2 else None)
        self.state.add(lead_index, np.zeros(len(forecast), np.int64), means)

    def sums(self, statistic: str) -> np.ndarray:
        """[lead, region, channel] sums over cases so far; zero where there was none."""
        shape = (len(self.lead_times), len(self.regions), len(self.channels))
        return self.state.sums[statistic][0] if self.state.sums else np.zeros(shape)

    def metrics(self) -> dict[str, np.ndarray]:
        """Metric -> [region, lead, channel]; NaN where nothing was scored."""
        names = self.state.sums or ("error", "absolute_error", "squared_error")
        means = {name: mean_over_cases(self.sums(name), self.state.cases[0]) for name in names}  # [L, R, C]
        return {name: values.swapaxes(0, 1) for name, values in deterministic_metrics(means).items()}
