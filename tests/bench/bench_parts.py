"""What each part of a model gains, and what it costs: trained from several seeds, scored on validation days, paired.

    python tests/bench/bench_parts.py configs/planet.yaml --set training.steps=300 --set model.width=128
    python tests/bench/bench_parts.py RUN.yaml --part "wide: model.width=256" --part "low: model.depth=2"

The first line is the run with `--set` and `--base`; each part changes some of its settings, by default the parts of
local structure, alone and together. A forecast's score is its mean squared error over persistence's of all forecasts,
the mean over channels and lead times; what is shown is its root. `p` is of the paired test over initial times
(`evaluation.significance`), of the mean over seeds; `wins` counts the seeds that gained. Time is that of the processor
for a whole training over its steps, memory what `weatherfm plan` counts. Seeds are the outer loop: what is compared ran
side by side, and results are kept in the folder, so that a bench that was stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from contextlib import closing
from functools import reduce
from pathlib import Path

import numpy as np
import torch

import weatherfm
from weatherfm.data_pipeline.store.states import as_states
from weatherfm.evaluation.forecasting.forecaster import Forecaster
from weatherfm.evaluation.forecasting.open_states import open_place
from weatherfm.evaluation.significance.p_values import paired_test

PLAIN = "model.mlp_convolution=false model.rotary=false model.decoder_fields=0 model.truncation=null"
PARTS = [
    "mlp_convolution: model.mlp_convolution=true",
    "rotary: model.rotary=true",
    "decoder: model.decoder_fields=2",
    "these three: model.mlp_convolution=true model.rotary=true model.decoder_fields=2",
    "truncation: model.truncation=21",
    "all four: model.mlp_convolution=true model.rotary=true model.decoder_fields=2 model.truncation=21",
]


def squared_errors(weights: Path, run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Initial times of the validation period; mean squared errors [init, lead, channel] of model and persistence."""
    model, store = weatherfm.load(weights), weatherfm.open_store(run.data.store)
    period, channels = store.periods["validation"], model.domain.channels
    days = store.times[period.contains(store.times)]
    hours = [np.timedelta64(hours, "h") for hours in run.forecast.lead_times]
    first = days[0] - np.timedelta64(min(model.config.input_times), "h")
    inits = days[(days >= first) & (days + hours[-1] <= days[-1])]
    area = torch.from_numpy(np.asarray(model.domain.grid.area_weights)).double()
    forecaster = Forecaster(model, as_states(open_place(run.data.store, channels, model.provenance)), run.forecast)
    errors = np.empty((2, len(inits), len(hours), len(channels)))
    rows = [np.arange(i, min(i + 16, len(inits))) for i in range(0, len(inits), 16)]

    def fields(times: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(store.read(store.index_of(times), channels)).double()

    with closing(forecaster.make([inits[i] for i in rows])) as stream:
        for made in stream:
            of, lead = rows[made.group], made.lead
            truth = fields(inits[of] + hours[lead])
            for kind, guess in enumerate((made.fields[:, 0].double(), fields(inits[of]))):
                errors[kind, of, lead] = ((guess - truth).square() * area).mean((-1, -2))
    return inits, *errors


def measure(folder: Path, config: str, settings: list[str], seed: int) -> dict:
    """Train and score, unless the folder has it."""
    run = weatherfm.read_run(config, *settings, f"training.seed={seed}", "training.checkpoint_every=1000000")
    manifest = Path(run.data.store, "manifest.json").read_text()
    what = json.dumps([run.model_dump(mode="json", exclude={"run"}), manifest])
    name = hashlib.sha256(what.encode()).hexdigest()[:12]
    kept, run = folder / f"{name}.npz", run.model_copy(update={"run": str(folder / name)})
    if not kept.exists():
        start = time.process_time()
        trained = weatherfm.train(run)
        seconds = time.process_time() - start
        inits, model, persistence = squared_errors(trained.weights, run)
        np.savez(kept, inits=inits, model=model, persistence=persistence, seconds=seconds / run.training.steps)
    return dict(np.load(kept)) | {"run": run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[], help="a setting of all, section.key=value")
    parser.add_argument("--base", default=PLAIN, help="settings of the first line")
    parser.add_argument("--part", action="append", help="name: settings, with spaces between")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/parts"))
    options = parser.parse_args()
    if not Path(weatherfm.read_run(options.config, *options.set).data.store).exists():
        weatherfm.prepare(options.config, *options.set)
    options.folder.mkdir(parents=True, exist_ok=True)
    base = [*options.set, *options.base.split()]
    parts = {"(without)": base}
    for part in options.part or PARTS:
        name, _, settings = part.partition(":")
        parts[name] = [*base, *settings.split()]
    found: dict[str, list[dict]] = {name: [] for name in parts}
    for seed in range(options.seeds):
        for name, settings in parts.items():
            found[name].append(measure(options.folder, options.config, settings, seed))
    print_table(found)


def print_table(found: dict[str, list[dict]]) -> None:
    """A line a part; all on the initial times that each can forecast from."""
    found = at_common_times(found)
    first = next(iter(found.values()))
    run = first[0]["run"]
    store, leads = weatherfm.open_store(run.data.store), run.forecast.lead_times
    shown = [name for name in ("z500", "t850", "msl") if name in store.channels]
    places = [(lead, name) for lead in (0, -1) for name in shown]
    scores = {name: np.stack([score(one) for one in ones]) for name, ones in found.items()}  # [seed, init]
    plain, time_of = scores["(without)"], lambda ones: np.mean([one["seconds"] for one in ones])
    heads = [f"{name} {leads[lead]}h" for lead, name in places]
    plain_peak = peak(first)
    print("| part | score | " + " | ".join(heads) + " | gain | p | wins | time | memory |")
    print("|---" * (len(heads) + 7) + "|")
    for name, ones in found.items():
        error = np.sqrt(np.mean([one["model"] for one in ones], (0, 1)))  # [lead, channel]
        values = [f"{error[lead, store.channels.index(channel)]:.4g}" for lead, channel in places]
        root, before = np.sqrt(scores[name].mean(1)), np.sqrt(plain.mean(1))
        test = paired_test((scores[name] - plain).mean(0), ones[0]["inits"])
        gain = f"{100 * (1 - root.mean() / before.mean()):.1f} %"
        told = ["", "", ""] if name == "(without)" else [gain, f"{float(test.p_value):.2g}", f"{(root < before).sum()}"]
        memory = peak(ones) / plain_peak
        cells = [f"{root.mean():.4f} ± {root.std(ddof=1):.4f}" if len(root) > 1 else f"{root.mean():.4f}", *values]
        print("| " + " | ".join([name, *cells, *told, f"{time_of(ones) / time_of(first):.2f}", f"{memory:.2f}"]) + " |")


def at_common_times(found: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Errors [init, lead, channel] at the initial times that all have: earlier input times leave fewer."""
    common = reduce(np.intersect1d, [one["inits"] for ones in found.values() for one in ones])

    def cut(one: dict) -> dict:
        rows = np.isin(one["inits"], common)
        return one | {key: one[key][rows] for key in ("inits", "model", "persistence")}

    return {name: [cut(one) for one in ones] for name, ones in found.items()}


def peak(ones: list[dict]) -> float:
    """Bytes that a training step holds on one device."""
    return weatherfm.plan(ones[0]["run"], devices=1, memory=64).recommended.count.peak


def score(one: dict) -> np.ndarray:
    """[init]."""
    return (one["model"] / one["persistence"].mean(0)).mean((1, 2))


if __name__ == "__main__":
    main()
