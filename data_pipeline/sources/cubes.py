"""Source `cubes`: crops of hyperspectral pictures, each a time of the store, for training without forecasts.

Legend: N crops, C channels, h x w pixels of a crop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np

from weatherfm.data_pipeline.access import PUBLIC
from weatherfm.data_pipeline.fields.positions import Readable, view
from weatherfm.data_pipeline.fields.source_data import ReadCost, SourceData
from weatherfm.data_pipeline.formats.cubes import plant, reflectance
from weatherfm.data_pipeline.formats.cubes.crops import Crops, lay_out
from weatherfm.data_pipeline.formats.cubes.cube import Cube
from weatherfm.data_pipeline.formats.cubes.opening import open_cubes
from weatherfm.data_pipeline.formats.cubes.wavelengths import choose_bands
from weatherfm.data_pipeline.formats.files.identity import identities_of
from weatherfm.data_pipeline.period_config import Days
from weatherfm.data_pipeline.picture_config import CubesSource
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.grid import plane_of
from weatherfm.earth.variables import Channel, parse_channel
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)
EPOCH = date(2001, 1, 1)
"""The day of the first crop; each has a day of its own."""
_MOST = (date(2262, 1, 1) - EPOCH).days
"""Crops: times in nanoseconds end in 2262."""
_BLOCK_BYTES = 2**24
"""Of crops that are read at once."""


def open_source(data: DataConfig) -> SourceData:
    """The crops of all cubes; headers are read, and where crops are chosen by their share of plant, one or two bands.

    Raises:
        InputError: files that cannot be read or do not go together, channels that are no wavelengths or have no band,
            no room for crops, or more of them than days.
    """
    source = data.source
    assert isinstance(source, CubesSource)
    channels = _channels(data.channels)
    cubes = open_cubes(source)
    bad = frozenset(band for cube in cubes for band in cube.bad)
    bands = choose_bands(channels, cubes[0].wavelengths, bad, source)
    for cube in cubes:  # references of another shape are refused before anything is written
        reflectance.references_of(cube, source.model_dump_json())
    plant.plant_bands(cubes[0], source)
    crops = lay_out(cubes, source, _shares(cubes, source) if source.plant else None)
    if len(crops.cube) > _MOST:
        raise InputError(
            f"{len(crops.cube):,} crops are more than a store can number by days ({_MOST:,}); choose a larger "
            "source.crop or source.stride, or make several stores"
        )
    told = ", ".join(f"{count} {name}" for name, count in crops.counts.items())
    _log.info("%d cubes of %d bands, %d crops: %s", len(cubes), len(cubes[0].wavelengths), len(crops.cube), told)
    fields = CropFields(cubes, crops, bands, source)
    times = np.datetime64(EPOCH, "s") + np.arange(len(crops.cube)) * np.timedelta64(86400, "s")
    blocks = _blocks(len(times), 4 * len(channels) * int(np.prod(source.crop_shape)))
    contiguous = cubes[0].axes[0] == "band"
    return SourceData(
        state=view(fields, times, data.channels, plane_of(source.crop_shape), (blocks, (len(channels),))),
        static=None,
        attributes=_provenance(cubes, crops, bands, source, data.channels),
        simulated=False,
        cost=fields.cost,
        block_bytes=fields.block_bytes,
        together=() if contiguous else (tuple(range(len(channels))),),
        place=fields.place,
        identity=identities_of(dict.fromkeys(_files(cubes, source), PUBLIC)),
        read_from=fields,
        plane=True,
        periods=_periods(crops.counts),
    )


def _channels(names: Sequence[str]) -> list[Channel]:
    channels = [parse_channel(name) for name in names]
    if odd := [channel.name for channel in channels if not channel.variable.on_wavelengths]:
        raise InputError(
            f"cubes have no {', '.join(odd)}: their channels are reflectances at wavelengths in nm, as refl550 or "
            "refl400..1000/5"
        )
    return channels


def _shares(cubes: Sequence[Cube], source: CubesSource) -> Callable[[int, np.ndarray], np.ndarray]:
    settings = source.model_dump_json()
    return lambda position, places: plant.shares_of(
        plant.plant_of(cubes[position], settings), places, source.crop_shape
    )


def _blocks(count: int, crop_bytes: int) -> tuple[int, ...]:
    """Numbers of crops that are read at once."""
    size = max(1, _BLOCK_BYTES // crop_bytes)
    return (*[size] * (count // size), *([count % size] if count % size else []))


def _files(cubes: Sequence[Cube], source: CubesSource) -> Iterator[str]:
    for cube in cubes:
        yield from (cube.path, cube.data, *reflectance.files_of(cube, source), *plant.files_of(cube, source))


def _periods(counts: Mapping[str, int]) -> dict[str, Days | None]:
    """Days of each set: one a crop, one set after the other."""
    found: dict[str, Days | None] = {}
    first = EPOCH
    for name, count in counts.items():
        found[name] = Days(start=first, end=first + timedelta(days=count - 1)) if count else None
        first += timedelta(days=count)
    return found


class CropFields(Readable):
    """Reflectance of the crops' pixels, cut from the files when it is asked for."""

    def __init__(
        self, cubes: Sequence[Cube], crops: Crops, bands: Sequence[Sequence[int]], source: CubesSource
    ) -> None:
        self._cubes, self._crops, self._bands, self._source = tuple(cubes), crops, tuple(bands), source
        self._settings = source.model_dump_json()
        self.shape = (len(crops.cube), len(bands), *source.crop_shape)

    @property
    def block_bytes(self) -> int:
        """Held while crops are read: of one as stored, in float64, and the bands that are averaged; of archives all."""
        whole = [8 * int(np.prod(cube.shape)) for cube in self._cubes if cube.packed]
        return 24 * sum(map(len, self._bands)) * int(np.prod(self.shape[2:])) + 2 * max(whole, default=0)

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """[len(times), len(channels), h, w] for positions on the two axes."""
        wanted = [self._bands[channel] for channel in channels]
        needed = np.unique(np.concatenate([np.array(one) for one in wanted]))
        places = [np.searchsorted(needed, one) for one in wanted]
        out = np.empty((len(times), len(channels), *self.shape[2:]), np.float32)
        for target, crop in zip(out, times, strict=True):
            values, filled = self._values(int(crop), needed)
            for field, own in zip(target, places, strict=True):
                field[...] = values[..., own[0]] if len(own) == 1 else values[..., own].mean(-1)
                if self._source.clip:
                    np.clip(field, 0, 1, out=field)
                if filled is not None:
                    field[filled[..., own].any(-1)] = 0
        return out

    def _values(self, crop: int, bands: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """([h, w, bands] float64 reflectance, [h, w, bands] bool what holds 0 in its place) of a crop."""
        cube, rows, columns = self._cubes[self._crops.cube[crop]], *self._window(crop)
        raw = np.asarray(cube.pixels()[rows, columns][:, :, bands])
        values = reflectance.to_reflectance(raw, *reflectance.references_of(cube, self._settings), columns, bands)
        filled = None if cube.ignored is None else np.isnan(raw) if np.isnan(cube.ignored) else raw == cube.ignored
        if self._source.plant is not None:
            background = ~plant.plant_of(cube, self._settings)[rows, columns]
            filled = np.broadcast_to(background[..., None], raw.shape) | (False if filled is None else filled)
        return values, filled

    def _window(self, crop: int) -> tuple[slice, slice]:
        row, column = int(self._crops.row[crop]), int(self._crops.column[crop])
        return slice(row, row + self.shape[2]), slice(column, column + self.shape[3])

    def place(self, channel: int, crop: int) -> str:
        """File, pixels and band of a field, for messages."""
        cube, (rows, columns) = self._cubes[self._crops.cube[crop]], self._window(crop)
        at = ", ".join(f"{cube.wavelengths[band]:g}" for band in self._bands[channel][:3])
        return f"{cube.path}, rows {rows.start}-{rows.stop - 1}, columns {columns.start}-{columns.stop - 1}, {at} nm"

    def cost(self, crops: np.ndarray) -> ReadCost:
        """What reading some crops takes: the cubes that they are cut from, each once."""
        used = {self._cubes[position].data: self._cubes[position] for position in np.unique(self._crops.cube[crops])}
        sizes = [int(np.prod(cube.shape)) * np.dtype(cube.dtype).itemsize for cube in used.values()]
        return ReadCost(4 * len(crops) * int(np.prod(self.shape[1:])), sum(sizes), sum(sizes), len(used))


def _provenance(
    cubes: Sequence[Cube], crops: Crops, bands: Sequence[Sequence[int]], source: CubesSource, names: Sequence[str]
) -> dict[str, Any]:
    """What the manifest tells; the same for the same files in any folder."""
    centres = cubes[0].wavelengths
    return {
        "cubes": len(cubes),
        "bands": len(centres),
        "channels": {name: [centres[band] for band in own] for name, own in zip(names, bands, strict=True)},
        "scale_factors": sorted({cube.scale for cube in cubes if cube.scale is not None and source.white is None}),
        **({"background": "0 in every channel"} if source.plant is not None else {}),
        "crop": list(source.crop_shape),
        "crops": crops.record(cubes),
    }
