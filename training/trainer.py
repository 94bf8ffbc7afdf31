"""Training: one optimizer step after another, resumed by itself, ending in a portable weights file.

    run folder/  metrics.jsonl   checkpoints/   weights.safetensors

A run that is killed and started again goes through the same weights, bit for bit (on a CPU; on a GPU as far as
its kernels repeat themselves): the data of a step follow from (seed, step), its random numbers as well, and all
else is in the checkpoint.

Legend: B batch, C channel.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from weatherfm.device import apply_precision, choose_device, peak_memory_gib
from weatherfm.errors import StopRequest
from weatherfm.training.begin import Begun, begin
from weatherfm.training.checkpoints.best_weights import set_best_aside
from weatherfm.training.checkpoints.checkpoint import CheckpointFolder
from weatherfm.training.checkpoints.export import export_weights, weights_path
from weatherfm.training.checkpoints.prolong import find_checkpoint
from weatherfm.training.checkpoints.state import Progress
from weatherfm.training.feeding.store_checks import check_parts, warn_of_spreads
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import Mesh, build_mesh
from weatherfm.training.parallel.role import find_role
from weatherfm.training.parts import Part, open_parts
from weatherfm.training.ranks.job import Job
from weatherfm.training.ranks.process_group import join
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.run_start import choose_layout_of, find_start
from weatherfm.training.stepping.grounds import require_losses
from weatherfm.training.stepping.optimizer import learning_rate
from weatherfm.training.stepping.reconstruction_validation import build_validator
from weatherfm.training.stepping.validation import together
from weatherfm.training.steps import Steps
from weatherfm.training.upkeep.metrics_log import MetricsLog
from weatherfm.training.upkeep.run_lock import hold_run
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
        begun, identity = begin(start, parts, role, device, saved, job, stop)
    except StopRequest as asked:
        if job.store is not None:
            stop.stay_deaf()
        progress = Progress() if saved is None else Progress(**saved.record["progress"])
        return _summary(config, progress, progress.step, stop.received or str(asked))
    settings, state, resumed_from = config.training, begun.state, begun.state.progress.step
    wandb_settings = config.model_dump(mode="json")
    log: AbstractContextManager[MetricsLog | None] = nullcontext()
    if role.first:
        log = MetricsLog(config.folder, resumed_from, settings.wandb, wandb_settings, settings.steps)
    checkpoints = CheckpointFolder(
        config.folder / "checkpoints", settings.keep_checkpoints, settings.cooldown_begins, resumed_from
    )
    with log as lines, checkpoints:
        trainer = Trainer(begun, identity, job, lines, checkpoints)
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


class Trainer(Steps):
    """The loop: steps, and between them lines in the log, validations and checkpoints.

    Args:
        begun: all that the first step needs.
        identity: what a resumed run is compared with.
        job: where it says how far it is.
        log: where metrics go; None on all ranks but the first.
        checkpoints: where they are kept.
    """

    def __init__(
        self,
        begun: Begun,
        identity: dict[str, Any],
        job: Job,
        log: MetricsLog | None,
        checkpoints: CheckpointFolder,
    ) -> None:
        super().__init__(begun)
        self.identity, self.job, self.log = identity, job, log
        self.validators = [
            build_validator(part.config, part.store, ground, self.dtype) if part.config.data.validation else None
            for part, ground in zip(self.parts, self.grounds, strict=True)
        ]
        self.checkpoints = checkpoints
        self.saved_step = self.state.progress.step

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
