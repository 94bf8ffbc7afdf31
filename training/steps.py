"""Optimizer steps of a rank, one after another: what training, and whoever tries it out, goes through."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator

import torch

from weatherfm.device import choose_precision
from weatherfm.training.begin import Begun
from weatherfm.training.feeding.channel_sampling import inputs_shown
from weatherfm.training.feeding.hidden_patches import patches_shown
from weatherfm.training.feeding.noise import training_noise
from weatherfm.training.feeding.ready_batches import ReadyBatch, read_ahead
from weatherfm.training.feeding.samples import reads_inputs
from weatherfm.training.stepping.not_finite import refuse_step
from weatherfm.training.stepping.step import compute_gradients, exchange, step_seed, update_weights
from weatherfm.training.stepping.step_result import StepResult
from weatherfm.training.stepping.untouched_rows import UntouchedRows
from weatherfm.training.upkeep.speed import Speed
from weatherfm.training.upkeep.stop_signals import StopSignals


class Steps:
    """Optimizer steps of this rank, one after another.

    Args:
        begun: all that the first one needs.
    """

    def __init__(self, begun: Begun) -> None:
        self.start, self.config, self.settings = begun.start, begun.start.config, begun.start.config.training
        self.parts, self.mixture, self.grounds = begun.parts, begun.mixture, begun.grounds
        self.state, self.role = begun.state, begun.role
        self.device = self.state.model.mean.device
        self.dtype = choose_precision(self.settings.precision, self.device)
        self.lead_times = torch.tensor(self.settings.lead_times, device=self.device)
        self.read_inputs = reads_inputs(self.config)
        self.untouched = None
        if len(self.parts) > 1:
            shares = [ground.role.share for ground in self.grounds]
            self.untouched = UntouchedRows(self.state.model, self.state.optimizer, shares)
        self.asked_to_stop = False
        self.late = self.device.type == "cuda"  # results are read a step late, so that the queue never runs dry
        self.unread: StepResult | None = None
        self.speed = Speed()

    def batches(self) -> Generator[ReadyBatch, None, None]:
        """From the batch after the last one that training has seen."""
        numbers = [step * self.settings.accumulate for step in (self.state.progress.step, self.settings.steps)]
        shown = inputs_shown(self.config, lambda number: self.grounds[self.mixture.stores[number]].role, *numbers)
        grids = [part.store.grid for part in self.parts]
        noise = training_noise(self.config, self.role, *numbers)
        seen = patches_shown(self.config, self.role, lambda number: grids[self.mixture.stores[number]], *numbers)
        return read_ahead(self.mixture.iterate(*numbers), self.state.model, self.device, shown, grids, noise, seen)

    def next_batches(self, stream: Iterator[ReadyBatch]) -> Iterator[ReadyBatch]:
        """Those of one step, each asked for when its turn comes, and held by nobody here after that."""
        for _ in range(self.settings.accumulate):
            with self.speed.waiting():
                ready = [next(stream)]
            yield ready.pop()  # a variable would hold it until the next turn

    def step(self, batches: Iterator[ReadyBatch], stop: StopSignals) -> None:
        """One optimizer step."""
        state, settings, role = self.state, self.settings, self.role
        model, step = state.model, state.progress.step
        torch.manual_seed(step_seed(settings.seed, step, role.part[0]))  # drop path and dropout follow from it
        state.optimizer.zero_grad()
        scored = compute_gradients(model, self.grounds, batches, settings.accumulate, self.dtype, self.read_inputs)
        exchanged = exchange(model, scored, role, stop.received is not None, self.lead_times)
        before, self.unread = self.unread, StepResult(step, exchanged, scored)
        self._heed(before)
        if not self.late:
            self.settle()
        untouched = None
        if self.untouched is not None:
            numbers = slice(step * settings.accumulate, (step + 1) * settings.accumulate)
            untouched = self.untouched.kept(self.mixture.stores[numbers].tolist())
        update_weights(model, state.optimizer, exchanged.gradient_norm, settings, step, untouched)
        state.progress.step += 1
        if state.average is not None:
            state.average.update(model, state.progress.step)
        state.window.add(exchanged.channel_loss, exchanged.lead_loss, exchanged.gradient_norm, exchanged.step_loss)

    def settle(self) -> None:
        """Heed the last step's result, waiting for it."""
        before, self.unread = self.unread, None
        self._heed(before)

    def _heed(self, result: StepResult | None) -> None:
        """Stop at what is not finite, and remember that a rank wants to stop; all ranks come here at the same steps."""
        if result is None:
            return
        norm, asked = result.read()
        if not math.isfinite(norm):
            accumulate = self.settings.accumulate
            batches = [self.mixture.batch(result.step * accumulate + i) for i in range(accumulate)]
            refuse_step(result, batches, self.state.model, self.grounds, self.role, self.config.folder, self.late)
        self.asked_to_stop |= asked
