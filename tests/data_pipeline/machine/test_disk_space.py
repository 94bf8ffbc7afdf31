"""Free disk is compared with what is needed before anything is written or downloaded."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from invented_source import data_config, invented_source, times_every

from weatherfm.data_pipeline import prepare as prepares
from weatherfm.data_pipeline import sources
from weatherfm.data_pipeline.design.dry_run import to_dict, to_text
from weatherfm.data_pipeline.design.store_design import design_store
from weatherfm.data_pipeline.machine.disk import check_download, check_space, free_bytes
from weatherfm.data_pipeline.prepare import open_config, prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError

GRID, TIMES = regular_grid((32, 64)), times_every(6, 75)
BYTES = 4 * 32 * 64 * 3 * (300 + 4)
"""Of state and climatology before compression."""


@pytest.fixture
def disk(monkeypatch):
    """A disk with as many bytes free as `disk.free` says."""
    made = SimpleNamespace(free=10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=made.free))
    return made


def test_what_cannot_fit_is_refused_before_it_is_written(tmp_path, disk):
    disk.free = int(0.29 * BYTES)
    with pytest.raises(InputError, match=r"s.zarr needs 0.0 GB before compression.*free some, put data.store on"):
        prepare(data_config(tmp_path / "s.zarr"), invented_source(TIMES, GRID))
    assert not list((tmp_path / "s.zarr").rglob("state/c*"))


def test_what_may_not_fit_is_warned_of(tmp_path, disk, caplog):
    disk.free = int(0.99 * BYTES)
    prepare(data_config(tmp_path / "s.zarr"), invented_source(TIMES, GRID))
    assert "it may not fit" in caplog.text


def test_enough_is_enough(tmp_path, disk, caplog):
    disk.free = BYTES
    prepare(data_config(tmp_path / "s.zarr"), invented_source(TIMES, GRID))
    assert "fit" not in caplog.text


def test_only_what_is_not_yet_written_counts(tmp_path, disk):
    def fail(number, values):
        if number >= 11:
            raise OSError("went away")
        return values

    with pytest.raises(OSError, match="went away"):
        prepare(data_config(tmp_path / "s.zarr"), invented_source(TIMES, GRID, spoil=fail))
    disk.free = int(0.29 * BYTES)
    prepare(data_config(tmp_path / "s.zarr"), invented_source(TIMES, GRID))


def test_append_counts_the_new_alone(tmp_path, disk):
    config = data_config(tmp_path / "s.zarr", train="2000-01-01/2000-02-01")
    prepare(config, invented_source(TIMES[:270], GRID))
    disk.free = int(0.29 * BYTES)
    assert len(append(config, invented_source(TIMES, GRID)).times) == 300
    disk.free = 1000
    with pytest.raises(InputError, match="needs"):
        append(config, invented_source(times_every(6, 76), GRID))


def test_a_disk_is_that_of_the_nearest_folder_there_is(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda place: (asked.append(place), SimpleNamespace(free=7))[1])
    assert free_bytes(tmp_path / "not" / "yet" / "there") == 7
    assert asked == [tmp_path]


def test_downloads_count_before_they_begin(tmp_path, disk):
    disk.free = 100
    with pytest.raises(InputError, match=r"to be downloaded to .*cache.*set source.cache to another disk"):
        check_download(tmp_path / "cache", 101, tmp_path / "s.zarr", 0)
    check_download(tmp_path / "cache", 99, tmp_path / "s.zarr", 1)
    with pytest.raises(InputError, match="on the same disk"):
        check_download(tmp_path / "cache", 90, tmp_path / "s.zarr", 50)
    check_space(tmp_path / "s.zarr", 50)


def test_nothing_is_fetched_that_does_not_fit(tmp_path, disk, monkeypatch):
    fetched = []
    source = replace(
        invented_source(TIMES, GRID),
        fetch=lambda: fetched.append(True),
        download_bytes=5000,
        download_folder=str(tmp_path),
    )
    monkeypatch.setattr(sources, "open_source", lambda config: source)
    disk.free = 4000
    with pytest.raises(InputError, match="to be downloaded"):
        open_config(data_config(tmp_path / "s.zarr"))
    assert not fetched
    disk.free = 10 * BYTES
    open_config(data_config(tmp_path / "s.zarr"))
    assert fetched
    assert prepares.check_download is check_download


def test_dry_run_says_what_is_free(tmp_path, disk):
    source = replace(invented_source(TIMES, GRID), download_bytes=5000, download_folder=str(tmp_path / "cache"))
    design = design_store(data_config(tmp_path / "s.zarr"), source)
    disk.free = 3 * BYTES
    told = to_dict(design)
    assert (told["bytes_free"], told["bytes_to_download"]) == (3 * BYTES, 5000)
    assert told["bytes_on_disk"] == round(0.7 * design.bytes_before_compression)
    assert "are free" in to_text(design)
    assert f"about 5 kB to {tmp_path / 'cache'}" in to_text(design)
    disk.free = int(0.5 * BYTES)
    assert "may not fit" in to_text(design)
    disk.free = int(0.1 * BYTES)
    assert "TOO LITTLE" in to_text(design)


def test_the_cds_says_what_it_will_bring(tmp_path):
    config = data_config(
        tmp_path / "s.zarr",
        source={"kind": "cds", "cache": str(tmp_path / "cache"), "grid": 1.0},
        channels=["t2m"],
        period="2020-01-01/2020-01-02",
    )
    opened = sources.open_source(config)
    assert opened.download_folder == str(tmp_path / "cache")
    assert opened.download_bytes == pytest.approx(48 * 181 * 360 * 2, rel=0.01)  # 16 bits a point, and headers
    assert Path(opened.download_folder).is_absolute()
