"""Settings of sources made of others: joined by variable, or one after the other in time."""

from __future__ import annotations

from collections import Counter
from datetime import date
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weatherfm.config import Config
from weatherfm.data_pipeline.picture_config import PictureSource
from weatherfm.data_pipeline.source_config import OneSource, SourceConfig
from weatherfm.errors import InputError


class JoinPart(Config):
    """A source, and what is taken from it."""

    source: WeatherSource
    """Any source of weather, with its own settings."""
    channels: list[str] = []
    """Of `data.channels`, those that it gives. The part that names neither channels nor static fields gives all that
    the others do not."""
    static: list[str] = []
    """Of `data.static`, those that it gives."""
    method: Literal["conservative", "bilinear", "nearest"] | None = None
    """How its fields get to the grid of the store; without it, `data.regrid.method`, else conservative."""


class JoinSource(SourceConfig):
    """Variables from several sources, as precipitation of one beside the fields of another; each may have its own grid.

    Fields are brought to `data.regrid`, or, without it, to the grid of the part that gives the rest (of the first
    where every part names its own). Kept are the times that all parts have.
    """

    kind: Literal["join"]
    parts: list[JoinPart] = Field(min_length=2)
    """As `[{source: {kind: files, paths: [rain/*.nc]}, channels: [tp]}, {source: {kind: weatherbench2}}]`."""

    @model_validator(mode="after")
    def _one_place_each(self) -> Self:
        given = [name for part in self.parts for name in {*part.channels, *part.static}]
        if repeated := sorted(name for name, count in Counter(given).items() if count > 1):
            raise InputError(f"several parts of the source give {', '.join(repeated)}; name each in one of them")
        if sum(not part.channels and not part.static for part in self.parts) > 1:
            raise InputError("several parts of the source name nothing; one may give the rest, the others name theirs")
        return self

    @property
    def main(self) -> int:
        """The part on whose grid the others are brought: that of the rest, else the first with channels."""
        rest = [i for i, part in enumerate(self.parts) if not part.channels and not part.static]
        return next(iter(rest or [i for i, part in enumerate(self.parts) if part.channels]), 0)

    def located(self) -> Self:
        """The same with absolute paths."""
        return self.model_copy(update={"parts": list(map(_located, self.parts))})


class ChainPart(Config):
    """A source, and the day from which on it gives the fields."""

    source: WeatherSource
    """Any source of weather, with its own settings."""
    start: date | None = None
    """First day of this part, as `2023-01-01`; only the first part has none."""


class ChainSource(SourceConfig):
    """The same variables from one source after the other in time, as ERA5 and then analyses of the IFS.

    Each part ends where the next one starts. Fields are brought to `data.regrid`, or, without it, to the grid of the
    first part that has days in `data.period`.
    """

    kind: Literal["chain"]
    parts: list[ChainPart] = Field(min_length=1)
    """In order, as `[{source: {kind: arco}}, {source: {kind: files, paths: [ifs/*.grib]}, start: 2023-01-01}]`."""
    method: Literal["conservative", "bilinear", "nearest"] = "conservative"
    """How fields of later parts get to the grid of the first, where `data.regrid` does not say."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        first, *later = (part.start for part in self.parts)
        if first is not None:
            raise InputError(f"the first part of the chain starts at {first}; it has no start, data.period says it")
        starts = [start for start in later if start is not None]
        if len(starts) < len(later):
            raise InputError("a part of the chain has no start; say from which day on it gives the fields")
        if wrong := [two for one, two in pairwise(starts) if two <= one]:
            raise InputError(f"a part of the chain starts at {wrong[0]}, not after the one before; put them in order")
        return self

    def located(self) -> Self:
        """The same with absolute paths."""
        return self.model_copy(update={"parts": list(map(_located, self.parts))})


def _located(part: JoinPart | ChainPart) -> JoinPart | ChainPart:
    return part.model_copy(update={"source": part.source.located()})


WeatherSource = Annotated[OneSource | JoinSource | ChainSource, Field(discriminator="kind")]
Source = Annotated[OneSource | PictureSource | JoinSource | ChainSource, Field(discriminator="kind")]
"""Pictures stand alone: they are not joined with anything."""

JoinPart.model_rebuild()
ChainPart.model_rebuild()
JoinSource.model_rebuild()
ChainSource.model_rebuild()
