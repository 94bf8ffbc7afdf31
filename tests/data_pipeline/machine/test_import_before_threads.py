"""dask imports `distributed` at the first computation; of two threads that did so at once, one found half of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from places import importable

CODE = """
import sys, threading

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "distributed":
            print(threading.current_thread().name)

sys.meta_path.insert(0, Finder())
from weatherfm.data_pipeline.machine.call import Call
from weatherfm.data_pipeline.machine.parallel import run_tasks

def double(_, number):
    return 2 * number

print(sorted(run_tasks((Call(str(i), double, (i,)) for i in range(4)), 2)))
"""


def test_distributed_is_imported_before_threads_start():
    pytest.importorskip("distributed")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(importable(__file__))}
    ran = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    *threads, result = ran.stdout.splitlines()
    assert set(threads) == {"MainThread"}
    assert result == "[0, 2, 4, 6]"
