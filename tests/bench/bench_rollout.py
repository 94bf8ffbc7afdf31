"""What rollout training gains at long lead times for the same model steps, and how much of that is smoothing.

    python tests/bench/bench_rollout.py configs/planet.yaml --set model.width=128 --set model.heads=4 --seeds 0 1 \\
        --arm "one step: training.steps=1200 then training.steps=400 training.learning_rate=1e-3" \\
        --arm "four: training.steps=1200 then training.steps=100 training.learning_rate=1e-3 training.rollout.steps.0=4"

An arm is a training, or several with `then` between: each starts from the weights of the one before. What arms share is
trained once, and results are kept in the folder. Forecasts are fed back in steps of the run's `forecast.rollout_step`
from the initial times of `--period`; choose on `validation`, and score what was chosen on `test`, once.

For each lead time: RMSE, the mean over seeds; `score`, the root of the mean over channels of squared error over
persistence's, with its spread over seeds; `ratio`, the geometric mean over channels of RMSE over the first arm's; `p`
of the paired test over initial times (`evaluation.significance`; the score's square, mean over seeds); `activity`, the
size of forecast anomalies over the truth's, the geometric mean over channels; on global grids, the forecasts' power
over the truth's in bands of total wavenumbers. `s` is seconds of processor time of the trainings, all stages.

`smoothed` is the ratio to forecasts of the first arm whose anomalies were given the arm's power; `best filter` the
ratio of the arm behind the filter of anomalies that has the least error on the validation days to the first arm without
one. Filters are by channel, lead time and total wavenumber, on a limited area one factor a channel and lead time. What
the first arm's own best filter gains can be had by smoothing alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

import weatherfm
from weatherfm.data_pipeline.store.states import as_states
from weatherfm.evaluation.forecasting.forecaster import Forecaster
from weatherfm.evaluation.forecasting.open_states import open_place
from weatherfm.evaluation.metrics.spectra import spectra_means, spectra_transforms
from weatherfm.evaluation.significance.p_values import paired_test

POINTWISE = ("error", "persistence", "made", "true")
BANDS = [(1, 4), (5, 9), (10, 21)]


def train(folder: Path, config: str, settings: Sequence[str], stages: Sequence[str], seed: int) -> tuple[Path, float]:
    """Weights of the last stage, and seconds of processor time of all."""
    weights, seconds = None, 0.0
    for stage in stages:
        start = [f"training.start_from.weights={weights}"] if weights else []
        run = weatherfm.read_run(config, *settings, *stage.split(), *start, f"training.seed={seed}")
        manifest = Path(run.data.store, "manifest.json").read_text()
        what = json.dumps([run.model_dump(mode="json", exclude={"run", "forecast", "evaluation"}), manifest])
        place = folder / hashlib.sha256(what.encode()).hexdigest()[:12]
        told = place / "seconds"
        if not told.exists():
            before = time.process_time()
            weatherfm.train(run.model_copy(update={"run": str(place)}))
            told.write_text(str(time.process_time() - before))
        weights, seconds = place / "weights.safetensors", seconds + float(told.read_text())
    return weights, seconds


def scored(weights: Path, run, leads: Sequence[str], period: str) -> dict[str, np.ndarray]:
    """Squared error, that of persistence, squared anomalies of forecast and truth [init, lead, channel]; power of
    anomalies and error [init, lead, channel, wavenumber], of all wavenumbers in one where the grid has no spectra."""
    kept = weights.with_name(f"{period}_{'_'.join(leads)}.npz")
    if kept.exists():
        return dict(np.load(kept))
    model, store = weatherfm.load(weights), weatherfm.open_store(run.data.store)
    settings = run.forecast.model_copy(update={"mode": "rollout", "lead_times": [int(lead[:-1]) for lead in leads]})
    channels = model.domain.channels
    days = store.times[store.periods[period].contains(store.times)]
    hours = [np.timedelta64(lead, "h") for lead in settings.lead_times]
    first = days[0] - np.timedelta64(min(model.config.input_times), "h")
    inits = days[(days >= first) & (days + hours[-1] <= days[-1])]
    rows = [np.arange(i, min(i + 16, len(inits))) for i in range(0, len(inits), 16)]
    area, transforms = np.asarray(model.domain.grid.area_weights, np.float64), spectra_transforms(model.domain.grid)
    found = {key: np.empty((len(inits), len(hours), len(channels))) for key in POINTWISE}
    if transforms is not None and transforms.spherical is not None:
        shape = (len(inits), len(hours), len(channels), len(transforms.total_wavenumbers))
        found |= {f"spherical_{of}": np.empty(shape) for of in ("forecast", "truth", "error")}
    forecaster = Forecaster(model, as_states(open_place(run.data.store, channels, model.provenance)), settings)
    with closing(forecaster.make([inits[i] for i in rows])) as stream:
        for made in stream:
            at = rows[made.group], made.lead
            valid = inits[at[0]] + hours[made.lead]
            normal = store.climatology_at(valid, channels)
            truth = store.read(store.index_of(valid), channels) - normal
            guess = made.fields[:, 0].numpy() - normal
            start = store.read(store.index_of(inits[at[0]]), channels) - normal
            for key, field in zip(POINTWISE, (guess - truth, start - truth, guess, truth), strict=True):
                found[key][at] = (np.square(field, dtype=np.float64) * area).mean((-1, -2))
            if "spherical_error" in found:
                for key, power in spectra_means(guess, truth, transforms).items():
                    if key in found:
                        found[key][at] = power
    for of, key in (("forecast", "made"), ("truth", "true"), ("error", "error")):
        found.setdefault(f"spherical_{of}", found[key][..., None])
    np.savez(kept, inits=inits, **found)
    return dict(np.load(kept))


def filtered(one: dict[str, np.ndarray], factors: np.ndarray) -> np.ndarray:
    """Squared error [init, lead, channel] of forecasts whose anomalies are multiplied, [lead, channel, wavenumber]."""
    made, both = one["spherical_forecast"], common(one)
    return one["error"] + ((np.square(factors) - 1) * made - 2 * (factors - 1) * both).sum(-1)


def common(one: dict[str, np.ndarray]) -> np.ndarray:
    """What forecast and truth have in common, [init, lead, channel, wavenumber]."""
    return (one["spherical_forecast"] + one["spherical_truth"] - one["spherical_error"]) / 2


def ratio(above: np.ndarray, below: np.ndarray) -> float:
    """Geometric mean over channels of the ratio of two roots of means."""
    return float(np.exp(np.log(above / below).mean() / 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[], help="a setting of all, section.key=value")
    parser.add_argument("--arm", action="append", required=True, help="name: settings [then settings]")
    parser.add_argument("--leads", nargs="+", default=["24h", "48h", "72h", "120h"])
    parser.add_argument("--period", choices=["validation", "test"], default="validation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/rollout"))
    options = parser.parse_args()
    run = weatherfm.read_run(options.config, *options.set)
    if not Path(run.data.store).exists():
        weatherfm.prepare(options.config, *options.set)
    arms: dict[str, list[dict]] = {}
    for seed in options.seeds:
        for arm in options.arm:
            name, _, stages = arm.partition(":")
            weights, seconds = train(options.folder, options.config, options.set, stages.split(" then "), seed)
            found = scored(weights, run, options.leads, options.period)
            fitted = scored(weights, run, options.leads, "validation")
            arms.setdefault(name, []).append(found | {"seconds": seconds, "fitted": fitted})
    print_table(arms, options.leads, weatherfm.open_store(run.data.store).channels)


def print_table(arms: dict[str, list[dict]], leads: Sequence[str], channels: Sequence[str]) -> None:
    """A line an arm and lead time."""
    shown = [name for name in ("z500", "t850", "msl") if name in channels]
    first = next(iter(arms.values()))
    powers = [f"power {a}..{b}" for a, b in BANDS if b < first[0]["spherical_error"].shape[-1]]
    heads = ["lead", "arm", "s", *shown, "score", "ratio", "p", "activity", *powers, "smoothed", "best filter"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for lead, hours in enumerate(leads):
        for name, ones in arms.items():
            error = np.mean([one["error"][:, lead] for one in ones], (0, 1))  # [channel]
            before = np.mean([one["error"][:, lead] for one in first], (0, 1))
            cases = np.stack([(one["error"] / one["persistence"].mean(0)).mean(-1)[:, lead] for one in ones])
            others = np.stack([(one["error"] / one["persistence"].mean(0)).mean(-1)[:, lead] for one in first])
            score, p = np.sqrt(cases.mean(1)), ""
            if ones is not first:
                p = f"{float(paired_test((cases - others).mean(0), ones[0]['inits']).p_value):.2g}"
            spread = f" ± {score.std(ddof=1):.4f}" if len(score) > 1 else ""
            active = ratio(*(np.mean([one[key][:, lead] for one in ones], (0, 1)) for key in ("made", "true")))
            cells = [hours, name, f"{np.mean([one['seconds'] for one in ones]):.0f}"]
            cells += [f"{np.sqrt(error[channels.index(channel)]):.4g}" for channel in shown]
            cells += [f"{score.mean():.4f}{spread}", f"{ratio(error, before):.3f}", p, f"{active:.3f}"]
            cells += wave_cells(ones, first, lead, error, before)
            print("| " + " | ".join(cells) + " |")


def wave_cells(ones: list[dict], first: list[dict], lead: int, error: np.ndarray, before: np.ndarray) -> list[str]:
    """Power ratios by band, the ratio to the first arm smoothed, and the own best filter's."""
    made, truth = (np.mean([one[f"spherical_{of}"][:, lead] for one in ones], (0, 1)) for of in ("forecast", "truth"))
    bands = [slice(a, b + 1) for a, b in BANDS if b < made.shape[-1]]
    cells = [f"{ratio(made[:, band].sum(-1), truth[:, band].sum(-1)) ** 2:.2f}" for band in bands]
    like, best = [], []
    for one, plain in zip(ones, first, strict=True):
        power = [np.mean(x["spherical_forecast"], 0) for x in (one, plain)]  # [lead, channel, wavenumber]
        like.append(filtered(plain, np.sqrt(power[0] / np.maximum(power[1], 1e-300)))[:, lead])
        fit = one["fitted"]
        best.append(filtered(one, common(fit).mean(0) / np.maximum(fit["spherical_forecast"].mean(0), 1e-300))[:, lead])
    return [*cells, f"{ratio(error, np.mean(like, (0, 1))):.3f}", f"{ratio(np.mean(best, (0, 1)), before):.3f}"]


if __name__ == "__main__":
    main()
