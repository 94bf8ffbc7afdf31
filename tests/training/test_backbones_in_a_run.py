"""Backbones through whole runs: checked, broken off, gone on with, exported, forecast with, scored, started from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import toy_run
from broken_off import Asked
from safetensors.torch import load_file

import weatherfm
from weatherfm.config import parse_settings
from weatherfm.earth.forcings import clock, forcing_fields
from weatherfm.errors import InputError
from weatherfm.training import trainer
from weatherfm.training.check import check_run
from weatherfm.training.parts import open_parts
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.run_start import find_start

WINDOWS = {"backbone": "windows", "patch_size": 1, "windows": {"size": 3, "global_every": 3}, "depth": 3}
OWN = {"backbone": "own_backbones:Layers", "conditioning": "adaln", "backbone_options": {"hidden": 1}}
INIT = "2000-01-20T12"


def config_of(folder, name, model, **training) -> RunConfig:
    training = {
        "steps": 4,
        "log_every": 1,
        "validate_every": 2,
        "checkpoint_every": 10,
        "lead_times": ["12h"],
    } | training
    given = toy_run.run_settings(folder, name, **training)
    given["model"] = {"patch_size": 2, "width": 8, "depth": 2, "heads": 2} | model
    return parse_settings(RunConfig, given, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    toy_run.make_store(folder)
    return folder


@pytest.mark.parametrize("model", [WINDOWS, OWN], ids=["windows", "own"])
def test_a_run_is_checked_broken_off_gone_on_with_and_forecast_with(folder, model):
    name = model["backbone"].partition(":")[0]
    whole = config_of(folder, f"{name}-whole", model)
    findings = {finding.link: finding for finding in check_run(whole)}
    assert all(findings[link].ok for link in ("store", "training", "model", "layout")), findings
    done = trainer.train(whole)
    broken = config_of(folder, f"{name}-broken", model)
    assert trainer.train(broken, Asked()).steps == 2
    again = trainer.train(broken)
    assert again.resumed_from == 2
    assert again.best_loss == done.best_loss
    assert again.weights.read_bytes() == done.weights.read_bytes()

    loaded = weatherfm.load(done.weights)
    assert loaded.config == whole.model
    forecast = weatherfm.forecast(loaded, folder / "store.zarr", "12h", INIT)
    store = weatherfm.open_store(folder / "store.zarr")
    times = forecast.init_time.values
    now = loaded.normalize(torch.from_numpy(store.read(store.index_of(times))))
    forcings = torch.from_numpy(forcing_fields(loaded.forcings, times, loaded.domain.grid))
    with torch.no_grad():
        expected = loaded.eval()(
            now[:, None], forcings, torch.tensor([12]), condition=torch.from_numpy(clock(loaded.conditions, times))
        )
    found = torch.from_numpy(forecast.geopotential.values[0, 0, 0])
    torch.testing.assert_close(found, loaded.denormalize(expected)[0, 0])

    written, truth = folder / f"{name}.zarr", folder / "store.zarr"
    weatherfm.write_forecast(done.weights, store=truth, lead="12h", init="2000-01-21/2000-01-24", output=written)
    scores = weatherfm.evaluate(written, store=truth, output=folder / f"{name}.nc")
    assert (scores["rmse"].sel(forecast="model") > 0).all()


@pytest.mark.parametrize("model", [WINDOWS, OWN], ids=["windows", "own"])
@pytest.mark.parametrize("mode", ["block", "selective"])
def test_what_is_made_again_changes_nothing_over_several_steps_and_batches(folder, model, mode):
    """Rollout, accumulation, compute of blocks twice: the same weights."""
    name = model["backbone"].partition(":")[0]
    training = {"rollout": {"steps": {0: 2}}, "accumulate": 2, "steps": 1, "ema_decay": 0.0}
    plain = config_of(folder, f"{name}-{mode}-plain", model, **training)
    again = config_of(folder, f"{name}-{mode}-again", model, **training)
    again = again.model_copy(update={"parallel": again.parallel.model_copy(update={"activation_checkpointing": mode})})
    weights = [load_file(trainer.train(config).weights) for config in (plain, again)]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-5, atol=1e-7)


def started(folder: Path, model: dict, weights: str, **start):
    given = config_of(folder, "started", model, start_from={"weights": str(folder / weights)} | start)
    return find_start(given, open_parts(given))


def filled(start) -> dict[str, torch.Tensor]:
    model = weatherfm.model.model.WeatherViT(start.config.model, start.domain)
    start.fill(model)
    return dict(model.named_parameters())


def test_vit_starts_from_windows_and_windows_from_vit(folder):
    vit = {"patch_size": 1, "depth": 3}
    for name, model, other in (("to-vit", WINDOWS, vit), ("to-windows", vit, WINDOWS)):
        done = trainer.train(config_of(folder, name, model | {"width": 8}, steps=1))
        start = started(folder, other, name)
        held, values = load_file(done.weights), filled(start)
        for key, value in values.items():
            torch.testing.assert_close(value.detach(), held[key], rtol=0, atol=0)
        (line,) = [line for line in start.lines() if line.startswith("attention")]
        assert "windows (size 3, shift True, global_every 3)" in line


def test_ones_own_goes_on_from_its_own_weights_alone(folder):
    done = trainer.train(config_of(folder, "own-first", OWN, steps=1))
    held, values = load_file(done.weights), filled(started(folder, OWN, "own-first"))
    for key, value in values.items():
        torch.testing.assert_close(value.detach(), held[key], rtol=0, atol=0)
    others = (
        {"backbone_options": {"hidden": 2}},
        {"depth": 3},
        {"backbone": "own_backbones:Plain", "backbone_options": {}},
    )
    for other in others:
        with pytest.raises(InputError, match=f"model.{next(iter(other))} is "):
            started(folder, OWN | other, "own-first")
    with pytest.raises(InputError, match=r"model.backbone is vit, the weights have own_backbones:Layers"):
        started(folder, {"conditioning": "adaln"}, "own-first")
    for start in ({"lora": {"rank": 2}}, {"layer_decay": 0.5}):
        with pytest.raises(
            InputError, match=r"is for the blocks of weatherfm, which model.backbone own_backbones:Layers"
        ):
            started(folder, OWN, "own-first", **start)
    frozen = started(folder, OWN, "own-first", freeze=["backbone"])
    learn, there = frozen.learning()
    assert there - learn == sum(p.numel() for key, p in values.items() if key.startswith("backbone."))


def test_what_ones_own_does_wrong_is_a_finding_of_check(folder):
    wrong = {"backbone": "own_backbones:Wrong", "backbone_options": {"wrong": "shape"}}
    findings = {finding.link: finding for finding in check_run(config_of(folder, "wrong", wrong))}
    assert not findings["training"].ok
    assert "it has to give the same shape and dtype" in findings["training"].text
    plain = check_run(config_of(folder, "plain", {"backbone": "own_backbones:Plain"}), devices=2)
    assert all(finding.ok for finding in plain if finding.link in ("training", "model", "layout"))


def test_members_by_dropout_are_refused_of_ones_own(folder):
    config = config_of(folder, "own-first", OWN, steps=1)
    forecast = config.forecast.model_copy(update={"dropout": True})
    from weatherfm.evaluation.forecasting.model_facts import ModelFacts, _require_chance

    facts = ModelFacts("the model", config.model, weatherfm.open_store(folder / "store.zarr").domain(), {})
    with pytest.raises(InputError, match="what own_backbones:Layers of the model drops is not known"):
        _require_chance(facts, forecast, 2)
