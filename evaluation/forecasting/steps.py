"""The steps of a model from analysed states to every lead time, all of them on its device.

Legend: I initial time, M member, B sample (an initial time, of one member), T input time, C channel, F forcing, K
condition, Z number of noise, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weatherfm.device import autocast, choose_precision
from weatherfm.earth.forcings import clock, forcing_fields
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.members import ModelMembers
from weatherfm.model.model import WeatherViT
from weatherfm.model.present import present_inputs


@dataclass(frozen=True)
class Part:
    """Samples that go through the model at once."""

    inits: slice
    members: slice
    """Of each of these initial times."""

    @property
    def count(self) -> int:
        """Members of an initial time."""
        return self.members.stop - self.members.start


class Steps:
    """A model that takes the steps a forecast asks for.

    Args:
        model: on its device, in evaluation mode while it is asked.
        config: lead times, mode, batch size and precision.
        members: that it makes of each initial time.
        split: the model's weights are spread over processes, whose hooks want tensors that know their version.
        missing: channels of the whole model that the states lack; those that it predicts are there after its first
            step.
    """

    def __init__(
        self,
        model: WeatherViT,
        config: ForecastConfig,
        members: ModelMembers,
        split: bool = False,
        missing: Collection[str] = (),
    ) -> None:
        self.model, self.config, self.members, self._split = model, config, members, split
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
        """Normalised [I, M, C, H, W] float32 on the device, for one lead time after the other.

        Args:
            inits: [I] datetime64.
            states: hours (<= 0) -> normalised [I, M, C, H, W] on the device, or [I, 1, C, H, W] that all members start
                from; emptied.
            later: gives, for hours that a rollout reaches, a state [I, M or 1, C, H, W] whose channels that are inputs
                alone are taken; they persist without it.
        """
        if self.config.mode == "direct":
            yield from self._direct(inits, states)
        elif self.config.mode == "rollout":
            yield from self._rollout(inits, states, later)
        else:
            direct, rolled = self._direct(inits, dict(states)), self._rollout(inits, states, later)
            for one, other in zip(direct, rolled, strict=True):
                with self.without_gradients():
                    mean = (one + other) / 2
                yield mean

    def _direct(self, inits: np.ndarray, states: dict[int, Tensor]) -> Iterator[Tensor]:
        """All steps of a member have the same noise."""
        given = [(part, self._history(states, 0, part)) for part in self._parts(len(inits))]
        known = [self._known(inits[part.inits], len(history)) for part, history in given]
        states.clear()
        for lead_time in self.config.lead_times:
            made = [
                self._step(part, history, told, inits[part.inits], lead_time, 0)
                for (part, history), told in zip(given, known, strict=True)
            ]
            yield self._together(made)

    def _rollout(
        self, inits: np.ndarray, states: dict[int, Tensor], later: Callable[[int], Tensor] | None
    ) -> Iterator[Tensor]:
        """`states` grows by a step and forgets its tail, so that memory does not grow with the lead time."""
        step, wanted = self.config.rollout_step, set(self.config.lead_times)
        for start in range(0, self.config.lead_times[-1], step):
            times, made = inits + np.timedelta64(start, "h"), []
            for part in self._parts(len(inits)):
                history = self._history(states, start, part)
                known = self._known(times[part.inits], len(history))
                made.append(self._step(part, history, known, inits[part.inits], step, start))
            states[start + step] = self._together(made)
            if later is not None and start + step < self.config.lead_times[-1]:
                states[start + step] = self._with_inputs_of(states[start + step], later(start + step))
            for hours in [h for h in states if h < start + step + min(self._input_times)]:
                del states[hours]
            if start + step in wanted:
                yield states[start + step]

    def _parts(self, count: int) -> list[Part]:
        """All samples of `count` initial times: whole initial times, or some members of one at a time."""
        size, members = self.config.batch_size, len(self.members)
        if (rows := size // members) > 0:
            return [Part(slice(i, min(i + rows, count)), slice(0, members)) for i in range(0, count, rows)]
        groups = [slice(m, min(m + size, members)) for m in range(0, members, size)]
        return [Part(slice(i, i + 1), group) for i in range(count) for group in groups]

    def _together(self, made: list[Tensor]) -> Tensor:
        """Of parts [B, C, H, W] in their order: [I, M, C, H, W]."""
        return torch.cat(made).unflatten(0, (-1, len(self.members)))

    def _with_inputs_of(self, state: Tensor, other: Tensor) -> Tensor:
        """A state [I, M, C, H, W] with the channels that are inputs alone of another one, [I, M or 1, C, H, W]."""
        with self.without_gradients():
            full = other.expand(-1, state.shape[1], -1, -1, -1).flatten(0, 1)
            return self.model.with_inputs_of(state.flatten(0, 1), full).unflatten(0, state.shape[:2])

    def _history(self, states: dict[int, Tensor], start: int, part: Part) -> Tensor:
        """[B, T, C, H, W]; [I, T, C, H, W] where members differ by noise alone, and share what is before it."""
        held = [states[start + hours][part.inits] for hours in self._input_times]
        alike = all(state.shape[1] == 1 for state in held)
        count = 1 if alike and self.members.noise and not self.members.dropout else part.count
        own = [s[:, part.members] if s.shape[1] > 1 else s.expand(-1, count, -1, -1, -1) for s in held]
        return torch.stack(own, dim=2).flatten(0, 1)

    def _known(self, times: np.ndarray, samples: int) -> tuple[Tensor, Tensor]:
        """Forcings [B, F, H, W], which members of an ensemble share, and conditions [B, K]."""
        times = np.repeat(times, samples // len(times))
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

    def _step(
        self,
        part: Part,
        history: Tensor,
        known: tuple[Tensor, Tensor],
        inits: np.ndarray,
        lead_time: int,
        start: int,
    ) -> Tensor:
        forcings, condition = known
        lead = torch.full((len(history),), lead_time, device=self.device)
        given = [history, forcings, lead, self._present(start, len(lead)), condition]
        if (noise := self.members.noise_of(inits, part.members, start)) is not None:
            given.append(noise.to(self.device))
        try:
            with self.without_gradients(), autocast(self.device, self.dtype):
                if self.members.dropout:
                    return self._one_by_one(part, given, inits, start)
                return self.model(*given).float()
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{len(inits) * part.count} samples at once do not fit into the memory of {self.device} "
                f"({str(error).splitlines()[0]}); lower forecast.batch_size (now {self.config.batch_size}), or split "
                "the model over several devices (parallel.tp)"
            ) from error

    def _one_by_one(self, part: Part, given: list[Tensor | None], inits: np.ndarray, start: int) -> Tensor:
        """Each sample with random numbers of its own, which no company changes."""
        made = []
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(gpus):
            for b in range(len(inits) * part.count):
                i, member = divmod(b, part.count)
                torch.manual_seed(self.members.dropout_seed(inits[i], part.members.start + member, start))
                made.append(self.model(*(None if x is None else x[b : b + 1] for x in given)).float())
        return torch.cat(made)

    def without_gradients(self) -> AbstractContextManager[None]:
        """Inside nothing is kept for a backward pass."""
        return torch.no_grad() if self._split else torch.inference_mode()


def device_of(model: WeatherViT) -> torch.device:
    """Where a model is."""
    return next((x.device for x in (*model.parameters(), *model.buffers())), torch.device("cpu"))
