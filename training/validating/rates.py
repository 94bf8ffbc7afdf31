"""How fast a device multiplies and how fast ranks talk: what a step's time is held against."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

_PEAKS = {
    "B200": 2250.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200": 989.0,
    "GH200": 989.0,
    "A100": 312.0,
    "A30": 165.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
    "MI300X": 1307.0,
    "MI250X": 191.5,
}
"""Tera-operations a second in bfloat16 without sparsity, by the makers' data sheets (of the MI250X, one of its two
devices); the first name that is part of the device's counts."""


def known_peak(device: torch.device, dtype: torch.dtype) -> float | None:
    """Operations a second that a GPU's maker promises; None for others, and for other formats than bfloat16."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * peak for part, peak in _PEAKS.items() if part in name), None)


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product, the best of some."""
    n = 8192 if device.type == "cuda" else 768
    n = n // 4 if dtype == torch.float64 and device.type == "cuda" else n
    one, other = (torch.ones(n, n, dtype=dtype, device=device) for _ in range(2))
    return 2 * n**3 / _best(lambda: one @ other, device, 5)


def link_rate(device: torch.device) -> float | None:
    """Bytes a second that a rank sends in a sum over all ranks; None where it is alone."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    world = dist.get_world_size()
    numbers = torch.zeros(2**26 if device.type == "cuda" else 2**21, device=device)
    sent = 2 * (world - 1) / world * numbers.numel() * numbers.element_size()
    return sent / _best(lambda: dist.all_reduce(numbers), device, 5)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _best(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    work()
    best = float("inf")
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
