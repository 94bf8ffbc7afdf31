"""Other scales for channels that are far from normal, as precipitation: log1p on both sides of zero."""

from __future__ import annotations

import numpy as np


def to_log(values: np.ndarray, scale: float) -> np.ndarray:
    """sign(x) ln(1 + |x| / scale) in float64: linear for |x| far below the scale, logarithmic far above.

    FourCastNet (Pathak et al. 2022, arXiv 2202.11214) has it for precipitation with a scale of 1e-5 m. Values
    slightly below zero, which packing leaves, stay what they are.

    Args:
        values: any shape, in the units of `scale`.
        scale: above zero.
    """
    exact = values.astype(np.float64)
    result: np.ndarray = np.sign(exact) * np.log1p(np.abs(exact) / scale)
    return result
