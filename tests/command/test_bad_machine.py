"""What a full disk, a missing right, a folder in place of a file and damaged files make of each verb: one message."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
import xarray as xr
from cloud_stores import serving
from finished_run import LONG
from kept_samples import unpack

import weatherfm
from weatherfm.cli import run_command
from weatherfm.data_pipeline.verification import files as verified_files
from weatherfm.errors import InputError
from weatherfm.evaluation.report.data_quality import quality_section
from weatherfm.evaluation.results import scores_file
from weatherfm.file_errors import message_of
from weatherfm.file_lock import hold_output
from weatherfm.model.climax import read_climax_checkpoint


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    return unpack(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(unpacked, tmp_path, monkeypatch) -> Path:
    """A finished run in the working folder."""
    shutil.copytree(unpacked, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return Path("run")


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The findings that each page was to show; nothing is drawn, which takes long."""
    shown: list = []

    def draw(scores, out, *_, quality_json=None, **__):
        shown.append(quality_json)
        Path(out).write_text("page")

    monkeypatch.setattr("weatherfm.evaluation.report_to_file.write_report", draw)
    return shown


def refused(capsys, *arguments: str) -> str:
    capsys.readouterr()
    status = run_command(list(arguments))
    told = " ".join(capsys.readouterr().err.split())
    assert status == 2, told
    assert "fault of weatherfm" not in told
    assert "Traceback" not in told
    assert len(told) < 2000
    return told


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "run.yaml", "--output", f"{LONG}.nc"),
        ("evaluate", f"{LONG}.yaml"),
        ("evaluate", "run.yaml", "--against", LONG),
        ("report", "run/scores.nc", "--output", f"{LONG}.html"),
        ("report", f"{LONG}.nc"),
        ("report", "run.yaml", "--quality", LONG),
        ("verify", LONG),
        ("verify", "run/store.zarr", "--output", LONG),
        ("train", "run.yaml", f"run={LONG}"),
        ("append", "run.yaml", f"data.store={LONG}"),
        ("forecast", "run.yaml", "--output", LONG),
    ],
)
def test_names_that_are_too_long(run, capsys, arguments):
    told = refused(capsys, *arguments)
    assert "File name too long" in told or "no configuration file" in told


@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        ("o", ("evaluate", "run.yaml", "--output", "o")),
        ("o", ("report", "run/scores.nc", "--output", "o")),
        ("o", ("verify", "run/store.zarr", "--output", "o")),
        ("o", ("train", "o")),
        ("run/weights.safetensors", ("forecast", "run.yaml", "--output", "new.zarr")),
        ("run/scores.nc", ("report", "run.yaml")),
    ],
)
def test_a_folder_where_a_file_is_meant(run, capsys, place, arguments):
    Path(place).unlink(missing_ok=True)
    Path(place).mkdir()
    refused(capsys, *arguments)


def test_a_file_where_a_folder_is_meant(run, capsys):
    assert "run.yaml" in refused(capsys, "evaluate", "run.yaml", "--output", "run.yaml/scores.nc")
    refused(capsys, "train", "run.yaml", "run=run.yaml")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize(
    ("where", "arguments"),
    [
        ("weatherfm.evaluation.report_to_file.write_report", ("report", "run/scores.nc")),
        ("weatherfm.evaluation.evaluate_to_file.write_scores", ("evaluate", "run.yaml")),
        ("weatherfm.evaluation.forecasts.writer.begin_progress", ("forecast", "run.yaml", "--output", "new.zarr")),
    ],
)
def test_a_disk_that_fails_ends_a_verb_with_one_message(run, capsys, monkeypatch, where, arguments, code):
    def failing(*_, **__):
        raise OSError(code, os.strerror(code), "somewhere/file")

    monkeypatch.setattr(where, failing)
    told = refused(capsys, *arguments)
    assert os.strerror(code) in told
    assert "somewhere/file" in told


def test_scores_on_a_full_disk_name_their_file(run, monkeypatch, tmp_path):
    """The library says: NetCDF: HDF error."""
    scores = weatherfm.open_scores("run/scores.nc")

    def failing(self, path, **_):
        Path(path).write_bytes(b"half")
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr("xarray.Dataset.to_netcdf", failing)
    with pytest.raises(InputError, match=r"new\.nc cannot be written"):
        scores_file.write_scores(scores, tmp_path / "new.nc")
    assert not list(tmp_path.glob("*new.nc*"))


def test_which_errors_are_about_files():
    assert message_of(OSError(errno.EACCES, "x")) is None  # of what, nobody knows
    assert message_of(ConnectionResetError(errno.ECONNRESET, "x")) is None
    assert "disk is full" in str(message_of(OSError(errno.ENOSPC, "x")))
    assert "there/b:" in str(message_of(OSError(errno.EACCES, "x", "a", None, "there/b")))
    assert len(str(message_of(OSError(errno.ENAMETOOLONG, "x", "y" * 10**6)))) < 400


# Damaged files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 8, None])
def test_damaged_scores(run, capsys, content):
    file = run / "scores.nc"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert "scores.nc" in refused(capsys, "report", "run.yaml")


@pytest.mark.parametrize(
    "text", ['{"format": "weatherfm verify 1"', '{"format": "weatherfm verify 1", "identity": "x"}', "[1]"]
)
def test_findings_nobody_asked_for_are_left_out_with_a_note(run, capsys, caplog, drawn, text):
    (run / "verify.json").write_text(text)
    assert run_command(["report", "run.yaml"]) == 0
    assert drawn == [None]
    assert "left out of the page" in caplog.text
    with pytest.raises(InputError, match=r"verify\.json is (damaged|no file of|about another)"):
        quality_section("run/verify.json", weatherfm.open_scores("run/scores.nc"))


def test_findings_that_are_a_pipe_hang_nobody(run, caplog, drawn):
    os.mkfifo(run / "verify.json")
    assert run_command(["report", "run.yaml"]) == 0
    assert drawn == [None]
    assert "left out of the page" in caplog.text


def test_a_pipe_in_a_forecast_or_a_store_hangs_nobody(run, capsys):
    chunk = next(path for path in (run / "forecast.zarr/geopotential/c").rglob("*") if path.is_file())
    chunk.unlink()
    os.mkfifo(chunk)
    assert "is a pipe or a device" in refused(capsys, "evaluate", "run.yaml")
    (run / "store.zarr/sources.json").unlink()
    os.mkfifo(run / "store.zarr/sources.json")
    assert not weatherfm.verify(run / "store.zarr").ok


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": [1]}, torch.zeros(3), {1: torch.zeros(3)}])
def test_checkpoints_that_hold_no_tensors_by_name(tmp_path, content):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"x\.ckpt (holds|cannot be read)"):
        read_climax_checkpoint(tmp_path / "x.ckpt")


def test_verify_goes_on_after_files_that_cannot_be_read(run, monkeypatch):
    real = verified_files.file_checksum

    def failing(path: Path) -> str:
        if path.parent.parent.name == "mean":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        if path.name == "zarr.json" and path.parent.name == "std":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(verified_files, "file_checksum", failing)
    (run / "store.zarr/hour/c/0").write_bytes(b"0" * 32)
    found = weatherfm.verify(run / "store.zarr")
    told = {problem.files[0]: problem.message for problem in found.problems if problem.files}
    assert told["mean/c/0"] == "mean/c/0 cannot be read (Permission denied)"
    assert told["std/zarr.json"] == "std/zarr.json cannot be read (Input/output error)"
    assert told["hour/c/0"] == "hour/c/0 has a wrong checksum"


def test_a_run_has_a_name(run, capsys):
    for text in ('run=""', "run=' '"):
        assert "run" in refused(capsys, "train", "run.yaml", text)


@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/x", "run.yaml/x"])
def test_check_says_that_a_run_has_no_place(run, capsys, place):
    """`train` refused it behind a `check` that said all was well."""
    assert f"{place} cannot be written" in refused(capsys, "train", "run.yaml", f"run={place}")
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert run_command(["check", "run.yaml", f"run={place}"]) == 2
    told = capsys.readouterr()
    assert f"{place} cannot be written" in told.out + told.err
    assert run_command(["check", "run.yaml", "run=new/place"]) == 0
    assert sorted(Path().rglob("*")) == before


# Two at once ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "arguments"),
    [
        ("s.nc", ("evaluate", "run.yaml", "--output", "s.nc")),
        ("r.html", ("report", "run.yaml", "--output", "r.html")),
        ("f.zarr", ("forecast", "run.yaml", "--output", "f.zarr")),
    ],
)
def test_the_second_with_one_output_is_refused(run, capsys, drawn, output, arguments):
    """Two evaluations wrote each other's parts; one failed, or both left a file that nobody could open."""
    with hold_output(Path(output)):
        told = refused(capsys, *arguments)
    assert f"{output} is being written by another process (pid {os.getpid()}, host" in told
    assert not Path(output).exists()
    assert run_command(list(arguments)) == 0
    assert not list(Path().glob(f".{output}*"))


def test_scores_are_called_after_their_forecast(run, monkeypatch):
    """Scores of every forecast in a folder went to one scores.nc."""
    for name in ("pangu", "hres", "a=b"):
        shutil.copytree(run / "forecast.zarr", run / f"{name}.zarr")
        assert run_command(["evaluate", str(run / f"{name}.zarr"), "--store", str(run / "store.zarr")]) == 0
        assert (run / f"{name}.scores.nc").is_file()
    for own in (run / "forecast.zarr", run / "scores.nc"):
        own.rename(own.with_name(f"other.{own.name}"))  # `report` looked for this one and took none
    shown = []
    draw = "weatherfm.evaluation.report_to_file.write_report"
    monkeypatch.setattr(draw, lambda scores, out, forecast, *_, **__: (shown.append(forecast), out.write_text("page")))
    assert run_command(["report", str(run / "pangu.scores.nc"), "--store", str(run / "store.zarr")]) == 0
    assert shown[0].path == run / "pangu.zarr"
    for own in (run / "forecast.zarr", run / "scores.nc"):
        own.with_name(f"other.{own.name}").rename(own)
    assert (run / "pangu.report.html").is_file()
    assert not (run / "report.html").exists()
    before = (run / "scores.nc").read_bytes()
    assert run_command(["evaluate", str(run / "forecast.zarr"), "--store", str(run / "store.zarr")]) == 0
    assert (run / "scores.nc").read_bytes() != before


def test_what_is_no_file_of_scores_is_not_replaced_by_one(run, capsys, drawn):
    """It may be what the store was made of."""
    fields = xr.Dataset({"t2m": ("time", [280.0])})
    fields.to_netcdf("fields.nc")
    told = refused(capsys, "evaluate", "run.yaml", "--output", "fields.nc")
    assert "fields.nc is there already and holds no readable scores" in told
    xr.testing.assert_identical(xr.load_dataset("fields.nc"), fields)


def test_a_report_shows_maps_of_a_forecast_at_an_address(run, capsys, monkeypatch):
    """`Path` made `http:/` of it, and nothing was there."""
    shown: list = []
    draw = "weatherfm.evaluation.report_to_file.write_report"
    monkeypatch.setattr(draw, lambda scores, out, forecast, *_, **__: shown.append(forecast))
    with serving(Path.cwd() / "run") as server:
        address = f"{server.address}/forecast.zarr"
        said = ["report", "run/scores.nc", "--forecast", address]
        assert "need the truth; say where it is with --store" in refused(capsys, *said)
        assert run_command([*said, "--store", "run/store.zarr"]) == 0
        assert shown[0].path == address
        store = f"{server.address}/store.zarr"
        assert "stores are read from folders; copy it" in refused(capsys, *said, "--store", store)
