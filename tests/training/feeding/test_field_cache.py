"""Fields kept in memory: the same batches bit for bit, without the disk, and only where they fit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import toy_run
from invented_source import CHANNELS, data_config, fields, invented_source, times_every
from safetensors.torch import load_file

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.loader import SampleLoader, eligible_init_times, fixed_batches
from weatherfm.data_pipeline.machine.host_memory import available_memory
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store import training_store as stores
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.data_pipeline.store_config import Period
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.training.check import check_run
from weatherfm.training.feeding import field_cache
from weatherfm.training.feeding.field_cache import choose_cache, keep_fields
from weatherfm.training.run_config import RunConfig, TrainingConfig
from weatherfm.training.trainer import train

GRID = regular_grid((4, 8))
TIMES = np.delete(times_every(6, 30), [50])  # a gap at 2000-01-13T12
TRAIN, VALIDATION = (Period.model_validate(days) for days in ("2000-01-01/2000-01-20", "2000-01-23/2000-01-28"))
GIB = 2**30


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "store.zarr"
    prepare(data_config(path, allow_gaps=True, train=TRAIN, validation=VALIDATION), invented_source(TIMES, GRID))
    return path


def keep_all_but_test_days(store: Store, channels) -> None:
    store.keep(np.flatnonzero(TRAIN.contains(store.times) | VALIDATION.contains(store.times)), channels)


def forget_disk(monkeypatch) -> None:
    def fail(*args):
        raise AssertionError("read from disk")

    monkeypatch.setattr(Store, "_read_into", fail)


def same(a, b) -> bool:
    equal = [torch.equal(getattr(a, name), getattr(b, name)) for name in ("history", "target", "lead_time_hours")]
    return all(equal) and a.init_time.tolist() == b.init_time.tolist()


@pytest.mark.parametrize("channels", [None, ["t2m", "z500"], ["t850", "t2m"]], ids=str)
@pytest.mark.parametrize("part", [(0, 1), (1, 2)], ids=str)
def test_samples_are_the_same_with_and_without_the_disk(path, channels, part, monkeypatch):
    def batches(store):
        loader = SampleLoader(store, TRAIN, [-6, 0], [6, 24], 4, 1, 2, channels, part=part)
        return list(loader.iterate(3, 2 * loader.steps_per_epoch))  # two orders

    plain, kept = batches(open_store(path)), open_store(path)
    keep_all_but_test_days(kept, channels)
    forget_disk(monkeypatch)
    assert all(same(a, b) for a, b in zip(plain, batches(kept), strict=True))


def test_validation_samples_are_the_same(path, monkeypatch):
    def batches(store):
        inits = eligible_init_times(store, VALIDATION, [0], [12])
        return list(fixed_batches(store, inits, [0], 12, batch_size=3, channels=["t2m"]))

    plain, kept = batches(open_store(path)), open_store(path)
    keep_all_but_test_days(kept, ["t2m"])
    forget_disk(monkeypatch)
    assert all(same(a, b) for a, b in zip(plain, batches(kept), strict=True))


def test_what_is_not_kept_is_read_from_disk(path):
    store = open_store(path)
    store.keep([7, 3, 5], ["t2m", "z500"])
    everything = fields(TIMES, GRID)
    columns = [CHANNELS.index("t2m"), CHANNELS.index("z500")]
    for indices in ([3, 5, 7, 3], [3, 4], [118], []):
        np.testing.assert_array_equal(store.read(indices, ["t2m", "z500"]), everything[indices][:, columns])
    np.testing.assert_array_equal(store.read([3], ["z500", "t2m"]), everything[[3]][:, columns[::-1]])
    with pytest.raises(InputError, match="no channel q700"):
        store.read([3], ["q700"])
    for index in (-1, 119):  # as without fields in memory: positions do not count from the end
        with pytest.raises((ValueError, IndexError), match=str(index)):
            store.read([index], ["t2m", "z500"])


def test_kept_fields_do_not_change_with_what_is_done_to_a_batch(path):
    store = open_store(path)
    store.keep([0, 1])
    expected = store.read([0, 1])
    store.read([0, 1])[:] = 0
    np.testing.assert_array_equal(store.read([0, 1]), expected)


def test_fields_are_read_piece_by_piece(path, monkeypatch):
    monkeypatch.setattr(stores, "_PIECE", 1000)  # two times of three channels and 4 x 8 points
    told, store = [], open_store(path)
    store.keep(range(9), progress=told.append)
    assert told == [768] * 4 + [384]
    np.testing.assert_array_equal(store.read(range(9)), fields(TIMES[:9], GRID))


def test_damaged_shard_found_while_keeping(path, tmp_path):
    shutil.copytree(path, tmp_path / "s.zarr")
    shard = tmp_path / "s.zarr/state/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-100])
    store = open_store(tmp_path / "s.zarr")
    with pytest.raises(InputError, match=r"is damaged: its content is not what its checksum says.*weatherfm verify"):
        store.keep([0])
    with pytest.raises(InputError, match=r"is damaged: its content is not what its checksum says.*weatherfm verify"):
        next(SampleLoader(store, None, [0], [6], 4, 0, workers=2).iterate(0, 1))


# --- does it fit?


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    toy_run.make_store(folder)
    return folder


SIZE = 4 * 100 * 3 * 4 * 8  # training and validation of the toy run: 100 times, 3 channels, 4 x 8 points


def choose(folder, monkeypatch, available, mode="auto", processes=1, count=1, channels=toy_run.CHANNELS, **training):
    monkeypatch.setattr(field_cache, "available_memory", lambda: available)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    config = toy_run.make_run(folder, cache=mode, **training)
    return choose_cache(config, open_store(folder / "store.zarr"), channels, count)


@pytest.mark.parametrize(
    ("available", "processes", "keep"),
    [(4 * SIZE, 1, True), (4 * SIZE - 1, 1, False), (16 * SIZE, 4, True), (16 * SIZE - 4, 4, False)],
)
def test_auto_takes_a_quarter_of_what_each_process_has(run_folder, monkeypatch, available, processes, keep):
    found = choose(run_folder, monkeypatch, available, processes=processes)
    assert found.keep is keep
    assert (found.size, len(found.indices)) == (SIZE, 100)
    assert ("kept in memory" if keep else "more than a quarter of") in found.text


def test_fewer_channels_take_less(run_folder, monkeypatch):
    assert choose(run_folder, monkeypatch, 4 * SIZE // 3, channels=["t850"]).keep
    assert not choose(run_folder, monkeypatch, 4 * SIZE // 3, channels=["t850", "z500"]).keep


def test_auto_does_not_keep_what_a_short_run_reads_less_of(run_folder, monkeypatch):
    settings = {"steps": 13, "batch_size": 4}  # 13 x 4 samples of one input time and a target: 104 fields for 100
    assert choose(run_folder, monkeypatch, GIB, **settings).keep
    short = choose(run_folder, monkeypatch, GIB, **settings | {"steps": 12})
    assert not short.keep
    assert "the run is too short" in short.text
    assert not choose(run_folder, monkeypatch, GIB, count=2, **settings).keep  # half of each batch is another's
    assert choose(run_folder, monkeypatch, GIB, "on", **settings | {"steps": 12}).keep


def test_off(run_folder, monkeypatch):
    found = choose(run_folder, monkeypatch, GIB, "off")
    assert not found.keep
    store = open_store(run_folder / "store.zarr")
    keep_fields(found, store, toy_run.CHANNELS)
    assert store._kept is None


def test_on_without_enough_memory_is_refused_with_numbers(run_folder, monkeypatch):
    assert choose(run_folder, monkeypatch, 2 * SIZE, "on", processes=2).keep
    with pytest.raises(
        InputError, match=r"needs 0.0366 MiB \(100 times, 3 channels\), more than the 0.0366 MiB .* each of 2 copies"
    ):
        choose(run_folder, monkeypatch, 2 * SIZE - 2, "on", processes=2)


def test_yaml_words_for_on_and_off(tmp_path):
    for given, found in ((True, "on"), (False, "off"), ("on", "on"), ("off", "off"), ("auto", "auto")):
        assert parse_settings(TrainingConfig, {"cache": given}, "test").cache == found
    with pytest.raises(InputError, match=r"cache: input should be 'auto', 'on' or 'off' \(got 'disk'\)"):
        parse_settings(TrainingConfig, {"cache": "disk"}, "test")


def test_check_says_where_fields_are_read_from(run_folder):
    text = next(f.text for f in check_run(toy_run.make_run(run_folder)) if f.link == "training")
    assert "alone on this machine, fields are kept in memory: 0.0366 MiB (100 times, 3 channels)" in text


# --- training


def test_training_ends_with_the_same_weights_and_goes_on_with_the_other_setting(run_folder, monkeypatch, caplog):
    caplog.set_level("INFO")
    weights = {}
    for mode in ("off", "auto"):
        config = toy_run.make_run(run_folder, mode, cache=mode, wandb={"mode": "disabled"})
        weights[mode] = load_file(train(config).weights)
    assert "fields are kept in memory: 0.0366 MiB" in caplog.text
    assert "fields are read from disk (training.cache=off)" in caplog.text
    assert all(torch.equal(weights["off"][name], weights["auto"][name]) for name in weights["off"])
    losses = [
        [json.loads(line).get("validation") for line in (run_folder / mode / "metrics.jsonl").read_text().splitlines()]
        for mode in ("off", "auto")
    ]
    assert losses[0] == losses[1]
    again = train(parse_settings(RunConfig, toy_run.run_settings(run_folder, "off", cache="on"), "test"))
    assert again.resumed_from == 24  # a checkpoint of a run without the cache


def test_training_and_validation_read_the_disk_once(run_folder, monkeypatch):
    real = Store.keep

    def keep(store, *args):
        real(store, *args)
        forget_disk(monkeypatch)

    monkeypatch.setattr(Store, "keep", keep)
    assert train(toy_run.make_run(run_folder, "once", cache="on", wandb={"mode": "disabled"})).steps == 24


# --- memory of the machine


def machine(root, meminfo, groups, **files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {meminfo // 1024} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return available_memory(root)


def test_memory_of_a_machine_without_limits(tmp_path):
    assert machine(tmp_path, 8 * GIB, "0::/\n") == 8 * GIB
    assert 0 < available_memory() < 2**50


def test_memory_within_the_tightest_group_of_version_2(tmp_path):
    own = {
        "job/step/memory.max": "max\n",
        "job/step/memory.current": "1\n",
        "job/step/memory.stat": "",
        "job/memory.max": f"{6 * GIB}\n",
        "job/memory.current": f"{4 * GIB}\n",
        "job/memory.stat": f"anon {GIB}\nactive_file {GIB}\ninactive_file {2 * GIB}\n",
    }
    assert machine(tmp_path, 8 * GIB, "0::/job/step\n", **own) == 5 * GIB  # 3 of the 4 used are copies of files


def test_memory_within_a_group_of_version_1_seen_from_a_container(tmp_path):
    own = {
        "memory/memory.limit_in_bytes": f"{3 * GIB}\n",
        "memory/memory.usage_in_bytes": f"{2 * GIB}\n",
        "memory/memory.stat": f"active_file 7\ntotal_active_file {GIB}\ntotal_inactive_file 0\n",
    }
    groups = "9:cpu:/\n4:memory:/outside/of/the/container\n0::/\n"
    assert machine(tmp_path, 8 * GIB, groups, **own) == 2 * GIB


def test_memory_where_there_is_no_proc(tmp_path):
    assert available_memory(tmp_path) > GIB // 8
