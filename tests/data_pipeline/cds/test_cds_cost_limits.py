"""What the Climate Data Store says when a request is too large, too early or not allowed, and what is done about it."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from cds_at_hand import answering
from cds_server import KEY, cost_of
from era5_grib import invented

from weatherfm.data_pipeline.cds import queue
from weatherfm.data_pipeline.cds.box import Box
from weatherfm.data_pipeline.cds.downloads import Downloads
from weatherfm.data_pipeline.cds.engines import Patience
from weatherfm.data_pipeline.cds.failures import explain, refusal
from weatherfm.data_pipeline.cds.key import Key
from weatherfm.data_pipeline.cds.request_threads import RequestThreads
from weatherfm.data_pipeline.cds.requests import SINGLE_LEVELS, Request
from weatherfm.data_pipeline.machine import cache_folder
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError, OutsideError

CHANNELS = ["z500", "z850", "t500", "t850", "t2m"]
ONE_DAY = Request(SINGLE_LEVELS, ("t2m", "u10", "v10"), (), "2020-02", (3,), (0, 12), Box.globe(30.0))


@pytest.fixture
def server(monkeypatch, tmp_path):
    with answering(monkeypatch, tmp_path, attempts=2) as one:
        yield one


def config(folder: Path, channels=CHANNELS, period="2020-02-01/2020-03-31", **source) -> DataConfig:
    settings = {"kind": "cds", "cache": str(folder / "cache"), "grid": 30.0, "concurrent": 1, **source}
    return DataConfig.model_validate(
        {"store": "unused", "source": settings, "channels": list(channels), "period": period, "step": "12h"}
    )


def assert_fields(source) -> None:
    times, place = source.state["time"].values, (source.state["latitude"].values, source.state["longitude"].values)
    for i, name in enumerate(source.state["channel"].values.tolist()):
        variable, level = (name, 0) if name == "t2m" else (name[0], int(name[1:]))
        expected = np.stack([invented(variable, level, time, *place) for time in times])
        np.testing.assert_allclose(source.state[:, i], expected, rtol=0, atol=4e-5 * np.ptp(expected))


@pytest.mark.parametrize("engine", ["climetlab", "earthkit"])
def test_what_is_too_large_is_halved_and_the_rest_asked_in_that_size(tmp_path, server, engine, caplog):
    """February is 2 x 2 x 6 x 2 = 48 fields, and 16 pass: after two refusals neither the rest nor March meets one."""
    server.most_cost = 16
    source = open_source(config(tmp_path, period="2020-02-24/2020-03-06", engine=engine))
    with caplog.at_level(logging.INFO):
        source.fetch()
    upper = [sent for sent in server.sent if sent["dataset"].endswith("pressure-levels")]
    assert [cost_of(sent) for sent in upper] == [48, 24, *[16, 8] * 4]
    assert "48 fields are too many for the store; asking for 24 at a time from now on" in caplog.text
    assert "2m_temperature 2020-03 has come (10 of 10)" in caplog.text
    days = [(sent["month"][0], day) for sent in upper[2:] for day in sent["day"]]
    assert len(days) == len(set(days)) == 6 + 6
    assert {len(sent["variable"]) for sent in upper} == {2}
    assert_fields(source)
    calls = server.calls
    open_source(config(tmp_path, period="2020-02-24/2020-03-06")).fetch()
    assert server.calls == calls


def test_several_at_a_time_halve_together(tmp_path, server):
    server.most_cost = 20
    source = open_source(config(tmp_path, period="2020-02-22/2020-03-04", concurrent=3))
    source.fetch()
    taken = [sent for sent in server.sent if cost_of(sent) <= 20]
    days = [(sent["dataset"], sent["month"][0], day) for sent in taken for day in sent["day"]]
    assert len(days) == len(set(days)) == 2 * 12
    assert_fields(source)


def test_halves_go_down_to_one_field_and_no_further(tmp_path, server):
    server.most_cost = 1
    source = open_source(config(tmp_path, ["z500", "t850", "z850"], period="2020-02-01/2020-02-01"))
    source.fetch()
    assert sum(cost_of(sent) == 1 for sent in server.sent) == 2 * 2 * 2
    server.most_cost = 0
    with pytest.raises(
        InputError, match=r"2m_temperature 2020-02: .* refuses even a single field \(cost limits exceeded: Your "
        r"request is too large, please reduce your selection\.\); narrow data\.area or raise source\.grid"
    ):  # fmt: skip
        open_source(config(tmp_path, ["t2m"])).fetch()


def test_an_interrupted_cut_asks_for_what_is_missing_only(tmp_path, server):
    server.most_cost = 24
    source = open_source(config(tmp_path, CHANNELS[:4], period="2020-02-01/2020-02-05"))
    server.faults.extend(["", "", "no data"])  # refused for its size, the first half comes, the second does not
    with pytest.raises(InputError, match="has no such fields"):
        source.fetch()
    sent = len(server.sent)
    source.fetch()
    assert [one["day"][0] for one in server.sent[sent:]] == ["04"]
    assert_fields(source)


def test_a_request_is_cut_by_days_then_variables_then_levels_then_hours():
    whole = Request(
        "reanalysis-era5-pressure-levels", ("t", "z"), (500, 850), "2020-02", (3, 4, 5), (0, 12), ONE_DAY.box
    )
    for part, lengths in (
        ("days", (2, 1)),
        ("days", (1, 1)),
        ("variables", (1, 1)),
        ("levels", (1, 1)),
        ("hours", (1, 1)),
    ):
        parts = whole.halves()
        assert tuple(len(getattr(one, part)) for one in parts) == lengths
        assert sum(one.fields for one in parts) == whole.fields
        whole = parts[0]
    assert whole.halves() == (whole,)


def http_error(status: int, headers: dict | None = None, **body) -> requests.HTTPError:
    response = requests.Response()
    response.status_code, response._content = status, json.dumps(body).encode()
    response.headers.update(headers or {})
    return requests.HTTPError(f"{status} Client Error", response=response)


SAID = [
    (403, {"title": "cost limits exceeded", "detail": "Your request is too large, please reduce your selection."}),
    (403, {"title": "permission denied", "detail": "cost limits exceeded"}),
    (400, {"title": "invalid request", "detail": "Request too large. Cost 64512 over 60000 limit. Please, reduce your "
           "selection."}),
    (400, {"title": "The job has failed", "traceback": "Your request is too large, please reduce your selection."}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), SAID)
def test_the_words_for_too_large(status, body):
    assert explain(http_error(status, **body), ONE_DAY, key()).too_large


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (403, {"title": "required licences not accepted", "detail": "Not all the required licences have been accepted"},
         r"datasets/reanalysis-era5-single-levels\?tab=download#manage-licences, accept it"),
        (401, {"title": "permission denied", "detail": "Authentication failed"}, r"refuses the key in CDSAPI_KEY"),
        (403, {"title": "permission denied", "detail": "Operation not allowed"}, r"does not let this account have it"),
    ],
)  # fmt: skip
def test_other_refusals_are_no_matter_of_size(status, body, message):
    failure = explain(http_error(status, **body), ONE_DAY, key())
    assert failure.lasting
    assert not failure.too_large
    with pytest.raises(InputError, match=message):
        raise InputError(failure.text)


def key() -> Key:
    return Key("https://cds.climate.copernicus.eu/api", KEY, True, "CDSAPI_KEY")


def test_an_untrusted_certificate_is_told_with_its_cure():
    error = requests.exceptions.SSLError(ssl.SSLCertVerificationError(1, "certificate verify failed"))
    for failure in (refusal(error, key()), explain(error, ONE_DAY, key())):
        assert failure.lasting
        assert "is not trusted" in failure.text
        assert "REQUESTS_CA_BUNDLE" in failure.text
    assert not refusal(requests.exceptions.ConnectionError("refused"), key()).lasting


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("17", 17), ("Thu, 01 Jan 2099 00:00:00 GMT", 3600), ("soon", 0), ("-5", 0), ("999999", 3600)],
)
def test_how_long_the_store_wants_to_be_left_alone(said, seconds):
    failure = explain(http_error(429, {"Retry-After": said}, title="rate limit exceeded"), ONE_DAY, key())
    assert not failure.lasting
    assert failure.wait == pytest.approx(seconds, abs=2)
    assert not explain(http_error(503, title="unavailable"), ONE_DAY, key()).wait


@pytest.mark.parametrize("engine", ["climetlab", "earthkit"])
def test_a_wait_that_is_told_is_waited(tmp_path, server, engine):
    """The client alone would come back after 0.01 s here, and after 2 minutes in earnest."""
    server.retry_after = "1"
    server.faults.append("rate")
    open_source(config(tmp_path, ["t2m"], "2020-02-01/2020-02-01", engine=engine)).fetch()
    first, second = server.moments
    assert second - first >= 1


class Recorded(threading.Event):
    """Notes how long somebody wanted to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout)
        return False


def test_pauses_differ_and_grow(tmp_path):
    def fail(*_):
        raise RuntimeError("The job has failed: disk failure on node 7")

    work = RequestThreads(Downloads(tmp_path), fail, key(), Patience(attempts=4, pause=60))
    work._over = over = Recorded()
    with pytest.raises(OutsideError, match="4 attempts"):
        work.run([ONE_DAY], 1)
    assert all(
        0.75 * middle <= pause <= 1.25 * middle for pause, middle in zip(over.pauses, (60, 120, 240), strict=True)
    )


def test_no_secret_is_written(tmp_path, server, caplog):
    """Neither into the notes and names of files nor into messages and logs."""
    server.faults.extend(["", "failed", "invalid"])
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError) as caught:
        open_source(config(tmp_path, period="2020-02-28/2020-03-01")).fetch()
    written = "".join(f"{path}{path.read_bytes()!r}" for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert "2020" in written
    for place in (written, str(caught.value), caplog.text):
        assert KEY not in place


def test_two_prepares_download_nothing_twice(tmp_path, server):
    """The second is told who is at work, and finds all that the first brought."""
    server.seconds = 0.5
    first = threading.Thread(target=open_source(config(tmp_path, period="2020-02-01/2020-02-02")).fetch)
    first.start()
    while not server.sent:
        time.sleep(0.01)
    with pytest.raises(InputError, match=r"another process is downloading into .* \(pid \d+, host .*\); wait for it"):
        open_source(config(tmp_path, period="2020-02-01/2020-02-02")).fetch()
    first.join()
    sent = len(server.sent)
    source = open_source(config(tmp_path, period="2020-02-01/2020-02-02"))
    source.fetch()
    assert len(server.sent) == sent == 2
    assert_fields(source)


def test_a_read_only_cache_is_told_before_a_key_is_needed(tmp_path, server, monkeypatch):
    monkeypatch.delenv("CDSAPI_KEY")

    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cache_folder.tempfile, "TemporaryFile", refuse)
    with pytest.raises(
        InputError, match=r"downloads cannot be kept in .* \(Read-only file system\); choose source\.cache"
    ):
        open_source(config(tmp_path)).fetch()


def test_a_folder_in_which_only_the_lock_can_be_written(tmp_path, server):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "lock").mkdir()
    with (
        pytest.raises(InputError, match=r"downloads cannot be kept in .* \(Is a directory\); choose source\.cache"),
        Downloads(tmp_path / "cache").arriving(),
    ):
        pass


def test_only_the_engines_know_of_cdsapi():
    """It stays behind climetlab and earthkit."""
    folder = Path(queue.__file__).parents[1]
    users = [path.name for path in folder.rglob("*.py") if "import cdsapi" in path.read_text()]
    assert users == ["engines.py"]
