"""Memory for batches that is used again."""

from __future__ import annotations

import weakref

import numpy as np
import torch


class Buffers:
    """Lends memory for batches, and takes it back when nothing refers to a batch any more.

    The system clears every page of fresh memory at its first touch, which for batches above 32 MiB takes about as
    long as reading and decompressing what is put there.

    Args:
        pin_memory: lend page-locked memory, from where a copy to a GPU overlaps with its work.
    """

    def __init__(self, pin_memory: bool = False) -> None:
        self._pin_memory = pin_memory
        self._free: dict[tuple[int, ...], list[np.ndarray]] = {}

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A float32 tensor of any content; views of it, and arrays that share its memory, keep it lent."""
        if self._pin_memory:  # torch uses it again itself, and knows when copies to the GPU are done
            return torch.empty(shape, pin_memory=True)
        free = self._free.setdefault(shape, [])
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(shape, np.float32)
        lent = memory.view()
        weakref.finalize(lent, free.append, memory).atexit = False
        return torch.from_numpy(lent)
