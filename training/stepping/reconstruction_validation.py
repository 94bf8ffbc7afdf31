"""Validation of a masked autoencoder: the loss, and the RMSE of what was hidden, the same patches every time.

Legend: B batch, C channel that comes out, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from weatherfm.data_pipeline.loader import fixed_batches
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.model.model import WeatherViT
from weatherfm.training.feeding.hidden_patches import validation_patches
from weatherfm.training.feeding.ready_batches import read_ahead
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.reconstruction import ReconstructionLoss, reconstructed
from weatherfm.training.stepping.step import Ground
from weatherfm.training.stepping.validation import Validator


class ReconstructionValidator(Validator):
    """As `Validator`; each time is scored once, and `rmse` is over hidden points that have values, at 0 hours."""

    def _score(self, model: WeatherViT, lead_index: int, alive: Callable[[], None]) -> Tensor:
        loss, device, left = self._ground.loss, model.mean.device, self._counted
        assert isinstance(loss, ReconstructionLoss)  # as `build_validator` saw to
        total = torch.zeros(2, len(model.share.outputs), dtype=torch.float64, device=device)
        batches = fixed_batches(
            self._store, self._own_inits, self._input_times, self._lead_times[lead_index], self._batch_size,
            model.domain.channels, self._workers, device.type == "cuda", successive=0,
        )  # fmt: skip
        patches = validation_patches(self._config, self._store, self._own_inits, self._batch_size)
        for ready in read_ahead(batches, model, device, visible=patches):
            made, truth = reconstructed(model, ready, self._dtype)  # on every rank, whether it counts or not
            alive()
            counted, left = min(left, len(truth)), max(0, left - len(truth))
            if not counted:
                continue
            assert ready.visible is not None
            visible = ready.visible[:counted]
            total[0] += loss(made[:counted], truth[:counted], visible).sum(0)
            physical, given = (model.denormalize(one[:counted].double()) for one in (made, truth))
            total[1] += loss.squared_errors(physical, given, visible).sum(0)
        return total


def build_validator(config: RunConfig, store: Store, ground: Ground, dtype: torch.dtype) -> Validator:
    """What scores a run's model on its validation period; arguments as of `Validator`."""
    kind = Validator if config.model.reconstruction is None else ReconstructionValidator
    return kind(config, store, ground, dtype)
