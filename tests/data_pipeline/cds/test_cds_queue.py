"""The queue of the Climate Data Store against one on this machine: order, resumption, and every way to be refused."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from cds_at_hand import answering
from cds_server import KEY
from era5_grib import answer
from places import importable

from weatherfm.data_pipeline.cds import queue
from weatherfm.data_pipeline.cds.box import box_of
from weatherfm.data_pipeline.cds.downloads import Downloads
from weatherfm.data_pipeline.cds.engines import open_engine
from weatherfm.data_pipeline.cds.grouping import requests_for
from weatherfm.data_pipeline.cds.requests import Request
from weatherfm.data_pipeline.cds.wanted import wanted_fields, wanted_times
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError, OutsideError


@pytest.fixture(autouse=True)
def server(monkeypatch, tmp_path):
    """A store that answers any request, a key for it, and a home without files: climetlab by itself would ask."""
    with answering(monkeypatch, tmp_path, attempts=3) as one:
        yield one


def config(folder: Path, channels=("t2m",), period="2020-01-30/2020-02-02", **source) -> DataConfig:
    settings = {"kind": "cds", "cache": str(folder / "cache"), "grid": 30.0, **source}
    return DataConfig.model_validate(
        {"store": "unused", "source": settings, "channels": list(channels), "period": period, "step": "12h"}
    )


def ask(data: DataConfig) -> list[Request]:
    return requests_for(wanted_fields(data, data.channels, wanted_times(data)), box_of(data))


def bring(data: DataConfig) -> None:
    queue.bring(wanted_fields(data, data.channels, wanted_times(data)), box_of(data), data.source)


def held(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cache").glob("*.grib"))


@pytest.mark.parametrize("engine", ["climetlab", "earthkit"])
def test_what_is_asked_comes_and_is_kept_once(tmp_path, server, engine):
    data = config(tmp_path, ["t2m", "z500", "z850"], engine=engine)
    requests = ask(data)
    bring(data)
    assert held(tmp_path) == sorted(f"{request.name}.grib" for request in requests)
    assert len(server.sent) == 4
    bodies = [{key: value for key, value in sent.items() if key != "dataset"} for sent in server.sent]
    assert all(request.body in bodies for request in requests)  # the engines change nothing
    left = {path.name for path in (tmp_path / "cache").iterdir()} - {f"{r.name}.grib" for r in requests}
    assert left == {"lock", *(f"{request.name}.grib.json" for request in requests)}  # the engine's folder is gone
    calls = server.calls
    bring(data)
    assert server.calls == calls  # not even a greeting


def test_an_area_reaches_the_store_as_it_was_asked(tmp_path, server):
    for engine in ("climetlab", "earthkit"):
        box = {"north": 60, "west": 150, "south": 0, "east": 240}
        data = config(tmp_path / engine, engine=engine).model_copy(
            update={"area": DataConfig.model_fields["area"].annotation.__args__[0](**box)}
        )
        bring(data)
    assert {tuple(sent["area"]) for sent in server.sent} <= {(60.0, 150.0, 0.0, 240.0)}


def test_only_what_is_missing_is_sent(tmp_path, server):
    bring(config(tmp_path, ["t2m", "z500"], period="2020-02-01/2020-02-02"))
    bring(config(tmp_path, ["t2m", "u10", "z500", "z850"], period="2020-02-01/2020-02-03"))
    asked = [(sent["variable"], sent.get("pressure_level"), sent["day"]) for sent in server.sent[2:]]
    assert sorted(asked, key=str) == [
        (["10m_u_component_of_wind"], None, ["01", "02", "03"]),
        (["2m_temperature"], None, ["03"]),
        (["geopotential"], ["500"], ["03"]),
        (["geopotential"], ["850"], ["01", "02", "03"]),
    ]


def test_what_a_kill_may_leave_is_not_believed(tmp_path, server):
    """A note without its file, a file without its note or shorter than it says, half a note, a folder."""
    data = config(tmp_path, period="2020-01-31/2020-03-01", concurrent=1)
    first, second, third = ask(data)
    bring(data)
    cache = tmp_path / "cache"
    (cache / f"{first.name}.grib").unlink()
    (cache / f"{second.name}.grib").write_bytes((cache / f"{second.name}.grib").read_bytes()[:-10])
    (cache / f"{third.name}.grib.json").write_text((cache / f"{third.name}.grib.json").read_text()[:40])
    (cache / "arriving-killed").mkdir()
    bring(data)
    assert [sent["month"] for sent in server.sent] == [["01"], ["02"], ["03"]] * 2
    assert not (cache / "arriving-killed").exists()
    assert len(held(tmp_path)) == 3


def test_a_file_whose_end_was_overwritten_is_fetched_again(tmp_path, server):
    """As after a power cut: the length is right, the last blocks are zeros."""
    data = config(tmp_path, period="2020-02-01/2020-02-02")
    bring(data)
    (path,) = (tmp_path / "cache").glob("*.grib")
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    bring(data)
    assert len(server.sent) == 2
    assert path.read_bytes()[-4:] == b"7777"


@pytest.mark.parametrize("concurrent", [1, 3])
def test_few_requests_at_a_time(tmp_path, server, concurrent):
    server.seconds = 0.1 * concurrent  # long enough to meet on a busy machine
    data = config(tmp_path, period="2020-01-31/2020-06-01", concurrent=concurrent)
    bring(data)
    assert len(server.sent) == 6
    assert server.most_under_way <= concurrent
    assert concurrent == 1 or server.most_under_way > 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("licence", r"reanalysis-era5-single-levels: its licence is not accepted yet; log in, open https://cds\.climate"
         r"\.copernicus\.eu/datasets/reanalysis-era5-single-levels\?tab=download#manage-licences"),
        ("account", r"2m_temperature 2020-01: .* does not let this account have it \(permission denied: Your account "
         r"has been suspended\.\); log in to https://cds\.climate\.copernicus\.eu"),
        ("invalid", r"2m_temperature 2020-01: .* does not understand this request \(invalid request: Request has not "
         r"produced a valid combination .* sent was \{.*\"2m_temperature\""),
        ("unpublished", r"2m_temperature 2020-01: ERA5 is not published so far yet: it goes to 2024-09-20; end "),
        ("no data", r"2m_temperature 2020-01: .* has no such fields \(.*MARS returned no data"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("engine", ["climetlab", "earthkit"])
def test_refusals_that_only_the_user_can_mend_are_told_at_once(tmp_path, server, engine, fault, message):
    data = config(tmp_path, engine=engine, concurrent=1)
    server.faults.append(fault)
    with pytest.raises(InputError, match=message):
        bring(data)
    assert len(server.sent) == 1
    assert not held(tmp_path)


@pytest.mark.parametrize(
    "fault", ["rate", "unavailable", "broken", "lost", "failed", "rejected", "html", "short", "truncated"]
)
def test_what_waiting_may_mend_is_asked_again(tmp_path, server, fault):
    data = config(tmp_path, concurrent=1)
    requests = ask(data)
    server.faults.append(fault)
    bring(data)
    assert held(tmp_path) == sorted(f"{request.name}.grib" for request in requests)
    assert len(server.sent) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("rate", r"2m_temperature 2020-02: rate limit exceeded: Rate limit exceeded\. Please wait 30 seconds"),
        ("broken", r"2m_temperature 2020-02: internal server error \(3 attempts\)"),
        ("lost", r"2m_temperature 2020-02: .*(Connection aborted|RemoteDisconnected)"),
        ("failed", r"2m_temperature 2020-02: The job has failed\.: The job has failed: disk failure on node 7"),
        (
            "rejected",
            r"2m_temperature 2020-02: .*Number of API queued requests for this dataset is temporarily limited",
        ),
        ("html", r"2m_temperature 2020-02: what came is no whole GRIB file: it is an HTML page, not data"),
        ("short", r"2m_temperature 2020-02: what came is no whole GRIB file: it is truncated or damaged"),
        ("truncated", r"2m_temperature 2020-02: .*[Dd]ownload"),
    ],
)
def test_what_does_not_get_better_ends_and_what_came_is_kept(tmp_path, server, caplog, fault, message):
    data = config(tmp_path, concurrent=1)
    requests = ask(data)
    server.faults.extend(["", *[fault] * 6])
    with pytest.raises(OutsideError, match=message) as caught, caplog.at_level(logging.WARNING):
        bring(data)
    caught.match(r"\(3 attempts\); what was downloaded is kept: the same command goes on")
    assert "asking again in 0 s" in caplog.text
    assert held(tmp_path) == [f"{requests[0].name}.grib"]
    server.faults.clear()
    sent = len(server.sent)
    bring(data)
    assert [one["month"] for one in server.sent[sent:]] == [["02"]]


def test_a_refused_key_and_a_store_out_of_reach(tmp_path, server, monkeypatch):
    data = config(tmp_path)
    monkeypatch.setenv("CDSAPI_KEY", KEY[::-1])
    with pytest.raises(InputError, match=r"refuses the key in CDSAPI_KEY \(permission denied: Authentication failed\)"):
        bring(data)
    monkeypatch.setenv("CDSAPI_URL", "http://127.0.0.1:9/api")
    with pytest.raises(
        OutsideError, match=r"cannot be reached at http://127\.0\.0\.1:9/api .* start again where there"
    ):
        bring(data)
    assert not server.sent


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"day": ["01"]}, r"2m_temperature 2020-02: .* has no t2m yet for 2 of 4 times \(2020-02-02T00, "
         r"2020-02-02T12\): ERA5 comes five days behind the present; end data\.period on 2020-02-01 or before"),
        ({"time": ["12:00"]}, r"has no t2m yet for 2 of 4 times \(2020-02-01T00, 2020-02-02T00\)"),
        ({"variable": ["10m_u_component_of_wind"]}, r"asked was t2m, what came holds 10u as u10"),
        ({"grid": "15/15"}, r"asked was a grid of 7 x 12 global .* what came is on 13 x 24 global"),
    ],
)  # fmt: skip
def test_an_answer_to_another_question_is_not_kept(tmp_path, server, changes, message):
    data = config(tmp_path, period="2020-02-01/2020-02-02")
    server.answer = partial(answer, **changes)
    with pytest.raises(InputError, match=message):
        bring(data)
    assert not held(tmp_path)


def test_a_second_process_waits_its_turn(tmp_path):
    data = config(tmp_path)
    with Downloads(tmp_path / "cache").arriving(), pytest.raises(InputError, match=r"another process is downloading"):
        bring(data)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "cache").write_text("")
    data = config(tmp_path)
    with pytest.raises(InputError, match=r"downloads cannot be kept in .*cache \(.*\); choose source\.cache"):
        bring(data)


@pytest.mark.parametrize(("engine", "package"), [("climetlab", "climetlab"), ("earthkit", "earthkit-data")])
def test_an_engine_that_is_not_installed(tmp_path, monkeypatch, engine, package):
    monkeypatch.setitem(sys.modules, "climetlab", None)
    monkeypatch.setitem(sys.modules, "earthkit.data", None)
    with (
        pytest.raises(InputError, match=rf"{package}, which source\.engine needs, is not installed; pip install"),
        open_engine(engine, str(tmp_path), lambda: None),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_an_interruption_waits_for_nobody_and_keeps_what_came(tmp_path, server, number):
    """Ctrl-C or a kill while a request waits: the process ends at once, the next one sends what is missing."""
    script = tmp_path / "run.py"
    script.write_text(
        f"import signal, sys; sys.path[:0] = {importable(__file__)!r}\n"
        "from test_cds_queue import ask, config, bring\nfrom pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell starts background jobs with it ignored
        f"data = config(Path({str(tmp_path)!r}), concurrent=2)\n"
        "bring(data)\n"
    )
    slow = server.answer

    def once(inputs: dict) -> bytes:
        if inputs["month"] == ["02"]:
            server.seconds = 600.0
            process.send_signal(number)
        return slow(inputs)

    server.answer = once
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True)
    _, errors = process.communicate(timeout=240)  # far less than the ten minutes that the request takes
    assert ("KeyboardInterrupt" in errors) is (number == signal.SIGINT)
    server.answer, server.seconds = slow, 0.0
    data = config(tmp_path)
    bring(data)
    assert len(held(tmp_path)) == 2
    assert not list((tmp_path / "cache").glob("arriving-*"))
