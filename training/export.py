"""The portable weights file of a run, with the record of how its weights came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weatherfm import __version__
from weatherfm.data_pipeline.store import Store
from weatherfm.training.config import RunConfig
from weatherfm.training.resume import store_digest
from weatherfm.training.state import TrainingState
from weatherfm.weights import save_weights

_LEFT_OUT: Any = {
    "data": {"store", "source"},
    "training": {"device", "workers", "log_every", "checkpoint_every", "keep_checkpoints", "wandb"},
}
"""Paths and settings of the machine; the store is named by its digest, so that equal runs give equal files."""


def export_weights(config: RunConfig, store: Store, state: TrainingState) -> Path:
    """Write `weights.safetensors` into the run's folder: the present weights, or their average where there is one."""
    path = weights_path(config)
    save_weights(path, state.model, provenance(config, store, state), state.exported_parameters())
    return path


def weights_path(config: RunConfig) -> Path:
    """Where `export_weights` writes."""
    return config.folder / "weights.safetensors"


def provenance(config: RunConfig, store: Store, state: TrainingState) -> dict[str, Any]:
    """How the weights came about: settings, data, step. JSON-able, no paths, no clock."""
    settings = config.model_dump(mode="json", include={"data", "model", "training"}, exclude=_LEFT_OUT)
    return {
        "weatherfm": __version__,
        "settings": settings,
        "step": state.progress.step,
        "weights": "as trained" if state.average is None else "exponential moving average",
        "best_validation_loss": state.progress.best_loss,
        "best_validation_step": state.progress.best_step,
        "store": {
            "manifest_sha256": store_digest(store),
            "kind": store.manifest["source"]["kind"],
            "simulated": store.simulated,
        },
    }
