"""A weights file into a model that is split over ranks: each rank reads its own parts, and never holds the whole."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.model.adapter import open_weights
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.initial import row_names
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import parameter_names
from weatherfm.training.parallel.channel_rows import local, local_part


@torch.no_grad()
def load_parts(
    model: WeatherViT, path: str | Path, config: ModelConfig, domain: Domain, base: str | Path | None = None
) -> None:
    """Fill this rank's parts of all weights from a file, one tensor after the other.

    Args:
        model: a rank's, with memory for its parts (`weatherfm.training.parallel.build_model.meta_model`).
        path: of the weights file.
        config: the architecture the file tells.
        domain: of the whole model.
        base: weights that an adapter belongs to.

    Raises:
        InputError: a tensor is missing or has another shape than the configuration says, or an adapter without its
            base.
    """
    with torch.device("meta"):
        serial = WeatherViT(config, domain)
    shapes = {name: parameter.shape for name, parameter in serial.named_parameters()}
    with open_weights(path, base) as file:
        _require_fit(path, set(parameter_names(file)), set(shapes))
        for name, parameter in model.named_parameters():
            whole = file.get_tensor(name)  # of the file's own memory: what is not touched is not read
            if whole.shape != shapes[name]:
                told = f"{name} has shape {list(whole.shape)}, expected {list(shapes[name])}"
                raise InputError(f"{path} does not fit its own configuration: {told}")
            local(parameter).copy_(local_part(_own_rows(whole, model, serial, name), parameter))


def _own_rows(whole: Tensor, model: WeatherViT, serial: WeatherViT, name: str) -> Tensor:
    """The rows of the channels that a rank has; all of what belongs to no channel."""
    own = row_names(model, name)
    if own is None:
        return whole
    position = {row: i for i, row in enumerate(row_names(serial, name) or [])}
    return whole[[position[row] for row in own]]


def _require_fit(path: str | Path, held: set[str], wanted: set[str]) -> None:
    if held != wanted:
        words = [f"lacks {name}" for name in sorted(wanted - held)] + [f"has {n} too" for n in sorted(held - wanted)]
        raise InputError(f"{path} does not fit its own configuration: it {', '.join(words[:5])}")
