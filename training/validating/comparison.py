"""What every rank has, against what one rank alone has: the distance of each tensor, by rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from weatherfm.training.ranks.coordination import Coordination
from weatherfm.training.validating.evidence import Evidence, Key


@dataclass(frozen=True)
class Difference:
    """Of one tensor."""

    key: Key
    size: float
    """Its norm on one rank alone."""
    by_rank: Mapping[int, float]
    """Norm of what a rank's part differs by, for each rank that has a part; infinite where it has another shape."""


@dataclass(frozen=True)
class Comparison:
    """Of all tensors."""

    differences: tuple[Difference, ...]
    unknown: Mapping[Key, tuple[int, ...]]
    """Tensors that one rank alone does not have, and the ranks that do."""

    def of(self, kind: str) -> list[Difference]:
        """Those of one kind."""
        return [one for one in self.differences if one.key.kind == kind]

    def strange(self, kind: str) -> dict[Key, tuple[int, ...]]:
        """`unknown`, of one kind."""
        return {key: ranks for key, ranks in self.unknown.items() if key.kind == kind}


def compare(own: Evidence, alone: Mapping[Key, Tensor] | None, alive: Callable[[], None] = lambda: None) -> Comparison:
    """Compare on all ranks together; the result is the same on each.

    One tensor at a time goes from rank 0 to the others.

    Args:
        own: of this rank.
        alone: of one rank alone; rank 0 has it, the others give None.
        alive: called now and then.
    """
    ranks = Coordination()
    heads = ranks.first_does(lambda: [(key, tensor.shape, tensor.dtype) for key, tensor in (alone or {}).items()])
    sizes: dict[Key, float] = {}
    distances: dict[Key, float] = {}
    for key, shape, dtype in heads:
        whole = torch.empty(shape, dtype=dtype) if alone is None else alone[key].contiguous()
        if ranks.world > 1:
            dist.broadcast(whole, 0)
        sizes[key] = float(whole.double().nan_to_num().norm())
        if key in own:
            distances[key] = distance(own[key].own, own[key].cut(whole))
        alive()
    return ranks.decide(
        lambda: (distances, [key for key in own if key not in sizes]),
        lambda offers: [_together(sizes, offers)] * len(offers),
    )


def distance(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference; what is missing in both does not differ, what is missing in one does infinitely."""
    if found.shape != expected.shape:
        return float("inf")
    found, expected = found.double(), expected.double()
    apart = torch.where(found.isnan() & expected.isnan(), 0.0, found - expected)
    return float(apart.norm().nan_to_num(float("inf")))


def _together(sizes: Mapping[Key, float], offers: list[tuple[dict[Key, float], list[Key]]]) -> Comparison:
    differences = tuple(
        Difference(key, size, {rank: told[key] for rank, (told, _) in enumerate(offers) if key in told})
        for key, size in sizes.items()
    )
    strange = dict.fromkeys(key for _, extra in offers for key in extra)
    unknown = {key: tuple(rank for rank, (_, extra) in enumerate(offers) if key in extra) for key in strange}
    return Comparison(differences, unknown)
