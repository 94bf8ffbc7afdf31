"""What members start with and what they drop: perturbed states by an independent reading, dropout that repeats."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import toy_model
from member_weights import by_hand, fields

import weatherfm
from weatherfm.device import choose_device
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.ensemble_config import PerturbationConfig
from weatherfm.evaluation.forecasting.perturbation import Perturbation, spectrum
from weatherfm.evaluation.metrics.spherical_spectra import SphericalTransform, spherical_geometry

INITS = np.array(["2000-01-03T00", "2000-01-07T06"], "datetime64[s]")
SAME = {"rtol": 1e-6, "atol": 1e-5}
CPU = choose_device("cpu")
ROLLED = [(0, 6), (6, 6)]
MEMBERS = ("noisy", "plain", "early", "dropping")


def perturbation(kind: str, grid=None, amplitude=1.0, seed=0, channels=("z500", "t850"), held=("z500", "t850")):
    domain = toy_model.make_domain(grid or regular_grid((24, 48)), channels)
    return Perturbation(PerturbationConfig(kind=kind, amplitude=amplitude), seed, domain, held, CPU)


def make(models, store, **settings):
    return weatherfm.forecast(models, store, ["6h", "12h"], INITS, "6h", init_every="6h", **settings)


# --- perturbations ---------------------------------------------------------------------------------------------


def test_scaled_errors_are_independent_at_every_point():
    made = perturbation("scaled", amplitude=0.3).fields(INITS, range(50)).numpy() / 0.3  # [2, 50, 2, 24, 48]
    n = made.size
    assert abs(made.mean()) < 4 / np.sqrt(n)
    assert abs(made.var() - 1) < 4 * np.sqrt(2 / n)
    for other in (np.roll(made, 1, -1), np.roll(made, 1, -2), np.roll(made, 1, 1), made[:, :, ::-1], made[::-1]):
        assert abs((made * other).mean()) < 4 * np.sqrt(2 / n)


@pytest.mark.parametrize("shape", [(24, 48), (25, 48)], ids=["half a step off the poles", "rows on the poles"])
def test_smooth_errors_have_the_spectrum_that_is_told(shape):
    """Read by ducc0's transform, another than the one they are made with."""
    grid = regular_grid(shape)
    made = perturbation("spherical", grid, 0.5).fields(INITS, range(200))[:, :, 0].flatten(0, 1).double().numpy() / 0.5
    largest = min(shape[0] - 2, 23)
    transform = SphericalTransform(spherical_geometry(grid), shape, largest)
    waves = np.fft.rfft(made, norm="forward")
    power = transform.power(transform.harmonics(made, waves)).mean(0)  # [l]
    degrees = np.arange(1, largest + 1)
    red = (degrees * (degrees + 1) + 9.0) ** -2 * (2 * degrees + 1)
    expected = red / red.sum()
    chance = np.sqrt(2 / ((2 * degrees + 1) * len(made)))  # of the mean over 2 l + 1 squares of each
    assert (np.abs(power[1:] / expected - 1) < 5 * chance + 0.02).all()  # on equal steps harmonics are not quite those
    assert power[0] < 1e-3
    mean_square = (np.square(made) * grid.area_weights).mean()
    assert abs(mean_square - 1) < 5 * np.sqrt(2 / (3 * len(made)))
    assert np.abs((made * grid.area_weights).mean((1, 2))).max() < 1e-5  # of the globe's mean
    rows = np.square(made).mean((0, 2))  # alike from pole to pole
    assert rows.max() / rows.min() < 1.5


def test_smooth_errors_are_as_large_at_the_poles_as_elsewhere_on_a_gaussian_grid():
    latitude = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(24)[0]))[::-1]
    grid = Grid(latitude, np.arange(48) * 7.5)
    functions = perturbation("spherical", grid)._harmonics._functions.double()  # [m, H, l]
    waves = perturbation("spherical", grid)._harmonics._waves.double()  # [W, m, 2]
    variance = torch.einsum("mhl,wmp->hw", functions**2, waves**2)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0.01, atol=0.01)  # the addition theorem
    assert spectrum(63)[1:] @ (2 * np.arange(1, 64) + 1) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["scaled", "spherical"])
def test_an_error_is_a_members_and_a_channels_own(kind):
    whole = perturbation(kind).fields(INITS, range(8))
    swapped = perturbation(kind, channels=("t850", "msl", "z500"), held=("t850", "z500"))
    part = swapped.fields(INITS[1:], [5])
    torch.testing.assert_close(part[0, 0, 2], whole[1, 5, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(part[0, 0, 0], whole[1, 5, 1], rtol=1e-5, atol=1e-6)
    assert not part[:, :, 1].any()  # a channel that the states lack
    assert torch.equal(perturbation(kind).fields(INITS, range(8)), whole)
    others = perturbation(kind, seed=1).fields(INITS, range(8))
    flat = torch.cat([whole.flatten(0, 1), others.flatten(0, 1)]).flatten(0, 1).flatten(1).numpy()  # 64 fields
    close = np.corrcoef(flat) - np.eye(len(flat))
    assert np.abs(close).max() < 0.9
    assert abs(close.mean()) < 0.02


@pytest.mark.parametrize("grid", [Grid(np.arange(60, 29, -3.0), np.arange(-20, 15, 5.0)), regular_grid((2, 8))])
def test_smooth_errors_need_a_globe(grid):
    with pytest.raises(InputError, match=r"spherical is for whole globes, and the grid is .*kind: scaled"):
        perturbation("spherical", grid)
    assert perturbation("scaled", grid).fields(INITS, [0, 1]).shape == (2, 2, 2, *grid.shape)


@pytest.mark.parametrize("kind", ["scaled", "spherical"])
@pytest.mark.parametrize("names", ["plain", "noisy", ["plain", "early"]], ids=str)
def test_members_start_from_states_that_are_wrong_all_along(store, load, kind, names):
    """A model without noise, one with, and several: the same error at every input time of a member."""
    several = [load(name) for name in names] if isinstance(names, list) else [load(names)]
    told = {"amplitude": 0.2, "kind": kind}
    each = 2 if len(several) > 1 else 4
    made = make(several if len(several) > 1 else several[0], store, members=each, seed=3, perturbation=told)
    apart = make(
        several if len(several) > 1 else several[0], store, members=each, seed=3, perturbation=told, batch_size=3
    )
    np.testing.assert_allclose(fields(apart), fields(made), **SAME)
    for number in range(4):
        model = several[number // each]
        drawn = Perturbation(PerturbationConfig(**told), 3, model.domain, model.share.inputs, CPU)
        for i, init in enumerate(INITS):
            change = drawn.fields(INITS[i : i + 1], [number])[0]
            expected = by_hand(model, store, init, ROLLED, number, 3, change)
            np.testing.assert_allclose(fields(made)[i, number], expected, rtol=1e-6, atol=1e-4)
    assert fields(made).std(1).mean() > 0.02
    assert json.loads(made.attrs["provenance"])["members"]["perturbation"] == told


# --- dropout ---------------------------------------------------------------------------------------------------


def test_dropout_is_a_members_own_and_leaves_the_generator_alone(store, load):
    model = load("dropping")
    torch.manual_seed(11)
    before = torch.get_rng_state()
    made = make(model, store, members=5, dropout=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(part.training for part in model.modules())
    torch.manual_seed(12)  # of no effect
    for size in (1, 2, 5):
        again = make(model, store, members=5, dropout=True, batch_size=size)
        np.testing.assert_allclose(fields(again), fields(made), **SAME)
    alone = weatherfm.forecast(model, store, ["6h", "12h"], INITS[1], "6h", members=3, dropout=True)
    np.testing.assert_allclose(fields(alone)[0], fields(made)[1, :3], **SAME)
    assert (fields(made).std(1).mean((0, 2, 3, 4)) > 0.01).all()
    other = make(model, store, members=5, dropout=True, seed=1)
    assert np.abs(fields(other) - fields(made)).mean() > 0.01
    assert json.loads(made.attrs["provenance"])["members"] == {"each": 5, "seed": 0, "dropout": True}


def test_dropout_drops_as_training_does(store, load):
    """Members are about the forecast of a model in training mode: the same mean and spread."""
    model = load("dropping")
    made = fields(weatherfm.forecast(model, store, ["6h"], INITS[0], members=200, dropout=True))[0, :, 0]
    history = model.normalize(torch.from_numpy(store.read(store.index_of(INITS[:1]), model.domain.channels)))
    from weatherfm.earth.forcings import forcing_fields

    forcings = torch.from_numpy(forcing_fields(model.forcings, INITS[:1], model.domain.grid))
    model.train()
    with torch.no_grad():
        each = [x.expand(200, *x.shape[1:]) for x in (history[:, None], forcings, torch.tensor([6]))]
        expected = model.denormalize(model(*each, None, torch.zeros(200, 0))).numpy()
    expected = expected / np.array([1000, 8, 6.0])[:, None, None]
    error = expected.std(0) / np.sqrt(200)
    assert (np.abs(made.mean(0) - expected.mean(0)) / error).mean() < 2
    np.testing.assert_allclose(made.std(0).mean((1, 2)), expected.std(0).mean((1, 2)), rtol=0.15)


def test_an_error_while_members_drop_restores_what_was(store, load):
    model = load("dropping")
    before = torch.get_rng_state()
    model.forward = lambda *given: (_ for _ in ()).throw(RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        make(model, store, members=2, dropout=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(part.training for part in model.modules())
