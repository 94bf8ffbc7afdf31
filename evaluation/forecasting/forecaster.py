"""The fields of forecasts, one lead time after the other, while the states of the next ones are being read.

Legend: I initial time, M member, B = I x M sample, C channel, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from weatherfm.data_pipeline.fields.masks import Masks
from weatherfm.data_pipeline.store.states import States
from weatherfm.device import products_in
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.init_times import require_inputs, required_input_times
from weatherfm.evaluation.forecasting.state_checks import require_sound
from weatherfm.evaluation.forecasting.steps import Steps
from weatherfm.evaluation.forecasting.threads import read_ahead
from weatherfm.model.model import WeatherViT


@dataclass(frozen=True, eq=False)
class Made:
    """Forecasts from some initial times at one lead time."""

    group: int
    """Which of the groups of initial times."""
    lead: int
    """Which of the lead times."""
    fields: Tensor
    """[I, M, C, H, W] float32 in physical units, on the model's device."""


class Forecaster:
    """A model about to forecast from states.

    Args:
        model: on its device.
        states: that fit it.
        config: lead times, mode, batch size and precision.
        split: the model's weights are spread over processes.
        missing: channels of the whole model that the states lack.
    """

    def __init__(
        self,
        model: WeatherViT,
        states: States,
        config: ForecastConfig,
        split: bool = False,
        missing: Collection[str] = (),
    ) -> None:
        self.model, self.states, self.config = model, states, config
        self.steps = Steps(model, config, split, missing)
        self.held = tuple(name for name in model.domain.channels if name not in missing)
        self.required = required_input_times(model.config.input_times, config)
        self.members = len(states.numbers or (0,))

    def check_inputs(self, init_times: np.ndarray) -> None:
        """Refuse initial times whose states are not there, before anything is computed."""
        require_inputs(self.states, init_times, self.required)

    def make(self, groups: Sequence[np.ndarray]) -> Generator[Made, None, None]:
        """Forecasts from each group of initial times at each lead time; the states of a group are in memory together.

        To be closed: until then the model is in evaluation mode, and products of the process in its precision.

        Args:
            groups: datetime64 [I] each.

        Raises:
            InputError: a state that cannot be read, or holds a value that is not finite or not possible on Earth.
        """
        with (
            evaluating(self.model),
            products_in(self.config.precision),
            closing(read_ahead(self._read, groups)) as read,
        ):
            for group, (times, fields) in enumerate(read):
                for lead, made in enumerate(self._group(groups[group], times, fields)):
                    yield Made(group, lead, made)

    def _group(self, inits: np.ndarray, times: np.ndarray, fields: Tensor) -> Iterator[Tensor]:
        """[I, M, C, H, W] in physical units at each lead time."""
        samples = np.repeat(inits, self.members)  # [B]
        for state in self.steps.leads(samples, self._placed(inits, times, fields)):
            with self.steps.without_gradients():
                fields = self.model.denormalize(state)
            yield fields.unflatten(0, (len(inits), self.members))

    def _read(self, inits: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """(times [U], fields [U, M, C, H, W]) that forecasts from `inits` start from; in a thread of its own."""
        times = np.unique(np.concatenate([inits + np.timedelta64(hours, "h") for hours in self.required]))
        tensor = torch.from_numpy(self._held_at(times))
        return times, tensor.pin_memory() if self.steps.device.type == "cuda" else tensor

    def _held_at(self, times: np.ndarray) -> np.ndarray:
        """[U, M, C, H, W] float32 in canonical units; zeros, which nobody looks at, for channels that are missing."""
        domain = self.model.domain
        if not self.held:  # a share of the channels, of which the states have others
            return np.zeros((len(times), self.members, len(domain.channels), *domain.grid.shape), np.float32)
        fields = self.states.read(times, self.held)
        require_sound(fields, times, self.held, self.states, domain.masks)
        if self.held == domain.channels:
            return fields
        filled = np.zeros((*fields.shape[:2], len(domain.channels), *fields.shape[3:]), np.float32)
        filled[:, :, [domain.channels.index(name) for name in self.held]] = fields
        return filled

    def _placed(self, inits: np.ndarray, times: np.ndarray, fields: Tensor) -> dict[int, Tensor]:
        """Hours (<= 0) -> normalised [B, C, H, W] on the device."""
        with self.steps.without_gradients():
            normal = self.model.normalize(fields.to(self.steps.device, non_blocking=True))
            rows = {hours: np.searchsorted(times, inits + np.timedelta64(hours, "h")) for hours in self.required}
            return {hours: normal[torch.from_numpy(index)].flatten(0, 1) for hours, index in rows.items()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside the block a model is in evaluation mode; after it, each part of it is as it was (some may be frozen)."""
    were = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, training in were.items():
            part.training = training


def require_finite_forecast(
    fields: Tensor,
    channels: Sequence[str],
    numbers: Sequence[int] | None,
    init_times: np.ndarray,
    lead_time: int,
    masks: Masks,
) -> None:
    """Refuse forecasts [I, M, C, H, W] with values that are not finite, but for points of the model's masks.

    Raises:
        InputError: naming the first by channel, initial time, lead time (hours) and member.
    """
    sound = torch.isfinite(fields)
    for name, mask in masks.items():
        sound[:, :, channels.index(name)] |= torch.from_numpy(mask).to(fields.device)
    finite = sound.flatten(3).all(-1).cpu().numpy()  # [I, M, C]
    if finite.all():
        return
    init, member, channel = np.argwhere(~finite)[0]
    of = f", member {numbers[member]}" if numbers else ""
    raise InputError(
        f"the model predicts a value that is not finite: {channels[channel]} from {init_times[init]} at "
        f"{lead_time}h{of} ({(~finite).sum()} of {finite.size} fields); check the store with `weatherfm verify`, "
        "and train on, or with a smaller learning rate, where its data are sound"
    )
