"""The device a model runs on: its choice, its precision, its memory."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator

from weatherfm.errors import InputError

Precision = Literal["auto", "float32", "tf32", "bfloat16"]
"""auto: bfloat16 on a GPU that computes in it, else float32. tf32: float32 whose products a GPU rounds to 10 bits."""


def _known_device(name: str) -> str:
    """As it is, where some machine may have it."""
    if name == "auto":
        return name
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = "meta"
    if kind == "meta":  # it only pretends to compute
        raise ValueError("no device that PyTorch knows; write auto, cpu, cuda or cuda:1")
    return name


Device = Annotated[str, AfterValidator(_known_device)]
"""auto, or what PyTorch calls a device; which of them this machine has `choose_device` finds."""


def choose_device(name: str, setting: str = "training.device") -> torch.device:
    """The device a setting means; `auto` is a GPU, else the CPU. Each process of a machine has a GPU of its own.

    Args:
        name: `auto`, or what PyTorch calls it.
        setting: what the message calls it.

    Raises:
        InputError: PyTorch does not know the device, or this machine has none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # set by torchrun
    try:
        device = torch.device(name)
        (torch.ones(1, device=device) + 1).item()  # that it computes: `meta` only pretends to
    except (RuntimeError, AssertionError, TypeError) as error:  # AssertionError: a CPU build of torch asked for a GPU
        reason = str(error).splitlines()[0]
        raise InputError(f"{setting} {name!r} cannot be used here ({reason}); write auto or cpu") from None
    return device


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products; of float32 products `apply_precision` says more."""
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def apply_precision(precision: Precision) -> None:
    """Set whether float32 products on a GPU may use TF32, for the whole process."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Inside the block `apply_precision` holds; after it, what held before."""
    before = torch.get_float32_matmul_precision()
    apply_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Inside the block matrix products run in `dtype`; weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def peak_memory_gib(device: torch.device) -> float:
    """Most memory held at once so far: of the GPU's tensors, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
