"""The planet's cache is asked before days of simulation whether it will take them."""

from __future__ import annotations

import errno
import os
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from weatherfm.data_pipeline.machine import cache_folder
from weatherfm.data_pipeline.planet import history as history_module
from weatherfm.data_pipeline.planet.history import CHANNELS, History
from weatherfm.data_pipeline.sources import open_source, planet
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError


def settings(cache, period="2001-01-01/2001-01-02") -> DataConfig:
    source = {"kind": "planet", "cache": str(cache)}
    return DataConfig.model_validate({"store": "s.zarr", "source": source, "channels": ["t850"], "period": period})


def read_only(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """As on a read-only file system, which stops root too."""

    def refuse(dir, **_):
        assert Path(dir) == folder
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))

    patch.setattr(cache_folder.tempfile, "TemporaryFile", refuse)


def test_a_read_only_home_is_told_on_opening(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    read_only(monkeypatch, tmp_path)
    with pytest.raises(
        InputError, match=r"simulated months cannot be kept in .*\.cache/weatherfm/planet/.*Read-only.*source\.cache"
    ):
        open_source(settings("~/.cache/weatherfm/planet"))


@pytest.mark.parametrize("cache", ["/proc/weatherfm", "file/below"])
def test_places_that_take_no_folder(tmp_path, cache):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"simulated months cannot be kept in .*; choose source\.cache"):
        open_source(settings(tmp_path / cache))


def test_asking_leaves_nothing_behind(tmp_path):
    open_source(settings(tmp_path / "cache"))
    assert list(tmp_path.iterdir()) == []


def finish(history: History, segments: range) -> None:
    """Files as a simulation leaves them."""
    Path(history.folder).mkdir(parents=True, exist_ok=True)
    for index in segments:
        np.save(history._fields_path(index), np.zeros((history.segment_steps, len(CHANNELS), 32, 64), np.float32))
        np.savez(history._state_path(index))


def test_what_is_there_is_read_from_a_read_only_folder(tmp_path, monkeypatch):
    """A cache that several share need not be writable."""
    history = History(str(tmp_path), seed=0, segment_days=1)
    finish(history, range(2))
    monkeypatch.setattr(planet, "open_history", lambda source: history)
    read_only(monkeypatch, tmp_path)
    assert open_source(settings(tmp_path)).state.shape == (8, 1, 32, 64)
    with pytest.raises(InputError, match=r"choose source\.cache"):
        open_source(settings(tmp_path, "2001-01-01/2001-01-03"))


def test_a_full_disk_is_told_before_the_simulation(tmp_path, monkeypatch):
    """A month of 120 times, 33 channels and 32 x 64 points in float32 is 32,440,320 bytes; those before it count."""
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(history_module, "check_room", lambda folder, needed, what: asked.append(needed))
        open_source(settings(tmp_path / "cache", "2001-04-20/2001-05-10"))  # segments 3 and 4, which need 0 to 2
    assert asked == [5 * 120 * 33 * 32 * 64 * 4]
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cache_folder.shutil, "disk_usage", lambda path: usage(10**12, 10**12, 10**8))
    with pytest.raises(InputError, match=r"simulated months take about 155 MiB, and 95 MiB are free .*source\.cache"):
        open_source(settings(tmp_path / "cache", "2001-04-20/2001-05-10"))


def test_a_disk_that_fills_up_meanwhile_is_told_in_words(tmp_path):
    def full(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match=r"simulated months cannot be kept in .*No space left.*source\.cache"):
        history_module._write(tmp_path / "planet" / "0000.npy", full)
    assert list((tmp_path / "planet").iterdir()) == []


def test_a_month_that_was_changed_in_the_cache_is_told(tmp_path):
    """One number of the right shape was taken for weather."""
    history = History(str(tmp_path), seed=0, segment_days=1)
    fields = np.random.default_rng(0).standard_normal((history.segment_steps, len(CHANNELS), 32, 64))
    history._save(0, {"vorticity": np.ones(3)}, fields.astype(np.float32))
    np.testing.assert_array_equal(history.read(0, 1, 3, (2,)), fields.astype(np.float32)[1:3, [2]])
    assert list(history_module._load(history._state_path(0))) == ["vorticity"]
    path = history._fields_path(0)
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match=r"0000\.npy is not what was simulated; delete the file"):
        history.read(0, 1, 3, (2,))
