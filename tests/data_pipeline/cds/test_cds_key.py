"""The key of the Climate Data Store: found where cdsapi looks, refused in words, never asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from weatherfm.data_pipeline.cds.key import ADDRESS, find_key
from weatherfm.errors import InputError

TOKEN = "fedcba98-7654-3210-fedc-ba9876543210"
TWO_LINES = rf"these two lines into .*cdsapirc:\n  url: {ADDRESS}\n  key: YOUR-KEY\n"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch, tmp_path):
    for name in ("CDSAPI_URL", "CDSAPI_KEY", "CDSAPI_RC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def write(path, *lines: str):
    path.write_text("\n".join(lines))
    return path


def test_in_the_home_folder(tmp_path):
    write(tmp_path / ".cdsapirc", f"url: {ADDRESS}/", f"key: {TOKEN}", "verify: 0")
    key = find_key()
    assert (key.url, key.token, key.verify) == (ADDRESS, TOKEN, False)
    assert TOKEN not in repr(key)


def test_elsewhere_and_in_the_environment(tmp_path, monkeypatch):
    path = write(tmp_path / "mine", f"url: {ADDRESS}", f"key: {TOKEN}")
    monkeypatch.setenv("CDSAPI_RC", str(path))
    assert find_key().origin == str(path)
    monkeypatch.setenv("CDSAPI_KEY", TOKEN[::-1])
    assert (find_key().token, find_key().origin, find_key().url) == (TOKEN[::-1], "CDSAPI_KEY", ADDRESS)
    monkeypatch.setenv("CDSAPI_URL", "http://127.0.0.1:1/api")
    monkeypatch.delenv("CDSAPI_RC")
    assert find_key().url == "http://127.0.0.1:1/api"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, r"no key for the Climate Data Store: there is no file .*cdsapirc; register \(free\)"),
        ([f"url: {ADDRESS}"], r"no key .*: .*cdsapirc has no line 'key:'"),
        (["hello"], r"has no line 'url:' and 'key:'"),
        (
            [f"url: {ADDRESS}", f"key: 12345:{TOKEN}"],
            r"is of the old form UID:KEY, which .* no longer takes since 2024",
        ),
        ([f"url: {ADDRESS}/v2", f"key: {TOKEN}"], r"/api/v2 is the address of the old Climate Data Store"),
        (["url: cds.climate.copernicus.eu/api", f"key: {TOKEN}"], rf"must be {ADDRESS}, got 'cds\.climate"),
        (
            [f"url: {ADDRESS}", "key: <PERSONAL-ACCESS-TOKEN>"],
            r"is not one of the Climate Data Store's, which look like",
        ),
        ([f"url: {ADDRESS}", "key: YOUR-KEY"], r"is not one of the Climate Data Store's"),
    ],
)
def test_no_key_or_one_that_cannot_work(tmp_path, lines, message):
    if lines is not None:
        write(tmp_path / ".cdsapirc", *lines)
    with pytest.raises(InputError, match=message) as caught:
        find_key()
    assert "how-to-api" in str(caught.value)
    caught.match(TWO_LINES)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("terminal", [False, True], ids=["no-terminal", "terminal"])
def test_the_command_says_so_and_asks_nothing(tmp_path, terminal):
    """climetlab would ask here; with a terminal it would wait for an answer for ever."""
    config = write(
        tmp_path / "data.yaml",
        "run: a",
        "data:", "  store: store.zarr", "  source: {kind: cds, cache: cache}", "  channels: [t2m]",
        "  period: 2020-01-01/2020-03-31", "  climatology_window: null",
    )  # fmt: skip
    command = [sys.executable, "-m", "weatherfm.cli", "prepare", str(config)]
    ours, theirs = os.openpty() if terminal else (None, subprocess.DEVNULL)
    run = subprocess.run(
        command, cwd=tmp_path, stdin=theirs, capture_output=True, text=True, timeout=240, start_new_session=True
    )
    if terminal:
        os.close(ours)
        os.close(theirs)
    assert run.returncode == 2, run.stderr
    assert "no key for the Climate Data Store: there is no file" in run.stderr
    assert "Traceback" not in run.stderr
    assert "API url" not in run.stdout + run.stderr  # the first question climetlab would ask
    assert not (tmp_path / "cache").exists()
