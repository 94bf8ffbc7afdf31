"""Channels that a source lacks but that follow from others it holds: what from, by which formula, in which order.

A channel that the source holds is taken as stored. Fields are computed on the source's own grid, before regridding:
the formulas are not linear. Arithmetic is float64, a value missing in an input is missing in the result, and nothing
is clipped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import spacing
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.constants import GAS_CONSTANT_DRY_AIR, GAS_CONSTANT_WATER_VAPOUR, TRIPLE_POINT
from weatherfm.earth.grid import Grid
from weatherfm.earth.solar import toa_incident_solar_radiation
from weatherfm.earth.variables import VARIABLES, Channel, parse_channel
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)

_ICE_ONLY = TRIPLE_POINT - 23.0
"""K below which the IFS takes saturation over ice alone."""


@dataclass(frozen=True, eq=False)
class Place:
    """What a formula may know beside its inputs."""

    times: np.ndarray
    """[time] datetime64[s]."""
    grid: Grid
    level: int | None
    """hPa."""
    hours: int
    """Over which an accumulated field is summed."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """How one variable follows from others at the same level."""

    inputs: tuple[str, ...]
    """Short names of variables."""
    formula: str
    """In words and signs, with its source; goes into the manifest."""
    compute: Callable[[Sequence[np.ndarray], Place], np.ndarray]
    """(inputs [time, lat, lon] float64 in canonical units, place) -> [time, lat, lon] float64 in canonical units."""


def saturation_pressure_over_water(temperature: np.ndarray) -> np.ndarray:
    """Pa at K, the same shape: Tetens' formula with the coefficients of Buck (1981), as in the IFS."""
    pressure: np.ndarray = 611.21 * np.exp(17.502 * (temperature - TRIPLE_POINT) / (temperature - 32.19))
    return pressure


def saturation_pressure(temperature: np.ndarray) -> np.ndarray:
    """Pa at K, the same shape, over water above 273.16 K, over ice below 250.16 K, between them mixed.

    IFS documentation, Part IV (Physical Processes), chapter 12: the share of water is
    ((T - 250.16 K) / 23 K)^2; coefficients over ice are those of Alduchov and Eskridge (1996).
    """
    over_ice = 611.21 * np.exp(22.587 * (temperature - TRIPLE_POINT) / (temperature + 0.7))
    water = np.clip((temperature - _ICE_ONLY) / (TRIPLE_POINT - _ICE_ONLY), 0, 1) ** 2
    mixed: np.ndarray = water * saturation_pressure_over_water(temperature) + (1 - water) * over_ice
    return mixed


def vapour_pressure(specific_humidity: np.ndarray, pressure: float) -> np.ndarray:
    """Pa of water vapour in air of `specific_humidity` kg kg-1 at `pressure` Pa: p q / (e + (1 - e) q), e = Rd / Rv."""
    ratio = GAS_CONSTANT_DRY_AIR / GAS_CONSTANT_WATER_VAPOUR
    vapour: np.ndarray = pressure * specific_humidity / (ratio + (1 - ratio) * specific_humidity)
    return vapour


def _relative_humidity(fields: Sequence[np.ndarray], place: Place) -> np.ndarray:
    temperature, humidity = fields
    assert place.level is not None
    return 100 * vapour_pressure(humidity, 100.0 * place.level) / saturation_pressure(temperature)


def _surface_humidity(fields: Sequence[np.ndarray], place: Place) -> np.ndarray:
    temperature, dewpoint = fields
    return 100 * saturation_pressure_over_water(dewpoint) / saturation_pressure_over_water(temperature)


def _speed(fields: Sequence[np.ndarray], place: Place) -> np.ndarray:
    return np.hypot(fields[0], fields[1])


RECIPES: dict[str, Recipe] = {
    "r": Recipe(
        ("t", "q"),
        "100 e / es(t), e = p q / (0.622 + 0.378 q) with p of the level, es over water and ice mixed below 273.16 K "
        "(IFS documentation, Part IV, chapter 12), as ERA5's own",
        _relative_humidity,
    ),
    "r2m": Recipe(
        ("t2m", "d2m"),
        "100 es(d2m) / es(t2m), es over water (WMO definition of relative humidity; IFS documentation, Part IV)",
        _surface_humidity,
    ),
    "ws": Recipe(("u", "v"), "sqrt(u^2 + v^2)", _speed),
    "ws10": Recipe(("u10", "v10"), "sqrt(u10^2 + v10^2)", _speed),
    "tisr": Recipe(
        (),
        "1361 W m-2 x cos(zenith) / distance^2, summed over the window that ends at the time (sun after the "
        "Astronomical Almanac's low-precision formulas)",
        lambda fields, place: toa_incident_solar_radiation(place.times, place.grid, place.hours),
    ),
}
"""By short name of the variable that is made."""


@dataclass(frozen=True, eq=False)
class Derivation:
    """Which channels are read, and which are computed from them."""

    channels: tuple[str, ...]
    """Of the config, in its order."""
    stored: tuple[str, ...]
    """To read: those of `channels` that are not computed, then inputs that are not channels themselves."""
    computed: dict[str, tuple[str, ...]]
    """Channel -> its inputs, all in `stored`."""
    hours: int | None
    """Window of a computed sum that the config sets."""

    def needed(self, channels: np.ndarray) -> np.ndarray:
        """Ascending positions in `stored` that positions in `channels` are made of."""
        names = [name for i in channels for name in self._inputs(self.channels[i])]
        return np.unique([self.stored.index(name) for name in names]).astype(np.int64)

    def compute(
        self, fields: np.ndarray, held: np.ndarray, channels: np.ndarray, times: np.ndarray, grid: Grid, hours: int
    ) -> np.ndarray:
        """[time, len(channels), lat, lon] float32 of `fields` [time, len(held), lat, lon].

        Args:
            fields: stored fields in canonical units.
            held: positions of `fields` in `stored`, as `needed` gives them.
            channels: positions in `channels` that are wanted.
            times: [time] datetime64.
            grid: of the fields.
            hours: over which a computed sum goes.
        """
        out = np.empty((len(times), len(channels), *grid.shape), np.float32)
        where = {self.stored[position]: i for i, position in enumerate(held)}
        for i, name in enumerate(self.channels[channel] for channel in channels):
            if name not in self.computed:
                out[:, i] = fields[:, where[name]]
                continue
            channel = parse_channel(name)
            inputs = [fields[:, where[part]].astype(np.float64) for part in self.computed[name]]
            place = Place(times, grid, channel.level, hours)
            out[:, i] = RECIPES[channel.variable.short].compute(inputs, place)
        return out

    def window(self, times: np.ndarray) -> int:
        """Hours over which a computed sum goes; without a word of the config, the spacing of datetime64 `times`.

        Raises:
            InputError: a sum is computed, and neither tells.
        """
        if self.hours is not None:
            return self.hours
        if (apart := spacing(times)) is not None:
            return max(1, round(apart))
        if summed := [name for name in self.computed if parse_channel(name).variable.accumulated]:
            raise InputError(
                f"{', '.join(summed)} is to be computed for a single time; set data.accumulation to the hours it "
                "should be summed over"
            )
        return 1

    def provenance(self) -> dict[str, Any]:
        """For the manifest: channel -> what it was computed from and how."""
        return {
            name: {"from": list(inputs), "formula": RECIPES[parse_channel(name).variable.short].formula}
            for name, inputs in self.computed.items()
        }

    def windows(self, times: np.ndarray) -> dict[str, dict[str, int | None]]:
        """For the manifest: each computed sum -> the hours it goes over."""
        summed = [name for name in self.computed if parse_channel(name).variable.accumulated]
        return {name: {"window_hours": self.window(times), "source_hours": None} for name in summed}

    def _inputs(self, name: str) -> tuple[str, ...]:
        return self.computed.get(name, (name,))


def with_inputs(channels: Sequence[str]) -> set[str]:
    """`channels` and all that any of them could be computed from."""
    return {*channels, *(part for name in channels for part in inputs_of(name) or ())}


def inputs_of(name: str) -> tuple[str, ...] | None:
    """Channels that channel `name` can be computed from (perhaps none, of `tisr`); None where it cannot."""
    channel = parse_channel(name)
    recipe = RECIPES.get(channel.variable.short)
    if recipe is None:
        return None
    variables = [VARIABLES[short] for short in recipe.inputs]
    return tuple(Channel(v, channel.level if v.on_levels else None).name for v in variables)


def resolve(data: DataConfig, held: Collection[str]) -> Derivation:
    """Decide what is read of a source that holds the channels `held`, and what is computed.

    A channel that is neither held nor can be computed is left among `stored`, for the source to name.

    Raises:
        InputError: nothing would be read at all.
    """
    computed: dict[str, tuple[str, ...]] = {}
    for name in data.channels:
        inputs = inputs_of(name)
        if name not in held and inputs is not None and set(inputs) <= set(held):
            computed[name] = inputs
            _log.info("%s is not in the source: computed from %s", name, ", ".join(inputs) or "time and place")
    direct = [name for name in data.channels if name not in computed]
    extra = [part for inputs in computed.values() for part in inputs]
    stored = tuple(dict.fromkeys([*direct, *extra]))
    if not stored:
        raise InputError(
            f"{', '.join(computed)} would be computed without any data; add a channel that the source holds"
        )
    return Derivation(tuple(data.channels), stored, computed, data.accumulation or data.step)


def cure(missing: Sequence[str], held: Collection[str]) -> str:
    """The end of a message on missing channels: which of them could be computed, and what that takes."""
    ways = []
    for name in missing:
        if inputs := inputs_of(name):
            lacking = [part for part in inputs if part not in held]
            ways.append(f"{name} could be computed from {' and '.join(inputs)} ({', '.join(lacking)} missing too)")
    return "; " + "; ".join(ways) if ways else ""
