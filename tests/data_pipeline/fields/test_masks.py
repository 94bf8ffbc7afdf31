"""Channels that some points never have a value of: found, kept, left out of what is computed, and held to."""

from __future__ import annotations

import json
from dataclasses import replace

import netCDF4
import numpy as np
import pytest
import sea
import xarray as xr
from invented_source import assert_same_tree
from places import REAL_DATA

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.fields.regrid import place
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store_config import DataConfig, RegridConfig
from weatherfm.data_pipeline.verification.turned_fields import explain
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError

WATER = ~sea.LAND


def config(path, **settings) -> DataConfig:
    plain = sea.data_settings(path.parent) | {"store": str(path), "shard_mib": 1, "channel_block": 1} | settings
    return parse_settings(DataConfig, plain, "test")


def spoilt(where: tuple, value: float):
    """The sea with one value of its temperature changed."""
    source = sea.source()
    state = source.state.compute()
    state.values[where[0], 1, where[1], where[2]] = value
    return replace(source, state=state.chunk({"time": 20}))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("sea") / "store.zarr"
    return prepare(config(path), sea.source())


def test_the_mask_is_what_has_no_value(store):
    assert list(store.masks) == ["sst"]
    np.testing.assert_array_equal(store.masks["sst"], sea.LAND)
    fields = store.read(range(len(store.times)))
    np.testing.assert_array_equal(fields, sea.source().state.values)
    assert np.isnan(fields[:, 1, sea.LAND]).all()


def test_statistics_are_those_of_the_sea(store):
    whole = sea.source(land=None).state.values[:80, 1].astype(np.float64)[:, WATER]  # the training days
    assert store.mean[1] == pytest.approx(whole.mean(), rel=1e-13)
    assert store.std[1] == pytest.approx(whole.std(), rel=1e-12)
    assert (store.minimum[1], store.maximum[1]) == (whole.min(), whole.max())
    change = (whole[4:] - whole[:-4]).astype(np.float32).astype(np.float64)
    assert store.tendency_std[1] == pytest.approx(change.std(), rel=1e-5)
    normal = store.climatology_at(store.times[:1], ["sst"])[0, 0]
    assert np.isnan(normal[sea.LAND]).all()
    np.testing.assert_allclose(normal[WATER], whole[::4].mean(0), rtol=1e-6)


def test_other_channels_are_as_without_it(store, tmp_path):
    plain = prepare(config(tmp_path / "plain.zarr"), sea.source(land=None))
    for name in ("mean", "std", "minimum", "maximum", "tendency_std"):
        np.testing.assert_array_equal(getattr(store, name)[[0, 2]], getattr(plain, name)[[0, 2]])
    assert "masks" not in plain.manifest
    assert plain.masks == {}


def test_it_is_sound_and_opens_with_xarray(store):
    assert verify(store.path).problems == []
    with xr.open_zarr(store.path) as opened:
        assert opened["masked"].values.tolist() == ["sst"]
        np.testing.assert_array_equal(opened["masks"].values[0], sea.LAND)


def test_verify_tells_values_inside_and_holes_outside(store, tmp_path, monkeypatch):
    for spoil, words in (((5, 2, 3), "inside its mask"), ((5, 0, 0), "not finite")):
        value = 280.0 if words.startswith("inside") else np.nan
        path = tmp_path / f"{words.split()[0]}.zarr"
        with monkeypatch.context() as patch:
            patch.setattr("weatherfm.data_pipeline.writing.shards.check_values", lambda *arguments: None)
            prepare(config(path), spoilt(spoil, value))
        problems = [problem.message for problem in verify(path).problems]
        assert any(words in message and "2000-01-02T06" in message for message in problems), problems


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ((7, 0, 0), np.nan, "sst has 1 outside its mask .* at 2000-01-02T18"),
        ((7, 2, 3), 281.0, "sst has 1 inside its mask, where it has none at 2000-01-02T18"),
        ((7, 2, 3), np.inf, "sst has 1 inside its mask"),
    ],
)
def test_a_mask_that_changes_is_refused(tmp_path, where, value, message):
    with pytest.raises(InputError, match=message):
        prepare(config(tmp_path / "s.zarr"), spoilt(where, value))


def test_no_value_at_all_is_refused(tmp_path):
    with pytest.raises(InputError, match="sst has no value at all"):
        prepare(config(tmp_path / "s.zarr"), sea.source(land=np.ones((4, 8), bool)))


def test_a_channel_that_has_values_everywhere_may_not_lack_any(tmp_path):
    source = sea.source()
    state = source.state.compute()
    state.values[:, 0, sea.LAND] = np.nan  # of geopotential
    with pytest.raises(InputError, match="z500 has values that are not finite"):
        prepare(config(tmp_path / "s.zarr"), replace(source, state=state.chunk({"time": 20})))


def test_appended_and_repaired_it_has_the_bytes_of_one_prepared_at_once(store, tmp_path):
    path = tmp_path / "store.zarr"
    prepare(config(path, period="2000-01-01/2000-01-24"), sea.source())
    append(config(path), sea.source())
    at_once = prepare(config(tmp_path / "once" / "store.zarr"), sea.source())
    files = json.loads((at_once.path / "files.json").read_text())
    (shard,) = [key for key in files if key == "state/c/0/1/0/0"]
    assert_same_tree(path, at_once.path)
    content = bytearray((path / shard).read_bytes())
    content[100] ^= 1
    (path / shard).write_bytes(content)
    repair(path, {shard}, config(path), sea.source())
    assert_same_tree(path, at_once.path)


@pytest.mark.parametrize("key", ["masks/c/0/0/0", "masks/zarr.json", "masked/c/0"])
def test_a_damaged_mask_is_repaired(store, tmp_path, key):
    path = tmp_path / "store.zarr"
    prepare(config(path), sea.source())
    whole = (path / key).read_bytes()
    (path / key).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    repair(path, {key}, config(path), sea.source())
    assert (path / key).read_bytes() == whole


def test_turned_fields_are_told_as_without_a_mask():
    """A mask that is alike in both hemispheres; what is missing on either side counts for nothing."""
    grid = regular_grid((16, 32))
    rng, weights = np.random.default_rng(0), grid.area_weights / grid.area_weights.sum()
    before = 290 - 0.2 * grid.latitude[:, None] + rng.standard_normal(grid.shape)
    after = before + 0.1 * rng.standard_normal(grid.shape)
    whole = explain(before, after[::-1], "sst", weights, 0.1)
    before[:, 5:9] = after[:, 5:9] = np.nan
    assert explain(before, after[::-1], "sst", weights, 0.1) == whole
    assert whole is not None
    assert whole[0] == "flipped"
    assert explain(before, after, "sst", weights, 0.1) is None


def test_regridded_it_is_renormalised_at_coasts(tmp_path):
    """Cells half of which are sea have the mean of that half; those with less have no value."""
    source = sea.source()
    target = place(source, None, RegridConfig(resolution=90.0))
    found = target.fields.read(np.array([3]), np.array([1]))[0, 0]
    fine = source.state.values[3, 1].astype(np.float64)
    area = np.abs(np.diff(np.sin(np.deg2rad([90, 45, 0, -45, -90]))))[:, None] * np.ones((4, 8))
    for row in range(2):
        for column in range(4):
            # cells of the coarse grid are centred on 0, 90, ...: of the fine ones half, whole and half
            columns, shares = [(2 * column + shift) % 8 for shift in (-1, 0, 1)], np.array([0.5, 1, 0.5])
            values, weights = fine[2 * row : 2 * row + 2, columns], area[2 * row : 2 * row + 2, columns] * shares
            there = ~np.isnan(values)
            share = weights[there].sum() / weights.sum()
            if share < 0.5 - 1e-6:
                assert np.isnan(found[row, column])
            else:
                expected = (values[there] * weights[there]).sum() / weights[there].sum()
                assert found[row, column] == pytest.approx(expected, rel=1e-6)


def test_era5_sea_surface_temperature(tmp_path):
    """Daily 1995 to 2020 at 2 x 3 points, four of them on land; values by netCDF4 alone."""
    file = REAL_DATA / "cases/cds-sst/data_stream-oper_stepType-instant.nc"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    path = tmp_path / "store.zarr"
    settings = {"source": {"kind": "files", "paths": [str(file)]}, "channels": ["sst"], "train": "1995-2015"}
    plain = {"store": str(path), "climatology_window": 61} | settings
    store = prepare(parse_settings(DataConfig, plain, "test"))
    with netCDF4.Dataset(file) as raw:
        values, latitude = raw["sst"][:].filled(np.nan), raw["latitude"][:]
    values = values[:, ::-1] if latitude[0] < latitude[-1] else values
    np.testing.assert_array_equal(store.read(range(len(store.times)))[:, 0], values)
    assert store.masks["sst"].sum() == 4
    assert store.minimum[0] == pytest.approx(np.nanmin(values[: 21 * 365 + 5]), rel=1e-6)
    assert (np.nanmin(values), np.nanmax(values)) == (pytest.approx(295.39, abs=0.01), pytest.approx(304.48, abs=0.01))
    (problem,) = verify(path).problems  # two points can stay as they are for three days, which a whole map cannot
    assert problem.message.startswith("sst is stuck: 3 fields repeat the one before, at 2019-06-20")
