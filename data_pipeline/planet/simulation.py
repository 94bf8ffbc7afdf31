"""The dynamics of the simulated planet: dinosaur-dycore's primitive equations under Held-Suarez forcing (JAX, CPU).

Dry air over smooth idealised mountains, T21, 8 sigma layers; no seasons, no day and night. Import this module only
where dinosaur may be asked for. Run as a script it repeats the spin-up from rest whose end the package ships:

    python -m weatherfm.data_pipeline.planet.simulation spinup.npz
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from dinosaur.coordinate_systems import CoordinateSystem
from dinosaur.held_suarez import HeldSuarezForcing
from dinosaur.primitive_equations import PrimitiveEquations, PrimitiveEquationsSpecs, State
from dinosaur.scales import GRAVITY_ACCELERATION, OMEGA, RADIUS, Scale, units
from dinosaur.sigma_coordinates import SigmaCoordinates
from dinosaur.spherical_harmonic import Grid as SpectralGrid
from dinosaur.spherical_harmonic import vor_div_to_uv_nodal
from dinosaur.time_integration import (
    horizontal_diffusion_step_filter,
    imex_rk_sil3,
    repeated,
)
from tqdm import tqdm

from weatherfm.data_pipeline.planet.levels import GAS_CONSTANT, SigmaFields

Coefficients = dict[str, np.ndarray]
"""A state of the atmosphere: float32 spectral coefficients by name; as it is saved, so it goes on."""

LAYERS = 8
STEPS_PER_OUTPUT = 5
"""Steps of 72 minutes between 6-hourly outputs; winds of 70 m/s would allow 120."""
SPIN_UP_DAYS = 400
MOUNTAINS = (  # height m; latitude, longitude; degrees of latitude and longitude to half the height
    (3000, 34, 90, 11, 20),  # where Tibet is
    (1800, 44, 250, 14, 14),  # the Rockies
    (1800, -22, 291, 20, 11),  # the Andes
    (1500, 73, 319, 11, 24),  # Greenland
    (1000, 2, 34, 14, 12),  # East Africa
    (2000, -90, 0, 16, 1e6),  # Antarctica
)
"""Gaussian mountains where Earth has its great ones, so that maps look familiar; this is not real terrain."""

_REFERENCE_TEMPERATURE = 288.0  # K, the same in all layers: then the semi-implicit step is stable
_CONSTANT = np.sqrt(4 * np.pi)  # coefficient [0, 0] of a field that is 1 everywhere
_STATE_FIELDS = ("vorticity", "divergence", "temperature_variation", "log_surface_pressure")


class Planet:
    """Steps the atmosphere over a given ground, six hours at a time.

    Args:
        surface: [lat, lon] geopotential of the ground, m2 s-2, as `surface_geopotential` makes it.
        contrast: K, equator minus pole of the equilibrium temperature; Held and Suarez have 60.
    """

    def __init__(self, surface: np.ndarray, contrast: float = 60.0) -> None:
        self._coords = CoordinateSystem(SpectralGrid.T21(), SigmaCoordinates.equidistant(LAYERS))
        self._cpu = jax.devices("cpu")[0]  # also where a GPU is at hand: small arrays, and the same numbers
        with jax.default_device(self._cpu):
            self._step = jax.jit(self._build_step(surface / GRAVITY_ACCELERATION.magnitude, contrast))

    @property
    def sigma(self) -> np.ndarray:
        """[layer] layer centres, from the top down."""
        return self._coords.vertical.centers

    def advance(self, state: Coefficients) -> tuple[Coefficients, SigmaFields]:
        """The state six hours later, and the fields [layer, lat, lon] of the state given."""
        with jax.default_device(self._cpu):
            after, fields = self._step(State(**state))
        numbers = [np.asarray(field) for field in fields]
        return {name: np.asarray(getattr(after, name)) for name in _STATE_FIELDS}, SigmaFields(*numbers)

    def perturbed(self, state: Coefficients, seed: int, size: float = 1.0) -> Coefficients:
        """The state with `size` K (root mean square) of noise, waves 1 to 12, added to the temperature."""
        order, degree = np.meshgrid(*self._coords.horizontal.modal_axes, indexing="ij")
        waves = (np.abs(order) <= degree) & (degree >= 1) & (degree <= 12)
        noise = np.random.default_rng(seed).standard_normal((LAYERS, *waves.shape)) * waves
        noise *= size * _CONSTANT / np.sqrt(waves.sum())
        warmer = state["temperature_variation"] + noise.astype(np.float32)
        return state | {"temperature_variation": warmer}

    def at_rest(self, surface: np.ndarray) -> Coefficients:
        """An isothermal atmosphere without wind, its mean sea-level pressure 1000 hPa."""
        still = np.zeros(self._coords.modal_shape, np.float32)
        return self.raised(dict.fromkeys(_STATE_FIELDS, still) | {"log_surface_pressure": still[:1]}, surface)

    def raised(self, state: Coefficients, rise: np.ndarray) -> Coefficients:
        """The state over a ground higher by `rise` [lat, lon] (m2 s-2), its mean sea-level pressure the same."""
        log_pressure = -rise / (GAS_CONSTANT * _REFERENCE_TEMPERATURE)
        modal = np.asarray(self._coords.horizontal.to_modal(_to_core(log_pressure)), np.float32)
        return state | {"log_surface_pressure": state["log_surface_pressure"] + modal[None]}

    def _build_step(
        self, height: np.ndarray, contrast: float
    ) -> Callable[[State], tuple[State, tuple[jax.Array, ...]]]:
        """From the ground [lat, lon] in m, a function from a state to that after six hours and the fields before."""
        grid, specs = self._coords.horizontal, _physics()
        reference = np.full(LAYERS, _REFERENCE_TEMPERATURE)
        ground = grid.to_modal(_to_core(specs.nondimensionalize(height * units.m)))
        motion = PrimitiveEquations(reference, ground, self._coords, specs)
        forcing = HeldSuarezForcing(self._coords, specs, reference, dTy=contrast * units.degK)
        step = specs.nondimensionalize(6 * units.hour / STEPS_PER_OUTPUT)
        time_scale = specs.nondimensionalize(2.4 * units.hour)
        diffusion = horizontal_diffusion_step_filter(grid, step, tau=time_scale, order=4)
        dynamics = imex_rk_sil3(motion, step)

        def one_step(state: State) -> State:  # the forcing acts over days: once a step is enough
            return diffusion(state, dynamics(state) + step * forcing.explicit_terms(state))

        six_hours = repeated(one_step, STEPS_PER_OUTPUT)

        def advance(state: State) -> tuple[State, tuple[jax.Array, ...]]:
            after = six_hours(state)
            drift = self._log_mass(state) - self._log_mass(after)  # the equations conserve mass only nearly
            log_pressure = after.log_surface_pressure.at[:, 0, 0].add(drift * _CONSTANT)
            return after.replace(log_surface_pressure=log_pressure), self._fields(state)

        return advance

    def _log_mass(self, state: State) -> jax.Array:
        grid = self._coords.horizontal
        return jnp.log(grid.integrate(jnp.exp(grid.to_nodal(state.log_surface_pressure[0]))))

    def _fields(self, state: State) -> tuple[jax.Array, ...]:
        """Temperature, u, v [layer, lat, lon] and surface pressure [lat, lon] in SI units."""
        grid = self._coords.horizontal
        temperature = grid.to_nodal(state.temperature_variation) + _REFERENCE_TEMPERATURE
        speed = _physics().dimensionalize(1.0, units.m / units.s).magnitude
        u, v = vor_div_to_uv_nodal(grid, state.vorticity, state.divergence, clip=False)
        pressure = 1e5 * jnp.exp(grid.to_nodal(state.log_surface_pressure[0]))
        return tuple(_from_core(field) for field in (temperature, speed * u, speed * v, pressure))


def _physics() -> PrimitiveEquationsSpecs:
    """Earth's constants; pressure in units of 1000 hPa, so that float32 resolves its logarithm near zero."""
    mass = 1e5 * units.pascal * RADIUS / (2 * OMEGA) ** 2
    return PrimitiveEquationsSpecs.from_si(scale=Scale(RADIUS, 1 / 2 / OMEGA, mass, 1 * units.degK))


def _from_core(field: jax.Array) -> jax.Array:
    """[..., lon, lat ascending] -> [..., lat descending, lon]."""
    return jnp.flip(jnp.swapaxes(field, -1, -2), -2)


def _to_core(field: np.ndarray) -> np.ndarray:
    """[..., lat descending, lon] -> [..., lon, lat ascending]."""
    return np.swapaxes(np.flip(field, -2), -1, -2)


def surface_geopotential() -> np.ndarray:
    """[lat, lon] m2 s-2 of `MOUNTAINS` as T21 resolves them (which ripples the sea by up to 50 m)."""
    grid = SpectralGrid.T21()
    longitude, latitude = (np.rad2deg(x) for x in (grid.nodal_mesh[0], np.arcsin(grid.nodal_mesh[1])))
    height = np.zeros(grid.nodal_shape)
    for top, north, east, half_north, half_east in MOUNTAINS:
        eastward = (longitude - east + 180) % 360 - 180
        distance = ((latitude - north) / half_north) ** 2 + (eastward / half_east) ** 2
        height += top * 0.5**distance
    resolved = grid.to_nodal(grid.clip_wavenumbers(grid.to_modal(height)))
    return np.asarray(_from_core(resolved) * GRAVITY_ACCELERATION.magnitude, np.float32)


def spin_up(days: int = SPIN_UP_DAYS) -> tuple[Coefficients, np.ndarray]:
    """The weather `days` after rest with a little noise, and the ground [lat, lon] (m2 s-2) it blows over."""
    surface = surface_geopotential()
    planet = Planet(surface)
    state = planet.perturbed(planet.at_rest(surface), seed=0)
    for _ in tqdm(range(4 * days), desc="spinning up", unit="6h", disable=None):
        state, _ = planet.advance(state)
    return state, surface


def main() -> None:
    """Spin up and save to the file named on the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--days", type=int, default=SPIN_UP_DAYS)
    arguments = parser.parse_args()
    state, surface = spin_up(arguments.days)
    np.savez_compressed(arguments.file, surface_geopotential=surface, **state)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
