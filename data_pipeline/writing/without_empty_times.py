"""Writing a store, and again without the times that turn out to have no values (`data.allow_gaps`)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from weatherfm.data_pipeline.design.store_design import StoreDesign
from weatherfm.data_pipeline.fields.missing_values import EmptyTimes
from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.writing.journal import Journal

_log = logging.getLogger(__name__)

NO_TIMES = np.zeros(0, "datetime64[s]")


def write_without_empty_times(
    journal: Journal,
    known: np.ndarray,
    design: Callable[[np.ndarray], StoreDesign],
    write: Callable[[StoreDesign], None],
) -> None:
    """Write; where a time has no values, note it, and write without it: what is written before it stays.

    The store has the bytes of one of which these times were known from the start.

    Args:
        journal: of the store.
        known: [n] datetime64, without values as an earlier store of the same source knows.
        design: the store without such times.
        write: all of it that the journal does not say to be done.

    Raises:
        EmptyTimes: there are some, and gaps are not allowed.
    """
    while True:
        wanted = design(np.union1d(known, journal.empty_times()))
        try:
            return write(wanted)
        except EmptyTimes as found:
            if not wanted.config.allow_gaps:
                raise
            journal.note_empty(found.times)
            _log.warning("%s: no values, left out as gaps", name_times(found.times))
