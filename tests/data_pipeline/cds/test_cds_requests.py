"""What is asked of the Climate Data Store: pure functions."""

from __future__ import annotations

import numpy as np
import pytest

from weatherfm.data_pipeline.cds.box import box_of
from weatherfm.data_pipeline.cds.grouping import requests_for
from weatherfm.data_pipeline.cds.requests import PRESSURE_LEVELS, SINGLE_LEVELS
from weatherfm.data_pipeline.cds.wanted import needed_times, wanted_fields, wanted_times
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

AFRICA = {"north": 40, "west": -20, "south": -36, "east": 55}


def config(channels=("t2m",), grid=1.0, **settings) -> DataConfig:
    source = {"kind": "cds", "grid": grid}
    return DataConfig.model_validate({"store": "unused", "source": source, "channels": list(channels), **settings})


def ask(*args, **settings):
    data = config(*args, **settings)
    return requests_for(wanted_fields(data, data.channels, wanted_times(data, data.channels)), box_of(data))


def test_one_request_a_month_and_data_set():
    channels = ["z500", "t2m", "z850", "q850", "q500", "u10"]
    requests = ask(channels, period="2019-12-30/2020-01-02", step="6h")
    assert [(r.month, r.dataset, r.variables, r.levels) for r in requests] == [
        ("2019-12", PRESSURE_LEVELS, ("q", "z"), (500, 850)),
        ("2019-12", SINGLE_LEVELS, ("t2m", "u10"), ()),
        ("2020-01", PRESSURE_LEVELS, ("q", "z"), (500, 850)),
        ("2020-01", SINGLE_LEVELS, ("t2m", "u10"), ()),
    ]
    assert requests[0].body == {
        "product_type": ["reanalysis"],
        "variable": ["specific_humidity", "geopotential"],
        "pressure_level": ["500", "850"],
        "year": ["2019"],
        "month": ["12"],
        "day": ["30", "31"],
        "time": ["00:00", "06:00", "12:00", "18:00"],
        "data_format": "grib",
        "download_format": "unarchived",
        "grid": "1/1",
    }
    assert requests[0].fields == 2 * 2 * 4 * 2
    assert requests[2].days == (1, 2)


@pytest.mark.parametrize(("year", "days"), [(2019, 28), (2020, 29), (1900 + 100, 29)])
def test_february(year, days):
    requests = ask(period=f"{year}", step="24h")
    assert [len(r.days) for r in requests] == [31, days, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    assert requests[1].body["day"][-1] == str(days)


def test_all_hours_without_a_step_and_few_days_with_a_long_one():
    assert ask(period="2020-02-28/2020-02-28")[0].hours == tuple(range(24))
    every_other = ask(period="2020-02-27/2020-03-02", step="48h")
    assert [(r.month, r.days, r.hours) for r in every_other] == [("2020-02", (27, 29), (0,)), ("2020-03", (2,), (0,))]


def test_a_request_holds_every_time_that_is_wanted():
    data = config(period="2019-11-05/2020-03-03", step="3h")
    requests = ask(period="2019-11-05/2020-03-03", step="3h")
    np.testing.assert_array_equal(np.concatenate([r.times for r in requests]), wanted_times(data))


def test_sums_take_every_hour_and_begin_before_the_period():
    requests = ask(["tp", "t2m"], period="2020-01-01/2020-01-02", step="6h")
    found = [(r.variables, r.month, r.days, r.hours) for r in requests]
    assert found == [
        (("tp",), "2019-12", (31,), (19, 20, 21, 22, 23)),
        (("t2m",), "2020-01", (1, 2), (0, 6, 12, 18)),
        (("tp",), "2020-01", (1, 2), tuple(range(24))),  # 1 January 19 UTC needs all, 2 January none after 18
    ]
    short = ask(["tp"], period="2020-01-02/2020-01-03", step="24h", accumulation="2h")
    assert [(r.days, r.hours) for r in short] == [((1, 2, 3), (0, 23))]
    hours = needed_times(np.array(["2020-01-01T06"], "datetime64[s]"), 3)
    np.testing.assert_array_equal(hours, np.array(["2020-01-01T04", "2020-01-01T05", "2020-01-01T06"], "datetime64[s]"))


def test_the_globe_needs_no_area_and_has_its_poles():
    (request,) = ask(grid=0.25, period="2020-01-01/2020-01-01", step="24h")
    assert "area" not in request.body
    assert "grid" not in request.body
    grid = request.box.grid
    assert grid.shape == (721, 1440)
    assert (grid.latitude[0], grid.latitude[-1], grid.longitude[0], grid.longitude[-1]) == (90, -90, 0, 359.75)


def test_an_area_is_cut_on_points_of_the_grid():
    box = box_of(config(grid=2.5, area={**AFRICA, "north": 41}))
    assert box.area == [40.0, -20.0, -35.0, 55.0]
    assert box.grid.shape == (31, 31)
    assert box.grid.longitude[0] == -20  # across the prime meridian: it starts below zero, like all sources
    pacific = box_of(config(grid=2.5, area={"north": 10, "west": 170, "south": -10, "east": 200}))
    assert pacific.area == [10.0, 170.0, -10.0, 200.0]
    np.testing.assert_array_equal(pacific.grid.longitude, np.arange(170, 201, 2.5))


def test_an_area_is_wider_where_it_will_be_regridded():
    """A cell of the new grid and a point of the old one on each side, but not beyond the poles."""
    box = box_of(config(area=AFRICA, regrid={"resolution": 5.625}))
    assert box.area == [47.0, -27.0, -43.0, 62.0]
    polar = box_of(config(area={**AFRICA, "north": 90}, regrid={"gaussian": 32}))
    assert polar.area == [90.0, -24.0, -40.0, 59.0]
    around = box_of(config(area={"north": 90, "west": 0, "south": 50, "east": 358}, regrid={"resolution": 5.625}))
    assert around.area == [90.0, 0.0, 43.0, 359.0]
    assert around.grid.periodic


def test_names_are_readable_and_belong_to_one_request():
    names = {
        request.name
        for settings in ({}, {"grid": 2.5}, {"area": AFRICA}, {"step": "12h"}, {"period": "2020-01-02/2020-01-03"})
        for request in ask(**{"period": "2020-01-01/2020-01-03", "step": "6h", **settings})
    }
    assert len(names) == 5
    assert all(name.startswith("2m_temperature_2020-01_") for name in names)
    assert ask(period="2020-01-01/2020-01-02")[0].name == "2m_temperature_2020-01_3ddc631d25a48aff"  # for good
    assert ask(["z500", "z850"], period="2020")[0].name == ask(["z850", "z500"], period="2020")[0].name


def test_constant_fields_are_asked_once_whatever_the_period():
    data = config(static=["orography", "lsm"], period="2020")
    wanted = wanted_fields(data, [], wanted_times(data))
    (request,) = requests_for(wanted, box_of(data))
    assert (request.dataset, request.channels, request.fields) == (SINGLE_LEVELS, ("lsm", "orography"), 2)
    assert request.body["variable"] == ["land_sea_mask", "geopotential"]
    assert request.times.tolist() == [np.datetime64("2000-01-01T00", "s").item()]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"has ERA5 from 1940 to last week: say which days to ask for, e\.g\. data\.period=2020"),
        ({"period": "1939"}, r"ERA5 begins on 1940-01-01, but data\.period is 1939-01-01/1939-12-31"),
        ({"period": "2020", "step": "7h"}, r"step 7h neither divides a day nor is whole days"),
        ({"period": "2020", "grid": 0.7}, r"90 is not a multiple of source\.grid 0\.7; choose e\.g\. 0\.25, 0\.5, 1"),
        ({"period": "2020", "channels": ["z513"]}, r"z513: ERA5 has no level 513 hPa; the nearest are 500 and 550"),
        ({"period": "2020", "channels": ["lsm"]}, r"lsm does not change with time .* list it under data\.static"),
        (
            {"period": "2020", "area": {"north": 10.4, "west": 0, "south": 9.6, "east": 5}},
            r"data\.area holds 1 x 6 points of a grid of 1 degrees, and a field needs 2 x 2",
        ),
    ],
)
def test_what_era5_does_not_have(settings, message):
    with pytest.raises(InputError, match=message):
        ask(**settings)
