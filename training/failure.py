"""The message of a step that came out not finite: which samples, which channels, and what may be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from weatherfm.errors import InputError
from weatherfm.model import WeatherViT
from weatherfm.training.batches import ReadyBatch
from weatherfm.training.role import Role

_SHOWN = 8


def refuse_step(
    step: int, losses: Sequence[Tensor], batches: Sequence[ReadyBatch], model: WeatherViT, role: Role, folder: Path
) -> None:
    """Stop training at a step whose gradient is not finite; all ranks must call it, and all raise the same.

    Args:
        step: the optimizer step, from 1; its update was not made.
        losses: [B, C] of each batch of the step, of this rank's samples and channels.
        batches: in the same order.
        model: with the step's gradients, not clipped.
        role: what this rank holds of batches and channels.
        folder: of the run, where the last checkpoint is.

    Raises:
        InputError: always.
    """
    bad = [~torch.isfinite(loss.cpu()) for loss in losses]  # [B, C] each
    own = model.domain.channels
    channels = role.union(_named(own, torch.stack([mask.any(0) for mask in bad]).any(0)))
    if channels:
        what = f"the loss is not finite in {_list([c for c in role.channels if c in channels])}"
        wrong = [_named(_samples(ready), mask.any(1)) for ready, mask in zip(batches, bad, strict=True)]
    else:
        gradients = {name: getattr(p.grad, "_local_tensor", p.grad) for name, p in model.named_parameters()}
        infinite = role.union([name for name, g in gradients.items() if g is not None and not g.isfinite().all()])
        what = f"the gradient is not finite in {_list(infinite)}"
        wrong = [_samples(ready) for ready in batches]
    samples = role.union(chain.from_iterable(wrong))
    cause = _cause(role.union(_missing(batches, own)))
    raise InputError(
        f"training stopped at step {step}: {what}\n  samples: {_list(samples)}\n  {cause}\n  "
        f"the last good checkpoint in {folder} is kept; the weights were not changed by this step"
    )


def _missing(batches: Sequence[ReadyBatch], channels: Sequence[str]) -> list[str]:
    """Channels of which a sample has values that are not finite."""
    missing = torch.zeros(len(channels), dtype=torch.bool)
    for ready in batches:
        history, target = ready.batch.history, ready.batch.target
        missing |= ~(history.isfinite().all(-1).all(-1).all(1).all(0) & target.isfinite().all(-1).all(-1).all(0)).cpu()
    return _named(channels, missing)


def _cause(missing: Sequence[str]) -> str:
    """Missing values in the data, or numbers that grew out of bounds."""
    if missing:
        return (
            f"the samples hold missing values in {_list(missing)}: drop the channels, or `weatherfm verify` the store"
        )
    return "the data are finite, so training diverged: lower training.learning_rate or training.clip_norm in a new run"


def _samples(ready: ReadyBatch) -> list[str]:
    """Initial time and lead time of each sample."""
    times = ready.batch.init_time.astype("datetime64[m]")
    hours = ready.batch.lead_time_hours.tolist()
    return [f"{time} +{lead}h" for time, lead in zip(times, hours, strict=True)]


def _named(names: Iterable[str], chosen: Tensor) -> list[str]:
    return [name for name, wanted in zip(names, chosen.tolist(), strict=True) if wanted]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
