"""Runs that start from trained weights: what is kept, what is new, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_run
from broken_off import Asked
from climax_state import write_climax
from started_run import OLD, config

import weatherfm
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError
from weatherfm.evaluation.scoring.learned_days import generations, refuse_days_of_weights
from weatherfm.model.model import WeatherViT
from weatherfm.training import trainer
from weatherfm.training.check import check_run
from weatherfm.training.parts import open_parts
from weatherfm.training.starting.resize import embedding_of_patches, patches_of_output
from weatherfm.training.starting.run_start import find_start
from weatherfm.training.stepping.optimizer import build_optimizer, rate_factor, set_learning_rate


def started(folder: Path, **settings) -> WeatherViT:
    """The model of step 0, in float64."""
    given = config(folder, **settings)
    start = find_start(given, open_parts(given))
    model = WeatherViT(given.model, start.domain)
    start.fill(model)
    return model.double().eval()


def forecast_of(model: WeatherViT, history: torch.Tensor, lead: int = 6) -> torch.Tensor:
    """[B, C, H, W] physical, of physical states."""
    torch.manual_seed(1)
    forcings = torch.randn(len(history), len(model.forcings), *history.shape[-2:], dtype=torch.float64)
    condition = torch.zeros(len(history), len(model.conditions), dtype=torch.float64)
    leads = torch.full((len(history),), lead)
    return model.denormalize(model(model.normalize(history), forcings, leads, condition=condition))


def states(folder: Path, channels) -> torch.Tensor:
    fields = open_store(folder / "store.zarr").read(range(8), channels).astype(np.float64)
    return torch.from_numpy(fields)[:, None]


def test_a_newcomer_changes_nothing_at_first(folder):
    old = weatherfm.load(folder / "old" / "weights.safetensors", device="cpu").double().eval()
    new = started(folder)
    before, after = forecast_of(old, states(folder, OLD)), forecast_of(new, states(folder, toy_run.CHANNELS))
    change = (before - states(folder, OLD)[:, 0]).abs().amax()
    assert change > 1e-3  # it has learned something
    torch.testing.assert_close(after[:, :2], before, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after[:, 2], states(folder, ["u10"])[:, 0, 0], rtol=1e-12, atol=1e-12)  # persistence


def test_a_newcomer_comes_in_as_it_learns(folder):
    """Its gate is closed and has the gradient that an open one would have, by finite differences."""
    model = started(folder)
    history = states(folder, toy_run.CHANNELS)
    row = model.share.input_names(model.config.input_times).index("u10")
    assert model.tokenizer.gate[row] == 0
    forecast_of(model, history)[:, 0].square().mean().backward()
    slope = model.tokenizer.gate.grad[row].item()
    with torch.no_grad():
        values = []
        for gate in (1e-6, 2e-6):
            model.tokenizer.gate[row] = gate
            values.append(forecast_of(model, history)[:, 0].square().mean().item())
    assert slope == pytest.approx((values[1] - values[0]) / 1e-6, rel=1e-3)
    assert slope != 0
    trained = trainer.train(config(folder, "learns"))
    gates = weatherfm.load(trained.weights, device="cpu").tokenizer.gate
    assert gates[row] != 0


def test_a_newcomer_may_start_as_the_mean_of_others(folder):
    model = started(folder, start={"new_channels": {"u10": OLD}})
    rows = model.tokenizer.weight.detach()
    torch.testing.assert_close(rows[2], rows[:2].mean(0))
    assert model.tokenizer.gate[2] == 0
    out = model.to_patches.weight.detach()
    torch.testing.assert_close(out[2], out[:2].mean(0))


def test_kept_channels_keep_the_statistics_they_were_trained_with(folder, tmp_path):
    """The store of the new run holds larger waves."""
    source = toy_run.waves()
    larger = replace(source, state=(source.state * np.float32(1.1)).astype(np.float32))
    prepare(parse_settings(DataConfig, toy_run.data_settings(tmp_path), "test"), larger)
    shutil.copytree(folder / "old", tmp_path / "old")
    store, old = open_store(tmp_path / "store.zarr"), weatherfm.load(folder / "old" / "weights.safetensors")
    domain = find_start(config(tmp_path), open_parts(config(tmp_path))).domain
    assert (domain.std[:2] == old.domain.std).all()
    assert (domain.std[:2] != store.std[:2]).all()
    assert domain.std[2] == store.std[2]
    summary = trainer.train(config(tmp_path))
    np.testing.assert_array_equal(weatherfm.load(summary.weights).domain.mean, domain.mean)


def test_more_blocks_start_as_the_identity(folder):
    same, deeper = started(folder, channels=OLD), started(folder, channels=OLD, model={"depth": 4})
    history = states(folder, OLD)
    torch.testing.assert_close(forecast_of(deeper, history), forecast_of(same, history), rtol=1e-12, atol=1e-9)
    assert len(deeper.blocks) == 4


def test_more_blocks_with_adaptive_norms_are_the_identity_and_learn(folder):
    """Their gates are closed; were their last matrices zero too, neither would have a gradient."""
    adaptive = {"conditioning": "adaln", "position": "place"}
    trainer.train(config(folder, "adaptive", channels=OLD, model=adaptive | {"input_gates": False}, old=True))
    start = {"weights": str(folder / "adaptive")}
    same, deeper = (started(folder, channels=OLD, start=start, model=adaptive | {"depth": n}) for n in (2, 3))
    history = states(folder, OLD)
    torch.testing.assert_close(forecast_of(deeper, history), forecast_of(same, history), rtol=1e-12, atol=1e-9)
    assert torch.equal(deeper.position.weight, same.position.weight)
    assert all((p == 0).all() for p in deeper.conditioning.blocks[2].parameters())
    forecast_of(deeper, history).square().mean().backward()
    assert deeper.conditioning.blocks[2].weight.grad.norm() > 0


def test_parts_that_join_change_nothing(folder):
    plain = started(folder, channels=OLD)
    more = started(folder, channels=OLD, model={"mlp_convolution": True, "decoder_fields": 2})
    history = states(folder, OLD)
    torch.testing.assert_close(forecast_of(more, history), forecast_of(plain, history), rtol=1e-12, atol=1e-9)


def test_an_earlier_input_time_joins_through_its_gate(folder):
    plain = started(folder, channels=OLD)
    more = started(folder, channels=OLD, model={"input_times": ["0h", "-6h"]})
    history = states(folder, OLD)
    both = torch.cat([history[1:], history[:-1]], 1)
    torch.testing.assert_close(forecast_of(more, both), forecast_of(plain, history[1:]), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(("old", "new"), [((2, 2), (4, 4)), ((2, 3), (4, 3)), ((4, 4), (2, 2))])
def test_a_resampled_embedding_sees_in_large_patches_what_it_saw_in_small_ones(old, new):
    torch.manual_seed(0)
    weight = torch.randn(3, 5, old[0] * old[1], dtype=torch.float64)
    patch = torch.randn(1, 1, *old, dtype=torch.float64)
    larger = torch.nn.functional.interpolate(patch, new, mode="bilinear", align_corners=False).flatten()
    resized = embedding_of_patches(weight, old, new)
    assert resized.shape == (3, 5, new[0] * new[1])
    if new[0] >= old[0]:
        torch.testing.assert_close(resized @ larger, weight @ patch.flatten())
    out = patches_of_output(weight.transpose(1, 2), old, new, dim=1)  # [C, Q, D]
    token = torch.randn(5, dtype=torch.float64)
    small = (weight.transpose(1, 2) @ token).reshape(3, 1, *old)
    large = torch.nn.functional.interpolate(small, new, mode="bilinear", align_corners=False).flatten(1)
    torch.testing.assert_close(out @ token, large)


def test_another_patch_size_trains_on(folder):
    given = config(folder, "patches", model={"patch_size": [4, 2]})
    found = find_start(given, open_parts(given)).match
    assert found.resized == ("patches of 2 x 2 to 4 x 2", "positions from 2 x 4 to 1 x 4")
    assert trainer.train(given).steps == 6


def test_frozen_parts_do_not_change(folder):
    summary = trainer.train(config(folder, "frozen", start={"freeze": ["blocks", "tokenizer.weight"]}))
    model = weatherfm.load(summary.weights, device="cpu")
    before = dict(started(folder).float().named_parameters())
    for name, value in model.named_parameters():
        held = name.startswith("blocks.") or name == "tokenizer.weight"
        assert torch.equal(value, before[name]) == held, name


def test_the_rate_falls_from_block_to_block(folder):
    given = config(folder, start={"layer_decay": 0.5})
    model = started(folder)
    optimizer = build_optimizer(model, given.training)
    set_learning_rate(optimizer, 1.0)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: rate[id(parameter)] for name, parameter in model.named_parameters()}
    assert found["head.0.weight"] == found["to_patches.weight"] == 1.0
    assert found["blocks.1.mlp.expand.weight"] == 0.5
    assert found["blocks.0.attention.query.bias"] == 0.25
    adaptive = ["conditioning.last.weight", "conditioning.blocks.1.bias", "conditioning.expand.weight"]
    assert [rate_factor(name, 2, 0.5) for name in adaptive] == [1.0, 0.5, 0.125]
    assert found["tokenizer.weight"] == found["aggregation.query.weight"] == found["position.weight"] == 0.125


@pytest.mark.parametrize("start", [{}, {"freeze": ["blocks"]}, {"layer_decay": 0.7}], ids=str)
def test_a_run_that_was_broken_off_ends_with_the_same_weights(folder, start):
    name = next(iter(start), "plain")
    whole = trainer.train(config(folder, f"whole-{name}", start=start))
    assert trainer.train(config(folder, f"broken-{name}", start=start), Asked()).steps == 2
    broken = trainer.train(config(folder, f"broken-{name}", start=start))
    assert broken.resumed_from == 2
    assert broken.weights.read_bytes() == whole.weights.read_bytes()


def test_a_run_goes_on_from_no_other_start(folder, tmp_path):
    shutil.copytree(folder / "store.zarr", tmp_path / "store.zarr")
    shutil.copytree(folder / "old", tmp_path / "old")
    trainer.train(config(tmp_path), Asked())
    other = trainer.train(config(folder, "other", channels=OLD, model={"input_gates": False}))
    shutil.copy(other.weights, tmp_path / "old" / "weights.safetensors")
    with pytest.raises(InputError, match=r"start_from.sha256: [0-9a-f]+ in the checkpoint"):
        trainer.train(config(tmp_path))


def test_weights_tell_all_generations(folder):
    first = trainer.train(config(folder, "first"))
    given = config(folder, "second", start={"weights": str(first.weights)})
    second = trainer.train(given)
    told = weatherfm.load(second.weights, device="cpu").provenance
    assert told["started_from"]["sha256"] == weatherfm.load(first.weights).loaded.sha256
    oldest = told["started_from"]["provenance"]["started_from"]["provenance"]
    assert oldest["settings"]["data"]["channels"] == OLD
    assert "started_from" not in oldest
    assert str(folder) not in json.dumps(told)


def test_days_of_any_generation_are_not_scored(folder):
    """The second generation has learned from other days, on the same planet."""
    given = config(folder, "later", validate_every=100, data={"validation": None})
    trainer.train(given)
    told = weatherfm.load(folder / "later" / "weights.safetensors", device="cpu").provenance
    told["store"]["train"] = {"start": "2000-01-01", "end": "2000-01-02"}
    store = open_store(folder / "store.zarr")
    assert [str(one.days) for one in generations(told)] == ["2000-01-01/2000-01-02", "2000-01-01/2000-01-20"]
    with pytest.raises(InputError, match="weights that they started from were trained on"):
        refuse_days_of_weights(store.times[40:50], store, {"model": {"training": told}})


def test_the_table_is_told(folder):
    (finding,) = [one for one in check_run(config(folder, data=None)) if one.link == "start"]
    assert finding.ok
    assert "kept z500, t850, latitude" in finding.text
    assert "new u10 (initial rows, gate closed at first)" in finding.text
    assert "new outputs u10 (start at persistence)" in finding.text
    fewer = config(folder, channels=["t850"])
    assert find_start(fewer, open_parts(fewer)).match.dropped == ("z500",)


def test_a_checkpoint_of_climax_is_started_from(folder, tmp_path):
    """By name; its variables are land-sea mask, orography, latitude, t2m, u10, v10, and z u v t r q at 7 levels."""
    state = write_climax(tmp_path / "climax.ckpt")
    model = {"predict": "state", "patch_size": 4, "forcings": ["latitude"], "input_gates": False}
    given = config(folder, "climax", start={"weights": str(tmp_path / "climax.ckpt")}, model=model, steps=1)
    start = find_start(given, open_parts(given))
    begun = WeatherViT(given.model, start.domain)
    start.fill(begun)
    for row, number in enumerate([8, 32, 4, 2]):  # z500, t850, u10, latitude
        torch.testing.assert_close(begun.tokenizer.weight[row], state[f"token_embeds.{number}.proj.weight"].flatten(1))
        torch.testing.assert_close(begun.tokenizer.embedding[row], state["var_embed"][0, number])
    torch.testing.assert_close(begun.blocks[1].mlp.expand.weight, state["blocks.1.mlp.fc1.weight"])
    values = state["head.4.weight"].unflatten(0, (16, 48))  # [value of the patch, variable, width]
    torch.testing.assert_close(begun.to_patches.weight[1], values[:, 32])
    assert start.match.resized == ("positions from 8 x 16 to 1 x 2",)
    assert {"lsm", "orography", "q925"} <= set(start.match.dropped)
    assert trainer.train(given).steps == 1


def test_noise_joins_a_checkpoint_of_climax_and_changes_nothing_at_first(folder, tmp_path):
    write_climax(tmp_path / "noisy.ckpt")
    model = {"predict": "state", "patch_size": 4, "forcings": ["latitude"], "input_gates": False}
    begun = []
    for noise in (0, 5):
        given = config(
            folder, f"noisy{noise}", start={"weights": str(tmp_path / "noisy.ckpt")}, model=model | {"noise": noise},
            **({"loss": "crps", "steps": 1} if noise else {}),
        )  # fmt: skip
        start = find_start(given, open_parts(given))
        begun.append(WeatherViT(given.model, start.domain).eval())
        start.fill(begun[-1])
    assert start.match.joined == ("noise",)
    history = torch.randn(2, 1, *begun[0].domain.mean.shape, *begun[0].domain.grid.shape)
    forcings, lead = torch.randn(2, 1, *begun[0].domain.grid.shape), torch.tensor([6, 24])
    with torch.no_grad():
        plain = begun[0](history, forcings, lead)
        members = begun[1](history, forcings, lead, noise=torch.randn(6, 5))
    torch.testing.assert_close(members, plain.repeat_interleave(3, 0))
    assert trainer.train(given).steps == 1


@pytest.mark.parametrize(
    ("settings", "message"), [({"variables": 20}, "20 variables, ClimaX's own 48"), ({"tokens": 100}, "100 positions")]
)
def test_a_checkpoint_that_is_not_climax_s_is_refused(folder, tmp_path, settings, message):
    model = {"predict": "state", "patch_size": 4, "forcings": ["latitude"], "input_gates": False}
    write_climax(tmp_path / "other.ckpt", **settings)
    given = config(folder, "other", start={"weights": str(tmp_path / "other.ckpt")}, model=model)
    with pytest.raises(InputError, match=message):
        find_start(given, open_parts(given))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"input_gates": False}}, "inputs u10 are not in .*set model.input_gates: true"),
        ({"model": {"width": 16}}, "model.width is 16, the weights have 8"),
        ({"model": {"heads": 4}}, "model.heads is 4, the weights have 2"),
        ({"model": {"rotary": True}}, "model.rotary is True, the weights have False"),
        ({"model": {"conditioning": "adaln"}}, "model.conditioning is adaln, the weights have embed"),
        ({"model": {"position": "place"}}, "model.position is place, the weights have learned"),
        ({"model": {"depth": 1}}, "model.depth is 1, less than the 2 blocks"),
        ({"model": {"predict": "state"}}, "model.predict is state"),
        (
            {"model": {"aggregation": {"kind": "hierarchical", "groups": 2}, "input_gates": False}},
            "model.aggregation is .*the weights have",
        ),
        ({"start": {"weights": "nothing.safetensors"}}, "no weights file .*nothing.safetensors"),
        ({"start": {"weights": "nothing.ckpt"}}, "no ClimaX checkpoint .*nothing.ckpt"),
        ({"start": {"new_channels": {"u10": ["q700"]}}}, "makes u10 of q700, which .* does not have"),
        ({"start": {"new_channels": {"q700": ["z500"]}}}, "names q700, not among data.channels"),
        ({"start": {"new_channels": {"z500": ["t850"]}}}, "names z500, which .* has itself"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(folder, settings, message):
    given = config(folder, "refused", **settings)
    with pytest.raises(InputError, match=message):
        trainer.train(given)
    assert not (folder / "refused").exists()


def test_none_in_common_is_refused(folder):
    given = config(folder, channels=["u10"], model={"forcings": []})
    with pytest.raises(InputError, match="none of the run's channels is in"):
        find_start(given, open_parts(given))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"freeze": ["blocks"], "layer_decay": 0.5}, "both freeze and layer_decay"),
        ({"new_channels": {"u10": []}}, "names nothing for u10"),
        ({"layer_decay": 1.5}, "layer_decay"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(folder, start, message):
    with pytest.raises(InputError, match=message):
        config(folder, start=start)


@pytest.mark.parametrize(
    ("freeze", "message"),
    [(["block"], "freeze names block, which no weight's name starts with"), (["everything"], "names everything")],
)
def test_parts_that_are_none_are_refused(folder, freeze, message):
    with pytest.raises(InputError, match=message):
        trainer.train(config(folder, f"none-{freeze[0]}", start={"freeze": freeze}))


def test_freezing_all_is_refused(folder):
    parts = ["tokenizer", "aggregation", "position", "lead_time", "blocks", "norm", "head", "to_patches"]
    with pytest.raises(InputError, match="leaves nothing to learn"):
        trainer.train(config(folder, "all", start={"freeze": parts}))
