"""What a resumed run must share with its checkpoint: all that decides the weights it ends with, but for rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from weatherfm.data_pipeline.manifest import canonical_json, checksum
from weatherfm.data_pipeline.store import Store
from weatherfm.errors import InputError
from weatherfm.training.config import RunConfig
from weatherfm.training.samples import training_period

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
}
"""Training settings that may change on the way: they move, watch or keep the run. (Precision enters as resolved.)"""


def run_settings(config: RunConfig, store: Store, dtype: torch.dtype) -> dict[str, Any]:
    """JSON-able settings that decide the weights; paths do not, the store's content does."""
    precision = "tf32" if config.training.precision == "tf32" else str(dtype)
    return {
        "model": config.model.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json", exclude=_FREE) | {"precision": precision},
        "data": {
            "channels": list(config.data.channels),
            "train": str(training_period(config, store)),
            "store": store_digest(store),
        },
    }


def store_digest(store: Store) -> str:
    """SHA-256 of the store's manifest, which holds the checksum of every file."""
    return checksum(canonical_json(store.manifest).encode())


def require_same_settings(saved: dict[str, Any], now: dict[str, Any], folder: str) -> None:
    """Refuse to go on with other settings than the checkpoint's.

    Raises:
        InputError: every setting that differs, with both values.
    """
    before, after = dict(_flatten(saved)), dict(_flatten(now))
    changed = [
        f"{key}: {before.get(key, 'absent')} in the checkpoint, {after.get(key, 'absent')} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    if changed:
        raise InputError(
            f"the run in {folder} was trained with other settings:\n  " + "\n  ".join(changed) + "\n  "
            "(the learning rate of every step follows from training.steps, so it cannot grow either)\n  "
            "set them back, or choose another folder with run=..."
        )


def _flatten(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flatten(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
