"""The folded aggregation is the token aggregation: outputs, every gradient, and bounded memory."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from weatherfm.model.aggregation import AggregationConfig, ChannelAttention
from weatherfm.model.tokenizer import ChannelTokenizer, TokenizerRows

# relative errors: float64 leaves rounding alone; float32 sums of some thousand terms in another order
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
SHAPES = [
    # batch, positions, channels, patch values, width, heads
    (2, 6, 5, 4, 16, 4),
    (1, 1, 2, 1, 8, 1),
    (3, 7, 48, 4, 32, 8),
    (2, 16, 80, 16, 64, 4),
]


def build(form, channels, patch_values, width, heads, dtype, block_mib=8.0):
    torch.manual_seed(1)
    tokenizer = ChannelTokenizer(channels, patch_values, width)
    attention = ChannelAttention(width, heads, AggregationConfig(evaluate=form, block_mib=block_mib), channels)
    for parameter in [*tokenizer.parameters(), *attention.parameters()]:
        torch.nn.init.normal_(parameter, std=0.5)  # no parameter starts at zero, so each gradient says something
    return tokenizer.to(dtype), attention.to(dtype)


def run(tokenizer, attention, patches, present=None):
    """Output and gradients by name, the input's among them."""
    patches = patches.clone().requires_grad_()
    out = attention(patches, tokenizer, present)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    (out * weights).sum().backward()
    gradients = {f"tokenizer.{n}": p.grad for n, p in tokenizer.named_parameters()}
    gradients |= {f"attention.{n}": p.grad for n, p in attention.named_parameters()}
    return {"output": out.detach(), "input": patches.grad, **gradients}


def assert_same(reference, other, tolerance):
    assert reference.keys() == other.keys()
    for name, expected in reference.items():
        assert expected.norm() > 0, name
        error = (other[name] - expected).norm() / expected.norm()
        assert error < tolerance, f"{name}: relative error {error:.2e}"


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("block_mib", [8.0, 0.002])
def test_folded_equals_tokens(shape, dtype, block_mib):
    B, N, C, P, D, heads = shape
    patches = torch.randn(B, N, C, P, dtype=dtype)
    reference = run(*build("tokens", C, P, D, heads, dtype), patches)
    folded = run(*build("folded", C, P, D, heads, dtype, block_mib), patches)
    assert_same(reference, folded, TOLERANCE[dtype])


def test_single_channel_is_its_value_projection():
    tokenizer, attention = build("folded", 1, 4, 8, 2, torch.float64)
    patches = torch.randn(2, 3, 1, 4, dtype=torch.float64)
    expected = attention.out(attention.value(tokenizer(patches)[0][:, :, 0]))
    torch.testing.assert_close(attention(patches, tokenizer), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_absent_channels_agree_and_have_no_influence(dtype):
    B, N, C, P, D, heads = 3, 5, 9, 4, 16, 4
    present = torch.ones(B, C, dtype=torch.bool)
    present[0, 2] = present[1, :4] = present[2, 1:] = False
    patches = torch.randn(B, N, C, P, dtype=dtype)
    reference = run(*build("tokens", C, P, D, heads, dtype), patches, present)
    folded = run(*build("folded", C, P, D, heads, dtype, 0.002), patches, present)
    assert_same(reference, folded, TOLERANCE[dtype])
    other = patches + 100 * ~present[:, None, :, None]
    torch.testing.assert_close(run(*build("folded", C, P, D, heads, dtype), other, present)["output"], folded["output"])
    assert folded["input"][0, :, 2].abs().max() == 0


@pytest.mark.parametrize("form", ["tokens", "folded"])
def test_channel_subset_equals_absent_channels(form):
    tokenizer, attention = build(form, 6, 4, 16, 4, torch.float64)
    keep = [4, 1, 5]
    smaller = ChannelTokenizer(3, 4, 16).double()
    smaller.load_state_dict({name: value[keep] for name, value in tokenizer.state_dict().items()})
    patches = torch.randn(2, 5, 6, 4, dtype=torch.float64)
    present = torch.zeros(2, 6, dtype=torch.bool)
    present[:, keep] = True
    subset = attention(patches[:, :, keep], smaller)
    torch.testing.assert_close(subset, attention(patches, tokenizer, present), rtol=1e-12, atol=1e-12)


def test_tokens_form_is_torch_multihead_attention():
    tokenizer, attention = build("tokens", 7, 4, 16, 4, torch.float64)
    reference = torch.nn.MultiheadAttention(16, 4, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        weights = [layer.weight for layer in (attention.query, attention.key, attention.value)]
        biases = [attention.query.bias, torch.randn(16, dtype=torch.float64), attention.value.bias]
        reference.in_proj_weight.copy_(torch.cat(weights))
        reference.in_proj_bias.copy_(torch.cat(biases))  # any key bias: it cancels
        reference.out_proj.load_state_dict(attention.out.state_dict())
    patches = torch.randn(2, 3, 7, 4, dtype=torch.float64)
    tokens = tokenizer(patches)[0].flatten(0, 1)
    expected, _ = reference(attention.latent.expand(6, 1, -1), tokens, tokens)
    torch.testing.assert_close(attention(patches, tokenizer).flatten(0, 1), expected[:, 0], rtol=1e-12, atol=1e-12)


def test_projections_that_hold_some_of_the_heads_give_their_part_of_the_output():
    """So are heads split over devices: rows of query, key and value, columns of out, whose bias is added once."""
    tokenizer, attention = build("tokens", 5, 4, 16, 4, torch.float64)
    patches = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    parts = []
    for own in (slice(0, 4), slice(4, 16)):  # one head, and three
        part = deepcopy(attention)
        for layer in (part.query, part.key, part.value):
            layer.weight = torch.nn.Parameter(layer.weight[own])
            layer.bias = None if layer.bias is None else torch.nn.Parameter(layer.bias[own])
        part.out.weight, part.out.bias = torch.nn.Parameter(part.out.weight[:, own]), None
        parts.append(part(patches, tokenizer))
    expected = attention(patches, tokenizer)
    torch.testing.assert_close(sum(parts) + attention.out.bias, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["tokens", "folded"])
def test_log_mass_is_the_weight_with_which_parts_are_merged(form):
    tokenizer, attention = build(form, 7, 4, 16, 4, torch.float64)
    patches = torch.randn(2, 3, 7, 4, dtype=torch.float64)
    expected = attention(patches, tokenizer)
    parts = []
    attention.merge = lambda mixed, log_mass: parts.append((mixed, log_mass)) or mixed
    for own in (slice(0, 1), slice(1, 5), slice(5, 7)):  # uneven
        attention(patches[:, :, own], TokenizerRows(tokenizer.weight[own], tokenizer.offset[own]))
    share = torch.stack([log_mass for _, log_mass in parts]).softmax(0)  # [parts, B, N, h]
    mixed = torch.stack([mixed for mixed, _ in parts]).unflatten(-1, (4, 4)) * share.unsqueeze(-1)
    torch.testing.assert_close(attention.out(mixed.sum(0).flatten(-2)), expected, rtol=1e-12, atol=1e-12)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation's result has."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


def test_folded_memory_is_bounded_by_the_block_forward_and_backward():
    B, N, C, P, D, heads = 2, 256, 40, 4, 32, 8
    whole = B * heads * N * C * P
    patches = torch.randn(B, N, C, P)
    largest = {}
    for block_mib in (0.05, 1e3):
        tokenizer, attention = build("folded", C, P, D, heads, torch.float32, block_mib)
        with LargestTensor() as seen:
            attention(patches, tokenizer).sum().backward()
        largest[block_mib] = seen.elements
    assert largest[1e3] == whole  # the mode does see the large intermediate when nothing bounds it
    assert largest[0.05] <= max(0.05 * 2**20 / 4, patches.numel())


def test_rejects_a_block_of_nothing():
    with pytest.raises(ValueError, match="block_mib"):
        AggregationConfig(block_mib=0)
