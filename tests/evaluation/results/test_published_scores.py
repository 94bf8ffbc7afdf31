"""Published scores stand beside scores of the same grid and atmosphere, and beside no others."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.evaluation.results.published_scores import published_for


def scored(
    grid=None, days=("2017-01-01", "2018-12-31"), channels=("z500", "t2m", "t850"), leads=(24, 72, 120), **attrs
):
    grid = grid or regular_grid((32, 64))
    return xr.Dataset(
        coords={
            "region": ["global", "tropics"],
            "channel": list(channels),
            "lead_time": np.array(leads, "timedelta64[h]").astype("timedelta64[ns]"),
            "init_time": np.arange(*days, dtype="datetime64[D]").astype("datetime64[ns]"),
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
        attrs={"simulated": "false"} | attrs,
    )


def test_points_on_the_same_grid():
    points = published_for(scored())
    assert len({(point.name, point.channel, point.lead_hours) for point in points}) == len(points) == 32
    found = {(point.name, point.channel, point.lead_hours): point for point in points}
    assert found["operational IFS", "z500", 72].rmse == 154  # WeatherBench, table of results
    assert found["operational IFS", "t850", 120].rmse == 2.03
    assert found["IFS T63", "z500", 120].rmse == 463
    assert "10.1029/2020MS002203" in found["IFS T63", "z500", 120].source
    assert all("32 x 64" in point.note and "other test years" not in point.note for point in points)


def test_better_forecasts_err_less_and_errors_grow():
    """Guards the table against slips: physics beats regression beats persistence, and 5 days are harder than 3."""
    points = {(point.name, point.channel, point.lead_hours): point.rmse for point in published_for(scored())}
    order = ["operational IFS", "IFS T63", "IFS T42", "CNN, direct", "linear regression, direct", "persistence"]
    for channel in ("z500", "t850"):
        for name in order:
            assert points[name, channel, 72] < points[name, channel, 120]
    for hours in (72, 120):
        values = [points[name, "z500", hours] for name in order]
        assert values == sorted(values)


def test_networks_are_not_joined():
    """The two best of one paper are two networks, one at each lead time: no curve goes through both."""
    leads = {point.name: point.lead_hours for point in published_for(scored()) if "ResNet" in point.name}
    assert leads == {"ResNet, direct": 72, "ResNet, continuous": 120}


@pytest.mark.parametrize(
    "other",
    [
        {"simulated": "true"},
        {"grid": regular_grid((64, 128))},
        {"grid": Grid(regular_grid((32, 64)).latitude[2:14], np.arange(12) * 5.625)},
        {"grid": Grid(np.linspace(90, -90, 32), np.arange(64) * 5.625)},  # as many points, on the poles
        {"channels": ("t2m", "u10")},
        {"leads": (6, 24)},
    ],
    ids=["simulated", "finer", "area", "poles", "channels", "leads"],
)
def test_none_beside_other_scores(other):
    assert published_for(scored(**other)) == []


def test_none_without_the_globe_or_word_on_simulation():
    assert published_for(scored().sel(region=["tropics"])) == []
    unsaid = scored()
    del unsaid.attrs["simulated"]
    assert published_for(unsaid) == []


@pytest.mark.parametrize(
    ("days", "said"),
    [(("2018-01-01", "2018-12-31"), "2018"), (("2019-06-01", "2021-02-01"), "2019 to 2021")],
)
def test_other_test_years_are_said(days, said):
    points = published_for(scored(days=days))
    assert points
    assert all(point.note.endswith(f"other test years: {said}.") for point in points)


def test_only_what_was_scored():
    points = published_for(scored(channels=("t850",), leads=(24, 72)))
    assert {(point.channel, point.lead_hours) for point in points} == {("t850", 72)}


def test_scores_are_not_changed():
    scores = scored()
    before = scores.copy(deep=True)
    published_for(scores)
    xr.testing.assert_identical(scores, before)
