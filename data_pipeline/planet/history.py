"""The weather history of one seed of the simulated planet: simulated segment by segment, kept as files, read lazily."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.machine.cache_folder import check_room, check_writable, unwritable
from weatherfm.data_pipeline.planet.conditions import SHIPPED, SPIN_UP, Conditions
from weatherfm.data_pipeline.planet.levels import SigmaFields, pressure_level_fields
from weatherfm.data_pipeline.store.records.manifest import file_checksum
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError

if TYPE_CHECKING:
    from weatherfm.data_pipeline.planet.simulation import Coefficients, Planet

LEVELS = (100, 200, 300, 400, 500, 700, 850, 925)
"""hPa."""
CHANNELS = (*(f"{variable}{level}" for variable in "ztuv" for level in LEVELS), "sp")
"""Short names in the order of the files."""
STEPS_PER_DAY = 4
DISCARDED_DAYS = 40
"""Days after a seed's perturbation that are thrown away: by then its weather has nothing in common with another's."""
DISCARDED_DAYS_ELSEWHERE = 120
"""The same of another planet, which has to forget the shipped one as well: the mean temperature of the air, up to 6 K
off at first, comes closer by a factor e in 25 days, and is within 0.1 K, its own wandering, after 100; kinetic energy
and jets take 50. (Looked at for contrasts of 30 to 90 K and mountains of 0 to 2.)"""

_WHAT = "simulated months"
_CHECKSUM = "fields_sha256"
"""In the state after a segment: of the file of its fields."""
_NO_STATE = ("surface_geopotential", _CHECKSUM)
_SIMULATING = Lock()  # one simulation a process; a second process would write the same bytes


@dataclass(frozen=True)
class History:
    """The weather of one seed of a planet in a folder: `0007.npy` [time, channel, lat, lon] is the eighth segment.

    A segment's fields, then the state of the atmosphere after it, are each written whole or not at all: an
    interrupted simulation loses the segment at hand, and a longer period goes on from the last state.
    """

    folder: str
    seed: int
    segment_days: int = 30
    conditions: Conditions = SHIPPED

    @property
    def segment_steps(self) -> int:
        """6-hourly times in a segment."""
        return self.segment_days * STEPS_PER_DAY

    def read(self, index: int, start: int, stop: int, channels: tuple[int, ...]) -> np.ndarray:
        """[time, channel, lat, lon] float32: times `start` to `stop` of segment `index`, simulated where missing.

        Raises:
            InputError: the simulation blew up, or its file was damaged since.
        """
        self.ensure(index)
        path = self._fields_path(index)
        try:
            fields = np.load(path, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise InputError(f"the cached simulation {path} is damaged ({error}); delete the file") from error
        if fields.shape != (expected := (self.segment_steps, len(CHANNELS), *planet_grid().shape)):
            raise InputError(f"the cached simulation {path} has shape {fields.shape}, not {expected}; delete the file")
        if not self._is_as_written(index):
            raise InputError(f"the cached simulation {path} is not what was simulated; delete the file")
        return np.ascontiguousarray(fields[start:stop, list(channels)])

    def _is_as_written(self, index: int) -> bool:
        """False where a segment's fields are not those of the checksum beside them; older caches have none."""
        noted = _saved(self._state_path(index)).get(_CHECKSUM)
        found = self._fields_path(index).stat()
        digest = _digest(str(self._fields_path(index)), found.st_size, found.st_mtime_ns)
        return noted is None or noted.tobytes() == digest

    def check_place(self, segments: range) -> None:
        """Before days of simulation: is there a place for those of these segments that are not here yet?

        Raises:
            InputError: the folder cannot be written to, or its disk is too full.
        """
        lacking = [index for index in segments if not self._finished(index)]
        if not lacking:
            return
        first = next((index + 1 for index in range(lacking[0], -1, -1) if self._finished(index)), 0)
        check_writable(Path(self.folder), _WHAT)
        fields = 4 * self.segment_steps * len(CHANNELS) * int(np.prod(planet_grid().shape))
        check_room(Path(self.folder), (lacking[-1] + 1 - first) * fields, _WHAT)

    def ensure(self, index: int) -> None:
        """Simulate what is missing, up to segment `index`."""
        with _SIMULATING:
            first = index
            while first >= 0 and not self._finished(first):
                first -= 1
            if first < index:
                self._simulate(range(first + 1, index + 1))

    def _finished(self, index: int) -> bool:
        return self._state_path(index).exists() and self._fields_path(index).exists()

    def _fields_path(self, index: int) -> Path:
        return Path(self.folder) / f"{index:04d}.npy"

    def _state_path(self, index: int) -> Path:
        return Path(self.folder) / ("start.npz" if index < 0 else f"{index:04d}.state.npz")

    def _simulate(self, segments: range) -> None:
        planet, surface = _planet(self.conditions)
        beginning = self._state_path(segments.start - 1)
        elsewhere = self.conditions != SHIPPED
        discarded = 0 if beginning.exists() else DISCARDED_DAYS_ELSEWHERE if elsewhere else DISCARDED_DAYS
        days = len(segments) * self.segment_days + discarded
        with tqdm(total=days, desc="simulating the planet", unit="day", disable=None, leave=False) as progress:
            if discarded:
                state = planet.perturbed(_load(SPIN_UP), self.seed)
                if elsewhere:
                    state = planet.raised(state, surface - SHIPPED.surface_geopotential())
                state = _run(planet, state, discarded, progress)[0]
                _write_state(beginning, state)
            state = _load(beginning)
            for index in segments:
                state, fields = _run(planet, state, self.segment_days, progress)
                self._save(index, state, pressure_channels(fields, surface, planet.sigma))

    def _save(self, index: int, state: Coefficients, fields: np.ndarray) -> None:
        if not np.isfinite(fields).all():
            given = ", ".join([*self.conditions.told, f"seed {self.seed}"])
            other = " or milder conditions" if self.conditions.told else ""
            raise InputError(f"the planet with {given} became unstable; choose another seed{other}")
        path = self._fields_path(index)
        _write(path, lambda file: np.save(file, fields))
        noted = np.frombuffer(bytes.fromhex(file_checksum(path)), np.uint8)
        _write_state(self._state_path(index), state | {_CHECKSUM: noted})


def planet_grid() -> Grid:
    """The 32 x 64 Gaussian grid of T21."""
    sine = np.polynomial.legendre.leggauss(32)[0]
    return Grid(np.rad2deg(np.arcsin(sine))[::-1], np.arange(64) * 360 / 64)


def pressure_channels(fields: SigmaFields, surface: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """[time, channel, lat, lon] float32 `CHANNELS` from fields on sigma layers [time, layer, lat, lon]."""
    levels = pressure_level_fields(fields, surface, sigma, LEVELS)
    parts = [*(levels[name] for name in "ztuv"), fields.surface_pressure[:, None]]
    return np.concatenate(parts, axis=1, dtype=np.float32)


@cache
def _planet(conditions: Conditions) -> tuple[Planet, np.ndarray]:
    """The planet (compiled once a process) and its ground."""
    from weatherfm.data_pipeline.planet.simulation import Planet

    surface = conditions.surface_geopotential()
    return Planet(surface, conditions.contrast), surface


def _run(planet: Planet, state: Coefficients, days: int, progress: tqdm) -> tuple[Coefficients, SigmaFields]:
    """The state after `days`, and the 6-hourly fields [time, layer, lat, lon] up to it."""
    steps = []
    for _ in range(days):
        for _ in range(STEPS_PER_DAY):
            state, fields = planet.advance(state)
            steps.append(fields)
        progress.update()
    names = ("temperature", "u", "v", "surface_pressure")
    return state, SigmaFields(*(np.stack([getattr(step, name) for step in steps]) for name in names))


def _load(path: Path) -> Coefficients:
    return {name: values for name, values in _saved(path).items() if name not in _NO_STATE}


def _saved(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as saved:
            return dict(saved)
    except (ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"the cached simulation state {path} is damaged ({error}); delete the file") from error


@lru_cache(maxsize=4096)
def _digest(path: str, size: int, changed: int) -> bytes:
    """SHA-256 of a file, looked at once a process until it changes."""
    return bytes.fromhex(file_checksum(Path(path)))


def _write_state(path: Path, state: Coefficients) -> None:
    _write(path, lambda file: np.savez(file, **state))  # type: ignore[arg-type]


def _write(path: Path, save: Callable[[BinaryIO], None]) -> None:
    """Write a file whole or not at all, also beside another process that writes the same."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                save(file)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path.parent, _WHAT, error) from error
