"""From the Climate Data Store (one on this machine, with an invented ERA5) to a verified store, with both engines."""

from __future__ import annotations

import json
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from cds_at_hand import a_day_later, answering
from era5_grib import answer, invented
from invented_source import assert_same_tree

from weatherfm.data_pipeline.design.dry_run import to_text
from weatherfm.data_pipeline.design.store_design import design_store
from weatherfm.data_pipeline.fields.time_ranges import from_ranges
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.sources import cds, open_source
from weatherfm.data_pipeline.store.manifest import seal
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import DataConfig, Period
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError

CHANNELS = ["z500", "t850", "tp", "t2m", "z850", "ws10"]
PERIOD = "2020-02-27/2020-03-02"
TIMES = np.arange("2020-02-27", "2020-03-03", np.timedelta64(6, "h"), "datetime64[s]")
LATITUDE, LONGITUDE = np.arange(90, -91, -30.0), np.arange(0, 360, 30.0)
_PACKING = 2e-5  # of the range of a field: 16 bits, as in ERA5


@pytest.fixture(autouse=True)
def server(monkeypatch, tmp_path):
    with answering(monkeypatch, tmp_path, attempts=2) as one:
        yield one


def config(folder: Path, channels=CHANNELS, engine="climetlab", grid=30.0, **settings) -> DataConfig:
    return DataConfig.model_validate(
        {
            "store": str(folder / "store.zarr"),
            "source": {"kind": "cds", "cache": str(folder / "cache"), "grid": grid, "engine": engine},
            "channels": list(channels),
            "period": PERIOD,
            "step": "6h",
            "climatology_window": None,
            **settings,
        }
    )


def expected(name: str, times=TIMES, latitude=LATITUDE, longitude=LONGITUDE) -> np.ndarray:
    """[time, lat, lon]."""
    if name == "ws10":
        return np.hypot(*(expected(part, times, latitude, longitude) for part in ("u10", "v10")))
    hours = [np.timedelta64(back, "h") for back in range(6 if name == "tp" else 1)]
    variable, level = (name[0], int(name[1:])) if name[1:].isdigit() and name[0] in "zt" else (name, 0)
    fields = [[invented(variable, level, time - back, latitude, longitude) for time in times] for back in hours]
    return np.sum(fields, axis=0)


def assert_fields(state, times=TIMES) -> None:
    for name in state["channel"].values.tolist():
        wanted = expected(name, times, state["latitude"].values, state["longitude"].values)
        terms = {"tp": 6, "ws10": 4}.get(name, 1)  # of six hours; of two winds, each with twice the range of speed
        np.testing.assert_allclose(
            state.sel(channel=name), wanted, rtol=0, atol=terms * _PACKING * np.ptp(wanted) + 1e-7
        )


@pytest.mark.parametrize("engine", ["climetlab", "earthkit"])
def test_from_the_queue_to_a_verified_store(tmp_path, server, engine):
    server.answer = partial(answer, first_era5t="2020-03-02")
    data = config(tmp_path, engine=engine, static=["orography", "lsm"])
    store = prepare(data)
    assert len(server.sent) == 2 * 3 + 1  # months x (levels, instants, sums), and the constant fields
    assert [problem for problem in verify(store.path).problems if problem.severity == "error"] == []
    with xr.open_zarr(store.path) as dataset:
        assert_fields(dataset["state"])
    for i, name in enumerate(("z", "lsm")):
        wanted = invented(name, 0, TIMES[0], LATITUDE, LONGITUDE)
        np.testing.assert_allclose(store.static[i], wanted, rtol=0, atol=_PACKING * np.ptp(wanted))
    assert preliminary(data) == TIMES[-4:].astype(str).tolist()
    assert store.manifest["source"]["attributes"]["accumulation"] == {"tp": {"window_hours": 6, "source_hours": 1}}
    calls = server.calls
    prepare(data.model_copy(update={"store": str(tmp_path / "again.zarr")}))
    assert server.calls == calls  # another store of the same fields asks for nothing
    assert_same_tree(store.path, tmp_path / "again.zarr")


def preliminary(data: DataConfig) -> list[str]:
    stated = open_store(data.store).manifest["times"]
    return from_ranges(stated["preliminary"], stated).astype(str).tolist()


def test_append_replaces_era5t_once_it_is_final(tmp_path, server):
    data = config(tmp_path, ["t2m"])
    server.answer = partial(answer, first_era5t="2020-03-01")
    prepare(data)
    assert len(preliminary(data)) == 8
    a_day_later(tmp_path / "cache")
    server.answer, sent = answer, len(server.sent)
    longer = data.model_copy(update={"period": Period.model_validate("2020-02-27/2020-03-03")})
    append(longer)
    assert preliminary(longer) == []
    assert [one["month"] for one in server.sent[sent:]] == [["03"]]  # February is final and stays
    assert len(open_store(data.store).times) == len(TIMES) + 4


def test_opening_asks_for_nothing_and_the_plan_says_what_will_be(tmp_path, server, monkeypatch):
    monkeypatch.delenv("CDSAPI_KEY")
    data = config(tmp_path, static=["lsm"], period="2020-2021")
    source = open_source(data)
    assert not server.calls
    assert not (tmp_path / "cache").exists()
    cost = source.cost(np.arange(len(source.state["time"])))
    points = 7 * 12
    assert cost.requests == 24 * 3 + 1  # and the hours before the first sum
    assert cost.wanted == 731 * 4 * 6 * points * 4
    assert cost.moved == (731 * 24 + 6 * 731 * 4) * points * 4  # tp every hour; z, wind of two fields each, t, t2m
    text = to_text(design_store(data, source))
    assert "73 requests wait in the store's queue" in text
    assert "ARCO-ERA5 (source.kind=arco) has the same fields" in text
    assert not source.cost(np.arange(4)).advice
    with pytest.raises(InputError, match=r"no key for the Climate Data Store"):
        source.fetch()


def test_what_is_downloaded_costs_no_request(tmp_path):
    data = config(tmp_path, ["t2m"])
    source = open_source(data)
    assert source.cost(np.arange(len(TIMES))).requests == 2
    source.fetch()
    cost = open_source(data).cost(np.arange(len(TIMES)))
    assert (cost.requests, cost.compressed) == (0, 0)
    assert cost.moved == cost.wanted == len(TIMES) * 7 * 12 * 4


def test_fields_before_they_are_fetched(tmp_path):
    with pytest.raises(InputError, match=r"t2m at 2020-02-27T00, .* is not in .*cache; `weatherfm prepare`"):
        open_source(config(tmp_path, ["t2m"])).state[:1].compute(scheduler="synchronous")


def test_what_cannot_work_is_told_before_anything_is_moved(tmp_path, server):
    with pytest.raises(InputError, match="holds no time of the store"):
        prepare(config(tmp_path, train="1999"))
    assert not server.calls


@pytest.mark.parametrize("west", [-60, 150])
def test_an_area_and_its_grid_are_what_was_told(tmp_path, server, west):
    """Also across the prime meridian and the date line."""
    area = {"north": 60, "west": west, "south": -30, "east": west + 120}
    data = config(tmp_path, ["t2m", "z500"], area=area)
    source = cds.open_source(data)
    source.fetch()
    assert all(sent["area"] == [60.0, west, -30.0, west + 120.0] for sent in server.sent)
    np.testing.assert_array_equal(source.state["longitude"], np.arange(west, west + 121, 30))
    assert_fields(source.state)


@pytest.mark.parametrize("method", ["conservative", "bilinear"])
def test_a_regridded_area_is_the_same_as_cut_out_of_the_globe(tmp_path, server, method):
    """What is asked for around the area is enough."""
    regrid = {"resolution": 22.5, "method": method}
    area = {"north": 60, "west": -40, "south": -50, "east": 70}
    settings = {"channels": ["t2m", "u10"], "static": ["orography"], "regrid": regrid, "grid": 7.5}
    whole = open_source(config(tmp_path / "whole", **settings))
    part = open_source(config(tmp_path / "part", area=area, **settings))
    assert not server.calls
    for source in (whole, part):
        source.fetch()
    assert {sent["area"][0] for sent in server.sent if "area" in sent} == {90.0}
    for all_of_it, some, range_of_values in ((whole.state, part.state, 20), (whole.static, part.static, 1800)):
        same = all_of_it.sel(latitude=some["latitude"], longitude=some["longitude"] % 360)
        assert some.shape[-2:] == (5, 5)
        packed_twice = 2 * _PACKING * range_of_values  # each file has its own scale
        np.testing.assert_allclose(some.values, same.values, rtol=0, atol=packed_twice)


def test_the_state_pickles_and_is_read_in_blocks_of_one_month(tmp_path):
    source = open_source(config(tmp_path, ["t2m", "tp"]))
    source.fetch()
    assert source.state.chunks[0] == (12, 8)
    assert_fields(source.state.isel(time=[15]), TIMES[15:16])  # not the first sum of March, which needs February
    state = pickle.loads(pickle.dumps(source.state))
    assert_fields(state.isel(time=[3, 11, 12]), TIMES[[3, 11, 12]])


def test_a_file_that_was_exchanged_is_refused(tmp_path):
    data = config(tmp_path, ["t2m"])
    source = open_source(data)
    source.fetch()
    february, march = sorted((tmp_path / "cache").glob("*.grib"))
    note = february.with_suffix(".grib.json")
    note.write_text(json.dumps(seal(json.loads(note.read_text()) | {"bytes": march.stat().st_size})))
    february.write_bytes(march.read_bytes())
    with pytest.raises(InputError, match=rf"{february.name}: t2m is not there for .*; delete the file"):
        source.state[:1].compute(scheduler="synchronous")
    february.unlink()
    with pytest.raises(InputError, match=rf"{february.name} is gone \(No such file or directory\); start again"):
        source.state[:1].compute(scheduler="synchronous")


def test_engines_bring_the_same_bytes(tmp_path):
    files = []
    for engine in ("climetlab", "earthkit"):
        open_source(config(tmp_path / engine, ["t2m", "z500"], engine=engine)).fetch()
        files.append({path.name: path.read_bytes() for path in (tmp_path / engine / "cache").glob("*.grib")})
    assert files[0] == files[1]
    assert len(files[0]) == 4


def test_climetlab_reads_what_is_kept(tmp_path):
    """The files are what users of climetlab know."""
    import climetlab

    open_source(config(tmp_path, ["z500", "z850"])).fetch()
    path = next((tmp_path / "cache").glob("geopotential_2020-03*.grib"))
    dataset = climetlab.load_source("file", str(path)).to_xarray()
    assert dataset["z"].squeeze().shape == (8, 2, 7, 12)
