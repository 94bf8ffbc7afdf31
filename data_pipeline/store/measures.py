"""How the values of a channel are counted in its statistics: which points, with which weight, on which scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from weatherfm.data_pipeline.store.statistics import ChannelStatistics, join_channels
from weatherfm.earth.grid import Grid
from weatherfm.earth.transforms import to_log


@dataclass(frozen=True, eq=False)
class Measure:
    """Of one channel; without a word, every point counts once, as it is."""

    points: np.ndarray | None = None
    """[lat, lon] bool, those that have values; None where all do."""
    row_weights: np.ndarray | None = None
    """[lat] float64 areas of cells; None where points count alike."""
    log_scale: float | None = None
    """Of `weatherfm.earth.transforms.to_log`; None where values are counted as they are."""

    def of(self, fields: np.ndarray) -> ChannelStatistics:
        """Statistics of `fields` [time, lat, lon] of this channel; smallest and largest are not transformed."""
        values = self._there(fields)
        if self.log_scale is None:
            return self._counted(values)
        found = self._counted(to_log(values, self.log_scale))
        if not len(values):
            return found
        return replace(found, minimum=np.array([values.min()], float), maximum=np.array([values.max()], float))

    def of_changes(self, fields: np.ndarray, earlier: np.ndarray, later: np.ndarray) -> ChannelStatistics:
        """Statistics of fields[later] - fields[earlier], on the scale of the channel."""
        values = self._there(fields)
        if self.log_scale is not None:
            values = to_log(values, self.log_scale)
        return self._counted(values[later] - values[earlier])

    def _there(self, fields: np.ndarray) -> np.ndarray:
        return fields if self.points is None else fields[:, self.points]

    def _counted(self, values: np.ndarray) -> ChannelStatistics:
        """Of [time, ...] values of the points that are there."""
        if self.row_weights is None:
            return ChannelStatistics.of(values[:, None])
        weights = np.broadcast_to(self.row_weights[:, None], (len(self.row_weights), self._width(values)))
        return ChannelStatistics.of(values[:, None], weights if self.points is None else weights[self.points])

    def _width(self, values: np.ndarray) -> int:
        return values.shape[-1] if self.points is None else self.points.shape[1]


PLAIN = Measure()


def measures_of(
    channels: Sequence[str], masks: Mapping[str, np.ndarray], scales: Mapping[str, float], grid: Grid, by_area: bool
) -> tuple[Measure, ...]:
    """How each channel is counted.

    Args:
        channels: short names.
        masks: channel -> [lat, lon] bool, True where it never has a value.
        scales: channel -> scale of its logarithm.
        grid: of the fields.
        by_area: points count by the area of their cells.
    """
    rows = grid.area_weights[:, 0].copy() if by_area else None
    return tuple(Measure(~masks[name] if name in masks else None, rows, scales.get(name)) for name in channels)


def each(
    values: np.ndarray, measures: Sequence[Measure], of: Callable[[Measure, np.ndarray], ChannelStatistics]
) -> ChannelStatistics:
    """`of` every channel's fields [time, lat, lon], one after the other, so that copies are of one.

    Args:
        values: [time, channel, lat, lon].
        measures: [channel].
        of: what is asked of each.
    """
    return join_channels([of(measure, values[:, channel]) for channel, measure in enumerate(measures)])
