"""Two trainings in one folder: the second is refused, and the first is left alone."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import kill_train
import pytest
import toy_run

from weatherfm.errors import InputError
from weatherfm.file_lock import FileLock, Held
from weatherfm.training.trainer import train
from weatherfm.training.upkeep.run_lock import hold_run

HOLD = """
import signal, sys
from pathlib import Path
from weatherfm.training.upkeep.run_lock import hold_run
with hold_run(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in `tmp_path / "run"`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_training_is_refused_in_one_sentence(tmp_path, holder):
    with pytest.raises(InputError) as caught, hold_run(tmp_path / "run"):
        pass
    host = os.uname().nodename
    assert str(caught.value) == (
        f"{tmp_path / 'run'} is being trained by another process (pid {holder.pid}, host {host}); "
        "wait for it, or choose another run=..."
    )
    with hold_run(tmp_path / "other"):
        pass


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with hold_run(tmp_path / "run"), pytest.raises(Held), FileLock(tmp_path / "run" / ".training.lock"):
        pass
    with hold_run(tmp_path / "run"):  # and is free again behind the block
        pass


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch, caplog):
    def refuse(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold_run(tmp_path / "run"):
        pass
    assert "do not start a second training in it" in caplog.text


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match=r"cannot be written .*Permission denied"), hold_run(tmp_path):
        pass


@pytest.mark.parametrize(
    ("inside", "reason"), [("", "a file of this name is there"), ("run", "Not a directory"), (".training.lock", "")]
)
def test_what_cannot_be_a_folder_is_refused(tmp_path, caplog, inside, reason):
    place = tmp_path / "here"
    if inside == ".training.lock":
        (place / inside).mkdir(parents=True)  # the lock cannot be opened, which is not a file system without locks
        run = place
    else:
        place.write_text("")
        run = place / inside
    with pytest.raises(InputError, match=rf"cannot be written \(.*{reason}.*choose another run="), hold_run(run):
        pass
    assert not caplog.text


def test_nothing_of_a_run_that_is_being_trained_is_touched(tmp_path):
    toy_run.make_store(tmp_path)
    first = kill_train.fork(kill_train.write_config(tmp_path, "run", steps=100000, log_every=1))
    while not kill_train.moves(tmp_path / "run"):
        assert first.is_alive()
        time.sleep(0.02)
    for _ in range(3):
        with pytest.raises(InputError, match=f"being trained by another process .pid {first.pid}, host"):
            train(toy_run.make_run(tmp_path, "run", steps=100000, log_every=1))
    first.terminate()
    first.join(240)
    assert first.exitcode == 75
    steps = [line["step"] for line in kill_train.lines(tmp_path / "run") if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
    assert steps
