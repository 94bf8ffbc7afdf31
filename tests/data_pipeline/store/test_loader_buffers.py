"""Memory of batches is used again, but never while anything can still see it."""

from __future__ import annotations

import numpy as np
import torch

from weatherfm.data_pipeline.store import buffers as module
from weatherfm.data_pipeline.store.buffers import Buffers

SHAPE = (6, 2, 4, 8)


def test_memory_comes_back_when_nothing_refers_to_it():
    buffers = Buffers()
    place = buffers.take(SHAPE).data_ptr()
    assert buffers.take(SHAPE).data_ptr() == place
    first, second = buffers.take(SHAPE), buffers.take(SHAPE)
    assert first.data_ptr() != second.data_ptr()
    assert first.dtype == torch.float32


def test_memory_stays_lent_while_a_view_an_array_or_a_graph_holds_it():
    buffers = Buffers()
    for holder in (
        lambda fields: fields[:4].unflatten(0, (2, 2)),
        lambda fields: fields[3:].numpy(),
        lambda fields: torch.utils.dlpack.from_dlpack(fields),
        lambda fields: (fields.zero_() * torch.ones(1, requires_grad=True)).sum(),
    ):
        fields = buffers.take(SHAPE)
        place, held = fields.data_ptr(), holder(fields)
        del fields
        assert buffers.take(SHAPE).data_ptr() != place
        del held
        assert buffers.take(SHAPE).data_ptr() == place  # what came back last is lent first


def test_shapes_have_memory_of_their_own():
    buffers = Buffers()
    buffers.take(SHAPE)
    assert buffers.take((2, 2)).shape == (2, 2)
    assert np.prod(buffers.take(SHAPE).shape) == np.prod(SHAPE)


def test_memory_outlives_its_buffers():
    fields = Buffers().take(SHAPE)
    fields.fill_(3)
    assert fields.sum() == 3 * fields.numel()


def test_page_locked_memory_is_left_to_torch(monkeypatch):
    asked = []
    monkeypatch.setattr(module.torch, "empty", lambda shape, pin_memory: asked.append((shape, pin_memory)))
    Buffers(pin_memory=True).take(SHAPE)
    assert asked == [(SHAPE, True)]
