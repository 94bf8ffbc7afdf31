"""The loss of a masked autoencoder: mean squared error of what the model did not see, in normalised units.

With e the error in units of a channel's std, a the cell areas, w the channel weights (mean 1), and h_bc 1 at the points
that sample b did not show of channel c, and at which it has values, else 0:

    loss = mean over samples b and channels c of  w_c * sum(h_bc a e_bc^2) / sum(h_bc a)        sums over lat, lon

What was shown does not count. Of a channel that a sample does not show at all (`training.channel_sampling`) all points
are hidden; of one that has no values in all that is hidden, the loss is 0. It is near 1 for a model that knows nothing.

Legend: B batch, C channel, O channel that comes out, H lat, W lon, V visible position.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from weatherfm.device import autocast
from weatherfm.earth.domain import Domain
from weatherfm.model.architecture import ModelConfig, patch_counts
from weatherfm.model.hidden_patches import hidden_points
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import ChannelShare
from weatherfm.training.feeding.ready_batches import ReadyBatch
from weatherfm.training.stepping.scored_channels import scored_channels


class ReconstructionLoss(nn.Module):
    """Weighted mean squared error of normalised fields over what was hidden."""

    cell_weights: Tensor
    channel_weights: Tensor
    rows: Tensor | None

    def __init__(
        self,
        cell_weights: Tensor,
        channel_weights: Tensor,
        tokens: tuple[int, int],
        patch: tuple[int, int],
        rows: Tensor | None = None,
    ) -> None:
        """Take [H, W] or [O, H, W] weights of cells, 0 where a channel has no value, and [O] weights of channels.

        `tokens` and `patch` are (rows, columns) of patches and of points in a patch; `rows` [O] the places of these
        channels in C, without it they are all.
        """
        super().__init__()
        self.tokens, self.patch = tokens, patch
        self.register_buffer("cell_weights", cell_weights.to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("channel_weights", channel_weights.float(), persistent=False)
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, prediction: Tensor, target: Tensor, visible: Tensor, shown: Tensor | None = None) -> Tensor:
        """Weighted losses of every sample and channel; the loss is their mean.

        Args:
            prediction: [B, C, H, W] normalised.
            target: [B, C, H, W] normalised.
            visible: [B, V] numbers of the patches that were seen.
            shown: [B, O] bool, or [1, O], False for channels that the model did not see; None: it saw all.

        Returns:
            [B, O] float32 or better.
        """
        return self.squared_errors(prediction, target, visible, shown) * self.channel_weights

    def squared_errors(
        self, prediction: Tensor, target: Tensor, visible: Tensor, shown: Tensor | None = None
    ) -> Tensor:
        """[B, O] mean squared errors of what was hidden, in the fields' units; arguments as of `forward`."""
        if self.rows is not None:
            prediction, target = prediction.index_select(1, self.rows), target.index_select(1, self.rows)
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        weights = self.cell_weights.to(dtype)
        error = prediction.to(dtype) - target.to(dtype)
        if weights.ndim == 3:
            error = torch.where(weights > 0, error, 0)
        hidden = hidden_points(visible, self.tokens, self.patch, (error.shape[-2], error.shape[-1]))
        square = error.square()
        found = _mean(square, hidden[:, None] * weights)
        return found if shown is None else torch.where(shown, found, _mean(square, weights))


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """[B, O, H, W] and weights that broadcast to it -> [B, O] weighted means; 0 where all weights are."""
    total = weights.sum((-2, -1))
    return (values * weights).sum((-2, -1)) / torch.where(total > 0, total, 1)


def reconstruction_loss(
    config: ModelConfig, domain: Domain, weights: Mapping[str, float | str], share: ChannelShare | None = None
) -> ReconstructionLoss:
    """The loss of a masked autoencoder on its domain.

    Args:
        config: of the model.
        domain: gives cell areas and masks.
        weights: `training.channel_weights`, divided by their mean.
        share: channels that are scored here; without it, all.

    Raises:
        InputError: every channel has weight zero.
    """
    scored = scored_channels(config, domain, weights, share)
    tokens = patch_counts(config.patch, domain.grid.shape)
    return ReconstructionLoss(scored.cells, scored.by_channel[scored.own], tokens, config.patch, scored.rows)


def reconstructed(model: WeatherViT, ready: ReadyBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """[B, C, H, W] normalised: what the model makes of a batch's visible patches, and the states; matrix products in
    `dtype`."""
    batch = ready.batch
    with autocast(batch.history.device, dtype):
        history = model.normalize(batch.history)
        state = model(
            history, ready.forcings, batch.lead_time_hours, ready.present, ready.condition, visible=ready.visible
        )
    return state, history[:, model.config.input_times.index(0)]


def reconstruction_losses(model: WeatherViT, loss: ReconstructionLoss, ready: ReadyBatch, dtype: torch.dtype) -> Tensor:
    """[1, B, O] weighted losses of a batch, float32 or better; the training loss is their mean."""
    assert ready.visible is not None  # of this objective every batch says what it shows
    state, truth = reconstructed(model, ready, dtype)
    return loss(state, truth, ready.visible, model.known_outputs(ready.present))[None]
