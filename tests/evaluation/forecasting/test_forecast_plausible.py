"""States that cannot be of the Earth are refused before a forecast from them looks like one."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from small_store import EUROPE, TestModel, identity
from toy_model import make_domain

import weatherfm
from weatherfm.errors import InputError

CHANNELS = ("z500", "t850", "sp", "t2m")
EARTHLY = {"z": 5.5e4, "t": 275.0, "sp": 1.0e5, "t2m": 285.0}
UNITS = {"z": "m2 s-2", "t": "K", "sp": "Pa", "t2m": "K"}


class Rule(TestModel):
    provenance: dict = {}


@pytest.fixture
def model() -> Rule:
    return Rule(make_domain(EUROPE, CHANNELS), identity)


def states(**given) -> xr.Dataset:
    """Three days of one value each, but for what is given."""
    times = np.arange("2020-01-01", "2020-01-04", dtype="datetime64[D]").astype("datetime64[ns]")
    dims, shape = ("time", "latitude", "longitude"), (3, *EUROPE.shape)
    fields = {
        name: (dims, np.full(shape, given.get(name, value)), {"units": UNITS[name]}) for name, value in EARTHLY.items()
    }
    coordinates = {"time": times, "latitude": EUROPE.latitude, "longitude": EUROPE.longitude}
    dataset = xr.Dataset(fields, coordinates)
    for name, level in (("z", 500), ("t", 850)):
        dataset[f"{name}{level}"] = dataset[name]
    return dataset.drop_vars(["z", "t"])


def spoilt(name: str, value: float) -> xr.Dataset:
    """Two rows of the last time are a fill value."""
    dataset = states()
    dataset[name][-1, :2] = value
    return dataset


def test_the_earth_is_forecast(model):
    forecast = weatherfm.forecast(model, states())
    assert forecast.attrs["simulated"] == "false"
    assert float(forecast["2m_temperature"].mean()) == pytest.approx(285, rel=1e-3)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (states(t=2.0), r"impossible values in t850 at 2020-01-03T00:00:00: 2 K .*they look like degrees Celsius"),
        (states(z=5500.0), r"in z500 .*5500 m2 s-2 .*they look like metres \(geopotential height\): convert"),
        (states(sp=1000.0), r"in sp .*1000 Pa .*they look like hPa"),
        (states(t2m=0.0), r"in t2m .*0 K .*1 of 4 fields"),
        (spoilt("t850", 9999.0), r"in t850 .*9999 K .*look for fill values that are not marked as missing"),
        (spoilt("z500", 1e20), r"in z500 .*1e\+20 m2 s-2"),
        (spoilt("t2m", np.nan), r"missing values in t2m"),
        (spoilt("t2m", -np.inf), r"infinite values in t2m"),
    ],
    ids=str,
)
def test_another_planet_is_not(model, dataset, words):
    with pytest.raises(InputError, match=words):
        weatherfm.forecast(model, dataset)
    assert model.calls == []


def test_the_member_is_named(model):
    both = xr.concat([states().assign_coords(number=3), spoilt("sp", 0.0).assign_coords(number=8)], "number")
    with pytest.raises(InputError, match=r"impossible values in sp at 2020-01-03T00:00:00, member 8"):
        weatherfm.forecast(model, both)


def test_a_simulated_planet_may_be_cold(model):
    assert weatherfm.forecast(model, states(t2m=100.0).assign_attrs(simulated="true")).sizes["init_time"] == 1
