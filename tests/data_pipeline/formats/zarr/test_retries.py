"""Failures that pass are waited out, longer each time and as the server asks; those that stay fail at once."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import ssl
import time

import pytest
from cloud_stores import WB2_GRID, serving, values, write_weatherbench2

from weatherfm.data_pipeline.formats.zarr import retries
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError, OutsideError


class Answer(Exception):
    """As aiohttp's: a status and headers."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(f"{status} https://host/x?sig=SECRET")
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}


class BotoAnswer(Exception):
    """As botocore's, which s3fs hands on behind an OSError."""

    response = {"ResponseMetadata": {"HTTPHeaders": {"retry-after": "7"}}}


def test_waits_grow_for_minutes_and_are_not_all_alike():
    assert sum(retries.WAITS) > 300
    assert list(retries.WAITS[:6]) == [1, 2, 4, 8, 16, 32]
    first = [retries.seconds_to_wait(Answer(503), 3) for _ in range(200)]
    assert 4 <= min(first) < 6 < 10 < max(first) <= 12  # 8 s, half more or less
    assert retries.seconds_to_wait(Answer(503), len(retries.WAITS)) is None


def test_a_server_is_not_asked_sooner_than_it_wants():
    assert retries.seconds_to_wait(Answer(429, Retry_After="77"), 0) == 77
    assert retries.retry_after(Answer(503, Retry_After="1.5")) == 1.5
    date = email.utils.formatdate(time.time() + 90, usegmt=True)
    assert 85 < retries.seconds_to_wait(Answer(503, Retry_After=date), 0) <= 90
    assert retries.retry_after(Answer(503, Retry_After=email.utils.formatdate(time.time() - 90))) == 0
    assert retries.retry_after(Answer(503, Retry_After="soon")) is None
    assert retries.retry_after(Answer(503)) is None
    wrapped = OSError("slow down")
    wrapped.__cause__ = BotoAnswer()
    assert retries.retry_after(wrapped) == 7
    assert retries.seconds_to_wait(Answer(429, Retry_After="86400"), 0) is None  # tomorrow: say so now


def insist(failures, waits=(0.0, 0.0)):
    """(result, times asked) of a request that fails so."""
    left, asked = list(failures), []

    async def request():
        asked.append(1)
        if left:
            raise left.pop(0)
        return "value"

    retries.WAITS, before = waits, retries.WAITS
    try:
        return asyncio.run(
            retries.insist(request, "https://host/x", "t/0.0", lambda text: text.replace("SECRET", "***"))
        ), len(asked)
    finally:
        retries.WAITS = before


def test_tried_again_until_it_answers(caplog):
    retries._said.clear()
    with caplog.at_level(logging.WARNING):
        assert insist([Answer(503), ConnectionResetError()]) == ("value", 3)
    assert "network: https://host/x does not answer (Answer: 503 https://host/x?sig=***); waiting" in caplog.text
    assert "before try 2 of 3" in caplog.text
    assert len(caplog.records) == 1  # the next word on this address ten seconds later


def test_given_up_with_what_is_kept():
    with pytest.raises(
        OutsideError, match=r"could not be read in 3 tries \(Answer: 503 .*\*\*\*\); what is written is kept"
    ) as e:
        insist([Answer(503)] * 3)
    assert "SECRET" not in str(e.value)
    with pytest.raises(OutsideError, match="in 1 tries"):
        insist([Answer(429, Retry_After="86400")])


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_answer_is_no_failure_of_the_network(status):
    with pytest.raises(Answer):
        insist([Answer(status)])
    assert retries.is_denied(Answer(status)) == (status != 400)


@pytest.mark.parametrize("inside", [False, True])
def test_a_certificate_is_not_tried_again(inside):
    fault: Exception = ssl.SSLCertVerificationError("self-signed certificate")
    if inside:
        fault, fault.__cause__ = ConnectionError("cannot connect"), fault
    assert not retries.is_passing(fault)
    with pytest.raises(
        OutsideError, match=r"secure connection to https://host/x fails .*SSL_CERT_FILE, or .*storage_opt"
    ):
        insist([fault])
    assert retries.is_passing(ConnectionError("cannot connect"))
    assert insist([ssl.SSLEOFError("cut short"), TimeoutError()][1:]) == ("value", 2)


def test_tls_against_a_server_without(tmp_path, monkeypatch):
    """A plain server at an https:// address: told at once, before any wait."""
    monkeypatch.setattr(retries, "WAITS", (600.0,))  # half as long or half as long again
    with serving(tmp_path) as server:
        address = server.address.replace("http://", "https://") + "/x.zarr"
        start = time.monotonic()
        with pytest.raises(OutsideError, match="the secure connection to https://127"):
            open_source(DataConfig(store="x", source={"kind": "weatherbench2", "address": address}, channels=["t2m"]))
        assert time.monotonic() - start < 240


def test_a_busy_server_says_when(tmp_path, monkeypatch, caplog):
    """Retry-After of 1 s on a chunk, against a real server: the second request comes no sooner."""
    monkeypatch.setattr(retries, "WAITS", (0.01, 0.02))
    path = write_weatherbench2(tmp_path, days=1, time_chunk=4, variables=("2m_temperature",))
    with serving(tmp_path) as server:
        address = f"{server.address}/{path.name}"
        data = open_source(
            DataConfig(store="x", source={"kind": "weatherbench2", "address": address}, channels=["t2m"])
        )
        server.faults = {"2m_temperature/0.0.0": ["429 1"]}
        start = time.monotonic()
        found = data.state.values
        assert time.monotonic() - start >= 1
    hours = data.state["time"].values.astype("datetime64[h]")
    assert (found[:, 0] == values("2m_temperature", hours, WB2_GRID)[:, ::-1]).all()
    assert "429" in caplog.text


def test_refused_chunks_ask_for_a_key_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(retries, "WAITS", (60.0,))
    path = write_weatherbench2(tmp_path, days=1, time_chunk=4, variables=("2m_temperature",))
    with serving(tmp_path) as server:
        source = {"kind": "weatherbench2", "address": f"{server.address}/{path.name}"}
        data = open_source(DataConfig(store="x", source=source, channels=["t2m"]))
        server.faults = {"2m_temperature/0.0.0": ["403"]}
        with pytest.raises(
            InputError, match=r"is refused \(.*403.*\); give a key that may read it \(source\.storage_options\)"
        ):
            data.state.values  # noqa: B018
