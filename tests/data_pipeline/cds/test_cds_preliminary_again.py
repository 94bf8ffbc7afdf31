"""ERA5T is asked again until it is final, its hours only, and whoever reads the old file goes on with it."""

from __future__ import annotations

import json
import os
import pickle
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cds_at_hand import a_day_later, answering
from era5_grib import answer, invented

from weatherfm.data_pipeline.cds import order as order_module
from weatherfm.data_pipeline.cds import queue
from weatherfm.data_pipeline.cds.held import is_final_by
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store.manifest import seal
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError, OutsideError


@pytest.fixture
def server(monkeypatch, tmp_path):
    with answering(monkeypatch, tmp_path, attempts=2) as one:
        yield one


def config(folder: Path, channels=("t2m", "u10"), **settings) -> DataConfig:
    source = {"kind": "cds", "cache": str(folder / "cache"), "grid": 30.0, "concurrent": 1}
    defaults = {"period": "2020-02-20/2020-03-05", "step": "12h", "climatology_window": None}
    told = {"store": str(folder / "store.zarr"), "source": source, "channels": list(channels), **defaults, **settings}
    return DataConfig.model_validate(told)


def on(patch: pytest.MonkeyPatch, day: str) -> None:
    """Let it be this day."""
    for module in (queue, order_module):
        patch.setattr(module, "today", lambda: date.fromisoformat(day))


def asked(server, since: int) -> list[tuple[str, str, str]]:
    """(month, first day, last day)."""
    return [(one["month"][0], one["day"][0], one["day"][-1]) for one in server.sent[since:]]


def fetch(data: DataConfig):
    open_source(data).fetch()
    return open_source(data)


def test_final_fields_are_due_two_whole_months_later():
    times = np.array(["2020-01-01T00", "2020-01-31T23", "2020-02-01T00"], "datetime64[s]")
    assert is_final_by(times, date(2020, 3, 31)).tolist() == [False, False, False]
    assert is_final_by(times, date(2020, 4, 1)).tolist() == [True, True, False]
    assert is_final_by(times, date(2020, 5, 1)).all()


def test_months_are_asked_again_when_due_until_they_are_final(tmp_path, server, monkeypatch):
    data = config(tmp_path)
    server.answer = partial(answer, first_era5t="2020-02-25")
    on(monkeypatch, "2020-03-10")
    assert fetch(data).preliminary.sum() == 2 * (5 + 5)
    note_day(tmp_path / "cache", "2020-03-10")
    assert len(server.sent) == 2
    for day, again in (
        ("2020-04-30", []),  # February is due in May
        ("2020-05-01", [("02", "25", "29")]),  # what is final already is not asked again
        ("2020-06-10", [("02", "25", "29"), ("03", "01", "05")]),  # both were still ERA5T
    ):
        on(monkeypatch, day)
        sent = len(server.sent)
        assert fetch(data).preliminary.sum() == 20
        assert asked(server, sent) == again, day
        note_day(tmp_path / "cache", day)
        fetch(data)
        assert len(server.sent) == sent + len(again), "not twice on one day"
    server.answer = partial(answer, first_era5t="2020-03-01")
    on(monkeypatch, "2020-06-20")
    assert fetch(data).preliminary.sum() == 10
    note_day(tmp_path / "cache", "2020-06-20")
    server.answer, sent = answer, len(server.sent)
    on(monkeypatch, "2020-06-25")
    assert fetch(data).preliminary is None
    assert asked(server, sent) == [("03", "01", "05")]
    on(monkeypatch, "2021-01-01")
    fetch(data)
    assert len(server.sent) == sent + 1, "final fields never again"


def note_day(cache: Path, day: str) -> None:
    """As if what came today by the clock had come on `day`."""
    today = str(queue.datetime.now(queue.UTC).date())
    for note in cache.glob("*.json"):
        note.write_text(json.dumps(seal(json.loads(note.read_text().replace(today, day)))))


def test_an_append_of_the_same_period_takes_them(tmp_path, server):
    server.answer = partial(answer, first_era5t="2020-03-01")
    data = config(tmp_path)
    prepare(data)
    assert open_store(data.store).manifest["times"]["preliminary"] == [["2020-03-01T00:00:00", "2020-03-05T12:00:00"]]
    server.answer = partial(warmer, first_era5t="2100-01-01")
    a_day_later(tmp_path / "cache")
    append(data)
    store = open_store(data.store)
    assert store.manifest["times"]["preliminary"] == []
    assert fetch(data).download_bytes == 0


def warmer(inputs: dict, **changes) -> bytes:
    return answer(inputs, **changes)


def test_a_run_that_began_before_reads_what_it_began_with(tmp_path, server, monkeypatch):
    """The old file stays, and a worker that starts later looks at the same files."""
    data = config(tmp_path, ["t2m"], period="2020-03-01/2020-03-05")
    server.answer = partial(answer, first_era5t="2020-03-01")
    before = fetch(data)
    again, fields = pickle.dumps(before.state), before.state[:4].values
    (old,) = (tmp_path / "cache").glob("*.grib")
    stamp = os.stat(old)
    a_day_later(tmp_path / "cache")
    server.answer = lambda inputs: answer({**inputs, "variable": ["2m_temperature"]}, first_era5t="2100-01-01")
    after = fetch(data)
    assert after.preliminary is None
    assert len(list((tmp_path / "cache").glob("*.grib"))) == 2
    assert (os.stat(old).st_ino, os.stat(old).st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
    opened = []
    monkeypatch.setattr("weatherfm.data_pipeline.cds.fields.index_download", remembering(opened))
    np.testing.assert_array_equal(pickle.loads(again)[:4].values, fields)
    assert set(opened) <= {str(old)}
    np.testing.assert_array_equal(before.state[4:].shape, after.state[4:].shape)
    opened.clear()
    after.state[:1].compute()
    assert opened
    assert str(old) not in opened


def remembering(opened: list[str]):
    from weatherfm.data_pipeline.cds.downloads import index_download

    def index(path, channels):
        opened.append(path)
        return index_download(path, channels)

    return index


def test_a_replaced_file_goes_after_a_week(tmp_path, server):
    data = config(tmp_path, ["t2m"], period="2020-03-01/2020-03-05")
    server.answer = partial(answer, first_era5t="2020-03-01")
    fetch(data)
    (old,) = (tmp_path / "cache").glob("*.grib")
    a_day_later(tmp_path / "cache")
    server.answer = answer
    fetch(data)
    fetch(config(tmp_path, ["t2m"], period="2020-03-06/2020-03-06"))
    assert old.exists(), "a run may still read it"
    for note in (tmp_path / "cache").glob("*.json"):
        told = json.loads(note.read_text())
        note.write_text(json.dumps(seal({**told, "arrived": told["arrived"] - 8 * 86400 * 10**9})))
    fetch(config(tmp_path, ["t2m"], period="2020-03-07/2020-03-07"))
    assert not old.exists()
    assert not Path(f"{old}.json").exists()
    source = fetch(data)
    place = source.state["latitude"].values, source.state["longitude"].values
    expected = np.stack([invented("t2m", 0, time, *place) for time in source.state["time"].values])
    np.testing.assert_allclose(source.state[:, 0], expected, rtol=0, atol=4e-5 * np.ptp(expected))


def test_a_sum_is_preliminary_while_one_of_its_hours_is(tmp_path, server):
    server.answer = partial(answer, first_era5t="2020-03-02")
    source = fetch(config(tmp_path, ["tp"], period="2020-03-01/2020-03-03", step="6h"))
    expected = source.state["time"].values >= np.datetime64("2020-03-02")
    np.testing.assert_array_equal(source.preliminary, expected)


def test_cost_limits_a_lost_key_and_an_interruption_among_preliminary_hours(tmp_path, server, monkeypatch):
    """All at once: what has come is not asked again, and nothing of ERA5T is left once all is final."""
    data = config(tmp_path)
    server.answer, server.most_cost = partial(answer, first_era5t="2020-02-25"), 9
    on(monkeypatch, "2020-03-10")
    served = []

    def until(inputs: dict) -> bytes:
        if len(served) == 2:
            raise KeyError("the queue was given up")
        served.append(inputs)
        return answer(inputs, first_era5t="2020-02-25")

    server.answer = until
    with pytest.raises((InputError, OutsideError)):
        fetch(data)
    server.answer = partial(answer, first_era5t="2020-02-25")
    here, sent = set((tmp_path / "cache").glob("*.grib")), len(server.sent)
    assert here
    key = os.environ["CDSAPI_KEY"]
    monkeypatch.delenv("CDSAPI_KEY")
    with pytest.raises(InputError, match="no key"):
        fetch(data)
    assert len(server.sent) == sent
    monkeypatch.setenv("CDSAPI_KEY", key)
    found = fetch(data)
    assert found.preliminary.sum() == 2 * (5 + 5)
    assert set((tmp_path / "cache").glob("*.grib")) >= here
    note_day(tmp_path / "cache", "2020-03-10")
    server.answer, sent = answer, len(server.sent)
    on(monkeypatch, "2020-06-10")
    final = fetch(data)
    assert final.preliminary is None
    again = asked(server, sent)
    assert min(first for month, first, _ in again if month == "02") == "25"
    times, place = final.state["time"].values, (final.state["latitude"].values, final.state["longitude"].values)
    expected = np.stack([invented("t2m", 0, time, *place) for time in times])
    np.testing.assert_allclose(final.state[:, 0], expected, rtol=0, atol=4e-5 * np.ptp(expected))
