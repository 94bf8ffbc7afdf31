"""Shares of the channels: who gets what, and that several models with a share each are the model with all."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import numpy as np
import pytest
import torch
from toy_model import inputs, make_domain, make_model, scramble

from weatherfm.earth.forcings import FORCINGS
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.initial import row_names
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import channel_groups, channel_shares, input_names, whole

CHANNELS = ("z500", "t850", "msl", "u10", "v10", "t2m", "q700", "z250", "t500", "sp")


def settings(groups=None, **aggregation):
    hierarchical = {"kind": "hierarchical", "groups": groups} if groups else {}
    return {"input_times": ["0h", "-24h"], "aggregation": {**hierarchical, **aggregation}}


def config(groups=None, forcings=3, **aggregation):
    return ModelConfig(**settings(groups, **aggregation), forcings=list(FORCINGS[:forcings]), width=32, heads=4)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 10])
@pytest.mark.parametrize("static", [0, 2])
def test_shares_are_disjoint_balanced_and_together_everything(count, static):
    domain, model = make_domain(channels=CHANNELS, static=static), config()
    shares = channel_shares(model, domain, count)
    assert sum((share.channels for share in shares), ()) == CHANNELS
    sizes = [len(share.channels) for share in shares]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1
    for kind in ("static_names", "forcings"):
        held = [name for share in shares for name in getattr(share, kind)]
        assert sorted(held) == sorted(getattr(whole(model, domain), kind))
    names = [name for share in shares for name in share.input_names(model.input_times)]
    assert sorted(names) == sorted(input_names(model, domain))


def test_other_inputs_go_to_the_smaller_shares_and_earlier_times_with_their_channel():
    shares = channel_shares(config(), make_domain(channels=CHANNELS, static=2), 4)
    assert [len(share.channels) for share in shares] == [3, 3, 2, 2]
    assert [share.static_names for share in shares] == [(), (), ("lsm",), ("orography",)]
    assert [share.forcings for share in shares] == [("sin_longitude",), ("latitude",), (), ("cos_longitude",)]
    assert shares[3].input_names([0, -24]) == ["t500", "sp", "t500@-24h", "sp@-24h", "orography", "cos_longitude"]


def test_hierarchical_shares_are_unions_of_neighbouring_groups():
    domain, model = make_domain(channels=CHANNELS, static=2), config(groups=4)
    groups = channel_groups(model, domain)
    assert [len(group.channels) for group in groups] == [3, 3, 2, 2]
    pair = channel_shares(model, domain, 2)
    assert [share.groups for share in pair] == [(0, 1), (2, 3)]
    for share, members in zip(pair, (groups[:2], groups[2:]), strict=True):
        names = [name for group in members for name in group.input_names([0, -24])]
        assert sorted(share.input_names([0, -24])) == sorted(names)
    assert channel_shares(model, domain, 4) == groups
    assert channel_shares(model, domain, 1) == [whole(model, domain)]


def test_splits_that_cannot_be_are_refused():
    domain = make_domain(channels=CHANNELS)
    with pytest.raises(InputError, match=r"10 channels cannot be split into 11 shares.*choose 1 to 10"):
        channel_shares(config(), domain, 11)
    with pytest.raises(InputError, match="4 channel groups cannot be split into 3 shares; these would work: 1, 2, 4"):
        channel_shares(config(groups=4), domain, 3)
    with pytest.raises(InputError, match=r"into 11 aggregation\.groups"):
        channel_groups(config(groups=11), domain)
    with pytest.raises(InputError, match=r"tree 6 is more than the 5 inputs of the smallest of 4 groups"):
        WeatherViT(config(groups=4, tree=6), domain)


def test_domain_restricted():
    domain = make_domain(channels=CHANNELS, static=2)
    part = domain.restricted(("t500", "z500"), ("lsm",))
    assert part.channels == ("t500", "z500")
    np.testing.assert_array_equal(part.mean, domain.mean[[8, 0]])
    np.testing.assert_array_equal(part.static, domain.static[[1]])
    with pytest.raises(InputError, match="no q500, slt; it has z500"):
        domain.restricted(("q500",), ("slt",))


# --- several models with a share each ----------------------------------------------------------------------


def split(serial, count):
    """Models that hold a share each of a model's channels, with its values."""
    models = []
    for share in channel_shares(serial.config, serial.domain, count):
        model = WeatherViT(serial.config, serial.domain, share).to(next(serial.parameters()).dtype)
        model.load_state_dict({name: own_rows(model, serial, name, p) for name, p in serial.named_parameters()}, False)
        models.append(model)
    return models


def own_rows(model, serial, name, values):
    rows = row_names(serial, name)
    return values.detach() if rows is None else values.detach()[[rows.index(row) for row in row_names(model, name)]]


class Meeting:
    """Where models that run side by side in threads lay their parts down, and each goes on with all of them."""

    def __init__(self, count):
        self.barrier, self.parts = threading.Barrier(count, timeout=240), {}

    def bring(self, index, part):
        self.barrier.wait()
        self.parts[index] = part
        self.barrier.wait()
        return [self.parts[i] for i in sorted(self.parts)]


def merge_by_hand(parts):
    means, masses = zip(*parts, strict=True)
    share = torch.stack(masses).softmax(0)  # [shares, B, N, h]
    heads = torch.stack(means).unflatten(-1, (share.shape[-1], -1))  # [shares, B, N, h, d]
    return (heads * share.unsqueeze(-1)).sum(0).flatten(-2)


def connect(models):
    meeting = Meeting(len(models))
    for i, model in enumerate(models):
        if model.config.aggregation.kind == "flat":
            model.aggregation.merge = lambda *part, i=i: merge_by_hand(meeting.bring(i, part))
        else:
            model.aggregation.gather = lambda tokens, i=i: torch.cat(meeting.bring(i, tokens), dim=2)


def run_together(models, batch, serial, present=None):
    """Outputs of all models side by side, joined: [B, C, H, W]."""
    history, forcings, lead = batch
    names = input_names(serial.config, serial.domain)

    def run(model):
        channels = [serial.domain.channels.index(name) for name in model.domain.channels]
        fields = [serial.forcings.index(name) for name in model.forcings]
        inputs_held = [names.index(name) for name in model.share.input_names(model.config.input_times)]
        mask = None if present is None else present[:, inputs_held]
        return model(history[:, :, channels], forcings[:, fields], lead, mask)

    with ThreadPoolExecutor(len(models)) as pool:
        return torch.cat(list(pool.map(run, models)), dim=1)


def joined_gradients(models, serial):
    """Gradients of the serial model's parameters: rows from who holds them, otherwise the sum of all parts."""
    gradients = {name: torch.zeros_like(p) for name, p in serial.named_parameters()}
    for model in models:
        for name, p in model.named_parameters():
            rows = row_names(serial, name)
            own = slice(None) if rows is None else [rows.index(row) for row in row_names(model, name)]
            gradients[name][own] += p.grad
    return gradients


CASES = [
    ({}, 4),
    ({"evaluate": "tokens"}, 4),
    ({"block_mib": 0.002}, 3),
    ({"groups": 2}, 2),
    ({"groups": 4, "evaluate": "tokens"}, 2),
    ({"groups": 4, "local": "linear"}, 4),
    ({"groups": 4, "tree": 2}, 2),
    ({"groups": 4, "tree": 3, "local": "linear"}, 2),
]


@pytest.mark.parametrize(("aggregation", "count"), CASES, ids=str)
@pytest.mark.parametrize("all_present", [True, False])
def test_shares_together_are_the_whole_model(aggregation, count, all_present):
    domain = make_domain(channels=CHANNELS, static=2)
    serial = scramble(make_model(domain, **settings(**aggregation), depth=1)).double()
    models = split(serial, count)
    connect(models)
    batch = inputs(serial, dtype=torch.float64)
    present = None
    if not all_present:
        lacking = models[-1].share.input_names(serial.config.input_times)  # one model has nothing of the second sample
        present = torch.ones(2, len(row_names(serial, "tokenizer.weight")), dtype=torch.bool)
        present[0, 1] = present[0, -1] = False
        present[1] = torch.tensor([name not in lacking for name in row_names(serial, "tokenizer.weight")])
    expected = serial(*batch, present)
    given = run_together(models, batch, serial, present)
    # float64 leaves the rounding of sums in another order
    torch.testing.assert_close(given, expected, rtol=1e-10, atol=1e-10)
    expected.square().sum().backward()
    given.square().sum().backward()
    for name, gradient in joined_gradients(models, serial).items():
        reference = serial.get_parameter(name).grad
        assert (gradient - reference).norm() <= 1e-10 * reference.norm(), name


@pytest.mark.parametrize("form", ["folded", "tokens"])
def test_a_share_without_any_channel_of_a_sample_has_no_mass_and_no_gradient(form):
    serial = scramble(make_model(make_domain(channels=CHANNELS), **settings(evaluate=form)))
    model = split(serial, 4)[3]
    seen = []
    model.aggregation.merge = lambda mixed, log_mass: seen.append(log_mass) or mixed * (log_mass.exp().sum())
    history, forcings, lead = inputs(model)
    present = torch.zeros(2, len(row_names(model, "tokenizer.weight")), dtype=torch.bool)
    model(history, forcings, lead, present).sum().backward()
    assert torch.isfinite(seen[0]).all()
    assert (seen[0] < -1e29).all()
    for name in ("tokenizer.weight", "aggregation.key.weight", "aggregation.value.weight"):
        assert (model.get_parameter(name).grad == 0).all(), name


def test_a_share_has_the_statistics_forcings_and_patches_of_its_channels():
    domain = make_domain(channels=CHANNELS, static=2)
    serial = make_model(domain)
    share = channel_shares(serial.config, domain, 4)[3]
    model = WeatherViT(serial.config, domain, share)
    torch.testing.assert_close(model.mean, serial.mean[8:])
    torch.testing.assert_close(model.increment_scale, serial.increment_scale[:, 8:])
    torch.testing.assert_close(model.static, serial.static[:1])
    assert model.forcings == ("cos_longitude",)
    assert (model.domain.channels, model.domain.static_names) == (("t500", "sp"), ("orography",))
    assert model.to_patches.weight.shape == (2, 16, 32)


def test_models_may_hold_some_positions_each():
    model = scramble(make_model()).double()
    model.blocks = torch.nn.ModuleList()  # attention would need all positions
    batch = inputs(model, dtype=torch.float64)
    copies = [deepcopy(model) for _ in range(3)]
    meeting = Meeting(3)
    for i, (copy, rows) in enumerate(zip(copies, [slice(0, 2), slice(2, 5), slice(5, 8)], strict=True)):
        copy.aggregation.merge = lambda mixed, log_mass, rows=rows: mixed[:, rows]
        copy.position.rows = rows
        copy.to_patches.register_forward_pre_hook(lambda _, given, i=i: torch.cat(meeting.bring(i, given[0]), dim=1))
    with ThreadPoolExecutor(3) as pool:
        for out in pool.map(lambda copy: copy(*batch), copies):
            torch.testing.assert_close(out, model(*batch), rtol=1e-12, atol=1e-12)
