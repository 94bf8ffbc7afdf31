"""A scheduler that cannot be reached, and what is computed afterwards."""

from __future__ import annotations

import dask
import pytest

from weatherfm.data_pipeline.machine.cluster import capacity_of
from weatherfm.errors import InputError


def test_a_scheduler_that_does_not_answer_is_not_asked_for_what_others_compute():
    """A client that failed to connect stayed dask's own: whatever was computed after it waited for ever."""
    before = dask.config.get("scheduler", None)
    with pytest.raises(InputError, match="no dask scheduler answers"):
        capacity_of("tcp//nowhere")
    assert dask.config.get("scheduler", None) == before
