from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorstore as ts
from invented_source import data_config, invented_source, times_every

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.records.manifest import SHARDS, SOURCES, entry_of, seal
from weatherfm.data_pipeline.store.records.source_files import record_of_sources
from weatherfm.data_pipeline.store.statistics import ChannelStatistics
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.verification import shard_notes
from weatherfm.data_pipeline.verification.report import VerifyReport
from weatherfm.data_pipeline.verify import verify
from weatherfm.data_pipeline.writing.journal import write_file
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError

TIMES = times_every(12, 400)
SHARD = "state/c/0/1/0/0"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "store.zarr"
    config = data_config(path, train="2000", test="2001-01-01/2001-01-31", climatology_window=61)
    prepare(config, invented_source(TIMES, regular_grid((2, 4))))
    return path


@pytest.fixture
def store(sound, tmp_path) -> Path:
    """A copy to harm."""
    return Path(shutil.copytree(sound, tmp_path / "store.zarr"))


def _errors(store: Path, **settings) -> str:
    return "\n".join(f"{p.check}: {p.message}" for p in verify(store, **settings).problems if p.severity == "error")


def _rewrite(store: Path, change) -> None:
    """Change the manifest and seal it again: only the comparison with the data can notice."""
    manifest = json.loads((store / "manifest.json").read_text())
    change(manifest)
    manifest = seal(manifest)
    (store / "manifest.json").write_text(json.dumps(manifest))
    (store / SOURCES).write_bytes(record_of_sources({}, manifest["checksum"]))


def _accept_files(store: Path) -> None:
    """Make all checksums those of the files as they are."""
    listed = json.loads((store / "files.json").read_text())
    (store / "files.json").write_text(json.dumps({key: entry_of((store / key).read_bytes()) for key in listed}))

    def change(manifest):
        for name in manifest["records"]:
            manifest["records"][name] = entry_of((store / name).read_bytes())
        for key in manifest["small"]:
            manifest["small"][key] = entry_of((store / key).read_bytes())

    _rewrite(store, change)


def _set(store: Path, array: str, index, value) -> None:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store / array)}}
    ts.open(spec, open=True).result()[index].write(value).result()
    _accept_files(store)


def test_sound_store(sound):
    report = verify(sound)
    assert report.ok
    assert report.problems == []
    assert "800 of 800 times read, 0 values not finite" in report.facts
    assert "0 errors, 0 warnings: sound" in report.to_text()
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert verify(sound, sample=10).ok


def test_flipped_byte(store):
    content = bytearray((store / SHARD).read_bytes())
    content[len(content) // 2] ^= 1
    (store / SHARD).write_bytes(content)
    assert _errors(store) == f"files: {SHARD} has a wrong checksum"
    assert "DAMAGED" in verify(store).to_text()


def test_truncated_shard(store):
    size = (store / SHARD).stat().st_size
    with (store / SHARD).open("r+b") as file:
        file.truncate(size - 1)
    assert _errors(store) == f"files: {SHARD} has {size - 1} bytes instead of {size}"


def test_missing_shard(store):
    (store / SHARD).unlink()
    assert _errors(store) == f"files: {SHARD} is missing"


def test_bad_files_are_those_that_a_repair_can_redo(store):
    assert verify(store).bad_files() == set()
    _set(store, "state", (3, 1, 0, 0), np.nan)
    report = verify(store)
    assert not report.ok
    assert report.bad_files() == set()  # the source would give the NaN again
    assert "-> the source itself holds these" in report.to_text()
    (store / SHARD).unlink()
    (store / "mean/c/0").write_bytes(b"")
    (store / "notes.txt").touch()
    report = verify(store)
    assert report.bad_files() == {SHARD, "mean/c/0"}
    text = report.to_text()
    assert "ERROR files (2)" in text
    assert f"-> `weatherfm verify {store} --repair` writes these files again" in text
    assert "WARNING values (1)" in text


def test_text_names_some_and_json_all(store):
    for file in (store / "climatology").rglob("c/*/*/*/*/*"):
        file.unlink()
    for name in ("mean", "std", "minimum", "maximum", "tendency_std", "time", "hour", "units"):
        (store / name / "c/0").unlink()
    report = verify(store)
    n_files = len(report.bad_files())
    assert n_files > 8
    assert f"  and {n_files - 8} more; --json lists all" in report.to_text()
    assert sum(p["kind"] == "missing" for p in report.to_dict()["problems"]) == n_files


@pytest.mark.parametrize("key", ["zarr.json", "state/zarr.json", "channel/c/0", "time/c/0", "mean/c/0"])
def test_damaged_small_files_are_named_and_do_not_stop_the_rest(store, key):
    (store / key).write_bytes((store / key).read_bytes()[:-3])
    errors = _errors(store)
    assert f"files: {key} has" in errors


def test_foreign_file_is_a_warning(store):
    (store / "state" / "notes.txt").write_text("hello")
    report = verify(store)
    assert report.ok
    assert [p.message for p in report.problems] == ["state/notes.txt does not belong to the store"]


def test_changed_manifest(store):
    text = (store / "manifest.json").read_text()
    (store / "manifest.json").write_text(text.replace('"code_version": "', '"code_version": "9'))
    assert _errors(store) == "files: manifest.json was changed since prepare wrote it"
    with pytest.raises(InputError, match="itself was changed since prepare wrote it"):
        open_store(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["channels"].reverse(), "metadata: channel holds"),
        (lambda m: m["grid"]["latitude"].__setitem__(0, 60.0), "metadata: latitude holds"),
        (lambda m: m["times"].__setitem__("count", 799), "state has shape (800, 3, 2, 4), the manifest says (799"),
        (lambda m: m["times"].__setitem__("end", "2001-02-04T00:00:00"), "times: 800 times"),
        (lambda m: m["times"]["missing"].append(["2000-01-02T00:00:00"] * 2), "times: the manifest lists 1 missing"),
        (lambda m: m["climatology"].__setitem__("period", m["periods"]["test"]), "splits: climatology"),
        (lambda m: m["periods"].__setitem__("test", {"start": "2000-12-01", "end": "2001-01-31"}), "splits: train"),
        (lambda m: m["periods"].__setitem__("test", {"start": "2009-12-01", "end": "2010-01-31"}), "holds no time"),
    ],
)  # fmt: skip
def test_manifest_that_contradicts_the_data(store, change, message):
    _rewrite(store, change)
    assert message in _errors(store)


def test_duplicate_and_missing_times(store):
    hours = (TIMES.astype("datetime64[h]")).astype(np.int64)
    hours[5] = hours[4]
    _set(store, "time", slice(None), hours)
    errors = _errors(store)
    assert "times: duplicate times 2000-01-03T00" in errors
    assert "times: the manifest lists 0 missing steps, the time axis lacks 1" in errors


def test_times_off_the_step(store):
    hours = (TIMES.astype("datetime64[h]")).astype(np.int64)
    hours[5] += 3
    _set(store, "time", slice(None), hours)
    errors = _errors(store)
    assert "times: 1 times are not on steps of 12h from 2000-01-01T00:00:00: 2000-01-03T15" in errors


def test_preliminary_times_are_a_warning_with_the_way_out(store):
    times = [[str(time) for time in TIMES[[-3, -1]].astype("datetime64[s]")]]
    _rewrite(store, lambda m: m["times"].__setitem__("preliminary", times))
    report = verify(store)
    (problem,) = report.problems
    assert (problem.severity, problem.kind, problem.value) == ("warning", "preliminary", 3)
    assert problem.message.startswith("3 times are preliminary (ERA5T): 2001-02-02T12 .. 2001-02-03T12 (3 steps)")
    assert "weatherfm append" in report.to_text()
    assert report.coverage["preliminary"][0]["count"] == 3


def test_records_of_shards_are_compared(store):
    file = store / SHARDS
    records = json.loads(file.read_text())
    payload = records["state-00000-001"]["payload"]
    noted = ChannelStatistics.from_dict(payload["state"])
    noted.mean[0] += 1e-3
    noted.count[0] += 1
    payload["state"] = noted.to_dict()
    file.write_text(json.dumps(records))
    _accept_files(store)
    expected = f"statistics: count, mean, std of t2m noted for shard 0 in {SHARDS} differ from what it holds"
    assert _errors(store) == expected


def test_times_out_of_order(store):
    hours = (TIMES.astype("datetime64[h]")).astype(np.int64)
    hours[[4, 5]] = hours[[5, 4]]
    _set(store, "time", slice(None), hours)
    assert "times: times out of order: 2000-01-03T00" in _errors(store)


def test_nan(store):
    _set(store, "state", (slice(3, 5), 1, 0, 0), np.nan)
    errors = _errors(store)
    expected = "t850 has 2 values that are not finite (0.03%), at 45 N, at 2000-01-02T12 .. 2000-01-03T00 (2 steps)"
    assert errors == f"values: {expected}"  # statistics of a channel with holes are not compared


def test_impossible_values_warn_on_another_planet_and_fail_on_earth(store):
    _set(store, "state", (790, 2, 0, 0), 9000.0)  # a test day: statistics do not change
    report = verify(store)
    assert report.ok
    assert "t2m reaches from" in report.problems[0].message
    _rewrite(store, lambda m: m["source"].__setitem__("simulated", False))
    assert "9000 K, possible on Earth is 170 to 350" in _errors(store)


@pytest.mark.parametrize("name", ["mean", "std", "minimum", "maximum", "tendency_std"])
def test_wrong_statistics(store, name):
    _set(store, name, 1, 281.25)
    assert f"statistics: {name} of t850 is 281.25, the data give" in _errors(store)


@pytest.mark.parametrize(
    ("array", "index", "told"),
    [("mean", 1, "mean of t850"), ("tendency_std_by_lead", (2, 0), "tendency_std over 24h of z500")],
)
def test_wrong_statistics_by_area_and_lead_time(tmp_path, array, index, told):
    store = tmp_path / "store.zarr"
    asked = {"area_weighted": True, "transforms": {"t850": {"log1p": 1.0}}, "tendency_leads": ["6h", "18h"]}
    prepare(data_config(store, **asked), invented_source(times_every(6, 20)))
    assert verify(store).problems == []
    held = open_store(store).mean if array == "mean" else np.stack([*open_store(store).tendency_std_by_lead.values()])
    _set(store, array, index, held[index] * (1 + 1e-6))
    assert f"statistics: {told} is" in _errors(store)


def test_sample_finds_values_beyond_the_extremes(store):
    _set(store, "maximum", 0, 10.0)
    assert "z500 has training values outside the stored minimum and maximum" in _errors(store, sample=20)


def test_wrong_climatology(store):
    _set(store, "climatology", (0, 1, 2, 1, 1), 300.0)
    assert "climatology: t2m, day 1, 12 UTC is off by" in _errors(store)


def test_no_store(tmp_path):
    with pytest.raises(InputError, match="no store at"):
        verify(tmp_path / "none.zarr")
    write_file(tmp_path, ".progress/request.json", b"{}")
    with pytest.raises(InputError, match="not finished"):
        verify(tmp_path)


@pytest.mark.parametrize(
    "state", [None, [1], {}, {"float64": "many"}, {"float64": "AAAA"}, {"mean": [1.0]}, 7], ids=str
)
def test_notes_of_shards_that_are_no_statistics(store, state):
    """An error with a name, whatever stands there; the other shards are compared all the same."""
    file = store / SHARDS
    records = json.loads(file.read_text())
    records["state-00000-000"]["payload"]["state"] = state
    other = records["state-00000-001"]["payload"]
    noted = ChannelStatistics.from_dict(other["state"])
    noted.mean[0] += 1e-3
    other["state"] = noted.to_dict()
    file.write_text(json.dumps(records))
    _accept_files(store)
    errors = _errors(store).splitlines()
    assert errors[0] == f"statistics: {SHARDS} notes no statistics for state-00000-000 (1 shards)"
    assert errors[1:] == [f"statistics: mean of t2m noted for shard 0 in {SHARDS} differ from what it holds"]


def test_notes_of_many_shards_are_read_once(monkeypatch):
    """They were read once a channel: a minute for 69 channels in 20,000 shards."""
    n_channels, n_rows, made = 69, 500, []
    noted = ChannelStatistics(*np.ones((5, n_channels)))
    records = {
        f"state-{row:05d}-000": {"payload": {"state": noted.to_dict(), "tendency": None}} for row in range(n_rows)
    }
    from_dict = ChannelStatistics.from_dict
    monkeypatch.setattr(shard_notes, "read_shards", lambda path, manifest: records)
    monkeypatch.setattr(ChannelStatistics, "from_dict", lambda data: made.append(1) or from_dict(data))
    held = SimpleNamespace(
        path=None,
        manifest=None,
        shard_shape=(3, n_channels),
        times=np.arange(3 * n_rows),
        channels=["t2m"] * n_channels,
    )
    report = VerifyReport("store")
    one = ChannelStatistics(*np.ones((5, 1)))
    trained = dict.fromkeys(range(n_rows), one) | {7: one + one}
    scan = SimpleNamespace(trained=trained, tendency=ChannelStatistics.empty(1))
    notes = shard_notes.ShardNotes(held, report)
    for channel in range(n_channels):
        notes.compare(report, channel, scan)
    assert len(made) == n_rows
    assert len(report.problems) == n_channels
    assert report.problems[0].message.startswith("count of t2m noted for shard 7 in")
