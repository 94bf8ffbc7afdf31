from __future__ import annotations

import json
import re
import sys

import pytest

from weatherfm.errors import InputError
from weatherfm.training.run_config import WandbConfig
from weatherfm.training.upkeep.metrics_log import MetricsLog, truncate

OFF = WandbConfig(mode="disabled")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_resumed_log_has_no_step_twice(tmp_path):
    with MetricsLog(tmp_path, 0, OFF, {}) as log:
        for step in (10, 20, 30):
            log.write({"step": step, "loss": step / 2})
    with MetricsLog(tmp_path, 20, OFF, {}) as log:
        log.write({"step": 30, "loss": 15.5})
        log.sync()
    assert lines(tmp_path / "metrics.jsonl") == [{"step": s, "loss": v} for s, v in ((10, 5.0), (20, 10.0), (30, 15.5))]


def test_unreadable_lines_stay_and_hide_nothing(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    first, bad, second, later = (
        b'{"step": 10}\n',
        [b"\xff\xfe\n", b"\r\n", b'{"lo": 2}\n'],
        b'{"step": 20}\n',
        b'{"step": 30}\n',
    )
    path.write_bytes(first + b"".join(bad) + second + later)
    assert truncate(path, 20) == 30
    assert path.read_bytes() == first + b"".join(bad) + second
    assert caplog.text.count("3 lines (2, 3, 4) of") == 1
    assert "cannot be read and stay as they are" in caplog.text
    caplog.clear()
    path.write_bytes(first + bad[0] + second + b"\xff")
    assert truncate(path, 100) == 20
    assert path.read_bytes() == first + bad[0] + second
    assert re.search("line 2 of .* cannot be read and stays as it is", caplog.text)


@pytest.mark.parametrize("ending", ['{"step": 20, "lo', '{"step": 20', "\0\0\0\0"])
def test_half_written_line_is_dropped(tmp_path, ending):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "loss": 1.0}\n' + ending)
    assert truncate(path, 100) == 10
    assert lines(path) == [{"step": 10, "loss": 1.0}]


def test_a_last_line_that_lost_its_end_alone_is_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}')
    assert truncate(path, 20) == 20
    assert path.read_text() == '{"step": 10}\n{"step": 20}\n'
    path.write_text('{"step": 10}\n{"step": 20}')
    assert truncate(path, 10) == 20
    assert path.read_text() == '{"step": 10}\n'


def test_numbers_that_are_not_json_are_refused(tmp_path):
    with MetricsLog(tmp_path, 0, OFF, {}) as log, pytest.raises(ValueError, match="JSON"):
        log.write({"step": 1, "loss": float("nan")})


def test_missing_package_matters_only_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setitem(sys.modules, "wandb", None)
    MetricsLog(tmp_path, 0, OFF, {})
    with pytest.raises(InputError, match=r"package is not installed.*offline or disabled"):
        MetricsLog(tmp_path, 0, WandbConfig(mode="online"), {})


def test_offline_without_the_package_goes_on_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with MetricsLog(tmp_path, 0, WandbConfig(), {}) as log:
        log.write({"step": 1, "loss": 0.5})
    assert "wandb is not installed" in caplog.text
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 0.5}


def test_environment_overrides_the_config(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    MetricsLog(tmp_path, 0, WandbConfig(mode="offline"), {})
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(InputError, match="wandb is online"):
        MetricsLog(tmp_path, 0, OFF, {})


class FakeRun:
    def __init__(self, settings):
        self.settings, self.logged, self.exit_code = settings, [], None

    def log(self, record, step):
        self.logged.append((step, record))

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture
def runs(monkeypatch):
    wandb, runs = pytest.importorskip("wandb"), []
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", lambda **settings: runs.append(FakeRun(settings)) or runs[-1])
    return runs


def write(folder, resumed_from, steps, loss_of_last=1.0):
    with MetricsLog(folder, resumed_from, OFF, {"seed": 1}) as log:
        for step in steps:
            log.write({"step": step, "loss": loss_of_last if step == steps[-1] else 1.0})


def test_restart_continues_the_same_wandb_run(tmp_path, runs):
    write(tmp_path, 0, (10, 20))
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path, 10, (20, 30, 40), loss_of_last=float("inf"))
    first, second = runs
    assert first.settings["id"] == second.settings["id"]
    assert first.settings["config"] == {"seed": 1}
    assert first.logged == [(10, {"loss": 1.0}), (20, {"loss": 1.0})]
    assert second.logged == [(30, {"loss": 1.0})]
    assert (first.exit_code, second.exit_code) == (0, 1)


def test_runs_have_their_group_and_name(tmp_path, runs):
    MetricsLog(tmp_path, 0, WandbConfig(group="x", name="x-seed3"), {})
    MetricsLog(tmp_path, 0, OFF, {})
    assert [(run.settings["group"], run.settings["name"]) for run in runs] == [("x", "x-seed3"), (None, None)]


def test_a_line_past_the_end_of_the_run_does_not_silence_wandb(tmp_path, runs):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10}\n{"step": 1000000000000}\n')
    with MetricsLog(tmp_path, 10, OFF, {}, steps=40) as log:
        log.write({"step": 20, "loss": 1.0})
    assert runs[0].logged == [(20, {"loss": 1.0})]


@pytest.mark.slow
def test_offline_wandb_writes_a_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with MetricsLog(tmp_path, 0, OFF, {"seed": 1}) as log:
        log.write({"step": 1, "loss": 1.0, "loss_by_channel": {"z500": 2.0}})
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))


def test_unknown_wandb_mode_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(InputError, match="sometimes"):
        MetricsLog(tmp_path, 0, OFF, {})
