from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
from invented_source import CHANNELS, assert_same_tree, data_config, fields, invented_source, times_every, tree
from places import FIXTURES, ROOT

from weatherfm.data_pipeline.design.dry_run import to_dict, to_text
from weatherfm.data_pipeline.design.store_design import design_store
from weatherfm.data_pipeline.fields.missing_values import check_values
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.records.manifest import seal
from weatherfm.data_pipeline.store.sharding import choose_sharding
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError

GRID = Grid(np.linspace(60, 30, 48), np.linspace(-20, 27, 48))  # 9 KiB a field: a shard of 1 MiB holds 56 times of 2
TIMES = times_every(6, 40)  # 160 times, 3 shards in time x 2 in channels
SPLITS = {"train": "2000-01-01/2000-01-25", "validation": "2000-01-26/2000-02-09"}


def _source(**settings):
    return invented_source(TIMES, GRID, **settings)


def _config(store: Path, **settings):
    return data_config(store, **SPLITS, **settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A store that nothing disturbed."""
    path = tmp_path_factory.mktemp("finished") / "store.zarr"
    prepare(_config(path), _source())
    return path


def test_store_holds_the_source(finished):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_zarr(finished) as store:
            values = fields(TIMES, GRID)
            np.testing.assert_array_equal(store["state"].values, values)
            np.testing.assert_array_equal(store["time"].values, TIMES)
            np.testing.assert_array_equal(store["latitude"].values, GRID.latitude)
            assert store["channel"].values.tolist() == list(CHANNELS)
            assert store["units"].values.tolist() == ["m2 s-2", "K", "K"]
            assert store["long_name"].values.tolist() == ["geopotential", "temperature", "2m_temperature"]
            assert store["level"].values.tolist()[:2] == [500, 850]
            assert store["state"].encoding["chunks"] == (1, 2, 48, 48)
            assert store["state"].encoding["shards"] == (56, 2, 48, 48)
            assert store["latitude"].attrs["units"] == "degrees_north"
            learned = values[:100].astype(np.float64)
            np.testing.assert_allclose(store["mean"], learned.mean((0, 2, 3)), rtol=1e-12)
            np.testing.assert_allclose(store["std"], learned.std((0, 2, 3)), rtol=1e-12)
            np.testing.assert_array_equal(store["maximum"], learned.max((0, 2, 3)))
            change = learned[4:] - learned[:-4]  # 24 h
            np.testing.assert_allclose(store["tendency_std"], change.std((0, 2, 3)), rtol=1e-6)  # float32 differences
            noon = learned[2::4].mean(0)
            np.testing.assert_allclose(store["climatology"].sel(hour=12, dayofyear=0), noon, rtol=1e-7)


def test_manifest_describes_the_store(finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["source"] == {
        "kind": "planet", "simulated": True,
        "request": {"kind": "planet", "seed": 0}, "attributes": {"made": "for a test"},
    }  # fmt: skip
    assert manifest["channels"][0]["era5"] == "geopotential"
    assert (manifest["channels"][0]["level"], manifest["channels"][2]["level"]) == (500, None)
    assert manifest["times"] == {
        "start": "2000-01-01T00:00:00", "end": "2000-02-09T18:00:00", "count": 160, "step_hours": 6, "missing": [],
        "preliminary": [],
    }  # fmt: skip
    assert manifest["climatology"]["period"] == {"start": "2000-01-01", "end": "2000-01-25"}
    assert set(manifest["records"]) == {"files.json", "shards.json"}
    listed = json.loads((finished / "files.json").read_text())
    assert manifest["small"] == {key: entry for key, entry in listed.items() if "/c/" not in key or key[-4:] == "/c/0"}
    assert set(listed) == set(tree(finished)) - {"manifest.json", "sources.json", *manifest["records"]}


def test_nothing_is_left_over(finished):
    assert not (finished / ".progress").exists()


def test_same_bytes_with_one_writer_and_with_many(finished, tmp_path, monkeypatch):
    for workers in (1, 5):
        path = tmp_path / f"{workers}.zarr"
        monkeypatch.setattr("weatherfm.data_pipeline.design.store_design.CPU_COUNT", workers)
        prepare(_config(path), _source())
        assert_same_tree(path, finished)


@pytest.mark.slow
def test_same_bytes_from_a_cluster_of_processes(finished, tmp_path):
    from distributed import LocalCluster

    path = tmp_path / "store.zarr"
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        prepare(_config(path), _source(), scheduler=cluster.scheduler_address)
        assert_same_tree(path, finished)
        with pytest.raises(InputError, match="z500 has 1 at"):  # errors come home from workers too
            prepare(_config(tmp_path / "bad.zarr"), _source(spoil=_nan_in(3)), scheduler=cluster.scheduler_address)


def test_scheduler_that_does_not_answer(tmp_path):
    with pytest.raises(InputError, match=r"no dask scheduler answers at 'tcp//nowhere'"):
        prepare(_config(tmp_path / "store.zarr"), _source(), scheduler="tcp//nowhere")


def test_climatology_window_against_weighted_mean(tmp_path):
    times = times_every(12, 366 + 365)
    grid = regular_grid((2, 4))
    store = prepare(data_config(tmp_path / "s.zarr", climatology_window=61, train="2000"), invented_source(times, grid))
    values = fields(times[:732], grid).astype(np.float64)
    for day in (1, 60, 366):
        distance = (np.arange(366) + 1 - day + 183) % 366 - 183
        weights = np.maximum(1 - np.abs(distance) / 30, 0)
        expected = np.average(values[1::2], axis=0, weights=weights)
        at = np.datetime64("2004-01-01T12") + np.timedelta64(day - 1, "D")
        np.testing.assert_allclose(store.climatology_at(np.array([at]))[0], expected, rtol=1e-6)


def _nan_in(piece: int, channel: int = 0):
    def spoil(number: int, values: np.ndarray) -> np.ndarray:
        if number == piece:
            values[5, channel, 2, 3] = np.nan
        return values

    return spoil


def _failing_from(piece: int):
    def spoil(number: int, values: np.ndarray) -> np.ndarray:
        if number >= piece:
            raise OSError("the disk of the source went away")
        return values

    return spoil


def test_nan_is_refused_with_channel_time_and_count_and_costs_nothing_written(finished, tmp_path):
    path = tmp_path / "store.zarr"
    with pytest.raises(InputError, match=r"t850 has 1 at 2000-02-01T06\."):  # piece 5 starts on time 120
        prepare(_config(path), _source(spoil=_nan_in(5, channel=1)))
    written = {key: content for key, content in tree(path).items() if key.startswith("state/c")}
    assert written
    assert all(tree(finished)[key] == content for key, content in written.items())
    prepare(_config(path), _source())
    assert_same_tree(path, finished)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_refused(value):
    values = np.zeros((2, 1, 2, 2), np.float32)
    values[1, 0, 0, 0] = value
    values[1, 0, 1, 1] = -value  # the two must not cancel
    with pytest.raises(InputError, match="z500 has 2 at 2000-01-01T06"):
        check_values(values, ("z500",), TIMES[:2], {})


def test_source_that_fails_in_the_middle_keeps_what_is_done(finished, tmp_path):
    path, read = tmp_path / "store.zarr", []
    with pytest.raises(OSError, match="went away"):
        prepare(_config(path), _source(spoil=_failing_from(5)))
    done = [key for key in tree(path) if key.startswith("state/c")]
    assert len(done) == 4  # the first two rows of 3
    assert not (path / "manifest.json").exists()

    def note(number, values):
        read.append(number)
        return values

    prepare(_config(path), _source(spoil=note))
    assert min(read) == 112 // 24  # finished shards are not read again
    assert_same_tree(path, finished)


def test_full_disk_is_named_and_survived(finished, tmp_path, monkeypatch):
    path, real, calls = tmp_path / "store.zarr", os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 55:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"no space left for .*start the same command again"):
        prepare(_config(path), _source())
    monkeypatch.undo()
    prepare(_config(path), _source())
    assert_same_tree(path, finished)


def test_finished_shard_that_was_harmed_is_written_again(finished, tmp_path, caplog):
    path = tmp_path / "store.zarr"
    with pytest.raises(OSError, match="went away"):
        prepare(_config(path), _source(spoil=_failing_from(5)))
    (path / "state/c/0/0/0/0").write_bytes(b"harmed")
    (path / "state/c/1/1/0/0").unlink()
    prepare(_config(path), _source())
    assert "c/0/0/0/0 changed since it was written" in caplog.text
    assert_same_tree(path, finished)


def test_finished_store_is_left_alone(finished, caplog):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    (finished / ".progress").mkdir()  # as a kill right after the manifest leaves it
    with caplog.at_level(logging.INFO):
        prepare(_config(finished))  # no source is opened
    assert "is finished; nothing to do" in caplog.text
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before


def test_store_made_before_a_setting_existed_is_still_the_same(finished, tmp_path):
    path = Path(shutil.copytree(finished, tmp_path / "store.zarr"))
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["request"]["allow_gaps"]
    (path / "manifest.json").write_text(json.dumps(seal(manifest)))
    prepare(_config(path))
    manifest["request"]["gone"] = True
    (path / "manifest.json").write_text(json.dumps(seal(manifest)))
    with pytest.raises(InputError, match="gone true, now null"):
        prepare(_config(path))


def test_finished_store_of_other_settings_is_refused(finished):
    settings = SPLITS | {"train": "2000-01-01/2000-01-20"}
    with pytest.raises(InputError, match=r'was prepared with other settings: train.end "2000-01-25", now "2000-01-20"'):
        prepare(data_config(finished, **settings))


def test_unfinished_store_of_other_settings_or_data_is_refused(tmp_path):
    path = tmp_path / "store.zarr"
    with pytest.raises(OSError, match="went away"):
        prepare(_config(path), _source(spoil=_failing_from(3)))
    before = tree(path)
    with pytest.raises(InputError, match=r"was begun with other settings: request.static \[\], now \[\"lsm\"\]"):
        prepare(_config(path, static=["lsm"]), _source(static=("lsm",)))
    with pytest.raises(InputError, match=r"times.count 160, now 156"):
        prepare(_config(path), invented_source(TIMES[:-4], GRID))
    assert tree(path) == before


def test_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than a store"):
        prepare(_config(tmp_path), _source())
    with pytest.raises(InputError, match="is a file"):
        prepare(_config(tmp_path / "thesis.tex"), _source())
    assert tree(tmp_path) == {"thesis.tex": b"years of work"}


def test_second_prepare_at_the_same_time_is_refused(tmp_path):
    path = tmp_path / "store.zarr"
    with (tmp_path / ".store.zarr.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is writing"):
            prepare(_config(path), _source())
    prepare(_config(path), _source())
    assert list(tmp_path.iterdir()) == [path]


def test_static_fields_are_kept_in_the_configs_order(tmp_path):
    source = _source(static=("lsm", "orography"))
    store = prepare(_config(tmp_path / "s.zarr", static=["orography", "lsm"]), source)
    np.testing.assert_array_equal(store.static, source.static.values[::-1])
    with xr.open_zarr(tmp_path / "s.zarr") as opened:
        assert opened["static_units"].values.tolist() == ["m2 s-2", "1"]


def test_static_field_the_source_lacks(tmp_path):
    with pytest.raises(InputError, match=r"no lsm for static .it has orography"):
        prepare(_config(tmp_path / "s.zarr", static=["lsm"]), _source(static=("orography",)))


def test_gap_is_refused_or_listed(tmp_path):
    times = np.delete(TIMES, [30, 31])
    with pytest.raises(InputError, match="2000-01-08T12, 2000-01-08T18"):
        prepare(_config(tmp_path / "s.zarr"), invented_source(times, GRID))
    assert not (tmp_path / "s.zarr").exists()  # refused before anything is written
    store = prepare(_config(tmp_path / "s.zarr", allow_gaps=True), invented_source(times, GRID))
    assert store.manifest["times"]["missing"] == [["2000-01-08T12:00:00", "2000-01-08T18:00:00"]]
    np.testing.assert_array_equal(store.read([29, 30]), fields(times[29:31], GRID))


def test_step_selects_times_across_pieces(tmp_path):
    store = prepare(_config(tmp_path / "s.zarr", step="12h", period="2000-01-03/2000-02-05"), _source())
    np.testing.assert_array_equal(store.times, TIMES[8:144:2].astype("datetime64[s]"))
    np.testing.assert_array_equal(store.read(range(68)), fields(TIMES[8:144:2], GRID))


def test_single_state_prepares_with_a_warning(tmp_path, caplog):
    store = prepare(data_config(tmp_path / "s.zarr"), invented_source(TIMES[:1], GRID))
    assert "no two training times are 24h apart" in caplog.text
    assert np.isnan(store.tendency_std).all()


def test_short_training_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="climatology_window=null"):
        prepare(_config(tmp_path / "s.zarr", climatology_window=61), _source())
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("lead", ["0h", "5h", "48d"])
def test_tendency_lead_without_pairs_is_refused(tmp_path, lead):
    with pytest.raises(
        InputError, match=r"no two training times are so far apart|tendency_lead: input should be greater than 0"
    ):
        prepare(_config(tmp_path / "s.zarr", tendency_lead=lead), _source())


def test_plan_counts_what_is_written(finished, tmp_path):
    design = design_store(_config(tmp_path / "s.zarr"), _source())
    written = tree(finished)
    assert design.files == len(written)
    assert design.shards == sum(key.startswith(("state/c", "climatology/c")) for key in written)
    assert design.bytes_before_compression == 4 * 48 * 48 * 3 * (160 + 4)
    assert "160 every 6h, 2000-01-01T00 to 2000-02-09T18" in to_text(design)
    assert to_dict(design)["step_hours"] == 6
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    ("grid", "n_channels", "block"), [((32, 64), 48, 48), ((128, 256), 70, 8), ((721, 1440), 3, 1), ((32, 64), 130, 65)]
)
def test_layout_chooses_chunks_of_whole_fields(tmp_path, grid, n_channels, block):
    config = data_config(tmp_path / "s.zarr", channel_block=None, shard_mib=64)
    config = config.model_copy(update={"channels": [f"z{i}" for i in range(n_channels)]})
    layout = choose_sharding(config, 100000, grid)
    assert layout.channel_block == block
    assert layout.shard_bytes <= 64 * 2**20
    assert layout.shard_bytes + layout.chunk_bytes > 64 * 2**20


def test_layout_refuses_channel_block_zero(tmp_path):
    with pytest.raises(InputError, match="channel_block: input should be greater than or equal to 1"):
        choose_sharding(data_config(tmp_path / "s.zarr", channel_block=0), 10, (4, 8))


def test_static_field_with_nan_is_refused_before_anything_is_written(tmp_path):
    source = _source(static=("lsm",))
    assert source.static is not None
    source.static.values[0, 1, 1] = np.nan
    with pytest.raises(InputError, match="static fields lsm hold values that are not finite"):
        prepare(_config(tmp_path / "s.zarr", static=["lsm"]), source)
    assert not (tmp_path / "s.zarr").exists()


def test_real_files_against_an_independent_reading(real_data, tmp_path):
    folder = real_data / "era_interim_europe"
    paths = {
        "z500": folder / "z500_ei_1p5deg.nc",
        "t850": folder / "t850_ei_1p5deg.nc",
        "msl": folder / "mslp_ei_1p5deg.nc",
    }
    store = prepare(
        data_config(
            tmp_path / "s.zarr",
            source={"kind": "files", "paths": [str(p) for p in paths.values()], "levels": {"z": 500, "t": 850}},
            channels=list(paths),
            train="2000-2007",
            test="2009-2010",
            climatology_window=61,
        )
    )
    for channel, (name, path) in enumerate(paths.items()):
        with netCDF4.Dataset(path) as file:
            (variable,) = (v for v in file.variables.values() if v.ndim == 3)
            values = np.asarray(variable[:], np.float32)
        np.testing.assert_array_equal(store.read(range(4018), [name])[:, 0], values)
        learned = values[:2922].astype(np.float64)
        np.testing.assert_allclose(store.mean[channel], learned.mean(), rtol=1e-12)
        np.testing.assert_allclose(store.tendency_std[channel], (learned[1:] - learned[:-1]).std(), rtol=1e-6)
    assert verify(store.path).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("regrid", [None, {"resolution": 5.625}], ids=["own grid", "regridded"])
def test_memory_stays_within_what_the_plan_says_whatever_the_length(tmp_path, regrid):
    stated, grown = [], []
    for days in (75, 300):
        program = f"""
import json, resource, sys
sys.path.insert(0, {str(FIXTURES)!r})
from invented_source import data_config, invented_source, times_every
from weatherfm.data_pipeline.store_config import RegridConfig
from weatherfm.data_pipeline.design.store_design import design_store
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.fields.regrid import place
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import regular_grid
source = invented_source(times_every(6, {days}), regular_grid((96, 192)))
regrid = {regrid!r}
if regrid:
    source = place(source, None, RegridConfig(**regrid))
config = data_config({str(tmp_path / f"{days}.zarr")!r}, shard_mib=4)
design = design_store(config, source, workers=2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
prepare(config, source, workers=2)
print(json.dumps([design.peak_memory, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024]))
"""
        done = subprocess.run([sys.executable, "-c", program], check=True, timeout=600, capture_output=True, text=True)
        memory = json.loads(done.stdout)
        stated.append(memory[0])
        grown.append(memory[1])
    assert stated[0] == stated[1]
    # what is not data: modules that are imported on the way, threads, tensorstore's own buffers
    assert max(grown) < stated[0] + 150e6, (grown, stated)
    assert grown[1] - grown[0] < 40e6  # the journal's records and dask's graph know every piece


class _Killed(BaseException):
    """Ends a run as a kill does: nothing catches it."""


@pytest.mark.slow
def test_stopped_at_every_single_rename_ends_with_the_same_bytes(tmp_path, monkeypatch):
    source, real = invented_source(TIMES[:24], GRID), Path.replace
    whole = tmp_path / "whole.zarr"
    calls = []

    def replace(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) > stop:
            raise _Killed
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    stop = 10**6
    prepare(data_config(whole), source)
    n_renames = len(calls)
    assert n_renames > 50
    for stop in range(n_renames):  # read by replace
        path = tmp_path / f"{stop}.zarr"
        calls.clear()
        with pytest.raises(_Killed):
            prepare(data_config(path), source)
        stop, n_before = 10**6, stop
        prepare(data_config(path), source)
        assert_same_tree(path, whole)
        assert n_before < n_renames


@pytest.mark.slow
def test_killed_at_random_moments_ends_with_the_same_bytes():
    script = ROOT / "tests" / "kills" / "kill_prepare.py"
    subprocess.run([sys.executable, str(script), "--kills", "10"], check=True, timeout=800)
