"""What a rank reads, computes and holds in a step, each tensor beside how to cut it out of what one rank alone has.

Legend: B batch, M member, T input time, S model step, C channel, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from weatherfm.model.model import WeatherViT
from weatherfm.training.feeding.ready_batches import ReadyBatch
from weatherfm.training.parallel.channel_rows import local, local_part, named_parts
from weatherfm.training.stepping.step import Ground

SAMPLES, START, OUTPUTS = "samples", "weights at the start", "outputs"
LOSSES, GRADIENTS, WEIGHTS = "losses", "gradients", "weights after the step"


class Key(NamedTuple):
    """What a tensor is; the same on every layout."""

    kind: str
    """One of the names above."""
    name: str


class Piece(NamedTuple):
    """A rank's part of something."""

    own: Tensor
    """On the CPU."""
    cut: Callable[[Tensor], Tensor]
    """From the whole tensor, as one rank alone has it, what this rank should have."""


Evidence = dict[Key, Piece]


def wholes(found: Evidence) -> dict[Key, Tensor]:
    """Of one rank alone, whose parts are everything."""
    return {key: piece.own for key, piece in found.items()}


def of_weights(model: WeatherViT, kind: str, tensors: Mapping[str, Tensor], which: str = "") -> Evidence:
    """Copies of what a rank has of tensors that are shaped and placed like weights, by layout-free name and `which`."""
    found: Evidence = {}
    for name, tensor in tensors.items():
        for key, part in named_parts(model, name, tensor.detach()):
            cut = partial(_cut_like, like=part) if isinstance(part, DTensor) else _all
            found[Key(kind, key + which)] = Piece(local(part).to("cpu", copy=True), cut)
    return found


def gradients_of(model: WeatherViT) -> dict[str, Tensor]:
    """Of all that learns; zero where there is none."""
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in learning.items()}


def of_numbers(kind: str, numbers: Mapping[str, Sequence[float]]) -> Evidence:
    """Numbers that every rank knows."""
    return {Key(kind, name): Piece(torch.tensor(values, dtype=torch.float64), _all) for name, values in numbers.items()}


def in_float64(ready: ReadyBatch) -> ReadyBatch:
    """The same batch for a model in float64."""
    batch = ready.batch
    further = None if batch.further is None else batch.further.double()
    return replace(
        ready, batch=replace(batch, history=batch.history.double(), target=batch.target.double(), further=further)
    )


class Recorder:
    """Keeps what goes into a model and what comes out of it.

    Args:
        grounds: what batches of each store are worked on with.
        reads: keep what is read as well.
    """

    def __init__(self, grounds: Sequence[Ground], reads: bool) -> None:
        self.found: Evidence = {}
        self._grounds, self._reads = grounds, reads
        self._batch, self._step, self._steps = -1, 0, 0

    @contextmanager
    def listening(self, model: WeatherViT) -> Iterator[None]:
        """Hear what the model gives, inside."""
        handle = model.register_forward_hook(self._hear)
        try:
            yield
        finally:
            handle.remove()

    def passing(self, batches: Iterator[ReadyBatch]) -> Iterator[ReadyBatch]:
        """The same batches, looked at when their turn comes."""
        for ready in batches:
            self._batch, self._step, self._steps = self._batch + 1, 0, len(ready.batch.targets)
            self._ground = self._grounds[ready.batch.store]
            if self._reads:
                self._keep_read(ready)
            yield ready

    def _keep_read(self, ready: ReadyBatch) -> None:
        batch, role = ready.batch, self._ground.role
        rows = self._rows(len(batch.history))
        ahead = [torch.stack(list(batch.targets), 1)] if ready.visible is None else []  # there what is read is scored
        fields = torch.cat([batch.history, *ahead], 1)  # [B, T + S, C, H, W]
        for i, name in enumerate(role.share.channels):
            self.found[self._key(SAMPLES, name)] = Piece(fields[:, :, i].to("cpu", copy=True), rows)
        times = torch.from_numpy(batch.init_time.astype("datetime64[m]").astype("float64"))
        moments = torch.stack([times, batch.lead_time_hours.cpu().double()], 1)
        self.found[self._key(SAMPLES, "initial and lead times")] = Piece(moments, rows)
        if ready.visible is not None:
            self.found[self._key(SAMPLES, "patches seen")] = Piece(ready.visible.cpu(), rows)

    def _hear(self, model: WeatherViT, given: Any, state: Tensor) -> None:
        if self._step == self._steps:  # made again in the backward pass
            return
        outputs = model.outputs_of(state.detach())  # [B * M, C, H, W]
        self._step += 1
        rows, which = self._rows(len(outputs)), f", step {self._step}" if self._steps > 1 else ""
        for i, name in enumerate(self._ground.role.share.outputs):
            self.found[self._key(OUTPUTS, name, which)] = Piece(outputs[:, i].to("cpu", copy=True), rows)

    def _rows(self, own: int) -> Callable[[Tensor], Tensor]:
        index, _ = self._ground.role.part
        return partial(_cut_rows, begin=index * own, end=(index + 1) * own)

    def _key(self, kind: str, name: str, which: str = "") -> Key:
        return Key(kind, f"{name} (batch {self._batch + 1}{which})")


def _all(whole: Tensor) -> Tensor:
    return whole


def _cut_rows(whole: Tensor, begin: int, end: int) -> Tensor:
    return whole[begin:end]


def _cut_like(whole: Tensor, like: Tensor) -> Tensor:
    return local_part(whole, like)
