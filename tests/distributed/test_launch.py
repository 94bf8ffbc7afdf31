"""Jobs that are started, stopped, killed, and that fail: one message, the right status, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from jobs import alive, by_hand, free_port, launched, torchrun

from weatherfm.errors import STOPPED, InputError
from weatherfm.training.ranks.heartbeat_monitor import LOOKS, HeartbeatMonitor
from weatherfm.training.ranks.launch import _status, launch, require_devices
from weatherfm.training.upkeep.stop_signals import StopSignals

HOST = os.uname().nodename


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def began(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("began*"))


def test_a_job_ends_quietly(tmp_path):
    assert launched("finished", tmp_path, 2).end() == (0, [])
    assert began(tmp_path) == ["began0.0", "began0.1"]
    assert (tmp_path / "kept").read_text() == "10"


def test_a_killed_rank_is_named_and_all_are_started_again(tmp_path):
    status, lines = launched("killed", tmp_path, 3, restarts=2).end()
    assert status == 0
    assert lines[0].startswith(f"weatherfm: no answer from rank 2 ({HOST}), last seen at step ")
    assert lines[1] == "rank 2 was ended by SIGKILL; starting all again from the newest checkpoint (1 of 2)"
    assert len(lines) == 2
    assert began(tmp_path) == [f"began{step}.{rank}" for step in (0, 4) for rank in range(3)]


def test_without_restarts_a_killed_rank_ends_the_job(tmp_path):
    status, lines = launched("killed", tmp_path, 2).end()
    assert status == 1
    assert len(lines) == 1
    assert f"no answer from rank 1 ({HOST})" in lines[0]
    assert (tmp_path / "kept").read_text() == "4"


def test_rank_0_refuses_for_all_and_nothing_is_tried_again(tmp_path):
    status, lines = launched("refused", tmp_path, 2, restarts=2).end()
    assert status == 2
    assert lines == ["weatherfm: tp 3 does not divide model.heads 4"]
    assert [path.name for path in tmp_path.iterdir()] == ["checked0"]


def test_what_only_another_rank_finds_names_it(tmp_path):
    status, lines = launched("checked", tmp_path, 2).end()
    assert (status, lines) == (2, ["weatherfm: no store at /data", f"(on rank 1, {HOST})"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checked0", "checked1"]


def test_a_fault_of_one_rank_is_told_once(tmp_path):
    status, lines = launched("faulty", tmp_path, 3).end()
    assert status == 1
    assert lines == [
        "weatherfm: unexpected RuntimeError: a wheel came off",
        f"(on rank 1, {HOST})",
        "This is a fault of weatherfm; --debug shows where.",
    ]


@pytest.mark.parametrize(
    ("codes", "status"), [([3], 1), ([3, 2], 2), ([-9], 1), ([-9, 75], 75), ([130], 130), ([], 1), ([255, 1], 1)]
)
def test_a_status_that_no_command_has_is_a_fault(codes, status):
    """A library that calls os._exit(3)."""
    ended = {rank: SimpleNamespace(exitcode=code) for rank, code in enumerate(codes)}
    assert _status(SimpleNamespace(failures=ended, is_failed=lambda: True)) == status


def test_the_same_error_of_all_ranks_is_told_once(tmp_path):
    status, lines = launched("diverged", tmp_path, 2, restarts=2).end()
    assert status == 2
    assert [line for line in lines if "(on rank" not in line] == ["weatherfm: the loss is not finite"]


def test_a_silent_rank_is_named(tmp_path):
    status, lines = launched("silent", tmp_path, 3).end()
    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"weatherfm: no answer from rank 1 ({HOST}), last seen at step 2, 1")  # 10 s or more


def test_a_process_that_neither_answers_nor_closes_is_named_long_before_the_timeout(tmp_path):
    """The timeout is 300 s, longer than a job is waited for here; without a launcher, nothing else would end it."""
    jobs = by_hand("frozen", tmp_path, 3)
    jobs[1].wait_until(lambda: stopped(jobs[1].process.pid))
    results = [jobs[rank].end() for rank in (0, 2)]
    jobs[1].process.kill()
    assert [status for status, _ in results] == [1, 1]
    told = [line for _, lines in results for line in lines if line.startswith("weatherfm: no answer")]
    assert len(told) == 1
    assert re.match(rf"weatherfm: no answer from rank 1 \({HOST}\), last seen at step [0-2], \d+ s ago", told[0])


def test_a_store_that_neither_answers_nor_closes_is_noticed(tmp_path):
    """Started by hand, it is in the process of rank 0, and the others cannot ask each other without it."""
    jobs = by_hand("headless", tmp_path, 3)
    jobs[0].wait_until(lambda: len(list(tmp_path.glob("running*"))) == 3)
    time.sleep(3.0)  # until each has looked at the store
    jobs[0].process.send_signal(signal.SIGSTOP)
    results = [job.end() for job in jobs[1:]]  # long before the timeout of 300 s
    jobs[0].process.kill()
    assert results[1] == (1, [])
    status, (line,) = results[0]
    assert status == 1
    assert line.startswith(
        f"weatherfm: no answer from rank 0 ({HOST}), nor from the store on its machine; rank 1 ({HOST}) "
    )


def test_a_job_that_was_suspended_goes_on(tmp_path):
    """As `scontrol suspend` does it, for longer than the timeout of 8 s (but not than that of gloo, 30 s more)."""
    job = launched("suspended", tmp_path, 2)
    job.wait_until(lambda: len(list(tmp_path.glob("running*"))) == 2)
    everyone = [job.process.pid, *(int((tmp_path / f"running{rank}").read_text()) for rank in range(2))]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(10.0)
    for pid in everyone:
        os.kill(pid, signal.SIGCONT)
    assert job.end() == (0, [])


@pytest.mark.parametrize("scene", ["busy", "early"])
def test_who_is_busy_or_done_is_not_taken_for_gone(tmp_path, scene):
    assert launched(scene, tmp_path, 2).end() == (0, [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda number: number.name)
def test_signals_reach_the_ranks_which_stop_together(tmp_path, number):
    job = launched("stopped", tmp_path, 2, restarts=1)
    job.wait_until(lambda: len(list(tmp_path.glob("running*"))) == 2)
    job.process.send_signal(number)
    assert job.end() == (STOPPED, [])
    assert number.name in {(tmp_path / f"stopped{rank}").read_text() for rank in range(2)}


def test_a_signal_that_came_too_late_is_not_forgotten(tmp_path, monkeypatch):
    """Ranks that end as if nothing had been: what was to come after them must not begin."""
    for name in ("OMP_NUM_THREADS", "TORCHELASTIC_SIGNALS_TO_HANDLE"):  # which `launch` sets
        monkeypatch.setenv(name, os.environ.get(name, ""))
    text = """
import pathlib, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
pathlib.Path(sys.argv[1]).touch()
while not asked:
    time.sleep(0.01)
"""

    def ask() -> None:
        while not (tmp_path / "there").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    with StopSignals() as stop, ThreadPoolExecutor(1) as thread:
        asked = thread.submit(ask)
        assert launch([sys.executable, "-S", "-c", text, str(tmp_path / "there")], 1, stop=stop) == 0
        asked.result()
    assert stop.received == "SIGTERM"


def test_ctrl_c_where_nothing_can_be_saved_is_told_once_and_final(tmp_path):
    job = launched("interruptible", tmp_path, 2, restarts=3)
    job.wait_until(lambda: len(list(tmp_path.glob("running*"))) == 2)
    job.process.send_signal(signal.SIGINT)
    status, lines = job.end()
    assert status == 130
    assert lines == ["weatherfm: interrupted; the same command goes on from here"]


def test_a_closed_terminal_ends_the_ranks(tmp_path):
    job = launched("interruptible", tmp_path, 2, restarts=1)
    job.wait_until(lambda: len(list(tmp_path.glob("running*"))) == 2)
    job.process.send_signal(signal.SIGHUP)
    assert job.end() == (128 + signal.SIGHUP, [])
    assert not any(alive(int((tmp_path / f"running{rank}").read_text())) for rank in range(2))


def test_ranks_do_not_outlive_a_killed_launcher(tmp_path):
    job = launched("interruptible", tmp_path, 2)
    job.wait_until(lambda: len(list(tmp_path.glob("running*"))) == 2)
    job.process.kill()
    ranks = [int((tmp_path / f"running{rank}").read_text()) for rank in range(2)]
    end = time.monotonic() + 240
    while any(alive(pid) for pid in ranks) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in ranks)


def test_torchrun_starts_a_killed_rank_again(tmp_path):
    status, lines = torchrun("killed", tmp_path, "--nproc-per-node", "2", "--max-restarts", "1", ranks=4).end()
    assert status == 0
    assert sum("no answer from rank 1" in line for line in lines) == 1
    assert began(tmp_path) == ["began0.0", "began0.1", "began4.0", "began4.1"]


def test_torchrun_hands_on_the_signal_of_a_scheduler(tmp_path):
    job = torchrun("stopped", tmp_path, "--nproc-per-node", "2", "--signals-to-handle", "SIGTERM,SIGUSR1", ranks=2)
    job.wait_until(lambda: len(list(tmp_path.glob("running*"))) == 2)
    job.process.send_signal(signal.SIGUSR1)
    assert job.process.wait(240) != 0  # torchrun's own manners
    # both stop; where one of them is slow, the other's word may reach it before its own signal
    assert "SIGUSR1" in {(tmp_path / f"stopped{rank}").read_text() for rank in range(2)}


def test_two_machines_start_again_though_they_count_restarts_differently(tmp_path):
    endpoint = f"localhost:{free_port()}"
    options = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "two"]
    options += ["--max-restarts", "2", "--local-addr", "localhost"]
    machines = [torchrun("killed", tmp_path, *options, ranks=3) for _ in range(2)]
    assert [machine.end()[0] for machine in machines] == [0, 0]
    assert began(tmp_path) == ["began0.0", "began0.1", "began4.0", "began4.1"]


@pytest.mark.parametrize(
    ("devices", "restarts", "device", "message"),
    [
        (0, 0, "cpu", "--devices must be 1 or more"),
        (2, -1, "cpu", "--restarts 0 or more; got 2 and -1"),
        (4, 0, "cuda", "has 3 GPUs; start at most 3"),
        (4, 0, "auto", "has 3 GPUs"),
        (2, 0, "cuda:1", "training.device cuda:1 is one device, not 2"),
        (6, 0, "cpu", "memory for 5 processes; start at most so many"),
    ],
)
def test_what_cannot_be_started_is_refused(monkeypatch, devices, restarts, device, message):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("weatherfm.training.ranks.launch.available_memory", lambda: 5 * 400 * 2**20)
    with pytest.raises(InputError, match=message):
        require_devices(devices, restarts, device)
    require_devices(3, 0, "auto")
    require_devices(4, 3, "cpu")


def test_no_launcher_in_a_launcher(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(InputError, match=r"torchrun.* has started 8 already"):
        require_devices(2, 0, "cpu")


def test_what_is_silent_is_noticed_within_half_a_minute():
    """Looks and the time between them, not seconds on a machine that has other work."""
    few, many = (HeartbeatMonitor(dist.HashStore(), 0, ["here"] * ranks, timeout=300.0) for ranks in (200, 1024))
    assert LOOKS * few.every <= 25
    assert many.every > 5  # rarer, where ranks are many
