"""What a forecast loses where states lack channels: scores by the share of channels that is withheld.

    python tests/bench/bench_missing.py configs/planet.yaml runs/with/weights.safetensors runs/demo/weights.safetensors
    python tests/bench/bench_missing.py RUN.yaml WEIGHTS --shares 0 0.1 0.5 --days 40 --draws 5

Forecasts start from days of the store's test period, or of its validation period where it has no other; which channels
are withheld is drawn from the seed, several times. Shown is a forecast's RMSE over that of the same weights with all
channels, the geometric mean over lead times and channels: those that were there, those that were withheld, and all.
`climatology` is the RMSE of the mean of those withheld, which is what is known of them at least, over the same. Weights
that were trained with `training.channel_sampling` and without stand below each other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

import weatherfm
from weatherfm.data_pipeline.store.states import StoreStates
from weatherfm.evaluation.forecasting.forecaster import Forecaster
from weatherfm.model.model import WeatherViT
from weatherfm.training.feeding.samples import spread_evenly


def init_times(store, run, model: WeatherViT, count: int) -> np.ndarray:
    """At most `count` initial times [I] with inputs and truth in the period."""
    period = store.periods["test"] or store.periods["validation"]
    days = store.times[period.contains(store.times)]
    first = days[0] - np.timedelta64(min(model.config.input_times), "h")
    last = days[-1] - np.timedelta64(run.forecast.lead_times[-1], "h")
    return spread_evenly(days[(days >= first) & (days <= last)], count)


def errors(model: WeatherViT, store, run, inits: np.ndarray, missing: Sequence[str]) -> np.ndarray:
    """RMSE [L, C] of forecasts without some channels, physical units."""
    channels, leads = model.domain.channels, run.forecast.lead_times
    area = torch.from_numpy(np.asarray(model.domain.grid.area_weights)).double()
    there = torch.from_numpy(model.domain.present)  # [C, H, W]
    weights = area * there / (area * there).sum((-1, -2), keepdim=True)
    rows = [inits[i : i + 16] for i in range(0, len(inits), 16)]
    total = np.zeros((len(leads), len(channels)))
    with closing(Forecaster(model, StoreStates(store), run.forecast, missing=missing).make(rows)) as stream:
        for made in stream:
            times = rows[made.group] + np.timedelta64(leads[made.lead], "h")
            truth = torch.from_numpy(store.read(store.index_of(times), channels)).double()
            error = torch.where(there, made.fields[:, 0].double().cpu() - truth, 0)
            total[made.lead] += (error.square() * weights).sum((-1, -2)).sum(0).numpy()
    return np.sqrt(total / len(inits))


def ratios(model: WeatherViT, store, run, options: argparse.Namespace) -> list[list[float]]:
    """By share: geometric means of RMSE ratios over channels that were there, over those withheld and over all; and of
    climatology's over those withheld."""
    channels = model.domain.channels
    inits = init_times(store, run, model, options.days)
    whole = errors(model, store, run, inits, ())
    table = []
    for share in options.shares:
        logs: list[list[np.ndarray]] = [[], [], [], []]
        for draw in range(options.draws if share else 1):
            rng = np.random.default_rng([options.seed, draw])  # more is withheld of what was withheld before
            order = rng.permutation(len(channels))
            absent = np.isin(np.arange(len(channels)), order[: min(round(share * len(channels)), len(channels) - 1)])
            names = [name for name, gone in zip(channels, absent, strict=True) if gone]
            ratio = np.log((errors(model, store, run, inits, names) if names else whole) / whole)  # [L, C]
            mean = np.log(model.domain.std / whole)
            for kept, part in zip(logs, (ratio[:, ~absent], ratio[:, absent], ratio, mean[:, absent]), strict=True):
                kept.append(part.ravel())
        table.append([float(np.exp(np.concatenate(kept).mean())) if np.concatenate(kept).size else 1 for kept in logs])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("weights", nargs="*", type=Path, help="files; by default the run's")
    parser.add_argument("--set", action="append", default=[], help="a setting, section.key=value")
    parser.add_argument("--shares", nargs="+", type=float, default=[0, 0.1, 0.25, 0.5])
    parser.add_argument("--days", type=int, default=32, help="initial times")
    parser.add_argument("--draws", type=int, default=3, help="of the channels that are withheld")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = weatherfm.read_run(options.config, *options.set)
    store = weatherfm.open_store(run.data.store)
    print("| weights | channels withheld | those there | those withheld | all | climatology of the withheld |")
    print("|---|---|---|---|---|---|")
    for path in options.weights or [run.folder / "weights.safetensors"]:
        model = weatherfm.load(path, run.forecast.device)
        for share, means in zip(options.shares, ratios(model, store, run, options), strict=True):
            cells = [f"{value:.3f}" for value in means[:3]] + [f"{means[3]:.3f}" if share else ""]
            print(f"| {path.parent.name} | {100 * share:.0f} % | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
