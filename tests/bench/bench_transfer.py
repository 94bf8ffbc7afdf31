"""What weights of three planets are worth on a fourth of which 30 days are known, on its own grid and on a coarser one.

    python tests/bench/bench_transfer.py
    python tests/bench/bench_transfer.py --on validation --seeds 1 --arm "slow: training.learning_rate=5e-4"
    python tests/bench/bench_transfer.py --grid "24 x 48: data.regrid={gaussian: 12}"
    python tests/bench/bench_transfer.py --set model.mlp_convolution=false --pretraining "forecasts:" \
        --pretraining "masked: training.objective=reconstruct model.reconstruction.width=64
                       -training.lead_times -model.decoder_fields -model.truncation -forecast"

Trains `configs/pretrain_planets.yaml`, then seed by seed the arms of `configs/finetune_planet.yaml`; an arm without
`training.start_from=null` starts from these weights, from those of each pretraining where there are several; of these
a setting behind a minus is left out. An arm's line is its RMSE on the days of `--on`, from all initial times there, of
squared errors averaged over seeds; baselines are fitted on the training days. In brackets
is how much lower the first arm's RMSE is, with p of the paired test over initial times of the mean over seeds
(`evaluation.significance`), of all and of one a day (6 h apart differences can be so alike that the test gives up, and
says 0.1), and the number of seeds of which it is lower. Results are kept in the folder: a bench that was
stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from errors_by_init import baseline_errors, errors_of, inits_of

import weatherfm
from weatherfm.evaluation.significance.p_values import paired_test

PRETRAINING, FINE_TUNING = "configs/pretrain_planets.yaml", "configs/finetune_planet.yaml"
ARMS = [
    "fine-tuned:",
    "from nothing, the same: training.start_from=null",
    "from nothing, its best: training.start_from=null training.steps=450 training.learning_rate=3e-3",
]
GRIDS = ["32 x 64:", "24 x 48: data.regrid={gaussian: 12}"]
SHOWN = ("z500", "t850", "t925", "u400")
"""The last two are not in the weights."""


def pretrain(folder: Path, name: str, settings: list[str], seed: int) -> tuple[Path, float]:
    """The run's folder, and seconds of the processor."""
    place = folder / "-".join(word for word in ("pretrain", name, str(seed)) if word)
    config = yaml.safe_load(Path(PRETRAINING).read_text())
    for section, _, key in (word[1:].partition(".") for word in settings if word.startswith("-")):
        del (config[section] if key else config)[key or section]
    given = [word for word in settings if not word.startswith("-")]
    run = weatherfm.read_run(config, *given, f"training.seed={seed}", f"run={place}")
    made, spent = run.folder / "foundation.safetensors", run.folder / "seconds.json"
    if not made.exists():
        weatherfm.prepare(run)
        train(run, spent)
    return run.folder, json.loads(spent.read_text()) if spent.exists() else float("nan")


def train(run, spent: Path) -> None:
    """Notes seconds of the processor, of the last of several goes."""
    start = time.process_time()
    if weatherfm.train(run).weights is None:
        raise SystemExit("stopped; call again to go on")
    spent.write_text(json.dumps(time.process_time() - start))


def measure(folder: Path, settings: list[str], seed: int, weights: Path, period: str) -> dict:
    """Train and score, unless the folder has it."""
    own = [] if any("start_from=null" in one for one in settings) else [f"training.start_from.weights={weights}"]
    run = weatherfm.read_run(FINE_TUNING, *settings, *own, f"training.seed={seed}")
    if not Path(run.data.store).exists():
        weatherfm.prepare(run)
    known = (weights / "foundation.safetensors").read_bytes() if own else b""
    manifest = Path(run.data.store, "manifest.json").read_bytes()
    what = json.dumps(run.model_dump(mode="json", exclude={"run"})).encode() + manifest + known
    run = run.model_copy(update={"run": str(folder / hashlib.sha256(what).hexdigest()[:12])})
    made, spent = run.folder / "weights.safetensors", run.folder / "seconds.json"
    if not spent.exists():
        train(run, spent)
    kept = run.folder / f"errors-{period}.npz"
    if not kept.exists():
        np.savez(kept, errors=errors_of(made, run, period, SHOWN))
    return {"run": run, "errors": np.load(kept)["errors"], "seconds": json.loads(spent.read_text())}


def print_table(arms: dict[str, list[dict]], period: str) -> None:
    """A line an arm and baseline."""
    run = next(iter(arms.values()))[0]["run"]
    inits, leads = inits_of(weatherfm.open_store(run.data.store), run, period), run.forecast.lead_times
    # [seed, init, lead, channel]
    lines = {name: np.stack([one["errors"] for one in ones]) for name, ones in arms.items()}
    lines |= {name: errors[None] for name, errors in baseline_errors(run, period, SHOWN).items()}
    first = next(iter(lines.values()))
    daily = round(np.timedelta64(24, "h") / (inits[1] - inits[0]))
    heads = [f"{name} {lead}h" for lead in leads for name in SHOWN]
    print(
        f"\n{len(inits)} initial times of {period}, {len(first)} seeds; cell: RMSE (less, p, p of daily times, seeds)"
    )
    print("| | " + " | ".join(heads) + " | CPU s |")
    print("|---" * (len(heads) + 2) + "|")
    for name, errors in lines.items():
        cells = []
        for lead in range(len(leads)):
            for channel in range(len(SHOWN)):
                ours, theirs = first[..., lead, channel], errors[..., lead, channel]
                cell = f"{np.sqrt(theirs.mean()):.4g}"
                if errors is not first:
                    difference = ours.mean(0) - theirs.mean(0)
                    p, at_midnight = (
                        float(paired_test(difference[::every], inits[::every]).p_value) for every in (1, daily)
                    )
                    less = 100 * (1 - np.sqrt(ours.mean() / theirs.mean()))
                    wins = (ours.mean(1) < theirs.mean(1)).sum()
                    cell += f" ({less:.0f} %, {p:.1g}, {at_midnight:.1g}, {wins})"
                cells.append(cell)
        seconds = f"{np.mean([one['seconds'] for one in arms[name]]):.0f}" if name in arms else ""
        print("| " + " | ".join([name, *cells, seconds]) + " |")
    for name in arms:
        roots = np.sqrt(lines[name].mean(1))[:, 0]
        print(f"{name}, {leads[0]}h by seed:", ", ".join("/".join(f"{value:.4g}" for value in one) for one in roots))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], help="a setting of all, section.key=value")
    parser.add_argument("--arm", action="append", help="name: settings, with spaces between")
    parser.add_argument("--grid", action="append", help="name: settings")
    parser.add_argument("--on", choices=["validation", "test"], default="test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretraining", action="append", help="name: settings of pretraining alone")
    parser.add_argument(
        "--pretrainings", type=int, default=1, help="seeds of pretraining, dealt out to those of the arms"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/transfer"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    grids = [one.partition(":")[::2] for one in options.grid or GRIDS]
    found: dict[str, dict[str, list[dict]]] = {grid: {} for grid, _ in grids}
    for seed in range(options.seeds):
        weights = {}
        for name, settings in (one.partition(":")[::2] for one in options.pretraining or [":"]):
            own = [*options.set, *settings.split()]
            weights[name], seconds = pretrain(options.folder, name, own, seed % options.pretrainings)
            print(f"seed {seed}: its pretraining {name} took {seconds:.0f} s of the processor", flush=True)
        for grid, of_grid in grids:
            place = [f"data.store={options.folder / grid.replace(' ', '')}.zarr"]
            place += [of_grid.strip()] if of_grid.strip() else []
            for arm, settings in (one.partition(":")[::2] for one in options.arm or ARMS):
                starts = [next(iter(weights))] if "start_from=null" in settings else weights
                for name in starts:
                    line = f"{arm}, {name}" if name and starts is weights else arm
                    all_of = [*options.set, *place, *settings.split()]
                    one = measure(options.folder, all_of, seed, weights[name], options.on)
                    found[grid].setdefault(line, []).append(one)
                    print(f"seed {seed}, {line}: {one['seconds']:.0f} s of the processor", flush=True)
    for grid, arms in found.items():
        print(f"\n## {grid}")
        print_table(arms, options.on)


if __name__ == "__main__":
    main()
