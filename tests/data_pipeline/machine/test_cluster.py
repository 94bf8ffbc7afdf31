"""Tasks on a dask.distributed cluster: they hold limits, are told once what they share, and survive workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from invented_source import assert_same_tree, data_config, fields, times_every
from kill_prepare import settings, write_files

from weatherfm.data_pipeline.design.store_design import design_store, find_limits
from weatherfm.data_pipeline.fields.positions import Readable, view
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.machine import cluster
from weatherfm.data_pipeline.machine.call import Call
from weatherfm.data_pipeline.machine.parallel import run_tasks
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError, OutsideError

GRID, TIMES = regular_grid((16, 32)), times_every(6, 20)
LIMIT = 2**30
"""Bytes a worker may take."""


class DeadlyFields(Readable):
    """Fields whose reading kills any process but the one that made them, the first `deaths` times in all; notes when
    it read."""

    def __init__(self, folder: Path, deaths: int) -> None:
        self.folder, self.deaths, self.made_in = folder, deaths, os.getpid()
        self.shape = (len(TIMES), 3, *GRID.shape)

    def read(self, times: np.ndarray, channels: np.ndarray) -> np.ndarray:
        begin = time.time()
        if os.getpid() != self.made_in and len(list(self.folder.glob("death*"))) < self.deaths:
            (self.folder / f"death{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (self.folder / f"read-{begin}-{time.time()}").touch()
        return fields(TIMES[times], GRID)[:, channels]


def source(folder: Path, deaths: int = 0) -> SourceData:
    folder.mkdir(exist_ok=True)
    read_from = DeadlyFields(folder, deaths)
    channels = ["z500", "t850", "t2m"]
    state = view(read_from, TIMES, channels, GRID, (len(TIMES), len(channels)))
    return SourceData(state, None, {"made": "for a test"}, simulated=True, read_from=read_from)


RUNNING: list[int] = []
MOST: list[int] = []


def noted(shared: str, number: int) -> int:
    """A task that notes how many run beside it."""
    RUNNING.append(number)
    MOST.append(len(RUNNING))
    time.sleep(0.02)
    RUNNING.remove(number)
    return number


class Told:
    """Counts in files how often it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return told_again, (self.folder,)


def told_again(folder: str) -> Told:
    (Path(folder) / f"told-{time.time_ns()}").touch()
    return Told(folder)


@pytest.fixture(scope="module")
def here():
    """A cluster of threads in this process: quick, and no worker of it can die, or pauses for what tests hold."""
    import dask
    from distributed import LocalCluster

    how = {"n_workers": 2, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    limits = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause", "terminate")}
    with dask.config.set(limits):  # workers look at them once
        made = LocalCluster(**how, memory_limit=LIMIT)
    with made:
        yield made.scheduler_address


def test_limits_are_those_asked_for_or_the_clusters(here, tmp_path):
    assert find_limits(None, None, here).workers == 4
    assert find_limits(None, None, here).memory == LIMIT  # half of two workers'
    assert find_limits(3, 5000, here).workers == 3
    assert find_limits(3, 5000, here).memory == 5000
    config, opened = data_config(tmp_path / "s.zarr"), source(tmp_path / "reads")
    design = design_store(config, opened, scheduler=here)
    assert (design.readers, design.sums_beside_writing) == (1, False)
    assert design.workers == 2  # no more than shards
    one = design.writer_bytes + design.reader_bytes
    assert design_store(config, opened, memory=2 * one - 1, scheduler=here).workers == 1


def test_no_more_tasks_at_a_time_than_workers_asked_for(here):
    done = run_tasks((Call(str(i), noted, (i,)) for i in range(12)), 2, "shared", here)
    assert sorted(done) == list(range(12))
    assert 1 <= max(MOST) <= 2


def test_what_tasks_share_travels_once(here, tmp_path):
    calls = [Call(str(i), lambda shared, i: shared.folder, (i,)) for i in range(20)]
    assert list(run_tasks(calls, 4, Told(str(tmp_path)), here)) == [str(tmp_path)] * 20
    assert 1 <= len(list(tmp_path.glob("told-*"))) <= 2  # once a worker, not once a task


def test_an_error_of_a_task_comes_home(here):
    def fail(shared: None) -> None:
        raise InputError("z500 has 1 at noon; mend the source")

    with pytest.raises(InputError, match="mend the source"):
        list(run_tasks([Call("a", fail, ())], 1, None, here))


def test_a_scheduler_without_workers_is_told(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty:
        with pytest.raises(OutsideError, match=r"has had no workers for .* start some with `dask worker tcp|inproc"):
            find_limits(None, None, empty.scheduler_address)
        with pytest.raises(OutsideError, match="has had no workers"):
            list(run_tasks([Call("a", print, ())], 1, None, empty.scheduler_address))


def test_workers_that_dask_paused_for_their_memory_are_told(monkeypatch):
    """All memory of this process counts as theirs, which is more than they may have."""
    from distributed import LocalCluster

    monkeypatch.setattr(cluster, "_PATIENCE", 1.0)
    monkeypatch.setattr(cluster, "_LOOK", 0.2)
    how = {"n_workers": 2, "processes": False, "dashboard_address": None, "memory_limit": "50 MB"}
    with LocalCluster(**how) as full:
        while {worker.status.name for worker in full.workers.values()} != {"paused"}:  # it looks now and then
            time.sleep(0.05)
        with pytest.raises(OutsideError, match=r"paused all 2 workers .* more memory"):
            list(run_tasks([Call("a", print, ())], 1, None, full.scheduler_address))


# --- processes, which can be killed ---


class Outside:
    """A scheduler and workers that run in another folder, as programs of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.file))
        while not (self.file.exists() and self.file.read_text().endswith("}")):  # written, and to its end
            assert self.scheduler.poll() is None
            time.sleep(0.1)
        self.address = json.loads(self.file.read_text())["address"]

    def workers(self, *options: str) -> subprocess.Popen:
        where = ("--scheduler-file", str(self.file), "--no-dashboard", "--nthreads", "1", "--local-directory")
        return self._start("worker", *where, str(self.folder), *options)

    def _start(self, *command: str) -> subprocess.Popen:
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        environment = {**os.environ, "PYTHONPATH": path, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
        with (self.folder / f"{command[0]}.log").open("ab") as log:
            program = [sys.executable, "-m", "dask", *command]
            return subprocess.Popen(program, cwd=self.folder, env=environment, stdout=log, stderr=log)


def ended(process: subprocess.Popen) -> None:
    process.terminate()
    process.wait(240)


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    made = Outside(tmp_path_factory.mktemp("elsewhere"))
    yield made
    ended(made.scheduler)


@pytest.fixture
def two_workers(outside):
    workers = outside.workers("--nworkers", "2")
    yield outside.address
    ended(workers)


@pytest.mark.slow
def test_relative_paths_hold_in_workers_of_another_folder(two_workers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("files").mkdir()
    write_files(Path("files"))
    prepare(settings(Path("files"), Path("here.zarr"), "2000-03-10"))
    prepare(settings(Path("files"), Path("there.zarr"), "2000-03-10"), scheduler=two_workers)
    assert_same_tree(Path("here.zarr"), Path("there.zarr"))
    assert b'"files/*.nc"' in Path("there.zarr/manifest.json").read_bytes()  # as it was written: it can be moved


@pytest.mark.slow
def test_a_task_whose_worker_is_killed_is_done_again(two_workers, tmp_path):
    quiet, killed = tmp_path / "quiet.zarr", tmp_path / "killed.zarr"
    prepare(data_config(quiet), source(tmp_path / "a"))
    prepare(data_config(killed), source(tmp_path / "b", deaths=1), scheduler=two_workers)
    assert len(list((tmp_path / "b").glob("death*"))) == 1
    assert_same_tree(quiet, killed)


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_told_once(two_workers, tmp_path, capfd):
    with pytest.raises(OutsideError, match=r"state-00000-00\d was tried 2 times.* worker that ran it died") as told:
        prepare(data_config(tmp_path / "s.zarr"), source(tmp_path / "a", deaths=99), scheduler=two_workers)
    assert told.value.__cause__ is None
    said = "".join(capfd.readouterr())
    assert "Traceback" not in said
    assert "KilledWorker" not in said
    prepare(data_config(tmp_path / "s.zarr"), source(tmp_path / "a"), scheduler=two_workers)  # it goes on


@pytest.mark.slow
def test_workers_that_are_all_gone_are_not_waited_for_long(outside, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_LOOK", 0.5)
    workers = outside.workers("--no-nanny")  # nobody starts another one
    find_limits(None, None, outside.address)
    monkeypatch.setattr(cluster, "_PATIENCE", 1.0)
    with pytest.raises(OutsideError, match="has had no workers for 1 s"):
        prepare(data_config(tmp_path / "s.zarr"), source(tmp_path / "a", deaths=99), scheduler=outside.address)
    workers.wait(240)
