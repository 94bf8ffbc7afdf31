"""The script for a GPU machine runs everywhere, small: what is broken in it would be found where time is dear."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("run.sh")


def run(*options: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.run(["bash", SCRIPT, *options], capture_output=True, text=True, env=environment, cwd="/")


@pytest.mark.slow
def test_every_section_runs_dry():
    done = run("--dry", "--only", "memory,blocks,forecast,data")
    assert done.returncode == 0, done.stderr
    sections = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert sections == ["section", *["memory"] * 4, *["blocks"] * 2, "forecast", "data", "data"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU, on which the script would take minutes")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 2
    assert "--dry" in done.stdout
