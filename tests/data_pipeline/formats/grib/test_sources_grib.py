"""GRIB files in any mixture: levels, steps, members, multi-field messages, scanning orders, grids."""

from __future__ import annotations

import subprocess
import sys

import eccodes
import numpy as np
import pytest
from synthetic_files import LATITUDE, LONGITUDE, TIMES, grib_message, open_files, wave

from weatherfm.earth.variables import GRAVITY
from weatherfm.errors import InputError

_PACKING = 1e-5  # 24 bits over a range of about 40


def write(path, *messages: bytes):
    path.write_bytes(b"".join(messages))
    return path


def check(data, *expected) -> None:
    """The fields [channel, lat, lon] of the first time."""
    np.testing.assert_array_equal(data.state["latitude"], LATITUDE)
    np.testing.assert_array_equal(data.state["longitude"], LONGITUDE)
    np.testing.assert_allclose(data.state.values[0], np.stack(expected), rtol=_PACKING)


def surface(name, kind="surface", **keys) -> bytes:
    return grib_message(name, kind=kind, **keys)


def test_surface_and_levels_in_one_file(tmp_path):
    base = wave(TIMES[:1])[0]
    path = write(
        tmp_path / "x.grib",
        grib_message("t", 500, values=base),
        grib_message("t", 850, values=base + 20),
        grib_message("gh", 500, values=base * 20),
        surface("2t", values=base + 5),
        surface("z", values=base * 3),
        surface("lsm", values=base * 0 + 1),
    )
    data = open_files(path, ["t850", "z500", "t2m", "t500"], ("orography", "lsm"))
    check(data, base + 20, base * 20 * GRAVITY, base + 5, base)
    np.testing.assert_allclose(data.static, np.stack([base * 3, base * 0 + 1]), rtol=_PACKING)


def test_no_index_file_is_left_behind(tmp_path):
    open_files(write(tmp_path / "x.grib", surface("2t")), ["t2m"]).state.compute()
    assert [path.name for path in tmp_path.iterdir()] == ["x.grib"]


def test_holes_in_the_hypercube_are_found(tmp_path):
    path = write(tmp_path / "x.grib", grib_message("t"), grib_message("t", time=1200), grib_message("z"))
    with pytest.raises(InputError, match=r"z500 lacks 1 of 2 \(first 2020-01-01T12:00:00"):
        open_files(path, ["t500", "z500"])


def test_the_same_field_twice_is_refused_and_era5t_gives_way(tmp_path):
    base = wave(TIMES[:1])[0]
    twice = write(tmp_path / "x.grib", surface("2t"), surface("2t", values=base + 1))
    with pytest.raises(InputError, match=r"x\.grib: it holds t2m at 2020-01-01T00:00:00 twice \(messages 1 and 2\)"):
        open_files(twice, ["t2m"])
    early = surface("2t", values=base + 1, expver="0005")
    check(open_files(write(tmp_path / "y.grib", early, surface("2t", expver="0001")), ["t2m"]), base)


@pytest.mark.parametrize("edition", [1, 2])
def test_steps(tmp_path, edition):
    base = wave(TIMES[:1])[0]
    keys = {"edition": edition, "kind": "meanSea", "level": 0}
    forecasts = [grib_message("msl", values=base + step, **keys, step=step) for step in (0, 6, 36)]
    path = write(tmp_path / "x.grib", *forecasts)
    with pytest.raises(InputError, match=r"several lead times \(0h, 6h, 36h\)"):
        open_files(path, ["msl"])
    data = open_files(path, ["msl"], lead_time="36h")
    assert data.state["time"].values[0] == np.datetime64("2020-01-02T12")
    check(data, base + 36)


def test_accumulation_counts_at_its_end(tmp_path):
    base = wave(TIMES[:1])[0]
    path = write(tmp_path / "x.grib", surface("tp", edition=2, stepType="accum", stepRange="0-6", values=base))
    data = open_files(path, ["tp"])
    assert data.state["time"].values[0] == np.datetime64("2020-01-01T06")
    assert data.attributes["accumulated"] == ["tp"]
    check(data, base)


def test_averages_are_no_instantaneous_fields(tmp_path):
    path = write(tmp_path / "x.grib", surface("sst", edition=2, stepType="avg", stepRange="0-6"))
    with pytest.raises(
        InputError, match=r"no channel sst: sst is a mean over time \(GRIB stepType avg\), not the field"
    ):
        open_files(path, ["sst"])


def test_fields_on_other_levels_are_not_taken(tmp_path):
    path = write(tmp_path / "x.grib", grib_message("t", 3, kind="hybrid"), surface("t"))
    with pytest.raises(InputError, match=r"holds no channel t500; .*t \(hybrid 3\), t \(surface 0\)"):
        open_files(path, ["t500"])


@pytest.mark.parametrize("edition", [1, 2])
def test_missing_points_become_nan(tmp_path, edition):
    values = wave(TIMES[:1])[0]
    values[1, 2] = 9999.0
    path = write(
        tmp_path / "x.grib", surface("2t", edition=edition, bitmapPresent=1, missingValue=9999.0, values=values)
    )
    state = open_files(path, ["t2m"]).state.values[0, 0]
    assert np.isnan(state[1, 2])
    assert np.isnan(state).sum() == 1


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize("rows_up", [0, 1])
@pytest.mark.parametrize("columns_first", [0, 1])
def test_scanning_orders(tmp_path, edition, rows_up, columns_first):
    base = wave(TIMES[:1])[0]
    values = base[::-1] if rows_up else base
    keys = {"jScansPositively": rows_up, "jPointsAreConsecutive": columns_first, "edition": edition}
    if rows_up:
        keys |= {"latitudeOfFirstGridPointInDegrees": LATITUDE[-1], "latitudeOfLastGridPointInDegrees": LATITUDE[0]}
    message = surface("2t", values=values.T if columns_first else values, **keys)
    check(open_files(write(tmp_path / "x.grib", message), ["t2m"]), base)


def test_rows_from_east_to_west(tmp_path):
    keys = {"longitudeOfFirstGridPointInDegrees": 315.0, "longitudeOfLastGridPointInDegrees": 0.0}
    base = wave(TIMES[:1])[0]
    message = surface("2t", values=base[:, ::-1], iScansNegatively=1, **keys)
    check(open_files(write(tmp_path / "x.grib", message), ["t2m"]), base)


def test_area_across_the_prime_meridian(tmp_path):
    keys = {"longitudeOfFirstGridPointInDegrees": 270.0, "longitudeOfLastGridPointInDegrees": 225.0 - 180}
    message = surface("2t", values=wave(TIMES[:1])[0][:, :4], Ni=4, **keys)
    data = open_files(write(tmp_path / "x.grib", message), ["t2m"])
    np.testing.assert_array_equal(data.state["longitude"], [-90, -45, 0, 45])


def test_gaussian_grid(tmp_path):
    message = eccodes.codes_grib_new_from_samples("regular_gg_sfc_grib2")
    eccodes.codes_set(message, "shortName", "2t")
    rows, columns = eccodes.codes_get(message, "Nj"), eccodes.codes_get(message, "Ni")
    values = np.arange(rows * columns, dtype=float)
    eccodes.codes_set_values(message, values)
    latitude = eccodes.codes_get_array(message, "latitudes")[::columns]
    path = write(tmp_path / "x.grib", eccodes.codes_get_message(message))
    data = open_files(path, ["t2m"])
    np.testing.assert_allclose(data.state["latitude"], latitude, atol=1e-3)
    np.testing.assert_allclose(data.state.values.ravel(), values, atol=1)


def test_reduced_grids_are_refused_by_name(tmp_path):
    message = eccodes.codes_grib_new_from_samples("reduced_gg_sfc_grib1")
    eccodes.codes_set(message, "shortName", "2t")
    path = write(tmp_path / "x.grib", eccodes.codes_get_message(message))
    with pytest.raises(InputError, match=r"x\.grib: its field 2t is on a grid of type reduced_gg"):
        open_files(path, ["t2m"])


def test_multi_field_messages(tmp_path):
    """NCEP packs u and v of a level into one message."""
    parts = [grib_message(name, 500, edition=2, values=wave(TIMES[:1])[0] + i) for i, name in enumerate("uv")]
    multi = eccodes.codes_grib_multi_new()
    for part in parts:
        message = eccodes.codes_new_from_message(part)
        eccodes.codes_grib_multi_append(message, 4, multi)
        eccodes.codes_release(message)
    path = tmp_path / "x.grib"
    with open(path, "wb") as file:
        eccodes.codes_grib_multi_write(multi, file)
        file.write(grib_message("t", 500, edition=2, values=wave(TIMES[:1])[0] + 9))
    eccodes.codes_grib_multi_release(multi)
    base = wave(TIMES[:1])[0]
    data = open_files(path, ["v500", "t500", "u500"])
    check(data, base + 1, base + 9, base)
    for i, expected in ((2, base), (0, base + 1), (1, base + 9), (0, base + 1)):  # in any order, one by one
        np.testing.assert_allclose(data.state[0, i], expected, rtol=_PACKING)


def test_threads_read_alike(tmp_path):
    base = wave(TIMES[:1])[0]
    messages = [surface("2t", date=20200101 + day, values=base + day) for day in range(20)]
    state = open_files(write(tmp_path / "x.grib", *messages), ["t2m"]).state.chunk(time=1)
    expected = base + np.arange(20)[:, None, None]
    np.testing.assert_allclose(state.compute(scheduler="threads", num_workers=4)[:, 0], expected, rtol=_PACKING)


def test_members(tmp_path):
    base = wave(TIMES[:1])[0]
    ensemble = {"edition": 2, "productDefinitionTemplateNumber": 1, "numberOfForecastsInEnsemble": 3}
    path = write(tmp_path / "x.grib", *[surface("2t", **ensemble, number=n, values=base + n) for n in range(3)])
    with pytest.raises(InputError, match=r"3 ensemble members \(0, 1, 2\)"):
        open_files(path, ["t2m"])
    check(open_files(path, ["t2m"], number=2), base + 2)


def test_ecmwf_library_leaves_map_projections_intact():
    """ecCodes brings a PROJ library of its own; in the wrong order the process crashed in cartopy or at its end."""
    code = """
from weatherfm.data_pipeline.formats.grib.reader import eccodes
eccodes.codes_get_api_version()
from pyproj import CRS
assert CRS.from_epsg(4326).is_geographic
"""
    subprocess.run([sys.executable, "-c", code], check=True)
