"""A disk that is full, or a file that may not grow, is told by the file: the system does not say which one it was."""

from __future__ import annotations

import os
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from kept_samples import unpack

from weatherfm import atomic
from weatherfm.cli import run_command
from weatherfm.data_pipeline.writing.journal import write_file
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts import progress
from weatherfm.evaluation.scoring.sealed_arrays import write_sealed
from weatherfm.file_errors import message_of, naming
from weatherfm.file_lock import FileLock
from weatherfm.training.run_config import WandbConfig
from weatherfm.training.upkeep.metrics_log import MetricsLog

LEAST = 2000
"""Bytes that a file may have."""
MUCH = b"x" * 10 * LEAST


@contextmanager
def small_files(most: int = LEAST):
    """Writing beyond so many bytes fails as on a full disk, without a name."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def log(path: Path) -> None:
    with MetricsLog(path.parent, 0, WandbConfig(mode="disabled"), {}) as metrics:
        metrics.write({"step": 1, "text": MUCH.decode()})


def lock(path: Path) -> None:
    with small_files(0):
        FileLock(path).take()


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("page.html", lambda path: atomic.write_atomically(path, MUCH)),
        ("fit", lambda path: write_sealed(path, {"a": np.zeros(10 * LEAST)})),
        ("zarr.json", lambda path: progress.write_atomically(path, {"a": MUCH.decode()})),
        ("metrics.jsonl", log),
        (".lock", lock),
    ],
)
def test_the_file_is_named(tmp_path, name, write):
    with pytest.raises(OSError, match="File too large") as caught, small_files():
        write(tmp_path / name)
    told = message_of(caught.value)
    assert told is not None
    assert told.startswith(f"{tmp_path / name}: File too large")
    assert not [path for path in tmp_path.rglob(f"*{os.getpid()}*") if path.is_file()]


def test_files_of_a_store_are_named(tmp_path):
    with pytest.raises(InputError, match=r"s\.zarr/a has 20000 bytes, and the file system"), small_files():
        write_file(tmp_path / "s.zarr", "a", MUCH)


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    shutil.copytree(unpack(tmp_path / "sample"), tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return Path("run")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("evaluate", "run.yaml", "--output", "new.nc"), ".new.nc.parts"),
        (("report", "run/scores.nc", "--output", "new.html"), "new.html"),
        (("train", "run.yaml", "run=again"), "again/"),
        (("forecast", "run.yaml", "--output", "new.zarr"), "new.zarr"),
        (("verify", "run/store.zarr", "--output", "new.json"), "new.json"),
    ],
)
def test_every_verb_names_it(run, capfd, monkeypatch, arguments, named):
    monkeypatch.setattr("weatherfm.evaluation.report.page.draw", lambda *_: [])
    with small_files(500):
        status = run_command(list(arguments))
    told = " ".join(capfd.readouterr().err.split())
    assert status == 2, told
    assert named in told
    assert "fault of weatherfm" not in told


def test_names_that_are_known_stay(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, naming(tmp_path):
        (tmp_path / "absent").read_bytes()
    assert caught.value.filename == str(tmp_path / "absent")
    with pytest.raises(OSError, match="no code") as other, naming(tmp_path):
        raise OSError("no code")
    assert other.value.filename is None
