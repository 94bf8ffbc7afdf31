"""ClimaX's checkpoint (arXiv 2301.10343) as weights to start from: its variables and grid, by our names.

The published checkpoints hold the 48 variables below on 32 x 64 points in patches of 4 (its configuration
`global_forecast_climax.yaml`); the file itself tells neither names nor grid nor heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.climax import load_climax, read_climax_checkpoint
from weatherfm.model.model import WeatherViT

_LEVELS = (50, 250, 500, 600, 700, 850, 925)
_FIELDS = ("z", "u", "v", "t", "r", "q")
CLIMAX_VARIABLES = (
    "lsm", "orography", "latitude", "t2m", "u10", "v10",
    *(f"{field}{level}" for field in _FIELDS for level in _LEVELS),
)  # fmt: skip
"""Our names, in its order."""
_STATIC, _FORCINGS = ("lsm", "orography"), ["latitude"]


@dataclass(frozen=True, eq=False)
class ClimaxWeights:
    """What a checkpoint holds, by our names."""

    config: ModelConfig
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tokens: tuple[int, int]
    tensors: dict[str, Tensor]


def read_climax(path: Path, heads: int) -> ClimaxWeights:
    """Read a checkpoint; all of it is in memory.

    Raises:
        InputError: no checkpoint of ClimaX with its 48 variables.
    """
    state = read_climax_checkpoint(path)
    try:
        tokens = _tokens(int(state["pos_embed"].shape[1]))
        config = _architecture(state, heads)
    except KeyError as error:
        raise InputError(f"{path} has no tensor {error}, as ClimaX's checkpoints do; give one of these") from None
    variables = int(state["var_embed"].shape[1])
    if variables != len(CLIMAX_VARIABLES):
        raise InputError(f"{path} has {variables} variables, ClimaX's own {len(CLIMAX_VARIABLES)}; give one of these")
    channels = tuple(name for name in CLIMAX_VARIABLES if name not in (*_STATIC, *_FORCINGS))
    shape = (tokens[0] * config.patch[0], tokens[1] * config.patch[1])
    ones = np.ones(len(channels))
    domain = Domain(channels, regular_grid(shape), 0 * ones, ones, ones, _STATIC, np.zeros((len(_STATIC), *shape)))
    model = WeatherViT(config, domain)
    load_climax(model, state, CLIMAX_VARIABLES, tokens)
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    inputs = model.share.input_names(config.input_times)
    return ClimaxWeights(config, tuple(inputs), channels, tokens, tensors)


def _tokens(count: int) -> tuple[int, int]:
    """(lat, lon) patches of a globe twice as wide as high."""
    rows = math.isqrt(count // 2)
    if 2 * rows * rows != count:
        raise InputError(f"the checkpoint has {count} positions, no rows of twice as many columns, as ClimaX's grids")
    return rows, 2 * rows


def _architecture(state: dict[str, Tensor], heads: int) -> ModelConfig:
    stacked = state.get("token_embeds.proj_weights")
    patch = state["token_embeds.0.proj.weight"] if stacked is None else stacked[0]
    depth = sum(1 for name in state if name.startswith("blocks.") and name.endswith(".norm1.weight"))
    layers = sum(1 for name in state if name.startswith("head.") and name.endswith(".weight"))
    width = int(state["norm.weight"].shape[0])
    hidden = int(state["blocks.0.mlp.fc1.weight"].shape[0])
    return ModelConfig(
        patch_size=int(patch.shape[-1]), width=width, depth=depth, heads=heads, mlp_ratio=hidden / width,
        head_depth=layers - 1, forcings=_FORCINGS, predict="state",
    )  # fmt: skip
