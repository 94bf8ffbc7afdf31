"""Settings of what mixes positions between aggregation and head: which backbone, and how its windows lie."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Annotated, Any

from pydantic import Field

from weatherfm.config import Config
from weatherfm.errors import InputError

OURS = ("vit", "windows")
"""Backbones of transformer blocks, with the same weights: one may start from the other's."""
_OF_BLOCKS = ("mlp_ratio", "mlp_convolution", "rotary", "dropout", "drop_path")
"""Settings that our own blocks alone can follow."""
_Side = Annotated[int, Field(ge=1)]


class WindowsConfig(Config):
    """What blocks of `backbone: windows` see of the patches."""

    size: _Side | tuple[_Side, _Side] = 8
    """Patches a side of a window, one number or [rows, columns]; what is left at the edges are smaller windows."""
    shift: bool = True
    """Let every second block with windows have them half a window further; without it neighbouring windows meet in
    global blocks and `mlp_convolution` alone."""
    global_every: int | None = Field(None, ge=2)
    """Every so many blocks one attends to all positions; null: none does."""

    @property
    def sides(self) -> tuple[int, int]:
        """(rows, columns) of a window."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def kinds(self, depth: int) -> list[bool | None]:
        """Of each block whether its windows are shifted; None where it attends globally."""
        found: list[bool | None] = []
        windowed = 0
        for number in range(1, depth + 1):
            if self.global_every is not None and number % self.global_every == 0:
                found.append(None)
            else:
                found.append(self.shift and windowed % 2 == 1)
                windowed += 1
        return found

    @property
    def period(self) -> int:
        """After how many blocks the same kinds come again."""
        windowed = 1 if self.global_every is None else self.global_every - 1
        turns = 2 if self.shift and windowed % 2 else 1
        return turns * (windowed + (self.global_every is not None))


def is_own(backbone: str) -> bool:
    """Whether a backbone is a class of the user's."""
    return backbone not in OURS


def left_out(backbone: str) -> tuple[str, ...]:
    """Settings that say nothing of a model with this backbone, and are not recorded."""
    return _OF_BLOCKS if is_own(backbone) else ()


def require_backbone(backbone: str, options: Mapping[str, Any], told: bool, given: AbstractSet[str]) -> None:
    """Refuse settings that do not go with the backbone.

    Args:
        backbone: its name.
        options: `backbone_options`.
        told: samples have a condition (`conditioning: adaln`).
        given: names of the settings that are set, and of noise if there is any.

    Raises:
        InputError: says which, and what to do.
    """
    if backbone != "windows" and "windows" in given:
        raise InputError(f"windows belong to backbone: windows, and backbone is {backbone}; set it, or leave them out")
    if not is_own(backbone):
        if options:
            raise InputError(
                f"backbone_options are for a backbone of your own (package.module:Class), and backbone is {backbone}; "
                "leave them out"
            )
        return
    if not all(part.isidentifier() for part in _parts(backbone)):
        raise InputError(
            f"backbone {backbone!r} is none of {', '.join(OURS)}, and no class of your own either; name that as "
            "package.module:Class"
        )
    if idle := sorted(given & set(_OF_BLOCKS)):
        raise InputError(
            f"{', '.join(idle)}: for the blocks of weatherfm alone, which backbone {backbone} does not have; leave "
            "them out, and give it what it takes by backbone_options"
        )
    if "noise" in given and not told:
        raise InputError(
            f"noise reaches backbone {backbone} in its condition alone, and there is none with conditioning: embed; "
            "set conditioning: adaln"
        )


def _parts(backbone: str) -> list[str]:
    """Names in `package.module:Class`; an empty one where it is not of this form."""
    module, colon, name = backbone.partition(":")
    return [*module.split("."), name if colon else ""]
