"""Weights of a run on files read other files by the run's rules."""

from __future__ import annotations

import numpy as np
import pytest
import toy_run
import xarray as xr
import yaml
from toy_model import make_domain, make_model

import weatherfm
from weatherfm.cli import run_command
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.model.weights import save_weights
from weatherfm.training.checkpoints.export import record_of_run
from weatherfm.training.parts import Part
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.run_start import RunStart

SOURCE = {"kind": "files", "paths": ["/data/*.nc"], "number": 3, "levels": {"z": 500}, "units": {"z": "m2 s-2"}}
RULES = {"levels": {"z": 500}, "units": {"z": "m2 s-2"}}


@pytest.fixture
def vague(tmp_path) -> xr.Dataset:
    """A file that says neither level nor units, as what its run was trained on."""
    grid = make_domain().grid
    field = (("time", "latitude", "longitude"), np.full((1, *grid.shape), 54000.0))
    coordinates = {"latitude": grid.latitude, "longitude": grid.longitude}
    dataset = xr.Dataset({"z": field}, {"time": [np.datetime64("2020-01-01", "ns")], **coordinates})
    dataset.to_netcdf(tmp_path / "vague.nc")
    return dataset


def write(folder, told: dict):
    save_weights(folder / "run" / "weights.safetensors", make_model(make_domain(channels=("z500",))), told)
    return folder / "run" / "weights.safetensors"


def test_rules_are_not_paths():
    assert parse_settings(FilesSource, SOURCE, "test").reading_rules == RULES
    assert parse_settings(FilesSource, {"kind": "files", "paths": ["a"]}, "test").reading_rules == {}


def test_weights_know_the_rules(tmp_path):
    toy_run.make_store(tmp_path)
    plain = toy_run.run_settings(tmp_path)
    store = open_store(tmp_path / "store.zarr")
    from types import SimpleNamespace

    state = SimpleNamespace(progress=SimpleNamespace(step=1, best_loss=None, best_step=None), average=None)

    def provenance() -> dict:
        config = parse_settings(RunConfig, plain, "test")
        part = Part("", 1.0, config, store)
        return record_of_run(RunStart(config, None), [part], state)(config, part)

    assert "source" not in provenance()["settings"]["data"]
    plain["data"]["source"] = SOURCE
    told = provenance()
    assert told["settings"]["data"]["source"] == {"kind": "files", **RULES}


def test_files_and_datasets_are_read_by_them(tmp_path, vague):
    knows = weatherfm.load(write(tmp_path, {"settings": {"data": {"source": {"kind": "files", **RULES}}}}), "cpu")
    for place in (vague, tmp_path / "vague.nc"):
        assert float(weatherfm.forecast(knows, place)["geopotential"].mean()) == pytest.approx(54000, rel=1e-3)
    knows_not = weatherfm.load(write(tmp_path, {}), "cpu")
    with pytest.raises(InputError, match="needs z500"):
        weatherfm.forecast(knows_not, vague)


def test_a_runs_file_counts(tmp_path, vague):
    write(tmp_path, {})
    settings = toy_run.run_settings(tmp_path)
    settings["data"] |= {"source": SOURCE, "channels": ["z500"]}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    status = run_command(["forecast", str(tmp_path / "run.yaml"), "--store", str(tmp_path / "vague.nc")])
    assert status == 0
    assert ForecastFile(tmp_path / "run" / "forecast.zarr").channels == ("z500",)
