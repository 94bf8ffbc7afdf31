"""Reflectance of simulated leaves by PROSPECT-D (doi:10.1016/j.rse.2017.03.004), as the package prosail computes it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np

from weatherfm.errors import InputError

SHORTEST, LONGEST = 400, 2500
"""nm, at each whole one."""


def require_prosail() -> str:
    """The version of the package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import prosail  # noqa: F401 - it is there
    except ImportError as error:
        raise InputError(
            "simulated leaves need the package prosail, which is not installed; pip install 'weatherfm[leaves]'"
        ) from error
    return version("prosail")


def leaf_reflectance(traits: Mapping[str, np.ndarray], wavelengths: np.ndarray) -> np.ndarray:
    """[wavelength, row, column] float32 hemispherical reflectance.

    Args:
        traits: PROSPECT's name -> [row, column].
        wavelengths: [wavelength] int nm, from 400 to 2500.
    """
    from prosail.prospect_d import run_prospect

    shape = next(iter(traits.values())).shape
    out = np.empty((len(wavelengths), *shape), np.float32)
    for pixel in np.ndindex(*shape):
        _, reflectance, _ = run_prospect(**{name: float(field[pixel]) for name, field in traits.items()})
        out[:, *pixel] = reflectance[wavelengths - SHORTEST]
    return out
