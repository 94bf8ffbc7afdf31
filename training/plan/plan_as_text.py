"""A plan as a table for people and as plain data for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from weatherfm.training.plan.candidates import ALONE, Candidate
from weatherfm.training.plan.machine import GB
from weatherfm.training.plan.make_plan import Plan
from weatherfm.training.plan.step_count import StepCount, Use

_ROWS = 24
"""Rows of the table; `--json` has all."""


def memory_groups(count: StepCount) -> dict[str, float]:
    """Bytes at the peak in the columns of the table."""
    groups = dict.fromkeys(("weights", "grads", "optim", "front", "blocks", "head", "other"), 0.0)
    for use, size in count.at_peak.items():
        groups[_group(use)] += size
    return groups


def to_text(plan: Plan) -> str:
    """The table, the recommendation and its reason, and what is saved."""
    model, machine, training = plan.config.model, plan.machine, plan.config.training
    H, W = plan.domain.grid.shape
    most = max(training.model_steps.values())
    rollout = f", {most} model steps a sample (the most of training.rollout)" if most > 1 else ""
    masked = model.reconstruction
    hidden = "" if masked is None else f", {masked.mask_ratio:.0%} of the patches hidden"
    members = f" of {training.members} members a sample" if training.loss == "crps" else ""
    backbone = "" if model.backbone == "vit" else f", backbone {model.backbone}"
    lines = [
        f"{len(plan.domain.channels)} channels on {H} x {W}, patch {model.patch[0]} x {model.patch[1]}, "
        f"width {model.width}, depth {model.depth}{backbone}; batch {training.batch_size}{members}{rollout}{hidden}, "
        f"{str(plan.dtype).removeprefix('torch.')}; {machine.devices} devices of {machine.memory:g} GB",
        "",
        *_table(plan),
        "",
        "GB a device at the peak (formula: by hand, a check; weights: and those gathered; other: batches, messages);",
        "GB a device sends a step over tp and over dp; TFLOP a device; ms at the rates given, nothing overlapping.",
        "-> recommended; x does not fit",
        "",
        *_advice(plan),
    ]
    return "\n".join(lines)


def to_dict(plan: Plan) -> dict[str, Any]:
    """Everything, for JSON: memory and traffic in GB (1e9 bytes), times in seconds."""
    machine = plan.machine
    return {
        "devices": machine.devices,
        "memory_gb": machine.memory,
        "rates": {name: value for name, value in asdict(machine).items() if name not in ("devices", "memory")},
        "batch_size": plan.config.training.batch_size,
        "training": asdict(plan.training) | {"samples": plan.samples},
        "recommended": _candidate(plan, plan.recommended),
        "tensor_parallel_alone": {
            name: None if c is None else _candidate(plan, c)
            for name, c in (
                ("same_layout", plan.alike(ALONE)),
                ("fastest_that_fits", plan.alone_best),
                ("least_memory", plan.alone_least),
            )
        },
        "candidates": [_candidate(plan, c) for c in plan.candidates],
    }


def _candidate(plan: Plan, candidate: Candidate) -> dict[str, Any]:
    choice, count = candidate.choice, candidate.count
    moment = count.peak_moment
    return {
        "form": choice.form,
        "dp_replicate": choice.layout.dp_replicate,
        "dp_shard": choice.layout.dp_shard,
        "tp": choice.layout.tp,
        "activation_checkpointing": choice.checkpointing,
        "fits": candidate.fits,
        "peak_gb": count.peak / GB,
        "formula_gb": None if candidate.expected is None else candidate.expected / GB,
        "peak_during": f"{moment.phase} {moment.part}",
        "at_peak_gb": _named(count.at_peak),
        "sent_gb": _named(count.total_sent()),
        "tflop": {part: flops / 1e12 for part, flops in count.total_flops().items()},
        "seconds": {"compute": candidate.seconds.compute, "exchange": candidate.seconds.exchange},
        "hours": plan.hours(candidate),
        "gpu_hours": plan.gpu_hours(candidate),
        "cost": plan.cost(candidate),
        "energy_kwh": plan.energy(candidate),
    }


def _named(sizes: Mapping[Any, float]) -> dict[str, float]:
    return {" ".join(word for word in key if word): size / GB for key, size in sizes.items() if size}


def _table(plan: Plan) -> list[str]:
    first = {id(plan.recommended): 0, id(plan.alike(ALONE)): 1}
    ranked = sorted(plan.candidates, key=lambda c: (first.get(id(c), 2), not c.fits, c.seconds.total))
    width = max(len(c.choice.form) for c in ranked)
    places = max(len(str(c.choice.layout)) for c in ranked)
    head = f"   {'form':<{width}} {'layout':<{places}} {'checkpt':<9} {'peak':>6} {'formula':>7} |"
    head += "".join(f"{name:>8}" for name in memory_groups(ranked[0].count))
    head += f" |{'tp':>7}{'dp':>7} |{'TFLOP':>7}{'ms':>7}"
    lines = [head, "-" * len(head)]
    for candidate in ranked[:_ROWS]:
        lines.append(_row(plan, candidate, width, places))
    if len(ranked) > _ROWS:
        lines.append(f"   and {len(ranked) - _ROWS} more: --json has all")
    return lines


def _row(plan: Plan, candidate: Candidate, width: int, places: int) -> str:
    choice, count = candidate.choice, candidate.count
    mark = "->" if candidate is plan.recommended else "  " if candidate.fits else " x"
    sent = {"tp": 0.0, "dp": 0.0}
    for (axis, _), size in count.total_sent().items():
        sent["tp" if axis == "tp" else "dp"] += size
    line = f"{mark} {choice.form:<{width}} {choice.layout!s:<{places}} {choice.checkpointing:<9}"
    formula = "-" if candidate.expected is None else _short(candidate.expected / GB)
    line += f" {_short(count.peak / GB):>6} {formula:>7} |"
    line += "".join(f"{_short(size / GB):>8}" for size in memory_groups(count).values())
    line += f" |{_short(sent['tp'] / GB):>7}{_short(sent['dp'] / GB):>7} |"
    flops = sum(count.total_flops().values()) / 1e12
    return line + f"{_short(flops):>7}{_short(candidate.seconds.total * 1e3):>7}"


def _short(value: float) -> str:
    """Three figures in at most six signs."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.01 else "0" if value < 5e-5 else f"{value:.4f}"


def _advice(plan: Plan) -> list[str]:
    best, usable = plan.recommended, plan.machine.usable
    choice, seconds = best.choice, best.seconds
    fitting = sum(c.fits and not c.alone for c in plan.candidates)
    lines = [
        f"take {choice.form}, {choice.layout}, checkpointing {choice.checkpointing}: the fastest of {fitting} that fit "
        f"({_short(best.count.peak / GB)} of {usable:g} GB usable),",
        f"  {_short(seconds.compute * 1e3)} ms of arithmetic, {_short(seconds.exchange * 1e3)} ms of messages a step",
        "  " + " ".join(_overrides(plan)),
    ]
    return [*lines, *_savings(plan)]


def _overrides(plan: Plan) -> list[str]:
    """What to put behind `weatherfm train CONFIG`."""
    config = plan.recommended.choice.config
    names = ("tp", "dp_shard", "dp_replicate", "activation_checkpointing")
    words = [f"parallel.{name}={getattr(config.parallel, name)}" for name in names]
    same = config.model.aggregation == plan.config.model.aggregation
    return words if same else ["'model.aggregation={kind: flat}'", *words]


def _savings(plan: Plan) -> list[str]:
    best, fitting, least = plan.recommended, plan.alone_best, plan.alone_least
    lines = []
    flat, alike = plan.alike("flat"), plan.alike(ALONE)
    if flat is not None and flat is not best:
        lines.append(f"flat aggregation on that layout: {_against(best, flat)}")
    if alike is not None:
        lines.append(f"tensor parallelism alone on that layout: {_against(best, alike)}")
    if fitting is None and least is not None:
        lines.append(
            f"tensor parallelism alone fits on none of these layouts: {_short(least.count.peak / GB)} GB at least "
            f"({least.choice.layout}, checkpointing {least.choice.checkpointing})"
        )
    if fitting is not None and fitting is not alike:
        where = f"{fitting.choice.layout}, checkpointing {fitting.choice.checkpointing}"
        lines.append(f"tensor parallelism alone where it fits and is fastest ({where}): {_against(best, fitting)}")
    return [*lines, *_bill(plan, best, fitting or alike or least)]


def _against(best: Candidate, other: Candidate) -> str:
    """Another candidate as seen from the recommended one."""
    saved, times = 1 - best.count.peak / other.count.peak, other.seconds.total / best.seconds.total
    less = f"{saved:.0%} of it saved" if saved >= 0 else f"{-saved:.0%} less than recommended"
    return f"{_short(other.count.peak / GB)} GB a device ({less}), {times:.2f} times the time a step"


def _bill(plan: Plan, best: Candidate, other: Candidate | None) -> list[str]:
    """Hours, money and energy of the whole training, beside the same with tensor parallelism alone."""
    fits = "" if other is None or other.fits else " (were memory no limit)"
    text = f"the whole training, {plan.samples:,.10g} samples: {_many(plan.hours(best))} hours"
    lines = [f"{text}; {_saved('GPU hours', plan.gpu_hours, best, other)}{fits}"]
    if plan.training.price_per_gpu_hour is not None:
        lines.append(f"  in money: {_saved('', plan.cost, best, other)}")
    if plan.training.watts is not None:
        lines.append(f"  in energy: {_saved('kWh', plan.energy, best, other)}")
    return lines


def _saved(unit: str, of: Callable[[Candidate], float | None], best: Candidate, other: Candidate | None) -> str:
    own, more = of(best), None if other is None else of(other)
    text = f"{_many(own or 0.0)} {unit}".rstrip()
    return text if own is None or more is None else f"{text} instead of {_many(more)}, {_many(more - own)} saved"


def _many(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


_COLUMNS = {
    "parameters": "weights",
    "gathered": "weights",
    "gradients": "grads",
    "optimizer": "optim",
    "average": "optim",
}


def _group(use: Use) -> str:
    return _COLUMNS.get(use.kind) or (use.part if use.part in ("front", "blocks", "head") else "other")
