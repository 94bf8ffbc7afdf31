"""Verification finds humidity that is a fraction, sums beyond what the sun gives, and fields without any value."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr
from invented_source import data_config, times_every
from places import REAL_DATA

from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.records.manifest import FILES, NAME, SOURCES, entry_of, seal, to_bytes
from weatherfm.data_pipeline.store.records.source_files import record_of_sources
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import Grid, regular_grid

GLOBE = regular_grid((6, 12))
EUROPE = Grid(np.linspace(60, 30, 6), np.linspace(-10, 25, 12))
TIMES = times_every(6, 40)


def store(path: Path, channel: str, values: np.ndarray, grid=GLOBE, hours=None) -> Path:
    """A finished store of one channel (and of temperature), whatever a look before would have said."""
    warm = 280 + np.random.default_rng(3).standard_normal(values.shape)
    both = np.stack([values, warm], axis=1).astype(np.float32)
    coordinates = {"time": TIMES, "channel": [channel, "t2m"], "latitude": grid.latitude, "longitude": grid.longitude}
    state = xr.DataArray(both, dims=tuple(coordinates), coords=coordinates).chunk({"time": 40})
    said = {} if hours is None else {"accumulation": {channel: {"window_hours": hours, "source_hours": hours}}}
    with patch("weatherfm.data_pipeline.prepare.probe"):
        prepare(data_config(path, channels=[channel, "t2m"]), SourceData(state, None, said, simulated=False))
    return path


def random(low, high, grid=GLOBE) -> np.ndarray:
    return np.random.default_rng(4).uniform(low, high, (len(TIMES), *grid.shape))


def found(path: Path, kind: str) -> list:
    return [p for p in verify(path).problems if p.kind == kind and p.severity == "error"]


def test_relative_humidity_as_a_fraction(tmp_path):
    (problem,) = found(store(tmp_path / "s.zarr", "r500", random(0, 1.1)), "units")
    assert problem.channel == "r500"
    assert problem.message.startswith(
        "r500 is at most 1.1 % everywhere: a fraction of one, 100 times too small; at 2000-01-01T00"
    )
    assert problem.times[0].count == len(TIMES)
    assert found(store(tmp_path / "t.zarr", "r500", random(0, 110)), "units") == []


def test_some_fractions_within_a_record(tmp_path):
    values = random(0, 110)
    values[20:24] /= 100
    (problem,) = found(store(tmp_path / "s.zarr", "r700", values), "units")
    assert (problem.times[0].start, problem.times[0].count) == ("2000-01-06T00", 4)


def test_a_limited_area_may_be_dry_for_a_while(tmp_path):
    values = random(5, 90, EUROPE)
    values[:40] = random(0, 1, EUROPE)[:40]
    assert found(store(tmp_path / "s.zarr", "r500", values, EUROPE), "units") == []
    assert len(found(store(tmp_path / "t.zarr", "r500", random(0, 1, EUROPE), EUROPE), "units")) == 1
    assert found(store(tmp_path / "u.zarr", "r10", random(0, 1)), "units") == []


@pytest.mark.parametrize(("hours", "watts", "wrong"), [(6, 1390, False), (6, 1500, True), (24, 1390, False)])
def test_sums_of_radiation(tmp_path, hours, watts, wrong):
    values = random(0, watts * 3600 * hours)
    values[3, 2, 2] = watts * 3600 * hours
    problems = found(store(tmp_path / "s.zarr", "tisr", np.minimum(values, 1e8), hours=hours), "sum")
    assert bool(problems) == wrong
    if wrong:
        assert (
            "tisr reaches 3.24e+07 J m-2 as a sum over 6h, 1500 W m-2, more than the sun gives" in problems[0].message
        )


def test_a_field_without_any_value(tmp_path):
    """Nothing that prepare makes, but a store may have been changed and sealed again."""
    path = store(tmp_path / "s.zarr", "t500", random(240, 280))
    state = zarr.open_group(path, mode="r+")["state"]
    values = state[:]
    values[7, 0] = np.nan
    state[:] = values
    files = json.loads((path / FILES).read_text())
    (path / FILES).write_text(json.dumps({key: entry_of((path / key).read_bytes()) for key in files}))
    manifest = json.loads((path / NAME).read_text())
    manifest["records"][FILES] = entry_of((path / FILES).read_bytes())
    manifest = seal(manifest)
    (path / NAME).write_bytes(to_bytes(manifest))
    (path / SOURCES).write_bytes(record_of_sources({}, manifest["checksum"]))
    (problem,) = found(path, "nan")
    assert "t500 has 72 values that are not finite" in problem.message
    assert "1 fields have no value at all" in problem.message


SST = REAL_DATA / "cases/cds-sst/data_stream-oper_stepType-instant.nc"


def test_a_record_without_one_whole_field(tmp_path):
    """Sea surface temperature with land in it and no mask, as no store should hold it: told, and no crash."""
    if not SST.exists():
        pytest.skip(f"{SST} is not here")
    config = data_config(tmp_path / "s.zarr", source={"kind": "files", "paths": [str(SST)]}, channels=["sst"])
    unmasked = patch("weatherfm.data_pipeline.prepare.find_masks", return_value={})
    with unmasked, patch("weatherfm.data_pipeline.writing.shards.check_values"):
        prepare(config)
    report = verify(tmp_path / "s.zarr")
    (problem,) = report.problems
    assert problem.message.startswith("sst has 37988 values that are not finite (66.67%)")
    with netCDF4.Dataset(SST) as raw:
        values = raw["sst"][:].filled(np.nan)
    assert np.isnan(values).sum() == 37988
    assert report.channels[0]["maximum"] == pytest.approx(np.nanmax(values))
    json.dumps(report.to_dict(), allow_nan=False)
    assert "DAMAGED" in report.to_text()
