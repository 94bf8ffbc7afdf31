"""Notes beside downloads are believed only as they were written; what stands there otherwise costs a request."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cds_at_hand import answering
from era5_grib import answer, invented

from weatherfm.data_pipeline.cds.held import read_note
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig


@pytest.fixture
def server(monkeypatch, tmp_path):
    with answering(monkeypatch, tmp_path, attempts=2) as one:
        yield one


def fetched(folder: Path):
    source = {"kind": "cds", "cache": str(folder / "cache"), "grid": 30.0, "concurrent": 1}
    told = {
        "store": str(folder / "store.zarr"),
        "source": source,
        "channels": ["t2m"],
        "period": "2020-03-01/2020-03-02",
    }
    data = DataConfig.model_validate({**told, "step": "12h", "climatology_window": None})
    open_source(data).fetch()
    return open_source(data)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"2020-03-02T00:00:00"', '"2020-03-01T00:00:00"'),  # one less is preliminary
        ('"preliminary": [', '"preliminary": [], "was": ['),
        ('"2020"', '"2021"'),
        ('"downloaded": "2', '"downloaded": "9'),
        ("2m_temperature", "2m_temperaturf"),
    ],
)
def test_a_changed_note_is_not_believed(tmp_path, server, caplog, before, after):
    """Fields of ERA5T counted as final, or a file stood for another year, by one changed digit."""
    server.answer = partial(answer, first_era5t="2020-03-01")
    assert fetched(tmp_path).preliminary.all()
    (note,) = (tmp_path / "cache").glob("*.json")
    text = note.read_text()
    assert before in text
    note.write_text(text.replace(before, after, 1))
    assert read_note(note.with_suffix("")) is None
    sent = len(server.sent)
    again = fetched(tmp_path)
    assert "was changed since it was written" in caplog.text
    assert len(server.sent) == sent + 1
    assert again.preliminary.all()
    place = again.state["latitude"].values, again.state["longitude"].values
    expected = np.stack([invented("t2m", 0, time, *place) for time in again.state["time"].values])
    np.testing.assert_allclose(again.state[:, 0], expected, rtol=0, atol=4e-5 * np.ptp(expected))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("arrived", "late"), ("arrived", [1]), ("arrived", float("inf")), ("bytes", "many"), ("preliminary", 7),
        ("preliminary", ["soon"]), ("request", []), ("downloaded", {}),
    ],
)  # fmt: skip
def test_notes_without_checksum_that_say_what_none_can(tmp_path, server, key, value):
    """As another version could have left them: no traceback."""
    fetched(tmp_path)
    (note,) = (tmp_path / "cache").glob("*.json")
    told = json.loads(note.read_text())
    told.pop("checksum")
    note.write_text(json.dumps(told))
    assert read_note(note.with_suffix("")) is not None, "notes of former versions count"
    note.write_text(json.dumps(told | {key: value}))
    assert read_note(note.with_suffix("")) is None
    fetched(tmp_path)


@pytest.mark.parametrize("change", [{"grid": []}, {"grid": [{}]}, {"area": 3}, {"time": 5}, {"year": ["x"]}])
def test_requests_in_notes_that_are_none(tmp_path, server, change, caplog):
    fetched(tmp_path)
    (note,) = (tmp_path / "cache").glob("*.json")
    told = json.loads(note.read_text())
    told.pop("checksum")
    note.write_text(json.dumps(told | {"request": told["request"] | change}))
    assert read_note(note.with_suffix("")) is None
    assert f"{note} is no note of a download" in caplog.text
    fetched(tmp_path)
