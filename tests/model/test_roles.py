"""Channels that only go in, or only come out: which they are, who holds them, and what the model makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_model import inputs, make_domain, make_model, scramble

from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.initial import row_names
from weatherfm.model.model import WeatherViT
from weatherfm.model.present import present_inputs
from weatherfm.model.roles import find_roles
from weatherfm.model.share import channel_shares, whole

CHANNELS = ("z500", "z700", "t850", "sst", "tp")
ROLES = {"inputs": ["-tp"], "outputs": ["-sst"]}


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("given", "inputs", "outputs"),
    [
        ({}, CHANNELS, CHANNELS),
        (ROLES, ("z500", "z700", "t850", "sst"), ("z500", "z700", "t850", "tp")),
        ({"inputs": ["sst", "z"], "outputs": ["t850", "z700", "tp"]}, ("z500", "z700", "sst"), ("z700", "t850", "tp")),
        ({"outputs": ["-z"]}, CHANNELS, ("t850", "sst", "tp")),
    ],
)
def test_names_of_channels_and_variables_and_all_others(given, inputs, outputs):
    found = find_roles(ModelConfig(**given), CHANNELS)
    assert (found.inputs, found.outputs) == (inputs, outputs)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": ["q500"]}, "model.inputs names q500, no channel or variable of data.channels; remove or add them"),
        ({"outputs": ["-z", "-t850", "-sst", "-tp"]}, r"model.outputs \[-z, -t850, -sst, -tp\] leaves no channel"),
        ({"inputs": ["-tp"], "outputs": ["-tp"]}, "tp would neither go into the model nor come out; add to"),
    ],
)
def test_names_that_mean_nothing_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        find_roles(ModelConfig(**given), CHANNELS)


def test_a_list_with_and_without_minus_is_refused():
    with pytest.raises(ValueError, match=r"model.inputs \[-tp, sst\] has names with and without a minus"):
        ModelConfig(inputs=["-tp", "sst"])


@pytest.mark.parametrize("aggregation", [{}, {"kind": "hierarchical", "groups": 4}])
@pytest.mark.parametrize("roles", [ROLES, {"inputs": ["sst", "z", "t"], "outputs": ["tp", "z", "t"]}])
def test_every_share_sees_something_and_predicts_something(aggregation, roles):
    config = ModelConfig(aggregation=aggregation, width=32, heads=4, **roles)
    domain = make_domain(channels=CHANNELS, static=2)
    everything = whole(config, domain)
    for count in (1, 2, 4):
        shares = channel_shares(config, domain, count)
        for kind in ("channels", "inputs", "outputs", "static_names", "forcings"):
            held = [name for share in shares for name in getattr(share, kind)]
            assert sorted(held) == sorted(getattr(everything, kind))
        assert all(share.inputs and share.outputs for share in shares)


def test_more_shares_than_channels_that_go_in_are_refused():
    config, domain = ModelConfig(inputs=["sst", "z500"]), make_domain(channels=CHANNELS)
    assert len(channel_shares(config, domain, 2)) == 2
    with pytest.raises(InputError, match="into 3 shares: each needs one at least that goes in and one that comes out"):
        channel_shares(config, domain, 3)


@pytest.mark.parametrize("predict", ["increment", "state"])
@pytest.mark.parametrize("parts", [{}, {"decoder_fields": 2, "truncation": 5, "input_times": ["0h", "-24h"]}])
def test_it_is_the_model_of_states_that_lacks_what_does_not_go_in(predict, parts):
    """An output that does not go in is one that is always absent; an input that does not come out is not changed."""
    domain = make_domain(channels=CHANNELS, static=1)
    settings = {"predict": predict, "depth": 1} | parts
    states = scramble(make_model(domain, **settings))
    model = make_model(domain, **settings, **ROLES)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            theirs, own = states.get_parameter(name), row_names(model, name)
            rows = None if own is None else [row_names(states, name).index(row) for row in own]
            parameter.copy_(theirs if rows is None else theirs[rows])
    history, forcings, leads = inputs(model, dtype=torch.float64)
    there = torch.ones(2, len(model.config.input_times), 5, dtype=torch.bool)
    there[:, :, CHANNELS.index("tp")] = False
    expected = states(history, forcings, leads, present_inputs(there, states.share))
    expected[:, 3] = history[:, 0, 3]
    found = model(history, forcings, leads)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    history[:, :, 4] = torch.nan  # nobody looks at it
    torch.testing.assert_close(model(history, forcings, leads)[:, [0, 1, 2, 4]], found[:, [0, 1, 2, 4]], rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{"groups": 2}, {"groups": 4, "local": "linear"}])
def test_groups_do_not_look_at_what_does_not_go_in(settings):
    domain = make_domain(channels=CHANNELS, static=1)
    model = scramble(make_model(domain, aggregation={"kind": "hierarchical"} | settings, **ROLES))
    history, forcings, leads = inputs(model, dtype=torch.float64)
    found = model.outputs_of(model(history, forcings, leads))
    for name, counts in (("tp", False), ("sst", True)):
        changed = history.clone()
        changed[:, :, CHANNELS.index(name)] = torch.randn(2, 1, *domain.grid.shape)
        moved = (model.outputs_of(model(changed, forcings, leads)) - found).abs().amax((0, 2, 3))
        assert (moved > 1e-6).all() if counts else (moved == 0).all()


def test_rows_are_those_of_the_roles():
    model = make_model(make_domain(channels=CHANNELS), **ROLES, input_times=["0h", "-24h"])
    assert model.tokenizer.weight.shape[0] == 2 * 4 + len(model.forcings)
    assert model.to_patches.weight.shape[0] == 4
    assert row_names(model, "to_patches.weight") == ["z500", "z700", "t850", "tp"]
    assert row_names(model, "tokenizer.weight")[3:5] == ["sst", "z500@-24h"]


def test_an_output_alone_starts_at_its_mean_and_a_state_at_persistence():
    model = make_model(make_domain(channels=CHANNELS), **ROLES)
    history, forcings, leads = inputs(model, dtype=torch.float64)
    found = model(history, forcings, leads)
    np.testing.assert_array_equal(found[:, :4].detach(), history[:, 0, :4])
    np.testing.assert_array_equal(found[:, 4].detach(), 0)


def test_settings_without_roles_are_recorded_as_before():
    assert {"inputs", "outputs"}.isdisjoint(ModelConfig().model_dump())
    assert ModelConfig(**ROLES).model_dump()["outputs"] == ["-sst"]


def test_all_that_a_state_is_stays_the_same_without_roles():
    model = make_model(make_domain())
    assert (model.input_rows, model.output_rows, model.stated) == (None, None, None)
    assert isinstance(model, WeatherViT)
