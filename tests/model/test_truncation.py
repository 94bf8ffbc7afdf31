"""Fields cut off at a total wavenumber, against polynomials on the sphere and the spectra of the verification."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from toy_model import inputs, make_domain, make_model, scramble

from weatherfm.config import parse_settings
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.metrics.spectra import spectra_means, spectra_transforms
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.truncation import Truncation, spectral_matrices

GAUSSIAN = Grid(-np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(16)[0])), np.arange(0, 360, 360 / 32))
REGULAR = regular_grid((16, 32))
WITH_POLES = Grid(np.linspace(90, -90, 17), np.arange(0, 360, 360 / 32))
GLOBES = {"Gaussian": GAUSSIAN, "regular": REGULAR, "poles": WITH_POLES}


def on_sphere(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    phi, lam = np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij")
    return np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)


def truncated(fields: torch.Tensor, grid: Grid, largest: int, channels: list[str] | None = None) -> torch.Tensor:
    """With no gain learned."""
    module = Truncation(channels or ["z500"] * fields.shape[1], largest)
    nn.init.zeros_(module.gain)
    matrices = {name: torch.from_numpy(array).to(fields) for name, array in spectral_matrices(grid, largest).items()}
    with torch.no_grad():
        return module.to(fields)(fields, **matrices)


def cut(field: np.ndarray, grid: Grid, largest: int) -> np.ndarray:
    return truncated(torch.from_numpy(field)[None, None], grid, largest)[0, 0].numpy()


@pytest.mark.parametrize("grid", GLOBES.values(), ids=list(GLOBES))
def test_a_polynomial_of_the_degree_is_kept(grid):
    """On the sphere a polynomial of degree d in x, y, z is made of total wavenumbers up to d (spherical harmonics)."""
    x, y, z = on_sphere(grid)
    field = 280 + 3 * x**5 - 2 * x**2 * y * z**2 + y**4 * z + x * y * z - z**3
    np.testing.assert_allclose(cut(field, grid, 5), field, rtol=0, atol=1e-9)
    assert np.abs(cut(field, grid, 4) - field).max() > 0.1


@pytest.mark.parametrize("grid", GLOBES.values(), ids=list(GLOBES))
def test_wind_of_the_degree_is_kept_across_the_poles(grid):
    """The flow along and across the contours of a polynomial of degree 4, derivatives written out by hand."""
    x, y, z = on_sphere(grid)
    phi, lam = np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij")
    gradient = np.stack([3 * x**2 * z + 1, z**2 + 2, x**3 + 2 * y * z + 4 * z**3])  # of x^3 z + x + y z^2 + 2 y + z^4
    east = np.stack([-np.sin(lam), np.cos(lam), 0 * lam])
    north = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)])
    u, v = (gradient * east).sum(0), (gradient * north).sum(0)
    t = np.cos(phi) * np.cos(lam)
    fields = torch.from_numpy(np.stack([u, t, v]))[None]
    kept = truncated(fields, grid, 4, ["u500", "t850", "v500"])
    torch.testing.assert_close(kept, fields, rtol=0, atol=1e-9)
    assert np.abs(u[0]).max() > 0.5
    assert (truncated(fields, grid, 3, ["u500", "t850", "v500"]) - fields).abs().max() > 0.1


@pytest.mark.parametrize(
    "harmonic",
    [
        lambda x, y, z: (231 * z**6 - 315 * z**4 + 105 * z**2 - 5) / 16,
        lambda x, y, z: x * z * (33 * z**4 - 30 * z**2 + 5),
        lambda x, y, z: np.real((x + 1j * y) ** 3) * (11 * z**3 - 3 * z),
        lambda x, y, z: np.imag((x + 1j * y) ** 6),
    ],
    ids=["m=0", "m=1", "m=3", "m=6"],
)
def test_a_harmonic_beyond_is_gone(harmonic):
    """Of degree 6, written out by hand."""
    field = harmonic(*on_sphere(GAUSSIAN))
    assert np.abs(cut(field, GAUSSIAN, 5)).max() < 2e-2  # cells' areas are near the weights of Gauss, not equal
    np.testing.assert_allclose(cut(field, GAUSSIAN, 6), field, rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", GLOBES.values(), ids=list(GLOBES))
def test_what_is_left_is_nearest_by_area(grid):
    field = np.random.default_rng(0).normal(size=grid.shape)
    kept = cut(field, grid, 6)
    np.testing.assert_allclose(cut(kept, grid, 6), kept, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.roll(cut(np.roll(field, 5, 1), grid, 6), -5, 1), kept, rtol=0, atol=1e-12)
    x, y, z = on_sphere(grid)
    for power in (power for power in np.ndindex(7, 7, 7) if sum(power) <= 6):
        other = x ** power[0] * y ** power[1] * z ** power[2]
        assert abs(((field - kept) * other * grid.area_weights).mean()) < 1e-13


def test_a_gain_is_of_its_wavenumber_and_channel():
    """Harmonics of degrees 1, 2 and 3, each with a factor."""
    x, y, z = on_sphere(GAUSSIAN)
    first, second, third = z + 2 * x, x * y + 3 * z * x, x * y * z
    field = torch.from_numpy(np.stack([first + second + third, first + second + third]))[None]
    module = Truncation(["z500", "t850"], 4).double()
    with torch.no_grad():
        nn.init.zeros_(module.gain)
        module.gain[1] = torch.tensor([0.0, 1.0, -0.5, -1.0, 0.0]) / 4
        matrices = {name: torch.from_numpy(array) for name, array in spectral_matrices(GAUSSIAN, 4).items()}
        plain, changed = module(field, **matrices)[0].numpy()
    np.testing.assert_allclose(plain, first + second + third, rtol=0, atol=1e-12)
    np.testing.assert_allclose(changed, 2 * first + 0.5 * second, rtol=0, atol=2e-2)  # see above of cells' areas


def test_the_verification_finds_no_power_beyond():
    field = np.random.default_rng(0).normal(size=(1, 1, *GAUSSIAN.shape))
    kept = cut(field[0, 0], GAUSSIAN, 7)[None, None]
    spectra = spectra_means(kept.astype(np.float32), field.astype(np.float32), spectra_transforms(GAUSSIAN))
    (forecast,) = (values for name, values in spectra.items() if "spherical" in name and "forecast" in name)
    assert forecast[0, 0, 8:].sum() < 1e-3 * forecast[0, 0].sum()


@pytest.mark.parametrize("predict", ["increment", "state"])
def test_what_a_model_predicts_is_cut_off(predict):
    domain = make_domain(REGULAR)
    model = scramble(make_model(domain, predict=predict, decoder_fields=2, truncation=4)).double()
    history, forcings, lead = inputs(model, dtype=torch.float64)
    found = model(history, forcings, lead)
    predicted = found - history[:, 0] if predict == "increment" else found
    torch.testing.assert_close(truncated(predicted, REGULAR, 4), predicted, rtol=0, atol=1e-5)
    assert predicted.abs().max() > 1e-3


def test_nothing_is_rounded_to_bfloat16_after_it():
    model = scramble(make_model(make_domain(REGULAR), predict="state", truncation=4)).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model(*inputs(model))
    assert found.dtype == torch.float32
    assert (truncated(found, REGULAR, 4) - found).norm() < 1e-5 * found.norm()


@pytest.mark.parametrize(
    ("grid", "largest", "message"),
    [
        (Grid(np.linspace(60, 40, 5), np.linspace(-20, 15, 8)), 3, "is for the whole globe; this grid is"),
        (Grid(np.linspace(60, -60, 8), np.arange(0, 360, 45)), 3, "is for the whole globe; this grid is"),
        (REGULAR, 15, "truncation 15 needs 17 latitudes and 31 longitudes or more, this grid has 16 and 32; lower it"),
        (regular_grid((32, 40)), 20, "truncation 20 needs 22 latitudes and 41 longitudes or more"),
        (regular_grid((721, 1440)), 500, "truncation 500 would take 2.9 GB of matrices on every device; lower it"),
    ],
    ids=["area", "belt", "few latitudes", "few longitudes", "too fine"],
)
def test_what_cannot_be_cut_off_is_refused(grid, largest, message):
    with pytest.raises(InputError, match=message):
        make_model(make_domain(grid), truncation=largest)


def test_a_wavenumber_is_a_number():
    with pytest.raises(InputError, match="truncation"):
        parse_settings(ModelConfig, {"truncation": True}, "model")
