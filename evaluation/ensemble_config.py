"""Settings of the members of an ensemble forecast, in the forms people write them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from weatherfm.config import Config
from weatherfm.errors import InputError

_FORMS = "write a number as 16, weights files as [a.safetensors, b.safetensors], or {weights: [a, b], each: 4}"
_ONE = "one member is a single forecast: ask for 2 members or more, or leave members out"


class MembersConfig(Config):
    """Who the members of an ensemble are."""

    weights: list[str] = []
    """Weights files, patterns such as `runs/x/seed*/weights.safetensors`, or folders of runs (of one trained with
    `--seeds`, all of its seeds); these alone are the members. Without it, they are of the weights forecast with."""
    each: int = Field(1, ge=1)
    """Members of each weights file, which differ by noise (`model.noise`), `dropout` or `perturbation`."""

    @model_validator(mode="after")
    def _several(self) -> MembersConfig:
        if not self.weights and self.each < 2:
            raise InputError(_ONE)
        return self


def _as_members(value: Any) -> Any:
    """A number, or weights, as the settings have them."""
    if value is None or isinstance(value, MembersConfig):
        return value
    if isinstance(value, Mapping):
        weights = value.get("weights", [])
        return {**value, "weights": [weights]} if isinstance(weights, str | os.PathLike) else value
    items = list(value) if isinstance(value, list | tuple) else [value]
    if len(items) == 1 and (number := _number(items[0])) is not None:
        if number < 2:
            raise ValueError(_ONE)
        return {"each": number}
    if not items or not all(_is_name(item) for item in items):
        raise ValueError(f"these are no members; {_FORMS}")
    return {"weights": [os.fspath(item) for item in items]}


def _number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.removeprefix("-").isdecimal() else None


def _is_name(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and bool(os.fspath(value).strip()) and _number(value) is None


Members = Annotated[MembersConfig | None, BeforeValidator(_as_members)]


class PerturbationConfig(Config):
    """How the states that members start from differ: an error of analysis, drawn for each member."""

    amplitude: float = Field(gt=0, allow_inf_nan=False)
    """Standard deviation, in units of each channel's own."""
    kind: Literal["scaled", "spherical"] = "scaled"
    """scaled: independent at every grid point; spherical: smooth, by spherical harmonics whose variance falls with the
    total wavenumber, on whole globes."""
