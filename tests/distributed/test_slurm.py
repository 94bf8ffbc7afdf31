"""configs/slurm.sh against stand-ins for SLURM's commands and for torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import ROOT

SCRIPT = ROOT / "configs" / "slurm.sh"
STAND_INS = {
    "scontrol": 'if [[ $1 == show ]]; then printf "node1\\nnode2\\n"; else echo "$@" >> scontrol.log; fi',
    "srun": 'shift; exec "$@"',  # hands signals on to its tasks
    "torchrun": f'exec {sys.executable} torchrun.py "$@"',
}
TORCHRUN = """
import signal, sys
from pathlib import Path
def stop(*_):
    Path("stopped").write_text("")
    sys.exit(0 if "finishing" in sys.argv else 1)  # torchrun's own status after a signal
signal.signal(signal.SIGUSR1, stop)
Path("arguments").write_text("\\n".join(sys.argv[1:]))
if "fail" in sys.argv:
    sys.exit(3)
if "finish" in sys.argv:
    sys.exit(0)
while True:
    signal.pause()
"""


@pytest.fixture
def submit(tmp_path):
    """A function that starts the script with arguments, as SLURM does on the first machine."""
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "torchrun.py").write_text(TORCHRUN)
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "77", "SLURM_GPUS_ON_NODE": "4"}
    environment = os.environ | slurm | {"SLURM_CPUS_PER_TASK": "32", "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def start(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen(["bash", str(SCRIPT), *arguments], cwd=tmp_path, env=environment)

    return start


def test_the_script_parses():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.parametrize(("word", "status"), [("finish", 0), ("fail", 3)])
def test_it_ends_as_training_does(submit, tmp_path, word, status):
    assert submit("run.yaml", word).wait(240) == status
    assert not (tmp_path / "scontrol.log").exists()  # not queued again
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[-4:] == ["weatherfm.cli", "train", "run.yaml", word]
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=node1:29500", "--rdzv-id=77-0"} <= set(arguments)


def test_torchrun_knows_its_options(submit, tmp_path):
    from torch.distributed.run import get_args_parser

    assert submit("run.yaml", "finish").wait(240) == 0
    known = get_args_parser().parse_args((tmp_path / "arguments").read_text().splitlines())
    assert known.module
    assert known.training_script == "weatherfm.cli"
    assert "SIGUSR1" in known.signals_to_handle


def test_at_the_end_of_its_time_it_stops_and_queues_again(submit, tmp_path):
    assert signalled(submit("run.yaml"), tmp_path) == 75
    assert (tmp_path / "scontrol.log").read_text() == "requeue 77\n"


def test_finished_just_before_the_end_of_its_time_it_is_not_queued_again(submit, tmp_path):
    assert signalled(submit("run.yaml", "finishing"), tmp_path) == 0
    assert not (tmp_path / "scontrol.log").exists()


def signalled(job: subprocess.Popen, folder: Path) -> int:
    """The status of a job that SLURM tells of its end."""
    end = time.monotonic() + 240
    while not (folder / "arguments").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    status = job.wait(240)
    assert (folder / "stopped").exists()
    return status
