"""Validation while training: the loss, and evaluation's own RMSE, on fixed samples of the validation period."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from weatherfm.data_pipeline.loader import eligible_init_times, fixed_batches
from weatherfm.data_pipeline.store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.metrics import Verification
from weatherfm.model import WeatherViT
from weatherfm.training.batches import predict, read_ahead
from weatherfm.training.config import RunConfig
from weatherfm.training.loss import ForecastLoss


def spread_evenly(times: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the times [n], ascending, first and last among them where count > 1."""
    if len(times) <= count:
        return times
    return times[np.linspace(0, len(times) - 1, count).round().astype(np.int64)]


class Validator:
    """Scores a model on the same samples every time: each initial time at each lead time.

    Args:
        config: a run whose data have a validation period with samples (`check_training`).
        store: its store.
        loss: the training loss.
        dtype: of matrix products.
    """

    def __init__(self, config: RunConfig, store: Store, loss: ForecastLoss, dtype: torch.dtype) -> None:
        self._store, self._loss, self._dtype = store, loss, dtype
        self._input_times, self._lead_times = config.model.input_times, config.training.lead_times
        self._batch_size, self._channels = config.training.batch_size, config.data.channels
        inits = eligible_init_times(store, config.data.validation, self._input_times, self._lead_times)
        self._workers = config.training.workers
        self._inits = spread_evenly(inits, config.training.validation_samples)
        self._regions = ("global",) if store.grid.periodic else ("area",)

    @torch.no_grad()
    def __call__(self, model: WeatherViT) -> dict[str, Any]:
        """Score the model's present weights in evaluation mode; dropout is on again afterwards.

        Returns:
            `loss` (mean over samples, lead times and channels) and `rmse` by channel and lead time in hours,
            physical units.

        Raises:
            InputError: a forecast or the truth is not finite.
        """
        model.eval()
        scores = Verification(model.domain.grid, model.domain.channels, self._lead_times, self._regions)
        total = sum(self._score(model, scores, index) for index in range(len(self._lead_times)))
        model.train()
        loss = total / (len(self._inits) * len(self._lead_times))
        rmse = scores.metrics()["rmse"][0]  # [L, C]
        finite = np.isfinite(rmse).all(0)
        if not (finite.all() and np.isfinite(loss)):
            wrong = ", ".join(np.array(self._channels)[~finite]) or "all channels together"
            raise InputError(
                f"the validation scores of {wrong} are not finite; "
                f"look for missing values with `weatherfm verify {self._store.path}`, or lower training.learning_rate"
            )
        by_channel = {
            name: {str(hours): float(rmse[i, c]) for i, hours in enumerate(self._lead_times)}
            for c, name in enumerate(model.domain.channels)
        }
        return {"loss": loss, "rmse": by_channel}

    def _score(self, model: WeatherViT, scores: Verification, lead_index: int) -> float:
        """Add all samples of one lead time to the scores; returns the sum of their losses."""
        device, total = model.mean.device, 0.0
        batches = fixed_batches(
            self._store,
            self._inits,
            self._input_times,
            self._lead_times[lead_index],
            self._batch_size,
            self._channels,
            self._workers,
        )
        for ready in read_ahead(batches, model, device):
            forecast = predict(model, ready, self._dtype)
            truth = ready.batch.target
            losses = self._loss(forecast, model.normalize(truth), ready.batch.lead_time_hours)  # [B, C]
            total += float(losses.mean(1).sum())
            physical = model.denormalize(forecast.float())
            scores.update(physical.cpu().numpy(), truth.cpu().numpy(), lead_index=lead_index)
        return total
