"""Noise through the norms: what it changes, that it starts as nothing, and that a member's is always its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_model import clock_of, inputs, make_model, scramble

from weatherfm.errors import InputError
from weatherfm.model.noise import member_draws, member_noise

INITS = np.array(["1959-01-01T00", "2020-02-29T18"], "datetime64[s]")


def noisy(dtype=torch.float64, **settings):
    model = scramble(make_model(**{"conditioning": "adaln", "noise": 5} | settings)).to(dtype).eval()
    return model, (*inputs(model, dtype=dtype), None, condition_of(model, dtype))


def condition_of(model, dtype=torch.float32):
    return clock_of(model, dtype=dtype) if model.conditions else None


@pytest.mark.parametrize("conditioning", ["adaln", "embed"])
def test_members_of_a_sample_are_what_each_alone_would_be(conditioning):
    model, batch = noisy(input_times=["0h", "-24h"], conditioning=conditioning)
    noise = torch.from_numpy(member_noise(5, 3, INITS, range(3))).double()  # [2 * 3, 5]
    whole = model(*batch, noise)
    assert whole.shape[0] == 6
    for member in range(3):
        torch.testing.assert_close(whole[member::3], model(*batch, noise[member::3]), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(whole[0], whole[1])


@pytest.mark.parametrize("settings", [{"inputs": ["-msl"]}, {"outputs": ["-z500"]}, {"decoder_fields": 2}])
def test_so_they_are_where_samples_lack_channels_and_channels_have_roles(settings):
    model, (history, forcings, lead, _, condition) = noisy(**settings)
    present = torch.ones(2, len(model.share.input_names([0])), dtype=torch.bool)
    present[1, 0] = False
    noise = torch.from_numpy(member_noise(5, 3, INITS, range(2))).double()
    whole = model(history, forcings, lead, present, condition, noise)
    alone = [model(history, forcings, lead, present, condition, noise[member::2]) for member in range(2)]
    torch.testing.assert_close(whole, torch.stack(alone, 1).flatten(0, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("conditioning", ["adaln", "embed"])
def test_noise_starts_as_nothing_and_learns_at_once(conditioning):
    plain = scramble(make_model(conditioning=conditioning, predict="state"))
    model = make_model(conditioning=conditioning, predict="state", noise=5)
    model.load_state_dict(plain.state_dict(), strict=False)  # but for the noise, which is at its start
    batch, condition = inputs(model), condition_of(model)
    given = model(*batch, condition=condition, noise=torch.randn(4, 5))
    torch.testing.assert_close(given, plain(*batch, condition=condition).repeat_interleave(2, 0))
    given.square().mean().backward()
    assert model.noising.blocks[0].weight.grad.norm() > 0


def test_norms_with_weights_are_changed_by_the_formula():
    """Gates start at one, and each block adds gate * layer(norm * (1 + scale) + shift)."""
    model, (history, forcings, lead, _, condition) = noisy(conditioning="embed")
    assert condition is None
    seen, noise = [], torch.randn(2, 5, dtype=torch.float64)
    for module in (*model.blocks, model.head):
        module.register_forward_pre_hook(lambda module, given: seen.append(given))
    model(history, forcings, lead, None, None, noise)
    changes = model.noising(lead, noise).unflatten(1, (-1, 1))[:, :, 0]  # [B, 6 L + 2, D]
    x = seen[0][0]
    for i, block in enumerate(model.blocks):
        for norm, layer, at in ((block.attention_norm, block.attention, 0), (block.mlp_norm, block.mlp, 3)):
            shift, scale, gate = (changes[:, 6 * i + at + k, None] for k in range(3))
            x = x + (1 + gate) * layer(norm(x) * (1 + scale) + shift)
    shift, scale = (changes[:, 6 * len(model.blocks) + k, None] for k in range(2))
    torch.testing.assert_close(seen[-1][0], model.norm(x) * (1 + scale) + shift)


def test_noise_acts_together_with_the_lead_time():
    model, (history, forcings, lead, _, condition) = noisy()
    noise = torch.from_numpy(member_noise(5, 3, INITS, [0])).double()
    none = torch.zeros_like(noise)

    def effect(lead):
        return model(history, forcings, lead, None, condition, noise) - model(
            history, forcings, lead, None, condition, none
        )

    assert not torch.allclose(effect(lead), effect(lead + 48))


def test_a_members_noise_is_its_own_in_whatever_company():
    whole = member_noise(4, 7, INITS, range(16), hours=24).reshape(2, 16, 4)
    for i, init in enumerate(INITS):
        for members in ([3], [9, 3], range(4, 8)):
            assert np.array_equal(member_noise(4, 7, np.array([init]), members, hours=24), whole[i, list(members)])
    others = [
        member_noise(4, 8, INITS, range(16), hours=24),
        member_noise(4, 7, INITS, range(16), hours=48),
        member_noise(4, 7, INITS + np.timedelta64(6, "h"), range(16), hours=24),
        member_draws(2, (4,), 7, INITS, range(16), hours=24),
    ]
    for other in others:
        assert not np.isin(other, whole).any()


def test_noise_is_standard_normal():
    drawn = member_noise(8, 0, np.arange("2001", "2002", dtype="datetime64[D]"), range(20)).ravel()
    n = len(drawn)
    assert abs(drawn.mean()) < 4 / np.sqrt(n)
    assert abs(drawn.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs(np.mean(drawn**4) - 3) < 4 * np.sqrt(96 / n)


@pytest.mark.parametrize("noise", [None, torch.zeros(2, 4), torch.zeros(3, 5)])
def test_noise_of_another_size_is_refused(noise):
    model, batch = noisy()
    with pytest.raises(InputError, match="5 numbers of noise for each of 2 samples"):
        model(*batch, noise)


def test_a_model_without_noise_refuses_it():
    model = make_model(conditioning="adaln")
    with pytest.raises(InputError, match="takes 0 numbers of noise"):
        model(*inputs(model), condition=clock_of(model), noise=torch.zeros(2, 5))
