"""The command from files to report, as a user types it, and its manners when the input is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from finished_run import go_through
from toy_run import CHANNELS, write_wave_files

from weatherfm.cli import run_command
from weatherfm.outcome import report_errors
from weatherfm.verbs.run import flush, say

LEADS = ["6h", "12h"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with NetCDF files (25 days of travelling waves) and a run file that trains on them in seconds."""
    folder = tmp_path_factory.mktemp("cli")
    write_wave_files(folder)
    run = {
        "run": "run",
        "data": {
            "store": "run/store.zarr",
            "source": {"kind": "files", "paths": ["*.nc"], "levels": {"z": 500, "t": 850}},
            "channels": CHANNELS,
            "train": "2000-01-01/2000-01-16",
            "validation": "2000-01-17/2000-01-19",
            "test": "2000-01-20/2000-01-25",
            "climatology_window": None,
        },
        "model": {"patch_size": 2, "width": 32, "depth": 1, "heads": 2, "drop_path": 0.0},
        "training": {"steps": 300, "batch_size": 8, "lead_times": LEADS, "learning_rate": 1e-2, "device": "cpu"},
        "forecast": {"lead_times": LEADS, "init_every": "6h"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return folder


@pytest.fixture(autouse=True)
def _there(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def finished(folder):
    """The run after all its verbs."""
    go_through(folder)
    return folder / "run"


def fails(capsys, *arguments: str, status: int = 2) -> str:
    """The one message on stderr of a command that must fail."""
    capsys.readouterr()
    assert run_command(list(arguments)) == status
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return re.sub(r"[\s│╭╮╰╯─]+", " ", message)


def test_from_files_to_report(finished, capsys):
    scores = xr.open_dataset(finished / "scores.nc")
    rmse = scores["rmse"].sel(region="global")
    model, persistence = rmse.sel(forecast="model"), rmse.sel(forecast="persistence")
    assert (model < 0.9 * persistence).all()  # waves that only travel are easy
    page = (finished / "report.html").read_text()
    assert "z500" in page
    assert not re.search(r'(src|href)="(https?:)?//', page)  # self-contained
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 300
    assert xr.open_zarr(finished / "forecast.zarr")["geopotential"].dims[0] == "time"


def test_every_verb_done_again_does_no_harm(finished, capsys):
    before = {
        p: p.read_bytes() for p in finished.rglob("*") if p.is_file() and p.name not in ("scores.nc", "report.html")
    }
    for verb in ("prepare", "train", "forecast", "evaluate", "report"):
        assert run_command([verb, "run.yaml"]) == 0
    assert {p: p.read_bytes() for p in before} == before


def test_verbs_work_on_paths_without_the_run_file(finished, capsys):
    store, weights = str(finished / "store.zarr"), str(finished / "weights.safetensors")
    capsys.readouterr()
    output = "again/forecast.zarr"
    arguments = [
        "forecast",
        weights,
        "--store",
        store,
        "--init",
        "2000-01-21/2000-01-23",
        "--lead",
        "6h",
        "--output",
        output,
    ]
    assert run_command(arguments) == 0
    assert run_command(["evaluate", output, "--store", store, "--region", "northern_extratropics"]) == 0
    table = capsys.readouterr().out
    assert "persistence" in table
    assert "northern extratropics" in table.replace("_", " ")
    assert run_command(["report", "again/scores.nc", "--store", store, "--maps"]) == 0
    assert len(os.listdir("again/maps")) == 3
    assert run_command(["verify", store]) == 0
    capsys.readouterr()
    assert run_command(["verify", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_verify_repairs_and_leaves_its_findings_for_the_report(finished, capsys):
    shard = finished / "store.zarr/state/c/0/0/0/0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    assert run_command(["verify", "run.yaml"]) == 1
    assert "--repair` writes these files again from the source" in " ".join(capsys.readouterr().out.split())
    assert run_command(["verify", "run.yaml", "--repair"]) == 0
    assert shard.read_bytes() == whole
    before, now = capsys.readouterr().out.split("DAMAGED")
    assert "0 errors, 0 warnings: sound" in now
    assert "1 errors" in before
    assert json.loads((finished / "verify.json").read_text())["ok"] is True
    shard.unlink()
    assert run_command(["verify", str(finished / "store.zarr"), "--repair"]) == 0  # by the manifest alone
    assert shard.read_bytes() == whole


def test_append_has_nothing_to_add_or_refuses(finished, capsys, caplog):
    with caplog.at_level("INFO"):
        assert run_command(["append", "run.yaml"]) == 0
    assert "has everything already; nothing to do" in caplog.text
    assert run_command(["append", "run.yaml", "data.channel_block=1"]) == 2
    assert "prepared with another channel_block" in capsys.readouterr().err


def test_dry_run_as_json_and_for_a_bandwidth(finished, capsys):
    arguments = ["prepare", "run.yaml", "--dry-run"]
    assert run_command([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reading"]["requests"] > 0
    assert run_command([*arguments, "--bandwidth", "2.5"]) == 0
    assert "at 2.5 MB/s" in capsys.readouterr().out
    for option, message in (("--bandwidth=0", "--bandwidth must be above 0"), ("--memory=-1", "--memory must be")):
        assert run_command([*arguments, option]) == 2
        assert message in capsys.readouterr().err
    assert run_command([*arguments, "--workers", "0"]) == 2
    assert "workers must be 1 or more, got 0" in capsys.readouterr().err


def test_rollout_by_option(finished):
    weights, store = str(finished / "weights.safetensors"), str(finished / "store.zarr")
    arguments = [
        "forecast",
        weights,
        "--store",
        store,
        "--lead",
        "6h",
        "18h",
        "--rollout",
        "6h",
        "--output",
        "roll.zarr",
    ]
    assert run_command(arguments) == 0
    leads = xr.open_zarr("roll.zarr")["prediction_timedelta"].values
    assert (leads == np.array([6, 18], "timedelta64[h]")).all()


def test_check_tells_every_link(finished, capsys):
    assert run_command(["check", "run.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["store", "training", "model", "layout", "forecast", "baselines"]
    assert all(line.startswith("ok") for line in lines)
    assert run_command(["check", "run.yaml", "data.channels=[z500, q700]", "forecast.lead_times=[24h]"]) == 2
    out = capsys.readouterr().out
    assert "PROBLEM training" in out
    assert "q700" in out
    assert "24h" in out
    assert run_command(["check", "run.yaml", "--devices", "3", "parallel.tp=2"]) == 2
    assert "PROBLEM layout" in capsys.readouterr().out


def test_dry_run_moves_nothing(folder, capsys):
    assert run_command(["prepare", "run.yaml", "data.store=dry.zarr", "--dry-run"]) == 0
    assert "shard" in capsys.readouterr().out
    assert not (folder / "dry.zarr").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "run.yaml"], 'Did you mean "train"'),
        (["train"], "requires an argument"),
        (["train", "run.yaml", "--steps", "3"], "Unknown option"),
        (["train", "none.yaml"], "no configuration file none.yaml"),
        (["train", "run.yaml", "training.stpes=3"], r"did you mean training\.steps\?"),
        (["train", "run.yaml", "data.store=nowhere.zarr"], "no store at nowhere.zarr.*weatherfm prepare"),
        (["check", "run.yaml", "data.store=nowhere.zarr", "model.width=6"], "width 6 is not divisible by 4"),
        (["prepare", "run.yaml", "data.store=new.zarr", "data.channels=[q700]"], "holds channel q700"),
        (["prepare", "run.yaml", "data.store=new.zarr", "data.source.paths=[absent/*.nc]"], "absent"),
        (["prepare", "run.yaml", "data.store=new.zarr", "data.train=2000"], "share days"),
        (["verify", "nowhere.zarr"], "no store at nowhere.zarr"),
        (["forecast", "nowhere.safetensors", "--store", "run/store.zarr"], "no weights file"),
        (["forecast", "run/weights.safetensors"], "say where initial states are with --store"),
        (["forecast", "run.yaml", "--lead", "6"], "with its unit"),
        (["forecast", "run.yaml", "--init", "soon", "--output", "x.zarr"], "write days .2018"),
        (["evaluate", "nowhere.zarr", "--store", "run/store.zarr"], "nowhere.zarr"),
        (["evaluate", "run/forecast.zarr"], "say where the truth is with --store"),
        (["evaluate", "run.yaml", "--region", "atlantis"], "atlantis"),
        (["report", "nowhere.nc"], "nowhere.nc"),
        (["report", "run/scores.nc", "--maps"], "say where it is with --store"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_message(finished, capsys, arguments, message):
    assert re.search(message, fails(capsys, *arguments))


def test_a_changed_run_is_refused_and_harms_nothing(finished, capsys):
    weights = (finished / "weights.safetensors").read_bytes()
    assert "learning_rate" in fails(capsys, "train", "run.yaml", "training.learning_rate=1.0e-4")
    assert "channels" in fails(capsys, "prepare", "run.yaml", "data.channels=[z500]")
    assert (finished / "weights.safetensors").read_bytes() == weights


def test_a_damaged_store_is_found(finished, capsys, tmp_path):
    import shutil

    store = tmp_path / "store.zarr"
    shutil.copytree(finished / "store.zarr", store)
    shard = next(p for p in sorted((store / "state" / "c").rglob("*")) if p.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert run_command(["verify", str(store)]) == 1
    assert str(shard.relative_to(store)) in capsys.readouterr().out


def test_an_unexpected_fault_says_so_and_debug_shows_it(capsys, monkeypatch):
    from weatherfm.training import trainer

    def broken(config, stop=None):
        raise RuntimeError("a wheel came off")

    monkeypatch.setattr(trainer, "train", broken)
    assert "fault of weatherfm" in fails(capsys, "train", "run.yaml", status=1)
    with pytest.raises(RuntimeError, match="a wheel came off"):
        run_command(["train", "run.yaml", "--debug"])


@pytest.mark.parametrize("lacking", [MemoryError("1 GiB"), torch.OutOfMemoryError("CUDA out of memory")])
def test_memory_that_is_lacking_is_no_fault_of_ours(capsys, lacking):
    def allocate():
        raise lacking

    assert report_errors(allocate) == 1
    told = capsys.readouterr().err
    assert "memory is lacking: take a smaller training.batch_size or forecast.batch_size, more devices" in told
    assert f"({lacking})" in told
    assert "fault of weatherfm" not in told


def test_the_work_goes_on_where_nobody_reads_what_is_said(monkeypatch):
    """`weatherfm prepare .. | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        for _ in range(3):
            say("a line")
        flush()


def test_the_installed_command_exits_with_the_status(tmp_path):
    command = [sys.executable, "-m", "weatherfm.cli", "verify", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "is not a weatherfm store" in done.stderr


@pytest.mark.parametrize(("sound", "done", "status"), [(True, True, 0), (True, False, 75), (False, True, 1)])
def test_the_demo_goes_no_further_than_what_is_done(monkeypatch, sound, done, status):
    called = []

    def stage(name, result=None):
        monkeypatch.setattr(f"weatherfm.cli.{name}_run", lambda run: called.append(name) or result)

    stage("verify", sound)
    stage("train", done)
    for name in ("prepare", "forecast", "evaluate", "report"):
        stage(name)
    assert run_command(["demo"]) == status
    assert ("train" in called) == sound
    assert ("forecast" in called) == (status == 0)


def test_the_help_names_the_statuses(capsys):
    assert run_command(["--help"]) == 0
    assert "75 training stopped by a signal" in " ".join(capsys.readouterr().out.split())
