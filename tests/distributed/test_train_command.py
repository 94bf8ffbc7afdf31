"""`weatherfm train` on several ranks, as a user types it: killed, stopped and refused."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import toy_run
import yaml
from jobs import children, start

from weatherfm.errors import STOPPED

TIMINGS = {"samples_per_second", "data_wait_share", "memory_gib"}
STEPS = 32
"""Of a run that is to be disturbed after its first checkpoint, of step 5: some seconds of them."""
COMMAND = [sys.executable, "-m", "weatherfm.cli", "train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "weatherfm.cli", "train"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    toy_run.make_store(folder)
    return folder


def config(folder: Path, run: str) -> str:
    path = folder / f"{run}.yaml"
    settings = toy_run.run_settings(folder, run, steps=STEPS) | {"parallel": {"tp": 2}}
    settings["model"]["depth"] = 1
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def curve(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMINGS} for line in lines]


def under_way(run: Path) -> bool:
    """A checkpoint is there, and the end is far."""
    return any(not path.name.startswith(".") for path in (run / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def undisturbed(folder) -> Path:
    status, lines = start([*COMMAND, config(folder, "undisturbed"), "--devices", "2"]).end()
    assert status == 0, lines
    # not the last line: PyTorch may warn on stderr of connections that others have closed before, as all end
    assert lines.count(f"weights   {folder / 'undisturbed' / 'weights.safetensors'}") == 1, lines
    assert sum(f"step {STEPS} of {STEPS}" in line for line in lines) == 1, lines  # one rank speaks
    return folder / "undisturbed"


def test_a_killed_rank_changes_nothing(folder, undisturbed):
    job = start([*COMMAND, config(folder, "killed"), "--devices", "2", "--restarts", "1"], ranks=4)
    job.wait_until(lambda: under_way(folder / "killed"))
    os.kill(children(job.process.pid)[1], signal.SIGKILL)
    status, lines = job.end()
    assert status == 0, lines
    assert any("was ended by SIGKILL; starting all again from the newest checkpoint (1 of 1)" in line for line in lines)
    assert any("going on from the checkpoint of step" in line for line in lines)
    assert curve(folder / "killed") == curve(undisturbed)
    weights = [(run / "weights.safetensors").read_bytes() for run in (folder / "killed", undisturbed)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_stopped_it_goes_on_from_there_under_torchrun(folder, undisturbed):
    path = config(folder, "stopped")
    job = start([*COMMAND, path, "--devices", "2", "--restarts", "1"], ranks=4)
    job.wait_until(lambda: under_way(folder / "stopped"))
    job.process.send_signal(signal.SIGINT)
    status, lines = job.end()
    assert status == STOPPED, lines
    assert not any("weatherfm:" in line or "starting all again" in line for line in lines)  # nothing has failed
    assert sum("the same command goes on from there" in line for line in lines) == 1
    status, lines = start([*TORCHRUN, path]).end()
    assert status == 0, lines
    assert curve(folder / "stopped") == curve(undisturbed)


def listens(pid: int) -> bool:
    """A process has a handler for SIGTERM: Python itself has none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "0:0")
    return bool(int(caught.split(":")[1], 16) >> signal.SIGTERM - 1 & 1)


MOMENTS = {
    "the command imports": (
        lambda job: listens(job.process.pid),
        "stopped by SIGTERM (before step 1|while starting); the same command goes on",
    ),
    "ranks have just been started": (
        lambda job: children(job.process.pid),
        "stopped by SIGTERM while starting; the same command goes on",
    ),
    "ranks import": (
        lambda job: len(ranks := children(job.process.pid)) == 2 and all(map(listens, ranks)),
        r"stopped by SIGTERM before step 1; the same command goes on from there",
    ),
}


@pytest.mark.parametrize(
    ("devices", "moment"), [(None, "the command imports"), *((2, moment) for moment in MOMENTS)], ids=str
)
def test_a_stop_while_it_starts_is_a_stop(folder, devices, moment):
    options = [] if devices is None else ["--devices", "2", "--restarts", "1"]
    settings = ["parallel.tp=1"] if devices is None else []
    begins, said = MOMENTS[moment]
    job = start([*COMMAND, config(folder, f"{moment} {devices}"), *settings, *options])
    job.wait_until(lambda: begins(job))
    job.process.send_signal(signal.SIGTERM)
    status, lines = job.end()
    assert status == STOPPED, lines
    assert sum(bool(re.search(said, line)) for line in lines) == 1, lines
    assert not any("weatherfm:" in line or "starting all again" in line for line in lines), lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["parallel.tp=3"], "3 devices, but there are 2"),
        (["training.batch_size=3", "parallel.tp=1"], "not a multiple of the 2 data-parallel groups"),
        (["training.stpes=3"], r"did you mean training.steps?"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_once(folder, arguments, message):
    command = [*COMMAND, config(folder, "refused"), *arguments, "--devices", "2", "--restarts", "1"]
    status, lines = start(command, ranks=4).end()
    assert status == 2
    assert sum(message in line for line in lines) == 1
    assert sum(line.startswith("weatherfm:") for line in lines) == 1


def test_under_torchrun_errors_are_told_once(folder):
    job = start([*TORCHRUN, config(folder, "refused"), "training.stpes=3"], ranks=2)
    assert job.process.wait(240) != 0
    assert job.said().count("did you mean training.steps?") == 1
    job = start([*TORCHRUN, config(folder, "refused"), "--devices", "2"], ranks=2)
    assert job.process.wait(240) != 0
    assert job.said().count("--devices 2 under torchrun: it has started 2 already") == 1
