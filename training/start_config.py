"""Settings of a run that starts from trained weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from weatherfm.config import Config
from weatherfm.errors import InputError
from weatherfm.model.lora import MATRICES


class Lora(Config):
    """Low-rank adaptation (LoRA, arXiv 2106.09685): matrices W of the blocks stay as they are, and beside each learn
    two thin ones, so that it acts as W + alpha / rank * B A. Blocks that the weights lack have none and learn whole."""

    rank: int = Field(8, ge=1)
    """Rows of A and columns of B; a matrix [out, in] learns rank * (out + in) numbers."""
    on: list[str] = Field(default=["attention", "mlp"], min_length=1)
    """Parts of the blocks: `attention` (`query`, `key`, `value`, `out`), `mlp` (`expand`, `contract`), or one of their
    matrices alone, as `attention.query`."""
    alpha: float | None = Field(None, gt=0)
    """Size of what is added, which is divided by the rank; without it, the rank: nothing is scaled."""
    export: Literal["merged", "apart"] = "merged"
    """merged: the factors are added to the matrices, in an ordinary `weights.safetensors`. apart: `adapter.safetensors`
    holds what differs from the weights to start from alone, and names these by their digest; both together forecast."""

    @field_validator("on")
    @classmethod
    def _known(cls, given: list[str]) -> list[str]:
        known = [*MATRICES, *_matrices(MATRICES)]
        if unknown := [part for part in given if part not in known]:
            raise InputError(f"names {', '.join(unknown)}, which no block has; there are {', '.join(known)}")
        return given

    @property
    def matrices(self) -> tuple[str, ...]:
        """The linear layers of a block that are adapted, in its order."""
        wanted = {name for part in self.on for name in MATRICES.get(part, (part,))}
        return tuple(name for name in _matrices(MATRICES) if name in wanted)

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def require_fit(self, width: int, hidden: int) -> None:
        """Refuse a rank that a matrix could not have.

        Args:
            width: of the model.
            hidden: units of its MLP.

        Raises:
            InputError: with the largest that fits.
        """
        sides = {name: min(width, hidden) if name.startswith("mlp.") else width for name in self.matrices}
        name, side = min(sides.items(), key=lambda one: one[1])
        if self.rank > side:
            raise InputError(
                f"training.start_from.lora.rank is {self.rank}, and the smaller side of {name} is {side}; choose "
                f"{side} or less, by custom 4 to 64"
            )

    def __str__(self) -> str:
        return f"lora of rank {self.rank} on {', '.join(self.on)}"

    def record(self) -> dict[str, Any]:
        """What decides the weights."""
        return {"rank": self.rank, "scale": self.scale, "on": list(self.matrices)}


class StartFrom(Config):
    """Trained weights to start from, matched by the names of channels, constant fields and forcings."""

    later = frozenset({"statistics"})

    weights: str = Field(min_length=1)
    """A weights file, the folder of the run that made it, or a checkpoint of ClimaX (`.ckpt`)."""
    new_channels: dict[str, list[str]] = {}
    """Channels that the weights lack -> theirs whose mean they start as, e.g. `{z600: [z500, z700]}`; an input without
    a word starts with initial rows and its gate closed, an output at persistence."""
    statistics: Literal["weights", "store"] = "weights"
    """Whose mean and spreads channels have that the weights know: what they were trained with, or the store's own, as
    where weights were trained on several stores (`data.mix`), each with its own."""
    freeze: list[str] = []
    """Parts that do not learn, by the start of their names: `tokenizer`, `aggregation`, `position`, `lead_time` or
    `conditioning`, `noising`, `blocks` (or `blocks.0`, or `backbone`), `norm`, `head`, `to_patches`, `decoder`,
    `truncation`, `reconstruction`."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """Factor of the learning rate from each block to the one below it: the head learns at the full rate, blocks below
    it ever slower, what makes tokens slowest."""
    lora: Lora | None = None
    """Let a low-rank change of the blocks' matrices learn in their place, as `{rank: 8}`. All else learns as it would,
    but for what `freeze` names: with `freeze: [blocks]` the factors alone learn in the blocks."""

    @model_validator(mode="after")
    def _one_way(self) -> StartFrom:
        if self.freeze and self.layer_decay is not None:
            raise InputError("start_from has both freeze and layer_decay; choose one: a frozen part has no rate")
        if empty := [name for name, others in self.new_channels.items() if not others]:
            raise InputError(f"start_from.new_channels names nothing for {', '.join(empty)}; leave it out")
        return self

    def require_blocks_unasked(self, backbone: str) -> None:
        """Refuse what is for the blocks of weatherfm alone.

        Raises:
            InputError: the backbone is another, and this asks for them.
        """
        asked = [name for name in ("lora", "layer_decay") if getattr(self, name) is not None]
        if asked:
            raise InputError(
                f"training.start_from.{asked[0]} is for the blocks of weatherfm, which model.backbone {backbone} does "
                "not have; leave it out (freeze: [backbone] keeps all of it as it is)"
            )

    def record(self) -> dict[str, Any]:
        """What decides the weights beside the file itself, which is named by its digest."""
        told = self.model_dump(mode="json", exclude={"weights", "lora"})
        return told if self.lora is None else told | {"lora": self.lora.record()}


def _matrices(parts: Mapping[str, Iterable[str]]) -> list[str]:
    return [name for names in parts.values() for name in names]
