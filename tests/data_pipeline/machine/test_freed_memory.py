"""Workers of dask keep freed memory as other processes do: counted in pages that the system had to hand out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PAGES = """
import resource, sys
import numpy as np
from weatherfm.data_pipeline.machine.freed_memory import keep_freed_memory
print(keep_freed_memory() if "keep" in sys.argv else False)
np.ones(2**20)  # pages of the first one are handed out once in any case, huge or small
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    np.ones(2**20)  # 8 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(*arguments: str, **environment: str) -> tuple[bool, int]:
    """(whether thresholds were set, pages handed out while 100 arrays of 8 MiB came and went)."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PAGES, *arguments], env=clean | environment, capture_output=True, text=True, check=True
    )
    said, count = done.stdout.split()
    return said == "True", int(count)


@pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="no glibc")
def test_a_worker_of_dask_is_handed_pages_once_not_for_each_array():
    as_dask_starts_it = {"MALLOC_TRIM_THRESHOLD_": "65536"}
    each_time = pages(**as_dask_starts_it)[1]
    was_set, once = pages("keep", **as_dask_starts_it)
    assert was_set
    assert each_time > 100  # at least one for each array: pages may be huge
    assert once < each_time / 10


@pytest.mark.parametrize("environment", [{}, {"MALLOC_TRIM_THRESHOLD_": "1000000"}], ids=["unset", "chosen"])
def test_what_others_chose_stays(environment):
    assert pages("keep", **environment)[0] is False
