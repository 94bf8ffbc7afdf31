"""`weatherfm forecast` in small blocks and slowly, so that a test can kill it half-way."""

from __future__ import annotations

import sys
import time

import torch

from weatherfm.cli import run_command
from weatherfm.evaluation.forecasts import writer as store

torch.set_num_threads(1)
store._BLOCK_BYTES = 2 * 4 * 3 * 4 * 8  # two initial times of the toy store
write = store.ForecastWriter.write


def write_slowly(*arguments: object) -> None:
    time.sleep(0.2)
    write(*arguments)  # type: ignore[arg-type]


store.ForecastWriter.write = write_slowly  # type: ignore[assignment]
sys.exit(run_command(sys.argv[1:]))
