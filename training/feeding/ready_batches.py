"""Batches ready for the model: on its device, with forcings, prepared while the model computes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from weatherfm.data_pipeline.loader import Batch
from weatherfm.earth.forcings import clock, forcing_fields
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


def make_ready(
    batch: Batch,
    model: WeatherViT,
    device: torch.device,
    stream: torch.cuda.Stream | None = None,
    present: Tensor | None = None,
) -> ReadyBatch:
    """Add the forcings the model wants and move all to the device; on a GPU in a stream beside its work."""
    forcings = torch.from_numpy(forcing_fields(model.forcings, batch.init_time, model.domain.grid))
    condition = torch.from_numpy(clock(model.conditions, batch.init_time))
    if stream is None:
        present = None if present is None else present.to(device)
        return ReadyBatch(batch.to(device), forcings.to(device), condition.to(device), present)
    with torch.cuda.stream(stream):
        moved, known = batch.to(device), forcings.pin_memory().to(device, non_blocking=True)
        present = None if present is None else present.to(device)
        return ReadyBatch(moved, known, condition.to(device), present, stream.record_event())


def read_ahead(
    batches: Iterable[Batch], model: WeatherViT, device: torch.device, shown: Iterator[Tensor] | None = None
) -> Generator[ReadyBatch, None, None]:
    """Make batches ready one ahead of the caller, in a thread of their own; `shown` gives `present` of each.

    Two are on the device at most: the one handed out, of which nothing is held here, and the next. On a GPU, whose work
    is queued long before it is done, the next but one waits until the first is through.
    """
    iterator = iter(batches)
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def prepare_next(through: torch.cuda.Event | None) -> ReadyBatch | None:
        batch = next(iterator, None)
        if through is not None:
            through.synchronize()
        if batch is None:
            return None
        return make_ready(batch, model, device, stream, None if shown is None else next(shown))

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
        batch = ready.batch
        copies = (batch.history, batch.target, batch.lead_time_hours, ready.forcings, ready.condition, ready.present)
        for tensor in copies:
            if tensor is not None:
                tensor.record_stream(computing)  # its memory may be used again only when that stream is through with it
    return ready
