"""A trained masked autoencoder at work: states in memory, some patches of them hidden, and what it makes of the rest.

Legend: n state, T input time, C channel, H lat, W lon, N patch, V visible patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weatherfm.device import autocast
from weatherfm.earth.forcings import clock, forcing_fields
from weatherfm.errors import InputError
from weatherfm.model.hidden_patches import hidden_points, visible_at
from weatherfm.model.model import WeatherViT


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """States as a model makes them of some of their patches."""

    fields: np.ndarray
    """[n, C, H, W] float32, physical units, in the order of `model.domain.channels`: the model's own everywhere, NaN at
    points of a mask. Channels that do not come out (`model.outputs`) are as they were given."""
    hidden: np.ndarray
    """[n, H, W] bool, True where the model did not see what was given."""
    visible: np.ndarray
    """[n, V] numbers of the patches that it saw, row by row from 0."""


@torch.no_grad()
def reconstruct(
    model: WeatherViT,
    states: np.ndarray,
    visible: np.ndarray | None = None,
    times: np.ndarray | None = None,
    seed: int = 0,
    batch_size: int = 16,
    dtype: torch.dtype = torch.float32,
) -> Reconstruction:
    """Hide patches of states and let a masked autoencoder make them; one process, on the model's device.

        made = weatherfm.reconstruct(model, states, times=times)
        made.fields, made.hidden

    Args:
        model: of `weatherfm.load`, trained with `training.objective: reconstruct`.
        states: [n, C, H, W], or [n, T, C, H, W] at `model.config.input_times`, in physical units and the order of
            `model.domain.channels`. What is hidden of them is not looked at, nor what stands at points of a mask.
        visible: [n, V] numbers of the patches that it sees, as many in every state; without it, they are drawn by
            `seed` and times, as many as `model.reconstruction.mask_ratio` leaves (validation of a run with that seed
            draws the same).
        times: [n] datetime64 of the states; needed by a model with forcings or `conditioning: adaln`, and to draw.
        seed: of what is drawn.
        batch_size: states that go through the model at once.
        dtype: of matrix products.

    Returns:
        What it makes of them, in physical units, and what was hidden.

    Raises:
        InputError: a model that forecasts, states of another shape or without values where they are seen, no times
            where they are needed, or patches that are none.
    """
    if not isinstance(model, WeatherViT):
        raise InputError(f"the model is what weatherfm.load('weights.safetensors') returns, got {type(model).__name__}")
    if model.config.reconstruction is None:
        raise InputError(
            "this model forecasts (weatherfm.forecast); to reconstruct, load weights that were trained with "
            "training.objective: reconstruct"
        )
    if seed < 0 or batch_size < 1:
        raise InputError(f"seed must be 0 or more, and batch_size 1 or more; got {seed} and {batch_size}")
    whole = _as_history(model, states)
    known = _known_times(model, times, len(whole), needed=visible is None)
    if visible is None:
        N = model.tokens[0] * model.tokens[1]
        visible = visible_at(seed, known, N, model.config.reconstruction.visible(N))
    chosen = _checked(model, visible, len(whole))
    hidden = hidden_points(chosen, model.tokens, model.config.patch, model.domain.grid.shape)
    _require_values(model, whole, ~hidden)
    training, made = model.training, []
    model.eval()
    try:
        for start in range(0, len(whole), batch_size):
            rows = slice(start, start + batch_size)
            made.append(_of_batch(model, whole[rows], known[rows], chosen[rows], dtype))
    finally:
        model.train(training)
    return Reconstruction(np.concatenate(made), hidden.numpy(), chosen.numpy())


def _as_history(model: WeatherViT, states: np.ndarray) -> Tensor:
    """[n, T, C, H, W]."""
    T, domain = len(model.config.input_times), model.domain
    wanted = (T, len(domain.channels), *domain.grid.shape)
    given = np.asarray(states, np.float32)
    if given.ndim == 4 and T == 1:
        given = given[:, None]
    if given.ndim != 5 or given.shape[1:] != wanted or not len(given):
        raise InputError(
            f"states have shape {list(np.shape(states))}; this model takes [n, {', '.join(map(str, wanted))}]: input "
            f"times, {len(domain.channels)} channels ({', '.join(domain.channels[:3])}, ..), {domain.grid}"
        )
    return torch.from_numpy(given)


def _known_times(model: WeatherViT, times: np.ndarray | None, count: int, needed: bool) -> np.ndarray:
    if times is None and (needed or model.forcings or model.conditions):
        raise InputError("give times= of the states, [n] datetime64: by them patches, forcings and conditions are made")
    known = np.zeros(count, "datetime64[s]") if times is None else np.asarray(times, "datetime64[s]")
    if known.shape != (count,) or np.isnat(known).any():
        told = f"shape {list(known.shape)}" if known.shape != (count,) else "NaT"
        raise InputError(f"times must be one for each of {count} states, got {told}")
    return known


def _require_values(model: WeatherViT, states: Tensor, seen: Tensor) -> None:
    """States [n, T, C, H, W], and where [n, H, W] the model sees them."""
    for index, channel in enumerate(model.domain.channels):
        if channel not in model.share.inputs:
            continue
        looked_at = seen & torch.from_numpy(model.domain.present[index])
        lacking = looked_at & ~states[:, :, index].isfinite().all(1)
        if lacking.any():
            n, row, column = (int(place) for place in lacking.nonzero()[0])
            raise InputError(
                f"states[{n}] has no finite value of {channel} at row {row}, column {column}, which the model sees, "
                f"and {int(lacking.sum())} such points in all; give values, or hide these patches (visible=)"
            )


def _checked(model: WeatherViT, visible: np.ndarray, count: int) -> Tensor:
    N = model.tokens[0] * model.tokens[1]
    try:
        given = np.asarray(visible)
    except ValueError:  # rows of other lengths
        given = np.empty(0, object)
    ordered = np.sort(np.atleast_1d(given), -1)
    sound = given.ndim == 2 and len(given) == count and 1 <= given.shape[1] < N and given.dtype.kind in "iu"
    if not sound or ordered.min() < 0 or ordered.max() >= N or (np.diff(ordered) == 0).any():
        raise InputError(
            f"visible must hold, for each of {count} states, as many different numbers from 0 to {N - 1}, one at least "
            f"and not all; got {given.dtype} of shape {list(given.shape)}"
        )
    return torch.from_numpy(ordered.astype(np.int64))


def _of_batch(model: WeatherViT, states: Tensor, times: np.ndarray, visible: Tensor, dtype: torch.dtype) -> np.ndarray:
    device = model.mean.device
    forcings = torch.from_numpy(forcing_fields(model.forcings, times, model.domain.grid)).to(device)
    condition = torch.from_numpy(clock(model.conditions, times)).to(device)
    leads = torch.zeros(len(states), device=device)
    given = states.to(device)
    with autocast(device, dtype):
        made = model(model.normalize(given), forcings, leads, None, condition, visible=visible.to(device))
    fields: np.ndarray = model.denormalize(made.float()).cpu().numpy()
    return fields
