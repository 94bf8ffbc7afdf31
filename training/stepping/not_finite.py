"""The message of a step that came out not finite: which samples, which channels, and what may be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from weatherfm.data_pipeline.loader import Batch
from weatherfm.errors import InputError, some_of
from weatherfm.model.model import WeatherViT
from weatherfm.training.parallel.role import Role
from weatherfm.training.stepping.step import Ground
from weatherfm.training.stepping.step_result import StepResult

_SHOWN = 8


def refuse_step(
    result: StepResult,
    batches: Sequence[Batch],
    model: WeatherViT,
    grounds: Sequence[Ground],
    role: Role,
    folder: Path,
    late: bool,
) -> NoReturn:
    """Stop training at a step whose gradient is not finite; all ranks must call it, and all raise the same.

    Args:
        result: of the step.
        batches: of this rank in the step, in order.
        model: with the step's gradients, not clipped; or, if late, with the weights that they made of it.
        grounds: what batches of each store are worked on with.
        role: what this rank holds of batches and channels.
        folder: of the run, where the last checkpoint is.
        late: the step's update was made, and no further one.

    Raises:
        InputError: always.
    """
    bad = [~torch.isfinite(one.losses.cpu()) for one in result.scored]  # [B, C] each
    found = [_named(one.role.share.outputs, mask.any(0)) for one, mask in zip(result.scored, bad, strict=True)]
    channels = role.union(chain.from_iterable(found))
    if channels:
        what = f"the loss is not finite in {_list([c for c in role.channels if c in channels])}"
        wrong = [_named(_samples(batch), mask.any(1)) for batch, mask in zip(batches, bad, strict=True)]
    else:
        tensors = {name: p if late else p.grad for name, p in model.named_parameters()}
        local = {name: getattr(t, "_local_tensor", t) for name, t in tensors.items() if t is not None}
        infinite = role.union([name for name, t in local.items() if not t.isfinite().all()])
        what = f"the gradient is not finite in {_list(infinite)}" if infinite else "the gradient's norm is not finite"
        wrong = [_samples(batch) for batch in batches]
    samples = role.union(chain.from_iterable(wrong))
    cause = _cause(role.union(chain.from_iterable(_missing(batch, model, grounds) for batch in batches)))
    raise InputError(
        f"training stopped at step {result.step + 1}: {what}\n  samples: {_list(samples)}\n  {cause}\n  {_kept(folder)}"
    )


def _kept(folder: Path) -> str:
    if any(folder.glob("step-*")) or any(folder.glob("checkpoints/step-*")):
        return f"the last good checkpoint in {folder} is kept; nothing of this step is in it"
    return "no checkpoint was written before that: the next start begins anew"


def _missing(batch: Batch, model: WeatherViT, grounds: Sequence[Ground]) -> list[str]:
    """Channels of which a sample has values that are not finite, but for points of their masks."""
    view = grounds[batch.store].view
    domain = model.domain if view is None else view.built.domain
    missing = torch.zeros(len(domain.channels), dtype=torch.bool)
    masked = torch.from_numpy(~domain.present)  # [C, H, W]
    for fields in (batch.history, *batch.targets):
        sound = (fields.isfinite().cpu() | masked).flatten(-2).all(-1)  # [B, (T,) C]
        missing |= ~sound.flatten(0, -2).all(0)
    return _named(domain.channels, missing)


def _cause(missing: Sequence[str]) -> str:
    """Missing values in the data, or numbers that grew out of bounds."""
    if missing:
        return (
            f"the samples hold missing values in {_list(missing)}: drop the channels, or `weatherfm verify` the store"
        )
    return "the data are finite, so training diverged: lower training.learning_rate or training.clip_norm in a new run"


def _samples(batch: Batch) -> list[str]:
    """Initial time and lead time of each sample."""
    times = batch.init_time.astype("datetime64[m]")
    hours = batch.lead_time_hours.tolist()
    return [f"{time} +{lead}h" for time, lead in zip(times, hours, strict=True)]


def _named(names: Iterable[str], chosen: Tensor) -> list[str]:
    return [name for name, wanted in zip(names, chosen.tolist(), strict=True) if wanted]


def _list(names: Sequence[str]) -> str:
    return some_of(names, _SHOWN)
