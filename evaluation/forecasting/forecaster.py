"""The fields of forecasts, one lead time after the other, while the states of the next ones are being read.

Legend: I initial time, M member, C channel, O channel that comes out, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from weatherfm.data_pipeline.fields.masks import Masks
from weatherfm.data_pipeline.store.states import States
from weatherfm.device import products_in
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.init_times import hours_read_ahead, require_inputs, required_input_times
from weatherfm.evaluation.forecasting.members import members_of
from weatherfm.evaluation.forecasting.perturbation import Perturbation
from weatherfm.evaluation.forecasting.state_checks import require_sound
from weatherfm.evaluation.forecasting.steps import Steps
from weatherfm.evaluation.forecasting.threads import read_ahead
from weatherfm.model.blocks import DropPath, SelfAttention
from weatherfm.model.model import WeatherViT
from weatherfm.model.roles import Roles

_DROPPING = (nn.Dropout, DropPath, SelfAttention)
"""Layers that drop at random while they train."""


@dataclass(frozen=True, eq=False)
class Made:
    """Forecasts from some initial times at one lead time."""

    group: int
    """Which of the groups of initial times."""
    lead: int
    """Which of the lead times."""
    fields: Tensor
    """[I, M, O, H, W] float32 in physical units, on the model's device."""


class Fields(NamedTuple):
    """States that were read."""

    times: np.ndarray
    """[U] datetime64, ascending."""
    values: Tensor
    """[U, M, C, H, W] float32 in canonical units; M of the states, 1 where they are no ensemble."""

    def rows(self, inits: np.ndarray, hours: int) -> Tensor:
        """[I] places in U of the times so many hours after the initial ones."""
        return torch.from_numpy(np.searchsorted(self.times, inits + np.timedelta64(hours, "h")))


class Forecaster:
    """A model about to forecast from states.

    Args:
        model: on its device.
        states: that fit it.
        config: lead times, mode, members, batch size and precision.
        split: the model's weights are spread over processes.
        missing: channels of the whole model that the states lack.
        first: number of its first member, after those of other models.

    Raises:
        InputError: members of states that are an ensemble already, or a perturbation that the grid has none of.
    """

    def __init__(
        self,
        model: WeatherViT,
        states: States,
        config: ForecastConfig,
        split: bool = False,
        missing: Collection[str] = (),
        first: int = 0,
    ) -> None:
        self.model, self.states, self.config = model, states, config
        self.members = members_of(model.config.noise, states, config, first)
        self.steps = Steps(model, config, self.members, split, missing)
        self.held = tuple(name for name in model.share.inputs if name not in missing)
        self.ahead = tuple(name for name in self.held if name not in model.share.outputs and config.inputs == "read")
        self.required = required_input_times(model.config.input_times, config)
        self.reached = hours_read_ahead(config)
        self.perturbation = None
        if (told := config.perturbation) is not None:
            self.perturbation = Perturbation(told, config.seed, model.domain, self.held, self.steps.device)

    def check_inputs(self, init_times: np.ndarray) -> None:
        """Refuse initial times whose states are not there, before anything is computed."""
        require_inputs(self.states, init_times, [*self.required, *self.reached])

    def make(self, groups: Sequence[np.ndarray]) -> Generator[Made, None, None]:
        """Forecasts from each group of initial times at each lead time; the states of a group are in memory together.

        To be closed: until then the model is in evaluation mode, and products of the process in its precision.

        Args:
            groups: datetime64 [I] each.

        Raises:
            InputError: as of `stream`.
        """
        with products_in(self.config.precision):
            yield from self.stream(groups)

    def stream(self, groups: Sequence[np.ndarray]) -> Generator[Made, None, None]:
        """As `make`, in the precision that products of the process have.

        Args:
            groups: datetime64 [I] each.

        Raises:
            InputError: a state that cannot be read, or holds a value that is not finite or not possible on Earth.
        """
        with (
            evaluating(self.model, self.members.dropout),
            closing(read_ahead(self._read, groups)) as read,
        ):
            for group, read_fields in enumerate(read):
                for lead, made in enumerate(self._group(groups[group], *read_fields)):
                    yield Made(group, lead, made)

    def _group(self, inits: np.ndarray, fields: Fields, ahead: Fields | None) -> Iterator[Tensor]:
        """[I, M, O, H, W] in physical units at each lead time."""
        with self.steps.without_gradients():
            normal = self._normal(fields.values)
            states = {hours: normal[fields.rows(inits, hours)] for hours in self.required}
            if self.perturbation is not None:
                change = self.perturbation.fields(inits, self.members.numbers)
                states = {hours: state + change for hours, state in states.items()}
        later = None if ahead is None else partial(self._later, inits, ahead)
        for state in self.steps.leads(inits, states, later):
            with self.steps.without_gradients():
                made = self.model.outputs_of(self.model.denormalize(state.flatten(0, 1)))
            yield made.unflatten(0, (len(inits), len(self.members)))

    def _read(self, inits: np.ndarray) -> tuple[Fields, Fields | None]:
        """What forecasts from `inits` start from, and what is read of later times; in a thread of its own."""
        start = self._fields_at(inits, self.required, self.held)
        return start, self._fields_at(inits, self.reached, self.ahead) if self.ahead and self.reached else None

    def _fields_at(self, inits: np.ndarray, hours: Sequence[int], channels: Sequence[str]) -> Fields:
        times = np.unique(np.concatenate([inits + np.timedelta64(offset, "h") for offset in hours]))
        tensor = torch.from_numpy(self._filled(times, channels))
        return Fields(times, tensor.pin_memory() if self.steps.device.type == "cuda" else tensor)

    def _filled(self, times: np.ndarray, channels: Sequence[str]) -> np.ndarray:
        """[U, M, C, H, W] float32 in canonical units; zeros, which nobody looks at, for all but these channels."""
        domain = self.model.domain
        if not channels:  # a share of the channels, of which the states have others
            return np.zeros(
                (len(times), len(self.states.numbers or (0,)), len(domain.channels), *domain.grid.shape), np.float32
            )
        fields = self.states.read(times, channels)
        require_sound(fields, times, channels, self.states, domain.masks)
        if tuple(channels) == domain.channels:
            return fields
        filled = np.zeros((*fields.shape[:2], len(domain.channels), *fields.shape[3:]), np.float32)
        filled[:, :, [domain.channels.index(name) for name in channels]] = fields
        return filled

    def _normal(self, values: Tensor) -> Tensor:
        """On the device."""
        return self.model.normalize(values.to(self.steps.device, non_blocking=True))

    def _later(self, inits: np.ndarray, ahead: Fields, hours: int) -> Tensor:
        """Normalised [I, M, C, H, W] so many hours after each initial time; of the channels that are read ahead alone,
        and of the members of the states."""
        return self._normal(ahead.values[ahead.rows(inits, hours)])


@contextmanager
def evaluating(model: nn.Module, dropout: bool = False) -> Iterator[None]:
    """Inside the block a model is in evaluation mode; after it, each part of it is as it was (some may be frozen).

    Args:
        model: of any kind.
        dropout: layers that drop at random go on doing so.
    """
    were = {part: part.training for part in model.modules()}
    model.eval()
    for part in model.modules():
        part.training = dropout and isinstance(part, _DROPPING)
    try:
        yield
    finally:
        for part, training in were.items():
            part.training = training


def require_inputs_to_read(roles: Roles, config: ForecastConfig) -> None:
    """Refuse to read inputs ahead for a model that has none which are inputs alone.

    Raises:
        InputError: there are none.
    """
    if config.inputs == "read" and set(roles.inputs) <= set(roles.outputs):
        raise InputError("forecast.inputs is read, and the model predicts all of its inputs (model.outputs); drop it")


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
