"""A file of scores whose bytes were changed gives no other scores: it is refused, or nothing that counts was hit."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from test_compare_scores import made

from weatherfm.errors import InputError
from weatherfm.evaluation.results.scores_file import read_scores, write_scores


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_scores(
        made(models=("one", "two"), crps=True, events=["t2m > 300 K"]), tmp_path_factory.mktemp("s") / "s.nc"
    )


def test_flipped_bits(written, tmp_path):
    whole, content = read_scores(written), written.read_bytes()
    rng, path, refused = np.random.default_rng(0), tmp_path / "s.nc", 0
    for at, bit in zip(rng.integers(0, len(content), 120), rng.integers(0, 8, 120), strict=True):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
        try:
            found = read_scores(path)
        except InputError:
            refused += 1
            continue
        xr.testing.assert_identical(found, whole)
    assert refused > 10


@pytest.mark.parametrize("what", ["value", "label", "attribute", "provenance"])
def test_what_another_program_has_changed(written, tmp_path, what):
    held = xr.load_dataset(written, engine="netcdf4", decode_timedelta=True)
    if what == "value":
        held["rmse"][0, 0] += 1
    elif what == "label":
        held = held.assign_coords(channel=["z500", "t850", "t2d"])
    elif what == "attribute":
        held["rmse"].attrs["long_name"] = "another"
    else:
        held.attrs["provenance"] = held.attrs["provenance"].replace("1990", "1980")
    held.to_netcdf(tmp_path / "s.nc")
    with pytest.raises(InputError, match=r"s.nc is damaged, or was changed: it does not hold what was written"):
        read_scores(tmp_path / "s.nc")


def test_files_of_before_have_no_checksum(written, tmp_path):
    held = xr.load_dataset(written, engine="netcdf4", decode_timedelta=True)
    del held.attrs["sha256"]
    held.to_netcdf(tmp_path / "s.nc")
    xr.testing.assert_identical(read_scores(tmp_path / "s.nc"), read_scores(written))
