"""`train --seeds` on several processes: in turn under both launchers, and side by side."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import kill_train
import pytest
import toy_run
import yaml
from jobs import Job, start

import weatherfm
from weatherfm.errors import STOPPED

STEPS = 32
"""Enough for a signal to come before the end."""
COMMAND = [sys.executable, "-m", "weatherfm.cli", "train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "weatherfm.cli", "train"]
IN_TURN = ["--seeds", "2", "--devices", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    toy_run.make_store(folder)
    return folder


def settings(folder: Path, run: str) -> dict:
    found = toy_run.run_settings(folder, run, steps=STEPS)
    found["model"]["depth"] = 1
    return found


def config(folder: Path, run: str) -> str:
    path = folder / f"{run}.yaml"
    path.write_text(yaml.safe_dump(settings(folder, run) | {"parallel": {"tp": 2}}))
    return str(path)


def results(run: Path) -> list[dict]:
    return [kill_train.result(run / name) for name in ("seed0", "seed1")]


@pytest.fixture(scope="module")
def undisturbed(folder) -> list[dict]:
    """In turn, each on two ranks that are started for it."""
    status, lines = start([*COMMAND, config(folder, "undisturbed"), *IN_TURN], ranks=4).end()
    assert status == 0, lines
    for name in ("seed0", "seed1"):
        assert lines.count(f"weights   {folder / 'undisturbed' / name / 'weights.safetensors'}") == 1, lines
    return results(folder / "undisturbed")


def stop_in_the_second(folder: Path, run: str, job: Job) -> None:
    job.wait_until(lambda: kill_train.moves(folder / run / "seed1"))
    job.process.send_signal(signal.SIGTERM)
    status, lines = job.end()
    assert status == STOPPED, lines
    assert not any(line.startswith("weatherfm:") for line in lines), lines


@pytest.mark.slow
def test_stopped_they_go_on_under_torchrun_whose_ranks_train_one_after_another(folder, undisturbed):
    stop_in_the_second(folder, "stopped", start([*COMMAND, config(folder, "stopped"), *IN_TURN], ranks=4))
    status, lines = start([*TORCHRUN, config(folder, "stopped"), "--seeds", "2"], ranks=2).end()
    assert status == 0, lines
    assert results(folder / "stopped") == undisturbed
    assert sum("going on from the checkpoint of step" in line for line in lines) == 2  # one rank speaks


def test_one_that_fails_on_ranks_is_told_once_with_its_seed(folder):
    for launcher, options in ((COMMAND, IN_TURN), (TORCHRUN, ["--seeds", "2"])):
        run = folder / "failing"
        run.mkdir(exist_ok=True)
        (run / "seed0").touch()
        job = start([*launcher, config(folder, "failing"), *options], ranks=2)
        assert job.process.wait(240) != 0
        assert job.said().count("cannot be written (a file of this name is there)") == 1
        assert job.said().count(f"(training seed0, in {run / 'seed0'})") == 1
        assert not (run / "seed1").exists()


def test_side_by_side_is_as_in_turn_from_python(folder, capfd, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as this process has it: sums over other numbers of threads differ
    in_turn = weatherfm.train(settings(folder, "turn"), seeds=2)
    capfd.readouterr()
    beside = weatherfm.train(settings(folder, "beside"), seeds=2, at_once=2)
    assert results(folder / "beside") == results(folder / "turn")
    assert [member.validation for member in beside.members] == [member.validation for member in in_turn.members]
    assert [(member.steps, member.resumed_from) for member in beside.members] == [(STEPS, None)] * 2
    said = capfd.readouterr()
    assert sorted(said.out.splitlines()) == [
        f"seed{i}: weights   {folder / 'beside' / f'seed{i}' / 'weights.safetensors'}" for i in range(2)
    ]
    lines = said.err.splitlines()
    assert all(line.startswith(("seed0: ", "seed1: ")) for line in lines if "step" in line)


@pytest.mark.slow
def test_side_by_side_on_two_devices_each_stopped_and_gone_on_with(folder, undisturbed):
    command = [*COMMAND, config(folder, "both"), *IN_TURN, "--at-once", "2"]
    job = start(command)
    job.wait_until(lambda: all(kill_train.moves(folder / "both" / name) for name in ("seed0", "seed1")))
    job.process.send_signal(signal.SIGTERM)
    status, lines = job.end()
    assert status in (STOPPED, 0), lines  # both may have been done by then
    assert start(command).end()[0] == 0
    assert results(folder / "both") == undisturbed
