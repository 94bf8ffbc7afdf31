"""Low-rank adaptation: the layer computes what NumPy does of W + s B A, and begins as the layer it stands in for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from toy_model import inputs, make_model, scramble

from weatherfm.model.initial import initial_tensor
from weatherfm.model.lora import MATRICES, AdaptedLinear, adapt, is_factor, merged

ALL = [name for names in MATRICES.values() for name in names]


def adapted(matrices=ALL, rank=3, scale=0.5):
    """A model in float64 and the same with factors, which are not zero."""
    plain = scramble(make_model()).double().eval()
    model = scramble(make_model()).double().eval()
    adapt(model.blocks, matrices, rank, scale)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_factor(name):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    return plain, model


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_multiplies_with_the_sum(bias):
    rng = np.random.default_rng(0)
    x, w, a, b = (rng.normal(size=shape) for shape in ((2, 3, 5), (7, 5), (2, 5), (7, 2)))
    layer = AdaptedLinear(nn.Linear(5, 7, bias).double(), rank=2, scale=1.5)
    with torch.no_grad():
        for name, value in (("weight", w), ("lora_a", a), ("lora_b", b)):
            layer.get_parameter(name).copy_(torch.from_numpy(value))
    offset = layer.bias.detach().numpy() if bias else 0
    y = layer(torch.from_numpy(x))
    np.testing.assert_allclose(y.detach().numpy(), x @ (w + 1.5 * b @ a).T + offset, rtol=1e-12)
    y.square().sum().backward()
    of_sum = np.einsum("bno,bni->oi", 2 * y.detach().numpy(), x)  # dL / d(W + s B A)
    np.testing.assert_allclose(layer.lora_a.grad.numpy(), 1.5 * b.T @ of_sum, rtol=1e-10)
    np.testing.assert_allclose(layer.lora_b.grad.numpy(), 1.5 * of_sum @ a.T, rtol=1e-10)


def test_merged_weights_are_the_sum_by_hand():
    plain, model = adapted(["attention.key"])
    found = merged(dict(model.named_parameters()), 0.5)
    assert found.keys() == dict(plain.named_parameters()).keys()
    for name, value in plain.named_parameters():
        expected = value.detach().numpy()
        if name.endswith("attention.key.weight"):
            path = name.removesuffix("weight")
            a, b = (model.get_parameter(path + factor).detach().numpy() for factor in ("lora_a", "lora_b"))
            assert np.abs(b @ a).max() > 0.1
            expected = expected + 0.5 * b @ a
        np.testing.assert_allclose(found[name].detach().numpy(), expected, rtol=1e-15, atol=1e-15)


def test_a_merged_model_forecasts_the_same():
    plain, model = adapted()
    given = [x.double() if x.is_floating_point() else x for x in inputs(model)]
    before = plain(*given)
    plain.load_state_dict(merged(model.state_dict(), 0.5))
    torch.testing.assert_close(plain(*given), model(*given), rtol=1e-12, atol=1e-12)
    assert (before - model(*given)).abs().max() > 1e-3


def test_factors_begin_without_an_effect_and_by_name_alone():
    model, fewer = make_model(), make_model()
    adapt(model.blocks, ALL, 3, 1.0)
    adapt(fewer.blocks[1:], ["mlp.expand"], 3, 1.0)
    name = "blocks.1.mlp.expand"
    a, b = (initial_tensor(model, f"{name}.{factor}", 7) for factor in ("lora_a", "lora_b"))
    assert a.shape == (3, model.config.width)
    assert not b.any()
    assert torch.equal(a, initial_tensor(fewer, f"{name}.lora_a", 7))
    assert not torch.equal(a, initial_tensor(fewer, f"{name}.lora_a", 8))
    assert not torch.equal(a, initial_tensor(model, "blocks.0.mlp.expand.lora_a", 7))
    wide = AdaptedLinear(nn.Linear(4096, 8), 8, 1.0)
    holder = make_model()
    holder.blocks[0].mlp.expand = wide
    drawn = initial_tensor(holder, "blocks.0.mlp.expand.lora_a", 0)
    assert drawn.std().item() == pytest.approx(4096**-0.5, rel=0.02)  # 32768 numbers: 0.4 %
