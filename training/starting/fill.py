"""A rank's parts of all weights from those that a run starts from: one whole tensor at a time is in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from weatherfm.errors import InputError
from weatherfm.model.initial import initial_tensor, row_names
from weatherfm.model.model import WeatherViT
from weatherfm.model.position import interpolate_position
from weatherfm.training.parallel.channel_rows import local, local_part
from weatherfm.training.starting.donor import Donor
from weatherfm.training.starting.matching import Match
from weatherfm.training.starting.resize import embedding_of_patches, patches_of_output

_LAST_OF_BLOCK = ("attention.out.", "mlp.contract.")
"""What a block adds to its input goes through these: at zero, the block is the identity."""


@torch.no_grad()
def fill_from(
    model: WeatherViT, donor: Donor, match: Match, seed: int, alive: Callable[[], None] = lambda: None
) -> None:
    """Set this rank's parts of all weights: what the donor has, by name, and for the rest initial values.

    Args:
        model: a rank's, with memory for its parts.
        donor: whose weights they are.
        match: what comes from where.
        seed: of the initial values.
        alive: called now and then.

    Raises:
        InputError: a weight of another shape than its name and the settings say.
    """
    with donor.opened() as read:
        for name, parameter in model.named_parameters():
            whole = _start_of(model, name, donor, match, read, seed)
            if whole.shape != parameter.shape:
                raise InputError(
                    f"{donor.path}: {name} has shape {list(whole.shape)}, expected {list(parameter.shape)}; the file "
                    "does not fit its own configuration"
                )
            local(parameter).copy_(local_part(whole, parameter))
            alive()


def _start_of(
    model: WeatherViT, name: str, donor: Donor, match: Match, read: Callable[[str], Tensor], seed: int
) -> Tensor:
    """Of one parameter, with the rows of this rank's channels."""
    rows = row_names(model, name)
    if name not in donor.names or not match.takes(name):
        return _new(model, name, match, rows, seed)
    theirs = read(name)
    if rows is None:
        is_table = name.endswith("position.weight") and model.config.position == "learned"
        return interpolate_position(theirs, donor.tokens, model.tokens) if is_table else theirs
    return _rows(model, name, rows, _resized(name, theirs, donor, model), donor, match, seed)


def _new(model: WeatherViT, name: str, match: Match, rows: list[str] | None, seed: int) -> Tensor:
    """Of a parameter that the weights do not have: its initial values; a block, and gates of newcomers, do nothing."""
    values = initial_tensor(model, name, seed)
    closed = model.config.conditioning == "adaln"  # by gates of their own; both at zero, neither would ever learn
    if name.startswith("blocks.") and int(name.split(".")[1]) in match.added_blocks and not closed:
        return torch.zeros_like(values) if any(f".{last}" in name for last in _LAST_OF_BLOCK) else values
    if name == "tokenizer.gate" and rows is not None:
        known = torch.tensor([match.inputs[row] == (row,) for row in rows])
        return torch.where(known, values, 0)
    return values


def _rows(
    model: WeatherViT, name: str, rows: list[str], theirs: Tensor, donor: Donor, match: Match, seed: int
) -> Tensor:
    is_input = name.startswith("tokenizer.")
    sources, held = (match.inputs, donor.inputs) if is_input else (match.outputs, donor.outputs)
    values = initial_tensor(model, name, seed)
    for i, row in enumerate(rows):
        source = sources[row]
        if name == "tokenizer.gate" and source != (row,):
            values[i] = 0
        elif source:
            values[i] = theirs[[held.index(one) for one in source]].mean(0)
    return values


def _resized(name: str, theirs: Tensor, donor: Donor, model: WeatherViT) -> Tensor:
    """Rows of channels, for patches of the model's size."""
    old, new = donor.config.patch, model.config.patch
    if name == "tokenizer.weight":
        return embedding_of_patches(theirs, old, new)
    if name.startswith("to_patches."):
        return patches_of_output(theirs, old, new, dim=1)
    return theirs
