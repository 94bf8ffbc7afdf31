"""Who makes which part of a forecast: one process here; for several see `weatherfm.training.forecast_on_ranks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


class Processes:
    """This process alone, which makes everything and for which everything here is trivial.

    Attributes:
        parts: groups of processes that make different initial times.
        in_step: all must call the model equally often and with as many samples: its weights are in all of them.
        first: this process speaks, and finishes what all have made.
        writes: of the processes that make the same initial times this one writes them.
    """

    parts = 1
    in_step = False
    first = True
    writes = True

    def first_then_all(self, act: Callable[[], T]) -> T:
        """What `act` returns here, called when the first process has done it."""
        return act()

    def first_does(self, act: Callable[[], T]) -> T:
        """What `act` returns in the first process, on all."""
        return act()

    def deal_out(self, items: Sequence[T]) -> tuple[list[T], int]:
        """Own items, and how many of them count: the rest only keep all processes in step."""
        return list(items), len(items)

    def collect(self, fields: Tensor, which: int = 0) -> Tensor:
        """[..., C, H, W] of all channels where this process writes, of fields [..., C own, H, W] of each; of one of the
        models that forecast side by side."""
        return fields

    def beat(self) -> None:
        """This process is alive, and a step further."""

    def wait(self) -> None:
        """Until all have come here."""
