"""The device training runs on: its choice, its precision, its memory."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import AbstractContextManager

import torch

from weatherfm.errors import InputError
from weatherfm.training.config import TrainingConfig


def choose_device(name: str) -> torch.device:
    """The device a setting means; `auto` is a GPU, else the CPU. Each process of a machine has a GPU of its own.

    Raises:
        InputError: PyTorch does not know the device, or this machine has none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # set by torchrun
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a CPU build of torch asked for a GPU
        reason = str(error).splitlines()[0]
        raise InputError(f"training.device {name!r} cannot be used here ({reason}); write auto or cpu") from None
    return device


def choose_precision(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: `auto` is bfloat16 on a GPU that computes in it, else float32."""
    if config.precision != "auto":
        return getattr(torch, config.precision)
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Inside the block matrix products run in `dtype`; weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def peak_memory_gib(device: torch.device) -> float:
    """Most memory held at once so far: of the GPU's tensors, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
