"""Periods of the year: which there are, in which order, and that their sums add up."""

from __future__ import annotations

import numpy as np
import pytest

from weatherfm.errors import InputError
from weatherfm.evaluation.scoring.periods import MONTHS, SEASONS, by_period, periods_of


def test_all_alone():
    assert periods_of([], [3, 1]) == {"all": (1, 3)}


def test_a_whole_year():
    assert list(periods_of(["season"], range(1, 13))) == ["all", "DJF", "MAM", "JJA", "SON"]
    assert list(periods_of(["month", "season"], range(1, 13))) == ["all", *SEASONS, *MONTHS]
    assert list(MONTHS)[::11] == ["Jan", "Dec"]


def test_only_what_is_present():
    found = periods_of(["season", "month"], [1, 2, 12, 6])
    assert found == {
        "all": (1, 2, 6, 12),
        "DJF": (12, 1, 2),
        "JJA": (6,),
        "Jan": (1,),
        "Feb": (2,),
        "Jun": (6,),
        "Dec": (12,),
    }


def test_seasons_are_the_months_of_the_year_once():
    assert sorted(month for months in SEASONS.values() for month in months) == list(range(1, 13))
    assert [months for months in MONTHS.values()] == [(month,) for month in range(1, 13)]


def test_sums_by_period():
    month = np.arange(1.0, 13)[:, None, None]
    sums = {"error": month * np.ones((12, 2, 3)), "square": month**2 * np.ones((12, 2))[..., None]}
    cases = np.arange(1, 13)[:, None] * np.array([1, 10])
    summed, counted = by_period(sums, cases, periods_of(["season", "month"], range(1, 13)))
    assert summed["error"].shape == (17, 2, 3)
    np.testing.assert_array_equal(summed["error"][:5, 0, 0], [78, 15, 12, 21, 30])
    np.testing.assert_array_equal(summed["error"][5:, 1, 2], np.arange(1, 13))
    assert summed["square"][1, 0, 0] == 144 + 1 + 4
    np.testing.assert_array_equal(counted[:2], [[78, 780], [15, 150]])


def test_seasons_add_up_to_all():
    rng = np.random.default_rng(0)
    sums, cases = {"x": rng.normal(size=(12, 4, 5))}, rng.integers(0, 9, (12, 4))
    summed, counted = by_period(sums, cases, periods_of(["season"], range(1, 13)))
    np.testing.assert_allclose(summed["x"][1:].sum(0), summed["x"][0], rtol=1e-12, atol=1e-12)  # order of the sum
    np.testing.assert_array_equal(counted[1:].sum(0), counted[0])


def test_refused():
    with pytest.raises(InputError, match="by 'year'; choose of season, month"):
        periods_of(["season", "year"], [1])
    for months in ([], [0], [13]):
        with pytest.raises(ValueError, match=r"some of 1 \.\. 12"):
            periods_of(["season"], months)
