"""WeatherViT: shapes, start at persistence, inputs, absent channels, padding, and settings that are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_model import assert_autocast_stays_close, inputs, make_domain, make_model, scramble

from weatherfm.earth.domain import Domain
from weatherfm.earth.forcings import FORCINGS, forcing_fields
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig, patch_counts
from weatherfm.model.share import input_names


@pytest.mark.parametrize("input_times", [["0h"], ["0h", "-24h"], ["-12h", "-6h", "0h"]], ids=str)
@pytest.mark.parametrize("patch", [4, (2, 4)], ids=str)
def test_untrained_increment_model_is_persistence(input_times, patch):
    model = make_model(make_domain(static=2), input_times=input_times, patch_size=patch)
    history, forcings, lead = inputs(model)
    out = model(history, forcings, lead)
    assert out.shape == (2, 3, 8, 16)
    now = input_times.index("0h")
    torch.testing.assert_close(out, history[:, now])


def test_state_model_does_not_add_the_present_state():
    model = scramble(make_model(predict="state", input_times=["0h"]))
    with torch.no_grad():
        model.to_patches.weight.zero_()
        model.to_patches.bias.fill_(0.25)
    assert (model(*inputs(model)) == 0.25).all()


def test_increment_is_in_units_of_the_tendency():
    model = scramble(make_model())
    with torch.no_grad():
        model.to_patches.weight.zero_()
        model.to_patches.bias.fill_(1.0)
    history, forcings, lead = inputs(model)
    change = model.denormalize(model(history, forcings, lead)) - model.denormalize(history[:, 0])
    for c, expected in enumerate(model.domain.tendency_std):
        torch.testing.assert_close(change[:, c], torch.full((2, 8, 16), float(expected)), rtol=1e-3, atol=0)


def test_input_names_say_what_is_assembled():
    model = make_model(make_domain(static=1), input_times=["0h", "-24h"], forcings=["latitude"])
    names = input_names(model.config, model.domain)
    assert names == ["z500", "t850", "msl", "z500@-24h", "t850@-24h", "msl@-24h", "orography", "latitude"]
    history, forcings, _ = inputs(model)
    x = model.assemble(history, forcings)
    assert x.shape[1] == len(names)
    torch.testing.assert_close(x[:, 4], history[:, 1, 1])
    torch.testing.assert_close(x[:, 7], forcings[:, 0])
    assert abs(x[:, 6].mean()) < 1e-5
    assert abs(x[:, 6].std() - 1) < 0.01


def test_constant_static_field_becomes_zero_not_nan():
    domain = make_domain()
    flat = Domain(
        domain.channels, domain.grid, domain.mean, domain.std, domain.tendency_std, ("lsm",), np.ones((1, 8, 16))
    )
    assert (make_model(flat).static == 0).all()


@pytest.mark.parametrize(
    "grid", [regular_grid((9, 18)), Grid(np.linspace(60, 30, 21), np.linspace(-20, 14.5, 24))], ids=str
)
def test_grids_that_do_not_divide_into_patches(grid):
    model = scramble(make_model(make_domain(grid), patch_size=4))
    out = model(*inputs(model))
    assert out.shape[-2:] == grid.shape
    assert torch.isfinite(out).all()


def test_padding_continues_a_global_grid_round_the_earth():
    model = make_model(make_domain(regular_grid((8, 18))), patch_size=4)
    x = torch.arange(18.0).expand(1, 1, 8, 18)
    assert model.pad(x)[0, 0, 0, 18:].tolist() == [0.0, 1.0]
    area = make_model(make_domain(Grid(np.linspace(60, 30, 8), np.linspace(0, 17, 18))), patch_size=4)
    assert area.pad(x)[0, 0, 0, 18:].tolist() == [17.0, 17.0]


def test_every_input_every_lead_and_every_parameter_matters():
    model = scramble(make_model(make_domain(static=1), input_times=["0h", "-24h"])).double()
    history, forcings, lead = inputs(model, dtype=torch.float64)
    history.requires_grad_()
    forcings.requires_grad_()
    model(history, forcings, lead).square().sum().backward()
    assert (history.grad.abs().amax((0, 3, 4)) > 0).all()
    assert (forcings.grad.abs().amax((0, 2, 3)) > 0).all()
    dead = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0]
    assert dead == []
    other = model(history, forcings, lead + 24)
    assert not torch.allclose(other, model(history, forcings, lead))


def test_folded_model_equals_tokens_model_with_gradients():
    folded = scramble(make_model(input_times=["0h", "-24h"], aggregation={"evaluate": "folded"})).double()
    tokens = make_model(input_times=["0h", "-24h"], aggregation={"evaluate": "tokens"}).double()
    tokens.load_state_dict(folded.state_dict())
    results = []
    for model in (tokens, folded):
        history, forcings, lead = inputs(model, dtype=torch.float64)
        history.requires_grad_()
        out = model(history, forcings, lead)
        out.square().sum().backward()
        results.append([out.detach(), history.grad, *(p.grad for p in model.parameters())])
    for expected, given in zip(*results, strict=True):
        assert (given - expected).norm() <= 1e-10 * expected.norm()


@pytest.mark.parametrize("form", ["tokens", "folded"])
def test_absent_input_channels_may_hold_anything(form):
    model = scramble(make_model(aggregation={"evaluate": form}))
    history, forcings, lead = inputs(model)
    present = torch.ones(2, 6, dtype=torch.bool)
    present[0, 1] = present[1, 4] = False
    expected = model(history, forcings, lead, present)
    forcings[1, 1] = torch.nan
    torch.testing.assert_close(model(history, forcings, lead, present)[1], expected[1])


@pytest.mark.parametrize("settings", [{}, {"decoder_fields": 2, "truncation": 3}], ids=str)
def test_a_channel_without_a_present_state_is_predicted_as_state(settings):
    """A wind among them, whose sign turns behind a pole."""
    domain = make_domain(channels=("z500", "t850", "u10"))
    increment = scramble(make_model(domain, **settings)).double()
    state = make_model(domain, predict="state", **settings).double()
    state.load_state_dict(increment.state_dict())
    history, forcings, lead = inputs(increment, dtype=torch.float64)
    present = torch.ones(2, 3 + forcings.shape[1], dtype=torch.bool)
    present[0, 2] = present[1, 0] = False
    given, expected = (model(history, forcings, lead, present) for model in (increment, state))
    for b, c in np.ndindex(2, 3):
        assert torch.allclose(given[b, c], expected[b, c], rtol=1e-12) == (not present[b, c]), (b, c)


def test_normalize_round_trip():
    model = make_model()
    state = torch.randn(4, 3, 8, 16) * 100 + 5e4
    torch.testing.assert_close(model.denormalize(model.normalize(state)), state)
    assert model.normalize(torch.tensor(model.domain.mean).float()[:, None, None].expand(3, 8, 16)).abs().max() < 1e-4


def test_drop_path_acts_in_training_alone():
    model = scramble(make_model(drop_path=0.9, depth=4))
    batch = inputs(model, batch=8)
    torch.testing.assert_close(model.eval()(*batch), model(*batch))
    model.train()
    assert not torch.allclose(model(*batch), model(*batch))


def test_under_autocast_a_block_casts_its_norms_once():
    model = scramble(make_model(depth=1)).eval()
    block, given = model.blocks[0], []
    for module in (block.attention, block.mlp):
        module.register_forward_pre_hook(lambda module, args: given.append(args[0].dtype))
    model(*inputs(model))
    assert given == [torch.float32] * 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(*inputs(model))
    assert given[2:] == [torch.bfloat16] * 2


@pytest.mark.parametrize(("shape", "counts"), [((8, 16), (2, 4)), ((9, 17), (3, 5)), ((1, 4), (1, 1))])
def test_patch_counts(shape, counts):
    assert patch_counts((4, 4), shape) == counts


def test_bfloat16_autocast_stays_close():
    assert_autocast_stays_close(make_model())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 100, "heads": 16}, "multiple, e.g. 112"),
        ({"width": 6, "heads": 2}, "divisible by 4"),
        ({"input_times": ["-24h"]}, "must hold 0h"),
        ({"input_times": ["0h", "6h"]}, "earlier times"),
        ({"input_times": ["0h", "0h"]}, "each once"),
        ({"input_times": [24]}, "with its unit"),
        ({"forcings": ["latitudes"]}, "known are latitude"),
        ({"patch_size": 0}, "positive"),
        ({"width": 24, "heads": 4, "rotary": True}, "width / heads = 6 cannot be turned"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**settings)


def test_domain_refuses_what_does_not_belong_together():
    grid = regular_grid((4, 8))
    with pytest.raises(InputError, match="std of t850 is not positive"):
        Domain(("z500", "t850"), grid, np.zeros(2), np.array([1.0, 0.0]), np.ones(2))
    with pytest.raises(InputError, match="give one each"):
        Domain(("z500", "t850"), grid, np.zeros(3), np.ones(2), np.ones(2))
    with pytest.raises(InputError, match="static fields have shape"):
        Domain(("z500",), grid, np.zeros(1), np.ones(1), np.ones(1), ("lsm",), np.zeros((1, 3, 8)))


def test_forcings_are_bounded_and_right_at_noon():
    grid = regular_grid((4, 8))
    times = np.array(["2020-03-20T00", "2020-06-21T12"], "datetime64[h]")
    fields = forcing_fields(FORCINGS, times, grid)
    assert fields.shape == (2, len(FORCINGS), 4, 8)
    assert np.abs(fields).max() <= 1
    cos_day = fields[:, FORCINGS.index("cos_time_of_day")]
    assert np.allclose(cos_day[0, :, 0], 1)  # midnight at Greenwich
    assert np.allclose(cos_day[0, :, 4], -1, atol=1e-6)  # noon at the date line
    assert np.allclose(cos_day[1, :, 0], -1, atol=1e-6)
    year = fields[:, FORCINGS.index("cos_time_of_year")]
    assert year[1].mean() < -0.95  # midsummer is half a year from the new year


def test_a_predicted_state_is_not_rounded_to_bfloat16():
    """Its last projection is in float32: values between those that bfloat16 has come out as they are."""
    model = make_model(predict="state").eval()
    torch.nn.init.zeros_(model.to_patches.weight)
    torch.nn.init.constant_(model.to_patches.bias, 1.0 + 2**-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = model(*inputs(model))
    assert state.dtype == torch.float32
    assert (state == 1.0 + 2**-12).all()


def test_nor_is_what_a_decoder_adds_to_it():
    model = make_model(predict="state", decoder_fields=2).eval()
    for parameter in (*model.to_patches.parameters(), model.decoder.expand, model.decoder.contract):
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(model.decoder.bias, 8.0)  # as it is after GELU
    model.decoder.contract.data[..., 4] = (1.0 + 2**-12) / 16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = model(*inputs(model))
    assert state.dtype == torch.float32
    assert (state == 1.0 + 2**-12).all()
