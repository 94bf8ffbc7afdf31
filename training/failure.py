"""The message of a step that came out not finite: which samples, which channels, and what may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from weatherfm.errors import InputError
from weatherfm.model import WeatherViT
from weatherfm.training.batches import ReadyBatch

_SHOWN = 8


def refuse_step(
    step: int, losses: Sequence[Tensor], batches: Sequence[ReadyBatch], model: WeatherViT, folder: Path
) -> None:
    """Stop training at a step whose gradient is not finite.

    Args:
        step: the optimizer step, from 1; its update was not made.
        losses: [B, C] of each batch of the step.
        batches: in the same order.
        model: with the step's gradients, not clipped; names the channels.
        folder: of the run, where the last checkpoint is.

    Raises:
        InputError: always.
    """
    channels = model.domain.channels
    bad = [(r, ~torch.isfinite(loss.cpu())) for r, loss in zip(batches, losses, strict=True)]
    if any(mask.any() for _, mask in bad):
        wrong = torch.stack([mask.any(0) for _, mask in bad]).any(0)
        what = f"the loss is not finite in {_list([c for c, w in zip(channels, wrong.tolist(), strict=True) if w])}"
        samples = [name for r, mask in bad for name, w in zip(_samples(r), mask.any(1).tolist(), strict=True) if w]
    else:
        parameters = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        what = f"the gradient is not finite in {_list(parameters)}"
        samples = [name for r in batches for name in _samples(r)]
    raise InputError(
        f"training stopped at step {step}: {what}\n  samples: {_list(samples)}\n  {_cause(batches, channels)}\n  "
        f"the last good checkpoint in {folder} is kept; the weights were not changed by this step"
    )


def _cause(batches: Sequence[ReadyBatch], channels: Sequence[str]) -> str:
    """Missing values in the data, or numbers that grew out of bounds."""
    missing = torch.zeros(len(channels), dtype=torch.bool)
    for ready in batches:
        history, target = ready.batch.history, ready.batch.target
        missing |= ~(history.isfinite().all(-1).all(-1).all(1).all(0) & target.isfinite().all(-1).all(-1).all(0)).cpu()
    if missing.any():
        names = _list([c for c, m in zip(channels, missing.tolist(), strict=True) if m])
        return f"the samples hold missing values in {names}: drop the channels, or `weatherfm verify` the store"
    return "the data are finite, so training diverged: lower training.learning_rate or training.clip_norm in a new run"


def _samples(ready: ReadyBatch) -> list[str]:
    """Initial time and lead time of each sample."""
    times = ready.batch.init_time.astype("datetime64[m]")
    hours = ready.batch.lead_time_hours.tolist()
    return [f"{time} +{lead}h" for time, lead in zip(times, hours, strict=True)]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
