"""Initial values are a function of seed and name: the same rows on every share, on any device, in any order."""

from __future__ import annotations

import pytest
import torch
from toy_model import inputs, make_domain, make_model

from weatherfm.model.architecture import ModelConfig
from weatherfm.model.initial import initial_tensor, initialise, row_names
from weatherfm.model.model import WeatherViT
from weatherfm.model.position import sincos_position
from weatherfm.model.share import channel_shares

CHANNELS = ("z500", "t850", "msl", "u10", "v10")
FORMS = [{}, {"kind": "hierarchical", "groups": 4}, {"kind": "hierarchical", "groups": 4, "local": "linear"}]


def config(**settings):
    return ModelConfig(**({"width": 32, "depth": 2, "heads": 4, "input_times": ["0h", "-6h"]} | settings))


@pytest.mark.parametrize("aggregation", FORMS, ids=str)
@pytest.mark.parametrize("predict", ["state", "increment"])
def test_a_share_starts_from_the_rows_of_the_whole_model(aggregation, predict):
    local = {"mlp_convolution": True, "decoder_fields": 2}
    settings, domain = (
        config(aggregation=aggregation, predict=predict, **local),
        make_domain(channels=CHANNELS, static=2),
    )
    serial = WeatherViT(settings, domain)
    initialise(serial, 7)
    held = {name: set() for name, _ in serial.named_parameters()}
    for share in channel_shares(settings, domain, 4):
        model = WeatherViT(settings, domain, share)
        initialise(model, 7)
        for name, parameter in model.named_parameters():
            rows, expected = row_names(serial, name), serial.get_parameter(name)
            own = row_names(model, name)
            assert torch.equal(parameter, expected if rows is None else expected[[rows.index(row) for row in own]])
            held[name] |= set(own or [None])
    assert {name: len(rows) for name, rows in held.items()} == {
        name: len(row_names(serial, name) or [None]) for name in held
    }


def test_on_the_meta_device_there_are_no_values_until_they_are_asked_for():
    settings, domain = config(), make_domain(static=2)
    reference = WeatherViT(settings, domain)
    with torch.device("meta"):
        model = WeatherViT(settings, domain)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    for name, expected in reference.named_parameters():
        assert torch.equal(initial_tensor(model, name, 0), expected)
    model.to_empty(device="cpu")
    model.set_statistics()
    initialise(model, 0)
    for (name, given), expected in zip(model.named_buffers(), reference.buffers(), strict=True):
        assert torch.equal(given, expected), name
    batch = inputs(model)
    assert torch.equal(model(*batch), reference(*batch))


def test_seeds_and_names_give_other_values_and_nothing_else_does():
    first, second = (WeatherViT(config(predict="state"), make_domain()) for _ in range(2))
    torch.manual_seed(1)
    initialise(second, 0)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    initialise(second, 1)
    random = [name for name, p in first.named_parameters() if not torch.equal(p, second.get_parameter(name))]
    assert {"tokenizer.embedding", "to_patches.weight", "blocks.1.mlp.expand.weight", "lead_time.weight"} <= set(random)
    assert not any(name.endswith(("bias", "norm.weight", "position.weight", "latent")) for name in random)
    same_shape = [first.get_parameter(f"blocks.{i}.attention.query.weight") for i in (0, 1)]
    assert not torch.equal(*same_shape)
    rows = first.tokenizer.weight.flatten(1)
    assert len(torch.unique(rows, dim=0)) == len(rows)


@pytest.mark.parametrize("channels", [3, 40, 160])
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"kind": "hierarchical", "groups": 3},
        {"kind": "hierarchical", "groups": 3, "tree": 2},
        {"kind": "hierarchical", "groups": 3, "local": "linear", "tree": 2},
    ],
    ids=str,
)
def test_what_reaches_the_blocks_has_the_variance_of_one_token(form, channels):
    """A mean of C independent tokens has a C-th of it: of many channels nothing would be left.

    Of half the channels a mean has twice the variance, a sum half of it: either stays near one.
    """
    names = tuple(f"{v}{level}" for v in "ztuvqrwd" for level in range(100, 1000, 45))[:channels]
    model = make_model(make_domain(channels=names), width=64, aggregation=form)
    torch.manual_seed(0)
    patches = torch.randn(4, 8, len(model.share.input_names([0])), 16)
    half = torch.arange(patches.shape[2]).expand(4, -1) % 2 == 0
    for present, expected in ((None, 1.0), (half, 0.5 if form.get("local") == "linear" else 2.0)):
        variance = model.aggregation(patches, model.tokenizer, present).var(0).mean().item()
        assert variance == pytest.approx(expected, rel=0.35)
    assert model.tokenizer(patches)[0].var(0).mean().item() == pytest.approx(1.0, rel=0.1)


def test_global_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    model = make_model()
    torch.manual_seed(3)
    initialise(model, 5)
    assert torch.equal(torch.rand(3), expected)


def test_distributions():
    model = WeatherViT(config(width=128, predict="state", depth=1), make_domain())
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}
    assert values["tokenizer.weight"].std() == pytest.approx(0.25, rel=0.03)  # 16 values in a patch
    assert values["tokenizer.embedding"].std() == pytest.approx(0.02, rel=0.1)
    bound = (6 / 256) ** 0.5
    assert 0.95 * bound < values["aggregation.value.weight"].abs().max() <= bound
    assert values["blocks.0.mlp.expand.weight"].std() == pytest.approx(0.02, rel=0.03)
    assert values["to_patches.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(values["position.weight"], sincos_position(model.tokens, 128))
    assert (values["norm.weight"] == 1).all()
    assert all((p == 0).all() for name, p in values.items() if name.endswith(("bias", "latent")))
    assert (make_model().to_patches.weight == 0).all()  # increments: persistence


def test_linear_aggregation_starts_as_a_sum_of_the_variance_of_one_token():
    model = make_model(aggregation={"kind": "hierarchical", "groups": 1, "local": "linear"})
    leaf = model.aggregation.groups["0"].leaves[0]
    torch.testing.assert_close(leaf.weight.square().sum(), torch.tensor(1.0))
    assert leaf.bias == 0
