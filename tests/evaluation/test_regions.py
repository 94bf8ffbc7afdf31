"""Regions: which points they hold, on every kind of grid, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.regions import BOXES, default_regions, mean_weights, parse_region, region_weights

GLOBAL = regular_grid((36, 8))  # rows at 87.5, .., 22.5, 17.5, ..
ONE_DEGREE = Grid(np.arange(90, -91, -1.0), np.arange(0, 360, 1.0))
HALF_WAY = Grid(np.arange(89.5, -90, -1.0), np.arange(0.5, 360, 1.0))
WITH_LIMITS = Grid(np.arange(90, -91, -10.0), np.arange(0, 360, 45.0))  # rows at exactly +-20
EUROPE = Grid(np.arange(60, 29, -1.5), np.arange(-20, 15, 1.5))
WIDE = Grid(np.arange(76, 33, -1.0), np.arange(-15, 46, 1.0))  # all of Europe, and beyond
PACIFIC = Grid(np.arange(70, 19, -1.0), np.arange(140, 240, 1.0))  # over the date line
WMO = ("global", "northern_extratropics", "southern_extratropics", "tropics")


def east_of(grid: Grid, meridian: float, width: float = 180) -> np.ndarray:
    """Share of land [lat, lon]: all land over `width` degrees east of a meridian."""
    inside = (grid.longitude - meridian) % 360 < width
    return np.where(inside, 0.9, 0.1) + np.zeros(grid.shape)


def points_of(grid: Grid, region: str, land: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(latitudes, longitudes east of 180 W) of the points inside, each once."""
    rows, columns = np.nonzero(region_weights(grid, [region], land)[0])
    return np.unique(grid.latitude[rows]), np.unique((grid.longitude[columns] + 180) % 360 - 180)


def test_default_regions():
    assert default_regions(GLOBAL)[:4] == WMO
    assert default_regions(ONE_DEGREE) == (*WMO, *BOXES)
    assert default_regions(EUROPE) == ("area",)
    assert "tropics" not in default_regions(regular_grid((4, 8)))  # no row between 20 S and 20 N


def test_default_regions_with_a_mask():
    mask = east_of(ONE_DEGREE, 0)
    assert default_regions(ONE_DEGREE, mask) == (*WMO, "global_land", "global_sea", *BOXES)
    assert default_regions(EUROPE, east_of(EUROPE, 0)) == ("area", "area_land", "area_sea")
    assert default_regions(EUROPE, np.zeros(EUROPE.shape)) == ("area",)  # no land there
    region_weights(ONE_DEGREE, default_regions(ONE_DEGREE, mask), mask)  # nothing that would be refused


def test_boxes_of_few_points_are_not_scored_by_default():
    grid = regular_grid((8, 16))  # 22.5 degrees: Europe has two points, at 56.25 N
    assert np.count_nonzero(region_weights(grid, ["europe"])) == 2
    assert "europe" not in default_regions(grid)
    assert "arctic" in default_regions(grid)


def test_global_weights_are_the_cell_areas():
    np.testing.assert_array_equal(region_weights(GLOBAL, ["global"])[0], GLOBAL.area_weights)
    np.testing.assert_array_equal(region_weights(EUROPE, ["area"])[0], EUROPE.area_weights)


def test_bands_partition_the_sphere_with_their_exact_areas():
    whole, north, south, tropics = region_weights(GLOBAL, WMO)
    np.testing.assert_allclose(north + south + tropics, whole, rtol=0, atol=0)
    # the cell edges lie on 20 degrees, so that the areas are those of the bands on the sphere
    sine = np.sin(np.deg2rad(20))
    np.testing.assert_allclose([w.sum() / whole.sum() for w in (north, tropics)], [(1 - sine) / 2, sine], rtol=1e-12)


def test_a_row_on_the_limit_belongs_to_both_sides():
    north, tropics = region_weights(WITH_LIMITS, ["northern_extratropics", "tropics"])
    row = int(np.flatnonzero(WITH_LIMITS.latitude == 20)[0])
    np.testing.assert_array_equal(north[row], tropics[row])
    assert (north[row] > 0).all()
    assert (north[row + 1] == 0).all()
    assert (tropics[row - 1] == 0).all()


@pytest.mark.parametrize(
    ("grid", "regions", "words"),
    [
        (GLOBAL, ["tropic"], "did you mean 'tropics'"),
        (GLOBAL, ["moon"], "known are global"),
        (GLOBAL, [], "at least one"),
        (GLOBAL, ["tropics", "tropics"], "each once"),
        (GLOBAL, ["europ"], "did you mean 'europe'"),
        (GLOBAL, ["north-atlantic_sea"], "did you mean 'north_atlantic_sea'"),
        (EUROPE, ["global"], "use 'area'"),
        (EUROPE, ["global_land"], "land-sea mask.*static: .lsm.*or leave _land out"),
        (EUROPE, ["tropics"], "no point on the grid"),
        (EUROPE, ["northern_extratropics"], "in the north and south and west and east"),
        (EUROPE, ["europe"], "in the north and east: scores would carry its name but cover a part"),
        (EUROPE, ["azores:45/-32/33/-15"], "in the west: scores"),
        (EUROPE, ["ausnz"], "no point on the grid"),
        (regular_grid((4, 8)), ["tropics"], "no point on the grid.*leave it out"),
        (ONE_DEGREE, ["gap:48.9/5/48.1/16"], "48.1 .. 48.9 N, 5 .. 16 E. has no point"),
    ],
)
def test_refused(grid, regions, words):
    with pytest.raises(InputError, match=words):
        region_weights(grid, regions)


@pytest.mark.parametrize(
    ("region", "south", "north", "west", "east"),
    [
        ("europe", 35, 75, -12, 42),
        ("north_america", 25, 60, -120, -75),
        ("north_atlantic", 25, 65, -70, -10),
        ("east_asia", 25, 60, 103, 150),
        ("ausnz", -45, -13, 120, 175),
        ("alps:48/5/44/16", 44, 48, 5, 16),
        ("azores:40.5/329/36/336", 36, 40, -31, -24),
    ],
)
def test_boxes_hold_the_points_on_their_limits(region, south, north, west, east):
    latitudes, longitudes = points_of(ONE_DEGREE, region)
    np.testing.assert_array_equal(latitudes, np.arange(south, north + 1))
    np.testing.assert_array_equal(longitudes, np.arange(west, east + 1))


def test_box_over_the_date_line():
    for region in ("north_pacific", "mine:60/145/25/-130", "mine:60/145/25/230"):
        latitudes, longitudes = points_of(ONE_DEGREE, region)
        np.testing.assert_array_equal(latitudes, np.arange(25, 61))
        np.testing.assert_array_equal(longitudes, [*np.arange(-180, -129), *np.arange(145, 180)])


def test_polar_boxes_go_round():
    for region, latitudes in {"arctic": np.arange(60, 91), "antarctic": np.arange(-90, -59)}.items():
        found = points_of(ONE_DEGREE, region)
        np.testing.assert_array_equal(found[0], latitudes)
        assert len(found[1]) == 360
    round_it = region_weights(ONE_DEGREE, ["round:90/-180/60/180", "too:90/0/60/360", "arctic"])
    np.testing.assert_array_equal(round_it[0], round_it[2])
    np.testing.assert_array_equal(round_it[1], round_it[2])


def test_coordinates_in_single_precision_lie_on_the_limits():
    grid = Grid(np.arange(75, 30, -0.1, np.float32), np.arange(-20, 50, 0.1, np.float32))
    latitudes, longitudes = points_of(grid, "europe")
    assert (latitudes[0], latitudes[-1]) == pytest.approx((35, 75), abs=1e-3)  # float32 of 0.1 degree steps
    assert (longitudes[0], longitudes[-1]) == pytest.approx((-12.5, 42.5), abs=1e-3)


def test_a_box_has_its_exact_area():
    # cell edges at whole degrees: the weights add up to the box's own share of the sphere
    share = region_weights(HALF_WAY, ["alps:48/5/44/16", "global"]).sum((1, 2))
    expected = (np.sin(np.deg2rad(48)) - np.sin(np.deg2rad(44))) / 2 * 11 / 360
    assert share[0] / share[1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("grid", [ONE_DEGREE, WIDE], ids=["from-zero", "below-zero"])
def test_a_limited_area_gives_the_same_points(grid):
    for wanted in ("europe", "alps:48/5/44/16", "ireland:55.4/-10.5/51.4/-5.5"):
        found, expected = points_of(grid, wanted), points_of(ONE_DEGREE, wanted)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_limited_area_over_the_date_line():
    assert np.count_nonzero(region_weights(PACIFIC, ["north_pacific"])) == 36 * 86
    with pytest.raises(InputError, match="in the west and east: scores"):
        region_weights(PACIFIC, ["europe_pacific:60/100/25/-100"])
    with pytest.raises(InputError, match="in the east: scores"):
        region_weights(PACIFIC, ["east_pacific:60/180/25/-100"])


def test_half_a_step_beyond_the_grid_is_covered():
    # the outermost cells end at 60.75 N, 29.25 N, 20.75 W and 15.25 E
    region_weights(EUROPE, ["all:60.75/-20.75/29.25/15.25"])
    for limits, side in {
        "60.8/-20/30/14.5": "north",
        "60/-20.8/30/14.5": "west",
        "60/-20/29.2/14.5": "south",
        "60/-20/30/15.3": "east",
    }.items():
        with pytest.raises(InputError, match=f"in the {side}: scores"):
            region_weights(EUROPE, [f"all:{limits}"])


@pytest.mark.parametrize("whole", ["global", "europe", "area", "tropics", "alps:48/5/44/16"])
def test_land_and_sea_are_all(whole):
    name, colon, limits = whole.partition(":")
    mask = east_of(ONE_DEGREE, 10)
    both, land, sea = region_weights(
        ONE_DEGREE, [whole, *(f"{name}{p}{colon}{limits}" for p in ("_land", "_sea"))], mask
    )
    np.testing.assert_array_equal(land + sea, both)
    assert (land[mask <= 0.5] == 0).all()
    assert (sea[mask > 0.5] == 0).all()
    assert min(land.sum(), sea.sum()) > 0


def test_half_land_is_sea():
    mask = np.full(EUROPE.shape, 0.5)
    mask[0, 0] = 0.51
    land = region_weights(EUROPE, ["area_land"], mask)[0]
    assert np.flatnonzero(land).tolist() == [0]


def test_land_without_a_point_is_refused():
    with pytest.raises(InputError, match=r"'area_land' \(land of -90 .. 90 N\) has no point"):
        region_weights(EUROPE, ["area_land"], np.zeros(EUROPE.shape))


def test_a_mask_of_another_grid_is_refused():
    with pytest.raises(ValueError, match="does not belong"):
        region_weights(EUROPE, ["area_land"], np.zeros((3, 4)))


def test_mean_weights_sum_to_one():
    weights = mean_weights(ONE_DEGREE, ["europe", "global_sea"], east_of(ONE_DEGREE, 0))
    assert weights.shape == (2, 181 * 360)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("alps:44/5/48/16", "south .48. is not below north .44.; the order is north/west/south/east"),
        ("alps:48/16/44/5", "from west .16. eastward to east .5. are 349 degrees"),
        ("alps:48/5/44/5", "are 0 degrees"),
        ("far:48/-180/44/200", "are 380 degrees"),
        ("alps:48/5/44", "not name:north/west/south/east"),
        ("alps:48N/5/44/16", "not name:north/west/south/east"),
        ("alps:48,5,44,16", "write e.g. alps:48/5/44/16"),
        ("alps:98/5/44/16", "latitudes must lie in"),
        ("alps:48/5/44/nan", "longitudes in"),
        ("europe:48/5/44/16", "europe is a region already"),
        ("europe_land:48/5/44/16", "europe is a region already"),
        (":48/5/44/16", "has no name"),
        ("the alps:48/5/44/16", "has no name"),
    ],
)
def test_boxes_refused(text, words):
    with pytest.raises(InputError, match=words):
        parse_region(text)


def test_boxes_survive_yaml():
    regions = EvaluationConfig.model_validate(yaml.safe_load("regions: [europe_land, alps:48/5/44/16]")).regions
    assert [str(parse_region(name)) for name in regions] == ["35 .. 75 N, -12.5 .. 42.5 E", "44 .. 48 N, 5 .. 16 E"]
