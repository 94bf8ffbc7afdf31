"""What lies around a field on the sphere, read from functions of latitude and longitude; mixing against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from toy_model import inputs, make_domain, make_model, scramble

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError
from weatherfm.model.decoder import ChannelDecoder
from weatherfm.model.neighbours import Edges, NeighbourMixing, pad

EUROPE = Grid(np.linspace(60, 40, 5), np.linspace(-20, 15, 8))
WITH_POLES = Grid(np.linspace(90, -90, 9), np.arange(0, 360, 45))
TROPICS = Grid(np.linspace(30, -30, 6), np.arange(0, 360, 30))
GRIDS = {"global": regular_grid((8, 16)), "poles": WITH_POLES, "tropics": TROPICS, "area": EUROPE}


def scalar(latitude, longitude):
    """Smooth on the sphere: of the point alone, whichever way its coordinates are written."""
    phi, lam = np.deg2rad(latitude), np.deg2rad(longitude)
    x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    return x + 2 * y * z + 0.5 * z**3 + x * y


def sample(function, latitude, longitude):
    return torch.tensor(function(*np.meshgrid(latitude, longitude, indexing="ij")))


@pytest.mark.parametrize("name", ["global", "poles"])
@pytest.mark.parametrize("width", [1, 2])
def test_round_the_globe_and_behind_the_poles_is_what_the_sphere_has_there(name, width):
    grid = GRIDS[name]
    north, east = grid.latitude[0] - grid.latitude[1], grid.longitude_step
    around = np.arange(-width, grid.shape[1] + width) * east + grid.longitude[0]
    beyond = grid.latitude[0] - np.arange(-width, grid.shape[0] + width) * north  # beyond 90 degrees: the other side
    found = pad(sample(scalar, grid.latitude, grid.longitude), width, Edges.of(grid))
    torch.testing.assert_close(found, sample(scalar, beyond, around), rtol=0, atol=1e-12)


def test_wind_turns_round_behind_a_pole():
    """A uniform flow over the pole: its eastward component changes sign where longitude jumps by 180 degrees."""
    grid = GRIDS["global"]
    eastward = sample(lambda lat, lon: -np.sin(np.deg2rad(lon)), grid.latitude, grid.longitude)
    padded = pad(eastward, 1, Edges.of(grid), behind_pole=torch.neg)
    # walking over the pole the components keep their values, written in the directions of this side
    torch.testing.assert_close(padded[0, 1:-1], eastward[0])


@pytest.mark.parametrize("name", ["tropics", "area"])
def test_where_no_pole_is_the_outermost_values_are_repeated(name):
    grid = GRIDS[name]
    edges = Edges.of(grid)
    assert edges.north is None
    assert edges.south is None
    field = torch.randn(grid.shape)
    mode = "circular" if grid.periodic else "replicate"
    sideways = nn.functional.pad(field[None, None], (2, 2, 0, 0), mode=mode)
    expected = nn.functional.pad(sideways, (0, 0, 2, 2), mode="replicate")[0, 0]
    assert torch.equal(pad(field, 2, edges), expected)
    assert torch.equal(pad(field.T, 2, edges, dims=(1, 0)), expected.T)


def test_edges_say_where_the_poles_are():
    assert Edges.of(GRIDS["global"]) == Edges(True, 0, 0)
    assert Edges.of(WITH_POLES) == Edges(True, 1, 1)
    assert Edges.of(WITH_POLES).of_patches() == Edges(True, 0, 0)
    without_the_south_pole = Grid(np.linspace(90, -89.75, 720), np.arange(0, 360, 45))  # as 720 x 1440 is cut
    assert Edges.of(without_the_south_pole) == Edges(True, 1, 0)
    assert Edges.of(TROPICS) == Edges(True)
    assert Edges.of(EUROPE) == Edges(False)


def test_hidden_units_are_mixed_each_by_itself():
    edges, tokens = Edges.of(GRIDS["global"]), (3, 6)
    mixing = scramble(NeighbourMixing(4, tokens, edges)).double()
    x = torch.randn(2, 18, 4, dtype=torch.float64)
    found = mixing(x).unflatten(1, tokens)
    fields = x.unflatten(1, tokens)
    for row in range(3):
        for column in range(6):
            expected = fields[:, row, column].clone()
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    inside = 0 <= row + i < 3
                    there = fields[:, min(max(row + i, 0), 2), (column + j + (0 if inside else 3)) % 6]
                    expected += there * mixing.weight[:, i + 1, j + 1]
            torch.testing.assert_close(found[:, row, column], expected)


def test_a_channel_is_decoded_from_its_own_fields_alone():
    grid = GRIDS["global"]
    decoder = scramble(ChannelDecoder(("z500", "u500", "t850"), 4, Edges.of(grid))).double()
    predicted, now = torch.randn(2, 2, 3, *grid.shape, dtype=torch.float64)
    calm = torch.randn(3, 2, dtype=torch.float64)
    found = decoder(predicted, now, calm)
    for c, wind in enumerate((False, True, False)):
        fields = torch.stack([predicted[:, c], now[:, c]], 1) - calm[c, :, None, None] * wind
        turn = torch.neg if wind else torch.clone
        fields = pad(fields, 2, decoder.edges, behind_pole=turn) + calm[c, :, None, None] * wind
        hidden = nn.functional.conv2d(fields, decoder.expand[c].reshape(4, 2, 3, 3), decoder.bias[c])
        expected = nn.functional.conv2d(nn.functional.gelu(hidden), decoder.contract[c].reshape(1, 4, 3, 3))
        torch.testing.assert_close(found[:, c], expected[:, 0])


@pytest.mark.parametrize("predict", ["increment", "state"])
def test_wind_is_turned_about_no_wind_not_about_its_mean(predict):
    model = scramble(make_model(make_domain(channels=("z500", "u500")), predict=predict, decoder_fields=2))
    seen = []
    model.decoder.register_forward_pre_hook(lambda module, given: seen.append(given[2]))
    model(*inputs(model))
    of_head, of_state = seen[0].unbind(-1)
    nothing = torch.zeros(2)
    torch.testing.assert_close(model.denormalize(of_state[:, None, None]).flatten(), nothing, atol=1e-2, rtol=0)
    assert torch.equal(of_head, nothing if predict == "increment" else of_state)
    assert of_state.abs().min() > 0


def test_a_grid_that_the_decoder_reaches_beyond_is_refused():
    domain = make_domain(Grid(np.array([45.0, -45.0]), np.arange(0, 360, 45)))
    with pytest.raises(InputError, match="decoder_fields is for grids of 3 latitudes or more; this one has 2; set"):
        make_model(domain, patch_size=1, decoder_fields=2)


def test_the_smallest_grid_with_both_poles():
    domain = make_domain(Grid(np.array([90.0, 0.0, -90.0]), np.array([0.0, 180.0])))
    model = scramble(make_model(domain, patch_size=1, **LOCAL))
    assert model(*inputs(model)).isfinite().all()


LOCAL = {"mlp_convolution": True, "rotary": True, "decoder_fields": 3}


def test_convolutions_start_at_zero():
    plain = make_model(predict="state")  # increments are zero at the start whatever the blocks do
    local = make_model(predict="state", mlp_convolution=True, decoder_fields=3)
    for name, value in plain.named_parameters():
        assert torch.equal(value, local.get_parameter(name)), name
    assert torch.equal(local(*inputs(plain)), plain(*inputs(plain)))


@pytest.mark.parametrize("setting", [{name: value} for name, value in LOCAL.items()], ids=str)
def test_every_setting_changes_the_function_and_is_trained(setting):
    plain, local = scramble(make_model(predict="state")), scramble(make_model(predict="state", **setting))
    local.load_state_dict(plain.state_dict(), strict=False)
    batch = inputs(plain)
    found = local(*batch)
    assert (found - plain(*batch)).norm() > 1e-3 * found.norm()
    found.square().mean().backward()
    assert all(parameter.grad.norm() > 0 for parameter in local.parameters())


@pytest.mark.parametrize("settings", [LOCAL, LOCAL | {"predict": "state"}], ids=["increment", "state"])
def test_a_turned_globe_gives_a_turned_forecast(settings):
    """Without positions of their own patches know their neighbours alone: turned by whole ones nothing else changes."""
    model = scramble(make_model(make_domain(channels=("z500", "u500")), forcings=[], **settings)).double()
    nn.init.zeros_(model.position.weight)
    history, forcings, lead = inputs(model, dtype=torch.float64)
    expected = model(history, forcings, lead).roll(8, -1)
    torch.testing.assert_close(model(history.roll(8, -1), forcings, lead), expected)


@pytest.mark.parametrize("grid", [Grid(np.linspace(90, -90, 11), np.arange(0, 360, 36)), EUROPE], ids=["globe", "area"])
def test_what_fills_up_patches_reaches_no_forecast_but_through_them(grid):
    """The decoder sees the grid's own points: outputs of a patch beyond the grid have no influence."""
    model = scramble(make_model(make_domain(grid), patch_size=4, decoder_fields=3))
    seen = []
    model.decoder.register_forward_pre_hook(lambda module, given: seen.extend(field.shape[-2:] for field in given[:2]))
    assert model.padded != grid.shape
    model(*inputs(model))
    assert seen == [grid.shape, grid.shape]
