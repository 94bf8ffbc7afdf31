"""What sections of the GPU's table share: a row, and how large everything is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid

GB = 1e9


class Row(NamedTuple):
    """A line of the table; `good` where there is an aim."""

    what: str
    value: str
    aim: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class Settings:
    """How large everything is."""

    device: str
    dry: bool
    peak_flops: float
    """Of the device, bfloat16 without sparsity; not a number where it is not known."""

    def size(self, full, dry):
        """One of two, as this is a dry run or not."""
        return dry if self.dry else full


def peak_flops(name: str) -> float:
    """Of bfloat16 products without sparsity, from the maker's data sheets; not a number for other devices."""
    known = {
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA H200": 989e12,
        "NVIDIA A100-SXM4-40GB": 312e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA A100 80GB PCIe": 312e12,
    }
    return known.get(name, float("nan"))


def make_domain(channels: int, shape: tuple[int, int]) -> Domain:
    ones = np.ones(channels)
    names = [f"{name}{level}" for level in range(50, 1001, 50) for name in "ztuvq"][:channels]
    return Domain(tuple(names), regular_grid(shape), 0 * ones, ones, ones)
