"""Hierarchical aggregation: folded is the token form in every variant, and a group's token is its own."""

from __future__ import annotations

import pytest
import torch
from test_aggregation import LargestTensor, assert_same, run
from toy_model import assert_autocast_stays_close, make_domain, make_model

from weatherfm.model.aggregation import AggregationConfig
from weatherfm.model.hierarchical import HierarchicalAggregation
from weatherfm.model.tokenizer import ChannelTokenizer

# relative errors: float64 leaves rounding alone; float32 sums in another order, through three attentions at most
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
# the group of every input: uneven groups, and channels of a group that are no neighbours (states, then other inputs)
OWNERS = [0, 0, 0, 1, 1, 1, 2, 2, 0, 0, 0, 1, 1, 1, 2, 2, 2, 1, 2]
VARIANTS = [{"local": local, "tree": tree} for local in ("attention", "linear") for tree in (1, 2, 3)]


def build(form, variant, dtype, owners=OWNERS, patch_values=4, width=16, heads=4, **settings):
    torch.manual_seed(1)
    settings = {"kind": "hierarchical", "groups": max(owners) + 1, "evaluate": form, **variant, **settings}
    tokenizer = ChannelTokenizer(len(owners), patch_values, width)
    aggregation = HierarchicalAggregation(width, heads, AggregationConfig(**settings), owners)
    for parameter in [*tokenizer.parameters(), *aggregation.parameters()]:
        torch.nn.init.normal_(parameter, std=0.5)
    return tokenizer.to(dtype), aggregation.to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("block_mib", [8.0, 0.002])
def test_folded_equals_tokens(variant, dtype, block_mib):
    patches = torch.randn(2, 6, len(OWNERS), 4, dtype=dtype)
    reference = run(*build("tokens", variant, dtype), patches)
    assert_same(reference, run(*build("folded", variant, dtype, block_mib=block_mib), patches), TOLERANCE[dtype])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_absent_channels_agree_and_have_no_influence(variant):
    patches = torch.randn(3, 5, len(OWNERS), 4, dtype=torch.float64)
    present = torch.ones(3, len(OWNERS), dtype=torch.bool)
    present[0, [3, 8]] = False
    present[1] = torch.tensor(OWNERS) != 2  # this sample has nothing of group 2
    present[2] = torch.arange(len(OWNERS)) == 4  # and this one a single channel
    reference = run(*build("tokens", variant, torch.float64), patches, present)
    folded = run(*build("folded", variant, torch.float64), patches, present)
    assert_same(reference, folded, 1e-10)
    other = patches + 100 * ~present[:, None, :, None]
    for form in ("tokens", "folded"):
        again = run(*build(form, variant, torch.float64), other, present)
        torch.testing.assert_close(again["output"], folded["output"], rtol=1e-10, atol=1e-10)
        assert again["input"].transpose(1, 2)[~present].abs().max() == 0


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_group_without_channels_is_as_if_it_were_not_there(variant):
    tokenizer, aggregation = build("folded", variant, torch.float64)
    patches = torch.randn(2, 5, len(OWNERS), 4, dtype=torch.float64)
    present = (torch.tensor(OWNERS) != 1).expand(2, -1)
    expected = aggregation(patches, tokenizer, present)
    with torch.no_grad():
        for parameter in aggregation.groups["1"].parameters():
            parameter.normal_()
    torch.testing.assert_close(aggregation(patches, tokenizer, present), expected)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("form", ["tokens", "folded"])
def test_every_channel_counts_and_is_not_any_other(variant, form):
    """The public code let every rank tokenise the first channels instead of its own."""
    tokenizer, aggregation = build(form, variant, torch.float64)
    patches = torch.randn(1, 3, len(OWNERS), 4, dtype=torch.float64)
    expected = aggregation(patches, tokenizer)
    for c in range(len(OWNERS)):
        changed = patches.clone()
        changed[:, :, c] += 1
        assert (aggregation(changed, tokenizer) - expected).abs().max() > 1e-6, c
        swapped = patches.clone()
        swapped[:, :, [c, c - 1]] = patches[:, :, [c - 1, c]]
        assert (aggregation(swapped, tokenizer) - expected).abs().max() > 1e-6, c


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_group_alone_makes_the_token_it_makes_among_others(variant):
    tokenizer, aggregation = build("folded", variant, torch.float64)
    patches = torch.randn(2, 5, len(OWNERS), 4, dtype=torch.float64)
    tokens = []
    aggregation.gather = lambda own: tokens.append(own) or own
    aggregation(patches, tokenizer)
    for group in range(3):
        keep = [c for c, owner in enumerate(OWNERS) if owner == group]
        rows = ChannelTokenizer(len(keep), 4, 16).double()
        rows.load_state_dict({name: value[keep] for name, value in tokenizer.state_dict().items()})
        part = HierarchicalAggregation(16, 4, aggregation.groups["0"].leaves[0].config, [group] * len(keep)).double()
        part.load_state_dict(aggregation.state_dict(), strict=False)
        part.gather = lambda own: tokens.append(own) or own
        part(patches[:, :, keep], rows)
        assert list(part.groups) == [str(group)]
        torch.testing.assert_close(tokens[-1][:, :, 0], tokens[0][:, :, group], rtol=1e-12, atol=1e-12)


def test_split_keeps_some_positions():
    tokenizer, aggregation = build("folded", {}, torch.float64)
    patches = torch.randn(2, 5, len(OWNERS), 4, dtype=torch.float64)
    expected = aggregation(patches, tokenizer)
    aggregation.split = lambda x: x[:, 1:3]
    torch.testing.assert_close(aggregation(patches, tokenizer), expected[:, 1:3])


def test_linear_groups_are_the_weighted_sum_of_their_tokens():
    tokenizer, aggregation = build("folded", {"local": "linear"}, torch.float64, owners=[0, 0, 0])
    patches = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    leaf = aggregation.groups["0"].leaves[0]
    expected = (tokenizer(patches)[0] * leaf.weight[:, None]).sum(2) + leaf.bias
    torch.testing.assert_close(leaf(patches, tokenizer), expected, rtol=1e-12, atol=1e-12)


def test_memory_of_level_1_is_bounded_by_the_block_forward_and_backward():
    owners = [0] * 20 + [1] * 20
    patches = torch.randn(2, 256, 40, 4)
    tokenizer, aggregation = build("folded", {}, torch.float32, owners=owners, width=32, heads=8, block_mib=0.05)
    with LargestTensor() as seen:
        aggregation(patches, tokenizer).sum().backward()
    assert seen.elements <= patches.numel()  # not heads times as much
    tokenizer, aggregation = build("folded", {"local": "linear"}, torch.float32, owners=owners, width=16)
    with LargestTensor() as seen:
        aggregation(patches, tokenizer).sum().backward()
    assert seen.elements <= patches.numel()  # no tokens


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_model_trains_every_parameter_and_autocast_stays_close(variant):
    settings = {"kind": "hierarchical", "groups": 2, **variant}
    domain = make_domain(channels=("z500", "t850", "msl", "u10", "v10"), static=2)
    model = make_model(domain, input_times=["0h", "-24h"], aggregation=settings)
    assert_autocast_stays_close(model).square().sum().backward()
    dead = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0]
    assert dead == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "hierarchical"}, r"needs aggregation\.groups"),
        ({"kind": "hierarchical", "groups": 0}, "groups"),
        ({"kind": "hierarchical", "groups": 2, "tree": 0}, "tree"),
        ({"groups": 4}, r"aggregation\.groups belongs to aggregation\.kind hierarchical"),
        ({"local": "linear"}, r"aggregation\.local belongs to"),
        ({"tree": 2}, r"aggregation\.tree belongs to"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AggregationConfig(**settings)
