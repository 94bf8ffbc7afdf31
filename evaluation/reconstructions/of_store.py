"""The states of a store, some of their patches hidden, and how well a masked autoencoder makes them.

Legend: N times, T input time, C channels, O channels that come out, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from weatherfm.data_pipeline.loader import eligible_init_times
from weatherfm.data_pipeline.period_config import Days
from weatherfm.data_pipeline.store.states import StoreStates, require_fit
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.reconstructions.figures import Sample
from weatherfm.evaluation.reconstructions.scores import ReconstructionScores, ReconstructionSums
from weatherfm.evaluation.scoring.learned_days import refuse_days_of_weights
from weatherfm.model.model import WeatherViT
from weatherfm.model.reconstruct import reconstruct

_AT_ONCE = 16
_HAVE_ALL = (
    "give a store that has all of the model's channels, or, of a run on several stores (data.mix), the weights for "
    "this one, weights.NAME.safetensors"
)


def score_store(
    model: WeatherViT,
    store: Store,
    times: np.ndarray,
    shown: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[ReconstructionScores, list[Sample]]:
    """Reconstruct states of a store; what is hidden of each follows from the seed and its time.

    Args:
        model: a masked autoencoder.
        store: with the channels of the model.
        times: [N] datetime64 of the states.
        shown: how many of them to keep for pictures, spread evenly.
        seed: of what is hidden.
        dtype: of matrix products.

    Returns:
        Scores over all, of the channels that come out, and those to show.

    Raises:
        InputError: a store that does not fit, or days that the weights learned from.
    """
    require_fit(model.domain.grid, model.share.inputs, StoreStates(store), _HAVE_ALL)
    refuse_days_of_weights(times, store, {"the reconstruction": {"training": model.provenance}})
    places = [model.domain.channels.index(name) for name in model.share.outputs]
    weights = np.asarray(model.domain.grid.area_weights)
    sums = ReconstructionSums(model.share.outputs, _training_mean(model)[places], weights)
    chosen = set(np.linspace(0, len(times) - 1, min(shown, len(times))).round().astype(int).tolist())
    samples = []
    for start in tqdm(range(0, len(times), _AT_ONCE), desc="reconstruct", unit="batch", disable=None):
        own = times[start : start + _AT_ONCE]
        states = _states(model, store, own)
        made = reconstruct(model, states, times=own, seed=seed, dtype=dtype)
        now = states[:, model.config.input_times.index(0)]
        truth, fields = now[:, places], made.fields[:, places]
        there = _there(model, store, now, places)
        sums.add(truth, fields, made.hidden, there)
        for row in range(len(own)):
            if start + row in chosen:
                true = np.where(there[row], truth[row], np.nan)
                samples.append(
                    Sample(_title(store, own[row]), model.share.outputs, true, fields[row], made.hidden[row])
                )
    return sums.scores(), samples


def _training_mean(model: WeatherViT) -> np.ndarray:
    """[C] of the training data, in the units in which the model has mean 0: what it gives where it gives nothing."""
    nothing = torch.zeros(len(model.domain.channels), 1, 1, device=model.mean.device)
    fields = model.denormalize(nothing).flatten(1).cpu().numpy()
    mean: np.ndarray = np.nanmax(fields, 1)  # the same everywhere, but for NaN at points of a mask
    return mean


def times_to_reconstruct(store: Store, period: Days | None, input_times: Sequence[int], wanted: str) -> np.ndarray:
    """[N] datetime64 of the states of a period that have their input times.

    Raises:
        InputError: there are none.
    """
    found = eligible_init_times(store, period, input_times, [0])
    if not len(found):
        raise InputError(f"{store.path} has no states of {wanted} ({period}); choose --on another period")
    return found


def _states(model: WeatherViT, store: Store, times: np.ndarray) -> np.ndarray:
    """[N, T, C, H, W]; channels that only come out and that are not in the store are not needed."""
    read = [
        store.read(store.index_of(times + np.timedelta64(hours, "h")), model.domain.channels)
        for hours in model.config.input_times
    ]
    return np.stack(read, 1)


def _there(model: WeatherViT, store: Store, now: np.ndarray, places: Sequence[int]) -> np.ndarray:
    """[N, O, H, W] bool: of pictures where there is no background, which is 0 in every channel; of weather by masks."""
    if store.grid.plane:
        plant = (now != 0).any(1, keepdims=True)
        return np.broadcast_to(plant, (len(now), len(places), *now.shape[2:]))
    return np.broadcast_to(model.domain.present[list(places)], (len(now), len(places), *now.shape[2:]))


def _title(store: Store, time: np.datetime64) -> str:
    if store.grid.plane:
        return f"Picture {int(store.index_of(np.array([time]))[0])}"
    return str(time.astype("datetime64[m]")).replace("T", " ")
