"""Settings of a run that starts from trained weights."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from weatherfm.config import Config
from weatherfm.errors import InputError


class StartFrom(Config):
    """Trained weights to start from, matched by the names of channels, constant fields and forcings."""

    weights: str
    """A weights file, the folder of the run that made it, or a checkpoint of ClimaX (`.ckpt`)."""
    new_channels: dict[str, list[str]] = {}
    """Channels that the weights lack -> theirs whose mean they start as, e.g. `{z600: [z500, z700]}`; an input without
    a word starts with initial rows and its gate closed, an output at persistence."""
    statistics: Literal["weights", "store"] = "weights"
    """Whose mean and spreads channels have that the weights know: what they were trained with, or the store's own, as
    where weights were trained on several stores (`data.mix`), each with its own."""
    freeze: list[str] = []
    """Parts that do not learn, by the start of their names: `tokenizer`, `aggregation`, `position`, `lead_time` or
    `conditioning`, `blocks` (or `blocks.0`), `norm`, `head`, `to_patches`, `decoder`, `truncation`."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """Factor of the learning rate from each block to the one below it: the head learns at the full rate, blocks below
    it ever slower, what makes tokens slowest."""

    @model_validator(mode="after")
    def _one_way(self) -> StartFrom:
        if self.freeze and self.layer_decay is not None:
            raise InputError("start_from has both freeze and layer_decay; choose one: a frozen part has no rate")
        if empty := [name for name, others in self.new_channels.items() if not others]:
            raise InputError(f"start_from.new_channels names nothing for {', '.join(empty)}; leave it out")
        return self

    def record(self) -> dict[str, Any]:
        """What decides the weights beside the file itself, which is named by its digest."""
        told = self.model_dump(mode="json", exclude={"weights"})
        return {key: value for key, value in told.items() if (key, value) != ("statistics", "weights")}
