"""Training: one optimizer step after another, resumed by itself, ending in a portable weights file.

    run folder/  metrics.jsonl   checkpoints/   weights.safetensors

A run that is killed and started again goes through the same weights, bit for bit (on a CPU; on a GPU as far as
its kernels repeat themselves): the data of a step follow from (seed, step), its random numbers as well, and all
else is in the checkpoint.

Legend: B batch, C channel.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from weatherfm.data_pipeline.loader import SampleLoader
from weatherfm.data_pipeline.store import Store, open_store
from weatherfm.model import WeatherViT
from weatherfm.training.batches import ReadyBatch, read_ahead, sample_losses
from weatherfm.training.checkpoint import load_newest, save_checkpoint
from weatherfm.training.checks import check_training
from weatherfm.training.config import RunConfig
from weatherfm.training.device import choose_device, choose_precision, peak_memory_gib
from weatherfm.training.ema import WeightAverage
from weatherfm.training.export import export_weights, weights_path
from weatherfm.training.failure import refuse_step
from weatherfm.training.loss import forecast_loss
from weatherfm.training.metrics_log import MetricsLog
from weatherfm.training.optimizer import (
    build_optimizer,
    clip_gradients,
    gradient_norm,
    learning_rate,
    set_learning_rate,
)
from weatherfm.training.resume import require_same_settings, run_settings
from weatherfm.training.samples import training_samples
from weatherfm.training.signals import StopSignals
from weatherfm.training.speed import Speed
from weatherfm.training.state import TrainingState
from weatherfm.training.validation import Validator

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


def train(config: RunConfig) -> Summary:
    """Train a run to its end, from its newest checkpoint if it has one.

    SIGTERM, SIGUSR1 and Ctrl-C end it after the step at hand with a checkpoint; the summary says so.

    Raises:
        InputError: settings, store and checkpoints that do not go together (found before compute is spent), or a
            loss or gradient that is not finite (the last good checkpoint is kept).
    """
    settings = config.training
    store = open_store(config.data.store)
    check_training(config, store)
    device = choose_device(settings.device)
    loader = training_samples(config, store, pin_memory=device.type == "cuda")

    torch.manual_seed(settings.seed)
    model = WeatherViT(config.model, store.domain(config.data.channels)).to(device)
    if settings.compile:
        model.compile()
    average = WeightAverage(model, settings.ema_decay) if settings.ema_decay else None
    state = TrainingState(model, build_optimizer(model, settings), average)

    identity = run_settings(config, store, choose_precision(settings, device))
    checkpoint = load_newest(config.folder / "checkpoints")
    if checkpoint is not None:
        require_same_settings(checkpoint.record["settings"], identity, str(config.folder))
        state.restore(checkpoint)
        _log.info("going on from the checkpoint of step %d in %s", state.progress.step, config.folder)
    resumed_from = state.progress.step

    wandb_settings = config.model_dump(mode="json")
    with StopSignals() as stop, MetricsLog(config.folder, resumed_from, settings.wandb, wandb_settings) as log:
        trainer = Trainer(config, store, loader, state, identity, log)
        trainer.run(stop)
        if trainer.finished and settings.export == "last":
            export_weights(config, store, state)
    progress = state.progress
    if not trainer.finished:
        _log.info("%s: stopped after step %d, nothing is lost; start again to go on", stop.received, progress.step)
    return Summary(
        folder=config.folder,
        steps=progress.step,
        resumed_from=resumed_from,
        stopped_by=None if trainer.finished else stop.received,
        best_loss=progress.best_loss,
        best_step=progress.best_step,
        weights=weights_path(config) if trainer.finished else None,
    )


class Trainer:
    """The loop: steps, and between them lines in the log, validations and checkpoints.

    Args:
        config: the run.
        store: its store, checked.
        loader: training samples.
        state: fresh or restored.
        identity: what a resumed run must share.
        log: where metrics go.
    """

    def __init__(
        self,
        config: RunConfig,
        store: Store,
        loader: SampleLoader,
        state: TrainingState,
        identity: dict[str, Any],
        log: MetricsLog,
    ) -> None:
        self.config, self.settings = config, config.training
        self.store, self.loader = store, loader
        self.state, self.identity, self.log = state, identity, log
        self.device = state.model.mean.device
        self.dtype = choose_precision(self.settings, self.device)
        shortest = min(self.settings.lead_times) if self.settings.lead_time_weighting == "inverse" else None
        self.loss = forecast_loss(config.model, state.model.domain, self.settings.channel_weights, shortest)
        self.loss = self.loss.to(self.device)
        self.validator = Validator(config, store, self.loss, self.dtype) if config.data.validation else None
        self.saved_step = state.progress.step
        self.speed = Speed()

    @property
    def finished(self) -> bool:
        """All steps are done, or validation has not improved for too long."""
        patience = self.settings.early_stopping
        gave_up = patience is not None and self.state.progress.validations_since_best >= patience
        return gave_up or self.state.progress.step >= self.settings.steps

    def run(self, stop: StopSignals) -> None:
        """Train until finished or asked to stop; the last step is in a checkpoint then."""
        progress, settings = self.state.progress, self.settings
        self.state.model.train()
        with (
            closing(self._batches()) as stream,
            tqdm(initial=progress.step, total=settings.steps, unit="step", disable=None) as bar,
        ):
            while not (self.finished or stop.received):
                with self.speed.step(settings.batch_size * settings.accumulate):
                    with self.speed.waiting():
                        batches = list(islice(stream, settings.accumulate))
                    self._step(batches)
                bar.update()
                if self._due(settings.log_every):
                    self._write_metrics(bar)
                if self._due(settings.validate_every) and self.validator is not None:
                    self._validate(self.validator)
                if self._due(settings.checkpoint_every):
                    self._save()
            self._save()

    def _batches(self) -> Generator[ReadyBatch, None, None]:
        """From the batch after the last one that training has seen."""
        done, accumulate = self.state.progress.step, self.settings.accumulate
        batches = self.loader.iterate(done * accumulate, self.settings.steps * accumulate)
        return read_ahead(batches, self.state.model, self.device)

    def _step(self, batches: list[ReadyBatch]) -> None:
        """One optimizer step."""
        state, settings = self.state, self.settings
        model, step = state.model, state.progress.step
        torch.manual_seed(step_seed(settings.seed, step))  # drop path and dropout follow from (seed, step)
        state.optimizer.zero_grad()
        losses = []
        for ready in batches:
            loss = sample_losses(model, self.loss, ready, self.dtype)  # [B, C]
            (loss.mean() / len(batches)).backward()
            losses.append(loss.detach())
        norm = gradient_norm(model.parameters())
        if not torch.isfinite(norm):  # before anything is changed
            refuse_step(step + 1, losses, batches, model, self.config.folder)
        clip_gradients(model.parameters(), settings.clip_norm, norm)
        set_learning_rate(state.optimizer, learning_rate(step, settings))
        state.optimizer.step()
        state.progress.step += 1
        if state.average is not None:
            state.average.update(model, state.progress.step)
        state.window.add(torch.stack(losses).mean((0, 1)), norm)

    def _due(self, every: int) -> bool:
        step = self.state.progress.step
        return step % every == 0 or step == self.settings.steps

    def _write_metrics(self, bar: tqdm) -> None:
        """One line in the log, and on the screen, over the steps since the last one."""
        state, step, speed = self.state, self.state.progress.step, self.speed.take()
        by_channel, norm = state.window.take()
        loss = float(np.mean(by_channel))
        self.log.write(
            {
                "step": step,
                "loss": loss,
                "loss_by_channel": dict(zip(state.model.domain.channels, by_channel, strict=True)),
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

    def _validate(self, validator: Validator) -> None:
        state = self.state
        with state.evaluated_weights():
            scores = validator(state.model)
        self.log.write({"step": state.progress.step, "validation": scores})
        better = state.progress.validated(scores["loss"])
        _log.info("step %d: validation loss %.4g%s", state.progress.step, scores["loss"], " (best)" if better else "")
        if better and self.settings.export == "best":
            export_weights(self.config, self.store, state)

    def _save(self) -> None:
        """A checkpoint of this step, unless there is one."""
        if self.state.progress.step == self.saved_step:
            return
        self.log.sync()  # the lines a resumed run builds on must be on disk before its checkpoint
        folder = self.config.folder / "checkpoints"
        save_checkpoint(folder, self.state.checkpoint(self.identity), self.settings.keep_checkpoints)
        self.saved_step = self.state.progress.step


def step_seed(seed: int, step: int) -> int:
    """Seed of all random numbers of one optimizer step; unrelated for neighbouring steps and seeds."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
