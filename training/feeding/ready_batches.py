"""Batches ready for the model: on its device, with forcings, prepared while the model computes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from weatherfm.data_pipeline.loader import Batch
from weatherfm.earth.forcings import clock, forcing_fields
from weatherfm.earth.grid import Grid
from weatherfm.model.model import WeatherViT


@dataclass(frozen=True)
class ReadyBatch:
    """A batch of the loader on the device, physical units, and [B, F, H, W] forcings at the initial times."""

    batch: Batch
    forcings: Tensor
    condition: Tensor | None = None
    """[B, K] of the initial times, as many as the model is conditioned on; None: none."""
    present: Tensor | None = None
    """[B, I] bool, False for inputs that a sample does not show the model; None: it shows all."""
    copied: torch.cuda.Event | None = None
    """On a GPU, when the copies to it are done; `read_ahead` has the computing stream wait for that."""
    further_forcings: Tensor | None = None
    """[S - 1, B, F, H, W] at the times that the second to the last of S model steps start from; None where S is 1."""
    further_condition: Tensor | None = None
    """[S - 1, B, K] of those times."""
    noise: Tensor | None = None
    """[S, B * M, Z] of M members a sample, for each model step; None: the model takes none."""
    visible: Tensor | None = None
    """[B, V] numbers of the patches that a masked autoencoder sees; None: the model forecasts."""

    @property
    def members(self) -> int:
        """M forecasts of each sample."""
        return 1 if self.noise is None else self.noise.shape[1] // len(self.forcings)

    def noise_of(self, step: int) -> Tensor | None:
        """[B * M, Z] of model step `step` (from 0)."""
        return None if self.noise is None else self.noise[step]

    def known(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Forcings [B, F, H, W] and condition [B, K] at the times that model step `step` (from 0) starts from."""
        if step == 0:
            return self.forcings, self.condition
        assert self.further_forcings is not None  # as there are further targets
        assert self.further_condition is not None
        return self.further_forcings[step - 1], self.further_condition[step - 1]

    @property
    def tensors(self) -> list[Tensor]:
        """All that is on the device."""
        batch = self.batch
        given = (batch.history, batch.target, batch.lead_time_hours, batch.further, self.forcings, self.condition)
        further = (self.further_forcings, self.further_condition)
        return [x for x in (*given, self.present, *further, self.noise, self.visible) if x is not None]


def make_ready(
    batch: Batch,
    model: WeatherViT,
    device: torch.device,
    stream: torch.cuda.Stream | None = None,
    present: Tensor | None = None,
    grid: Grid | None = None,
    noise: Tensor | None = None,
    visible: Tensor | None = None,
) -> ReadyBatch:
    """Add the forcings the model wants and move all to the device; on a GPU in a stream beside its work.

    `grid` is the batch's; without it, that of the data the model is on. `noise` and `visible` as of `ReadyBatch`.
    """
    starts = batch.starts  # [S, B]
    fields = torch.from_numpy(forcing_fields(model.forcings, starts.ravel(), grid or model.domain.grid))
    forcings = fields.unflatten(0, starts.shape)  # [S, B, F, H, W]
    condition = torch.from_numpy(clock(model.conditions, starts.ravel())).unflatten(0, starts.shape)  # [S, B, K]
    beside = (present, noise, visible)
    if stream is None:
        moved, known = batch.to(device), forcings.to(device)
        return _put_together(moved, known, condition.to(device), _moved(beside, device))
    with torch.cuda.stream(stream):
        moved, known = batch.to(device), forcings.pin_memory().to(device, non_blocking=True)
        return _put_together(moved, known, condition.to(device), _moved(beside, device), stream.record_event())


def _moved(tensors: Sequence[Tensor | None], device: torch.device) -> tuple[Tensor | None, ...]:
    return tuple(None if one is None else one.to(device) for one in tensors)


def _put_together(
    batch: Batch,
    forcings: Tensor,
    condition: Tensor,
    beside: tuple[Tensor | None, ...],
    copied: torch.cuda.Event | None = None,
) -> ReadyBatch:
    """Of [S, B, F, H, W] forcings, [S, B, K] conditions, and beside them `present`, `noise` and `visible`."""
    present, noise, visible = beside
    more = len(forcings) > 1
    further = (forcings[1:] if more else None, condition[1:] if more else None)
    return ReadyBatch(batch, forcings[0], condition[0], present, copied, *further, noise, visible)


def read_ahead(
    batches: Iterable[Batch],
    model: WeatherViT,
    device: torch.device,
    shown: Iterator[Tensor] | None = None,
    grids: Sequence[Grid] | None = None,
    noise: Iterator[Tensor] | None = None,
    visible: Iterator[Tensor] | None = None,
) -> Generator[ReadyBatch, None, None]:
    """Make batches ready one ahead of the caller, in a thread of their own; `shown` gives `present` of each, `noise`
    its noise, `visible` the patches that are seen.

    `grids` are those of the stores that batches are of; without them, it is that of the data the model is on now.

    Two are on the device at most: the one handed out, of which nothing is held here, and the next. On a GPU, whose work
    is queued long before it is done, the next but one waits until the first is through.
    """
    iterator, grids = iter(batches), grids or [model.domain.grid]
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def prepare_next(through: torch.cuda.Event | None) -> ReadyBatch | None:
        batch = next(iterator, None)
        if through is not None:
            through.synchronize()
        if batch is None:
            return None
        present, drawn, seen = (None if given is None else next(given) for given in (shown, noise, visible))
        return make_ready(batch, model, device, stream, present, grids[batch.store], drawn, seen)

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        before: torch.cuda.Event | None = None
        coming = thread.submit(prepare_next, before)
        while (arrived := [coming.result()])[0] is not None:
            coming = thread.submit(prepare_next, before)
            yield _arrived(arrived.pop())  # a variable would hold it until the next turn
            before = None if stream is None else torch.cuda.current_stream(device).record_event()


def _arrived(ready: ReadyBatch | None) -> ReadyBatch:
    """The batch, once the computing stream, not the host, is told to wait for its copies."""
    assert ready is not None
    if ready.copied is not None:
        computing = torch.cuda.current_stream(ready.forcings.device)
        computing.wait_event(ready.copied)
        for tensor in ready.tensors:
            tensor.record_stream(computing)  # its memory may be used again only when that stream is through with it
    return ready
