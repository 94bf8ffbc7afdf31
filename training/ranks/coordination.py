"""Rank 0 decides for all ranks, and what fails on one of them fails on all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from weatherfm.errors import InputError, OutsideError, StopRequest

T = TypeVar("T")
R = TypeVar("R")


class Coordination:
    """All ranks of a process group; without one, this process alone.

    Every method must be called by all ranks, in the same order.

    Args:
        group: what the ranks talk through, the default group unless given; each thread needs one of its own.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.world = (dist.get_rank(group), dist.get_world_size(group)) if dist.is_initialized() else (0, 1)

    def decide(self, offer: Callable[[], T], answer: Callable[[list[T]], list[R]]) -> R:
        """What rank 0's `answer` has for this rank, made of what `offer` gave on each rank.

        Raises:
            Exception: as it is, on the rank where `offer` or `answer` failed.
            InputError, OutsideError, StopRequest: the same in words, on all other ranks.
        """
        own, answers = self._attempt(offer), None
        offers = self._gather(own)
        if offers is not None:
            answers = self._attempt(lambda: answer([_sound(outcome) for outcome in offers]))
        mine = self._scatter([answers] * self.world if isinstance(answers, _Failure) else answers)
        for outcome in (own, answers):
            _sound(outcome)
        return _sound(mine)

    def all_do(self, act: Callable[[], object]) -> None:
        """Call `act` on every rank; returns when it is done on all of them. Raises as `decide`."""
        self.decide(lambda: (act(), None)[1], lambda offers: [None] * len(offers))

    def barrier(self) -> None:
        """Return once every rank has come here."""
        self.all_do(lambda: None)

    def first_does(self, act: Callable[[], R]) -> R:
        """What `act` returns on rank 0, on all ranks. Raises as `decide`."""
        return self.decide(lambda: None, lambda offers: [act()] * len(offers))

    def _attempt(self, act: Callable[[], T]) -> T | _Failure:
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - raised again once the other ranks know
            return _Failure(error, self.rank)

    def _gather(self, outcome: Any) -> list[Any] | None:
        """The outcomes of all ranks, on rank 0."""
        if self.world == 1:
            return [outcome]
        outcomes = [None] * self.world if self.rank == 0 else None
        dist.gather_object(outcome, outcomes, group=self.group, group_dst=0)
        return outcomes

    def _scatter(self, answers: list[Any] | None) -> Any:
        """This rank's one of the answers that rank 0 has."""
        if self.world == 1:
            return answers[0] if answers else None
        mine = [None]
        dist.scatter_object_list(mine, answers, group=self.group, group_src=0)
        return mine[0]


class _Failure:
    """An error where a result should be. To other ranks it goes in words: not every error can be pickled."""

    def __init__(self, error: Exception, rank: int) -> None:
        self.error, self.rank = error, rank

    def __reduce__(self) -> tuple[type[_Failure], tuple[Exception, int]]:
        error = self.error
        if not isinstance(error, InputError | OutsideError | StopRequest):
            error = OutsideError(f"rank {self.rank}: {type(error).__name__}: {error}")
        return _Failure, (type(error)(str(error)), self.rank)


def _sound(outcome: Any) -> Any:
    """The outcome, unless it is a failure."""
    if isinstance(outcome, _Failure):
        raise outcome.error
    return outcome
