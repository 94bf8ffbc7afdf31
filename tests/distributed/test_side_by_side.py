"""Commands side by side: what each writes has its name, each has its part of the machine, and they end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from jobs import alive

from weatherfm.data_pipeline.machine.host_memory import jobs_beside
from weatherfm.errors import STOPPED, InputError
from weatherfm.training.ranks.launch import require_devices
from weatherfm.training.ranks.machine_parts import machine_parts
from weatherfm.training.ranks.side_by_side import run_side_by_side
from weatherfm.training.upkeep.stop_signals import StopSignals

STOPS = """
import pathlib, signal, sys, time
asked = []
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
    signal.signal(number, lambda number, frame: asked.append(number))
pathlib.Path(sys.argv[1]).touch()
while len(asked) < int(sys.argv[2]):
    time.sleep(0.01)
print(*(signal.Signals(number).name for number in asked))
sys.exit(int(sys.argv[3]))
"""
"""Says which signals came, once so many have, and ends with a status."""


def script(text: str, *arguments: object) -> list[str]:
    return [sys.executable, "-S", "-c", text, *map(str, arguments)]


def stops(started: Path, signals: int = 1, status: int = STOPPED) -> list[str]:
    return script(STOPS, started, signals, status)


def run(commands: dict[str, list[str]], at_once: int) -> dict[str, int]:
    with StopSignals() as stop:
        return run_side_by_side(commands, [{}] * at_once, stop)


def send_when(there: list[Path], *numbers: int) -> threading.Thread:
    """To this process, once all files are there; between two signals time for the first to be handed on."""

    def send() -> None:
        while not all(path.exists() for path in there):
            time.sleep(0.01)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.5)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_lines_have_the_name_of_who_wrote_them(capsys):
    text = "import sys; print('weights'); sys.stderr.buffer.write(b'step 1\\n\\nstep \\xff\\nno end')"
    assert run({"seed0": script(text), "seed1": script("print('ü')")}, 2) == {"seed0": 0, "seed1": 0}
    said = capsys.readouterr()
    assert sorted(said.out.splitlines()) == ["seed0: weights", "seed1: ü"]
    assert said.err.splitlines() == ["seed0: step 1", "seed0: ", "seed0: step \ufffd", "seed0: no end"]


def test_much_is_passed_on_whole(capsys):
    text = "for i in range(30000): print(f'{i:06d}' * 3)"
    run({"a": script(text), "b": script(text)}, 2)
    lines = capsys.readouterr().out.splitlines()
    for name in "ab":
        assert [line for line in lines if line[0] == name] == [f"{name}: {f'{i:06d}' * 3}" for i in range(30000)]


def test_each_has_a_part_that_no_other_has(tmp_path):
    """Five take turns on two parts: who runs on one removes its mark in the end, and must have found none."""
    text = """
import os, pathlib, sys, time
mark = pathlib.Path(sys.argv[1]) / os.environ["PART"]
mark.touch(exist_ok=False)
time.sleep(0.05)
mark.unlink()
"""
    commands = {f"seed{i}": script(text, tmp_path) for i in range(5)}
    with StopSignals() as stop:
        statuses = run_side_by_side(commands, [{"PART": "a"}, {"PART": "b"}], stop)
    assert statuses == {f"seed{i}": 0 for i in range(5)}


def test_one_that_fails_stops_the_others_and_what_waits_is_not_begun(tmp_path, capsys, caplog):
    fails = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)\nsys.exit(2)"
    commands = {"seed0": stops(tmp_path / "0"), "seed1": script(fails, tmp_path / "0"), "seed2": script("")}
    assert list(run(commands, 2).items()) == [("seed1", 2), ("seed0", STOPPED)]
    assert "seed1 failed; the others stop with a checkpoint" in caplog.text
    assert capsys.readouterr().out == "seed0: SIGTERM\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda number: number.name)
def test_signals_reach_all_once_and_nothing_is_begun_after(tmp_path, capsys, number):
    there = [tmp_path / str(i) for i in range(2)]
    thread = send_when(there, number)
    commands = {path.name: stops(path) for path in there} | {"waits": script("")}
    assert run(commands, 2) == {"0": STOPPED, "1": STOPPED}
    thread.join()
    assert sorted(capsys.readouterr().out.splitlines()) == [f"0: {number.name}", f"1: {number.name}"]


def test_one_that_does_not_listen_yet_has_stopped_and_one_that_is_done_is_done(tmp_path):
    sleeps = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(300)"
    there = [tmp_path / str(i) for i in range(2)]
    thread = send_when(there, signal.SIGTERM)
    assert run({"0": script(sleeps, there[0]), "1": stops(there[1], status=0)}, 2) == {"0": STOPPED, "1": 0}
    thread.join()


def test_a_killed_one_is_a_failure_and_named(caplog):
    assert run({"seed0": script("import os; os.kill(os.getpid(), 9)"), "seed1": script("")}, 1) == {"seed0": 1}
    assert "seed0 was ended by SIGKILL" in caplog.text


def test_a_second_ctrl_c_reaches_all_and_interrupts(tmp_path, capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread = send_when([tmp_path / "0"], signal.SIGINT, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            run({"0": stops(tmp_path / "0", signals=2, status=130)}, 1)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().out == "0: SIGINT SIGINT\n"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process of its parent's end")
def test_they_do_not_outlive_a_killed_parent(tmp_path):
    parent = """
import sys
from weatherfm.training.ranks.side_by_side import run_side_by_side
from weatherfm.training.upkeep.stop_signals import StopSignals
with StopSignals() as stop:
    run_side_by_side({"0": sys.argv[1:]}, [{}], stop)
"""
    child = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(300)"
    process = subprocess.Popen([sys.executable, "-c", parent, *script(child, tmp_path / "pid")])
    path, end = tmp_path / "pid", time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    while alive(int(path.read_text())):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def machine(monkeypatch):
    """Six GPUs, eight threads."""
    for name in ("RANK", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 6)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    return monkeypatch


def test_gpus_are_dealt_out(machine):
    def gpus(*arguments):
        return [part.get("CUDA_VISIBLE_DEVICES") for part in machine_parts(*arguments)]

    assert gpus(2, 2, "auto") == ["0,1", "2,3"]
    assert gpus(3, 1, "cuda") == ["0", "1", "2"]
    assert gpus(2, 2, "cpu") == [None, None]
    machine.setenv("CUDA_VISIBLE_DEVICES", "7, 3,GPU-8a,1,0,2")
    assert gpus(2, 2, "auto") == ["7,3", "GPU-8a,1"]
    machine.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus(2, 1, "auto") == [None, None]


def test_threads_and_memory_are_shared_out(machine):
    (first, _) = machine_parts(2, 3, "cpu")
    assert first["OMP_NUM_THREADS"] == "1"
    assert machine_parts(2, 2, "cpu")[1]["OMP_NUM_THREADS"] == "2"
    machine.setenv("OMP_NUM_THREADS", "5")
    assert machine_parts(2, 2, "cpu")[1]["OMP_NUM_THREADS"] == "5"
    assert jobs_beside() == 1
    for name, value in first.items():
        machine.setenv(name, value)
    assert jobs_beside() == 2


@pytest.mark.parametrize(
    ("devices", "at_once", "device", "message"),
    [
        (2, 4, "auto", "--devices 2 x --at-once 4, but this machine has 6 GPUs; start at most 6"),
        (1, 2, "cuda:1", "training.device cuda:1 is one device, not 2"),
        (4, 5, "cpu", "--devices 4 x --at-once 5, but this machine has memory for 16 processes"),
    ],
)
def test_more_at_once_than_the_machine_has_is_refused(machine, devices, at_once, device, message):
    machine.setattr("weatherfm.training.ranks.launch.available_memory", lambda: 16 * 400 * 2**20)
    with pytest.raises(InputError, match=message):
        require_devices(devices, 0, device, at_once=at_once)
    require_devices(2, 0, "auto", at_once=3)
    require_devices(4, 0, "cpu", at_once=4)
