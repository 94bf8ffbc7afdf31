from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from toy_model import inputs, make_model

from weatherfm.training.run_config import TrainingConfig
from weatherfm.training.stepping.optimizer import (
    build_optimizer,
    clip_gradients,
    decays,
    describe_schedule,
    learning_rate,
    parameter_groups,
    squared_gradients,
)


def test_matrices_decay_and_nothing_else():
    model = make_model(depth=1)
    still = {name for name, p in model.named_parameters() if not decays(name, p)}
    moving = {name for name, p in model.named_parameters() if decays(name, p)}
    assert {"position.weight", "tokenizer.bias", "tokenizer.embedding", "aggregation.latent", "norm.weight"} <= still
    assert {"tokenizer.weight", "blocks.0.attention.query.weight", "to_patches.weight"} <= moving
    assert all(not name.endswith("bias") and "norm" not in name for name in moving)
    groups = parameter_groups(model, 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_decay_shrinks_a_matrix_but_no_embedding():
    model = make_model(depth=1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, TrainingConfig(weight_decay=0.5, learning_rate=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(model.position.weight, before["position.weight"])
    torch.testing.assert_close(model.tokenizer.weight, before["tokenizer.weight"] * (1 - 0.1 * 0.5))


def test_learning_rate_rises_then_falls_to_the_minimum():
    config = TrainingConfig(steps=100, warmup_steps=10, learning_rate=1.0, min_learning_rate=0.1)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55)  # half way: the middle between both ends
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 89 / 90)) / 2)
    assert learning_rate(100, config) == pytest.approx(0.1)


def test_learning_rate_where_warmup_outlasts_the_run():
    config = TrainingConfig(steps=5, warmup_steps=50, learning_rate=1.0)
    assert [learning_rate(step, config) for step in range(5)] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])


def test_constant_then_a_cooldown_as_one_minus_a_root():
    config = TrainingConfig(
        schedule="constant_cooldown", steps=100, warmup_steps=10, cooldown_steps=16, learning_rate=1.0,
        min_learning_rate=0.2,
    )  # fmt: skip
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(rates[10:85]) == {1.0}  # the first step of the cooldown is still as before, as that of a cosine is
    assert [rates[84 + d] for d in (1, 4, 9)] == pytest.approx([0.2 + 0.8 * rest for rest in (3 / 4, 1 / 2, 1 / 4)])
    assert rates[99] == pytest.approx(0.2 + 0.8 * (1 - 15**0.5 / 4))
    assert learning_rate(100, config) == pytest.approx(0.2)


def test_before_the_cooldown_no_bit_follows_from_its_end():
    assert 0.001 + (0.01 - 0.001) != 0.01
    cooling = {"schedule": "constant_cooldown", "learning_rate": 0.01, "warmup_steps": 0}
    for end in ({}, {"min_learning_rate": 0.001}, {"min_learning_rate": 0.001, "cooldown_steps": 300}):
        assert {learning_rate(step, TrainingConfig(**cooling, **end)) for step in range(700)} == {0.01}


@pytest.mark.parametrize(("steps", "begins"), [(1000, 900), (60, 54), (19, 18), (5, 4)])
def test_without_a_length_the_cooldown_takes_a_tenth(steps, begins):
    config = TrainingConfig(schedule="constant_cooldown", steps=steps, warmup_steps=0)
    assert config.cooldown_begins == begins
    assert TrainingConfig(steps=steps).cooldown_begins is None


def test_schedules_in_words():
    cooling = {"schedule": "constant_cooldown", "steps": 60, "learning_rate": 1e-3, "min_learning_rate": 1e-5}
    assert describe_schedule(TrainingConfig(**cooling)) == (
        "learning rate 0.001: rising over 50 steps, constant, from step 54 on falling to 1e-05"
    )
    assert describe_schedule(TrainingConfig(warmup_steps=0)) == "learning rate 0.0005: falling along a cosine to 0"


def test_clipping_scales_the_whole_gradient():
    layer = nn.Linear(2, 1)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    norm = squared_gradients(layer.parameters()).sqrt()
    assert norm.item() == pytest.approx(5.0)
    clip_gradients(layer.parameters(), None, norm)
    assert layer.bias.grad.item() == 4.0
    clip_gradients(layer.parameters(), 1.0, norm)
    assert squared_gradients(layer.parameters()).item() == pytest.approx(1.0, rel=1e-5)
    assert layer.bias.grad.item() == pytest.approx(0.8, rel=1e-5)


def test_every_parameter_learns():
    model = make_model(depth=1)
    torch.nn.init.normal_(model.to_patches.weight)
    torch.nn.init.normal_(model.aggregation.latent)
    model(*inputs(model)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
