"""What a run has learned beside the weights it started from, in a file of its own: `adapter.safetensors`.

It is a weights file (`weatherfm.model.weights`) without the parameters that its base, the weights to start from, holds
to the bit under the same names. Low-rank factors are not added to their matrices. Its header has beside the usual,
under `adapter`:

    base    name and sha256 of the file that has all else
    scale   s of the factors: a matrix with factors is W + s B A
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weatherfm.errors import InputError
from weatherfm.home import expanded
from weatherfm.model.lora import FACTORS, is_factor, merged_weight
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import (
    ADAPTER_FORMAT,
    header_of,
    open_tensors,
    parameter_names,
    read_header,
    save_weights,
    weights_hash,
)

ADAPTER = "adapter.safetensors"
"""Its name in a run's folder."""
FOUNDATION = "foundation.safetensors"
"""What a run of several stores (`data.mix`) writes beside the weights of each: all channels, to start from."""
_SHOWN = 12
"""Digits of a digest in messages."""


@dataclass(frozen=True)
class Base:
    """The weights that an adapter belongs to."""

    name: str
    """Of their file, as it was called."""
    sha256: str
    scale: float
    """s of the factors."""

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:_SHOWN]}...)"


def save_adapter(
    path: str | Path,
    model: WeatherViT,
    provenance: dict[str, Any],
    parameters: Mapping[str, Tensor],
    scale: float,
    base: Path,
) -> None:
    """Write what a base lacks, whole or not at all.

    Args:
        path: by custom `adapter.safetensors`.
        model: its configuration and domain are written.
        provenance: JSON-able record of how the weights came about.
        parameters: all of them, with the factors.
        scale: s.
        base: weights file; what it holds to the bit is left out.

    Raises:
        InputError: no such file as the base.
    """
    with open_tensors(base) as file:
        held = set(parameter_names(file))
        own = {
            name: value
            for name, value in parameters.items()
            if name not in held or not _same_bits(value.detach().float().cpu(), file.get_tensor(name))
        }
    told = {"base": {"name": base.name, "sha256": weights_hash(base)}, "scale": scale}
    save_weights(path, model, provenance, own, told)


def base_of(path: str | Path) -> Base | None:
    """The weights that an adapter belongs to; None for a file that holds whole weights.

    Raises:
        InputError: no such file, or neither of the two.
    """
    with open_tensors(path) as file:
        return _base_in(path, file)


@contextmanager
def open_weights(path: str | Path, base: str | Path | None = None) -> Iterator[Any]:
    """All tensors of a weights file, or of an adapter and its base together, by name (`keys`, `get_tensor`).

    What is read is in memory only as far as it is touched.

    Args:
        path: of the file.
        base: weights file of an adapter, or the folder of the run that made it.

    Raises:
        InputError: a file that is none of ours, an adapter without its base, with another one, or a base for whole
            weights.
    """
    with open_tensors(path) as own:
        wanted = _base_in(path, own)
        if wanted is None:
            if base is not None:
                raise InputError(f"{path} holds whole weights, and base {base} is for an adapter; leave base out")
            yield own
            return
        with open_tensors(_required(path, wanted, base)) as file:
            yield _Together(own, file, wanted.scale)


def merge_adapter(adapter: str | Path, base: str | Path, output: str | Path) -> Path:
    """Write an adapter and its base as one ordinary weights file, which forecasts the same and needs neither.

        weatherfm.merge_adapter("runs/x/adapter.safetensors", "runs/pretrained/weights.safetensors", "x.safetensors")

    It holds the bytes that the run would have exported with `training.start_from.lora.export: merged`.

    Args:
        adapter: of a run with `export: apart`.
        base: the weights that it started from, or the folder of the run that made these.
        output: file to write.

    Returns:
        That file.

    Raises:
        InputError: files that are not there, do not belong together, or would be written over.
    """
    adapter, base, output = expanded(adapter), expanded(base), expanded(output)
    if base_of(adapter) is None:
        raise InputError(f"{adapter} holds whole weights, nothing is to be merged; name an adapter.safetensors")
    if any(output.exists() and output.samefile(one) for one in (adapter, weights_in(base))):
        raise InputError(f"output {output} is one of the two files that are merged; name another")
    if output.is_dir():
        raise InputError(f"output {output} is a folder; name a file in it, as {output / 'merged.safetensors'}")
    config, domain, provenance = read_header(adapter)
    with torch.device("meta"):
        model = WeatherViT(config, domain)
    with open_weights(adapter, base) as file:
        save_weights(output, model, provenance, {name: file.get_tensor(name) for name in parameter_names(file)})
    return output


def weights_in(place: Path) -> Path:
    """A weights file to start from as it was named, or that of a run's folder: of all channels, where the run has
    several stores; its adapter, where that alone is there."""
    if not place.is_dir():
        return place
    if (foundation := place / FOUNDATION).is_file():
        return foundation
    whole, adapter = place / "weights.safetensors", place / ADAPTER
    return adapter if adapter.is_file() and not whole.is_file() else whole


class _Together:
    """Tensors of an adapter before those of its base, factors added to their matrices."""

    def __init__(self, own: Any, base: Any, scale: float) -> None:
        self._own, self._base, self._scale = own, base, scale
        self._names = set(own.keys())

    def keys(self) -> list[str]:
        """Names of all tensors, as a weights file has them."""
        return sorted({name for name in self._names if not is_factor(name)} | set(parameter_names(self._base)))

    def get_tensor(self, name: str) -> Tensor:
        """One tensor, whole."""
        value: Tensor = (self._own if name in self._names else self._base).get_tensor(name)
        path, _, kind = name.rpartition(".")
        if kind != "weight" or f"{path}.{FACTORS[0]}" not in self._names:
            return value
        a, b = (self._own.get_tensor(f"{path}.{factor}") for factor in FACTORS)
        return merged_weight(value, a, b, self._scale)


def _base_in(path: str | Path, file: Any) -> Base | None:
    header = header_of(path, file)
    if header["format"] != ADAPTER_FORMAT:
        return None
    try:
        told = header["adapter"]
        return Base(str(told["base"]["name"]), str(told["base"]["sha256"]), float(told["scale"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: its base cannot be read ({error}); train again or copy it anew") from None


def _required(path: str | Path, wanted: Base, base: str | Path | None) -> Path:
    """The file of the base, if it is the one."""
    if base is None:
        raise InputError(
            f"{path} is an adapter: it holds what was learned beside {wanted}; give these weights as base, or make one "
            "file of both with weatherfm.merge_adapter"
        )
    place = weights_in(expanded(base))
    with open_tensors(place) as file:
        header_of(place, file)
    if (found := weights_hash(place)) != wanted.sha256:
        raise InputError(
            f"{path} belongs to {wanted}, and {place} has sha256 {found[:_SHOWN]}...; give the weights that it started "
            "from"
        )
    return place


def _same_bits(value: Tensor, held: Tensor) -> bool:
    return value.shape == held.shape and torch.equal(*(one.contiguous().view(torch.int32) for one in (value, held)))
