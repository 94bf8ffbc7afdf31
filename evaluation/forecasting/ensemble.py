"""Models that forecast from the same states side by side: the members of all of them are one ensemble.

Legend: I initial time, M member, O channel that comes out, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing

import numpy as np
import torch
from torch import Tensor

from weatherfm.data_pipeline.fields.masks import Masks
from weatherfm.data_pipeline.store.states import States, missing_channels
from weatherfm.device import products_in
from weatherfm.earth.domain import Domain, masks_of
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.forecaster import Forecaster, Made
from weatherfm.evaluation.forecasting.processes import Processes
from weatherfm.evaluation.forecasting.read_once import ReadOnce
from weatherfm.model.model import WeatherViT
from weatherfm.model.roles import find_roles


class Ensemble:
    """One model, or several that forecast the same fields; each makes its members, in its order.

    Args:
        models: on their device.
        domains: of the whole of each, where it is split.
        states: that fit them all.
        config: of the forecast.
        processes: that make it together.

    Raises:
        InputError: as of `Forecaster`.
    """

    def __init__(
        self,
        models: Sequence[WeatherViT],
        domains: Sequence[Domain],
        states: States,
        config: ForecastConfig,
        processes: Processes,
    ) -> None:
        self.config, self.processes = config, processes
        roles = [find_roles(model.config, domain.channels) for model, domain in zip(models, domains, strict=True)]
        each = 0 if config.members is None else config.members.each
        states = ReadOnce(states) if len(roles) > 1 else states
        self.forecasters = [
            Forecaster(model, states, config, processes.in_step, missing_channels(own.inputs, states), i * each)
            for i, (model, own) in enumerate(zip(models, roles, strict=True))
        ]
        self.channels = roles[0].outputs
        """[O] of every member."""
        self._orders = [[own.outputs.index(name) for name in self.channels] for own in roles]
        self.size = sum(len(one.members) for one in self.forecasters)
        """M."""
        self.numbers = states.numbers if config.members is None else tuple(range(self.size))
        """[M]; None of a single forecast."""
        self.masks: Masks = masks_of(domains[0], self.channels)
        self.dtype = self.forecasters[0].steps.dtype

    def check_inputs(self, init_times: np.ndarray) -> None:
        """Refuse initial times whose states are not there, before anything is computed."""
        for one in self.forecasters:
            one.check_inputs(init_times)

    def make(self, groups: Sequence[np.ndarray]) -> Generator[Made, None, None]:
        """Forecasts of all members from each group of initial times at each lead time; to be closed.

        Args:
            groups: datetime64 [I] each.

        Raises:
            InputError: a state that cannot be read, or holds a value that is not finite or not possible on Earth.
        """
        with ExitStack() as stack:
            stack.enter_context(products_in(self.config.precision))
            streams = [stack.enter_context(closing(one.stream(groups))) for one in self.forecasters]
            for made in zip(*streams, strict=True):
                parts = [self.processes.collect(one.fields, i) for i, one in enumerate(made)]
                yield Made(made[0].group, made[0].lead, self._together(parts))

    def _together(self, parts: Sequence[Tensor]) -> Tensor:
        """[I, M, O, H, W] of the members of each model; nobody looks at it where this process does not write."""
        if len(parts) == 1 or not self.processes.writes:
            return parts[0]
        whole = list(range(len(self.channels)))
        own = [p if order == whole else p[:, :, order] for p, order in zip(parts, self._orders, strict=True)]
        return torch.cat(own, dim=1)
