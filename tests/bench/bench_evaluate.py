"""`evaluate` beside xskillscore and `scores` computing the same set of scores: time, memory, largest difference.

    python tests/bench/bench_evaluate.py --degrees 5.625 --cases 365 --leads 10 --channels 69
    python tests/bench/bench_evaluate.py --degrees 1.5 --cases 24

Input: invented fields; a forecast in WeatherBench2's layout on disk (float32, in the page cache for all methods), truth
and climatology in memory. The set: RMSE, MSE, MAE, bias and the anomaly correlation of one forecast by channel, lead
time and four regions. xskillscore and scores read the forecast with xarray and dask (one lead time a chunk, threads)
and are given weights that are zero outside a region; each computes the set as its documentation shows, all metrics of a
region in one dask graph, so that what they share is computed once. weatherfm does all that
`weatherfm evaluate` does, which is more: every default region, persistence and climatology scored too, seasons,
significance, checks; `same set` leaves the four regions. Every method has a process of its own and imports before the
clock starts; memory is what the process holds at most beyond its state before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import psutil
import xarray as xr
import xskillscore as xs
from scores import continuous

from weatherfm.data_pipeline.store_config import Period
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.forecasts.schema import variables_of
from weatherfm.evaluation.forecasts.writer import ForecastContents, ForecastWriter
from weatherfm.evaluation.regions import region_weights

METHODS = ("weatherfm, same set", "weatherfm, all", "xskillscore", "scores")
REGIONS = ("global", "northern_extratropics", "southern_extratropics", "tropics")
LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
CHANNELS = (*(f"{name}{level}" for name in "ztuvq" for level in LEVELS), "t2m", "msl", "u10", "v10")
START = np.datetime64("2020-01-01", "s")


def grid_of(degrees: float) -> Grid:
    if degrees == 1.5:  # with points on the poles, as WeatherBench2's 240 x 121
        return Grid(np.linspace(90, -90, 121), np.arange(240) * 1.5)
    return regular_grid((round(180 / degrees), round(360 / degrees)))


class InventedStore:
    """Truth and climatology in memory: a few fields of noise, turned round the pole from time to time."""

    path = Path("invented")
    static_names: tuple[str, ...] = ()
    static = np.zeros((0, 1, 1), np.float32)
    simulated = True
    climatology_window = 61
    step_hours = 24
    masks: dict[str, np.ndarray] = {}

    def __init__(self, degrees: float, channels: int, times: int) -> None:
        self.grid, self.channels = grid_of(degrees), CHANNELS[:channels]
        self.times = START + np.arange(times) * np.timedelta64(24, "h")
        self.climatology_period = Period.model_validate("1990-2010")
        self.periods = {"train": self.climatology_period, "validation": None, "test": None}
        self.manifest = {"source": {"kind": "invented", "simulated": True}}
        rng = np.random.default_rng(0)
        self.base = rng.standard_normal((4, channels, *self.grid.shape), np.float32)

    def index_of(self, times: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.times, times)

    def read(self, indices: np.ndarray, channels: tuple[str, ...]) -> np.ndarray:
        at = [self.channels.index(name) for name in channels]
        return np.stack([np.roll(self.base[i % 3][at], i, axis=-1) for i in indices])

    def climatology_at(self, times: np.ndarray, channels: tuple[str, ...]) -> np.ndarray:
        at = [self.channels.index(name) for name in channels]
        return np.broadcast_to(0.3 * self.base[3][at], (len(times), len(at), *self.grid.shape))


def write_forecast(path: Path, store: InventedStore, cases: int, leads: tuple[int, ...]) -> None:
    """Truth with noise that grows with the lead time."""
    request = ForecastContents(store.channels, store.grid, store.times[:cases], leads, {"simulated": True})
    writer = ForecastWriter(path, request)
    for block in writer.remaining():
        for i, lead in enumerate(leads):
            at = np.arange(block.start, block.stop)
            noise = store.read(at + 1, store.channels) * (0.1 + 0.05 * i)
            writer.write(block, i, store.read(at + lead // 24, store.channels) + noise)
        writer.block_done(block)
    writer.finish()


def by_package(package: str, path: Path, store: InventedStore) -> dict[str, np.ndarray]:
    """Metric -> [region, lead, channel] by xskillscore or scores, on dask's threads."""
    forecast = _channels(
        xr.open_zarr(path, chunks={"time": -1, "prediction_timedelta": 1}, decode_timedelta=True), store
    )
    truth, normal = _truth(forecast, store)
    weights = region_weights(store.grid, REGIONS)
    found: dict[str, list[np.ndarray]] = {}
    for region in range(len(REGIONS)):
        w = xr.DataArray(weights[region], dims=("latitude", "longitude"))
        lazy = xr.Dataset(_PACKAGES[package](forecast, truth, normal, w)).compute()
        for name, values in lazy.items():
            found.setdefault(str(name), []).append(values.transpose("prediction_timedelta", "channel").values)
    return {name: np.stack(values) for name, values in found.items()}


def _channels(data: xr.Dataset, store: InventedStore) -> xr.DataArray:
    parts: list[xr.DataArray] = []
    for name, levels in variables_of(store.channels).items():
        array = data[name].drop_vars("level", errors="ignore")
        for i, channel in enumerate(levels.values()):
            field = array if None in levels else array.isel(level=[*data["level"].values].index(list(levels)[i]))
            parts.append(field.expand_dims(channel=[channel]))
    return xr.concat(parts, "channel")


def _truth(forecast: xr.DataArray, store: InventedStore) -> tuple[xr.DataArray, xr.DataArray]:
    """Lazily, at the valid time of every case; and the climatology, which is one field here."""
    dims = ("time", "prediction_timedelta", "channel", "latitude", "longitude")
    coords = {dim: forecast[dim] for dim in dims}
    shape = (forecast.sizes["time"], *(forecast.sizes[dim] for dim in dims[2:]))

    def of_lead(days: int) -> np.ndarray:
        return store.read(np.arange(shape[0]) + days, store.channels)

    days = forecast["prediction_timedelta"].values.astype("timedelta64[D]").astype(int)
    leads = [da.from_delayed(dask.delayed(of_lead)(int(day)), shape, np.float32) for day in days]
    truth = xr.DataArray(da.stack(leads, axis=1), coords, dims)
    return truth, xr.DataArray(0.3 * store.base[3], {dim: coords[dim] for dim in dims[2:]}, dims[2:])


def _xskillscore(forecast, truth, normal, weights) -> dict[str, xr.DataArray]:
    dim = ["time", "latitude", "longitude"]
    forecast, truth = xr.broadcast(forecast, truth)
    w = weights.broadcast_like(truth.isel(prediction_timedelta=0, channel=0, drop=True))
    f, o = forecast - normal, truth - normal
    zero = xr.zeros_like(truth)
    squares = [xs.mse(anomaly, zero, dim=dim, weights=w) for anomaly in (f, o)]
    return {
        "rmse": xs.rmse(forecast, truth, dim=dim, weights=w),
        "mse": xs.mse(forecast, truth, dim=dim, weights=w),
        "mae": xs.mae(forecast, truth, dim=dim, weights=w),
        "bias": xs.me(forecast, truth, dim=dim, weights=w),
        "acc": xs.me(f * o, zero, dim=dim, weights=w) / np.sqrt(squares[0] * squares[1]),
    }


def _scores(forecast, truth, normal, weights) -> dict[str, xr.DataArray]:
    how = {"reduce_dims": ["time", "latitude", "longitude"], "weights": weights / weights.mean()}
    f, o, zero = forecast - normal, truth - normal, xr.zeros_like(truth)
    squares = [continuous.mse(anomaly, zero, **how) for anomaly in (f, o)]
    return {
        "rmse": continuous.rmse(forecast, truth, **how),
        "mse": continuous.mse(forecast, truth, **how),
        "mae": continuous.mae(forecast, truth, **how),
        "bias": continuous.additive_bias(forecast, truth, **how),
        "acc": continuous.additive_bias(f * o, zero, **how) / np.sqrt(squares[0] * squares[1]),
    }


_PACKAGES = {"xskillscore": _xskillscore, "scores": _scores}


def by_weatherfm(all_of_it: bool, path: Path, store: InventedStore) -> dict[str, np.ndarray]:
    settings = EvaluationConfig(damped_persistence=False, spectra=all_of_it)
    if not all_of_it:
        settings = EvaluationConfig(regions=list(REGIONS), damped_persistence=False, spectra=False, by=[])
    scores = evaluate(path, store, settings=settings).sel(forecast="model", period="all", region=list(REGIONS))
    return {name: scores[name].values for name in ("rmse", "mse", "mae", "bias", "acc")}


def measure(method: str, folder: Path, arguments: argparse.Namespace) -> None:
    """In a process of its own; writes its scores and prints seconds and MB."""
    store = InventedStore(arguments.degrees, arguments.channels, arguments.cases + arguments.leads + 1)
    process = psutil.Process()
    before, most, over = process.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    path = folder / "forecast.zarr"
    if method.startswith("weatherfm"):
        found = by_weatherfm(method.endswith("all"), path, store)
    else:
        found = by_package(method, path, store)
    seconds = time.perf_counter() - begin
    over.set()
    watcher.join()
    np.savez(folder / f"{method}.npz", **found)
    print(seconds, most[0] / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--degrees", type=float, default=5.625)
    parser.add_argument("--cases", type=int, default=365, help="initial times, daily")
    parser.add_argument("--leads", type=int, default=10, help="lead times, daily")
    parser.add_argument("--channels", type=int, default=69)
    parser.add_argument("--repeats", type=int, default=1, help="the least time counts")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="of the forecast; by default a temporary one")
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments.measure, arguments.folder, arguments)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        compare(Path(temporary), arguments)


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    """Write the forecast, measure all methods in turn, print the table."""
    leads = tuple(24 * (i + 1) for i in range(arguments.leads))
    store = InventedStore(arguments.degrees, arguments.channels, arguments.cases + arguments.leads + 1)
    write_forecast(folder / "forecast.zarr", store, arguments.cases, leads)
    size = 4 * arguments.cases * arguments.leads * arguments.channels * store.grid.area_weights.size
    counts = f"{arguments.cases} cases, {arguments.leads} leads, {arguments.channels} channels"
    print(f"{store.grid}, {counts}: {size / 1e9:.2f} GB")
    best: dict[str, tuple[float, float]] = {}
    for _ in range(arguments.repeats):
        for method in arguments.methods:
            passed = [f"--{name}={getattr(arguments, name)}" for name in ("degrees", "cases", "leads", "channels")]
            command = [sys.executable, __file__, *passed, "--measure", method, "--folder", str(folder)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seconds, memory = map(float, done.stdout.split()[-2:])
            best[method] = min(best.get(method, (np.inf, 0.0)), (seconds, memory))
    ours = np.load(folder / f"{arguments.methods[0]}.npz")
    print(f"\n| method | s | times the first | GB/s | memory, MB | largest difference |\n|{'---|' * 6}")
    for method, (seconds, memory) in best.items():
        theirs = np.load(folder / f"{method}.npz")
        largest = max(
            np.max(np.abs(theirs[name] - ours[name]) / np.abs(ours["rmse" if name == "bias" else name]))
            for name in ours
        )
        ratio = seconds / best[arguments.methods[0]][0]
        print(f"| {method} | {seconds:.1f} | {ratio:.1f} | {size / 1e9 / seconds:.2f} | {memory:.0f} | {largest:.1e} |")


if __name__ == "__main__":
    main()
