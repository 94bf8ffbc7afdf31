"""How far a layout may be from one rank, and the row that says whether it is nearer.

In float64 it may be 1e-9 of a tensor: sums in another order leave 1e-15 or so, a mistake in any factor leaves 1e-2 or
more. In the run's own precision both are held against one rank in float64, and the layout may be off by some times what
one rank alone is off: it rounds the same numbers as often, in another order. A tensor by chance near its exact value
may be as far off as all tensors of its kind together are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from weatherfm.training.validating.comparison import Comparison, Difference
from weatherfm.training.validating.evidence import Key
from weatherfm.training.validating.table import Row

FLOAT64 = 1e-9
TIMES = 8.0
"""Of one rank's rounding. Ratios of 0.5 to 3 are seen; a sum that is left out is beyond all of it in float64."""
_FLOOR = 1e-6
"""A tensor smaller than this share of all of its kind counts as so large: gradients that are zero but for rounding, as
those of what a softmax does not see."""


@dataclass(frozen=True)
class Bound:
    """What relative error a tensor may have.

    Attributes:
        least: allowed for all.
        rounding: norm of what one rank in the run's precision differs by from itself in float64; each tensor may have
            `TIMES` that.
    """

    least: float
    rounding: Mapping[Key, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Behind the number."""
        return f" ({TIMES:g} x one rank's)" if self.rounding else ""

    def limits(self, differences: Sequence[Difference]) -> list[float]:
        """Of each of the tensors of one kind."""
        sizes = _sizes(differences)
        shown = [self.rounding.get(one.key, 0.0) for one in differences]
        overall = _norm(shown) / (_norm([one.size for one in differences]) or 1.0)
        return [max(self.least, TIMES * max(own / size, overall)) for own, size in zip(shown, sizes, strict=True)]


def in_precision(rounding: Mapping[Key, float]) -> Bound:
    """For the run's precision: at least some roundings of one number in float32, which all sums are in."""
    return Bound(TIMES * torch.finfo(torch.float32).eps, rounding)


def judge(check: str, kind: str, comparison: Comparison, bound: Bound, together: bool = False) -> Row:
    """The row of one kind: the worst tensor, on which ranks what is wrong.

    Args:
        check: what the table calls it.
        kind: of the tensors.
        comparison: on all ranks.
        bound: of the errors.
        together: of all tensors as one vector. Adam's first step goes as far for a gradient of nearly zero as for any
            other, up or down: in the run's precision a small tensor may be off by one such number, all are not.
    """
    differences = comparison.of(kind)
    if (told := _wrong_names(differences, comparison.strange(kind))) is not None:
        return Row("function", check, told, ok=False)
    if together:
        differences, bound = _as_one(differences, bound)
    sizes, limits = _sizes(differences), bound.limits(differences)
    errors = [{r: d / size for r, d in one.by_rank.items()} for one, size in zip(differences, sizes, strict=True)]
    worst = max(range(len(errors)), key=lambda i: _ratio(max(errors[i].values()), limits[i]))
    error, limit, name = max(errors[worst].values()), limits[worst], differences[worst].key.name
    ok = error <= limit
    found = f"{error:.1e}, {name}" if error else "the same to the bit"
    if not ok:
        beyond = {r for own, limit in zip(errors, limits, strict=True) for r, e in own.items() if not e <= limit}
        everybody = {r for one in differences for r in one.by_rank}
        found = f"{error:.1e} {_on(beyond, everybody)}, {name}"
    told = f"{limit:.1e}{bound.text}" if limit else "to the bit"
    return Row("function", check, found, told, ok, error, limit)


def _as_one(differences: Sequence[Difference], bound: Bound) -> tuple[list[Difference], Bound]:
    key = Key(differences[0].key.kind, "all as one vector")
    ranks = {rank for one in differences for rank in one.by_rank}
    apart = {rank: _norm([one.by_rank.get(rank, 0.0) for one in differences]) for rank in ranks}
    rounding = {key: _norm([bound.rounding.get(one.key, 0.0) for one in differences])}
    return [Difference(key, _norm([one.size for one in differences]), apart)], replace(bound, rounding=rounding)


def _on(ranks: set[int], everybody: set[int]) -> str:
    if len(everybody) == 1:
        return "off"
    if ranks == everybody:
        return "on all ranks"
    return f"on rank{'s' * (len(ranks) > 1)} {', '.join(map(str, sorted(ranks)))}"


def _wrong_names(differences: Sequence[Difference], strange: Mapping[Key, tuple[int, ...]]) -> str | None:
    """What nobody has, or one rank alone has not."""
    if missing := [one.key.name for one in differences if not one.by_rank]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return f"no rank has {missing[0]}{more}"
    for key, ranks in strange.items():
        return f"{_on(set(ranks), {-1, *ranks})} there is {key.name}, which one rank alone has not"
    return None if differences else "nothing to compare"


def _ratio(error: float, limit: float) -> float:
    return error / limit if limit else math.inf if error else 0.0


def _sizes(differences: Sequence[Difference]) -> list[float]:
    floor = _FLOOR * _norm([one.size for one in differences])
    return [max(one.size, floor) or 1.0 for one in differences]


def _norm(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values))
