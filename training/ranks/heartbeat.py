"""What a rank tells of itself, and what can be read from the heartbeats of all: who is gone, and who is late."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import FrameType

from torch.distributed import Store

_SHOWN = 8


@dataclass(frozen=True)
class Heartbeat:
    """What a rank tells of itself."""

    beats: int
    """Of the thread that tells: one that does not grow is of a process that is gone."""
    step: int
    since: float
    """Time, in seconds since 1970, at which training came to that step."""
    place: str
    """The line that training is in."""
    waits: bool
    """It is inside PyTorch: computing, or waiting for others."""
    done: bool = False
    """It has finished its work, and tells nothing more."""


def write_heartbeat(store: Store, rank: int, heartbeat: Heartbeat) -> None:
    """Show a rank's heartbeat to all."""
    store.set(_key(rank), json.dumps(asdict(heartbeat)))


def read_heartbeat(store: Store, rank: int) -> Heartbeat | None:
    """The last heartbeat of a rank; None where there is none yet."""
    return Heartbeat(**json.loads(store.get(_key(rank)))) if store.check([_key(rank)]) else None


def _key(rank: int) -> str:
    return f"heartbeat{rank}"


def locate(frame: FrameType) -> tuple[str, bool]:
    """The line of weatherfm that a stack is in, and whether it has gone from there into PyTorch."""
    waits = _package(frame) == "torch"
    inner: FrameType | None = frame
    while inner is not None and _package(inner) != "weatherfm":
        inner = inner.f_back
    shown = inner or frame
    return f"{shown.f_globals.get('__name__')}:{shown.f_lineno} ({shown.f_code.co_name})", waits


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def gone_ranks(before: Sequence[Heartbeat | None], after: Sequence[Heartbeat | None]) -> list[int]:
    """Ranks that told nothing new between two looks, though their work is not done."""
    return [rank for rank, beat in enumerate(after) if beat == before[rank] and not (beat and beat.done)]


def late_ranks(heartbeats: Sequence[Heartbeat | None]) -> list[int]:
    """Ranks that the others wait for, all being alive: those behind, else those that do what most do not."""
    known = {rank: beat for rank, beat in enumerate(heartbeats) if beat is not None}
    newest = max((beat.step for beat in known.values()), default=0)
    if behind := [rank for rank, beat in known.items() if beat.step < newest]:
        return behind
    count = Counter((beat.waits, beat.place) for beat in known.values())
    common = max(count, key=lambda place: (count[place], place), default=None)  # of two, the one inside PyTorch waits
    odd = [rank for rank, beat in known.items() if (beat.waits, beat.place) != common]
    return [rank for rank in odd if not known[rank].waits] or odd


def describe(ranks: Sequence[int], heartbeats: Sequence[Heartbeat | None], hosts: Sequence[str], now: float) -> str:
    """One line for each of the ranks: where it was, and since when; empty for none.

    Args:
        ranks: to describe.
        heartbeats: last heartbeat of every rank.
        hosts: machine of every rank.
        now: seconds since 1970.
    """
    lines = []
    for rank in ranks[:_SHOWN]:
        beat = heartbeats[rank]
        seen = f"last seen at step {beat.step}, {now - beat.since:.0f} s ago, in {beat.place}" if beat else "never seen"
        lines.append(f"no answer from rank {rank} ({hosts[rank]}), {seen}")
    more = [f"and {len(ranks) - _SHOWN} more"] if len(ranks) > _SHOWN else []
    return "\n  ".join(lines + more)
