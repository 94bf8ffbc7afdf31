"""What was counted of one step: the most memory held at every moment and what it was, arithmetic, traffic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from weatherfm.training.plan.counter import Allocation, Event, Moment, StepCounter


class Use(NamedTuple):
    """What memory is used for."""

    kind: str
    """parameters, gradients, optimizer, average, batches, buffers; gathered (weights while FSDP has them whole),
    messages (FSDP's buffers); activations (made in the forward pass), work (in the backward pass or the update)."""
    part: str
    """Of the model, for activations and work; empty for the rest."""


@dataclass(frozen=True)
class StepCount:
    """One step of one rank."""

    peaks: Mapping[Moment, Mapping[Use, float]]
    """Bytes by use when most was held, for every moment of the step."""
    flops: Mapping[Moment, float]
    sent: Mapping[tuple[Moment, str, str], float]
    """Bytes by (moment, axis, kind of collective)."""

    @property
    def peak(self) -> float:
        """Most bytes held at once."""
        return sum(self.at_peak.values())

    @property
    def peak_moment(self) -> Moment:
        """When that was."""
        return max(self.peaks, key=lambda moment: sum(self.peaks[moment].values()))

    @property
    def at_peak(self) -> Mapping[Use, float]:
        """What the most was, bytes by use."""
        return self.peaks[self.peak_moment]

    def total_flops(self, by: Callable[[Moment], Any] = lambda moment: moment.part) -> Counter[Any]:
        """Operations by part of the model, or by another property of the moment."""
        return _summed((by(moment), value) for moment, value in self.flops.items())

    def total_sent(self) -> Counter[tuple[str, str]]:
        """Bytes by (axis, kind of collective)."""
        return _summed(((axis, kind), value) for (_, axis, kind), value in self.sent.items())

    @classmethod
    def of(cls, counter: StepCounter) -> StepCount:
        """What a counter saw of its step."""
        return cls(_peaks(counter.events), dict(counter.flops), dict(counter.sent))


def shallower(depth: int, period: int) -> tuple[int, int] | None:
    """Two depths that a deeper model is extrapolated from: a first block, a last one, one or two periods between, and
    the last as it is there. None where that would not be less."""
    first = period + 2 + (depth - period - 2) % period
    return (first, first + period) if depth > first + period else None


def extrapolate(shallow: StepCount, deep: StepCount, depths: tuple[int, int], depth: int, period: int = 1) -> StepCount:
    """The step of a model of `depth` blocks from those of two shallower ones, exactly.

    All blocks but the first and the last are like those a period away, so at a moment outside the blocks, and at one in
    a block of given number from the front or the back, everything counted is a + b * depth; between the first period
    behind the first block and the last before the last it lies between what it is in these.

    Args:
        shallow: at depths[0], at least two more than a period.
        deep: at depths[1], a period more.
        depths: of the two (`shallower`).
        depth: wanted, by periods more.
        period: 1 where all blocks are alike.
    """
    share = (depth - depths[0]) / (depths[1] - depths[0])
    peaks = {}
    for moment in deep.peaks:
        for at_depth in _places(moment, depths, depth, period):
            low, high = shallow.peaks.get(at_depth[0], {}), deep.peaks[moment]
            peaks[at_depth[1]] = {
                use: low.get(use, 0) + share * (high.get(use, 0) - low.get(use, 0)) for use in {*low, *high}
            }
    return StepCount(peaks, _grown(shallow.flops, deep.flops, share), _grown(shallow.sent, deep.sent, share))


def accumulated(count: StepCount, batches: int, wanted: int) -> StepCount:
    """The step over `wanted` batches from that over `batches`, two or more: every further one is like those before.

    Between copies of the weights gradients travel with the last batch alone, and no more memory is held.
    """
    times = {"forward": wanted / batches, "backward": wanted / batches}
    flops = {moment: v * times.get(moment.phase, 1) for moment, v in count.flops.items()}
    sent = {
        (moment, axis, kind): v * (1 if axis == "dp_replicate" else times.get(moment.phase, 1))
        for (moment, axis, kind), v in count.sent.items()
    }
    return StepCount(count.peaks, flops, sent)


def _places(moment: Moment, depths: tuple[int, int], depth: int, period: int) -> list[tuple[Moment, Moment]]:
    """The same moment at the shallow depth and at the wanted one, for a moment at the deep one."""
    block = moment.block
    if block is None:
        return [(moment, moment)]
    found = [(block, block)] if block < 1 + period else []  # from the front
    if (behind := depths[1] - block) <= 1 + period:  # from the back
        found.append((depths[0] - behind, depth - behind))
    return [(moment._replace(block=low), moment._replace(block=there)) for low, there in found]


def _grown(low: Mapping[Any, float], high: Mapping[Any, float], share: float) -> dict[Any, float]:
    """Sums over all blocks, extrapolated; blocks are no longer told apart."""
    lows, highs = (_summed((_without_block(key), v) for key, v in values.items()) for values in (low, high))
    return {key: lows[key] + share * (highs[key] - lows[key]) for key in {*lows, *highs}}


def _without_block(key: Any) -> Any:
    return key._replace(block=None) if isinstance(key, Moment) else (key[0]._replace(block=None), *key[1:])


def _summed(items: Any) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for key, value in items:
        total[key] += value
    return total


def _peaks(events: Sequence[Event]) -> dict[Moment, dict[Use, float]]:
    """Go through the step twice: when was most held in each moment, and what was it then."""
    held = 0
    when: dict[Moment, tuple[int, int]] = {}  # most bytes, and before which event
    for i, event in enumerate(events):
        before, held = held, held + event.change
        most = max(before, held)
        if event.moment.phase != "setup" and most > when.get(event.moment, (-1, 0))[0]:
            when[event.moment] = (most, i if before > held else i + 1)
    wanted: dict[int, list[Moment]] = {}
    for moment, (_, i) in when.items():
        wanted.setdefault(i, []).append(moment)
    uses: Counter[Use] = Counter()
    peaks: dict[Moment, dict[Use, float]] = {}
    for i in range(len(events) + 1):
        for moment in wanted.get(i, []):
            peaks[moment] = {use: value for use, value in uses.items() if value}
        if i < len(events):
            uses[_use(events[i].allocation)] += events[i].change
    return peaks


def _use(allocation: Allocation) -> Use:
    if allocation.name is not None:
        return Use(allocation.name, "")
    if allocation.resized:
        return Use("gathered", "")
    if allocation.sent:
        return Use("messages", "")
    return Use("activations" if allocation.born.phase == "forward" else "work", allocation.born.part)
