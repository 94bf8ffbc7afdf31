"""ECMWF's own ERA5 in Zarr: the key, both copies, months that are not final; on small stores laid out alike."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
import pytest
import xarray as xr
import zarr
from cloud_stores import serving, write_ecmwf
from synthetic_files import write_netcdf

from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.formats.zarr import retries
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.sources import cds_zarr, open_source
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError

KEY = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`sfc` and `pl`, each with both copies."""
    folder = tmp_path_factory.mktemp("ecmwf")
    for copy in ("timeChunked", "geoChunked"):
        write_ecmwf(folder / "sfc", ("t2m", "msl", "tp"), copy=copy)
        write_ecmwf(folder / "pl", ("z", "t", "u"), copy=copy, step=6)
    return folder


@pytest.fixture(autouse=True)
def _no_key_of_ours(monkeypatch, tmp_path):
    for name in ("CDSAPI_URL", "CDSAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CDSAPI_RC", str(tmp_path / "cdsapirc"))
    monkeypatch.setattr(retries, "WAITS", (0.01,))


def settings(where, channels=("z500", "t850", "t2m"), store="unused", copy="timeChunked", step="6h", **options):
    data = {name: options.pop(name) for name in ("period", "static", "allow_gaps") if name in options}
    places = {"single_levels": f"{where}/sfc/{copy}.zarr", "pressure_levels": f"{where}/pl/{copy}.zarr"}
    source = {"kind": "cds-zarr", **places, **options}
    return DataConfig(
        store=str(store), source=source, channels=list(channels), step=step, climatology_window=None, **data
    )


def opened(where, *arguments, **options) -> SourceData:
    return open_source(settings(where, *arguments, **options))


def by_hand(folder, name, copy="timeChunked", level=None):
    """[time, lat, lon] with latitude from the north and longitude from 0, by xarray alone."""
    dataset = xr.open_zarr(folder / ("pl" if level else "sfc") / f"{copy}.zarr")
    values = dataset[name] if level is None else dataset[name].sel(pressureLevel=level)
    return (
        values.assign_coords(longitude=values.longitude % 360).sortby("longitude").sortby("latitude", ascending=False)
    )


@pytest.mark.parametrize("copy", ["timeChunked", "geoChunked"])
def test_both_copies_hold_the_same_fields(folder, copy):
    data = opened(folder, copy=copy)
    assert len(data.state["time"]) == 16
    assert (data.state["latitude"][0], data.state["longitude"][0]) == (90, 0)
    for channel, (name, level) in enumerate((("z", 500), ("t", 850), ("t2m", None))):
        wanted = by_hand(folder, name, level=level).sel(time=data.state["time"].values)
        np.testing.assert_array_equal(data.state[:, channel], wanted)


def test_precipitation_is_the_sum_of_its_hours(folder):
    data = opened(folder, ["tp"], period="2020-01-02/2020-01-03")
    hours = by_hand(folder, "tp")
    for i, time in enumerate(data.state["time"].values):
        wanted = hours.sel(time=slice(time - np.timedelta64(5, "h"), time)).sum("time")
        np.testing.assert_allclose(data.state[i, 0], wanted, rtol=1e-6)


def test_series_of_points_are_advised_against(folder):
    assert opened(folder, ["t2m"]).cost(np.arange(4)).advice == ()
    *_, advice = opened(folder, copy="geoChunked").cost(np.arange(4)).advice
    assert "/sfc/geoChunked.zarr" in advice
    assert (
        "each part of the record reads them again; ECMWF's timeChunked copies (the default) hold whole fields" in advice
    )


def test_only_the_stores_that_are_needed_are_asked(folder):
    with serving(folder) as server:
        opened(server.address, ["t2m", "msl"], step="1h")
        assert not [path for path in server.asked if "/pl/" in path]
        opened(server.address, ["z500"])
        assert [path for path in server.asked if "/pl/" in path]


def test_the_key_is_sent_to_ecmwf_and_written_nowhere(folder, tmp_path, monkeypatch, caplog):
    (tmp_path / "cdsapirc").write_text(f"url: https://cds.climate.copernicus.eu/api\nkey: {KEY}\n")
    monkeypatch.setattr(cds_zarr, "_is_ecmwf", lambda address: address.startswith("http"))
    with serving(folder) as server:
        server.secret = f"Bearer {KEY}"
        store = prepare(settings(server.address, store=tmp_path / "s.zarr"))
        assert verify(store.path).ok
        np.testing.assert_array_equal(xr.open_zarr(store.path)["state"][:, 2], by_hand(folder, "t2m")[::6])
        assert all(KEY in headers["Authorization"] for headers in server.headers)
    files = [file.read_bytes() for file in store.path.rglob("*") if file.is_file()]
    assert not [one for one in (*files, caplog.text.encode()) if KEY.encode() in one]
    assert json.loads((store.path / "manifest.json").read_text())["request"]["source"]["kind"] == "cds-zarr"


def test_the_key_is_sent_to_nobody_else(folder, monkeypatch):
    monkeypatch.setenv("CDSAPI_URL", "https://cds.climate.copernicus.eu/api")
    monkeypatch.setenv("CDSAPI_KEY", KEY)
    with serving(folder) as server:
        opened(server.address)
        assert not [headers for headers in server.headers if "Authorization" in headers]
    for address, own in (
        ("https://arco.datastores.ecmwf.int/x.zarr", True),
        ("https://object-store.copernicus.eu/x.zarr", True),
        ("http://arco.datastores.ecmwf.int/x.zarr", False),
        ("https://ecmwf.int.example.org/x.zarr", False),
        ("https://notecmwf.int/x.zarr", False),
        ("s3://ecmwf.int/x.zarr", False),
    ):
        assert cds_zarr._is_ecmwf(address) == own
    with pytest.raises(InputError, match=r"https://example\.org/pl\.zarr is no server of ECMWF's, and is not sent"):
        opened("", single_levels=f"https://{cds_zarr.HOSTS[0]}/sfc.zarr", pressure_levels="https://example.org/pl.zarr")


def test_without_a_key_it_says_where_it_belongs(folder):
    with pytest.raises(InputError, match=r"no key for the Climate Data Store: there is no file .*cdsapirc; register"):
        open_source(DataConfig(store="s", source={"kind": "cds-zarr"}, channels=["t2m"]))


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused(folder, monkeypatch, status):
    monkeypatch.setenv("CDSAPI_URL", "https://cds.climate.copernicus.eu/api")
    monkeypatch.setenv("CDSAPI_KEY", KEY)
    with serving(folder) as server:
        server.faults = {"zarr": [str(status)] * 99}
        with pytest.raises(InputError, match=rf"cannot be read: it is refused .*{status}.*give a key .*_options"):
            opened(server.address)
        monkeypatch.setattr(cds_zarr, "_is_ecmwf", lambda _: True)
        with pytest.raises(
            InputError, match=rf"refused \(.*{status}.*key .* is wrong, or the licence .*how-to-api"
        ) as error:
            opened(server.address)
    assert KEY not in str(error.value)


def test_a_wrong_address(folder, tmp_path):
    with serving(folder) as server, pytest.raises(InputError, match="no Zarr store is there; correct the address"):
        opened(f"{server.address}/nowhere")
    xr.Dataset({"t2m": ("x", [1.0])}).to_zarr(tmp_path / "timeless.zarr", zarr_format=2)
    with pytest.raises(InputError, match=r"timeless\.zarr has no times, as ECMWF's ERA5 has them; correct the address"):
        opened(tmp_path, ["t2m"], single_levels=str(tmp_path / "timeless.zarr"))
    with pytest.raises(InputError, match="is no Zarr store"):
        opened(tmp_path, ["t2m"], single_levels=str(write_netcdf(tmp_path / "x.nc", xr.Dataset())))


def test_months_that_are_not_final(folder, monkeypatch):
    """ERA5T of a day is final from the first day of the third month after its own."""
    for day, last in ((date(2020, 3, 31), "2019-12-31T23"), (date(2020, 4, 1), "2020-01-31T23")):
        assert cds_zarr.last_final_hour(day) == np.datetime64(last)
    monkeypatch.setattr(cds_zarr, "today", lambda: date(2020, 3, 31))
    with pytest.raises(InputError, match=r"final ERA5 from 1940-01-01 to 2019-12-31 and .* ERA5T to 2020-01-04"):
        opened(folder, period="2020-01-01/2020-01-02")
    data = opened(folder, preliminary=True)
    assert data.preliminary.all()
    monkeypatch.setattr(cds_zarr, "today", lambda: date(2020, 4, 1))
    assert opened(folder, preliminary=True).preliminary is None
    with pytest.raises(InputError, match=r"to 2020-01-04, but data\.period is .*; choose days that it has"):
        opened(folder, period="2020-01-01/2020-01-06")


def test_a_store_that_grew_is_known_again_and_appended(tmp_path, folder):
    for days in (4, 6):
        for name, names, step in (("sfc", ("t2m", "tp"), 1), ("pl", ("z", "t"), 6)):
            write_ecmwf(tmp_path / str(days) / name, names, days=days, step=step)
    first, grown = (opened(tmp_path / days, period="2020-01-02/2020-01-03") for days in ("4", "6"))
    assert first.identity == grown.identity
    assert first.attributes == grown.attributes
    group = zarr.open_group(tmp_path / "6" / "sfc" / "timeChunked.zarr")
    group["t2m"].attrs["units"] = "degC"
    zarr.consolidate_metadata(group.store, zarr_format=2)
    assert opened(tmp_path / "6", period="2020-01-02/2020-01-03").identity != first.identity
    group["t2m"].attrs["units"] = "K"
    zarr.consolidate_metadata(group.store, zarr_format=2)
    store = tmp_path / "s.zarr"
    (tmp_path / "now").symlink_to(tmp_path / "4")
    prepare(settings(tmp_path / "now", ["t2m", "z500"], store))
    (tmp_path / "now").unlink()
    (tmp_path / "now").symlink_to(tmp_path / "6")
    append(settings(tmp_path / "now", ["t2m", "z500"], store))
    assert len(open_store(store).times) == 24
    assert verify(store).ok


def test_constant_fields_come_from_files(folder, tmp_path):
    with pytest.raises(InputError, match="static field orography"):
        opened(folder, static=["orography"])
    latitude, longitude = np.linspace(90, -90, 19), np.arange(0, 360, 10.0)
    height = np.random.default_rng(0).uniform(0, 5e3, (19, 36)).astype(np.float32)
    dataset = xr.Dataset(
        {"z": (("latitude", "longitude"), height, {"units": "m2 s-2"})}, {"latitude": latitude, "longitude": longitude}
    )
    path = write_netcdf(tmp_path / "orography.nc", dataset)
    np.testing.assert_array_equal(opened(folder, static=["orography"], static_paths=[str(path)]).static[0], height)


def test_beside_another_source(folder, tmp_path):
    """Precipitation from one part of a join, the rest from another."""
    parts = [
        {"source": settings(folder, copy=copy).source.model_dump(exclude_none=True), "channels": names}
        for copy, names in (("geoChunked", ["tp"]), ("timeChunked", []))
    ]
    data = open_source(
        DataConfig(
            store="unused", source={"kind": "join", "parts": parts}, channels=["t2m", "tp", "z500"], step="6h",
            period="2020-01-02/2020-01-03", climatology_window=None,
        )
    )  # fmt: skip
    for channel, (name, level) in enumerate((("t2m", None), (None, None), ("z", 500))):
        if name is not None:
            wanted = by_hand(folder, name, level=level).sel(time=data.state["time"].values)
            np.testing.assert_array_equal(data.state[:, channel], wanted)
    assert len(data.identity) == 3
