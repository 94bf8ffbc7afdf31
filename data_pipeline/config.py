"""Settings of a training store: where data come from, what is kept, and which years may be learned from."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from weatherfm.config import Config, Hours
from weatherfm.errors import InputError
from weatherfm.variables import parse_channel


class Period(Config):
    """Whole days from `start` to `end`, both included; written `2000-2007`, `2008` or `2000-01-01/2000-06-30`."""

    start: date
    end: date

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        text = str(value).strip() if isinstance(value, str | int) else None
        if text is None:
            return value
        if match := re.fullmatch(r"(\d{4})(?:\s*-\s*(\d{4}))?", text):
            return {"start": date(int(match[1]), 1, 1), "end": date(int(match[2] or match[1]), 12, 31)}
        if match := re.fullmatch(r"(\d{4}-\d\d-\d\d)\s*/\s*(\d{4}-\d\d-\d\d)", text):
            return {"start": match[1], "end": match[2]}
        raise ValueError("write a period as 2000-2007, 2008 or 2000-01-01/2000-06-30")

    @model_validator(mode="after")
    def _forward(self) -> Period:
        if self.end < self.start:
            raise ValueError(f"the period ends ({self.end}) before it starts ({self.start}); swap the two")
        return self

    def __str__(self) -> str:
        return f"{self.start}/{self.end}"

    def overlaps(self, other: Period) -> bool:
        """True when the two share a day."""
        return self.start <= other.end and other.start <= self.end

    def contains(self, times: np.ndarray) -> np.ndarray:
        """[time] bool: which datetime64 values fall into the period."""
        return (times >= np.datetime64(self.start)) & (times < np.datetime64(self.end) + np.timedelta64(1, "D"))


class FilesSource(Config):
    """NetCDF, GRIB and Zarr files on disk."""

    kind: Literal["files"]
    paths: list[str] = Field(min_length=1)
    """Files or patterns (`era5/*.nc`); formats may be mixed, and one variable may stand in many files."""
    static_paths: list[str] = []
    """Files that hold constant fields (orography, land-sea mask), where those are not among `paths`."""
    exclude: list[str] = []
    """Names or patterns (`*f003`) of files that `paths` match but that should be left out."""
    levels: dict[str, int] = {}
    """Pressure level in hPa of a variable whose file does not say it, e.g. `{z: 500, t: 850}`; a pattern with `*`
    (`{"z850_*.nc": 850}`) names files instead, where one name stands for several levels."""
    units: dict[str, str] = {}
    """Units of a variable whose file does not say them or says them wrongly, by the file's name for it."""
    rename: dict[str, str] = {}
    """The file's name -> our short name, for names the channel table does not know."""
    number: int | None = None
    """The ensemble member to read where files hold several."""
    lead_time: Hours | None = None
    """The forecast step to read where files hold several; the store's time is then the valid time."""


class PlanetSource(Config):
    """A simulated dry atmosphere (Held-Suarez), 6-hourly from 2001-01-01 on; never mistake it for observations."""

    kind: Literal["planet"]
    seed: int = Field(0, ge=0)
    """Another seed is another weather history of the same planet."""
    cache: str = "~/.cache/weatherfm/planet"
    """Folder where finished months of simulation are kept (33 MB each); it may be deleted at any time."""


Source = Annotated[FilesSource | PlanetSource, Field(discriminator="kind")]


class DataConfig(Config):
    """One training store."""

    store: str
    """Folder of the store (Zarr v3); by custom it ends in .zarr."""
    source: Source
    channels: list[str] = Field(min_length=1)
    """Short names in the order of the store, e.g. `[z500, t850, t2m]`."""
    static: list[Literal["orography", "lsm"]] = []
    """Constant fields to keep beside the channels."""
    period: Period | None = None
    """Days to keep; without it, all the source has (a simulated source needs it)."""
    step: Hours | None = None
    """Keep every `step` from 00 UTC on; without it, the source's own times."""
    allow_gaps: bool = False
    """Accept a time axis with missing steps; the manifest lists them and no sample crosses one."""
    train: Period | None = None
    """Days that statistics, climatology and training may use; without it, the whole record."""
    validation: Period | None = None
    test: Period | None = None
    climatology_window: int | None = 61
    """Days around each day of year that its climatology averages, weights falling linearly to zero at the ends
    (as WeatherBench2). null: one mean over all days, right only where there are no seasons."""
    tendency_lead: Hours | None = None
    """Lead time over which `tendency_std` is taken; without it, 24 h or the step if that is longer."""
    channel_block: int | None = None
    """Channels in one chunk; without it, all on a coarse grid and as many as fill 1 MiB on a fine one."""
    shard_mib: int = Field(64, ge=1)
    """Size of one file before compression, in MiB."""

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        names = [parse_channel(name).name for name in self.channels]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"channels repeat {', '.join(repeated)}; name each once")
        periods = {"train": self.train, "validation": self.validation, "test": self.test}
        given = [(name, period) for name, period in periods.items() if period is not None]
        for i, (name, period) in enumerate(given):
            for other, held in given[i + 1 :]:
                if period.overlaps(held):
                    raise InputError(
                        f"{name} ({period}) and {other} ({held}) share days: scores would be too good; separate them"
                    )
        return self
