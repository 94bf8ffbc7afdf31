"""Settings of rollout training: how many steps of its own output the model is trained over, and from when on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field, model_validator

from weatherfm.config import Config
from weatherfm.errors import InputError

_MOST = 1000
"""Model steps whose gradients a sample is trained through; what has been done are 12 (GraphCast) to 60."""


class Rollout(Config):
    """Loss over successive steps of the model's own output, with gradients through all of them."""

    later = frozenset({"inputs"})

    steps: dict[int, int] = Field(min_length=1)
    """Optimizer step -> model steps a sample from there on, e.g. `{0: 1, 2000: 2, 4000: 4}`. All steps of a sample take
    its lead time, and the loss is their mean. Samples are those with room for the largest number."""

    @model_validator(mode="after")
    def _sensible(self) -> Rollout:
        begins = list(self.steps)
        if begins[0] != 0 or begins != sorted(begins):
            raise InputError(f"rollout.steps must begin at optimizer step 0 and ascend; got {_told(begins)}")
        if min(self.steps.values()) < 1:
            raise InputError(f"rollout.steps must give 1 model step or more; got {_told(self.steps.values())}")
        if self.most > _MOST:
            raise InputError(
                f"rollout.steps gives {self.most} model steps, all in memory at once; give {_MOST} at most"
            )
        return self

    inputs: Literal["persist", "read"] = "persist"
    """Channels that are inputs alone (`model.outputs`), in the steps after the first: as they were at the initial time,
    or read from the store at the time that is reached, which a forecast can do for what is known ahead alone."""

    @property
    def most(self) -> int:
        """The largest number of model steps."""
        return max(self.steps.values())

    def require_states(self, input_times: Sequence[int], lead_times: Sequence[int]) -> None:
        """Check that every step after the first finds its input states: given ones, or predicted ones.

        Raises:
            InputError: an earlier input time that would be at neither.
        """
        for lead in lead_times if self.most > 1 else ():
            missing = [hours + lead for hours in input_times if hours and hours + lead not in input_times]
            if missing:
                given = _told(f"{hours}h" for hours in input_times)
                raise InputError(
                    f"training.rollout: the second step of {lead}h needs the state at {missing[0]}h, which is neither "
                    f"one of model.input_times {given} nor predicted by then; with "
                    f"training.lead_times [{lead}h] they may be 0h, -{lead}h, -{2 * lead}h and so on, else 0h alone"
                )

    def __str__(self) -> str:
        return ", ".join(f"{count} from step {step}" for step, count in self.steps.items())


def _told(values: Iterable[object]) -> str:
    return f"[{', '.join(map(str, values))}]"
