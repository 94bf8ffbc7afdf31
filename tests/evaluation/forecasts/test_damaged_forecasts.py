"""Forecasts on disk tell of every bit that was changed in them, and of what was left of those that were begun."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from weatherfm.data_pipeline.formats.datasets.reader import _open
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts import schema
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.forecasts.writer import ForecastContents, ForecastWriter

CHANNELS, LEADS, GRID = ("z500", "t850", "t2m"), (24, 48), regular_grid((8, 16))
INITS = np.datetime64("2020-01-01") + np.arange(4) * np.timedelta64(1, "D")


def contents() -> ForecastContents:
    return ForecastContents(CHANNELS, GRID, INITS, LEADS, {"simulated": True})


def write(path: Path, blocks: int = 4) -> ForecastWriter:
    """All blocks, or the first so many of one initial time each."""
    writer = ForecastWriter(path, contents())
    rng = np.random.default_rng(0)
    for block in writer.remaining()[:blocks]:
        for lead in range(len(LEADS)):
            fields = 280 + rng.standard_normal((block.stop - block.start, len(CHANNELS), *GRID.shape))
            writer.write(block, lead, fields.astype(np.float32))
        writer.block_done(block)
    return writer


def read(path: Path) -> np.ndarray:
    _open.cache_clear()  # as another process
    file = ForecastFile(path)
    file.require(CHANNELS, LEADS, GRID)
    return np.stack([file.read(np.arange(len(INITS)), lead, CHANNELS) for lead in LEADS])


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "forecast.zarr"
    write(path).finish()
    return path


@pytest.fixture
def forecast(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "forecast.zarr"))


def test_no_flipped_bit_is_read_in_silence(forecast):
    rng = np.random.default_rng(1)
    for file in sorted(path for path in forecast.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for at in rng.integers(len(whole), size=2):
            content = bytearray(whole)
            content[at] ^= 1 << rng.integers(8)
            file.write_bytes(content)
            with pytest.raises(InputError) as told:
                read(forecast)
            inside = file.relative_to(forecast)
            assert inside.parts[0] in str(told.value) or inside.name == "checksums.json"
            assert len(str(told.value)) < 1000
        file.write_bytes(whole)
    read(forecast)


def test_a_date_that_was_changed_is_told(forecast):
    """A year more in the units of time, and every forecast was of another year."""
    for file in (forecast / "zarr.json", forecast / "time/zarr.json"):
        text = file.read_text()
        file.write_text(text.replace("since 1970", "since 1971"))
        with pytest.raises(InputError, match=rf"{file} was changed since the forecast was written"):
            read(forecast)
        with pytest.raises(InputError, match="was changed since"):
            ForecastWriter(forecast, contents())
        file.write_text(text)


def test_a_chunk_is_told_by_file_and_variable(forecast):
    shard = forecast / "2m_temperature/c/0/1/0/0"
    content = bytearray(shard.read_bytes())
    content[50] ^= 4
    shard.write_bytes(content)
    with pytest.raises(
        InputError, match=r"2m_temperature at 2020-01-01T00:00: chunk 2m_temperature/c/0/1/0/0 is damag"
    ):
        read(forecast)


def test_copies_by_xarray_and_forecasts_of_before_are_read_without(forecast, tmp_path):
    whole = read(forecast)
    xr.open_zarr(forecast, decode_timedelta=True, chunks=None).load().to_zarr(tmp_path / "copy.zarr", zarr_format=3)
    assert not (tmp_path / "copy.zarr/checksums.json").exists()
    np.testing.assert_array_equal(read(tmp_path / "copy.zarr"), whole)
    (forecast / "checksums.json").unlink()
    np.testing.assert_array_equal(read(forecast), whole)


def test_one_begun_before_goes_on(tmp_path, sound, monkeypatch):
    """By a version that knew no checksums of chunks: its arrays stay as they were begun."""
    path = tmp_path / "forecast.zarr"
    real = schema.array_metadata

    def before(*arguments):
        told = json.loads(json.dumps(real(*arguments)).replace(', {"name": "crc32c"}', ""))
        assert "crc32c" not in str(told)
        return told

    with monkeypatch.context() as patch:
        patch.setattr("weatherfm.evaluation.forecasts.writer.array_metadata", before)
        patch.setattr(ForecastContents, "block", 1)
        write(path, blocks=2)
    write(path).finish()
    codecs = json.loads((path / "geopotential/zarr.json").read_text())["codecs"]
    assert [codec["name"] for codec in codecs[0]["configuration"]["codecs"]] == ["bytes", "blosc"]
    assert read(path).shape == read(sound).shape


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[1]", b"null", b'{"format": "weatherfm forecast 1"}', b"[" * 100_000, None]
)
@pytest.mark.parametrize("name", ["progress.json", "zarr.json"])
def test_what_is_left_of_one_that_was_begun(tmp_path, name, content):
    path = tmp_path / "forecast.zarr"
    write(path, blocks=1)
    whole = (path / "progress.json").read_bytes()
    (path / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(InputError, match=r"(is damaged|is no forecast of weatherfm)") as told:
        ForecastWriter(path, contents())
    assert len(str(told.value)) < 1000
