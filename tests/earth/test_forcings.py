"""Forcings and the sun: values known from almanacs, textbooks and symmetry."""

from __future__ import annotations

import numpy as np
import pytest

from weatherfm.earth.constants import SOLAR_CONSTANT
from weatherfm.earth.forcings import FORCINGS, forcing_fields
from weatherfm.earth.grid import Grid, plane_of, regular_grid
from weatherfm.earth.solar import sun_position, toa_incident_solar_radiation, toa_solar_fraction
from weatherfm.errors import InputError

GRID = regular_grid((32, 64))
POLES = Grid(np.array([90.0, 60.0, 30.0, 0.0, -30.0, -60.0, -90.0]), np.arange(0, 360, 15.0))


def at(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[s]")


def year(step_hours: int = 24 * 5 + 1) -> np.ndarray:
    return np.arange("2021-01-01", "2022-01-01", np.timedelta64(step_hours, "h"), "datetime64[h]").astype("M8[s]")


# --- the sun ---


@pytest.mark.parametrize(
    ("time", "degrees"),
    [
        ("2020-03-20T03:50", 0.0),
        ("2020-06-20T21:44", 23.436),
        ("2020-09-22T13:31", 0.0),
        ("2020-12-21T10:02", -23.436),
    ],
)
def test_declination_at_equinoxes_and_solstices(time, degrees):
    # the almanac's moments; its low-precision formula is right within 0.01 degrees
    assert np.rad2deg(sun_position(at(time)).declination[0]) == pytest.approx(degrees, abs=0.01)


@pytest.mark.parametrize(
    ("day", "seconds"),
    [("2020-02-11", -14 * 60 - 13), ("2020-05-14", 3 * 60 + 40), ("2020-07-26", -6 * 60 - 33), ("2020-11-03", 987)],
)
def test_equation_of_time_at_its_four_extremes(day, seconds):
    found = sun_position(at(f"{day}T12:00")).equation_of_time[0] / (2 * np.pi) * 86400
    assert found == pytest.approx(seconds, abs=10)  # 0.1 minutes is the formula's own error


def test_noon_at_greenwich_follows_the_equation_of_time():
    meridian = Grid(np.array([51.5, 0.0]), np.array([0.0, 90.0]))
    for day, noon in (("2020-11-03", 11 * 60 + 43.55), ("2020-02-11", 12 * 60 + 14.22)):
        minutes = np.arange(0, 1440, 0.25)
        times = np.datetime64(day, "s") + (minutes * 60).astype("timedelta64[s]")
        light = toa_solar_fraction(times, meridian)[:, 0, 0]
        lit = np.flatnonzero(light > 0.01)
        # the middle between two equal heights is sharper than the flat top
        assert (minutes[lit[0]] + minutes[lit[-1]]) / 2 == pytest.approx(noon, abs=1)


def test_distance_is_least_in_early_january():
    distance = sun_position(at("2020-01-05T08:00", "2020-07-04T12:00")).distance
    np.testing.assert_allclose(distance, [0.98324, 1.01669], atol=1e-4)  # almanac: perihelion, aphelion


# --- sunlight at an instant ---


def test_global_mean_is_a_quarter_of_the_solar_constant():
    times = year()
    mean = (toa_solar_fraction(times, GRID) * GRID.area_weights).mean(axis=(1, 2))
    expected = 0.25 / sun_position(times).distance ** 2
    np.testing.assert_allclose(mean, expected, rtol=1e-3)  # 32 x 64 points stand for the sphere


def test_polar_night_and_day():
    june, december = at("2021-06-21T00:00"), at("2021-12-21T12:00")
    assert (toa_solar_fraction(june, POLES)[0, 0] > 0.37).all()
    assert (toa_solar_fraction(june, POLES)[0, -1] == 0).all()
    assert (toa_solar_fraction(december, POLES)[0, 0] == 0).all()
    assert (toa_solar_fraction(december, POLES)[0, -1] > 0.4).all()


def test_hemispheres_are_alike_at_an_equinox():
    light = toa_solar_fraction(at("2020-03-20T03:50"), GRID)
    # the sun is within 0.01 degrees of the equator: twice its sine
    np.testing.assert_allclose(light, light[:, ::-1], atol=4e-4)


def test_forcing_is_the_fraction_and_stays_in_its_bounds():
    times = year()
    fields = forcing_fields(FORCINGS, times, GRID)
    assert fields.shape == (len(times), len(FORCINGS), *GRID.shape)
    assert fields.dtype == np.float32
    solar = fields[:, FORCINGS.index("toa_solar")]
    np.testing.assert_allclose(solar, toa_solar_fraction(times, GRID), atol=1e-7)  # float32
    assert solar.min() == 0
    assert 1.0 < solar.max() <= 1.035
    others = np.delete(fields, FORCINGS.index("toa_solar"), axis=1)
    assert np.abs(others).max() <= 1


# --- sunlight gathered over hours ---


def test_an_hour_equals_quadrature():
    for time in ("2021-03-21T06:00", "2021-06-21T18:00", "2021-12-21T01:00"):
        middles = np.datetime64(time) - np.timedelta64(3600, "s") + np.arange(2, 3600, 4).astype("timedelta64[s]")
        expected = SOLAR_CONSTANT * 4 * toa_solar_fraction(middles, POLES).sum(axis=0)
        found = toa_incident_solar_radiation(at(time), POLES, 1)[0]
        # of a sunlit hour: declination drifts by 0.016 degrees within the hour, which tells near sunrise
        np.testing.assert_allclose(found, expected, atol=3e-5 * 3600 * SOLAR_CONSTANT)


def test_a_window_is_the_sum_of_its_hours():
    end = at("2021-05-05T06:00")
    hourly = toa_incident_solar_radiation(end - np.arange(6).astype("timedelta64[h]"), GRID, 1)
    np.testing.assert_allclose(toa_incident_solar_radiation(end, GRID, 6)[0], hourly.sum(axis=0), rtol=1e-12)


def test_daily_mean_insolation():
    """Hartmann (2016), Global Physical Climatology, eq. 2.17: S0/pi (d/r)^2 (h0 sin sin + cos cos sin h0)."""
    days = at("2021-03-21", "2021-05-10", "2021-06-21", "2021-09-23", "2021-12-21")
    sun = sun_position(days + np.timedelta64(12, "h"))
    latitude, declination = np.deg2rad(GRID.latitude), sun.declination[:, None]
    sunset = np.arccos(np.clip(-np.tan(latitude) * np.tan(declination), -1, 1))
    expected = sunset * np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.sin(sunset)
    expected = expected * SOLAR_CONSTANT / np.pi / sun.distance[:, None] ** 2
    found = toa_incident_solar_radiation(days + np.timedelta64(24, "h"), GRID, 24).mean(axis=2) / 86400
    # of the solar constant: over a day declination changes by up to 0.4 degrees, which the formula leaves out
    np.testing.assert_allclose(found, expected, atol=1e-4 * SOLAR_CONSTANT)


def test_a_year_gives_every_hemisphere_the_same():
    total = toa_incident_solar_radiation(year(24), GRID, 24).sum(axis=(0, 2))
    # Kepler's second law; 365 days lack a quarter of a day (up to 2/1000 of a pole's light) of an orbit
    np.testing.assert_allclose(total, total[::-1], rtol=3e-3)


def test_pictures_have_no_forcings():
    times = np.array(["2001-01-01"], "datetime64[s]")
    assert forcing_fields([], times, plane_of((3, 4))).shape == (1, 0, 3, 4)
    with pytest.raises(InputError, match=r"names latitude, .* set model.forcings: \[\]"):
        forcing_fields(["latitude"], times, plane_of((3, 4)))
