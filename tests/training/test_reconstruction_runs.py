"""Runs with `training.objective: reconstruct`: trained, interrupted, validated, started from; and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_run
import two_stores
from safetensors.torch import load_file

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasting.weights_files import open_weights_files
from weatherfm.model.hidden_patches import visible_in_batch
from weatherfm.model.loading import load_weights
from weatherfm.model.model import WeatherViT
from weatherfm.model.reconstruct import reconstruct
from weatherfm.training.check import check_run
from weatherfm.training.parallel.layout import Layout, check_layout
from weatherfm.training.parts import open_parts
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.run_start import find_start
from weatherfm.training.stepping.reconstruction import reconstruction_loss
from weatherfm.training.trainer import Trainer, train

MASKED = {"reconstruction": {"mask_ratio": 0.5, "depth": 1, "width": 8}}


def settings(folder: Path, run: str, model: dict | None = None, **training) -> dict:
    plain = toy_run.run_settings(folder, run, objective="reconstruct", **training)
    plain["model"] |= MASKED | (model or {})
    plain["training"].pop("lead_times")
    return plain


def make_run(folder: Path, run: str, model: dict | None = None, **training) -> RunConfig:
    return parse_settings(RunConfig, settings(folder, run, model, **training), "test")


def lines(folder: Path, run: str, kind: str) -> list[dict]:
    found = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if kind in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reconstruct")
    toy_run.make_store(folder)
    return folder


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    """The weights of a run that nothing disturbed."""
    train(make_run(folder, "alone", steps=12))
    return folder / "alone" / "weights.safetensors"


def test_it_learns_what_the_patches_that_are_seen_say_of_the_others():
    """Fields that are the same everywhere: any patch tells all others."""
    config = make_run(Path("unused"), "run", batch_size=8)
    ones, grid = np.ones(3), regular_grid((4, 8))
    domain = Domain(tuple(toy_run.CHANNELS), grid, 0 * ones, ones, ones)
    torch.manual_seed(0)
    model = WeatherViT(config.model.model_copy(update={"dropout": 0.0, "drop_path": 0.0}), domain)
    loss, optimizer = reconstruction_loss(model.config, domain, {}), torch.optim.AdamW(model.parameters(), lr=1e-2)
    forcings, leads, curve = torch.zeros(8, 3, 4, 8), torch.zeros(8), []
    for step in range(60):
        states = torch.randn(8, 1, 3, 1, 1).expand(8, 1, 3, 4, 8)
        visible = torch.from_numpy(visible_in_batch(0, step, 8, 8, 4))
        found = loss(model(states, forcings, leads, visible=visible), states[:, 0], visible).mean()
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        curve.append(found.item())
    assert np.mean(curve[:5]) == pytest.approx(1, abs=0.3)
    assert np.mean(curve[-5:]) < 0.5


def test_metrics_are_of_channels_and_not_of_lead_times(folder, trained):
    found = lines(folder, "alone", "loss")
    assert all("loss_by_lead_time" not in line for line in found)
    assert list(found[0]["loss_by_channel"]) == toy_run.CHANNELS


def test_validation_is_of_the_hidden_points_of_fixed_patches(folder, trained):
    config, store = make_run(folder, "alone", steps=12), open_store(folder / "store.zarr")
    model = load_weights(trained)
    inside = store.times[config.data.validation.contains(store.times)]
    times = inside[np.linspace(0, len(inside) - 1, 4).round().astype(int)]
    states = store.read(store.index_of(times), toy_run.CHANNELS)
    found = reconstruct(model, states, times=times, seed=config.training.seed)
    last = lines(folder, "alone", "validation")[-1]["validation"]
    square, weights = (found.fields - states).astype(float) ** 2, found.hidden[:, None] * store.grid.area_weights
    by_sample = (square * weights).sum((-2, -1)) / weights.sum((-2, -1))  # [sample, channel]
    rmse = [last["rmse"][name]["0"] for name in toy_run.CHANNELS]
    np.testing.assert_allclose(rmse, np.sqrt(by_sample.mean(0)), rtol=1e-4)
    assert last["loss"] == pytest.approx((by_sample / model.std.numpy() ** 2).mean(), rel=1e-4)


def test_interrupted_it_ends_with_the_same_weights(folder, monkeypatch):
    given = {"export": "best", "accumulate": 2, "channel_sampling": 0.7}
    train(make_run(folder, "whole", **given))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "finished", property(lambda self: self.state.progress.step >= 10))
        train(make_run(folder, "broken", **given))
    assert train(make_run(folder, "broken", **given)).resumed_from == 10
    first, other = (folder / run / "weights.safetensors" for run in ("whole", "broken"))
    assert first.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("predict", ["increment", "state"])
def test_a_forecast_starts_from_the_encoder(folder, trained, predict):
    plain = toy_run.run_settings(folder, f"tuned {predict}", start_from={"weights": str(trained)}, steps=2, ema_decay=0)
    plain["model"] |= {"predict": predict, "decoder_fields": 2}
    config = parse_settings(RunConfig, plain, "test")
    told = "\n".join(find_start(config, open_parts(config)).lines())
    assert "anew        head, to_patches, decoder (initial values" in told
    assert "persistence" not in told
    train(config.model_copy(update={"training": config.training.model_copy(update={"learning_rate": 1e-12})}))
    before, after = load_file(trained), load_file(config.folder / "weights.safetensors")
    shared = [name for name in before if name.startswith(("tokenizer", "aggregation", "position", "blocks", "norm"))]
    assert len(shared) > 20
    for name in shared:
        torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-7, msg=name)
    assert after["to_patches.weight"].shape == (3, 4, 16)
    assert not any(name.startswith("reconstruction") for name in after)


def test_a_reconstruction_starts_from_all_of_one(folder, trained):
    config = make_run(folder, "on", start_from={"weights": str(trained)}, steps=1, learning_rate=1e-12, ema_decay=0)
    assert not any(line.startswith("anew") for line in find_start(config, open_parts(config)).lines())
    train(config)
    before, after = load_file(trained), load_file(folder / "on" / "weights.safetensors")
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-5, atol=1e-7, msg=name)
    other = make_run(folder, "on", {"reconstruction": {"depth": 2}}, start_from={"weights": str(trained)})
    with pytest.raises(InputError, match=r"model.reconstruction is \{'depth': 2"):
        find_start(other, open_parts(other))


def test_nothing_is_forecast_with_it(folder, trained):
    config = make_run(folder, "alone", steps=12)
    with pytest.raises(InputError, match=r"masked autoencoder \(.*\), which forecasts nothing"):
        open_weights_files(trained, config.forecast)
    links = {finding.link: finding for finding in check_run(config)}
    assert list(links) == ["store", "training", "model", "layout"]
    assert all(finding.ok for finding in links.values())
    assert "reconstructing 50% of the patches from the others" in links["training"].text


def test_stores_of_other_grids_are_mixed(tmp_path):
    two_stores.make_stores(tmp_path)
    plain = two_stores.run_settings(tmp_path, model=MASKED, objective="reconstruct")
    plain["training"].pop("lead_times")
    config = parse_settings(RunConfig, plain, "test")
    assert train(config).steps == 12
    assert (config.folder / "foundation.safetensors").is_file()
    scores = lines(tmp_path, "run", "validation")[-1]["validation"]["by_store"]
    assert {name: {*one["rmse"]} for name, one in scores.items()} == {k: {*v} for k, v in two_stores.CHANNELS.items()}


def test_pictures_are_learned_from_and_not_forecast(tmp_path):
    cube = np.random.default_rng(0).random((24, 12, 5)).astype(np.float32)
    np.save(tmp_path / "leaf.npy", cube)
    source = {
        "kind": "cubes", "paths": [str(tmp_path / "leaf.npy")], "axes": ["row", "column", "band"], "crop": 4,
        "wavelengths": [500.0, 550.0, 600.0, 650.0, 700.0], "wavelength_units": "nm", "validation": {"rows": 0.34},
    }  # fmt: skip
    data = {
        "store": str(tmp_path / "store.zarr"), "source": source, "channels": ["refl500..700/50"],
        "climatology_window": None,
    }  # fmt: skip
    plain = settings(tmp_path, "run", {"forcings": []}, batch_size=4, steps=4, validate_every=4) | {"data": data}
    config = parse_settings(RunConfig, plain, "test")
    prepare(config.data)
    assert train(config).best_loss is not None  # on crops that the source kept apart
    assert len(lines(tmp_path, "run", "validation")[0]["validation"]["rmse"]) == 5
    plain["training"].pop("objective")
    plain["model"].pop("reconstruction")
    with pytest.raises(InputError, match="nothing to forecast; learn to reconstruct them"):
        train(parse_settings(RunConfig, plain, "test"))
    for change, message in (
        ({"input_times": ["0h", "-24h"]}, "which do not follow one another"),
        ({"conditioning": "adaln"}, "time of day and of year"),
        ({"position": "place"}, "set model.position: learned"),
        ({"patch_size": 4}, "leaves nothing to see; make model.patch_size smaller"),
    ):
        wrong = settings(tmp_path, "other", {"forcings": []} | change, batch_size=4) | {"data": data}
        with pytest.raises(InputError, match=message):
            train(parse_settings(RunConfig, wrong, "test"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model": {"reconstruction": None}},
            "training.objective is reconstruct and model.reconstruction null; set both",
        ),
        ({"training": {"objective": "forecast"}}, "is forecast and model.reconstruction given"),
        ({"training": {"lead_times": ["24h"]}}, "lead_times belong to forecasts"),
        ({"training": {"rollout": {"steps": {0: 2}}}}, "rollout belong to forecasts"),
        ({"training": {"lead_time_weighting": "inverse"}}, "lead_time_weighting belong to forecasts"),
        ({"training": {"loss": "crps"}}, "loss belong to forecasts"),
        ({"training": {"objective": "paint"}}, "objective"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(change, message):
    plain = settings(Path("unused"), "run")
    for section, values in change.items():
        plain[section] |= values
    with pytest.raises(InputError, match=message):
        parse_settings(RunConfig, plain, "test")


def test_devices_share_what_is_seen_or_are_told_at_which_ratios_they_would():
    channels = ["z500", "t850", "u10", "v10"]
    ones = np.ones(4)
    domain = Domain(tuple(channels), regular_grid((8, 16)), ones, ones, ones)

    def look(ratio: float, **decoder) -> None:
        plain = settings(
            Path("unused"), "run", {"width": 32, "heads": 4, "reconstruction": {"mask_ratio": ratio} | decoder}
        )
        plain["data"] |= {"channels": channels}
        config = parse_settings(RunConfig, plain, "test")
        check_layout(Layout(1, 1, 4), config.parallel, config.model, domain, 4)

    look(0.75)  # 8 of 32 patches
    with pytest.raises(InputError, match=r"tp 4 does not divide the 10 of 32 .*mask_ratio 0.75, 0.62"):
        look(0.7)
    with pytest.raises(InputError, match="tp 4 does not divide the reconstruction's heads 2"):
        look(0.75, width=24, heads=2)
