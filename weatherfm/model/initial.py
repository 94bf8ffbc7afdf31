"""Initial values: a function of the seed and of a weight's name alone, whatever else the model holds.

Every tensor has a random generator of its own, and what belongs to a channel has one a channel, so that a model that
holds a share of the channels starts from exactly the rows of the model that holds all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from weatherfm.model.aggregation import LearnedQuery
from weatherfm.model.conditioning import Modulation
from weatherfm.model.decoder import ChannelDecoder
from weatherfm.model.hierarchical import LearnedSum
from weatherfm.model.lora import FACTORS
from weatherfm.model.neighbours import NeighbourMixing
from weatherfm.model.place import WAVES, Place
from weatherfm.model.position import Position, sincos_position
from weatherfm.model.share import ChannelShare
from weatherfm.model.tokenizer import ChannelOutput, ChannelTokenizer


class Settings(Protocol):
    """What of the settings initial values depend on, as `ModelConfig` has it."""

    @property
    def width(self) -> int:
        """Of a token."""

    @property
    def predict(self) -> str:
        """The increment, whose output begins with zeros, or the state."""

    @property
    def input_times(self) -> Sequence[int]:
        """Hours."""


class Model(Protocol):
    """What initial values depend on, as `WeatherViT` and the ends of one's own model have it."""

    tokens: tuple[int, int]

    @property
    def config(self) -> Settings:
        """Of the architecture."""

    @property
    def holds(self) -> ChannelShare:
        """Channels whose rows its weights have."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As of any module."""

    def get_parameter(self, target: str) -> nn.Parameter:
        """As of any module."""

    def get_submodule(self, target: str) -> nn.Module:
        """As of any module."""


@torch.no_grad()
def initialise(model: Model, seed: int) -> None:
    """Set all weights of a model to their initial values, in place."""
    for name, parameter in model.named_parameters():
        parameter.copy_(initial_tensor(model, name, seed))


def initial_tensor(model: Model, name: str, seed: int) -> Tensor:
    """The initial values of one parameter of a model (on any device, the meta device too): float32, on the CPU."""
    shape = model.get_parameter(name).shape
    rows = row_names(model, name)
    with torch.device("cpu"):
        if rows is None:
            return _draw(model, name, shape, _generator(seed, name))
        return torch.stack([_draw(model, name, shape[1:], _generator(seed, f"{name}.{row}")) for row in rows])


def row_names(model: Model, name: str) -> list[str] | None:
    """The channels that the rows (dim 0) of a parameter belong to; None for a parameter that has none."""
    owner = name.partition(".")[0]
    if owner == "tokenizer":
        return model.holds.input_names(model.config.input_times)
    return list(model.holds.outputs) if owner in ("to_patches", "decoder", "truncation") else None


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def _draw(model: Model, name: str, shape: torch.Size, random: torch.Generator) -> Tensor:
    """Initial values of a parameter, or of one row of it."""
    path, _, kind = name.rpartition(".")
    module, values = model.get_submodule(path), torch.zeros(shape)
    if isinstance(module, Position):
        return sincos_position(model.tokens, shape[1])
    if isinstance(module, ChannelTokenizer) and kind == "gate":
        return torch.ones(shape)
    if isinstance(module, ChannelTokenizer) and kind != "bias":
        std = shape[-1] ** -0.5 if kind == "weight" else 0.02  # tokens start with variance near 1
        return nn.init.normal_(values, std=std, generator=random)
    if isinstance(module, ChannelDecoder) and kind == "expand":
        return nn.init.normal_(values, std=shape[-1] ** -0.5, generator=random)
    if kind == FACTORS[0]:  # what it makes of an input of variance one has that, too
        return nn.init.normal_(values, std=shape[-1] ** -0.5, generator=random)
    if kind != "weight" or isinstance(module, NeighbourMixing | Modulation):
        return values  # biases, learned queries, and the last step of what is added to the model without it
    if isinstance(module, Place):
        return nn.init.normal_(values, std=WAVES**-0.5, generator=random)  # as large as `sincos_position`
    if path.startswith(("conditioning.", "noising.")):
        return nn.init.normal_(values, std=shape[-1] ** -0.5, generator=random)  # what norms learn from is near one
    if isinstance(module, nn.LayerNorm):
        return nn.init.ones_(values)
    if isinstance(module, ChannelOutput) and model.config.predict == "increment":
        return values  # the untrained model is persistence
    if isinstance(module, LearnedSum):
        return nn.init.constant_(values, len(values) ** -0.5)  # the sum has the variance of one token
    if path.startswith("aggregation."):
        nn.init.xavier_uniform_(values, generator=random)
        owner, _, layer = path.rpartition(".")
        query = model.get_submodule(owner)
        if layer == "out" and isinstance(query, LearnedQuery):
            return values * query.tokens**0.5  # of their mean, which begins with the variance of one divided by it
        return values
    return nn.init.trunc_normal_(values, std=0.02, generator=random)
