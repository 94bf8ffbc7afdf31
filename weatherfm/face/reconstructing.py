"""Reconstructions of a masked autoencoder, scored and shown, from Python."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weatherfm.atomic import write_atomically
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.period_config import Days
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.device import choose_precision
from weatherfm.errors import InputError
from weatherfm.evaluation.reconstructions.of_store import score_store, times_to_reconstruct
from weatherfm.evaluation.reconstructions.page import headline, write_page
from weatherfm.evaluation.reconstructions.scores import ReconstructionScores
from weatherfm.face.arguments import count, file_to_write, path_text
from weatherfm.face.runs import Override, RunLike, is_run, read_run
from weatherfm.model.loading import load
from weatherfm.training.checkpoints.export import weights_path
from weatherfm.training.run_config import RunConfig

_PERIODS = ("test", "validation")
_HEADLINE = 3
"""Channels that are shown where they are not at wavelengths."""


class Reconstructed(NamedTuple):
    """What was made of the hidden patches."""

    scores: ReconstructionScores
    page: Path
    """HTML."""
    numbers: Path
    """JSON: the scores by channel, and how they came about."""

    @property
    def headline(self) -> list[str]:
        """The scores in sentences."""
        return headline(self.scores)


def write_reconstruction(
    source: RunLike,
    *overrides: Override,
    store: str | os.PathLike[str] | Store | None = None,
    on: str | None = None,
    samples: int = 6,
    output: str | os.PathLike[str] | None = None,
) -> Reconstructed:
    """Hide patches of states that were not trained on, reconstruct them, and write a page: what `weatherfm reconstruct`
    does.

        made = weatherfm.write_reconstruction("plants.yaml", on="validation")
        made.scores.rmse, made.page

    Args:
        source: a run with `training.objective: reconstruct`, or its weights file (then `store` says where states are).
        overrides: settings of the run to change; none with a weights file.
        store: its folder, or opened; without it, the run's.
        on: test, validation, or days as 2018 or 2018-10-01/2018-10-31; without it, the test period, or, where there
            is none, validation.
        samples: how many states to show.
        output: page to write; without it, reconstruction.html beside the weights, or reconstruction.NAME.html of
            weights.NAME.safetensors. The numbers are written beside it.

    Returns:
        Scores on what was hidden, and where page and numbers are.

    Raises:
        InputError: weights that forecast, a period without states or with days that were trained on, or a store that
            does not fit.
    """
    run = read_run(source, *overrides) if is_run(source) else None
    if run is None and overrides:
        raise InputError(f"{source} is no run: no settings can follow it, got {' '.join(map(str, overrides))}")
    weights = weights_path(run) if run else Path(path_text(source, "a run or a weights file"))
    page = (
        weights.parent / f"reconstruction{_of_store(weights)}.html"
        if output is None
        else file_to_write(output, "output", ".html")
    )
    if page.suffix == ".json":
        raise InputError(f"output is the page, beside which its numbers are written as {page.name}; name an .html file")
    if (shown := count(samples, "samples")) is None:
        raise InputError("samples is how many states to show, got None")
    return _written(weights, page, _store(store, run), run, on, shown)


def _of_store(weights: Path) -> str:
    """`.coarse` of weights.coarse.safetensors, which a run on several stores writes for one of them."""
    return weights.stem.removeprefix("weights") if weights.stem.startswith("weights.") else ""


def _written(
    weights: Path, page: Path, store: Store, run: RunConfig | None, on: str | None, shown: int
) -> Reconstructed:
    model = load(weights, run.training.device if run else "auto")
    if model.config.reconstruction is None:
        raise InputError(
            f"{weights} forecasts (weatherfm forecast); to reconstruct, train with training.objective: reconstruct"
        )
    wanted, period = _period(on, store, run)
    seed = run.training.seed if run else 0
    times = times_to_reconstruct(store, period, model.config.input_times, wanted)
    dtype = choose_precision(run.training.precision if run else "float32", model.mean.device)
    scores, samples = score_store(model, store, times, shown, seed, dtype)
    provenance = {
        "weights": {"file": str(weights), **model.provenance},
        "store": str(store.path),
        "simulated": store.simulated,
        "period": f"{wanted}: {period}" if wanted in _PERIODS else str(period),
        "mask_ratio": model.config.reconstruction.mask_ratio,
        "seed": seed,
    }
    log = weights.with_name("metrics.jsonl")
    write_page(page, scores, samples, provenance, log if log.is_file() else None, model.share.outputs[:_HEADLINE])
    numbers = page.with_suffix(".json")
    write_atomically(numbers, json.dumps(_as_json(scores, provenance), indent=2).encode())
    return Reconstructed(scores, page, numbers)


def _store(given: Any, run: RunConfig | None) -> Store:
    if isinstance(given, Store):
        return given
    if given is not None:
        return open_store(path_text(given, "store"))
    if run is None:
        raise InputError("a weights file does not say where states are; give --store, or the run's YAML file")
    if run.data.mix:
        raise InputError(
            "this run has several stores (data.mix): give the weights for one, weights.safetensors of the first, "
            "weights.NAME.safetensors of the others, and with --store where it is"
        )
    return open_store(run.data.store)


def _period(on: str | None, store: Store, run: RunConfig | None) -> tuple[str, Days | None]:
    """What it is called, and its days."""
    known = {name: (getattr(run.data, name) if run else None) or store.periods.get(name) for name in _PERIODS}
    if on is None:
        on = next((name for name in _PERIODS if known[name] is not None), None)
        if on is None:
            raise InputError(f"{store.path} has neither test nor validation days; say with --on which to reconstruct")
    if on not in _PERIODS:
        return on, parse_settings(Days, on, "--on")
    if known[on] is None:
        raise InputError(f"{store.path} has no {on} days; choose --on {' or '.join(n for n in _PERIODS if known[n])}")
    return on, known[on]


def _as_json(scores: ReconstructionScores, provenance: dict[str, Any]) -> dict[str, Any]:
    columns = {name: getattr(scores, name) for name in ("rmse", "rmse_of_mean", "rmse_of_visible", "skill")}
    by_channel = {
        channel: {name: _number(values[place]) for name, values in columns.items()}
        for place, channel in enumerate(scores.channels)
    }
    vegetation = None if scores.vegetation is None else asdict(scores.vegetation)
    told = {"samples": scores.samples, "hidden": scores.hidden, "ndvi": vegetation, "channels": by_channel}
    return told | {"provenance": provenance}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
