"""Chunks that were never written, in stores of every kind: named and refused, or the fill value where that is asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from cloud_stores import serving
from places import REAL_DATA

from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.formats.datasets import reader as dataset_reader
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError

S5 = REAL_DATA / "cases/made/S5_dry.zarr"
LATITUDE, LONGITUDE = np.linspace(80, -80, 6), np.arange(8) * 45.0
TIMES = np.datetime64("2020-01-01T00", "h") + 6 * np.arange(8)
LOST = 5
"""Position of the time whose chunk is not there; it was not dry."""
RAIN = (1e-3 * (1 + np.arange(8 * 6 * 8).reshape(8, 6, 8) % 97)).astype(np.float32)  # m, nowhere 0

KINDS = {
    "v2": {"zarr_format": 2},
    "v3": {"zarr_format": 3},
    "shards": {"zarr_format": 3, "shards": (4, 6, 8)},
    "shards of tiles": {"zarr_format": 3, "shards": (8, 6, 8), "chunks": (1, 3, 4)},
    "index first": {"zarr_format": 3, "index_first": True},
    "packed": {"zarr_format": 3, "shards": (4, 6, 8), "packed": True},
    "packed v2": {"zarr_format": 2, "packed": True},
}


def write(
    path: Path, zarr_format=3, shards=None, chunks=(1, 6, 8), index_first=False, packed=False, skip=(LOST,), values=RAIN
) -> Path:
    """A store of 8 times of rain and temperature; the chunks of rain at the times `skip` are never written."""
    group = zarr.create_group(path, zarr_format=zarr_format)
    axes = {
        "time": (6 * np.arange(8), {"units": "hours since 2020-01-01"}),
        "latitude": (LATITUDE, {"units": "degrees_north"}),
        "longitude": (LONGITUDE, {"units": "degrees_east"}),
    }
    for name, (axis, attributes) in axes.items():
        array = _create(group, name, axis.shape, axis.dtype, axis.shape, [name], zarr_format)
        array[...] = axis
        array.update_attributes(attributes)
    dims = ["time", "latitude", "longitude"]
    options = {} if shards is None else {"shards": shards}
    if index_first:
        options = {"shards": {"shape": (4, 6, 8), "index_location": "start"}}
    rain = _create(
        group,
        "total_precipitation_6hr",
        RAIN.shape,
        "int16" if packed else "float32",
        chunks,
        dims,
        zarr_format,
        **options,
    )
    rain.update_attributes({"units": "m", **({"scale_factor": 1e-3} if packed else {})})
    warm = _create(group, "2m_temperature", RAIN.shape, "float32", chunks, dims, zarr_format)
    warm.update_attributes({"units": "K"})
    for i in range(len(TIMES)):
        warm[i] = 280 + RAIN[i]
        if i not in skip:
            rain[i] = np.round(values[i] * 1e3) if packed else values[i]
    return path


def _create(group, name, shape, dtype, chunks, dims, zarr_format, **options):
    named = {"dimension_names": dims} if zarr_format == 3 else {}
    array = group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        fill_value=0,
        config={"write_empty_chunks": True},
        **named,
        **options,
    )
    if zarr_format == 2:
        array.update_attributes({"_ARRAY_DIMENSIONS": dims})
    return array


def opened(address, **settings) -> SourceData:
    source = {"kind": "files", "paths": [str(address)], **settings}
    return open_source(DataConfig(store="unused", source=source, channels=["tp", "t2m"]))


@pytest.fixture(scope="module", params=KINDS)
def store(request, tmp_path_factory) -> Path:
    """A store of each kind."""
    return write(tmp_path_factory.mktemp("rain") / "x.zarr", **KINDS[request.param])


@pytest.mark.parametrize("plain", [True, False], ids=["fast way", "other way"])
def test_refused_by_name_in_a_folder(store, plain, monkeypatch):
    if not plain:
        monkeypatch.setattr(dataset_reader, "read_plain", lambda *_: None)
    data = opened(store)
    for times in (slice(None), slice(LOST, LOST + 1), slice(LOST - 1, LOST + 2)):  # whole shards and parts of them
        with pytest.raises(
            InputError, match=r"x\.zarr: total_precipitation_6hr at 2020-01-02T06:00: chunk .*missing_chunks"
        ):
            data.state[times, 0].values  # noqa: B018
    for times in (slice(LOST), slice(LOST + 1, None)):
        np.testing.assert_allclose(data.state[times, 0].values, RAIN[times], rtol=1e-6)


def test_refused_by_name_across_a_network(store):
    with serving(store.parent) as server:
        data = opened(f"{server.address}/x.zarr")
        with pytest.raises(
            InputError, match=r"x\.zarr: total_precipitation_6hr at 2020-01-02T06:00: chunk .* nothing is fil"
        ):
            data.state[:, 0].values  # noqa: B018
        np.testing.assert_allclose(data.state[:LOST, 0].values, RAIN[:LOST], rtol=1e-6)


@pytest.mark.parametrize("remote", [False, True])
def test_fill_values_where_they_are_asked_for_and_said(store, remote, caplog):
    with serving(store.parent) as server:
        data = opened(f"{server.address}/x.zarr" if remote else store, missing_chunks="fill")
        found = data.state[:, 0].values
    expected = RAIN.copy()
    expected[LOST] = np.nan if _is_packed_version_2(store) else 0  # there, packed 0 means: missing
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert data.attributes["missing_chunks"] == "fill"
    said = [r.getMessage() for r in caplog.records if "never written" in r.getMessage()]
    assert len(said) == 1  # once, not once a chunk
    assert "total_precipitation_6hr has chunks that were never written" in said[0]
    assert "source.missing_chunks: fill" in said[0]


def test_a_whole_shard_that_is_not_there(tmp_path):
    path = write(tmp_path / "x.zarr", shards=(4, 6, 8), skip=(4, 5, 6, 7))
    assert not (path / "total_precipitation_6hr/c/1").exists()
    with pytest.raises(InputError, match=r"at 2020-01-02T00:00: chunk total_precipitation_6hr/c/1/0/0 is not there"):
        opened(path).state[:, 0].values  # noqa: B018
    assert (opened(path, missing_chunks="fill").state[4:, 0].values == 0).all()


def test_zeros_of_version_2_are_zeros(tmp_path):
    """0 is what zarr fills with unless told otherwise; as a value of weather it is no missing one."""
    values = RAIN.copy()
    values[2] = 0
    path = write(tmp_path / "x.zarr", zarr_format=2, skip=(), values=values)
    assert (path / "total_precipitation_6hr/2.0.0").exists()
    np.testing.assert_array_equal(opened(path).state[:, 0].values, values)


def test_a_store_is_never_made_of_them(tmp_path):
    path = write(tmp_path / "x.zarr", shards=(4, 6, 8))
    source = {"kind": "files", "paths": [str(path)]}
    config = DataConfig(store=str(tmp_path / "s.zarr"), source=source, channels=["tp", "t2m"], climatology_window=None)
    with pytest.raises(InputError, match=r"was never written: 5\.0\.0 of the array's chunks is not in its shard"):
        prepare(config)
    assert not (tmp_path / "s.zarr/manifest.json").exists()
    shutil.rmtree(tmp_path / "s.zarr")
    filled = config.model_copy(update={"source": config.source.model_copy(update={"missing_chunks": "fill"})})
    made = prepare(filled)
    assert made.manifest["source"]["attributes"]["missing_chunks"] == "fill"
    assert made.manifest["request"]["source"]["missing_chunks"] == "fill"
    assert (made.read([LOST], ["tp"]) == 0).all()
    assert verify(tmp_path / "s.zarr").ok


def test_a_shard_cut_short(tmp_path):
    path = write(tmp_path / "x.zarr", shards=(4, 6, 8), skip=())
    shard = path / "total_precipitation_6hr/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(
        InputError, match=r"x\.zarr: total_precipitation_6hr at 2020-01-01T00:00: chunk .* is cut short: 40"
    ):
        opened(path).state[:2, 0].values  # noqa: B018


@pytest.mark.parametrize(
    "harm", [lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: c[: len(c) - 9]], ids=["index", "cut"]
)
def test_a_shard_whose_index_is_damaged(tmp_path, harm):
    """It ended in a traceback that named no file."""
    path = write(tmp_path / "x.zarr", shards=(4, 6, 8), skip=())
    shard = path / "total_precipitation_6hr/c/0/0/0"
    shard.write_bytes(harm(shard.read_bytes()))
    told = r"x\.zarr: total_precipitation_6hr at 2020-01-01T00:00: chunk total_precipitation_6hr/c/0/0/0 is damaged"
    with pytest.raises(InputError, match=told):
        opened(path).state[:2, 0].values  # noqa: B018


def test_dry_times_of_a_public_example():
    if not S5.exists():
        pytest.skip(f"{S5} is not here")
    with pytest.raises(InputError, match=r"S5_dry\.zarr: total_precipitation_6hr at .* is not there"):
        opened(S5).state[:, 0].values  # noqa: B018
    found = opened(S5, missing_chunks="fill").state[:, 0].values
    raw = zarr.open_group(S5, mode="r")["total_precipitation_6hr"]
    dry = [i for i in range(8) if not (S5 / f"total_precipitation_6hr/c/{i}").exists()]
    assert len(dry) == 2
    raw = zarr.open_group(S5, mode="r")  # zarr-python fills in by itself
    rows = slice(None, None, 1 if raw["latitude"][0] > raw["latitude"][1] else -1)
    np.testing.assert_array_equal(found, raw["total_precipitation_6hr"][:][:, rows])
    assert (found[dry] == 0).all()


def _is_packed_version_2(store: Path) -> bool:
    group = zarr.open_group(store, mode="r")
    return group.metadata.zarr_format == 2 and "scale_factor" in group["total_precipitation_6hr"].attrs
