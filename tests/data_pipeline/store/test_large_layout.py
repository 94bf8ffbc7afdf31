"""How many files and bytes a store of 40 years at 0.25 degrees takes, and that its layout reads and grows rightly."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from invented_source import CHANNELS, assert_same_tree, data_config, fields, invented_source, times_every, tree

from weatherfm.data_pipeline.design.dry_run import to_dict, to_text
from weatherfm.data_pipeline.design.store_design import design_store
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.store import sharding as layouts
from weatherfm.data_pipeline.store.sharding import MIB, choose_sharding
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import regular_grid

FORTY_YEARS = 58_440
"""Times every 6 h."""
GRID, TIMES = regular_grid((8, 16)), times_every(6, 20)


def layout_of(n_channels: int, grid=(721, 1440), n_times: int = FORTY_YEARS, **settings):
    config = data_config("s.zarr", **({"channel_block": None, "shard_mib": None} | settings))
    return choose_sharding(config.model_copy(update={"channels": ["c"] * n_channels}), n_times, grid)


def test_forty_years_at_a_quarter_degree_are_some_20_000_files():
    found = layout_of(69)
    assert (found.channel_block, found.shard_channels, found.shard_times) == (1, 69, 3)
    assert found.n_rows * found.n_columns == 19_480
    assert found.shard_bytes == 3 * 69 * 721 * 1440 * 4


@pytest.mark.parametrize(
    ("n_channels", "grid", "expected"),
    [
        (48, (32, 64), (48, 48, 170)),  # as it always was: 64 MiB of one block
        (70, (128, 256), (8, 8, 64)),
        (5, (721, 1440), (1, 1, 16)),
        (6, (721, 1440), (1, 6, 3)),
        (130, (721, 1440), (1, 130, 1)),  # one time alone is half a GiB
        (300, (721, 1440), (1, 150, 1)),  # and here more than one
        (90, (181, 360), (4, 92, 3)),
    ],
)
def test_layouts(n_channels, grid, expected):
    found = layout_of(n_channels, grid)
    assert (found.channel_block, found.shard_channels, found.shard_times) == expected
    assert found.shard_bytes <= 1024 * MIB


def test_the_layout_does_not_know_how_long_the_store_is():
    short, long = layout_of(69, n_times=5), layout_of(69)
    assert (short.shard_blocks, short.shard_times) == (long.shard_blocks, long.shard_times)


def test_a_size_that_is_asked_for_means_one_block_and_many_times():
    found = layout_of(69, shard_mib=256)
    assert (found.shard_channels, found.shard_times) == (1, 64)


@pytest.mark.parametrize("lead_steps", [1, 4, 24, 240])
@pytest.mark.parametrize("n_channels", [5, 69])
def test_changes_read_little_twice_within_their_memory(n_channels, lead_steps):
    found = layout_of(n_channels)
    rows = found.change_rows(lead_steps) * found.shard_times
    assert rows * found.chunk_bytes <= max(256 * MIB, found.shard_times * found.chunk_bytes)
    assert rows >= min(8 * lead_steps, 256 * MIB // found.chunk_bytes - found.shard_times)


@pytest.fixture
def fine(monkeypatch):
    """Rules of fine grids for a coarse one: three times of all channels are a file, six files one task of changes."""
    monkeypatch.setattr(layouts, "_SHARD_MIB", 0)
    monkeypatch.setattr(layouts, "_CHUNK_BYTES", 512)


def fine_config(store, **settings):
    settings = {"train": "2000-01-01/2000-01-15", "channel_block": None, "shard_mib": None} | settings
    return data_config(store, **settings)


@pytest.fixture
def large(fine, tmp_path):
    """A store whose shards hold three times of three chunks."""
    return prepare(fine_config(tmp_path / "large.zarr"), invented_source(TIMES, GRID))


def test_such_a_store_holds_the_source_and_is_sound(large):
    assert large.shard_shape == (3, 3)
    assert large.chunk_channels == 1
    values = fields(TIMES, GRID)
    np.testing.assert_array_equal(large.read(range(80)), values)
    np.testing.assert_array_equal(large.read([79, 3], ["t2m"]), values[[79, 3]][:, [2]])
    learned = values[:60].astype(np.float64)
    np.testing.assert_allclose(large.mean, learned.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(large.std, learned.std((0, 2, 3)), rtol=1e-12)
    change = (values[4:60] - values[:56]).astype(np.float64)
    np.testing.assert_allclose(large.tendency_std, change.std((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(large.climatology_at(TIMES[2:3])[0], learned[2::4].mean(0), rtol=1e-6)
    assert verify(large.path).problems == []


def test_all_channels_of_a_time_are_one_file(large):
    written = {key for key in tree(large.path) if key.startswith("state/c/")}
    assert written == {f"state/c/{row}/0/0/0" for row in range(27)}


def test_statistics_are_those_of_a_store_with_one_chunk_a_shard(large, tmp_path, monkeypatch):
    monkeypatch.undo()
    other = prepare(fine_config(tmp_path / "other.zarr", channel_block=1, shard_mib=1), invented_source(TIMES, GRID))
    assert other.shard_shape[1] == 1
    for name in ("mean", "std", "minimum", "maximum", "tendency_std"):
        np.testing.assert_allclose(getattr(large, name), getattr(other, name), rtol=1e-12)


def test_sums_beside_writing_and_from_the_store_give_the_same_climatology(large, tmp_path):
    design = design_store(fine_config(tmp_path / "s.zarr"), invented_source(TIMES, GRID))
    assert design.sums_beside_writing
    prepare(fine_config(tmp_path / "s.zarr"), invented_source(TIMES, GRID), memory=design.climatology_sums_bytes)
    assert not design_store(design.config, invented_source(TIMES, GRID), memory=1000).sums_beside_writing
    assert_same_tree(tmp_path / "s.zarr", large.path)


@pytest.mark.parametrize("n_old", [78, 79])
def test_append_rewrites_only_the_last_file(fine, large, tmp_path, n_old):
    path = tmp_path / "grown.zarr"
    read = []

    def note(number, values):
        read.append(number)
        return values

    prepare(fine_config(path), invented_source(TIMES[:n_old], GRID))
    before = {p: p.stat().st_ino for p in path.rglob("state/c/*/0/0/0")}
    append(fine_config(path), invented_source(TIMES, GRID, spoil=note))
    kept = [p for p, inode in before.items() if p.exists() and p.stat().st_ino == inode]
    assert len(kept) == 26
    assert set(read) == {3}  # of the source's pieces of 24 times only the last
    assert_same_tree(path, large.path)


def test_a_file_that_is_gone_is_named_and_no_other_is_missed(large, tmp_path):
    path = tmp_path / "copy.zarr"
    shutil.copytree(large.path, path)
    (path / "state/c/5/0/0/0").unlink()
    store = open_store(path)
    np.testing.assert_array_equal(store.read([14, 18]), fields(TIMES[[14, 18]], GRID))
    assert verify(path).bad_files() == {"state/c/5/0/0/0"}


def test_the_plan_counts_files_and_states_the_memory_of_records(fine, large, tmp_path):
    design = design_store(fine_config(tmp_path / "s.zarr"), invented_source(TIMES, GRID))
    written = tree(large.path)
    assert design.files == len(written)
    assert design.shards == sum(key.startswith(("state/c", "climatology/c")) for key in written)
    assert design.records_bytes >= len(CHANNELS) * 10 * 2 * 11 * 27  # a number as text takes 11, and is copied once
    assert to_dict(design)["records_memory"] == design.records_bytes
    assert to_dict(design)["peak_memory"] == design.peak_memory + design.records_bytes
    assert "for the records of shards" in to_text(design)
