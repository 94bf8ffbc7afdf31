"""Source `leaves`: pictures of simulated leaves, for demo, tests and documentation; never observations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np

from weatherfm.data_pipeline.fields.positions import Readable, view
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.leaves.leaf import TRAITS, traits_of
from weatherfm.data_pipeline.leaves.reflectance import LONGEST, SHORTEST, leaf_reflectance, require_prosail
from weatherfm.data_pipeline.period_config import Period
from weatherfm.data_pipeline.picture_config import LeavesSource
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.grid import plane_of
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

EPOCH = date(2001, 1, 1)
"""The day of the first picture."""
_VERSION = 1  # raise it when the same seed would give other pictures


def open_source(data: DataConfig) -> SourceData:
    """The pictures of `data.period`, one a day; each is computed when it is read.

    Raises:
        InputError: prosail is not installed, no period or one before `EPOCH`, or a channel that is no wavelength of
            PROSPECT.
    """
    source = data.source
    assert isinstance(source, LeavesSource)
    installed = require_prosail()
    period = _checked_period(data.period)
    fields = LeafFields(source, period, _wavelengths(data.channels))
    days = np.arange(np.datetime64(period.start, "s"), np.datetime64(period.end, "s") + 1, np.timedelta64(86400, "s"))
    blocks = ((1,) * len(days), (len(data.channels),))
    return SourceData(
        state=view(fields, days, data.channels, plane_of(source.shape), blocks),
        static=None,
        attributes=_provenance(source, installed),
        simulated=True,
        together=(tuple(range(len(data.channels))),),
        read_from=fields,
        plane=True,
    )


def _checked_period(period: Period | None) -> Period:
    if period is None:
        raise InputError("simulated leaves have no end: say how many with data.period, a picture a day, e.g. 2001")
    if period.start < EPOCH:
        raise InputError(f"the first leaf is of {EPOCH}, but data.period is {period}; choose later days")
    return period


def _wavelengths(names: Sequence[str]) -> np.ndarray:
    """[channel] int nm."""
    channels = [parse_channel(name) for name in names]
    if odd := [c.name for c in channels if c.variable.short != "refl" or not SHORTEST <= (c.level or 0) <= LONGEST]:
        raise InputError(
            f"simulated leaves have no {', '.join(odd[:5])}; they have refl{SHORTEST} to refl{LONGEST}, as "
            f"refl{SHORTEST}..{LONGEST}/20"
        )
    return np.array([channel.level for channel in channels])


class LeafFields(Readable):
    """Reflectance of the pictures of a period."""

    def __init__(self, source: LeavesSource, period: Period, wavelengths: np.ndarray) -> None:
        self._source, self._wavelengths = source, wavelengths
        self._first = (period.start - EPOCH).days
        self.shape = ((period.end - period.start).days + 1, len(wavelengths), *source.shape)

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """[len(times), len(channels), row, column] for positions on the two axes."""
        wanted = self._wavelengths[channels]
        traits = (traits_of(self._source.seed, self._first + int(time), self.shape[2:]) for time in times)
        return np.stack([leaf_reflectance(one, wanted) for one in traits])


def _provenance(source: LeavesSource, installed: str) -> dict[str, Any]:
    return {
        "title": "Simulated leaves that never grew; not observations",
        "source": f"reflectance by PROSPECT-D of prosail {installed}; traits vary smoothly over each picture",
        "leaves_version": _VERSION,
        "seed": source.seed,
        "traits": {name: list(ends) for name, ends in TRAITS.items()},
    }
