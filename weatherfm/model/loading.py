"""A model from a weights file, or from an adapter and the weights it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from weatherfm.device import choose_device
from weatherfm.errors import InputError
from weatherfm.home import expanded
from weatherfm.model.adapter import open_weights
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import parameter_names, read_header, weights_hash


def load_weights(path: str | Path, device: torch.device | str = "cpu", base: str | Path | None = None) -> WeatherViT:
    """The model of a weights file, in evaluation mode, on a device; `provenance` of the model says how it came about.

    No initial value is drawn and no weight is held twice: each goes from the file to the device. `base` is that of an
    adapter.

    Raises:
        InputError: no such file, not a weights file of ours, tensors that do not fit its own configuration, or an
            adapter without its base.
    """
    config, domain, provenance = read_header(path)
    with torch.device("meta"):
        model = WeatherViT(config, domain)
    with open_weights(path, base) as file:
        # copied: a tensor of the file's own memory would change when something writes over the file
        tensors = {name: file.get_tensor(name).to(device, copy=True) for name in parameter_names(file)}
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit its own configuration: {' '.join(str(error).split())}") from None
    model.set_statistics(torch.device(device))
    model.provenance = provenance
    return model.eval()


def load(path: str | Path, device: str = "auto", base: str | Path | None = None) -> WeatherViT:
    """The model of a weights file, ready to forecast (`weatherfm.forecast`).

        model = weatherfm.load("runs/demo/weights.safetensors")
        model.domain.channels, model.domain.grid

        weatherfm.load("runs/x/adapter.safetensors", base="runs/pretrained/weights.safetensors")

    Args:
        path: of `weights.safetensors`; channels, grid, statistics and constant fields are in it.
        device: auto is a GPU where there is one, else the CPU; or what PyTorch calls it.
        base: the weights that an `adapter.safetensors` (`training.start_from.lora.export: apart`) started from, or the
            folder of the run that made these.

    Returns:
        A torch module in evaluation mode, on the device; `provenance` tells how its weights came about.

    Raises:
        InputError: no such file or device, not a weights file of ours, or an adapter without its base or with another.
    """
    path = expanded(path)
    model = load_weights(path, choose_device(device, "device"), base)
    model.loaded = Loaded(weights_hash(path), _changes(model))
    return model


@dataclass(frozen=True)
class Loaded:
    """The file that a model in memory came from."""

    sha256: str
    changes: int
    """How often its weights had been written to when they were all read."""

    def untouched(self, model: WeatherViT) -> bool:
        """No weight was changed since (as fine-tuning does)."""
        return _changes(model) == self.changes


def _changes(model: WeatherViT) -> int:
    return sum(parameter._version for parameter in model.parameters())
