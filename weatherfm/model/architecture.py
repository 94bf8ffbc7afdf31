"""The settings of the model: what a run file says in its section `model`."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from weatherfm.config import Config, Hours
from weatherfm.earth.forcings import FORCINGS
from weatherfm.errors import InputError
from weatherfm.model.aggregation import AggregationConfig
from weatherfm.model.backbone_config import WindowsConfig, left_out, require_backbone
from weatherfm.model.reconstruction_config import ReconstructionConfig

DEEPEST, WIDEST = 1000, 2**16
"""Blocks, and numbers in a token: some seven times what the largest transformers have. What is more is a slip, and to
build it, even without its numbers, would take minutes."""
_OF_FORECASTS = ("mlp_convolution", "decoder_fields", "truncation", "noise", "head_depth", "predict", "backbone")
"""Settings that a masked autoencoder has no use for."""


class ModelConfig(Config):
    """Architecture of the model; channels, grid and statistics come from the store."""

    later = frozenset(
        {
            "input_gates", "mlp_convolution", "rotary", "decoder_fields", "truncation", "conditioning", "position",
            "inputs", "outputs", "noise", "reconstruction", "backbone", "windows", "backbone_options",
        }
    )  # fmt: skip

    patch_size: int | tuple[int, int] = 4
    """Grid points a patch spans, one number or [lat, lon]."""
    width: int = Field(128, ge=1, le=WIDEST)
    """Numbers in a token; a multiple of `heads` and of 4."""
    depth: int = Field(6, ge=1, le=DEEPEST)
    """Transformer blocks."""
    heads: int = Field(8, ge=1, le=WIDEST)
    """Of the attention, in the blocks and over the channels."""
    backbone: str = "vit"
    """What mixes positions between aggregation and head. vit: every block attends to all positions (ClimaX); windows:
    within windows (`model.windows`), for fine grids; `package.module:Class`: one of your own."""
    windows: WindowsConfig = WindowsConfig()
    backbone_options: dict[str, Any] = {}
    """Of a backbone of your own: what its constructor takes beside what all do."""
    mlp_ratio: float = Field(4.0, gt=0, le=64)
    """Hidden units of a block's MLP, as a multiple of `width`."""
    mlp_convolution: bool = False
    """Mix the MLP's hidden units over 3 x 3 neighbouring patches, each by itself; false: not (ClimaX)."""
    rotary: bool = False
    """Turn queries and keys by row and column, so that attention sees distances; false: the position alone (ClimaX)."""
    decoder_fields: int = Field(0, ge=0, le=4096)
    """Hidden fields a channel of a convolutional decoder at grid level, which ends seams between patches; 0: none."""
    truncation: int | None = Field(None, ge=1, strict=True)
    """Largest total wavenumber of what is predicted, each with a factor to learn; null: none. Whole globes only."""
    conditioning: Literal["embed", "adaln"] = "embed"
    """embed: the lead time is added to every token (ClimaX); adaln: lead time, time of day and of year change the norms
    of every block, by nothing at the start."""
    noise: int = Field(0, ge=0, le=WIDEST)
    """Random numbers a sample that change the norms of every block, by nothing at the start: members of an ensemble
    differ by them (`training.loss: crps`, `forecast.members`). 0: none."""
    position: Literal["learned", "place"] = "learned"
    """learned: a vector a patch, of one grid (ClimaX); place: by where on Earth a patch lies, on any grid."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of attention weights and hidden units that training drops at random; under `tp` prefer `drop_path`."""
    drop_path: float = Field(0.1, ge=0, lt=1)
    """Stochastic depth of the last block; rises linearly from zero at the first."""
    head_depth: int = Field(2, ge=0, le=100)
    """Hidden layers of the head."""
    aggregation: AggregationConfig = AggregationConfig()
    input_gates: bool = False
    """Give every input a gate in the aggregation over channels, so that a new one can join trained weights without
    changing what they compute (`training.start_from`); flat aggregation alone."""
    inputs: list[str] | None = Field(None, min_length=1)
    """Channels the model sees, by name or variable, or, each with a minus before it, those it does not see, as `[-tp]`:
    these are outputs alone, predicted whole whatever `predict` says. null: all."""
    outputs: list[str] | None = Field(None, min_length=1)
    """Channels it predicts, in the same way, as `[-sst, -siconc]`: these are inputs alone, neither scored nor written
    into forecasts. null: all."""
    input_times: list[Hours] = [0]
    """States the model sees, relative to the initial time, e.g. `[0h, -24h]`; one of them is 0h."""
    forcings: list[str] = ["latitude", "sin_longitude", "cos_longitude"]
    """Known fields given beside the data: position, time of day, time of year."""
    predict: Literal["increment", "state"] = "increment"
    """What the head gives: the change over the lead time in units of its own spread, or the state."""
    reconstruction: ReconstructionConfig | None = None
    """Make it a masked autoencoder, as `{mask_ratio: 0.75}` (`training.objective: reconstruct`), whose blocks see some
    of the patches; null: it forecasts."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.width % self.heads:
            good = (self.width // self.heads + 1) * self.heads
            raise InputError(
                f"width {self.width} is not divisible by heads {self.heads}; choose a multiple, e.g. {good}"
            )
        if int(self.width * self.mlp_ratio) < 1:
            raise InputError(f"mlp_ratio {self.mlp_ratio:g} of width {self.width} leaves no hidden unit; choose e.g. 4")
        if self.width % 4:
            raise InputError(
                f"width {self.width} is not divisible by 4, as the position embedding needs; choose a multiple"
            )
        if self.rotary and self.width // self.heads % 4:
            raise InputError(
                f"heads of width / heads = {self.width // self.heads} cannot be turned by rows and columns; make it a "
                "multiple of 4, or set rotary: false"
            )
        if self.input_gates and self.aggregation.kind != "flat":
            raise InputError("input_gates belong to aggregation.kind flat; leave them out, or aggregate flat")
        if unknown := [name for name in self.forcings if name not in FORCINGS]:
            raise InputError(f"unknown forcings {', '.join(unknown)}; known are {', '.join(FORCINGS)}")
        if 0 not in self.input_times or max(self.input_times) > 0 or len(set(self.input_times)) < len(self.input_times):
            given = ", ".join(f"{hours}h" for hours in self.input_times)
            raise InputError(f"input_times must hold 0h and earlier times, each once; got [{given}]")
        for key, names in (("inputs", self.inputs), ("outputs", self.outputs)):
            if names and len({name.startswith("-") for name in names}) > 1:
                raise InputError(
                    f"model.{key} [{', '.join(names)}] has names with and without a minus; name those that are meant, "
                    "or, each with a minus, the others"
                )
        if min(self.patch) < 1:
            raise InputError(f"patch_size must be positive, got {self.patch_size}")
        self._check_reconstruction()
        told = self.model_fields_set - (set() if self.noise else {"noise"})
        require_backbone(self.backbone, self.backbone_options, self.conditioning == "adaln", told)
        return self

    def _check_reconstruction(self) -> None:
        if self.reconstruction is None:
            return
        known = type(self).model_fields
        idle = [name for name in _OF_FORECASTS if name in known and getattr(self, name) != known[name].default]
        if idle:
            raise InputError(
                f"{', '.join(idle)} cannot be had with reconstruction: it is for models that forecast, or that see "
                "every patch; leave it out"
            )
        heads, width = self.reconstruction.heads or self.heads, self.reconstruction.width or self.width
        size = math.lcm(heads * (4 if self.rotary else 1), 4)
        if width % size:
            raise InputError(
                f"reconstruction.width {width} does not go with its {heads} heads; choose a multiple of {size}, e.g. "
                f"{(width // size + 1) * size}, or other reconstruction.heads"
            )

    @model_serializer(mode="wrap")
    def _record(self, usual: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told = super()._record(usual)
        return {key: value for key, value in told.items() if key not in left_out(self.backbone)}

    @property
    def patch(self) -> tuple[int, int]:
        """(lat, lon) grid points a patch spans."""
        return (self.patch_size, self.patch_size) if isinstance(self.patch_size, int) else self.patch_size


def patch_counts(patch: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """(lat, lon) patches that cover a grid, the last ones perhaps in part."""
    return (-(-shape[0] // patch[0]), -(-shape[1] // patch[1]))
