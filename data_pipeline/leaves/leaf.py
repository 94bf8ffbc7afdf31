"""Pigments, water, dry matter and structure of a simulated leaf, which vary smoothly over its picture (numpy only)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TRAITS: dict[str, tuple[float, float]] = {
    "n": (1.2, 2.2),
    "cab": (10.0, 70.0),
    "car": (3.0, 15.0),
    "ant": (0.0, 3.0),
    "cbrown": (0.0, 0.3),
    "cw": (0.004, 0.025),
    "cm": (0.002, 0.012),
}
"""PROSPECT's name -> least and most: layers of structure, chlorophyll, carotenoids and anthocyanins (ug cm-2), brown
pigments (1), water (g cm-2) and dry matter (g cm-2); about what leaves of the LOPEX and ANGERS collections have."""
_WAVES = 4


def traits_of(seed: int, picture: int, shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Trait -> [row, column] float64 of one picture, the same on every machine.

    Each trait is its own sum of waves no shorter than the picture, about a mean that is the leaf's own, brought between
    its least and most.

    Args:
        seed: of all pictures.
        picture: number of this one, from 0 on.
        shape: rows and columns.
    """
    random = np.random.Generator(np.random.PCG64([seed, picture]))
    y, x = (np.arange(n)[:, None] / max(shape) if i == 0 else np.arange(n) / max(shape) for i, n in enumerate(shape))
    found = {}
    for name, (low, high) in TRAITS.items():
        middle, turns = 1.5 * random.standard_normal(), random.uniform(-1, 1, (_WAVES, 2))
        phases, heights = random.uniform(0, 2 * np.pi, _WAVES), random.uniform(0, 0.8, _WAVES)
        waves = zip(turns, phases, heights, strict=True)
        field = middle + sum(h * np.sin(2 * np.pi * (a * y + b * x) + p) for (a, b), p, h in waves)
        found[name] = low + (high - low) / (1 + np.exp(-field))
    return found
