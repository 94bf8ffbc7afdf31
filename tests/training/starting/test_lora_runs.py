"""Runs whose low-rank factors learn in place of the blocks' matrices, from trained weights on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import toy_run
from broken_off import Asked
from started_run import OLD, config
from test_starting import forecast_of, states

import weatherfm
from weatherfm.errors import InputError
from weatherfm.model.lora import is_factor, merged
from weatherfm.model.model import WeatherViT
from weatherfm.training import trainer
from weatherfm.training.check import check_run
from weatherfm.training.checkpoints.checkpoint import newest
from weatherfm.training.checkpoints.resume import find_identity
from weatherfm.training.parallel.build_model import build_model
from weatherfm.training.parallel.role import find_role
from weatherfm.training.parts import open_parts
from weatherfm.training.start_config import Lora, StartFrom
from weatherfm.training.starting.run_start import find_start
from weatherfm.training.stepping.optimizer import build_optimizer, set_learning_rate

LORA = {"lora": {"rank": 2, "alpha": 3}}


def begun(folder: Path, **settings) -> WeatherViT:
    """The model of step 0, with its factors, in float64."""
    given = config(folder, **settings)
    start = find_start(given, open_parts(given))
    role = find_role(given.parallel, given.model, start.domain, None)
    cpu, blocks = torch.device("cpu"), start.known_blocks
    model = build_model(given, start.domain, role, cpu, torch.float32, empty=True, known_blocks=blocks)
    start.freeze(model)
    start.fill(model)
    return model.double().eval()


def old_weights(folder: Path) -> WeatherViT:
    return weatherfm.load(folder / "old" / "weights.safetensors", device="cpu")


@pytest.mark.parametrize("model", [{}, {"depth": 3}], ids=["as deep", "deeper"])
def test_step_0_is_the_old_model(folder, model):
    old, new = old_weights(folder).double().eval(), begun(folder, start=LORA, model=model)
    before, after = forecast_of(old, states(folder, OLD)), forecast_of(new, states(folder, toy_run.CHANNELS))
    torch.testing.assert_close(after[:, :2], before, rtol=1e-12, atol=1e-12)
    factors = [name for name, _ in new.named_parameters() if is_factor(name)]
    assert {name.split(".")[1] for name in factors} == {"0", "1"}  # the weights have two blocks
    assert len(factors) == 2 * 6 * 2


@pytest.mark.parametrize("freeze", [[], ["blocks"]], ids=["else learns", "blocks frozen"])
def test_matrices_stay_and_all_else_learns_but_what_is_frozen(folder, freeze):
    name = f"kept-{len(freeze)}"
    on = ["attention.query", "mlp"]
    given = config(folder, name, start={"freeze": freeze, "lora": {"rank": 2, "on": on}}, ema_decay=0.0)
    trainer.train(given)
    saved, before = newest(folder / name / "checkpoints"), dict(begun(folder, start=LORA).float().named_parameters())
    whole = begun(folder, start={"lora": {"rank": 2, "on": on}}).float()
    after = {f"model.{key}": torch.empty_like(value) for key, value in whole.named_parameters() if "blocks." in key}
    saved.read_into(after)
    for key, value in after.items():
        path, _, kind = key.removeprefix("model.").rpartition(".")
        adapted = f"{path}.lora_a" in dict(whole.named_parameters()) and kind == "weight"
        stays = adapted or (freeze and not is_factor(key))
        assert torch.equal(value, before[key.removeprefix("model.")]) == bool(stays), key
    names = saved.names()
    assert "optimizer.exp_avg.blocks.0.mlp.expand.lora_a" in names
    assert "optimizer.exp_avg.blocks.0.mlp.expand.weight" not in names
    assert ("optimizer.exp_avg.blocks.0.mlp.expand.bias" in names) == (not freeze)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_merged_weights_forecast_as_the_factors_do(folder, ema_decay):
    """The file is of float32: that rounding alone is between them."""
    name = f"merged-{ema_decay}"
    summary = trainer.train(config(folder, name, start=LORA, ema_decay=ema_decay))
    model = begun(folder, start=LORA).float()
    kind = "average" if ema_decay else "model"
    rows = {"tokenizer": model.share.input_names(model.config.input_times), "to_patches": model.domain.channels}
    tensors = {}
    for key, parameter in model.named_parameters():
        for i, row in enumerate(rows.get(key.split(".")[0], [None])):
            part = parameter.data if row is None else parameter.data[i]
            tensors[f"{kind}.{key}" if row is None else f"{kind}.{key}.{row}"] = part
    newest(folder / name / "checkpoints").read_into(tensors)
    model.double()
    history = states(folder, toy_run.CHANNELS)
    expected = forecast_of(model, history)
    plain = WeatherViT(model.config, model.domain).double().eval()
    plain.load_state_dict(merged(dict(model.named_parameters()), 1.5))
    torch.testing.assert_close(forecast_of(plain, history), expected, rtol=1e-12, atol=1e-12)
    exported = weatherfm.load(summary.weights, device="cpu")
    for key, value in exported.named_parameters():
        torch.testing.assert_close(value.double(), plain.get_parameter(key), rtol=1e-7, atol=1e-9)
    forecast, first = forecast_of(exported.double(), history), forecast_of(begun(folder, start=LORA), history)
    spread = exported.std[:, None, None]
    error, learned = ((one - expected).div(spread).abs().max() for one in (forecast, first))
    assert error < 1e-5 < 1e-3 < learned


def test_the_rate_falls_from_block_to_block_for_factors_too(folder):
    given = config(folder, start=LORA | {"layer_decay": 0.5})
    model = begun(folder, start=LORA | {"layer_decay": 0.5})
    optimizer = build_optimizer(model, given.training)
    set_learning_rate(optimizer, 1.0)
    groups = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    found = {name: groups.get(id(p)) for name, p in model.named_parameters()}
    decay = given.training.weight_decay
    assert decay > 0
    assert found["blocks.1.mlp.expand.lora_a"] == found["blocks.1.mlp.expand.lora_b"] == (0.5, decay)
    assert found["blocks.0.attention.query.lora_b"] == (0.25, decay)
    assert found["blocks.0.attention.query.bias"] == (0.25, 0)
    assert found["blocks.0.attention.query.weight"] is None


def test_a_run_that_was_broken_off_ends_with_the_same_weights(folder):
    start = LORA | {"new_channels": {"u10": OLD}, "layer_decay": 0.7}
    whole = trainer.train(config(folder, "whole", start=start))
    assert trainer.train(config(folder, "broken", start=start), Asked()).steps == 2
    broken = trainer.train(config(folder, "broken", start=start))
    assert broken.resumed_from == 2
    assert broken.weights.read_bytes() == whole.weights.read_bytes()


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 3, "alpha": 3}, r"start_from.lora.rank: 2 in the checkpoint, 3 now"),
        ({"rank": 2}, r"start_from.lora.scale: 1.5 in the checkpoint, 1.0 now"),
        ({"rank": 2, "alpha": 3, "on": ["mlp"]}, r"start_from.lora.on: .*attention.query.*now"),
        (None, r"start_from.lora.rank: 2 in the checkpoint, absent now"),
    ],
    ids=str,
)
def test_a_run_goes_on_with_no_other_factors(folder, lora, message):
    if not (folder / "resumed").exists():
        trainer.train(config(folder, "resumed", start=LORA), Asked())
    with pytest.raises(InputError, match=message):
        trainer.train(config(folder, "resumed", start={"lora": lora}))


def test_records_without_lora_are_as_they_were():
    """Checkpoints that were made before there was any are compared with these."""
    plain = StartFrom(weights="w", freeze=["head"])
    assert plain.record() == {"new_channels": {}, "freeze": ["head"], "layer_decay": None}
    same = [Lora(rank=4), Lora(rank=4, alpha=4.0, on=["mlp", "attention"]), Lora(rank=4, export="apart")]
    assert same[0].record() == same[1].record() == same[2].record()  # the same weights


def test_the_identity_without_lora_is_as_it_was(folder):
    given = config(folder)
    parts = open_parts(given)
    told = find_identity(given, parts, torch.float32, start=find_start(given, parts).identity())
    assert told["settings"]["start_from"].keys() == {"sha256", "new_channels", "freeze", "layer_decay"}


def test_what_learns_is_counted(folder):
    """By hand: width 8, hidden 32, two blocks, rank 2."""
    on_each = 2 * (4 * (8 + 8) + 2 * (32 + 8))
    start = LORA | {"freeze": ["tokenizer", "aggregation", "position", "lead_time", "blocks", "norm", "head"]}
    given = config(folder, start=start)
    model = begun(folder, start=start)
    learn = 2 * on_each + sum(p.numel() for name, p in model.named_parameters() if name.startswith("to_patches."))
    there = sum(p.numel() for p in model.parameters())
    (finding,) = [one for one in check_run(given) if one.link == "start"]
    assert finding.ok
    assert f"learn {learn:,} of {there:,} numbers (" in finding.text
    assert "lora of rank 2 on attention, mlp" in finding.text
    all_learn = find_start(config(folder), open_parts(given)).lines()[-1]
    numbers = there - 2 * on_each
    assert all_learn.split() == f"learn {numbers:,} of {numbers:,} numbers (100.0%)".split()


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 0}, "lora.rank"),
        ({"rank": 9}, "lora.rank is 9, and the smaller side of attention.query is 8; choose 8 or less"),
        ({"on": ["attention.gate", "mlp"]}, "names attention.gate, which no block has; there are attention, mlp, "),
        ({"on": []}, "lora.on"),
        ({"alpha": 0}, "lora.alpha"),
        ({"export": "both"}, "lora.export"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(folder, lora, message):
    with pytest.raises(InputError, match=message):
        config(folder, start={"lora": lora})


def test_the_smaller_side_is_that_of_what_is_adapted(folder):
    narrow = {"mlp_ratio": 0.5}
    assert config(folder, start={"lora": {"rank": 8, "on": ["attention"]}}, model=narrow)
    with pytest.raises(InputError, match=r"smaller side of mlp.expand is 4"):
        config(folder, start={"lora": {"rank": 5}}, model=narrow)


def test_factors_are_frozen_by_no_name(folder):
    with pytest.raises(InputError, match=r"names blocks\.0\.mlp\.expand\.lora_a, which no weight's name starts with"):
        begun(folder, start=LORA | {"freeze": ["blocks.0.mlp.expand.lora_a"]})
