"""Containers of users without a name or home: `~` is told, and never made a folder of that name."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store.swap import place_of
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError
from weatherfm.home import expanded


@pytest.fixture
def homeless(monkeypatch, tmp_path) -> Path:
    def nobody(user):
        raise KeyError(user)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(pwd, "getpwnam", nobody)
    monkeypatch.chdir(tmp_path)
    return tmp_path


TOLD = r"is in a home folder, and there is none: HOME is not set.*source\.cache"


@pytest.mark.parametrize("kind", ["planet", "cds"])
def test_a_source_that_keeps_files_asks_for_its_cache(homeless, kind):
    """The cache was made in a folder `~` of wherever one stood, or the command ended in a traceback."""
    settings = {"store": str(homeless / "s.zarr"), "channels": ["z500"], "period": 2001, "step": "6h"}
    with pytest.raises(InputError, match=TOLD):
        open_source(DataConfig.model_validate(settings | {"source": {"kind": kind}}))
    cache = str(homeless / "cache")
    open_source(DataConfig.model_validate(settings | {"source": {"kind": kind, "cache": cache}}))
    assert not (homeless / "~").exists()


@pytest.mark.parametrize("work", [place_of, open_store, expanded])
@pytest.mark.parametrize("path", ["~/era5.zarr", "~unknown/era5.zarr"])
def test_places_in_no_home_are_refused(homeless, work, path):
    with pytest.raises(InputError, match=TOLD):
        work(path)


def test_a_file_that_is_called_so(homeless):
    (homeless / "~x.nc").touch()
    assert expanded("~x.nc") == Path("~x.nc")


def test_home_as_usual(homeless, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/x") == Path("/home/me/x")
    assert expanded("x/~") == Path("x/~")
