"""The portable weights file of a run, with the record of how its weights came about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from weatherfm import __version__
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.earth.domain import Domain
from weatherfm.model.adapter import ADAPTER, FOUNDATION, save_adapter
from weatherfm.model.initial import row_names
from weatherfm.model.lora import is_factor, merged
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import save_weights
from weatherfm.training.checkpoints.state import TrainingState
from weatherfm.training.feeding.data_identity import store_digest
from weatherfm.training.feeding.samples import training_period
from weatherfm.training.parallel.channel_rows import belongs_to_channels, named_parts
from weatherfm.training.parallel.role import Role
from weatherfm.training.parts import Part
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.run_start import RunStart

_LEFT_OUT: Any = {
    "data": {"store": True, "source": True, "mix": {"__all__": {"store", "source"}}},
    "training": {"device", "workers", "log_every", "checkpoint_every", "keep_checkpoints", "wandb", "start_from"},
}
"""Paths and settings of the machine; the store is named by its digest, so that equal runs give equal files."""


def export_weights(
    start: RunStart,
    parts: Sequence[Part],
    state: TrainingState,
    role: Role,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Write the present weights, or their average where there is one, into the run's folder.

    Of a run on several stores `weights.safetensors` has the channels, grid and statistics of the first,
    `weights.NAME.safetensors` those of each other one, and `foundation.safetensors` all channels, to start from.
    Low-rank factors are added to their matrices, those of an average as they are averaged: so validation computes. With
    `export: apart` only what differs from the weights to start from is written. All ranks must call it; the first one
    writes. `alive` is called now and then.
    """
    parameters = whole_parameters(state.model, state.exported_parameters(), role, alive)
    if not role.first:
        return
    path, known = weights_path(start.config), record_of_run(start, parts, state)
    if start.lora is not None and start.donor is not None:
        if start.lora.export == "apart":
            serial, tensors = _serial(start.config, start.domain, parameters)
            tensors |= {name: value for name, value in parameters.items() if is_factor(name)}
            told = known(start.config, parts[0])
            save_adapter(path, serial, told, tensors, start.lora.scale, start.donor.path)
            return
        parameters = merged(parameters, start.lora.scale)
    if len(parts) > 1:
        _write(path.with_name(FOUNDATION), start.config, start.domain, parameters, known(start.config, parts[0]))
    for own, part, domain in zip(_of_stores(start.config), parts, start.domains, strict=True):
        _write(own, part.config, domain, parameters, known(part.config, part))
        alive()


def _write(
    path: Path, config: RunConfig, domain: Domain, parameters: dict[str, Tensor], provenance: dict[str, Any]
) -> None:
    serial, tensors = _serial(config, domain, parameters)
    save_weights(path, serial, provenance, tensors)


def _serial(config: RunConfig, domain: Domain, parameters: dict[str, Tensor]) -> tuple[WeatherViT, dict[str, Tensor]]:
    """The model on one device, its names and shapes alone, and its weights."""
    with torch.device("meta"):
        serial = WeatherViT(config.model, domain)
    return serial, {name: _joined(serial, name, parameters) for name, _ in serial.named_parameters()}


def whole_parameters(
    model: WeatherViT, parameters: dict[str, Tensor], role: Role, alive: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    """All of `parameters` by layout-free name (`named_parts`) on the CPU of the first rank, a part of them elsewhere.

    All ranks must call it. What belongs to a channel is collected from the ranks that hold it; all else the first rank
    can put together by itself, one tensor at a time.
    """
    own: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        alive()
        for key, part in named_parts(model, name, parameter.detach()):
            value = part.full_tensor() if isinstance(part, DTensor) else part  # every rank of its mesh takes part
            if role.first or (belongs_to_channels(name) and _speaks_for(role, part)):
                own[key] = value.cpu()
    if role.mesh is None:
        return own
    collected: list[dict[str, Tensor]] = [{}] * dist.get_world_size()
    dist.gather_object({} if role.first else own, collected if role.first else None)
    return {key: value for tensors in (*collected, own) for key, value in tensors.items()}


def _speaks_for(role: Role, part: Tensor) -> bool:
    """Whether of all ranks that hold a part of a channel this one hands it out."""
    return role.part[0] == 0 if isinstance(part, DTensor) else role.part[0] < role.mesh.layout.dp_shard  # type: ignore[union-attr]


def _joined(serial: WeatherViT, name: str, parts: dict[str, Tensor]) -> Tensor:
    rows = row_names(serial, name)
    return parts[name] if rows is None else torch.stack([parts[f"{name}.{row}"] for row in rows])


def weights_path(config: RunConfig) -> Path:
    """Where `export_weights` writes."""
    start = config.training.start_from
    apart = start is not None and start.lora is not None and start.lora.export == "apart"
    return config.folder / (ADAPTER if apart else "weights.safetensors")


def weights_paths(config: RunConfig) -> list[Path]:
    """All files that `export_weights` writes, that of `weights_path` first."""
    return [*_of_stores(config), *([config.folder / FOUNDATION] if len(config.data.mix) > 1 else [])]


def _of_stores(config: RunConfig) -> list[Path]:
    path = weights_path(config)
    return [path, *(path.with_name(f"weights.{part.called}.safetensors") for part in config.data.mix[1:])]


def record_of_run(
    start: RunStart, parts: Sequence[Part], state: TrainingState
) -> Callable[[RunConfig, Part], dict[str, Any]]:
    """How the weights came about, by their settings and the store they are for: settings, data, step, and those of what
    they started from. JSON-able, no paths, no clock."""
    stores = [_store_record(part) for part in parts]

    def told(config: RunConfig, part: Part) -> dict[str, Any]:
        settings = config.model_dump(mode="json", include={"data", "model", "training"}, exclude=_LEFT_OUT)
        if isinstance(config.data.source, FilesSource) and (rules := config.data.source.reading_rules):
            settings["data"]["source"] = {"kind": "files", **rules}  # for files to forecast from
        return {
            "weatherfm": __version__,
            "settings": settings,
            "step": state.progress.step,
            "weights": "as trained" if state.average is None else "exponential moving average",
            "best_validation_loss": state.progress.best_loss,
            "best_validation_step": state.progress.best_step,
            "store": _store_record(part),
            **({"mix": stores} if len(stores) > 1 else {}),
            **start.provenance(),
        }

    return told


def _store_record(part: Part) -> dict[str, Any]:
    store, learned = part.store, training_period(part.config, part.store)
    return {
        "manifest_sha256": store_digest(store),
        "kind": store.manifest["source"]["kind"],
        "simulated": store.simulated,
        "world": store.world,
        **({"accumulation_hours": sums} if (sums := part.sums) else {}),
        "train": learned and learned.model_dump(mode="json"),
    }
