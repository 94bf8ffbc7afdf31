"""One portable file: weights, architecture, channels, grid and statistics (safetensors; no pickle anywhere).

All that `load_weights` needs to forecast stands in the file. Its header holds one JSON object with `format`,
`model`, `domain` and `provenance`; the arrays of the domain stand beside the parameters.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from weatherfm.config import parse_settings
from weatherfm.domain import Domain
from weatherfm.errors import InputError
from weatherfm.grid import Grid
from weatherfm.model import ModelConfig, WeatherViT

_FORMAT = "weatherfm weights 2"
_HEADER = "weatherfm"  # one key: safetensors writes several in no fixed order, and equal models make equal files
_DOMAIN_ARRAYS = ("mean", "std", "tendency_std", "static")


def save_weights(
    path: str | Path,
    model: WeatherViT,
    provenance: dict[str, Any],
    parameters: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write the model to one file, whole or not at all.

    Args:
        path: by custom `weights.safetensors`.
        model: its configuration and domain are written with the weights.
        provenance: JSON-able record of how the weights came about.
        parameters: values to write instead of the model's own, under the same names (an average of the weights).
    """
    from safetensors.torch import save_file  # here, so that clusters without it can still train

    values = dict(model.named_parameters()) if parameters is None else parameters
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in values.items()}
    tensors |= {f"domain.{name}": torch.as_tensor(getattr(model.domain, name)).contiguous() for name in _DOMAIN_ARRAYS}
    header = {
        "format": _FORMAT,
        "model": model.config.model_dump(mode="json"),
        "domain": {
            "channels": model.domain.channels,
            "static_names": model.domain.static_names,
            "grid": model.domain.grid.to_dict(),
        },
        "provenance": provenance,
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata={_HEADER: json.dumps(header, sort_keys=True)})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(path: str | Path) -> WeatherViT:
    """The model of a weights file, in evaluation mode, on the CPU.

    Raises:
        InputError: no such file, not a weights file of ours, or tensors that do not fit its own configuration.
    """
    tensors, header = _read(path)
    config = parse_settings(ModelConfig, header["model"], str(path))
    domain = header["domain"]
    arrays = {name: _take(tensors, f"domain.{name}", path).numpy() for name in _DOMAIN_ARRAYS}
    model = WeatherViT(
        config,
        Domain(
            channels=tuple(domain["channels"]),
            grid=Grid.from_dict(domain["grid"]),
            static_names=tuple(domain["static_names"]),
            **arrays,
        ),
    )
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit its own configuration: {' '.join(str(error).split())}") from None
    return model.eval()


def read_provenance(path: str | Path) -> dict[str, Any]:
    """How the weights of a file came about, as `save_weights` was told."""
    return _read(path)[1]["provenance"]


def weights_hash(path: str | Path) -> str:
    """SHA-256 of the file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _take(tensors: dict[str, torch.Tensor], name: str, path: str | Path) -> torch.Tensor:
    if name not in tensors:
        raise InputError(f"{path} lacks {name}; it was not written by weatherfm, or is damaged")
    return tensors.pop(name)


def _read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"no weights file {path}; `weatherfm train` writes weights.safetensors into its run folder")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); train again or copy it anew") from None
    if header.get("format") != _FORMAT:
        found = header.get("format", "no format note")
        raise InputError(f"{path} is not a weights file of this version: {found}, expected {_FORMAT!r}")
    return tensors, header
