"""What came of a step, on its way from the device to the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from weatherfm.training.stepping.step import Exchanged, Scored


class StepResult:
    """The two numbers of a step that decide how training goes on, and what explains them.

    On a GPU they are copied beside its work, so that the host can read them a step later without waiting.

    Args:
        step: from 0.
        exchanged: on the device.
        scored: losses of every batch of the step.
    """

    def __init__(self, step: int, exchanged: Exchanged, scored: Sequence[Scored]) -> None:
        self.step, self.scored = step, scored
        numbers = torch.stack([exchanged.gradient_norm, exchanged.asked_to_stop])
        self._there: torch.cuda.Event | None = None
        if numbers.is_cuda:
            self._numbers = torch.empty(2, dtype=numbers.dtype, pin_memory=True).copy_(numbers, non_blocking=True)
            self._there = torch.cuda.Event()
            self._there.record(torch.cuda.current_stream(numbers.device))
        else:
            self._numbers = numbers

    def read(self) -> tuple[float, bool]:
        """The gradient norm, and whether a rank was asked to stop; waits until the device has come so far."""
        if self._there is not None:
            self._there.synchronize()
        norm, asked = self._numbers.tolist()
        return norm, asked > 0
