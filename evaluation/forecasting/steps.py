"""The steps of a model from analysed states to every lead time, all of them on its device.

Legend: B sample (an initial time, of one member), T input time, C channel, F forcing, K condition, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from weatherfm.device import autocast, choose_precision
from weatherfm.earth.forcings import clock, forcing_fields
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.model.model import WeatherViT
from weatherfm.model.present import present_inputs


class Steps:
    """A model that takes the steps a forecast asks for.

    Args:
        model: on its device, in evaluation mode while it is asked.
        config: lead times, mode, batch size and precision.
        split: the model's weights are spread over processes, whose hooks want tensors that know their version.
        missing: channels of the whole model that the states lack; those that it predicts are there after its first
            step.
    """

    def __init__(
        self, model: WeatherViT, config: ForecastConfig, split: bool = False, missing: Collection[str] = ()
    ) -> None:
        self.model, self.config, self._split = model, config, split
        self.device = device_of(model)
        self.dtype = choose_precision(config.precision, self.device)
        self._input_times = list(model.config.input_times)
        inputs = model.share.inputs
        held = [name not in missing for name in inputs]
        self._held = torch.tensor(held, device=self.device) if missing else None  # [channel that goes in]
        self._made = torch.tensor([name in model.share.outputs for name in inputs], device=self.device)

    def leads(
        self, inits: np.ndarray, states: dict[int, Tensor], later: Callable[[int], Tensor] | None = None
    ) -> Iterator[Tensor]:
        """Normalised [B, C, H, W] float32 on the device, for one lead time after the other.

        Args:
            inits: [B] datetime64.
            states: hours (<= 0) -> normalised [B, C, H, W] on the device; emptied.
            later: gives, for hours that a rollout reaches, a state whose channels that are inputs alone are taken; they
                persist without it.
        """
        return self._rollout(inits, states, later) if self.config.mode == "rollout" else self._direct(inits, states)

    def _direct(self, inits: np.ndarray, states: dict[int, Tensor]) -> Iterator[Tensor]:
        parts = [(self._history(states, 0, part), self._known(inits[part])) for part in self._parts(len(inits))]
        states.clear()
        for lead_time in self.config.lead_times:
            yield torch.cat([self._step(history, known, lead_time, 0) for history, known in parts])

    def _rollout(
        self, inits: np.ndarray, states: dict[int, Tensor], later: Callable[[int], Tensor] | None
    ) -> Iterator[Tensor]:
        """`states` grows by a step and forgets its tail, so that memory does not grow with the lead time."""
        step, wanted = self.config.rollout_step, set(self.config.lead_times)
        for start in range(0, self.config.lead_times[-1], step):
            times = inits + np.timedelta64(start, "h")
            states[start + step] = torch.cat(
                [
                    self._step(self._history(states, start, part), self._known(times[part]), step, start)
                    for part in self._parts(len(inits))
                ]
            )
            if later is not None and start + step < self.config.lead_times[-1]:
                with self.without_gradients():
                    states[start + step] = self.model.with_inputs_of(states[start + step], later(start + step))
            for hours in [h for h in states if h < start + step + min(self._input_times)]:
                del states[hours]
            if start + step in wanted:
                yield states[start + step]

    def _parts(self, count: int) -> list[slice]:
        size = self.config.batch_size
        return [slice(first, first + size) for first in range(0, count, size)]

    def _history(self, states: dict[int, Tensor], start: int, part: slice) -> Tensor:
        """[B, T, C, H, W]."""
        return torch.stack([states[start + hours][part] for hours in self._input_times], dim=1)

    def _known(self, times: np.ndarray) -> tuple[Tensor, Tensor]:
        """Forcings [B, F, H, W], which members of an ensemble share, and conditions [B, K]."""
        unique, index = np.unique(times, return_inverse=True)
        fields = forcing_fields(self.model.forcings, unique, self.model.domain.grid)
        condition = torch.from_numpy(clock(self.model.conditions, times)).to(self.device)
        return torch.from_numpy(fields).to(self.device)[torch.from_numpy(index).to(self.device)], condition

    def _present(self, start: int, count: int) -> Tensor | None:
        """[B, I] of a step from hours `start`, alike for all samples; None, on all processes: the states lack none."""
        if self._held is None:
            return None
        made = self._held | self._made
        states = torch.stack([made if start + hours > 0 else self._held for hours in self._input_times])  # [T, C]
        return present_inputs(states.expand(count, -1, -1), self.model.share)

    def _step(self, history: Tensor, known: tuple[Tensor, Tensor], lead_time: int, start: int) -> Tensor:
        forcings, condition = known
        lead = torch.full((len(history),), lead_time, device=self.device)
        try:
            with self.without_gradients(), autocast(self.device, self.dtype):
                return self.model(history, forcings, lead, self._present(start, len(lead)), condition).float()
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{len(history)} samples at once do not fit into the memory of {self.device} "
                f"({str(error).splitlines()[0]}); lower forecast.batch_size (now {self.config.batch_size}), or split "
                "the model over several devices (parallel.tp)"
            ) from error

    def without_gradients(self) -> AbstractContextManager[None]:
        """Inside nothing is kept for a backward pass."""
        return torch.no_grad() if self._split else torch.inference_mode()


def device_of(model: WeatherViT) -> torch.device:
    """Where a model is."""
    return next((x.device for x in (*model.parameters(), *model.buffers())), torch.device("cpu"))
