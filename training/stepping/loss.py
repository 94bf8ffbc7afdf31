"""The training loss: mean squared error, or the CRPS of members, weighted by cell area and by channel.

With e the error in normalised units (physical error / std of the channel), a the cell areas (mean 1) and w the
channel weights (mean 1):

    loss = mean over samples b and channels c of  v_b * w_c * s_c^2 * mean over lat, lon of  a * e_bc^2

For `predict: increment`, s_c = std_c / tendency_std_c, over the lead time of the sample where the data know several
(`data.tendency_leads`): the error is measured in units of the typical change of the channel, i.e. on the increment
the head gives, so that slow channels (geopotential) count as much as fast ones (wind). Persistence then has a loss
near 1 a channel at the lead time of `tendency_std`. For `predict: state`, s_c = 1, and so it is for a channel whose
present state the model does not see, as it only comes out (`model.inputs`) or the sample does not show it
(`training.channel_sampling`): it is forecast from its mean, from which states typically differ by std. Channels that
do not come out (`model.outputs`) have no loss. v_b is 1, or with `lead_time_weighting: inverse` the shortest lead
time over that of the sample: squared errors grow about in proportion to lead time, and the long ones would drown the
short ones.

With `training.loss: crps` there are M forecasts of a sample, and in place of e^2 stands their almost fair CRPS
(`weatherfm.training.stepping.crps`); it is in units of the error itself, so s_c counts once, and v_b is a square root.

Legend: B batch, M member, C channel, O channel that comes out, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from weatherfm.device import autocast
from weatherfm.earth.domain import Domain
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.increments import at_lead, increment_scales
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import ChannelShare
from weatherfm.training.feeding.ready_batches import ReadyBatch
from weatherfm.training.stepping.crps import almost_fair_crps
from weatherfm.training.stepping.scored_channels import scored_channels


class ForecastLoss(nn.Module):
    """Weighted mean squared error, or CRPS, of normalised fields."""

    cell_weights: Tensor
    channel_weights: Tensor
    absent_weights: Tensor
    rows: Tensor | None
    leads: Tensor | None
    scales: Tensor | None

    def __init__(
        self,
        cell_weights: Tensor,
        channel_weights: Tensor,
        shortest_lead_hours: int | None = None,
        increments: tuple[Tensor, Tensor] | None = None,
        absent_weights: Tensor | None = None,
        rows: Tensor | None = None,
        crps_alpha: float | None = None,
    ) -> None:
        """Take [H, W] or [O, H, W] weights of cells, mean 1, and [O] weights of channels, applied as they are.

        A cell of weight 0 is not looked at: a channel has no value where its mask is.

        With `shortest_lead_hours`, a sample counts in inverse proportion to its lead time, the shortest fully. With
        `increments`, ([L] hours, [L, O] spreads of changes over them), errors are in units of those. `absent_weights`
        [O] are applied, as they are, to channels that a sample does not show; without them, the others are. `rows` [O]
        are the places of these channels in C; without it they are all. With `crps_alpha` it is the CRPS, of members.
        """
        super().__init__()
        self.shortest_lead_hours, self.crps_alpha = shortest_lead_hours, crps_alpha
        dtype = torch.get_default_dtype()
        self.register_buffer("cell_weights", cell_weights.to(dtype), persistent=False)
        self.register_buffer("channel_weights", channel_weights.float(), persistent=False)
        absent = channel_weights if absent_weights is None else absent_weights
        self.register_buffer("absent_weights", absent.float(), persistent=False)
        self.register_buffer("rows", rows, persistent=False)
        leads, scales = increments or (None, None)
        self.register_buffer("leads", leads, persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    def forward(
        self, prediction: Tensor, target: Tensor, lead_time_hours: Tensor, shown: Tensor | None = None
    ) -> Tensor:
        """Weighted losses of every sample and channel; the loss is their mean.

        Args:
            prediction: [B, C, H, W] normalised; of members [B * M, C, H, W], those of a sample side by side.
            target: [B, C, H, W] normalised.
            lead_time_hours: [B].
            shown: [B, O] bool, or [1, O], False for channels whose present state the model did not see; None: it saw
                all.

        Returns:
            [B, O] float32 or better.
        """
        if self.rows is not None:
            prediction, target = prediction.index_select(1, self.rows), target.index_select(1, self.rows)
        score = self._score(prediction, target)
        weighted = score * self.channel_weights
        if self.leads is not None and self.scales is not None:
            scales = at_lead(self.scales, self.leads, lead_time_hours)
            weighted = weighted / (scales if self.crps_alpha is not None else scales.square()).to(weighted.dtype)
        if shown is not None:
            weighted = torch.where(shown, weighted, score * self.absent_weights)
        if self.shortest_lead_hours is None:
            return weighted
        share = self.shortest_lead_hours / lead_time_hours.to(score.dtype)
        return weighted * (share if self.crps_alpha is None else share.sqrt())[:, None]

    def _score(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[B, O], the mean over cells."""
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        prediction, target = prediction.to(dtype), target.to(dtype)
        if self.crps_alpha is not None:
            prediction, target = prediction.unflatten(0, (len(target), -1)), target[:, None]
        error = prediction - target
        if self.cell_weights.ndim == 3:
            error = torch.where(self.cell_weights > 0, error, 0)
        score = error.square() if self.crps_alpha is None else almost_fair_crps(error, self.crps_alpha)
        return (score * self.cell_weights).mean((-2, -1))


def forecast_loss(
    config: ModelConfig,
    domain: Domain,
    weights: Mapping[str, float | str],
    shortest_lead_hours: int | None = None,
    share: ChannelShare | None = None,
    crps_alpha: float | None = None,
) -> ForecastLoss:
    """The loss of a model on its domain.

    Args:
        config: `predict` decides the unit of the error (see the top of the file).
        domain: gives cell areas and the spread of each channel and of its changes.
        weights: `training.channel_weights` (see `channel_weights.py`); they are divided by their mean.
        shortest_lead_hours: see `ForecastLoss`; without it, all lead times count alike.
        share: channels that are scored here, of all that the weights are shared among; without it, all.
        crps_alpha: of the CRPS (`weatherfm.training.stepping.crps`); None: squared error.

    Raises:
        InputError: every channel has weight zero.
    """
    scored = scored_channels(config, domain, weights, share)
    by_channel, own, plain = scored.by_channel, scored.own, scored.by_channel
    increments = None
    if config.predict == "increment":
        leads, scales = (torch.as_tensor(values) for values in increment_scales(domain))
        scales = scales[:, scored.places]  # [L, O]
        if len(leads) == 1:
            by_channel = by_channel / (scales[0].square() if crps_alpha is None else scales[0])
        else:
            increments = leads.float(), scales[:, own].to(torch.get_default_dtype())
    return ForecastLoss(
        scored.cells, by_channel[own], shortest_lead_hours, increments, plain[own], scored.rows, crps_alpha
    )


def predict(model: WeatherViT, ready: ReadyBatch, dtype: torch.dtype) -> Tensor:
    """[B * M, C, H, W] normalised forecast of a batch, matrix products in `dtype`."""
    batch = ready.batch
    with autocast(batch.history.device, dtype):
        history, noise = model.normalize(batch.history), ready.noise_of(0)
        return model(history, ready.forcings, batch.lead_time_hours, ready.present, ready.condition, noise)
