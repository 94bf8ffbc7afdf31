"""What the forms of aggregation over channels cost in quality: same data, steps and seeds, flat first.

    python tests/bench/bench_quality.py planet
    python tests/bench/bench_quality.py europe --files "era_interim_europe/*.nc" --seeds 3
    python tests/bench/bench_quality.py leaves
    python tests/bench/bench_quality.py planet --form "attention 8: groups=8 local=attention" --set training.steps=900

Trains one run a form and seed, and scores it on all initial times of the test days; of leaves, masked autoencoders, on
the hidden pixels of all test pictures, `all` being all channels in units of their std. A cell is the RMSE, of squared
errors averaged over seeds; in brackets by how much it is above that of the flat form, the lowest and the highest such
number of a seed, and p of the paired test over one initial time a day, of the mean over seeds. Results are kept in
the folder: a bench that was stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from errors_by_init import errors_of, inits_of

import weatherfm
from weatherfm.evaluation.significance.p_values import paired_test

FORMS = ["flat:"] + [
    f"{local} {groups}{f', tree {tree}' if tree > 1 else ''}: groups={groups} local={local} tree={tree}"
    for local in ("attention", "linear")
    for groups, tree in ((2, 1), (4, 1), (8, 1), (4, 2))
]
OF_THREE = ["flat:"] + [
    f"{local} {groups}: groups={groups} local={local}" for local in ("attention", "linear") for groups in (2, 3)
]
"""Europe has three channels."""
STEPS = "training.steps=400"
SMALLER = ["data.regrid={gaussian: 8}", "model.truncation=null", "model.width=128", "model.depth=2", STEPS]
CASES = {
    "planet": ("configs/planet.yaml", ("z500", "t850", "u850", "v850"), SMALLER, FORMS),
    "leaves": ("configs/plant_mae.yaml", ("refl660", "refl800", "refl1440", "refl2200", "all"), [STEPS], FORMS),
    "europe": (
        "configs/era_interim_europe.yaml",
        ("z500", "t850", "msl"),
        ["model.depth=2", STEPS],
        OF_THREE,
    ),
}
"""Case -> configuration, channels that are shown, what is smaller than there, and forms."""


def measure(folder: Path, case: str, settings: list[str], form: str, seed: int) -> dict:
    """Train and score, unless the folder has it."""
    config, shown, smaller, _ = CASES[case]
    chosen = [f"model.aggregation.{one}" for one in form.split()]
    chosen += ["model.aggregation.kind=hierarchical"] if chosen else []
    run = weatherfm.read_run(config, *smaller, *settings, *chosen, f"training.seed={seed}")
    if not Path(run.data.store).exists():
        weatherfm.prepare(run)
    manifest = Path(run.data.store, "manifest.json").read_bytes()
    what = json.dumps(run.model_dump(mode="json", exclude={"run"})).encode() + manifest
    run = run.model_copy(update={"run": str(folder / hashlib.sha256(what).hexdigest()[:12])})
    spent, kept = run.folder / "seconds.json", run.folder / "errors.npz"
    if not spent.exists():
        start = time.process_time()
        if weatherfm.train(run).weights is None:
            raise SystemExit("stopped; call again to go on")
        spent.write_text(json.dumps(time.process_time() - start))
    if not kept.exists():
        scored = reconstruction_errors if run.model.reconstruction else errors_of
        np.savez(kept, errors=scored(run.folder / "weights.safetensors", run, "test", shown))
    return {"run": run, "errors": np.load(kept)["errors"], "seconds": json.loads(spent.read_text())}


def reconstruction_errors(weights: Path, run, period: str, shown: tuple[str, ...]) -> np.ndarray:
    """[picture, 1, channel] mean squared errors on hidden pixels; the last is of all, in units of their std."""
    model, store = weatherfm.load(weights), weatherfm.open_store(run.data.store)
    times = times_of(run, period)
    states = store.read(store.index_of(times), model.domain.channels)
    made = weatherfm.reconstruct(model, states, times=times, seed=0)  # of all seeds the same pixels are hidden
    hidden = made.hidden[:, None]
    squares = np.square(made.fields.astype(float) - states)
    errors = (squares * hidden).sum((-2, -1)) / hidden.sum((-2, -1))  # [picture, channel]
    places = [model.domain.channels.index(name) for name in shown[:-1]]
    return np.concatenate([errors[:, places], (errors / model.domain.std**2).mean(1, keepdims=True)], 1)[:, None]


def times_of(run, period: str) -> np.ndarray:
    """Initial times that are scored, or pictures."""
    store = weatherfm.open_store(run.data.store)
    if run.model.reconstruction is None:
        return inits_of(store, run, period)
    return store.times[store.periods[period].contains(store.times)]


def print_table(shown: tuple[str, ...], forms: dict[str, list[dict]]) -> None:
    """A line a form."""
    run = next(iter(forms.values()))[0]["run"]
    inits = times_of(run, "test")
    leads = [0] if run.model.reconstruction else run.forecast.lead_times
    lines = {name: np.stack([one["errors"] for one in ones]) for name, ones in forms.items()}
    flat = next(iter(lines.values()))  # [seed, init, lead, channel]
    places = [(i, c) for i, lead in enumerate(leads) if lead in (0, 24, 72) for c in range(len(shown))]
    daily = max(1, round(np.timedelta64(24, "h") / (inits[1] - inits[0])))
    print(f"\n{len(inits)} initial times, {len(flat)} seeds; RMSE (above flat, of single seeds, p)")
    print("| | " + " | ".join(f"{shown[c]} {leads[i]}h" for i, c in places) + " | CPU s |")
    print("|---" * (len(places) + 2) + "|")
    for name, errors in lines.items():
        cells = [_cell(errors[..., i, c], flat[..., i, c], inits, daily, errors is flat) for i, c in places]
        print("| " + " | ".join([name, *cells, f"{np.mean([one['seconds'] for one in forms[name]]):.0f}"]) + " |")


def _cell(errors: np.ndarray, flat: np.ndarray, inits: np.ndarray, daily: int, is_flat: bool) -> str:
    """Of [seed, init] squared errors."""
    rmse = f"{np.sqrt(errors.mean()):.4g}"
    if is_flat:
        return rmse
    above = 100 * (np.sqrt(errors.mean() / flat.mean()) - 1)
    seeds = 100 * (np.sqrt(errors.mean(1) / flat.mean(1)) - 1)
    p = float(paired_test((errors.mean(0) - flat.mean(0))[::daily], inits[::daily]).p_value)
    return f"{rmse} ({above:+.1f} %, {seeds.min():+.1f} to {seeds.max():+.1f}, {p:.1g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--files", help="of Europe")
    parser.add_argument("--set", action="append", default=[], help="a setting of all, section.key=value")
    parser.add_argument("--form", action="append", help="name: settings of model.aggregation, with spaces between")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/quality"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    settings = [f"data.store={options.folder / options.case}.zarr", *options.set]
    settings += [f"data.source.paths=[{options.files}]"] if options.files else []
    forms: dict[str, list[dict]] = {}
    for seed in range(options.seeds):
        for name, form in (one.partition(":")[::2] for one in options.form or CASES[options.case][3]):
            found = measure(options.folder, options.case, settings, form, seed)
            forms.setdefault(name, []).append(found)
            print(f"seed {seed}, {name}: {found['seconds']:.0f} s of the processor", flush=True)
    print_table(CASES[options.case][1], forms)


if __name__ == "__main__":
    main()
