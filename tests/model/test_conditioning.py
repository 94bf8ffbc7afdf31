"""Adaptive norms: what they compute, that they start as nothing, and what they are told of a sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy_model import clock_of, inputs, make_domain, make_model, scramble

from weatherfm.config import parse_settings
from weatherfm.earth.forcings import CLOCK, clock, forcing_fields
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.loading import load_weights
from weatherfm.model.weights import save_weights


def test_a_block_is_the_formula():
    model = scramble(make_model(conditioning="adaln")).double()
    block = model.blocks[1]
    x, changes = torch.randn(2, 8, 32, dtype=torch.float64), torch.randn(2, 6, 32, dtype=torch.float64)
    for i in range(2):  # a sample has changes of its own
        expected, own = x[i : i + 1], changes[i]
        for layer, (shift, scale, gate) in ((block.attention, own[:3]), (block.mlp, own[3:])):
            normal = (expected - expected.mean(-1, keepdim=True)) / (
                expected.var(-1, correction=0, keepdim=True) + 1e-5
            ).sqrt()
            expected = expected + gate * layer(normal * (1 + scale) + shift)
        torch.testing.assert_close(block(x, changes)[i : i + 1], expected)


def test_each_block_starts_as_the_identity():
    model = make_model(conditioning="adaln", predict="state")
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model.head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(*inputs(model), condition=clock_of(model))
    torch.testing.assert_close(seen[1], F.layer_norm(seen[0], (32,)))
    torch.testing.assert_close(seen[1].var(-1, correction=0), torch.ones(2, 8), rtol=1e-3, atol=0)


def test_an_untrained_increment_model_is_persistence():
    model = make_model(conditioning="adaln")
    history, forcings, lead = inputs(model)
    assert torch.equal(model(history, forcings, lead, condition=clock_of(model)), history[:, 0])


def test_what_blocks_are_told_begins_near_one_and_tells_lead_times_apart():
    conditioning = make_model(conditioning="adaln", width=64).conditioning
    hidden = []
    conditioning.last.register_forward_pre_hook(lambda module, given: hidden.append(given[0]))
    leads = torch.tensor([6, 12, 24, 48, 72, 120, 240])
    assert (conditioning(leads, torch.zeros(7, len(CLOCK))) == 0).all()
    (told,) = hidden
    assert 0.1 < told.square().mean().sqrt() < 1
    apart = torch.cdist(told, told) + torch.eye(7) * 9
    assert apart.min() > 0.1 * told.norm(dim=-1).mean()


def test_gates_learn_first_and_everything_afterwards():
    model = make_model(conditioning="adaln", position="place", head_depth=1)
    batch, condition = inputs(model), clock_of(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        model(*batch, condition=condition).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.norm() > 0 for parameter in model.parameters())


def test_lead_time_and_every_number_of_the_clock_count():
    model = scramble(make_model(conditioning="adaln")).double()
    history, forcings, lead = inputs(model, dtype=torch.float64)
    condition = clock_of(model, dtype=torch.float64)
    expected = model(history, forcings, lead, condition=condition)
    assert not torch.allclose(model(history, forcings, lead + 24, condition=condition), expected)
    for k in range(len(CLOCK)):
        other = condition.clone()
        other[1, k] += 0.5
        found = model(history, forcings, lead, condition=other)
        torch.testing.assert_close(found[0], expected[0])
        assert not torch.allclose(found[1], expected[1])


def test_under_autocast_the_stream_stays_exact_and_a_small_scale_counts():
    model = scramble(make_model(conditioning="adaln", position="place", predict="state"))
    seen = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda module, given: seen.append(given[0].dtype))
        block.attention.query.register_forward_pre_hook(lambda module, given: seen.append(given[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(*inputs(model), condition=clock_of(model))
    assert seen == [torch.float32, torch.bfloat16] * 2


def test_the_clock_is_that_of_the_forcings_at_greenwich():
    times = np.array(["1959-01-01T00", "2000-06-21T06", "2021-12-31T18"], "datetime64[s]")
    grid = Grid(np.array([10.0, 0.0]), np.array([0.0, 1.0]))
    told = clock(CLOCK, times)
    assert told.dtype == np.float32
    np.testing.assert_allclose(told, forcing_fields(CLOCK, times, grid)[:, :, 0, 0], atol=1e-6)
    np.testing.assert_allclose(clock(CLOCK[1:3], times), told[:, 1:3])
    assert clock((), times).shape == (3, 0)
    np.testing.assert_allclose(told[1, [0, 2]], [1, 0], atol=1e-6)  # a quarter of the day is over


@pytest.mark.parametrize(("conditioning", "columns"), [("adaln", None), ("adaln", 3), ("embed", 4)])
def test_another_number_of_conditions_is_refused(conditioning, columns):
    model = make_model(conditioning=conditioning)
    condition = None if columns is None else torch.zeros(2, columns)
    with pytest.raises(
        InputError, match=f"conditioned on {len(model.conditions)} numbers a sample, got {columns or 0}"
    ):
        model(*inputs(model), condition=condition)


def test_weights_go_to_a_file_and_back(tmp_path):
    model = scramble(make_model(conditioning="adaln", position="place", mlp_convolution=True)).eval()
    save_weights(tmp_path / "weights.safetensors", model, {})
    loaded = load_weights(tmp_path / "weights.safetensors")
    assert (loaded.config.conditioning, loaded.config.position) == ("adaln", "place")
    given, condition = inputs(model), clock_of(model)
    assert torch.equal(loaded(*given, condition=condition), model(*given, condition=condition))


def test_models_without_it_are_recorded_as_before():
    plain = ModelConfig(width=32, heads=4)
    assert not {"conditioning", "position"} & set(plain.model_dump(mode="json"))
    assert ModelConfig(conditioning="embed", position="learned").model_dump() == ModelConfig().model_dump()
    changed = ModelConfig(conditioning="adaln", position="place")
    record = changed.model_dump(mode="json")
    assert (record["conditioning"], record["position"]) == ("adaln", "place")
    assert ModelConfig(**record) == changed
    embed = dict(make_model(make_domain()).named_parameters())
    assert "lead_time.weight" in embed
    assert not any(name.startswith("conditioning") for name in embed)


@pytest.mark.parametrize("setting", [{"conditioning": "film"}, {"position": "rotary"}], ids=str)
def test_unknown_values_are_refused(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        parse_settings(ModelConfig, setting, "test")
