"""What the command does, from Python: the same words, the same results, errors that say what to do."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from contextlib import chdir
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from finished_run import go_through
from places import ROOT
from toy_run import write_wave_files

import weatherfm
from weatherfm import cli
from weatherfm.errors import OutsideError
from weatherfm.face.launching import require_done
from weatherfm.face.runs import on_command_line, settings_of
from weatherfm.training.run_config import RunConfig

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SETTINGS = {
    "run": "run",
    "data": {
        "store": "run/store.zarr",
        "source": {"kind": "files", "paths": ["*.nc"], "levels": {"z": 500}},
        "channels": ["z500", "u10"],
        "train": "2000-01-01/2000-01-16",
        "validation": "2000-01-17/2000-01-19",
        "test": "2000-01-20/2000-01-25",
        "climatology_window": None,
    },
    "model": {"patch_size": 2, "width": 16, "depth": 1, "heads": 2},
    "training": {"steps": 6, "batch_size": 4, "lead_times": ["6h", "12h"], "validate_every": 3, "device": "cpu"},
    "forecast": {"lead_times": ["6h", "12h"], "device": "cpu"},
    "evaluation": {},
}
COMMANDS = {verb.__name__: verb for verb in cli._VERBS if verb.__name__ != "demo"}  # which is the others in a row
WRITES = {"forecast": "write_forecast", "reconstruct": "write_reconstruction"}
"""Verbs whose names are those of functions in memory."""
FUNCTIONS = {name: getattr(weatherfm, WRITES.get(name, name)) for name in COMMANDS}
PUBLIC = [name for name in weatherfm.__all__ if inspect.isfunction(getattr(weatherfm, name))]
SHOWING = {"json", "bandwidth", "quiet"}
"""Options of how the command shows its answer."""
PYTHONS_OWN = {"stop", "before_repair"}
"""Options that no command line can give: objects of the program."""


def write_files(folder: Path) -> Path:
    """25 days of waves that travel, and a run on them."""
    folder.mkdir(parents=True)
    write_wave_files(folder, ("z500", "u10"))
    for path in folder.glob("*.nc"):
        os.utime(path, (1e9, 1e9))  # which a store remembers of its files
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


@pytest.fixture(scope="module")
def by_command(tmp_path_factory):
    """The folder of a run that the command went through."""
    folder = write_files(tmp_path_factory.mktemp("command") / "work")
    go_through(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the functions gave, from a dict, a YAML file and checked settings."""
    folder = write_files(tmp_path_factory.mktemp("python") / "work")
    with chdir(folder):
        run = weatherfm.read_run("run.yaml")
        return {
            "folder": folder,
            "prepare": weatherfm.prepare(SETTINGS),
            "train": weatherfm.train("run.yaml"),
            "forecast": weatherfm.write_forecast(run),
            "evaluate": weatherfm.evaluate(run),
            "report": weatherfm.report(Path("run.yaml")),
        }


@pytest.fixture
def there(made, monkeypatch):
    """In the folder that the functions have made."""
    monkeypatch.chdir(made["folder"])
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def words_of(function) -> set[str]:
    """Options by name, those of a plan's machine and training, and of cases to score, each by itself."""
    found = set()
    for name, parameter in inspect.signature(function, eval_str=False).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        if name in ("machine", "training"):
            from weatherfm.training.plan import machine

            found |= {field.name for field in fields(getattr(machine, name.title()))}
        elif name == "some":
            from weatherfm.verbs.results import Some

            found |= {field.name for field in fields(Some)}
        else:
            found.add(name)
    return found


def test_only_what_is_asked_for_is_imported():
    """Modules are counted, for seconds depend on what else a machine does."""
    code = """
import json, sys
import weatherfm
before = len([m for m in sys.modules if m.startswith("weatherfm")])
assert set(weatherfm.__all__) <= set(dir(weatherfm))
weatherfm.InputError, weatherfm.read_run
print(json.dumps([before, sorted({m.split(".")[0] for m in sys.modules})]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    before, modules = json.loads(done.stdout)
    assert before == 1
    assert not {"torch", "xarray", "numpy", "zarr", "dask", "matplotlib", "cyclopts"} & set(modules)


def test_training_needs_no_data_stack():
    code = """
import sys
import weatherfm
weatherfm.train, weatherfm.plan, weatherfm.check, weatherfm.write_forecast, weatherfm.open_store, weatherfm.load
print(*{m.split(".")[0] for m in sys.modules} & {"xarray", "zarr", "dask", "netCDF4", "matplotlib", "cyclopts"})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", PUBLIC)
def test_every_function_is_typed_and_told(name):
    function = getattr(weatherfm, name)
    signature, doc = inspect.signature(function), inspect.getdoc(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
        assert f"    {parameter.name}: " in doc, parameter
    for section in ("Args:", "Returns:", "Raises:", "InputError: "):
        assert section in doc
    example = [line for line in doc.split("Args:")[0].splitlines() if line.startswith("    ")]
    assert any("weatherfm." in line for line in example)
    for line in example:
        compile(line.strip(), name, "exec")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_function_takes_the_words_of_its_verb(name):
    assert words_of(COMMANDS[name]) - SHOWING == words_of(FUNCTIONS[name]) - PYTHONS_OWN


def test_every_public_name_is_in_one_list():
    assert sorted(weatherfm._PLACES) == sorted(set(weatherfm.__all__) - {"__version__"})
    assert set(FUNCTIONS.values()) <= {getattr(weatherfm, name) for name in PUBLIC}


def test_functions_make_what_the_command_makes(made, by_command):
    """To the last byte; speeds stand in the metrics, and only there."""
    ours, theirs = contents(made["folder"]), contents(by_command)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == ["run/metrics.jsonl"]


def test_what_is_returned(there):
    assert there["prepare"].path == Path("run/store.zarr").resolve()
    trained = there["train"]
    assert (trained.steps, trained.stopped_by, trained.resumed_from) == (6, None, 0)
    assert (trained.weights, trained.metrics) == (Path("run/weights.safetensors"), Path("run/metrics.jsonl"))
    assert set(trained.validation["rmse"]) == {"z500", "u10"}
    assert trained.best_loss <= trained.validation["loss"]
    assert there["forecast"] == Path("run/forecast.zarr")
    assert there["report"] == (Path("run/report.html"), ())
    xr.testing.assert_identical(there["evaluate"], weatherfm.open_scores("run/scores.nc"))


def test_a_forecast_on_disk_opens_as_one_in_memory(there):
    on_disk = weatherfm.open_forecast("run/forecast.zarr")
    model = weatherfm.load("run/weights.safetensors", device="cpu")
    inits = on_disk["init_time"].values
    in_memory = weatherfm.forecast(model, there["prepare"], ["6h", "12h"], inits)
    assert set(in_memory.data_vars) == set(on_disk.data_vars)
    for name, field in in_memory.data_vars.items():
        np.testing.assert_array_equal(on_disk[name].transpose(*field.dims), field)
        assert on_disk[name].attrs["units"] == field.attrs["units"]
    for name in ("init_time", "lead_time", "valid_time", "latitude", "longitude", "level"):
        np.testing.assert_array_equal(on_disk[name], in_memory[name])


def test_options_of_evaluation_and_report(there, tmp_path):
    scores = weatherfm.evaluate(
        "run/forecast.zarr",
        {"evaluation.spectra": False},
        store=there["prepare"],
        region="northern_extratropics",
        by="month",
        event=["u10 > 3"],
        output=tmp_path / "scores.nc",
    )
    assert list(scores["region"].values) == ["northern_extratropics"]
    assert scores.sizes["period"] == 2  # all of it, and January
    assert list(scores["event"].values) == ["u10 > 3"]
    written = weatherfm.report(
        tmp_path / "scores.nc",
        store="run/store.zarr",
        forecast="run/forecast.zarr",
        maps=True,
        output=tmp_path / "r.html",
    )
    assert written.page.read_text().startswith("<!")
    assert len(written.maps) == 4  # two channels at two lead times
    assert all(path.is_file() for path in written.maps)


def test_verify_tells_and_repairs(there, capsys):
    shard = Path("run/store.zarr/state/c/0/0/0/0")
    whole = shard.read_bytes()
    assert weatherfm.verify(there["prepare"]).ok
    shard.write_bytes(whole[:-9])
    before = []
    findings = weatherfm.verify("run.yaml", repair=True, before_repair=before.append)
    assert [one.ok for one in before] == [False]
    assert findings.ok
    assert shard.read_bytes() == whole
    assert json.loads(Path("run/verify.json").read_text())["ok"]
    Path("run/verify.json").unlink()
    assert capsys.readouterr().out == ""  # a function says nothing: it returns


def test_plans_and_checks(there, monkeypatch):
    """In this process: others would begin by running the caller's whole script again."""
    monkeypatch.setattr("weatherfm.training.plan.candidates.ProcessPoolExecutor", None)
    assert [finding.ok for finding in weatherfm.check("run.yaml")] == [True] * 6
    plan = weatherfm.prepare(SETTINGS, {"data.store": "other.zarr"}, dry_run=True)
    assert plan.shards == there["prepare"].manifest["times"]["count"] // 20
    assert not Path("other.zarr").exists()
    plan = weatherfm.plan("run.yaml", devices=1, memory=16)
    assert plan.recommended.choice.layout.devices == 1
    assert weatherfm.append("run.yaml").path == there["prepare"].path


def test_processes_of_its_own_train_a_dict(there, capfd):
    """They go on from the checkpoint of the last step, and so have nothing to do."""
    trained = weatherfm.train(SETTINGS, devices=1)
    assert (trained.steps, trained.stopped_by, trained.resumed_from) == (6, None, None)
    assert trained.validation == there["train"].validation
    assert trained.weights.is_file()
    with pytest.raises(weatherfm.InputError, match="training on several processes was refused"):
        weatherfm.train(SETTINGS, {"training.learning_rate": 1e-4}, devices=1)
    assert "learning_rate" in capfd.readouterr().err


def test_settings_in_every_form(there):
    run = weatherfm.read_run("run.yaml", "model.depth=2", "training.lead_times=[6h]")
    for config in ("run.yaml", Path("run.yaml"), SETTINGS, weatherfm.read_run(SETTINGS)):
        assert weatherfm.read_run(config, {"model.depth": 2, "training.lead_times": ("6h",)}) == run
    assert SETTINGS["model"]["depth"] == 1
    assert weatherfm.read_run(run) is run
    assert weatherfm.read_run(SETTINGS, {"run": Path("elsewhere")}).run == "elsewhere"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_checked_settings_can_be_changed(path):
    run = weatherfm.read_run(path)
    assert weatherfm.read_run(run, "training.seed=77") == weatherfm.read_run(path, "training.seed=77")
    assert RunConfig.model_validate(settings_of(run)) == run


def test_keys_stay_in_changed_settings_and_off_command_lines(there):
    key = {"token": "s3cr3t"}
    run = weatherfm.read_run(SETTINGS, {"forecast.storage_options": key, "data.source.storage_options": key})
    changed = weatherfm.read_run(run, "training.steps=3")
    assert changed.forecast.storage_options == changed.data.source.storage_options == key
    with on_command_line(run, ["training.steps=3"]) as arguments:
        path = Path(arguments[0])
        assert len(arguments) == 1
        assert path.parent.stat().st_mode & 0o077 == 0
        assert weatherfm.read_run(path) == changed
        assert weatherfm.read_run(path).forecast.storage_options == key
    assert not path.exists()
    with (
        pytest.raises(weatherfm.InputError, match="would stand on the command line"),
        on_command_line("w.safetensors", [{"forecast.storage_options": key}]),
    ):
        pass


def test_what_processes_of_their_own_are_told():
    with on_command_line("run.yaml", ["model.depth=2"]) as arguments:
        assert arguments == ["run.yaml", "model.depth=2"]
    given = {"forecast.precision": "float32", "forecast.batch_size": 4, "forecast.lead_times": ["6h", "12h"]}
    with on_command_line(Path("w.safetensors"), [given]) as arguments:
        assert arguments[0] == "w.safetensors"
        assert [yaml.safe_load(text.partition("=")[2]) for text in arguments[1:]] == list(given.values())


@pytest.mark.parametrize(
    ("status", "error"),
    [(1, OutsideError), (2, weatherfm.InputError), (130, KeyboardInterrupt), (143, OutsideError)],
    ids=["fault", "input", "interrupted", "killed"],
)
def test_how_processes_ended(status, error):
    require_done(0, "training")
    with pytest.raises(error, match="training"):
        require_done(status, "training")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weatherfm.prepare("none.yaml"), "no configuration file none.yaml"),
        (lambda: weatherfm.prepare(7), "a run is a YAML file, a dict or settings of weatherfm.read_run, got int 7"),
        (lambda: weatherfm.prepare({"run": "x"}), "settings: data is missing"),
        (lambda: weatherfm.prepare("run.yaml", memory=-1), "memory must be above 0"),
        (lambda: weatherfm.train("run.yaml", "training.stpes=3"), r"did you mean training\.steps\?"),
        (lambda: weatherfm.train("run.yaml", {"training": {"steps": 3}}), "name its settings one by one"),
        (lambda: weatherfm.train("run.yaml", 3), "cannot read the override 3"),
        (lambda: weatherfm.train("run.yaml", devices=0), "--devices must be 1 or more"),
        (lambda: weatherfm.train("run.yaml", {"training.lead_times": [6]}), "with its unit"),
        (lambda: weatherfm.plan("run.yaml", devices=0, memory=1), "--devices must be positive"),
        (lambda: weatherfm.check({}), "is missing"),
        (lambda: weatherfm.verify("nowhere.zarr"), "no store at nowhere.zarr"),
        (lambda: weatherfm.verify(3), "a store is a folder"),
        (lambda: weatherfm.append("run.yaml", "data.channel_block=1"), "prepared with another channel_block"),
        (lambda: weatherfm.write_forecast("w.safetensors"), "say where initial states are"),
        (lambda: weatherfm.write_forecast(object()), "a forecast is made from a run or a weights file"),
        (lambda: weatherfm.write_forecast("run.yaml", lead=6), "with its unit"),
        (lambda: weatherfm.write_forecast("run.yaml", rollout=6), "with its unit"),
        (lambda: weatherfm.write_forecast("run.yaml", lead=[]), "--lead has no value"),
        (lambda: weatherfm.evaluate("run/forecast.zarr"), "say where the truth is"),
        (lambda: weatherfm.evaluate(xr.Dataset(), store="run/store.zarr"), "write it with to_zarr"),
        (lambda: weatherfm.evaluate("run.yaml", region="atlantis"), "atlantis"),
        (lambda: weatherfm.report("nowhere.nc"), "no scores nowhere.nc"),
        (lambda: weatherfm.report(["scores.nc"]), "a report is of a run or a scores file, got list"),
        (lambda: weatherfm.report("run.yaml", case="soon"), "is no date"),
        (lambda: weatherfm.open_forecast("nowhere.zarr"), "no forecast nowhere.zarr"),
        (lambda: weatherfm.open_forecast("run/store.zarr"), "an analysis is no forecast"),
        (lambda: weatherfm.open_scores("nowhere.nc"), "no scores nowhere.nc"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_message(there, call, message):
    with pytest.raises(weatherfm.InputError, match=message) as told:
        call()
    assert not isinstance(told.value, SystemExit)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weatherfm.load(None), "a path is expected, got NoneType"),
        (lambda: weatherfm.open_store(3), "a path is expected, got int"),
        (lambda: weatherfm.open_store(xr.Dataset()), "a path is expected, got Dataset"),
        (lambda: weatherfm.open_forecast(None), "a forecast is a path or an address, got NoneType"),
        (lambda: weatherfm.open_scores(" "), "a scores file is a path or an address, got ' '"),
        (lambda: weatherfm.evaluate("run.yaml", store=3), "store is a path or an address, got int 3"),
        (lambda: weatherfm.evaluate("run.yaml", against=3), "against is a text or a list of texts, got int 3"),
        (lambda: weatherfm.evaluate("run.yaml", against=[None]), "against is a path or an address, got NoneType"),
        (lambda: weatherfm.evaluate("run.yaml", region=5), "region is a text or a list"),
        (lambda: weatherfm.evaluate("run.yaml", workers=0), "workers must be 1 or more, got 0"),
        (lambda: weatherfm.evaluate("run.yaml", workers="x"), "workers must be a whole number, got str 'x'"),
        (lambda: weatherfm.evaluate("run.yaml", output="run"), "output run is a folder; name a file in it"),
        (lambda: weatherfm.report("run.yaml", output="run"), "output run is a folder; name a file in it"),
        (lambda: weatherfm.report("run.yaml", quality="run"), "quality run is a folder"),
        (lambda: weatherfm.report("run.yaml", case=7), "case is a text or a list of texts, got int 7"),
        (lambda: weatherfm.verify("run/store.zarr", output="run"), "output run is a folder"),
        (lambda: weatherfm.verify("run/store.zarr", workers=0), "workers must be 1 or more, got 0"),
        (lambda: weatherfm.verify("run/store.zarr", sample=True), "sample must be a whole number, got bool True"),
        (lambda: weatherfm.prepare("run.yaml", scheduler=5), "scheduler is an address .* got int 5"),
        (lambda: weatherfm.prepare("run.yaml", memory="2"), "memory must be a number, got str '2'"),
        (lambda: weatherfm.train("run.yaml", {1: 2}), "a setting is named by text"),
        (lambda: weatherfm.train("run.yaml", restarts=3), "say how many with devices"),
        (lambda: weatherfm.train("run.yaml", devices="two"), "must be a whole number, got str 'two'"),
        (lambda: weatherfm.write_forecast("run.yaml", store=3), "store is a path or an address, got int 3"),
        (lambda: weatherfm.plan("run.yaml", devices=2, memory=80, jobs=0), "jobs must be 1 or more, got 0"),
        (lambda: weatherfm.read_run("run/scores.nc"), "run/scores.nc is no text in UTF-8"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_what_is_none_of_its_kind_is_refused_before_the_work(there, call, message):
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    with pytest.raises(weatherfm.InputError, match=message):
        call()
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_nothing_listed_is_nothing(there):
    assert weatherfm.evaluate("run.yaml", against=None, region=None, workers=np.int64(2)).sizes["lead_time"] == 2


def test_a_file_in_another_encoding_is_no_fault_of_ours(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes("run: x # Zürich".encode("latin-1"))
    with pytest.raises(weatherfm.InputError, match=r"no text in UTF-8 \(invalid .* at byte 10\)"):
        weatherfm.read_run(path)
