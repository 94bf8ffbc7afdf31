"""Validation while training: the loss, and evaluation's own RMSE, on fixed samples of the validation period."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weatherfm.data_pipeline.loader import fixed_batches
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.metrics.on_device import squared_error_sum
from weatherfm.evaluation.regions import mean_weights
from weatherfm.model.model import WeatherViT
from weatherfm.training.feeding.noise import validation_noise
from weatherfm.training.feeding.ready_batches import read_ahead
from weatherfm.training.feeding.samples import channels_read, validation_inits
from weatherfm.training.parallel.parallelize import reshard
from weatherfm.training.parts import Part
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.loss import predict
from weatherfm.training.stepping.step import Ground


def together(parts: Sequence[Part], found: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """Scores of all stores: of one alone its own; of several their `loss` by weight, and each `by_store`."""
    if len(parts) == 1 and found[0] is not None:
        return found[0]
    scored = {part.name: (part.weight, one) for part, one in zip(parts, found, strict=True) if one is not None}
    total = sum(weight for weight, _ in scored.values())
    loss = sum(weight * one["loss"] for weight, one in scored.values()) / total
    return {"loss": loss, "by_store": {name: one for name, (_, one) in scored.items()}}


class Validator:
    """Scores a model on the same samples every time: each initial time at each lead time.

    Args:
        config: a run whose data have a validation period with samples (`check_training`).
        store: its store.
        ground: the training loss, of this rank's channels, and which of the samples it scores.
        dtype: of matrix products.
    """

    def __init__(self, config: RunConfig, store: Store, ground: Ground, dtype: torch.dtype) -> None:
        self._store, self._ground, self._dtype = store, ground, dtype
        self._loss, self._role, role = ground.loss, ground.role, ground.role
        self._input_times, self._lead_times = config.model.input_times, config.training.lead_times
        self._batch_size = config.training.batch_size // role.part[1]
        self._workers = config.training.workers
        self._inits, self._config = validation_inits(config, store), config
        own, self._counted = role.deal_out(range(len(self._inits)))
        self._own_inits = self._inits[own]
        region = "global" if store.grid.periodic else "area"
        self._weights = torch.from_numpy(mean_weights(store.grid, (region,))[0])  # [H * W]
        domain = store.domain(role.share.outputs)
        self._present = torch.from_numpy(domain.present).flatten(1) if domain.masks else None  # [C own, H * W]
        self._read = channels_read(role.share)

    @torch.no_grad()
    def __call__(self, model: WeatherViT, alive: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Score the model's present weights in evaluation mode; dropout is on again afterwards.

        Args:
            model: all ranks must call it together.
            alive: called after every batch.

        Returns:
            `loss` (mean over samples, lead times and channels) and `rmse` by channel and lead time in hours,
            physical units, of the members' mean where the model makes members.

        Raises:
            InputError: a forecast or the truth is not finite.
        """
        self._ground.enter(model)
        model.eval()
        try:
            leads = range(len(self._lead_times))
            sums = torch.stack([self._score(model, index, alive) for index in leads])  # [L, 2, C own]
        finally:
            model.train()
            reshard(model)
        channels, cases = self._role.among.outputs, len(self._inits)
        found = (self._role.sum(self._role.spread(sums)) / cases).cpu()
        found = found[..., [self._role.channels.index(name) for name in channels]]  # [L, 2, C]
        loss, rmse = float(found[:, 0].mean()), found[:, 1].sqrt().numpy()  # [L, C]
        finite = np.isfinite(rmse).all(0)
        if not (finite.all() and np.isfinite(loss)):
            wrong = ", ".join(np.array(channels)[~finite]) or "all channels together"
            raise InputError(
                f"the validation scores of {wrong} are not finite; "
                f"look for missing values with `weatherfm verify {self._store.path}`, or lower training.learning_rate"
            )
        by_channel = {
            name: {str(hours): float(rmse[i, c]) for i, hours in enumerate(self._lead_times)}
            for c, name in enumerate(channels)
        }
        return {"loss": loss, "rmse": by_channel}

    def _score(self, model: WeatherViT, lead_index: int, alive: Callable[[], None]) -> Tensor:
        """Sums over own samples at one lead time: of losses and of mean squared errors [2, C own] float64."""
        device, left = model.mean.device, self._counted
        weights = self._weights.to(device)
        present = None if self._present is None else self._present.to(device)
        total = torch.zeros(2, len(model.share.outputs), dtype=torch.float64, device=device)
        batches = fixed_batches(
            self._store,
            self._own_inits,
            self._input_times,
            self._lead_times[lead_index],
            self._batch_size,
            model.domain.channels,
            self._workers,
            device.type == "cuda",
            *self._read,
        )
        noise = validation_noise(self._config, self._own_inits, self._batch_size)
        for ready in read_ahead(batches, model, device, noise=noise):
            forecast = predict(model, ready, self._dtype)  # on every rank, whether it counts or not
            alive()
            truth = ready.batch.target
            counted, left = min(left, len(truth)), max(0, left - len(truth))
            if not counted:
                continue
            known = model.known_outputs(ready.present)
            losses = self._loss(forecast, model.normalize(truth), ready.batch.lead_time_hours, known)  # [B, C]
            total[0] += losses[:counted].sum(0)
            mean = model.denormalize(forecast.float()).unflatten(0, (-1, ready.members)).mean(1)
            physical, truth = model.outputs_of(mean), model.outputs_of(truth)
            total[1] += squared_error_sum(physical[:counted], truth[:counted], weights, present)
        return total
