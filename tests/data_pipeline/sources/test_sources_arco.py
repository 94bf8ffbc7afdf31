"""ARCO-ERA5: a padded time axis, 37 levels in a chunk, preliminary days; on a small store laid out alike."""

from __future__ import annotations

import re
import time

import dask
import numpy as np
import pytest
from cloud_stores import ARCO_GRID, values, write_arco

import weatherfm.data_pipeline.formats.reading.blocks as blocks
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

FIELD = 19 * 36 * 4  # bytes
CHUNK = 37 * FIELD


def open_arco(address, channels=("z500", "z700", "z850", "t2m"), preliminary=False, **settings) -> SourceData:
    source = {"kind": "arco", "address": str(address), "preliminary": preliminary}
    return open_source(DataConfig(store="unused", source=source, channels=list(channels), **settings))


def hours_of(data: SourceData) -> np.ndarray:
    return data.state["time"].values.astype("datetime64[h]")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_arco(tmp_path_factory.mktemp("arco"))


def test_only_hours_with_final_data_are_offered(store):
    data = open_arco(store)
    assert (hours_of(data)[0], hours_of(data)[-1]) == (np.datetime64("2020-01-01T00"), np.datetime64("2020-01-06T23"))
    assert len(hours_of(data)) == 6 * 24
    assert data.preliminary is None
    expected = values("geopotential", hours_of(data), ARCO_GRID, [500, 700, 850])
    np.testing.assert_array_equal(data.state.values[:, :3], expected)
    np.testing.assert_array_equal(data.state.values[:, 3], values("2m_temperature", hours_of(data), ARCO_GRID))


def test_preliminary_hours_are_marked(store):
    data = open_arco(store, preliminary=True)
    assert hours_of(data)[-1] == np.datetime64("2020-01-08T23")
    np.testing.assert_array_equal(data.preliminary, hours_of(data) > np.datetime64("2020-01-06T23"))
    assert np.isfinite(data.state.values).all()


def test_days_without_data_are_refused_by_their_reason(store):
    has = r"it has final ERA5 from 2020-01-01 to 2020-01-06 and preliminary ERA5T to 2020-01-08 \(source.preliminary"
    with pytest.raises(InputError, match=has + r".*but data\.period is 2020-01-05/2020-01-07"):
        open_arco(store, period="2020-01-05/2020-01-07")
    assert open_arco(store, preliminary=True, period="2020-01-05/2020-01-07").preliminary.sum() == 24
    with pytest.raises(InputError, match=r"ERA5 from 2020-01-01 to 2020-01-08, the last months preliminary, but"):
        open_arco(store, preliminary=True, period="2020-01-05/2020-01-09")
    with pytest.raises(InputError, match=r"final ERA5 from 2020-01-01"):
        open_arco(store, period="1950", allow_gaps=True)


def test_gaps_may_be_allowed_at_the_end(store, caplog):
    data = open_arco(store, period="2020-01-05/2020-01-31", allow_gaps=True)
    assert len(hours_of(data)) == 48
    assert "data.period 2020-01-05/2020-01-31 reaches beyond" in caplog.text


@pytest.mark.parametrize("told", [None, "soon"])
def test_a_store_that_does_not_say_which_hours_hold_data(tmp_path, told):
    path = write_arco(tmp_path, ("2020-01-01", "2020-01-02"), ("2m_temperature",), valid_time_stop=told)
    with pytest.raises(InputError, match=rf"zarr-v3: its attribute valid_time_stop is {told!r}, no date; .*2050"):
        open_arco(path, ["t2m"])


def test_constant_fields_once_or_every_hour(tmp_path, store):
    """Those that stand there every hour are looked at in hours with data, not at 1900 and 2050."""
    hourly = write_arco(tmp_path, variables=("2m_temperature",), constants_in_time=True)
    for path in (store, hourly):
        static = open_arco(path, ["t2m"], static=["lsm", "orography"]).static.values
        start = np.array(["2020-01-01T00"], "datetime64[h]")
        expected = [values(name, start, ARCO_GRID)[0] for name in ("land_sea_mask", "geopotential_at_surface")]
        np.testing.assert_array_equal(static, expected)


def test_precipitation_is_summed_over_the_step(store):
    data = open_arco(store, ["tp", "t2m"], step="6h", period="2020-01-02/2020-01-03")
    assert len(hours_of(data)) == 8
    hours = hours_of(data)[:, None] - np.arange(5, -1, -1)
    terms = values("total_precipitation", hours.ravel(), ARCO_GRID).reshape(8, 6, 19, 36)
    np.testing.assert_allclose(data.state.values[:, 0], terms.sum(axis=1, dtype=float), rtol=1e-6)  # float32 once
    assert data.attributes["accumulation"]["tp"] == {"window_hours": 6, "source_hours": 1}


def test_sums_never_reach_before_the_first_hour_with_data(store):
    with pytest.raises(InputError, match="6h sums of tp at 2020-01-01T00 begin before the files do"):
        open_arco(store, ["tp"], step="6h", period="2020-01-01/2020-01-02")


def test_cost_counts_all_37_levels(store):
    data = open_arco(store)
    cost = data.cost(np.arange(48))
    assert cost.wanted == 48 * 4 * FIELD
    assert cost.moved == 48 * (CHUNK + FIELD)
    assert cost.requests == 48 * 2
    on_disk = sum((store / name / f"{1051896 + i}.{rest}").stat().st_size for name, rest in
                  (("geopotential", "0.0.0"), ("2m_temperature", "0.0")) for i in range(48))  # fmt: skip
    assert cost.compressed == pytest.approx(on_disk, rel=0.05)  # three chunks of each variable were looked at
    first, second = cost.advice
    assert first == (
        "the source keeps geopotential with 37 levels in one chunk, of which 3 are asked for: "
        "12.3 times more is moved than kept"
    )
    assert "source.kind=weatherbench2" in second


def test_no_advice_where_little_is_wasted(store):
    few = [f"z{level}" for level in (10, 50, 100, 200, 250, 300, 500, 700, 850, 1000)]  # 3.7 times
    assert open_arco(store, few).cost(np.arange(5)).advice == ()


def test_each_chunk_is_decoded_once(store, monkeypatch):
    """Blocks of a few fields and one chunk at a time, as at 0.25 degrees."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 6 * FIELD)
    monkeypatch.setattr(blocks, "DECODE_BYTES", CHUNK)
    data = open_arco(store, ["z500", "z700", "z850", "t850", "t500", "t2m"])
    assert data.together == ((0, 1, 2), (3, 4))
    assert data.state.chunks[0][:2] == (1, 1)
    assert 3 * CHUNK <= data.block_bytes < 4 * CHUNK
    read = count_reads(monkeypatch)
    part = data.state.isel(time=slice(5, 21), channel=slice(0, 3)).data.compute(scheduler="synchronous")
    np.testing.assert_array_equal(part, values("geopotential", hours_of(data)[5:21], ARCO_GRID, [500, 700, 850]))
    assert len(read) == len(set(read)) == 16
    read.clear()
    data.state.isel(time=slice(0, 8)).data.compute(scheduler="synchronous")
    assert len(read) == len(set(read)) == 8 * 3 == data.cost(np.arange(8)).requests


def test_interleaved_levels_are_read_together(store, monkeypatch):
    data = open_arco(store, ["t2m", "z500", "t500", "z850", "t850"])
    assert data.together == ((1, 2, 3, 4),)
    read = count_reads(monkeypatch)
    with dask.config.set(scheduler="synchronous"):
        state = data.state.isel(time=slice(0, 4), channel=slice(1, 5)).values
    assert len(read) == len(set(read)) == 8
    np.testing.assert_array_equal(state[:, 1], values("temperature", hours_of(data)[:4], ARCO_GRID, [500])[:, 0])


def test_levels_far_apart_are_read_apart_with_a_warning(store, monkeypatch, caplog):
    monkeypatch.setattr(blocks, "_MOST_TOGETHER", 3)
    monkeypatch.setattr(blocks, "_FINE", FIELD)
    assert open_arco(store, ["z500", "t500", "t2m", "z850"]).together == ()
    assert "list the levels of a variable side by side" in caplog.text


def count_reads(monkeypatch) -> list[str]:
    """Keys of chunks of fields that are read from now on."""
    from weatherfm.data_pipeline.formats.datasets import reader as dataset_reader
    from weatherfm.data_pipeline.formats.zarr.opening import TrustedStore, chunk_place

    monkeypatch.setattr(dataset_reader, "read_plain", lambda *_: None)  # folders are read as addresses are
    read: list[str] = []
    get = TrustedStore.get

    async def counted(self, key, *arguments, **options):
        if len(chunk_place(key)) > 1:
            read.append(key)
        return await get(self, key, *arguments, **options)

    monkeypatch.setattr(TrustedStore, "get", counted)
    return read


def test_a_time_axis_of_150_years_opens_fast(store):
    open_arco(store, period="2020-01-02/2020-01-03")  # imports
    start = time.process_time()
    channels = [
        f"{v}{level}" for v in "zt" for level in (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
    ]
    data = open_arco(store, channels, period="2020-01-02/2020-01-03")
    assert time.process_time() - start < 1  # of a core, whatever else the machine does; it takes 0.1 s
    assert data.state.shape[:2] == (48, 26)


def test_a_missing_channel_names_what_is_there(store):
    with pytest.raises(InputError, match=r"holds no channel q500; held are .*"):
        open_arco(store, ["q500", "t2m"])


def test_provenance_is_the_same_as_the_store_grows(tmp_path, store):
    """An interrupted run goes on although the store got another day meanwhile."""
    grown = write_arco(tmp_path, valid_time_stop="2020-01-07", valid_time_stop_era5t="2020-01-08")
    first, second = (open_arco(path, period="2020-01-02/2020-01-03").attributes for path in (store, grown))
    assert first == second
    assert re.search("full_37", first["first_file"])
