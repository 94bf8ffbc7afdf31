"""Threads decode GRIB side by side and give what one alone gives; headers are read once and kept."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import eccodes
import numpy as np
import pytest
from synthetic_files import TIMES, grib_message, open_files, wave

from weatherfm.data_pipeline.formats import file_index
from weatherfm.data_pipeline.formats.grib import codes, kept_index
from weatherfm.data_pipeline.formats.grib.headers import header_of
from weatherfm.data_pipeline.formats.grib.index import read_grib_index
from weatherfm.data_pipeline.formats.grib.kept_index import file_beside
from weatherfm.data_pipeline.formats.grib.messages import fields_of
from weatherfm.data_pipeline.formats.grib.reader import GribReader
from weatherfm.data_pipeline.formats.meaning.names import NameRules
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.errors import InputError

_KEYS = [
    "shortName", "cfVarName", "paramId", "typeOfLevel", "level", "units", "centre", "dataType", "stream", "stepType",
    "experimentVersionNumber",
]  # fmt: skip
_PACKINGS = [
    (1, "grid_simple"), (2, "grid_simple"), (2, "grid_complex"), (2, "grid_complex_spatial_differencing"),
    (2, "grid_ccsds"), (2, "grid_ieee"), (1, "grid_second_order"), (2, "grid_jpeg"),
]  # fmt: skip


def rules() -> NameRules:
    return NameRules(FilesSource(kind="files", paths=["x"]))


def write(path: Path, *messages: bytes) -> Path:
    path.write_bytes(b"".join(messages))
    return path


def repacked(message: bytes, packing: str) -> bytes:
    handle = eccodes.codes_new_from_message(message)
    values = eccodes.codes_get_values(handle)
    eccodes.codes_set(handle, "packingType", packing)
    eccodes.codes_set_values(handle, values)
    content = bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    return content


def noisy(seed: int) -> np.ndarray:
    return wave(TIMES[:1])[0] + np.random.default_rng(seed).normal(size=(4, 8))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """(a file of all packings and editions, its values as one thread reads them with ecCodes alone)."""
    messages = []
    for day in range(20):
        for edition, packing in _PACKINGS:
            message = grib_message("t", 500, edition=edition, date=20200101 + day, values=noisy(day), bitsPerValue=16)
            messages.append(repacked(message, packing) if packing != "grid_simple" else message)
    values = []
    for message in messages:
        handle = eccodes.codes_new_from_message(message)
        values.append(eccodes.codes_get_values(handle).reshape(4, 8))
        eccodes.codes_release(handle)
    return write(tmp_path_factory.mktemp("mixed") / "x.grib", *messages), np.stack(values)


def reader_of(path: Path) -> GribReader:
    index = read_grib_index(str(path))
    return GribReader(str(path), index.offsets, index.lengths, index.numbers)


def test_sixteen_threads_read_what_one_reads(mixed):
    path, expected = mixed
    reader = reader_of(path)
    slots = np.random.default_rng(1).permutation(np.tile(np.arange(len(expected)), 8))  # 1,280 fields
    with ThreadPoolExecutor(16) as threads:
        read = list(threads.map(lambda part: reader.read(part, [0])[:, 0], np.array_split(slots, 100)))
    np.testing.assert_array_equal(np.concatenate(read), expected[slots])


def test_threads_that_are_the_first_to_use_the_library(mixed):
    """What ecCodes sets up on its first use, 16 threads ask for at once."""
    path, expected = mixed
    code = f"""
import threading
import numpy as np
from weatherfm.data_pipeline.formats.grib.reader import GribReader
from weatherfm.data_pipeline.formats.grib.index import read_grib_index
start, sums = threading.Barrier(16), []
def work():
    start.wait()
    index = read_grib_index({str(path)!r})
    reader = GribReader({str(path)!r}, index.offsets, index.lengths, index.numbers)
    sums.append(float(reader.read(np.arange(48), [0]).sum()))
threads = [threading.Thread(target=work) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(sums), max(sums) - min(sums), sums[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, spread, total = map(float, done.stdout.split())
    assert (count, spread) == (16, 0)
    assert total == pytest.approx(expected[:48].sum())


def test_one_after_the_other_where_eccodes_was_built_without_threads(monkeypatch):
    monkeypatch.setattr(codes.eccodes, "codes_get_features", lambda: "AEC MEMFS")
    assert isinstance(codes._guard(), type(threading.Lock()))
    monkeypatch.setattr(codes.eccodes, "codes_get_features", lambda: "AEC ECCODES_THREADS")
    assert isinstance(codes._guard(), nullcontext)


def headers_by_hand(path: Path) -> list[tuple]:
    """With ecCodes alone, every message as a whole."""
    found = []
    with open(path, "rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            told = [eccodes.codes_get_string(message, k) if eccodes.codes_is_defined(message, k) else "" for k in _KEYS]
            date, clock = (eccodes.codes_get_long(message, key) for key in ("dataDate", "dataTime"))
            found.append((*told, eccodes.codes_get_long(message, "endStep"), f"{date}{clock:04d}"))
            eccodes.codes_release(message)
    return found


def headers_read(path: Path) -> list[tuple]:
    found = []
    for header, date in map(header_of, fields_of(str(path))):
        told = [
            header.name, header.cf_name, header.parameter, header.layer, header.level, header.units, header.centre,
            header.data_type, header.stream, header.step_type, header.experiment,
        ]  # fmt: skip
        found.append((*told, header.lead, "".join(c for c in str(date)[:16] if c.isdigit())))
    return found


def test_headers_are_those_of_whole_messages(tmp_path, mixed):
    """Most are not asked of ecCodes at all: headers that differ in their date alone are asked once."""
    dates = [(20200101, 0), (20200229, 600), (19591231, 1800), (21000301, 0)]
    sums = [("tp", {"kind": "surface", "stepType": "accum", "stepRange": f"{i}-{i + 6}"}) for i in (0, 6)]
    fields = [("t", {}), ("2t", {"kind": "surface", "step": 12}), *sums]
    messages = [
        grib_message(name, edition=edition, date=date, time=clock, **keys)
        for edition in (1, 2)
        for date, clock in dates
        for name, keys in fields
    ]
    path = write(tmp_path / "x.grib", *messages)
    assert headers_read(path) == headers_by_hand(path)
    assert headers_read(mixed[0]) == headers_by_hand(mixed[0])


@pytest.mark.parametrize("name", ["pairs/pl_regular_ll.grib", "cases/gfs-flux-r1/flxf2006040100.grb"])
def test_headers_of_real_files(real_data, name):
    assert headers_read(real_data / name) == headers_by_hand(real_data / name)


# --- kept beside the store


@pytest.fixture
def kept_at_once(monkeypatch):
    monkeypatch.setattr(kept_index, "_WORTH", 1)


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Files whose headers are read, as it happens."""
    names: list[str] = []
    read = kept_index.read_grib_index
    monkeypatch.setattr(kept_index, "read_grib_index", lambda path: names.append(Path(path).name) or read(path))
    return names


def day_file(tmp_path, day: int, **keys) -> Path:
    return write(tmp_path / f"{day}.grib", grib_message("t", 500, date=20200101 + day, values=noisy(day), **keys))


def days(tmp_path, count=4, **keys) -> list[Path]:
    return [day_file(tmp_path, day, **keys) for day in range(count)]


def contents(paths, store):
    found = file_index.index_files([str(p) for p in paths], rules(), {"t500"}, file_index.Span(), store)
    return [(one.pieces[0].slots.times.tolist(), one.pieces[0].reader.read(np.array([0]), [0]).sum()) for one in found]


def test_a_second_run_reads_no_header(tmp_path, kept_at_once, reads):
    paths, store = days(tmp_path), tmp_path / "store"
    first = contents(paths, store)
    assert sorted(reads) == sorted(p.name for p in paths)
    reads.clear()
    assert contents(paths, store) == first
    assert reads == []
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith(".grib")) == [".store.headers"]


def test_only_new_and_changed_files_are_read(tmp_path, kept_at_once, reads):
    paths, store = days(tmp_path), tmp_path / "store"
    before = contents(paths, store)
    size = paths[2].stat().st_size
    write(paths[2], grib_message("t", 500, date=20210101, values=noisy(9)))
    assert paths[2].stat().st_size == size  # only the time of change tells
    reads.clear()
    after = contents([*paths, day_file(tmp_path, 4)], store)
    assert sorted(reads) == ["2.grib", "4.grib"]
    assert [after[i] == before[i] for i in range(4)] == [True, True, False, True]
    assert after[2][1] == pytest.approx(noisy(9).sum(), rel=1e-4)


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign", "not json"])
def test_damaged_lines_are_read_again(tmp_path, kept_at_once, reads, damage):
    paths, store = days(tmp_path), tmp_path / "store"
    first = contents(paths, store)
    file = file_beside(store)
    content = file.read_bytes()
    damaged = {
        "cut": content[:-40],
        "flip": content.replace(b'"stamp":[', b'"stamp":[1', 1),
        "foreign": b"\x00\xff garbage\n" + content,
        "not json": content.replace(b"{", b"[", 3),
    }[damage]
    file.write_bytes(damaged)
    reads.clear()
    assert contents(paths, store) == first
    assert (reads == []) == (damage == "foreign")
    reads.clear()
    assert contents(paths, store) == first
    assert reads == []


def test_the_rules_of_a_config_apply_to_kept_headers(tmp_path, kept_at_once, reads):
    """What is kept is what files say, not what was made of it."""
    paths = days(tmp_path, 2, type="es")
    store, span = tmp_path / "store", file_index.Span()
    for kinds, expected in ((["spread"], 1), ([], 0)):
        source = FilesSource(kind="files", paths=["x"], kinds=kinds)
        found = file_index.index_files([str(p) for p in paths], NameRules(source), {"t500"}, span, store)
        assert [len(one.pieces) for one in found] == [expected] * 2
    assert len(reads) == 2


def test_few_headers_are_not_kept(tmp_path):
    contents(days(tmp_path), tmp_path / "store")
    assert not file_beside(tmp_path / "store").parent.exists()


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path, kept_at_once, caplog):
    paths = days(tmp_path)
    (tmp_path / ".store.headers").write_text("a file")
    contents(paths, tmp_path / "store")
    assert "is not kept" in caplog.text


def test_every_bad_file_is_named(tmp_path):
    good, cut = days(tmp_path, 2)
    cut.write_bytes(cut.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"1 of 2 files cannot be used:\s+.*1\.grib: it is truncated"):
        contents([good, cut], None)


def test_state_is_the_same_from_threads(tmp_path):
    paths = days(tmp_path, 8)
    state = open_files(paths, ["t500"]).state.chunk(time=1)
    expected = np.stack([noisy(day) for day in range(8)])
    np.testing.assert_allclose(state.compute(scheduler="threads", num_workers=8)[:, 0], expected, rtol=1e-5)
