"""Roles of channels: a state goes in and comes out, an input only goes in, an output only comes out.

`model.inputs` and `model.outputs` name channels (`z500`) or, for all of their levels, variables (`z`); with a minus
before each, all others are meant: `outputs: [-sst]` is every channel but `sst`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig


@dataclass(frozen=True)
class Roles:
    """Which channels of a model go in, and which come out; both in the order of its channels."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def states(self) -> tuple[str, ...]:
        """Channels that are both."""
        return tuple(name for name in self.inputs if name in self.outputs)

    def __str__(self) -> str:
        inputs = [name for name in self.inputs if name not in self.outputs]
        outputs = [name for name in self.outputs if name not in self.inputs]
        parts = [f"{len(self.states)} states"]
        parts += [f"{kind} {' '.join(names)}" for kind, names in (("inputs", inputs), ("outputs", outputs)) if names]
        return ", ".join(parts)


def find_roles(config: ModelConfig, channels: Sequence[str]) -> Roles:
    """The roles of a model's channels.

    Raises:
        InputError: a name that no channel has, a channel without a role, or nothing that goes in or comes out.
    """
    inputs, outputs = (
        _chosen(key, getattr(config, key), channels) if getattr(config, key) is not None else tuple(channels)
        for key in ("inputs", "outputs")
    )
    if idle := [name for name in channels if name not in inputs and name not in outputs]:
        raise InputError(
            f"{', '.join(idle)} would neither go into the model nor come out; add to model.inputs or model.outputs, or "
            "drop from data.channels"
        )
    return Roles(inputs, outputs)


def _chosen(key: str, given: Sequence[str], channels: Sequence[str]) -> tuple[str, ...]:
    names = [name.removeprefix("-") for name in given]
    known = {*channels, *(parse_channel(name).variable.short for name in channels)}
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"model.{key} names {', '.join(unknown)}, no channel or variable of data.channels; remove or add them"
        )
    meant = [name for name in channels if name in names or parse_channel(name).variable.short in names]
    chosen = tuple(name for name in channels if (name in meant) != given[0].startswith("-"))
    if not chosen:
        raise InputError(f"model.{key} [{', '.join(given)}] leaves no channel; name one at least")
    return chosen
