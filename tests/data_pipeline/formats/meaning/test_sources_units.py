"""Units convert where physics allows and are refused everywhere else."""

from __future__ import annotations

import numpy as np
import pytest

from weatherfm.data_pipeline.formats.units import conversion_to, pressure_factor
from weatherfm.earth.variables import GRAVITY, VARIABLES
from weatherfm.errors import InputError


@pytest.mark.parametrize(
    ("short", "units", "value", "expected"),
    [
        ("z", "m**2 s**-2", 5.0, 5.0),
        ("z", "m2/s2", 5.0, 5.0),
        ("z", "m^2 s^-2", 5.0, 5.0),
        ("z", "m^{2} s^{-2}", 5.0, 5.0),
        ("z", "J kg-1", 5.0, 5.0),
        ("z", "gpm", 5.0, 5.0 * GRAVITY),
        ("z", "m", 5.0, 5.0 * GRAVITY),
        ("z", "dam", 5.0, 50.0 * GRAVITY),
        ("orography", "m", 100.0, 100.0 * GRAVITY),
        ("t2m", "degC", 20.0, 293.15),
        ("t2m", "Celsius", 20.0, 293.15),
        ("t2m", "degF", 68.0, 293.15),
        ("msl", "hPa", 1013.25, 101325.0),
        ("sp", "mb", 1000.0, 100000.0),
        ("sp", "millibars", 1000.0, 100000.0),
        ("u10", "m s**-1", 3.0, 3.0),
        ("u10", "m/s", 3.0, 3.0),
        ("u10", "m.s-1", 3.0, 3.0),
        ("u10", "km h-1", 36.0, 10.0),
        ("u10", "knots", 1.0, 1852 / 3600),
        ("q", "kg kg**-1", 0.01, 0.01),
        ("q", "g/kg", 10.0, 0.01),
        ("q", "g kg-1", 10.0, 0.01),
        ("q", "1", 0.01, 0.01),
        ("r", "%", 80.0, 80.0),
        ("r", "1", 0.8, 80.0),
        ("w", "hPa/s", 0.01, 1.0),
        ("siconc", "(0 - 1)", 0.5, 0.5),
        ("siconc", "%", 50.0, 0.5),
        ("lsm", None, 1.0, 1.0),
        ("tp", "m", 0.002, 0.002),
        ("tp", "mm", 2.0, 0.002),
        ("tp", "m of water equivalent", 0.002, 0.002),
        ("tp", "kg m-2", 2.0, 0.002),
        ("tcwv", "kg m**-2", 20.0, 20.0),
        ("tcwv", "mm", 20.0, 20.0),
        ("tisr", "J m**-2", 7.0, 7.0),
    ],
)
def test_converts(short, units, value, expected):
    converted = conversion_to(VARIABLES[short], units).apply(np.array([value]))
    assert converted.dtype == np.float32
    np.testing.assert_allclose(converted, expected, rtol=2e-7)  # one rounding to float32


@pytest.mark.parametrize(
    ("short", "units", "says"),
    [
        ("t2m", None, "does not say its units"),
        ("t2m", "unknown", "does not say its units"),
        ("zsurf", None, "does not say its units"),
        ("t2m", "furlongs", "not understood"),
        ("t2m", "m s-1", "do not convert to K"),
        ("u10", "K", "do not convert"),
        ("tp", "mm/day", "do not convert to m"),
        ("tp", "kg m-2 s-1", "do not convert to m"),
        ("tisr", "W m-2", "do not convert to J m-2"),
        ("t2m", "K K K", "do not convert"),
        ("msl", "m", "do not convert to Pa"),
        ("t", "gpm", "do not convert to K"),
        ("q", "kg kg-1 +", "not understood"),
    ],
)
def test_refuses(short, units, says):
    with pytest.raises(InputError, match=says):
        conversion_to(VARIABLES.get(short, VARIABLES["orography"]), units)


def test_identity_keeps_float32_untouched():
    values = np.array([1.1, np.nan], np.float32)
    assert conversion_to(VARIABLES["t2m"], "K").apply(values) is values


def test_pressure_factor():
    assert pressure_factor("millibars") == pytest.approx(1)
    assert pressure_factor("Pa") == pytest.approx(0.01)
    assert pressure_factor("m") is None
    assert pressure_factor("") is None
