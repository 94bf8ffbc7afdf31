"""ClimaX checkpoints (arXiv 2301.10343): the same function from their tensors.

ClimaX names its parameters `token_embeds`, `var_embed`, `var_query`, `var_agg`, `pos_embed`,
`lead_time_embed`, `blocks`, `norm` and `head`. Each has a home in `WeatherViT` with `predict: state` and two
hidden layers in the head; only the order of the head's outputs differs (ours is channel by channel, so that
channels can be split over devices), and ClimaX's key biases are dropped, for they add the same to every score of
a softmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from weatherfm.errors import InputError, some_of
from weatherfm.model.model import WeatherViT
from weatherfm.model.position import interpolate_position
from weatherfm.model.share import input_names

_THEIRS = {"predict": "state", "conditioning": "embed", "position": "learned"}
"""What ClimaX does where our model can do otherwise and has other weights for it."""


def read_climax_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a ClimaX `.ckpt` file, without the `net.` prefix; only tensors are unpickled, no objects.

    Raises:
        InputError: no such file, or a file that holds more than tensors and plain values.
    """
    if not Path(path).is_file():
        raise InputError(f"no ClimaX checkpoint {path}; give the path of its .ckpt file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises several kinds, all meaning the same to the user
        raise InputError(f"{path} cannot be read as a checkpoint of tensors: {error}") from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise InputError(f"{path} holds {type(state).__name__}, no tensors by name; give ClimaX's own .ckpt file")
    return {name.removeprefix("net."): tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


def load_climax(
    model: WeatherViT, state: Mapping[str, Tensor], variables: Sequence[str], tokens: tuple[int, int]
) -> None:
    """Copy ClimaX's tensors into a model.

    Args:
        model: `predict: state` and the defaults of conditioning and position, the same width, depth, patch size and
            head; its inputs and channels may be any subset of ClimaX's variables, in any order, and its grid may differ
            (the position embedding is interpolated).
        state: tensors by ClimaX's names.
        variables: our names of the checkpoint's variables, in its order.
        tokens: (lat, lon) patches of the checkpoint's grid; (8, 16) at 5.625 degrees with patch 4.

    Raises:
        InputError: a variable the checkpoint does not have, tensors that are missing or of another shape.
    """
    for setting, theirs in _THEIRS.items():
        if (ours := getattr(model.config, setting)) != theirs:
            raise InputError(f"ClimaX has no model.{setting}={ours}; set model.{setting}={theirs} to load its weights")
    inputs = _positions(input_names(model.config, model.domain), variables)
    outputs = _positions(model.share.outputs, variables)
    try:
        tensors = {**_front(state, inputs, model, tokens), **_blocks(state, model), **_head(state, outputs, model)}
        model.load_state_dict(tensors)
    except KeyError as error:
        raise InputError(
            f"the checkpoint has no tensor {error}; is it ClimaX, with depth {model.config.depth}?"
        ) from None
    except RuntimeError as error:
        raise InputError(f"the checkpoint does not fit the model: {' '.join(str(error).split())}") from None


def _positions(names: Sequence[str], variables: Sequence[str]) -> list[int]:
    known = list(variables)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"the checkpoint has no variable {some_of(unknown)}; it has {some_of(known)}")
    return [known.index(name) for name in names]


def _front(
    state: Mapping[str, Tensor], inputs: list[int], model: WeatherViT, tokens: tuple[int, int]
) -> dict[str, Tensor]:
    if "token_embeds.proj_weights" in state:  # the later, stacked form: [C, D, 1, p, p]
        weights, biases = state["token_embeds.proj_weights"], state["token_embeds.proj_biases"]
        weight, bias = weights[inputs].flatten(2), biases[inputs]
    else:
        weight = torch.stack([state[f"token_embeds.{i}.proj.weight"].flatten(1) for i in inputs])
        bias = torch.stack([state[f"token_embeds.{i}.proj.bias"] for i in inputs])
    query, key, value = state["var_agg.in_proj_weight"].chunk(3)
    query_bias, _, value_bias = state["var_agg.in_proj_bias"].chunk(3)
    return {
        "tokenizer.weight": weight,
        "tokenizer.bias": bias,
        "tokenizer.embedding": state["var_embed"][0, inputs],
        "aggregation.latent": state["var_query"].flatten(),
        "aggregation.query.weight": query,
        "aggregation.query.bias": query_bias,
        "aggregation.key.weight": key,
        "aggregation.value.weight": value,
        "aggregation.value.bias": value_bias,
        "aggregation.out.weight": state["var_agg.out_proj.weight"],
        "aggregation.out.bias": state["var_agg.out_proj.bias"],
        "position.weight": interpolate_position(state["pos_embed"][0], tokens, model.tokens),
        "lead_time.weight": state["lead_time_embed.weight"],
        "lead_time.bias": state["lead_time_embed.bias"],
    }


_BLOCK_NAMES = {
    "norm1": "attention_norm",
    "norm2": "mlp_norm",
    "attn.proj": "attention.out",
    "mlp.fc1": "mlp.expand",
    "mlp.fc2": "mlp.contract",
}


def _blocks(state: Mapping[str, Tensor], model: WeatherViT) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for i in range(model.config.depth):
        for kind in ("weight", "bias"):
            for theirs, ours in _BLOCK_NAMES.items():
                tensors[f"blocks.{i}.{ours}.{kind}"] = state[f"blocks.{i}.{theirs}.{kind}"]
            parts = state[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                if name == "key" and kind == "bias":
                    continue
                tensors[f"blocks.{i}.attention.{name}.{kind}"] = part
    return tensors


def _head(state: Mapping[str, Tensor], outputs: list[int], model: WeatherViT) -> dict[str, Tensor]:
    tensors = {f"norm.{kind}": state[f"norm.{kind}"] for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        for i in range(0, 2 * model.config.head_depth, 2):  # every other module is the GELU
            tensors[f"head.{i}.{kind}"] = state[f"head.{i}.{kind}"]
        last = state[f"head.{2 * model.config.head_depth}.{kind}"]  # rows: patch value, then channel
        by_channel = last.unflatten(0, (model.tokenizer.weight.shape[-1], -1)).transpose(0, 1)  # [C, P, ...]
        tensors[f"to_patches.{kind}"] = by_channel[outputs]
    return tensors
