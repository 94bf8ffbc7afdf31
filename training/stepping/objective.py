"""What is learned, forecasts or reconstructions, as the loss that scores it and the losses of a batch.

Legend: S model step, B batch, O channel that comes out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weatherfm.earth.domain import Domain
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import ChannelShare
from weatherfm.training.feeding.ready_batches import ReadyBatch
from weatherfm.training.run_config import TrainingConfig
from weatherfm.training.stepping.loss import ForecastLoss, forecast_loss
from weatherfm.training.stepping.reconstruction import ReconstructionLoss, reconstruction_loss, reconstruction_losses
from weatherfm.training.stepping.rollout import step_losses

Loss = ForecastLoss | ReconstructionLoss


def loss_of(settings: TrainingConfig, config: ModelConfig, domain: Domain, share: ChannelShare | None = None) -> Loss:
    """The loss of a run.

    Args:
        settings: of training.
        config: of the model.
        domain: that it is on.
        share: channels that are scored here; without it, all.

    Raises:
        InputError: every channel has weight zero.
    """
    if config.reconstruction is not None:
        return reconstruction_loss(config, domain, settings.channel_weights, share)
    shortest = min(settings.lead_times) if settings.lead_time_weighting == "inverse" else None
    return forecast_loss(config, domain, settings.channel_weights, shortest, share, settings.crps_alpha_used)


def batch_losses(
    model: WeatherViT, loss: Loss, ready: ReadyBatch, dtype: torch.dtype, read_inputs: bool = False
) -> Tensor:
    """[S, B, O] weighted losses of a batch, float32 or better; the training loss is their mean. `read_inputs` as of
    `step_losses`."""
    if isinstance(loss, ReconstructionLoss):
        return reconstruction_losses(model, loss, ready, dtype)
    return step_losses(model, loss, ready, dtype, read_inputs)
