"""Settings of a training store: where data come from, what is kept, and which years may be learned from."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from weatherfm.config import Config, Hours, Span
from weatherfm.data_pipeline.joined_config import Source
from weatherfm.data_pipeline.period_config import Days as Days
from weatherfm.data_pipeline.period_config import Period as Period
from weatherfm.data_pipeline.picture_config import refuse_for_pictures
from weatherfm.data_pipeline.source_config import absolute
from weatherfm.data_pipeline.variable_config import NAME, Statistic, VariableConfig
from weatherfm.earth.variables import VARIABLES, add_variables, expand_channels, parse_channel
from weatherfm.errors import InputError
from weatherfm.home import expanded

Channels = Annotated[
    list[str], BeforeValidator(lambda given: expand_channels(given) if isinstance(given, list | tuple) else given)
]
"""Short names; a range of wavelengths is written out."""


def _short(channel: str) -> str:
    return parse_channel(channel).variable.short


class Area(Config):
    """A box of the Earth; points whose centres lie inside are kept."""

    north: float = Field(ge=-90, le=90)
    """Northern edge in degrees; south of the equator below zero."""
    west: float = Field(ge=-180, le=360)
    """Western edge in degrees east; west of Greenwich below zero, or counted on from 180."""
    south: float = Field(ge=-90, le=90)
    """Southern edge in degrees."""
    east: float = Field(ge=-180, le=360)
    """Eastern edge in degrees east; a box may cross any meridian: from `west` eastward to `east`."""

    @model_validator(mode="after")
    def _has_extent(self) -> Area:
        if self.south >= self.north:
            raise ValueError(f"south ({self.south:g}) is not below north ({self.north:g}); swap the two")
        if not 0 < self.east - self.west <= 360:
            raise ValueError(
                f"east ({self.east:g}) is not up to 360 degrees east of west ({self.west:g}); {self._unwrapped()}"
            )
        return self

    def _unwrapped(self) -> str:
        """The same box with its edges counted eastward, as the user may have meant it."""
        if self.east < self.west and self.east + 360 <= 360:
            crossed, edges = "the date line", f"west: {self.west:g}, east: {self.east + 360:g}"
        elif self.east < self.west and self.west - 360 >= -180:
            crossed, edges = "the prime meridian", f"west: {self.west - 360:g}, east: {self.east:g}"
        else:
            return "give two different edges, at most one turn apart"
        return f"for a box across {crossed}, count degrees on eastward from west: {edges}"


class RegridConfig(Config):
    """The grid of the store, where it is not the source's, and how fields get there."""

    resolution: float | None = Field(None, ge=0.005)
    """Degrees between points of a regular grid, e.g. 5.625; 180 must be a multiple of it."""
    poles: bool = False
    """A regular grid with points on the poles (0.25 degrees: 721 latitudes) instead of cells that end there."""
    gaussian: int | None = Field(None, ge=2, le=16_000)
    """Or a regular Gaussian grid: this number of latitudes between pole and equator, as in F32."""
    method: Literal["conservative", "bilinear", "nearest"] = "conservative"
    """conservative: mean over the cell, keeps area means; bilinear: value at the point; nearest: of the nearest point,
    for categories."""

    @model_validator(mode="after")
    def _one_grid(self) -> RegridConfig:
        if (self.resolution is None) == (self.gaussian is None):
            raise ValueError("give either resolution or gaussian, e.g. resolution: 5.625")
        if self.poles and self.gaussian is not None:
            raise ValueError("a Gaussian grid has no points on the poles; leave poles out")
        if self.resolution is not None:
            rows = 180 / self.resolution
            if abs(rows - round(rows)) > 1e-6 * rows or round(rows) < 2:
                raise ValueError(
                    f"180 is not a multiple of resolution {self.resolution:g}; choose e.g. 0.25, 1.5 or 5.625"
                )
        return self


class Transform(Config):
    """Another scale on which the model sees a variable, and on which its statistics are taken."""

    log1p: float = Field(gt=0)
    """sign(x) ln(1 + |x| / this), in canonical units: for precipitation 1e-5 m (FourCastNet)."""


class MixPart(Config):
    """One of several stores that a model is trained on; what is not given is as beside `mix`."""

    store: Annotated[str, Field(min_length=1)]
    """Folder of the store."""
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Batches are drawn from the stores in proportion to their weights."""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]+$")
    """What logs and weights files call it; without it, the folder's name without its ending."""
    source: Source | None = None
    """As `data.source`."""
    channels: Channels | None = Field(None, min_length=1)
    """Those of `data.channels` that it has, in its own order."""
    static: list[Literal["orography", "lsm"]] | None = None
    """As `data.static`."""
    area: Area | None = None
    """As `data.area`."""
    regrid: RegridConfig | None = None
    """As `data.regrid`."""
    accumulation: Span | None = None
    """As `data.accumulation`."""
    period: Period | None = None
    """As `data.period`."""
    step: Span | None = None
    """As `data.step`."""
    step_offset: Hours | None = None
    """As `data.step_offset`."""
    exclude: list[Period] | None = None
    """As `data.exclude`."""
    train: Days | None = None
    """As `data.train`."""
    validation: Days | None = None
    """As `data.validation`."""
    test: Days | None = None
    """As `data.test`."""

    @property
    def called(self) -> str:
        """Its name."""
        return self.name or self.store.rstrip("/").rpartition("/")[2].removesuffix(".zarr")

    def given(self) -> dict[str, object]:
        """Settings of `data` that it has itself."""
        own = {key: getattr(self, key) for key in type(self).model_fields if key not in ("weight", "name")}
        return {key: value for key, value in own.items() if value is not None}


class DataConfig(Config):
    """One training store, or several."""

    later = frozenset({"mix"})

    store: Annotated[str, Field(min_length=1)]
    """Folder of the store (Zarr v3); by custom it ends in .zarr."""
    source: Source
    variables: dict[Annotated[str, Field(pattern=NAME)], VariableConfig] = {}
    """Variables that the channel table does not have, by the short names that `channels` then may use:
    `{dust: {long_name: dust_optical_depth, units: '1', bounds: [0, 20]}}`."""
    channels: Channels = Field(min_length=1)
    """Short names in the order of the store, e.g. `[z500, t850, t2m]`; of wavelengths also a range with its step in nm,
    `[refl400..1000/5]`."""
    static: list[Literal["orography", "lsm"]] = []
    """Constant fields to keep beside the channels."""
    area: Area | None = None
    """Keep only this part of the Earth, e.g. `{north: 72, west: -12, south: 33, east: 42}`."""
    regrid: RegridConfig | None = None
    """Bring fields to another grid, e.g. `{resolution: 5.625}`; without it, the source's grid stays."""
    accumulation: Span | None = None
    """Time over which accumulated channels (tp) are summed, ending at their time (beside daily means, at the end of
    their day); without it, `step` or the source's own interval."""
    period: Period | None = None
    """Days to keep; without it, all the source has (a simulated source needs it)."""
    step: Span | None = None
    """Keep every `step` from 00 UTC on; without it, the source's own times."""
    daily: Statistic | None = None
    """Make days of the source's times (of every `step` of them): each channel's mean, minimum or maximum from 00 UTC to
    before the next, and sums over the whole day, labelled with its 00 UTC. Other statistics of the same variable are
    variables of their own (`variables`, `of`)."""
    step_offset: Hours = 0
    """Or from so many hours after 00 UTC on: `step: 24h, step_offset: 12h` keeps 12 UTC of every day."""
    allow_gaps: bool = False
    """Accept a time axis with missing steps, and make gaps of times at which a channel has no value at all; the
    manifest lists them and no sample crosses one."""
    exclude: list[Period] = []
    """Bad days to leave out, as `[2023-08-31, 2015-06-28/2015-06-29]`: gaps, which the manifest lists."""
    train: Days | None = None
    """Days that statistics, climatology and training may use, as `2000-2007`, `[1979-1990, 1995-2015]`,
    `{years: 1979-2015, season: DJF}` or `{years: 1979-2015, months: [5, 6, 9]}`; without it, the whole record."""
    validation: Days | None = None
    """Days on which training measures itself; it learns nothing from them."""
    test: Days | None = None
    """Days that are forecast and scored, as `2016-2020` or `{years: 2016-2020, season: JJA}`; nothing is learned or
    chosen from them."""
    climatology_window: int | None = Field(61, ge=1, le=366)
    """Days around each day of year that its climatology averages, weights falling linearly to zero at the ends
    (as WeatherBench2). null: one mean over all days, right only where there are no seasons."""
    tendency_lead: Span | None = None
    """Lead time over which `tendency_std` is taken; without it, 24 h or the step if that is longer."""
    tendency_leads: list[Span] = []
    """Further lead times whose `tendency_std` is kept, as `[6h, 72h]`: increments and loss are then in units of the
    change over each sample's own lead time (between those that are kept, interpolated), not over `tendency_lead`."""
    area_weighted: bool = False
    """Let points count by the area of their cells in mean, std and tendency_std, and not each once."""
    transforms: dict[str, Transform] = {}
    """Variables, or single channels, that the model sees on another scale: `{tp: {log1p: 1e-5}}`. The store and
    forecasts hold them as they are; mean, std and tendency_std are of the scale."""
    channel_block: int | None = Field(None, ge=1)
    """Channels in one chunk; without it, all on a coarse grid and as many as fill 1 MiB on a fine one."""
    mix: list[MixPart] = []
    """Train one model on several stores, `[{store: a.zarr, weight: 3}, {store: b.zarr, channels: [z500, t850]}]`: each
    batch is of one of them. `channels` are then those of all, and what else stands beside `mix` holds for every store
    that does not say otherwise; forecasts and scores are of the first."""
    shard_mib: int | None = Field(None, ge=1, le=2**20)
    """Size of one file before compression, in MiB: one block of channels at as many times as fit; without it 64, or,
    where three times of all channels are more than that, these, up to 1024 (`choose_sharding`)."""

    @model_validator(mode="before")
    @classmethod
    def _first_of_mix(cls, given: Any) -> Any:
        """Forecasts and scores go by the first of several stores."""
        parts = given.get("mix") if isinstance(given, dict) else None
        if not parts or not isinstance(parts, list) or not isinstance(parts[0], dict | MixPart):
            return given
        first = parts[0] if isinstance(parts[0], dict) else parts[0].given()
        return {key: first[key] for key in ("store", "source") if key in first} | given

    def parts(self) -> list[tuple[str, float, DataConfig]]:
        """(name, weight, settings) of each store; of one alone, these settings, called ''."""
        if not self.mix:
            return [("", 1.0, self)]
        return [(part.called, part.weight, self._of_part(part)) for part in self.mix]

    def _of_part(self, part: MixPart) -> DataConfig:
        given = part.given() | {"mix": []}
        channels = part.channels or self.channels
        held = {*channels, *map(_short, channels)}
        transforms = {name: one for name, one in self.transforms.items() if name in held}
        alone = self.model_copy(update=given | {"transforms": transforms})
        try:
            alone._check()
        except InputError as error:
            raise InputError(f"{part.called}: {error}") from None
        return alone

    def _check_mix(self) -> None:
        if self.store != self.mix[0].store:
            raise InputError(
                f"store {self.store} stands beside mix, and forecasts and scores are of the first store of mix, "
                f"{self.mix[0].store}; leave data.store out"
            )
        bare = [part.called for part in self.mix if part.source is None]
        if bare and self.source == self.mix[0].source:  # none stands beside mix
            raise InputError(f"mix: {', '.join(bare)} has no source; give it one, or one for all beside mix")
        try:
            parts = self.parts()
        except InputError as error:
            raise InputError(f"mix: {error}") from None
        names = [name for name, _, _ in parts]
        if "before_cooldown" in names:  # so a run calls weights that it sets aside
            raise InputError("mix: before_cooldown is no name of a store; give it another (name)")
        stores = [os.path.realpath(expanded(data.store)) for _, _, data in parts]
        for what, values in (("names", names), ("stores", stores)):
            if repeated := sorted({value for value in values if values.count(value) > 1}):
                raise InputError(f"mix repeats the {what} {', '.join(repeated)}; give each once, or a name of its own")
        held = {channel for _, _, data in parts for channel in data.channels}
        for name, _, data in parts:
            if extra := [channel for channel in data.channels if channel not in self.channels]:
                raise InputError(f"mix: {name} has {', '.join(extra)}, not among data.channels; add or drop them")
        if idle := [channel for channel in self.channels if channel not in held]:
            raise InputError(f"channels {', '.join(idle)} are in none of the stores of mix; add to one, or drop them")

    def _check_days(self) -> None:
        if self.daily is None:
            if made := [name for name in self.channels if self._base_of(name) != name]:
                raise InputError(
                    f"{', '.join(made)} are daily statistics; say what the others are, with data.daily: mean"
                )
            return
        if self.step is not None and (self.step >= 24 or 24 % self.step):
            raise InputError(f"step {self.step}h is not part of a day: with data.daily it says which times are used")
        if self.step_offset or self.accumulation is not None:
            raise InputError(
                "with data.daily, days begin at 00 UTC and sums go over them; leave out step_offset and accumulation"
            )

    def _base_of(self, channel: str) -> str:
        """The channel of single times that a daily statistic is of; any other itself."""
        parsed = parse_channel(channel)
        own = self.variables.get(parsed.variable.short)
        if own is None or own.of is None:
            return channel
        return own.of if parsed.level is None else f"{own.of}{parsed.level}"

    @property
    def store_step(self) -> int | None:
        """Hours between the times of the store, where the settings say it."""
        return self.step if self.daily is None else 24

    def statistics_of_days(self) -> dict[str, tuple[str, Statistic]]:
        """Channel -> (the one of single times that it is of, what is made of its day), with `daily`."""
        assert self.daily is not None  # only then are there any
        found: dict[str, tuple[str, Statistic]] = {}
        for name in self.channels:
            own = self.variables.get(_short(name))
            found[name] = self._base_of(name), (own and own.daily) or self.daily
        return found

    @property
    def log_scales(self) -> dict[str, float]:
        """Channel -> scale of its logarithm, of those that are transformed."""
        named = {name: self.transforms.get(name) or self.transforms.get(_short(name)) for name in self.channels}
        return {name: transform.log1p for name, transform in named.items() if transform is not None}

    def located(self) -> DataConfig:
        """The same with absolute paths, for readers that may run in another folder; what a store says of its request
        keeps the paths as they were written."""
        return self.model_copy(update={"store": absolute(self.store), "source": self.source.located()})

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        self._check()
        return self

    def _check(self) -> None:
        for of_others in (False, True):  # a statistic may be one of a variable that is defined here
            new = {short: one for short, one in self.variables.items() if (one.of is not None) == of_others}
            add_variables({short: one.definition(VARIABLES) for short, one in new.items()})
        changed = {n: v for n in type(self).model_fields if (v := getattr(self, n)) != _DEFAULTS[n]}
        refuse_for_pictures(self.source, changed)
        names = [parse_channel(name).name for name in self.channels]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"channels repeat {', '.join(repeated)}; name each once")
        if self.step_offset and (self.step is None or not 0 < self.step_offset < self.step):
            raise InputError(
                f"step_offset {self.step_offset}h must lie between 0h and step; give a step longer than it"
            )
        if repeated := sorted({str(one) for one in self.exclude if self.exclude.count(one) > 1}):
            raise InputError(f"exclude repeats {', '.join(repeated)}; name each once")
        if len(set(self.tendency_leads)) < len(self.tendency_leads):
            raise InputError(f"tendency_leads {[f'{h}h' for h in self.tendency_leads]} repeat one; name each once")
        self._check_days()
        if self.mix:
            self._check_mix()
        if idle := set(self.transforms) - {*names, *map(_short, names)}:
            raise InputError(f"transforms speaks of {', '.join(sorted(idle))}, which is none of data.channels")
        periods = {"train": self.train, "validation": self.validation, "test": self.test}
        given = [(name, period) for name, period in periods.items() if period is not None]
        for i, (name, period) in enumerate(given):
            for other, held in given[i + 1 :]:
                if period.overlaps(held):
                    raise InputError(
                        f"{name} ({period}) and {other} ({held}) share days: scores would be too good; separate them"
                    )


_DEFAULTS = {name: field.get_default(call_default_factory=True) for name, field in DataConfig.model_fields.items()}
"""Of `DataConfig`."""
