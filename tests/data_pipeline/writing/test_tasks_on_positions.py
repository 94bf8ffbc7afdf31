"""A shard's task holds positions, not a graph: it costs the same whatever the record, and reads what the graph gave."""

from __future__ import annotations

import pickle
from pathlib import Path

import cloudpickle
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from invented_source import assert_same_tree, data_config, fields, invented_source, times_every

from weatherfm.data_pipeline.design.store_design import design_store
from weatherfm.data_pipeline.fields.positions import ArrayFields, BlockEnds, Portion, Readable, view
from weatherfm.data_pipeline.fields.regrid import place
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store_config import Area, DataConfig, RegridConfig
from weatherfm.data_pipeline.writing.writer import Writing
from weatherfm.earth.grid import regular_grid

CHANNELS = ["z500", "t850", "t2m"]
LONG = 60_000


class NotedFields(Readable):
    """Numbers that know their place; notes what was read."""

    def __init__(self, n_times: int, grid=(4, 8), n_channels: int = 3) -> None:
        self.shape, self.read_parts = (n_times, n_channels, *grid), []

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        self.read_parts.append((times.tolist(), channels.tolist()))
        values = times[:, None] + 0.25 * channels
        return np.broadcast_to(values[..., None, None], (*values.shape, *self.shape[2:])).astype(np.float32)


def source_of(read_from: Readable, blocks, grid=None) -> SourceData:
    grid = grid or regular_grid(read_from.shape[2:])
    times = np.datetime64("1979-01-01", "ns") + np.arange(read_from.shape[0]) * np.timedelta64(6, "h")
    return SourceData(view(read_from, times, CHANNELS, grid, blocks), None, {}, simulated=True, read_from=read_from)


def stages(source: SourceData, store: Path, **settings) -> Writing:
    config = data_config(store, **({"climatology_window": 61, "shard_mib": 1} | settings))
    return Writing(store, design_store(config, source), source, None, None, None)


@pytest.mark.parametrize("regrid", [False, True], ids=["as it is", "regridded"])
def test_a_task_at_60_000_times_is_made_without_the_record(tmp_path, monkeypatch, regrid):
    """Counted: the view's graph is never asked for, and a task is as small as that of a short record."""
    sizes, graphs = [], []
    for n_times in (600, LONG):
        source = source_of(NotedFields(n_times, (64, 128)), ((1,) * n_times, (2, 1)))
        source = place(source, None, RegridConfig(resolution=5.625)) if regrid else source
        made = stages(source, tmp_path / "s.zarr", train=None, climatology_window=None)
        tasks = list(made.tasks.state())
        with monkeypatch.context() as watched:
            watched.setattr(da.Array, "__dask_graph__", graphs.append)
            sent = [cloudpickle.dumps((task, made._portion([task]))) for task in tasks[-20:]]
        sizes.append(len(sent[-2]))
    assert graphs == []
    assert sizes[1] < 1.1 * sizes[0] + 100


def test_what_tasks_share_does_not_grow_with_the_record():
    config = RegridConfig(resolution=5.625)
    small, large = (
        len(pickle.dumps(place(source_of(Plain(n), ((1,) * n, (3,))), None, config).fields)) for n in (60, LONG)
    )
    assert large < small + 100


class Plain(Readable):
    """It only has a shape."""

    def __init__(self, n_times: int) -> None:
        self.shape = (n_times, 3, 64, 128)


def test_a_portion_reads_each_block_once_and_within_it_only_what_is_asked():
    read_from = NotedFields(100)
    ends = BlockEnds.of(source_of(read_from, ((30, 30, 40), (2, 1))).state)
    assert ends.largest() == (40, 2)
    times, channels = np.arange(25, 65, 5), np.array([0, 1, 2])
    portion = Portion.within(ends, times, channels)
    expected = np.broadcast_to((times[:, None] + 0.25 * channels)[..., None, None], (8, 3, 4, 8))
    for threads in (1, 3):
        read_from.read_parts.clear()
        np.testing.assert_array_equal(portion.read(read_from, threads), expected)
        assert sorted(read_from.read_parts) == [
            ([25], [0, 1]), ([25], [2]), ([30, 35, 40, 45, 50, 55], [0, 1]), ([30, 35, 40, 45, 50, 55], [2]),
            ([60], [0, 1]), ([60], [2]),
        ]  # fmt: skip


def test_a_portion_within_one_block_is_not_copied():
    given = np.ones((4, 3, 4, 8), np.float32)

    class Held(NotedFields):
        def read(self, times, channels):
            return given

    ends = BlockEnds(np.array([4]), np.array([3]))
    assert Portion.within(ends, np.arange(4), np.arange(3)).read(Held(4)) is given


@pytest.mark.parametrize("chunks", [None, (7, 2), (100, 3)], ids=str)
@pytest.mark.parametrize("times", [[0, 1, 2], [3, 7, 50, 51], [99], [5, 4, 9]], ids=str)
def test_an_array_somebody_made_reads_by_position(chunks, times):
    values = np.random.default_rng(0).standard_normal((100, 3, 2, 4)).astype(np.float32)
    state = xr.DataArray(values, dims=("time", "channel", "latitude", "longitude"))
    state = state if chunks is None else state.chunk(dict(zip(state.dims, chunks, strict=False)))
    found = ArrayFields(state).read(np.array(times), np.array([0, 2]))
    np.testing.assert_array_equal(found, values[times][:, [0, 2]])


def test_the_view_holds_what_is_read():
    read_from = NotedFields(10)
    state = source_of(read_from, ((4, 6), (3,))).state
    assert state.chunks[:2] == ((4, 6), (3,))
    np.testing.assert_array_equal(state.values[:, 1, 0, 0], np.arange(10) + 0.25)
    np.testing.assert_array_equal(state.isel(time=[7, 2], channel=2)[:, 0, 0], [7.5, 2.5])


@pytest.mark.parametrize("workers", [1, 4])
def test_a_store_is_the_same_by_position_and_from_a_graph(tmp_path, workers):
    """The graph as xarray and dask build it, in one piece a time; regridded and cut."""
    grid, times = regular_grid((16, 32)), times_every(6, 20)
    values = fields(times, grid)

    class Direct(NotedFields):
        def read(self, at, channels):
            return values[at][:, channels]

    by_graph = invented_source(times, grid)
    state = view(Direct(80, (16, 32)), times, CHANNELS, grid, ((24, 24, 24, 8), (3,)))
    by_position = SourceData(state, None, {"made": "for a test"}, simulated=True, read_from=Direct(80, (16, 32)))
    area, regrid = Area(north=80, west=-90, south=-80, east=90), RegridConfig(resolution=22.5)
    for name, source in (("graph", by_graph), ("position", by_position)):
        prepare(data_config(tmp_path / name), place(source, area, regrid), workers=workers)
    assert_same_tree(tmp_path / "graph", tmp_path / "position")


def test_fields_of_another_shape_than_the_view_are_refused():
    source = source_of(NotedFields(10), ((10,), (3,)))
    with pytest.raises(ValueError, match="read_from has shape"):
        SourceData(source.state, None, {}, simulated=True, read_from=NotedFields(11))


def test_paths_become_absolute_once_and_stay_as_written_in_the_request(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = {"kind": "files", "paths": ["a/*.nc", "gs://b/c.zarr", "~/d.nc"], "exclude": ["*f003*", "a/old*"]}
    config = DataConfig(store="s.zarr", source=source, channels=["z500"])
    found = config.located()
    assert found.store == str(tmp_path / "s.zarr")
    assert found.source.paths == [str(tmp_path / "a/*.nc"), "gs://b/c.zarr", str(Path.home() / "d.nc")]
    assert found.source.exclude == ["*f003*", "a/old*", str(tmp_path / "a/old*")]
    assert found.located() == found
    assert (config.store, config.source.paths) == ("s.zarr", source["paths"])


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"kind": "cds", "cache": "c"}, "cache"),
        ({"kind": "planet", "cache": "c"}, "cache"),
        ({"kind": "arco", "address": "c"}, "address"),
        ({"kind": "weatherbench2", "address": "c"}, "address"),
    ],
    ids=lambda one: str(one),
)
def test_every_place_of_every_source_becomes_absolute(tmp_path, monkeypatch, source, name):
    monkeypatch.chdir(tmp_path)
    config = DataConfig(store="s.zarr", source=source, channels=["z500"])
    assert getattr(config.located().source, name) == str(tmp_path / "c")
    assert DataConfig(store="s", source={"kind": "weatherbench2"}, channels=["z500"]).located().source.address is None
