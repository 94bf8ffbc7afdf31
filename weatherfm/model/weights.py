"""One portable file: weights, architecture, channels, grid and statistics (safetensors; no pickle anywhere).

All that is needed to forecast stands in the file. Its header holds one JSON object with `format`, `model`, `domain` and
`provenance`; the arrays of the domain stand beside the parameters. An adapter is the same with a part of the parameters
(`weatherfm.model.adapter`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weatherfm.config import parse_settings
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import add_variables, own_variables
from weatherfm.errors import InputError
from weatherfm.file_errors import as_input_error
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT
from weatherfm.model.tensor_checksums import ANEW, CheckedTensors, sealed

_FORMAT = "weatherfm weights 2"
ADAPTER_FORMAT = "weatherfm adapter 1"
_HEADER = "weatherfm"  # one key: safetensors writes several in no fixed order, and equal models make equal files
_DOMAIN_ARRAYS = ("mean", "std", "tendency_std", "static")
_MASK = "mask."
_BY_LEAD = "tendency_std_by_lead"


def save_weights(
    path: str | Path,
    model: WeatherViT,
    provenance: dict[str, Any],
    parameters: Mapping[str, torch.Tensor] | None = None,
    adapter: Mapping[str, Any] | None = None,
) -> None:
    """Write the model to one file, whole or not at all.

    Args:
        path: by custom `weights.safetensors`.
        model: its configuration and domain are written with the weights.
        provenance: JSON-able record of how the weights came about.
        parameters: values to write instead of the model's own, under the same names (an average of the weights).
        adapter: what the header of an adapter tells beside, whose `parameters` are not all; None: these are weights.
    """
    values = dict(model.named_parameters()) if parameters is None else parameters
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in values.items()}
    tensors |= {f"domain.{name}": torch.as_tensor(getattr(model.domain, name)).contiguous() for name in _DOMAIN_ARRAYS}
    if by_lead := model.domain.tendency_std_by_lead:
        tensors[f"domain.{_BY_LEAD}"] = torch.as_tensor(np.stack(list(by_lead.values()))).contiguous()
    masks = model.domain.masks
    tensors |= {f"domain.{_MASK}{name}": torch.as_tensor(mask).to(torch.uint8) for name, mask in masks.items()}
    header = {
        "format": _FORMAT,
        "model": model.config.model_dump(mode="json"),
        "domain": {
            "channels": model.domain.channels,
            "static_names": model.domain.static_names,
            "grid": model.domain.grid.to_dict(),
            **({"variables": own} if (own := own_variables(model.domain.channels)) else {}),
            **({"log_scales": dict(scales)} if (scales := model.domain.log_scales) else {}),
            **({"tendency_leads": list(by_lead)} if by_lead else {}),
        },
        "provenance": provenance,
    }
    if adapter is not None:
        header |= {"format": ADAPTER_FORMAT, "adapter": dict(adapter)}
    _write(Path(path), tensors, header)


def copy_weights(source: Path, target: Path, provenance: dict[str, Any]) -> None:
    """Write a weights file anew, with another record of how it came about; `target` may be `source`.

    Raises:
        InputError: no such file, or not a weights file of ours.
    """
    with open_tensors(source) as file:
        header = header_of(source, file) | {"provenance": provenance}
        # copied: the file that they are mapped from may be the one that is replaced
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
    _write(target, tensors, header)


def _write(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    from safetensors import SafetensorError  # here, so that clusters without it can still train
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata={_HEADER: json.dumps(sealed(header, tensors), sort_keys=True)})
        _give_usual_rights(temporary)
        os.replace(temporary, path)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        raise as_input_error(OSError(int(found[1]) if found else 0, str(error)), f"{path} cannot be written") from error
    finally:
        temporary.unlink(missing_ok=True)


def _give_usual_rights(path: Path) -> None:
    """Those of any new file: safetensors lets nobody but the owner read its files, and weights are handed on."""
    probe = path.with_name(f"{path.name}.rights")  # os.umask is told only by setting it, for all threads
    try:
        probe.touch()
        path.chmod(probe.stat().st_mode & 0o777)
    finally:
        probe.unlink(missing_ok=True)


def read_header(path: str | Path) -> tuple[ModelConfig, Domain, dict[str, Any]]:
    """(architecture, domain, provenance) of a weights file or an adapter; reads no weights.

    Raises:
        InputError: no such file, or not a weights file of ours.
    """
    with open_tensors(path) as file:
        header = header_of(path, file)
        names = set(file.keys())
        if absent := [name for name in _DOMAIN_ARRAYS if f"domain.{name}" not in names]:
            raise InputError(f"{path} lacks domain.{absent[0]}; it was not written by weatherfm, or is damaged")
        arrays: dict[str, Any] = {name: file.get_tensor(f"domain.{name}").clone().numpy() for name in _DOMAIN_ARRAYS}
        spreads = file.get_tensor(f"domain.{_BY_LEAD}").clone().numpy() if f"domain.{_BY_LEAD}" in names else ()
        prefix = f"domain.{_MASK}"
        masked = [name for name in sorted(names) if name.startswith(prefix)]
        masks = {name.removeprefix(prefix): file.get_tensor(name).clone() for name in masked}
    config = parse_settings(ModelConfig, header["model"], str(path))
    told = header["domain"]
    add_variables(told.get("variables", {}))
    try:
        domain = Domain(
            channels=tuple(told["channels"]),
            grid=Grid.from_dict(told["grid"]),
            static_names=tuple(told["static_names"]),
            masks={name: mask.numpy().astype(bool) for name, mask in masks.items()},
            log_scales={str(name): float(scale) for name, scale in told.get("log_scales", {}).items()},
            tendency_std_by_lead=dict(zip(map(int, told.get("tendency_leads", ())), spreads, strict=True)),
            **arrays,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: its domain cannot be read ({error}); {ANEW}") from None
    return config, domain, header["provenance"]


def parameter_names(file: Any) -> list[str]:
    """Names of the weights in an open file, under those they have in the model."""
    return [name for name in file.keys() if not name.startswith("domain.")]  # noqa: SIM118 - not a mapping


@contextmanager
def open_tensors(path: str | Path) -> Iterator[CheckedTensors]:
    """The open safetensors file; what is read from it is compared with its checksum.

    Raises:
        InputError: no such file, one that is not readable, or a part of it that is not what it was.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"no weights file {path}; `weatherfm train` writes weights.safetensors into its run folder")
    try:
        with safe_open(path, framework="pt") as file:
            yield CheckedTensors(path, file, _header_in(path, file))
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); {ANEW}") from None


def weights_hash(path: str | Path) -> str:
    """SHA-256 of the file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def header_of(path: str | Path, file: Any) -> dict[str, Any]:
    """The JSON of an open file's header.

    Raises:
        InputError: none of ours, or damaged.
    """
    header: dict[str, Any] = _header_in(path, file)
    found = header.get("format", "no format note") if isinstance(header, dict) else "no format note"
    if found not in (_FORMAT, ADAPTER_FORMAT):
        raise InputError(f"{path} is not a weights file of this version: {found}, expected {_FORMAT!r}")
    keys = ["model", "domain", "provenance", *(["adapter"] if found == ADAPTER_FORMAT else [])]
    if odd := [key for key in keys if not isinstance(header.get(key), dict)]:
        raise InputError(f"{path} is damaged: its header does not tell {', '.join(odd)}; {ANEW}")
    return header


def _header_in(path: str | Path, file: Any) -> Any:
    try:
        return json.loads((file.metadata() or {}).get(_HEADER, "{}"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: its header is no JSON ({error}); {ANEW}") from None
