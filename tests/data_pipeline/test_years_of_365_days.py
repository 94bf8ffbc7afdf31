"""Climate models whose years all have 365 days, from the file to the scores without a shifted day.

The file is written by netCDF4 and read again by it: its days are counted from the first, 365 a year, and no calendar is
asked. Temperature holds the number of its day.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from synthetic_files import open_files

import weatherfm
from weatherfm.data_pipeline.fields.time_axis import over_leap_day, skipped_leap_days
from weatherfm.data_pipeline.loader import eligible_init_times
from weatherfm.data_pipeline.store.states import StoreStates
from weatherfm.data_pipeline.store.statistics import pairs
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.init_times import choose_init_times

GRID = regular_grid((8, 16))
FIRST, LAST = 2003, 2008
COUNT = 365 * (LAST - FIRST + 1)
NOON, DAY = np.timedelta64(12, "h"), np.timedelta64(24, "h")
ALL = [day for day in (date(FIRST, 1, 1) + timedelta(i) for i in range(COUNT + 2)) if (day.month, day.day) != (2, 29)]
"""Date of each day of the file: those of a real calendar without 29 February."""


def write(path: Path, calendar: str = "365_day") -> Path:
    """`tas` and `pr` as CMIP6's models: days since year 1, labelled at noon, with bounds."""
    days = np.arange(COUNT)
    season = np.cos(2 * np.pi * (days % 365 - 200) / 365)[:, None, None]
    place = np.sin(np.deg2rad(GRID.latitude))[:, None] + 0.1 * np.cos(np.deg2rad(GRID.longitude))
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts({"frequency": "day", "source_id": "CESM2"})
        for dim, size in (("time", COUNT), ("nbnd", 2), ("lat", 8), ("lon", 16)):
            file.createDimension(dim, size)
        for dim, values, units in (("lat", GRID.latitude, "degrees_north"), ("lon", GRID.longitude, "degrees_east")):
            file.createVariable(dim, "f8", (dim,))[:] = values
            file[dim].units = units
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts({"units": "days since 0001-01-01 00:00:00", "calendar": calendar, "bounds": "time_bnds"})
        year = 360 if calendar == "360_day" else 365
        time[:] = year * (FIRST - 1) + days + 0.5
        bounds = file.createVariable("time_bnds", "f8", ("time", "nbnd"))
        bounds[:] = (year * (FIRST - 1) + days)[:, None] + [0, 1]
        warm = file.createVariable("tas", "f4", ("time", "lat", "lon"))
        warm.setncatts({"units": "K", "cell_methods": "area: time: mean", "standard_name": "air_temperature"})
        warm[:] = 260 + 0.01 * days[:, None, None] + 8 * season * place + 3 * np.sin(days)[:, None, None] * place
        rain = file.createVariable("pr", "f4", ("time", "lat", "lon"))
        rain.setncatts({"units": "kg m-2 s-1", "cell_methods": "area: time: mean"})
        rain[:] = 1e-5 * np.random.default_rng(0).gamma(1.0, 2.0, (COUNT, 8, 16))
    return path


def settings(folder: Path, **data) -> dict:
    return {
        "run": str(folder / "run"),
        "data": {
            "store": str(folder / "s.zarr"),
            "source": {"kind": "files", "paths": [str(folder / "cesm.nc")]},
            "channels": ["t2m", "tp"],
            "train": f"{FIRST}-{LAST - 2}",
            "validation": str(LAST - 1),
            "test": str(LAST),
            "allow_gaps": True,
            **data,
        },
        "model": {"patch_size": 4, "width": 16, "depth": 1, "heads": 2},
        "training": {"steps": 4, "batch_size": 4, "lead_times": ["24h", "48h"], "device": "cpu"},
        "forecast": {"lead_times": ["24h", "48h"], "init_every": "24h", "device": "cpu"},
        "evaluation": {"spectra": False},
    }


@pytest.fixture(scope="module")
def there(tmp_path_factory) -> Path:
    """A folder with the file and a run that was prepared, trained, forecast and scored."""
    folder = tmp_path_factory.mktemp("years")
    write(folder / "cesm.nc")
    run = settings(folder)
    weatherfm.prepare(run)
    weatherfm.train(run)
    weatherfm.write_forecast(run)
    weatherfm.evaluate(run)
    return folder


def raw(there: Path) -> np.ndarray:
    """[day, channel, lat, lon] float64: tas in K and the day's rain in m."""
    with netCDF4.Dataset(there / "cesm.nc") as file:
        return np.stack([file["tas"][:].astype(np.float64), file["pr"][:] * np.float64(86400 / 1000)], axis=1)


def store_of(there: Path) -> Store:
    return weatherfm.open_store(there / "s.zarr")


def test_every_day_keeps_its_date(there):
    store = store_of(there)
    assert store.times.tolist() == (np.array(ALL, "datetime64[D]") + NOON).astype("datetime64[s]").tolist()
    np.testing.assert_allclose(store.read(range(COUNT)), raw(there), rtol=2e-7)
    manifest = store.manifest
    assert manifest["times"]["missing"] == [[f"{year}-02-29T12:00:00"] * 2 for year in (2004, 2008)]
    attributes = manifest["source"]["attributes"]
    assert attributes["attributes"]["calendar"] == "365_day"
    assert attributes["accumulation"]["tp"] == {"window_hours": 24, "source_hours": 24, "ends_hours_after": 12}
    report = weatherfm.verify(there / "s.zarr")
    assert [(problem.severity, problem.kind) for problem in report.problems] == [("warning", "gap")]
    assert any("years of 365 days" in fact and "2004-02-29, 2008-02-29" in fact for fact in report.facts)


def test_the_gap_must_be_allowed_and_other_calendars_are_refused(tmp_path):
    write(tmp_path / "cesm.nc")
    with pytest.raises(InputError, match=r"2004-02-29T12, 2008-02-29T12.*allow_gaps"):
        weatherfm.prepare(settings(tmp_path, allow_gaps=False))
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "cesm.nc", "360_day")
    with pytest.raises(InputError, match="'360_day' calendar"):
        weatherfm.prepare(settings(tmp_path / "other"))


def test_statistics_by_hand(there):
    store, fields = store_of(there), raw(there)
    count = 365 * 4
    train = fields[:count]
    np.testing.assert_allclose(store.mean, train.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(store.std, train.std((0, 2, 3)), rtol=1e-5)
    over = next(i for i, day in enumerate(ALL) if day == date(2004, 2, 28))  # the next day of the file is 1 March
    steps = np.delete(np.diff(train, axis=0), over, axis=0)
    np.testing.assert_allclose(store.tendency_std, steps.std((0, 2, 3)), rtol=1e-5)


def test_climatology_by_hand(there):
    """Days of the year by date: 1 March is day 61 of leap years and 60 of others, as for every record."""
    store, fields = store_of(there), raw(there)[: 365 * 4]
    of_year = np.array([day.timetuple().tm_yday for day in ALL[: 365 * 4]])
    for day in (1, 59, 60, 61, 200, 366):
        apart = np.abs(of_year - day)
        weight = np.maximum(0, 1 - np.minimum(apart, 366 - apart) / 30)
        expected = np.einsum("t,tchw->chw", weight, fields) / weight.sum()
        when = np.datetime64("2008-01-01") + np.timedelta64(day - 1, "D") + NOON
        np.testing.assert_allclose(store.climatology_at(np.array([when]))[0], expected, rtol=1e-6)


def test_no_sample_goes_over_the_day_that_is_not_there(there):
    store = store_of(there)
    inits = eligible_init_times(store, store.periods["train"], [0, -24], [24, 48])
    near = [str(time)[:10] for time in inits if "2004-02-24" <= str(time) < "2004-03-05"]
    assert near == ["2004-02-24", "2004-02-25", "2004-02-26", "2004-03-02", "2004-03-03", "2004-03-04"]
    for lead in (24, 48, 72):  # hours by date, which must be those of the model
        earlier, later = pairs(store.times, np.ones(COUNT, bool), lead)
        assert (later - earlier == lead // 24).all()
        assert len(earlier) == COUNT - lead // 24 - 2 * (lead // 24)  # neither begins, ends nor lies across


def test_forecasts_are_of_the_right_days(there):
    """Truth by counting days of the file, persistence and climatology from it; nothing starts just before the gap."""
    fields, weights = raw(there), GRID.area_weights
    forecast, scores = (
        weatherfm.open_forecast(there / "run/forecast.zarr"),
        weatherfm.open_scores(there / "run/scores.nc"),
    )
    inits = forecast["init_time"].values.astype("datetime64[D]").tolist()
    expected = [day for day in ALL if day.year == LAST][:-2]
    assert inits == [day for day in expected if day not in (date(LAST, 2, 27), date(LAST, 2, 28))]
    at = np.array([ALL.index(day) for day in inits])
    for i, lead in enumerate((1, 2)):
        valid = forecast["valid_time"].values[:, i].astype("datetime64[D]").tolist()
        assert valid == [ALL[k + lead] for k in at]
        for channel, name in enumerate(("t2m", "tp")):
            wrong = fields[at, channel] - fields[at + lead, channel]
            rmse = np.sqrt((wrong**2 * weights).mean())
            found = scores["rmse"].sel(forecast="persistence", channel=name, region="global", period="all")
            np.testing.assert_allclose(found.isel(lead_time=i), rmse, rtol=1e-4)
    made = forecast["2m_temperature"].transpose("init_time", "lead_time", "latitude", "longitude").values
    for i, lead in enumerate((1, 2)):
        rmse = np.sqrt(((made[:, i] - fields[at + lead, 0]) ** 2 * weights).mean())
        found = scores["rmse"].sel(forecast="model", channel="t2m", region="global", period="all").isel(lead_time=i)
        np.testing.assert_allclose(found, rmse, rtol=1e-4)


def test_sums_end_at_the_next_day_of_the_calendar(there):
    """Rain alone stands at the end of its day: that of 28 February 2004 at 1 March."""
    rain = open_files(there / "cesm.nc", ["tp"])
    ends = [*ALL[1:], date(LAST + 1, 1, 1)]
    assert rain.state["time"].values.astype("datetime64[s]").tolist() == np.array(ends, "datetime64[s]").tolist()
    np.testing.assert_allclose(rain.state.values[:, 0], raw(there)[:, 1], rtol=2e-7)
    two = open_files(there / "cesm.nc", ["tp"], accumulation="48h", allow_gaps=True)
    whole = [day for day in ends[1:] if day not in (date(2004, 3, 1), date(2008, 3, 1))]
    assert two.state["time"].values.astype("datetime64[D]").tolist() == whole


def test_a_forecast_over_the_day_is_made_but_not_scored(there, tmp_path):
    """From 27 February, 72 h later is 1 March by date, and two days later in the file."""
    days = "2008-02-20/2008-02-25, 2008-02-27"
    path = weatherfm.write_forecast(settings(there), init=days, lead="72h", output=tmp_path / "f.zarr")
    truth = {"store": there / "s.zarr", "output": tmp_path / "s.nc"}
    with pytest.raises(InputError, match=r"no 29 February in leap years, and 1 forecasts .*first from 2008-02-27T12"):
        weatherfm.evaluate(path, **truth)
    scores = weatherfm.evaluate(path, common=True, **truth)
    at = np.array([ALL.index(date(2008, 2, day)) for day in range(20, 26)])
    fields = raw(there)[:, 0]
    rmse = np.sqrt(((fields[at] - fields[at + 3]) ** 2 * GRID.area_weights).mean())
    found = scores["rmse"].sel(forecast="persistence", channel="t2m", region="global", period="all")
    np.testing.assert_allclose(found.squeeze(), rmse, rtol=1e-4)


def test_inputs_on_both_sides_of_the_day_are_refused(there):
    states = StoreStates(store_of(there))
    config = ForecastConfig(init="2008-03-01T12", lead_times=["24h"])
    with pytest.raises(InputError, match="lie on both sides of one, a day less apart than their dates"):
        choose_init_times(states, config, [0, -48])
    config = ForecastConfig(init="2008-02-26/2008-03-06", lead_times=["24h"])
    found = [str(time)[5:10] for time in choose_init_times(states, config, [0, -48])]
    assert found == ["02-26", "02-27", "02-28", "03-03", "03-04", "03-05", "03-06"]


def test_what_is_a_skipped_day():
    days = np.arange("2004-02-20", "2004-03-10", dtype="datetime64[D]").astype("datetime64[s]")
    leap = np.datetime64("2004-02-29")
    assert skipped_leap_days(days).size == 0
    assert skipped_leap_days(np.delete(days, 9)).tolist() == [leap.item()]
    assert skipped_leap_days(np.delete(days, [8, 9])).size == 0  # a longer gap is one of data
    assert skipped_leap_days(days[::2][days[::2] != leap]).size == 0
    assert skipped_leap_days(days[8::2]).size == 0  # every second day: 28 February, 1 March, ...
    ends = over_leap_day(np.array([leap]), days[:3], days[:3] + np.timedelta64(8, "D"))
    assert ends.tolist() == [False, False, True]
