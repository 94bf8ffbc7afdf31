"""What reading files will take, told from their headers; and how small a selection becomes for another process."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, field, grib_message, open_files, write_netcdf

from weatherfm.data_pipeline.fields.source_data import ReadCost
from weatherfm.data_pipeline.formats.chunks import Chunking
from weatherfm.data_pipeline.formats.reading.packing import pack, unpack

FIELD = 4 * 8 * 4  # bytes of a field of these files as float32
HOURS = np.arange("2020-01-01", "2020-01-03", np.timedelta64(1, "h"), "datetime64[h]").astype("datetime64[ns]")


def test_grib_costs_the_messages_wanted(tmp_path):
    messages = [grib_message("t", level, date=20200101 + day) for day in range(5) for level in (500, 850)]
    (tmp_path / "x.grib").write_bytes(b"".join(messages))
    cost = open_files(tmp_path / "x.grib", ["t500"]).cost(np.arange(2))
    assert cost == ReadCost(2 * FIELD, 2 * FIELD, (tmp_path / "x.grib").stat().st_size * 2 // 10, 2)


def test_netcdf_without_chunks_costs_its_fields(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", field(times=HOURS))  # float64 on disk
    cost = open_files(path, ["t2m"]).cost(np.arange(4))
    assert (cost.wanted, cost.moved, cost.requests) == (4 * FIELD, 8 * FIELD, 4)


def test_netcdf_in_long_chunks_costs_them_whole(tmp_path):
    encoding = {"t2m": {"chunksizes": (24, 2, 8), "zlib": True, "dtype": "float32"}}
    path = write_netcdf(tmp_path / "x.nc", field(times=HOURS), encoding=encoding)
    data = open_files(path, ["t2m"])
    cost = data.cost(np.array([0, 30]))
    assert (cost.wanted, cost.moved, cost.requests) == (2 * FIELD, 48 * FIELD, 4)
    assert 0 < cost.compressed <= path.stat().st_size
    (advice,) = cost.advice
    assert advice.startswith(
        "the source keeps t2m with 24 times in one chunk, of which one in 24 is asked for: 24 times"
    )
    assert data.cost(np.arange(48)).advice == ()


def test_costs_of_many_files_add_up(tmp_path):
    for day in range(3):
        write_netcdf(tmp_path / f"{day}.nc", field(times=HOURS[:4] + np.timedelta64(day, "D")).astype("float32"))
    data = open_files(tmp_path / "*.nc", ["t2m"])
    whole, parts = data.cost(np.arange(12)), ReadCost.total(data.cost(np.array([i])) for i in range(12))
    assert (whole.wanted, whole.moved, whole.requests) == (parts.wanted, parts.moved, parts.requests)
    assert whole.requests == 12
    assert whole.compressed == pytest.approx(parts.compressed, abs=12)  # each is rounded to whole bytes


def test_hourly_sums_cost_all_their_terms(tmp_path):
    rain = field("tp", "m", 1.0, HOURS).astype("float32")
    data = open_files(write_netcdf(tmp_path / "tp.nc", rain), ["tp"], step="6h")
    cost = data.cost(np.arange(len(data.state["time"])))
    assert cost.requests == 6 * len(data.state["time"])


def test_shards_share_their_bytes_among_their_chunks(tmp_path):
    path = tmp_path / "x.zarr"
    encoding = {"t2m": {"chunks": (1, 4, 8), "shards": (24, 4, 8)}}
    field(times=HOURS).astype("float32").to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)
    cost = open_files(path, ["t2m"]).cost(np.arange(12))
    assert (cost.moved, cost.requests) == (12 * FIELD, 12)
    assert cost.compressed == pytest.approx((path / "t2m/c/0/0/0").stat().st_size / 2, abs=1)


@pytest.mark.parametrize(
    ("slots", "chunks", "wanted", "rows"),
    [
        ((6,), (4,), [0, 3, 4, 5], [0, 0, 1, 1]),
        ((3, 4), (2, 3), [0, 3, 4, 11], [0, 1, 0, 3]),  # (times, steps): the last varies fastest
        ((), (), [0, 0], [0, 0]),
    ],
)
def test_rows_of_chunks(slots, chunks, wanted, rows):
    chunking = Chunking(slots, chunks, 37, 10, 1, 100)
    np.testing.assert_array_equal(chunking.rows(np.array(wanted)), rows)
    assert chunking.level_parts == 4
    assert chunking.keys(np.array(wanted), 25).tolist() == [4 * row + 2 for row in sorted(set(rows))]
    assert chunking.row_bytes([0, 9, 10], 7) == 200


def test_a_selection_packs_small_and_comes_back(tmp_path):
    both = xr.merge([field("tp", "m", 1.0, HOURS), field("t2m", times=HOURS)])
    data = open_files(write_netcdf(tmp_path / "x.nc", both), ["tp", "t2m"], step="6h")
    selection = data.cost.args[0]
    back, other = unpack(pack(selection, "other"))
    assert other == "other"
    for name in ("times", "piece_of", "slot_of"):
        np.testing.assert_array_equal(getattr(back, name), getattr(selection, name))
        assert getattr(back, name).dtype == getattr(selection, name).dtype
    for one, same in zip(selection.sums[0], back.sums[0], strict=True):
        np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data.state)).values, data.state.values)


def test_a_long_state_is_sent_in_few_bytes(tmp_path):
    times = np.datetime64("1979-01-01", "ns") + np.arange(30_000) * np.timedelta64(6, "h")
    shape = (len(times), len(LATITUDE), len(LONGITUDE))
    dataset = xr.Dataset(
        {"t2m": (("time", "lat", "lon"), np.zeros(shape, np.float32), {"units": "K"})},
        coords={"time": times, "lat": LATITUDE, "lon": LONGITUDE},
    )
    data = open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])
    assert data.cost.args[0].slot_of.nbytes == 240_000
    assert len(pickle.dumps(data.state.isel(time=slice(0, 10)).data)) < 10_000
