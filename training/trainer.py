"""Training: one optimizer step after another, resumed by itself, ending in a portable weights file.

    run folder/  metrics.jsonl   checkpoints/   weights.safetensors

A run that is killed and started again goes through the same weights, bit for bit (on a CPU; on a GPU as far as
its kernels repeat themselves): the data of a step follow from (seed, step), its random numbers as well, and all
else is in the checkpoint.

Legend: B batch, C channel.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from weatherfm.device import apply_precision, choose_device, choose_precision, peak_memory_gib
from weatherfm.errors import StopRequest
from weatherfm.training.begin import begin
from weatherfm.training.checkpoints.best_weights import set_best_aside
from weatherfm.training.checkpoints.checkpoint import CheckpointFolder
from weatherfm.training.checkpoints.export import export_weights, weights_path
from weatherfm.training.checkpoints.prolong import find_checkpoint
from weatherfm.training.checkpoints.state import Progress, TrainingState
from weatherfm.training.feeding.channel_sampling import inputs_shown
from weatherfm.training.feeding.hidden_patches import patches_shown
from weatherfm.training.feeding.mixture import Mixture
from weatherfm.training.feeding.noise import training_noise
from weatherfm.training.feeding.ready_batches import ReadyBatch, read_ahead
from weatherfm.training.feeding.samples import reads_inputs
from weatherfm.training.feeding.store_checks import check_parts, warn_of_spreads
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import Mesh, build_mesh
from weatherfm.training.parallel.role import Role, find_role
from weatherfm.training.parts import Part, open_parts
from weatherfm.training.ranks.job import Job
from weatherfm.training.ranks.process_group import join
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.run_start import RunStart, choose_layout_of, find_start
from weatherfm.training.stepping.grounds import require_losses
from weatherfm.training.stepping.not_finite import refuse_step
from weatherfm.training.stepping.optimizer import learning_rate
from weatherfm.training.stepping.reconstruction_validation import build_validator
from weatherfm.training.stepping.step import Ground, compute_gradients, exchange, step_seed, update_weights
from weatherfm.training.stepping.step_result import StepResult
from weatherfm.training.stepping.untouched_rows import UntouchedRows
from weatherfm.training.stepping.validation import together
from weatherfm.training.upkeep.metrics_log import MetricsLog
from weatherfm.training.upkeep.run_lock import hold_run
from weatherfm.training.upkeep.speed import Speed
from weatherfm.training.upkeep.stop_signals import StopSignals

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """How a call of `train` ended."""

    folder: Path
    steps: int
    """Optimizer steps done in all."""
    resumed_from: int
    """Step of the checkpoint that was gone on from; 0: from the beginning."""
    stopped_by: str | None
    """Name of the signal that ended training early; started again, it goes on. None: finished."""
    best_loss: float | None
    """Lowest validation loss, at `best_step`; None without a validation period."""
    best_step: int | None
    weights: Path | None
    """The exported weights; None when not finished."""


def train(config: RunConfig, stop: StopSignals | None = None) -> Summary:
    """Train a run to its end, from its newest checkpoint if it has one; under torchrun, together with all ranks.

    SIGTERM, SIGUSR1 and Ctrl-C end it with a checkpoint, after the step at hand (on a GPU, where results are read late,
    within two further steps); while it starts, before the first step, at the next of a few points where all ranks
    agree. The summary says so.

    Args:
        config: the run.
        stop: entered already, for a caller that has been listening since before this could be called.

    Raises:
        InputError: settings, layout, store and checkpoints that do not go together (found before compute is spent),
            another process that trains in the same folder, or a loss or gradient that is not finite (the last good
            checkpoint is kept).
    """
    device = choose_device(config.training.device)
    # Innermost, so that a failing rank's deafness to SIGTERM, which `join` sees to, outlives it.
    listening = StopSignals() if stop is None else nullcontext(stop)
    with ExitStack() as held, join(device, config.parallel.timeout) as job, listening as heard:

        def check() -> tuple[list[Part], Layout]:
            checked = _check(config, job.world)
            if job.first:  # before anything in the folder is touched
                warn_of_spreads(checked[0])
                held.enter_context(hold_run(config.folder))
            return checked

        parts, layout = job.first_checks(check)
        mesh = build_mesh(layout, device.type) if layout.devices > 1 else None
        return _train(config, parts, mesh, device, job, heard)


def _check(config: RunConfig, devices: int) -> tuple[list[Part], Layout]:
    parts = open_parts(config)
    check_parts(config, parts)
    require_losses(parts)
    return parts, choose_layout_of(find_start(config, parts), parts, devices)


def _train(
    config: RunConfig, parts: list[Part], mesh: Mesh | None, device: torch.device, job: Job, stop: StopSignals
) -> Summary:
    start = find_start(config, parts)
    role = find_role(config.parallel, config.model, start.domain, mesh)
    apply_precision(config.training.precision)
    saved = find_checkpoint(config)
    try:
        mixture, state, grounds, identity = begin(start, parts, role, device, saved, job, stop)
    except StopRequest as asked:
        if job.store is not None:
            stop.stay_deaf()
        progress = Progress() if saved is None else Progress(**saved.record["progress"])
        return _summary(config, progress, progress.step, stop.received or str(asked))
    settings, resumed_from = config.training, state.progress.step
    wandb_settings = config.model_dump(mode="json")
    log: AbstractContextManager[MetricsLog | None] = nullcontext()
    if role.first:
        log = MetricsLog(config.folder, resumed_from, settings.wandb, wandb_settings, settings.steps)
    checkpoints = CheckpointFolder(
        config.folder / "checkpoints", settings.keep_checkpoints, settings.cooldown_begins, resumed_from
    )
    with log as lines, checkpoints:
        trainer = Trainer(start, parts, mixture, state, grounds, identity, role, job, lines, checkpoints)
        trainer.run(stop)
        if job.store is not None and not trainer.finished:
            stop.stay_deaf()
        if trainer.finished and settings.export == "last":
            export_weights(start, parts, state, role, job.beat)
    stopped_by = None if trainer.finished else stop.received or "a signal to another rank"
    if stopped_by:
        step = state.progress.step
        _log.info("%s: stopped after step %d, nothing is lost; start again to go on", stopped_by, step)
    return _summary(config, state.progress, resumed_from, stopped_by)


def _summary(config: RunConfig, progress: Progress, resumed_from: int, stopped_by: str | None) -> Summary:
    return Summary(
        folder=config.folder,
        steps=progress.step,
        resumed_from=resumed_from,
        stopped_by=stopped_by,
        best_loss=progress.best_loss,
        best_step=progress.best_step,
        weights=None if stopped_by else weights_path(config),
    )


class Steps:
    """Optimizer steps of this rank, one after another.

    Args:
        start: the run and what it began with.
        parts: its stores, checked.
        mixture: training batches of this rank.
        state: fresh or restored.
        grounds: what batches of each store are worked on with.
        role: what this rank does.
    """

    def __init__(
        self,
        start: RunStart,
        parts: list[Part],
        mixture: Mixture,
        state: TrainingState,
        grounds: list[Ground],
        role: Role,
    ) -> None:
        self.start, self.config, self.settings = start, start.config, start.config.training
        self.parts, self.mixture, self.grounds = parts, mixture, grounds
        self.state, self.role = state, role
        self.device = state.model.mean.device
        self.dtype = choose_precision(self.settings.precision, self.device)
        self.lead_times = torch.tensor(self.settings.lead_times, device=self.device)
        self.read_inputs = reads_inputs(self.config)
        self.untouched = None
        if len(parts) > 1:
            self.untouched = UntouchedRows(state.model, state.optimizer, [ground.role.share for ground in grounds])
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


class Trainer(Steps):
    """The loop: steps, and between them lines in the log, validations and checkpoints.

    Args:
        start: the run and what it began with.
        parts: its stores, checked.
        mixture: training batches of this rank.
        state: fresh or restored.
        grounds: what batches of each store are worked on with.
        identity: what a resumed run is compared with.
        role: what this rank does.
        job: where it says how far it is.
        log: where metrics go; None on all ranks but the first.
        checkpoints: where they are kept.
    """

    def __init__(
        self,
        start: RunStart,
        parts: list[Part],
        mixture: Mixture,
        state: TrainingState,
        grounds: list[Ground],
        identity: dict[str, Any],
        role: Role,
        job: Job,
        log: MetricsLog | None,
        checkpoints: CheckpointFolder,
    ) -> None:
        super().__init__(start, parts, mixture, state, grounds, role)
        self.identity, self.job, self.log = identity, job, log
        self.validators = [
            build_validator(part.config, part.store, ground, self.dtype) if part.config.data.validation else None
            for part, ground in zip(parts, grounds, strict=True)
        ]
        self.checkpoints = checkpoints
        self.saved_step = state.progress.step

    @property
    def finished(self) -> bool:
        """Nothing is left to train."""
        return self.state.progress.is_finished(self.settings)

    def run(self, stop: StopSignals) -> None:
        """Train until finished or asked to stop; the last step is in a checkpoint then."""
        progress, settings = self.state.progress, self.settings
        self.state.model.train()
        with (
            closing(self.batches()) as stream,
            tqdm(
                initial=progress.step, total=settings.steps, unit="step", disable=None if self.role.first else True
            ) as bar,
        ):
            while not (self.finished or self.asked_to_stop):
                with self.speed.step(settings.batch_size * settings.accumulate):
                    self.step(self.next_batches(stream), stop)
                bar.update()
                self.job.beat(progress.step)
                saving = self._due(settings.checkpoint_every) or progress.step == settings.cooldown_begins
                if saving or any(map(self._due, (settings.log_every, settings.validate_every))):
                    self.settle()
                if self._due(settings.log_every):
                    self._write_metrics(bar)
                if self._due(settings.validate_every) and any(self.validators):
                    self._validate()
                if saving:
                    self._save()
            self.settle()
            self._save()
            self.checkpoints.wait()

    def _due(self, every: int) -> bool:
        step = self.state.progress.step
        return step % every == 0 or step == self.settings.steps

    def _write_metrics(self, bar: tqdm) -> None:
        """One line in the log, and on the screen, over the steps since the last one."""
        state, step, speed = self.state, self.state.progress.step, self.speed.take()
        by_channel, by_lead, norm, by_step = state.window.take()
        rollout = {str(i): value for i, value in enumerate(by_step, 1) if not np.isnan(value)}
        leads = zip(self.settings.lead_times, by_lead, strict=True)
        by_hours = [(str(hours), value) for hours, value in leads if not np.isnan(value)]
        loss, told = float(np.nanmean(by_channel)), list(zip(self.role.channels, by_channel, strict=True))
        if self.log is not None:
            self.log.write(
                {
                    "step": step,
                    "loss": loss,
                    "loss_by_channel": {name: value for name, value in told if not np.isnan(value)},
                    **({"loss_by_lead_time": dict(by_hours)} if self.settings.objective == "forecast" else {}),
                    **({"loss_by_rollout_step": rollout} if rollout else {}),
                    "learning_rate": learning_rate(step - 1, self.settings),
                    "gradient_norm": norm,
                    **speed,
                    "memory_gib": peak_memory_gib(self.device),
                }
            )
        text = f"loss {loss:.4g}, {speed['samples_per_second']:.1f} samples/s"
        bar.set_postfix_str(text)
        if bar.disable:  # no terminal, as in a batch job: leave a trace in its log
            _log.info("step %d of %d: %s", step, self.settings.steps, text)

    def _validate(self) -> None:
        state = self.state
        with state.evaluated_weights():
            found = [None if one is None else one(state.model, self.job.beat) for one in self.validators]
        scores = together(self.parts, found)
        if self.log is not None:
            self.log.write({"step": state.progress.step, "validation": scores})
        better = state.progress.validated(scores["loss"])
        _log.info("step %d: validation loss %.4g%s", state.progress.step, scores["loss"], " (best)" if better else "")
        if better and self.settings.export == "best":
            export_weights(self.start, self.parts, state, self.role, self.job.beat)

    def _save(self) -> None:
        """A checkpoint of this step, unless there is one."""
        if self.state.progress.step == self.saved_step:
            return
        if self.log is not None:
            self.log.sync()  # the lines a resumed run builds on must be on disk before its checkpoint
        if self.role.first and self.state.progress.step == self.settings.cooldown_begins:
            set_best_aside(self.config)
        self.checkpoints.save(self.state.progress.step, self.state.tensors(), self.state.record(self.identity))
        self.saved_step = self.state.progress.step
