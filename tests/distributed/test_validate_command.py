"""`weatherfm validate` on several ranks, as a user types it; and where one of them does something wrong."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import toy_run
import yaml
from jobs import LAUNCH, Job, start

import weatherfm
from weatherfm.errors import OutsideError
from weatherfm.face import validation
from weatherfm.training.validating.table import PHASES, of_dict, to_text

COMMAND = [sys.executable, "-m", "weatherfm.cli", "validate"]
LIAR = str(Path(__file__).with_name("lying_rank.py"))
HOST = os.uname().nodename


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A store, and a folder of a run in which something lies already."""
    folder = tmp_path_factory.mktemp("validate")
    toy_run.make_store(folder)
    (folder / "run").mkdir()
    (folder / "run" / "metrics.jsonl").write_text("of a training\n")
    return folder


def config(folder: Path, **parallel) -> str:
    """Of a run without a validation period, which draws channels and drops weights at random."""
    settings = toy_run.run_settings(folder, channel_sampling=0.7)
    settings["model"] |= {"depth": 1, "drop_path": 0.2}
    settings["parallel"] = {"tp": 2} | parallel
    path = folder / f"{len(list(folder.glob('*.yaml')))}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def with_liar(fault: str, path: str) -> Job:
    """Two ranks, started as `--devices 2` does it."""
    return start([sys.executable, "-c", LAUNCH, "2", "0", LIAR, fault, "validate", path], 2)


def contents(folder: Path) -> list[str]:
    """All that lies in the run's folder and beside it, but for the store's own and settings."""
    found = [path for path in folder.rglob("*") if "store.zarr" not in path.parts and path.suffix != ".yaml"]
    return sorted(str(path.relative_to(folder)) for path in found)


def test_two_ranks_hold_what_was_planned_and_compute_what_one_does(folder, tmp_path):
    before, written = contents(folder), tmp_path / "validation.json"
    status, lines = start([*COMMAND, config(folder), "--devices", "2", "--output", str(written)], 2).end()
    assert status == 0, lines
    assert contents(folder) == before
    assert (folder / "run" / "metrics.jsonl").read_text() == "of a training\n"
    found = of_dict(json.loads(written.read_text()))
    assert found.ok
    assert (found.layout, found.devices) == ("tp2", 2)
    assert {row.phase for row in found.rows} == set(found.seconds) == set(PHASES)
    text = "\n".join(lines)
    assert to_text(found) in text  # once the ranks are done, by the process that started them
    assert text.count("all 12 checks hold") == 1
    figures = {row.check: row.value for row in found.rows if row.ok is None}
    assert figures["samples a second"] == pytest.approx(4 / figures["a step"])  # a batch of four
    assert 0 < figures["model FLOPs utilisation"] < 1
    assert 0 <= figures["waiting for data"] < 1
    assert figures["sent a step"] > 0


@pytest.mark.slow
def test_under_torchrun_the_first_rank_tells(folder):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "weatherfm.cli"]
    status, lines = start([*command, "validate", config(folder), "--json"], 2).end()
    assert status == 0, lines
    told = json.loads("\n".join(lines[lines.index("{") : lines.index("}") + 1]))
    assert told["ok"]


def test_a_rank_that_lies_is_told_with_status_1(folder):
    before = contents(folder)
    status, lines = with_liar("skip", config(folder)).end()
    assert status == 1
    (line,) = [line for line in lines if "weights after a step, float64" in line]
    assert re.search(r"on rank 1, .* FAILED$", line)
    assert any(re.match(r"\d+ of 12 checks FAILED", line) for line in lines)
    assert contents(folder) == before


def test_a_rank_that_dies_is_named(folder):
    status, lines = with_liar("die", config(folder)).end()
    assert status == 1
    assert sum(f"no answer from rank 1 ({HOST})" in line for line in lines) == 1, lines


def test_a_rank_that_hangs_is_named(folder):
    status, lines = with_liar("hang", config(folder, timeout=10.0)).end()
    assert status == 1
    assert sum(f"no answer from rank 1 ({HOST})" in line for line in lines) == 1, lines


@pytest.mark.slow
def test_what_fails_late_leaves_no_folder_behind(folder, monkeypatch, capfd):
    """Rank 0 is ended by the launcher, which knows its folder."""
    before = contents(folder)
    command = [sys.executable, LIAR, "fail_late", "validate"]
    monkeypatch.setattr(validation, "verb_command", lambda verb, arguments: [*command, *arguments])
    for name in ("OMP_NUM_THREADS", "TORCHELASTIC_SIGNALS_TO_HANDLE"):  # which `launch` sets
        monkeypatch.setenv(name, os.environ.get(name, ""))
    with pytest.raises(OutsideError, match="validation on several processes failed with status 1"):
        weatherfm.validate(config(folder), devices=2)
    assert "unexpected RuntimeError: a wheel came off" in capfd.readouterr().err
    assert contents(folder) == before


def test_what_cannot_work_is_refused(folder):
    status, lines = start([*COMMAND, config(folder, tp=3), "--devices", "3"], 3).end()
    assert status == 2
    assert sum("tp 3 does not divide model.heads 2" in line for line in lines) == 1
