from __future__ import annotations

import numpy as np
import pytest

from weatherfm.errors import InputError
from weatherfm.evaluation.regions import default_regions, region_weights
from weatherfm.grid import Grid, regular_grid

GLOBAL = regular_grid((36, 8))  # rows at 87.5, .., 22.5, 17.5, ..
WITH_LIMITS = Grid(np.arange(90, -91, -10.0), np.arange(0, 360, 45.0))  # rows at exactly +-20
EUROPE = Grid(np.arange(60, 29, -1.5), np.arange(-20, 15, 1.5))


def test_default_regions():
    assert default_regions(GLOBAL) == ("global", "northern_extratropics", "southern_extratropics", "tropics")
    assert default_regions(EUROPE) == ("area",)
    assert "tropics" not in default_regions(regular_grid((4, 8)))  # no row between 20 S and 20 N


def test_global_weights_are_the_cell_areas():
    np.testing.assert_array_equal(region_weights(GLOBAL, ["global"])[0], GLOBAL.area_weights)
    np.testing.assert_array_equal(region_weights(EUROPE, ["area"])[0], EUROPE.area_weights)


def test_bands_partition_the_sphere_with_their_exact_areas():
    whole, north, south, tropics = region_weights(GLOBAL, default_regions(GLOBAL))
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
        (EUROPE, ["global"], "use 'area'"),
        (EUROPE, ["tropics"], "no point on the grid"),
    ],
)
def test_refused(grid, regions, words):
    with pytest.raises(InputError, match=words):
        region_weights(grid, regions)
