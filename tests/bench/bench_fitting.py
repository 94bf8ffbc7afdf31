"""`evaluate` with damped persistence, an event and spectra: seconds and peak memory, by the code that is imported.

    python tests/bench/bench_fitting.py --folder F --degrees 5.625 --cases 365 --leads 10 --channels 69
    PYTHONPATH=OTHER_CHECKOUT python tests/bench/bench_fitting.py --folder F ...   # the same with another version
    python tests/bench/bench_fitting.py --computed

Input as of `bench_evaluate.py`, with training days before the cases. The forecast is written into the folder once, and
read by all versions. `--window` sets the memory that groups of channels keep to, so that a small grid has as many
groups as a large one. `--computed` prints what one group and all channels hold of damped persistence at 0.25 degrees.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from bench_evaluate import START, InventedStore, write_forecast

from weatherfm.data_pipeline.store_config import Period
from weatherfm.evaluation import evaluate as evaluation
from weatherfm.evaluation.forecast_config import EvaluationConfig

DAY = np.timedelta64(24, "h")


class Trained(InventedStore):
    """With training days before the first case."""

    def __init__(self, degrees: float, channels: int, times: int, training: int) -> None:
        super().__init__(degrees, channels, times)
        self.times = START + np.arange(-training, times) * DAY
        days = self.times[[0, training - 1]].astype("datetime64[D]")
        self.climatology_period = Period.model_validate(f"{days[0]}/{days[1]}")
        self.periods = self.periods | {"train": self.climatology_period}


def computed() -> None:
    points, leads, channels = 721 * 1440, 40, 69
    held = 2 * (leads + 2) + 1 + leads  # truth and climatology, a forecast, coefficients
    together = max(1, evaluation._WINDOW_BYTES // (held * 4 * points))
    print(f"channels of a group: {together}")
    print(f"coefficients of a group: {4e-6 * together * leads * points:.0f} MB")
    print(f"sums while a group is fitted: {8e-6 * together * leads * points:.0f} MB")
    print(f"coefficients of all channels: {4e-9 * channels * leads * points:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--degrees", type=float, default=5.625)
    parser.add_argument("--cases", type=int, default=365)
    parser.add_argument("--leads", type=int, default=10, help="daily")
    parser.add_argument("--channels", type=int, default=69)
    parser.add_argument("--training", type=int, default=365, help="days")
    parser.add_argument("--window", type=float, help="MB, instead of the 537 of `evaluate`")
    parser.add_argument("--folder", type=Path, help="of the forecast")
    parser.add_argument("--computed", action="store_true")
    arguments = parser.parse_args()
    if arguments.computed:
        return computed()
    times = arguments.cases + arguments.leads + 1
    store = Trained(arguments.degrees, arguments.channels, times, arguments.training)
    path = arguments.folder / f"{arguments.degrees}-{arguments.cases}-{arguments.leads}-{arguments.channels}.zarr"
    if not path.exists():
        leads = tuple(24 * (i + 1) for i in range(arguments.leads))
        write_forecast(path, InventedStore(arguments.degrees, arguments.channels, times), arguments.cases, leads)
    if arguments.window:
        evaluation._WINDOW_BYTES = int(arguments.window * 1e6)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin, worked = time.perf_counter(), time.process_time()
    scores = evaluation.evaluate(path, store, settings=EvaluationConfig(events=["u50 > 0.5"]))
    seconds, worked = time.perf_counter() - begin, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    found = float(scores["rmse"].sel(forecast="damped_persistence").mean())
    print(f"{evaluation.__file__}: {seconds:.1f} s, {worked:.1f} s of processors, {peak / 1e3:.0f} MB, {found:.9f}")


if __name__ == "__main__":
    main()
