"""The sampler contract: which sample a rank sees follows from (seed, epoch, step) and its part of the batch alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.loader import SampleLoader
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError

CHANNELS = [f"z{level}" for level in (100, 200, 300, 400, 500, 600, 700, 850)]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Noise, which does not compress, two channels a chunk."""
    path = tmp_path_factory.mktemp("parts") / "store.zarr"
    grid = regular_grid((32, 64))
    times = np.datetime64("2000-01-01", "ns") + np.arange(40) * np.timedelta64(6, "h")
    noise = np.random.default_rng(0).normal(5e4, 1e3, (40, len(CHANNELS), 32, 64)).astype(np.float32)
    axes = {"time": times, "channel": CHANNELS, "latitude": grid.latitude, "longitude": grid.longitude}
    array = xr.DataArray(noise, dims=tuple(axes), coords=axes).chunk({"time": 20})
    settings = {"store": str(path), "source": {"kind": "planet"}, "channels": CHANNELS, "channel_block": 2}
    config = parse_settings(DataConfig, settings | {"climatology_window": None}, "test")
    prepare(config, SourceData(array, None, {"kind": "noise"}, simulated=True))
    return open_store(path)


def loader(store: Store, part=(0, 1), channels=None, batch_size=8) -> SampleLoader:
    return SampleLoader(store, None, [0, -6], [6, 12], batch_size, seed=5, workers=0, channels=channels, part=part)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_parts_make_up_the_batch_whatever_their_number(store, count):
    whole = loader(store)
    parts = [loader(store, (i, count)) for i in range(count)]
    for step in (0, 3, whole.steps_per_epoch, 2 * whole.steps_per_epoch + 1):  # over three epochs
        inits, leads = whole.samples(step)
        pieces = [part.samples(step) for part in parts]
        assert np.concatenate([p[0] for p in pieces]).tolist() == inits.tolist()
        assert np.concatenate([p[1] for p in pieces]).tolist() == leads.tolist()


def test_ranks_of_one_tp_group_see_the_same_weather_in_other_channels(store):
    batches = [loader(store, (1, 2), CHANNELS[half]).batch(3) for half in (slice(0, 3), slice(3, 8))]
    whole = loader(store, (1, 2)).batch(3)
    assert all((b.init_time == whole.init_time).all() for b in batches)
    assert (np.concatenate([b.history for b in batches], axis=2) == whole.history.numpy()).all()
    assert (np.concatenate([b.target for b in batches], axis=1) == whole.target.numpy()).all()


def test_data_parallel_ranks_see_different_samples(store):
    first, second = (loader(store, (i, 2)).samples(0)[0] for i in range(2))
    assert not set(first.tolist()) & set(second.tolist())


def test_a_batch_that_cannot_be_dealt_out_is_refused(store):
    with pytest.raises(InputError, match="a batch of 8 cannot be dealt out to 3"):
        loader(store, (0, 3))


def bytes_read() -> int:
    """Of this process since its start, from disk or from the system's cache."""
    line = next(x for x in Path("/proc/self/io").read_text().splitlines() if x.startswith("rchar"))
    return int(line.split()[1])


def cost(store: Store, channels) -> int:
    """Bytes read for one batch."""
    source = loader(open_store(store.path), channels=channels)
    source.batch(0)  # opens the array
    before = bytes_read()
    source.batch(1)
    return bytes_read() - before


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes with Linux's /proc")
def test_a_rank_reads_its_own_channels_alone_from_disk(store):
    whole = cost(store, None)
    assert (
        whole > 8 * 3 * len(CHANNELS) * 32 * 64
    )  # the counter sees the reads: 3 fields a sample, more than a byte a value
    for own in (CHANNELS[:2], CHANNELS[4:6]):
        assert cost(store, own) < 0.3 * whole  # a quarter, and the index of each shard
