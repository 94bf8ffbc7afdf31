"""Fields kept once a machine: what ranks read is the same bit for bit, and nothing is left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import toy_run
import yaml
from jobs import alive, children, start
from safetensors.torch import load_file
from spawn_ranks import spawn
from test_train_command import COMMAND, under_way

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.errors import InputError
from weatherfm.training.feeding import field_cache
from weatherfm.training.feeding.field_cache import choose_cache, keep_fields
from weatherfm.training.ranks import shared_memory
from weatherfm.training.run_config import RunConfig
from weatherfm.training.trainer import train

SHORT = {"steps": 10, "validate_every": 5, "wandb": {"mode": "disabled"}}
TIMES = 100  # of training and validation of the toy run
SIZE = 4 * TIMES * 3 * 4 * 8  # bytes of their fields
GIB = 2**30


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    toy_run.make_store(folder)
    return folder


def large_in_memory() -> set[str]:
    """Names of shared memory that could hold the fields; other tests beside this one have theirs, all small."""
    return {file.name for file in os.scandir("/dev/shm") if file.stat().st_size >= SIZE}


def blocks(pid: int | str = "self") -> set[int]:
    """Inodes of the shared fields that a process has mapped."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return set()
    return {int(line.split()[4]) for line in maps.splitlines() if "weatherfm-fields" in line}


def open_files() -> list[str]:
    found = []
    for file in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(file))
        except FileNotFoundError:  # that of the listing itself
            continue
    return [name for name in found if "weatherfm-fields" in name]


# --- on each rank


def keep_here(rank: int, folder: Path, shares: list[list[str]], memory: int = GIB, mode: str = "on") -> dict:
    """Choose and keep, as the trainer does; what this rank has then."""
    channels = shares[rank % len(shares)]
    store, plain = open_store(folder / "store.zarr"), open_store(folder / "store.zarr")
    config, read, real = toy_run.make_run(folder, cache=mode), [], Store._read_into

    def read_late(*arguments):
        """The later the higher the rank: the others must wait for it."""
        time.sleep(0.2 * rank)
        read.extend(arguments[2])
        real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LOCAL_WORLD_SIZE", raising=False)
        patch.setattr(field_cache, "available_memory", lambda: memory)
        patch.setattr(Store, "_read_into", read_late)
        cache = choose_cache(config, store, channels)
        keep_fields(cache, store, channels, quiet=True)
        rows = list(read)
        kept = store.read(cache.indices, channels)
        from_memory = len(read) == len(rows)
    return {
        "keep": cache.keep,
        "text": cache.text,
        "blocks": blocks(),
        "rows": rows,
        "from memory": from_memory,
        "same": kept.tobytes() == plain.read(cache.indices, channels).tobytes(),
        "fields": cache.fields,
    }


def report(rank: int, *arguments) -> dict:
    """And what one rank writes into its copy all see that share it."""
    found = keep_here(rank, *arguments)
    memory = found.pop("fields")
    dist.barrier()
    if memory is not None:
        memory[rank, 0, 0, 0] = 1000 + rank
        dist.barrier()
        found["seen"] = memory[: dist.get_world_size(), 0, 0, 0].tolist()
    return found | {"open files": open_files()}


@pytest.mark.parametrize("ranks", [2, 4])
def test_data_parallel_ranks_hold_one_copy_and_read_a_part_each(folder, ranks):
    found = spawn(ranks, report, folder, [toy_run.CHANNELS])
    assert len(found[0]["blocks"]) == 1
    for one in found:
        assert one["keep"], one["text"]
        assert one["same"]
        assert one["from memory"]
        assert one["blocks"] == found[0]["blocks"]
        assert one["seen"] == [1000 + rank for rank in range(ranks)]
        assert len(one["rows"]) == TIMES // ranks
        assert f"0.0366 MiB (100 times, 3 channels), one copy for {ranks} processes" in one["text"]
        assert len(one["open files"]) == 1  # that of the mapping
    assert sorted(row for one in found for row in one["rows"]) == list(range(TIMES))


def test_ranks_with_other_channels_hold_another_copy(folder):
    """dp_shard 2 x tp 2: two copies, of two ranks each."""
    found = spawn(4, report, folder, [["z500", "t850"], ["u10"]])
    assert all(one["same"] and one["from memory"] for one in found)
    assert found[0]["blocks"] == found[2]["blocks"] != found[1]["blocks"] == found[3]["blocks"]
    assert all(len(one["blocks"]) == 1 for one in found)
    assert found[0]["seen"][::2] == [1000, 1002]
    assert found[1]["seen"][1::2] == [1001, 1003]


# --- does it fit?


def decide_here(rank: int, folder: Path, shares: list[list[str]], memories: list[int], mode: str) -> str:
    try:
        found = keep_here(rank, folder, shares, memories[rank], mode)
    except InputError as error:
        return f"InputError: {error}"
    assert found["same"]
    assert found["from memory"] == found["keep"]
    return found["text"]


def decide(folder, shares, memories, mode="auto") -> list[str]:
    return spawn(len(memories), decide_here, folder, shares, memories, mode)


def test_without_a_launchers_word_the_ranks_of_a_machine_are_counted(folder):
    """Two copies need the memory of two; and of one copy there is one, whatever the number of ranks."""
    apart, together = [["z500"], ["t850"]], [toy_run.CHANNELS]
    third = SIZE // 3
    assert all("kept in memory" in text for text in decide(folder, apart, [8 * third] * 2))
    assert all("a quarter of" in text for text in decide(folder, apart, [8 * third - 2] * 2))
    assert all("kept in memory" in text for text in decide(folder, together, [4 * SIZE] * 2))
    refused = decide(folder, apart, [2 * third - 2] * 2, "on")
    assert all("InputError" in text and "available to each of 2 copies" in text for text in refused)


def test_ranks_that_find_different_memory_decide_alike(folder):
    for memories in ([GIB, SIZE], [SIZE, GIB]):
        assert all("read from disk" in text for text in decide(folder, [toy_run.CHANNELS], memories))


def test_one_copy_pays_sooner(folder):
    """What two ranks read together counts, where it is read from one copy."""
    found = spawn(2, short_run, folder)
    assert all("one copy for 2 processes" in text for text in found)


def short_run(rank: int, folder: Path) -> str:
    config = toy_run.make_run(folder, steps=13, batch_size=4)  # 104 fields for 100, half of them on each rank
    return choose_cache(config, open_store(folder / "store.zarr"), toy_run.CHANNELS, 2).text


# --- memory that cannot be shared


def no_space(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def elsewhere(block, address):
    """As in another container: the path names another file."""
    with open("/proc/self/exe", "rb") as other:
        real_open(block, shared_memory.Address(f"/proc/self/fd/{other.fileno()}", address.token))


def wrong_word(block, address):
    real_open(block, shared_memory.Address(address.path, b"x" * len(address.token)))


real_open = shared_memory._Block._open
FAULTS = {
    "the first rank cannot make it": (0, os, "memfd_create", no_space, "No space left on device"),
    "there are not enough pages": (1, os, "posix_fallocate", no_space, "No space left on device"),
    "another cannot open it": (1, shared_memory._Block, "_open", no_space, "No space left on device"),
    "another file is there": (1, shared_memory._Block, "_open", elsewhere, "is another file here|busy|denied"),
    "one with another word": (1, shared_memory._Block, "_open", wrong_word, "is another file here"),
}


def fail_here(rank: int, folder: Path, memory: int, mode: str) -> list[str]:
    texts = []
    for at, place, name, fault, _ in FAULTS.values():
        with pytest.MonkeyPatch.context() as patch:
            if rank == at:
                patch.setattr(place, name, fault)
            texts.append(decide_here(rank, folder, [toy_run.CHANNELS], [memory] * 2, mode))
        assert open_files() == []
    return texts


@pytest.mark.parametrize(
    ("copies", "mode", "outcome"),
    [
        (2, "on", "fields are kept in memory: .*, a copy in each process, as memory cannot be shared"),
        (8, "auto", "fields are kept in memory: .*, a copy in each process, as memory cannot be shared"),
        (7, "auto", "fields are read from disk: .* each of 2 copies on this machine, as memory cannot be shared"),
        (
            1,
            "on",
            "InputError: training.cache=on needs .* each of 2 copies on this machine, as memory cannot be shared",
        ),
    ],
)
def test_where_memory_cannot_be_shared_each_has_its_own_or_reads_from_disk(folder, copies, mode, outcome):
    for found in spawn(2, fail_here, folder, copies * SIZE, mode):
        for text, (*_, reason) in zip(found, FAULTS.values(), strict=True):
            assert re.match(outcome, text), text
            assert re.search(reason, text), text


# --- a shard that is damaged


def damaged_here(rank: int, folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        real = Store._read_into

        def read(store, out, indices, channels):
            if max(indices) >= TIMES - 1:  # in the part of the last rank
                raise InputError("a file of the store is missing or damaged")
            real(store, out, indices, channels)

        patch.setattr(Store, "_read_into", read)
        store = open_store(folder / "store.zarr")
        cache = choose_cache(toy_run.make_run(folder, cache="on"), store, toy_run.CHANNELS)
        with pytest.raises(InputError) as caught:
            keep_fields(cache, store, toy_run.CHANNELS, quiet=True)
    return str(caught.value)


def test_what_is_damaged_in_the_part_of_one_rank_is_an_error_on_all(folder):
    assert spawn(2, damaged_here, folder) == ["a file of the store is missing or damaged"] * 2


def write_config(folder: Path, run: str, **training) -> str:
    path = folder / f"{run}.yaml"
    settings = toy_run.run_settings(folder, run, cache="on", **training)
    path.write_text(yaml.safe_dump(settings | {"parallel": {"dp_shard": 2}}))
    return str(path)


def test_a_damaged_shard_is_told_once(tmp_path):
    toy_run.make_store(tmp_path)
    shard = next(path for path in (tmp_path / "store.zarr/state/c").rglob("*") if path.is_file())
    data = bytearray(shard.read_bytes())
    entries = np.frombuffer(data[-4 - 16 * 4096 : -4], "<u8").reshape(-1, 2)  # offset and size of each time's fields
    data[int(entries[TIMES - 1, 0]) + 5] ^= 255
    shard.write_bytes(data)
    store = open_store(tmp_path / "store.zarr")
    store.read(range(TIMES // 2))  # the part of rank 0
    with pytest.raises(InputError, match="damaged"):
        store.read(range(TIMES // 2, TIMES))
    status, lines = start([*COMMAND, write_config(tmp_path, "damaged"), "--devices", "2"], ranks=2).end()
    assert status == 2
    assert sum("is damaged" in line for line in lines) == 1, lines


# --- whole runs


def train_here(rank: int, folder: Path, layout: dict) -> None:
    for mode in ("on", "off"):
        settings = toy_run.run_settings(folder, f"{mode}-{len(layout)}", cache=mode, **SHORT)
        train(parse_settings(RunConfig, settings | {"parallel": layout}, "test"))


@pytest.mark.parametrize("layout", [{"dp_shard": 2}, pytest.param({"dp_shard": 2, "tp": 2}, marks=pytest.mark.slow)])
def test_training_is_the_same_bit_for_bit_with_and_without(folder, layout):
    spawn(2 * len(layout), train_here, folder, layout)
    on, off = (folder / f"{mode}-{len(layout)}" for mode in ("on", "off"))
    weights, expected = (load_file(run / "weights.safetensors") for run in (on, off))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (on, off)]
    for name in ("loss", "gradient_norm", "validation"):
        assert [line.get(name) for line in lines[0]] == [line.get(name) for line in lines[1]]


@pytest.mark.parametrize("killed", ["one rank", "all"])
def test_nothing_is_left_of_a_job_that_is_killed(folder, killed):
    before, run = large_in_memory(), f"killed-{killed.split()[0]}"
    job = start([*COMMAND, write_config(folder, run, steps=100_000), "--devices", "2"], ranks=2)
    job.wait_until(lambda: under_way(folder / run))
    ranks = children(job.process.pid)
    assert len(ranks) == 2
    assert blocks(ranks[0]) == blocks(ranks[1]) != set()
    (block,) = blocks(ranks[0])
    assert "one copy for 2 processes" in job.said()
    for pid in [*([job.process.pid] if killed == "all" else []), *(ranks if killed == "all" else ranks[1:])]:
        os.kill(pid, signal.SIGKILL)
    job.process.wait(240)
    while any(alive(pid) for pid in ranks):
        time.sleep(0.05)
    assert not any(block in blocks(process.name) for process in Path("/proc").glob("[0-9]*"))
    assert large_in_memory() <= before


def test_a_job_that_ends_leaves_nothing(folder):
    before = large_in_memory()
    spawn(2, report, folder, [toy_run.CHANNELS])
    assert large_in_memory() <= before
    assert blocks() == set()
