"""`weatherfm check` of a run whose forecasts are ensembles."""

from __future__ import annotations

import member_weights
import pytest
import toy_run

from weatherfm.config import parse_settings
from weatherfm.training.check import Finding, check_run
from weatherfm.training.run_config import RunConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked")
    member_weights.make_weights(folder, ("noisy", "plain", "early"))
    return folder


def found(folder, model=None, link="forecast", evaluation=None, **forecast) -> Finding:
    plain = toy_run.run_settings(folder)
    plain["model"] |= model or {}
    plain["training"] |= {"loss": "crps"} if "noise" in plain["model"] else {}
    plain["forecast"] = {"lead_times": ["6h"], "init": "2000-01-22", **forecast}
    plain["evaluation"] = evaluation or {}
    return next(f for f in check_run(parse_settings(RunConfig, plain, "test")) if f.link == link)


NOISE = {"noise": 4, "conditioning": "adaln"}


@pytest.mark.parametrize(
    ("model", "forecast", "text"),
    [
        (NOISE, {}, "1 lead times (a single forecast, without noise)"),
        (NOISE, {"members": 16}, "1 lead times, 16 members"),
        ({}, {"members": 8, "dropout": True}, "1 lead times, 8 members"),
        ({}, {"members": ["{folder}/plain.safetensors", "{folder}/early.*"]}, "2 members of 2 weights files"),
        ({}, {"members": ["{folder}/seed*/weights.safetensors"]}, "not there yet ({folder}/seed*/weights.safetensors)"),
    ],
    ids=str,
)
def test_members_are_told(folder, model, forecast, text):
    if isinstance(forecast.get("members"), list):
        forecast = forecast | {"members": [name.format(folder=folder) for name in forecast["members"]]}
    told = found(folder, model, **forecast)
    assert told.ok, told
    assert told.text.endswith(text.format(folder=folder)) or text.format(folder=folder) in told.text


@pytest.mark.parametrize(
    ("model", "forecast", "text"),
    [
        ({}, {"members": 16}, "all 16 members of the model would be the same"),
        ({}, {"perturbation": {"amplitude": 0.1}}, "makes members of an ensemble differ, and there are none"),
        ({"dropout": 0, "drop_path": 0}, {"members": 4, "dropout": True}, "trained with neither dropout nor drop_path"),
        ({}, {"members": ["{folder}/plain.safetensors"]}, "plain.safetensors alone, one member"),
        (
            NOISE,
            {"members": ["{folder}/early.safetensors", "{folder}/noisy.safetensors"], "init": "2000-01-01"},
            "lacks",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_a_problem(folder, model, forecast, text):
    if isinstance(forecast.get("members"), list):
        forecast = forecast | {"members": [name.format(folder=folder) for name in forecast["members"]]}
    told = found(folder, model, **{"lead_times": ["6h"], "init_every": "24h", **forecast})
    assert not told.ok
    assert text in told.text


def test_smooth_perturbations_of_an_area_are_a_problem(folder, monkeypatch):
    from weatherfm.evaluation.forecasting import perturbation

    told = {"members": 4, "perturbation": {"amplitude": 0.1, "kind": "spherical"}}
    assert found(folder, **told).ok
    monkeypatch.setattr(perturbation, "is_whole_globe", lambda grid: False)
    assert "spherical is for whole globes" in found(folder, **told).text


def test_members_in_training_are_told(folder):
    settings = toy_run.run_settings(folder, loss="crps", members=3)
    settings["model"] |= NOISE
    told = next(f for f in check_run(parse_settings(RunConfig, settings, "test")) if f.link == "training")
    assert "24 steps of 4 in 3 members each, by their CRPS" in told.text


@pytest.mark.parametrize(
    ("evaluation", "text"),
    [
        ({"ridge_regression": True}, "and ridge regression on 79 times"),  # 20 days of 4, and the next 6h
        ({"ridge_regression": True, "ridge_times": ["-6h"], "events": ["t850 > 280"]}, "on 78 times"),
        ({"ridge_regression": True, "ridge_times": ["-6h", "0h"]}, "needs 100 start times"),
        ({"ridge_regression": True, "ridge_times": ["-5h"]}, "ridge_times has -5h, and"),
        ({"events": ["t500 > 280"]}, "is about t500, which is not scored; scored are z500, t850, u10"),
    ],
    ids=str,
)
def test_what_is_scored_is_looked_at(folder, evaluation, text):
    told = found(folder, link="baselines", evaluation=evaluation)
    assert text in told.text
    assert told.ok == (" times" in text and "needs" not in text)
