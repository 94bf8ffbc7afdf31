"""Weights named as members: trainings by seed that are not finished, copies, and a run that has none itself."""

from __future__ import annotations

import shutil

import member_weights
import numpy as np
import pytest
import toy_run
from member_weights import fields

import weatherfm
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasting.weights_files import absent_members, member_files
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.model.weights import weights_hash


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    member_weights.make_weights(folder, ("noisy", "plain", "early"))
    return folder


def test_seeds_that_are_not_finished_are_no_smaller_ensemble(tmp_path):
    for seed in range(3):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}/weights.safetensors").touch()
    (tmp_path / "seed1/weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"seed1 has no weights\.safetensors yet, beside seeds that have"):
        member_files([str(tmp_path)])
    assert absent_members([str(tmp_path)]) == [str(tmp_path)]
    assert len(member_files([str(tmp_path / "*/weights.safetensors")])) == 2
    (tmp_path / "weights.safetensors").touch()  # its own are the member, whatever its seeds are
    assert member_files([str(tmp_path)]) == [tmp_path / "weights.safetensors"]
    assert absent_members([str(tmp_path)]) == []


def test_a_run_of_seeds_alone_says_what_to_name(folder, tmp_path):
    (tmp_path / "seed4").mkdir()
    shutil.copy(folder / "noisy.safetensors", tmp_path / "seed4/weights.safetensors")
    settings = toy_run.run_settings(folder, str(tmp_path))
    for members in (None, 4):
        with pytest.raises(
            InputError, match=r"1 of trainings by seed; forecast with all of them \(--members .*seed4\)"
        ):
            weatherfm.write_forecast(settings, members=members)


def test_options_go_before_the_leads_and_the_step_of_a_runs_file(folder, tmp_path):
    """Its mode is looked at with what the command says."""
    settings = toy_run.run_settings(folder, str(tmp_path))
    members = [str(folder / f"{name}.safetensors") for name in ("plain", "early")]
    settings["forecast"] = {"lead_times": ["6h", "12h"], "device": "cpu", "members": members}
    given = {"init": "2000-01-05", "output": tmp_path / "a.zarr", "lead": ["6h", "18h"]}
    path = weatherfm.write_forecast(settings, "forecast.mode=mean", rollout="6h", **given)
    told = ForecastFile(path)
    assert (told.provenance["mode"], told.provenance["rollout_step_hours"]) == ("mean", 6)
    with pytest.raises(InputError, match="holds another forecast: mode, rollout_step_hours differ"):
        weatherfm.write_forecast(settings, **given)


def test_another_forecast_is_told_in_a_line(folder, tmp_path):
    members = [folder / f"{name}.safetensors" for name in ("plain", "early")]
    given = {"store": folder / "store.zarr", "init": "2000-01-05", "lead": "6h", "output": tmp_path / "a.zarr"}
    weatherfm.write_forecast(members[0], members=members, **given)
    with pytest.raises(InputError, match="holds another forecast: ") as told:
        weatherfm.write_forecast(members[0], members=members[::-1], **given)
    assert f"weights_sha256: there ['{weights_hash(members[0])}" in str(told.value)
    assert len(str(told.value)) < 700


def test_copies_of_one_file_are_members_only_where_something_makes_them_differ(folder, tmp_path):
    inits = {"store": folder / "store.zarr", "init": "2000-01-05", "lead": "6h"}
    for name in ("plain", "noisy"):
        own, copy = folder / f"{name}.safetensors", shutil.copy(folder / f"{name}.safetensors", tmp_path)
        given = {"members": [own, copy], "output": tmp_path / f"{name}.zarr", **inits}
        if name == "plain":
            with pytest.raises(InputError, match=r"plain\.safetensors hold the same weights"):
                weatherfm.write_forecast(own, **given)
            given["output"] = tmp_path / "perturbed.zarr"
            weatherfm.write_forecast(own, "forecast.perturbation.amplitude=0.1", **given)
        else:
            weatherfm.write_forecast(own, **given)
        first, second = fields(weatherfm.open_forecast(given["output"]).load())[0]
        assert not np.array_equal(first, second)
