"""What a resumed run must share with its checkpoint: all that decides the weights it ends with, but for rounding.

And what it need not share, but may not mix up: the samples that validation losses are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from weatherfm.data_pipeline.fields.time_axis import name_times
from weatherfm.data_pipeline.store.records.manifest import checksum
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.training.checkpoints.checkpoint import Saved
from weatherfm.training.checkpoints.prolong import AHEAD, cooldown_record, is_before_cooldown
from weatherfm.training.checkpoints.state import Progress
from weatherfm.training.feeding.data_identity import describe_data
from weatherfm.training.feeding.samples import training_period, validation_inits
from weatherfm.training.parts import Part
from weatherfm.training.ranks.coordination import Coordination
from weatherfm.training.run_config import RunConfig

_FREE = {
    "device",
    "compile",
    "workers",
    "cache",
    "wandb",
    "log_every",
    "validate_every",
    "validation_samples",
    "early_stopping",
    "export",
    "checkpoint_every",
    "keep_checkpoints",
    "precision",
    "start_from",
}
"""Training settings that may change on the way: they move, watch or keep the run. (Precision enters as resolved,
weights to start from by their digest.)"""

_HOW = {"model.aggregation.evaluate", "model.aggregation.block_mib"}
"""Settings of the model that may change as well: the same function is computed in another way."""


def find_identity(
    config: RunConfig,
    parts: Sequence[Part],
    dtype: torch.dtype,
    saved: Mapping[str, Any] | None = None,
    alive: Callable[[], None] = lambda: None,
    start: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """JSON-able, for the record of a checkpoint: what decides the weights, what decides the validation loss, the data.

    Args:
        config: of the run.
        parts: its stores.
        dtype: of matrix products.
        saved: record of the checkpoint to go on from, which spares reading a store that has not changed.
        alive: called now and then.
        start: weights that the run started from, by digest, and how; None: initial values.
    """
    known = None if saved is None else saved.get("data")
    settings = _settings(config, dtype) | ({} if start is None else {"start_from": dict(start)})
    if len(parts) == 1:
        used, validation, data = _of_store(config, parts[0].store, known, alive)
        return {"settings": settings | {"data": used}, "validation": validation, "data": data}
    found = {}
    for part in parts:
        own = None if known is None or part.name not in known else known[part.name]
        found[part.name] = _of_store(part.config, part.store, own, alive)
    used = {part.name: {"weight": part.weight, **found[part.name][0]} for part in parts}
    samples = {name: validation for name, (_, validation, _) in found.items() if validation is not None}
    return {
        "settings": settings | {"data": {"channels": list(config.data.channels), "stores": list(used), "mix": used}},
        "validation": _together(samples) if samples else None,
        "data": {name: data for name, (_, _, data) in found.items()},
    }


def _of_store(
    config: RunConfig, store: Store, known: dict[str, Any] | None, alive: Callable[[], None]
) -> tuple[dict[str, Any], dict[str, str] | None, dict[str, Any]]:
    """Of a run on one store: what of the data decides the weights, what the validation loss, and all that is known."""
    train, validation = training_period(config, store), config.data.validation
    periods = [train] if validation is None else [train, validation]
    data = describe_data(store, config.data.channels, periods, known, alive)
    used = {
        "channels": list(config.data.channels),
        "train": str(train),
        "statistics": data["statistics"],
        **data["days"][str(train)],
    }
    samples = None if validation is None else _validation(config, store, data["days"][str(validation)])
    return used, samples, data


def _together(samples: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    text = "; ".join(f"{name}: {one['samples']}" for name, one in samples.items())
    return {"samples": text, "digest": checksum(" ".join(one["digest"] for one in samples.values()).encode())}


def _settings(config: RunConfig, dtype: torch.dtype) -> dict[str, Any]:
    precision = "tf32" if config.training.precision == "tf32" else str(dtype)
    return {
        "model": config.model.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json", exclude=_FREE)
        | cooldown_record(config.training)
        | {"precision": precision},
    }


def _validation(config: RunConfig, store: Store, days: Mapping[str, str]) -> dict[str, str]:
    """Validation losses may be compared where this is the same."""
    inits = validation_inits(config, store)
    samples = f"{len(inits)} initial times from {name_times(inits[:1])} to {name_times(inits[-1:])}"
    return {"samples": samples, "digest": checksum(inits.tobytes() + days["fields"].encode())}


def agree_on_identity(
    config: RunConfig,
    parts: Sequence[Part],
    dtype: torch.dtype,
    saved: Saved | None,
    alive: Callable[[], None],
    start: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Rank 0's identity of the run, which the checkpoint must share; arguments as of `find_identity`.

    Every rank finds it, though they need but one: those that only waited would be taken for standing still.

    Raises:
        InputError: the checkpoint is of other settings.
    """
    record = None if saved is None else saved.record
    identity = Coordination().decide(
        lambda: find_identity(config, parts, dtype, record, alive, start), lambda found: found[:1] * len(found)
    )
    if saved is not None:
        require_same_settings(saved.record, identity, str(config.folder))
    return identity


def require_same_settings(saved: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """Refuse to go on with other settings than the checkpoint's.

    Args:
        saved: record of the checkpoint. An older one knows its store as a whole alone.
        now: as `find_identity` says.
        folder: of the run.

    Raises:
        InputError: every setting that differs, with both values.
    """
    wanted = now["settings"]
    if "store" in saved["settings"]["data"] and "mix" not in wanted["data"]:
        kept = {key: wanted["data"][key] for key in ("channels", "train")}
        wanted = wanted | {"data": {**kept, "store": now["data"]["manifest"]}}
    free = _HOW | ({f"training.{key}" for key in AHEAD} if is_before_cooldown(saved, wanted["training"]) else set())
    before, after = dict(_flatten(saved["settings"])), dict(_flatten(wanted))
    changed = [
        f"{key}: {before.get(key, 'absent')} in the checkpoint, {after.get(key, 'absent')} now"
        for key in sorted((before.keys() | after.keys()) - free)
        if before.get(key) != after.get(key)
    ]
    if changed:
        ends = (".fields", ".statistics", ".times", ".store")
        if any(line.startswith("data.") and line.partition(": ")[0].endswith(ends) for line in changed):
            changed.append("(the store holds other training days or fields than when the run began)")
        raise InputError(
            f"the run in {folder} was trained with other settings:\n  " + "\n  ".join(changed) + "\n  "
            f"{_why_steps_stay(wanted['training'])}\n  "
            "set them back, or choose another folder with run=..."
        )


def _why_steps_stay(training: Mapping[str, Any]) -> str:
    if "schedule" in training:
        return f"({', '.join(AHEAD)} may change where there is a checkpoint from before the cooldown, then and now)"
    return (
        "(the learning rate of every step follows from training.steps, so it cannot grow either; "
        "with training.schedule=constant_cooldown from the first step on, it can)"
    )


def forget_other_best(progress: Progress, saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Forget the best validation loss if it is of other samples than today's; returns what to say of it.

    Args:
        progress: as restored.
        saved: record of the checkpoint; an older one does not know its samples, and is believed.
        now: as `find_identity` says.
    """
    if progress.best_loss is None or "validation" not in saved or saved["validation"] == now["validation"]:
        return None
    before, after = ((known["validation"] or {}).get("samples", "none") for known in (saved, now))
    differ = f"then {before}, now {after}" if before != after else f"{after}, whose fields have changed"
    text = (
        f"the best validation loss so far, {progress.best_loss:.4g} at step {progress.best_step}, is of other samples "
        f"({differ}) and forgotten: the next validation is the best. With training.export=best the weights file stays "
        "that of the former best until then"
    )
    progress.best_loss = progress.best_step = None
    progress.validations_since_best = 0
    return text


def _flatten(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flatten(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
