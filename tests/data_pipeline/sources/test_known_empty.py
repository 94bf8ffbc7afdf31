"""What public copies of ERA5 do not hold is refused by name, and their relative humidity is never read."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
import yaml
import zarr
from cloud_stores import write_weatherbench2
from places import ROOT

from weatherfm.data_pipeline.sources import known_empty, open_source, weatherbench2
from weatherfm.data_pipeline.sources.known_empty import EMPTY, refuse_empty
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def opened(channels, address=None, **source):
    where = {"kind": "weatherbench2", **({"address": str(address)} if address else {}), **source}
    return open_source(DataConfig(store="unused", source=where, channels=list(channels)))


# --- relative humidity ---


@pytest.fixture(scope="module")
def humid(tmp_path_factory):
    """A copy with temperature, specific humidity, and relative humidity as a fraction without units."""
    path = write_weatherbench2(tmp_path_factory.mktemp("humid"), days=2)
    group = zarr.open_group(path)
    shape = (8, 13, 64, 32)
    for name, values, units in (("specific_humidity", 4e-3, "kg kg**-1"), ("relative_humidity", 0.7, None)):
        array = group.create_array(name, shape=shape, chunks=shape, dtype="float32", fill_value=np.nan)
        array[...] = np.broadcast_to(values * np.linspace(0.5, 1, 64)[:, None], shape)
        dims = {"_ARRAY_DIMENSIONS": ["time", "level", "longitude", "latitude"]}
        array.update_attributes(dims | ({} if units is None else {"units": units}))
    zarr.consolidate_metadata(path, zarr_format=2)
    return path


def test_relative_humidity_is_computed_and_never_taken(humid):
    data = opened(["r850", "t850"], humid)
    raw = (
        xr.open_zarr(humid, chunks=None)
        .sel(level=850)
        .transpose("time", "latitude", "longitude")
        .isel(latitude=slice(None, None, -1))
    )
    temperature, humidity = raw["temperature"].values.astype(float), raw["specific_humidity"].values.astype(float)
    vapour = 85000 * humidity / (0.62198 + 0.37802 * humidity)
    water = 611.21 * np.exp(17.502 * (temperature - 273.16) / (temperature - 32.19))
    ice = 611.21 * np.exp(22.587 * (temperature - 273.16) / (temperature + 0.7))
    share = np.clip((temperature - 250.16) / 23, 0, 1) ** 2
    expected = 100 * vapour / (share * water + (1 - share) * ice)
    np.testing.assert_allclose(data.state.values[:, 0], expected, rtol=2e-4)
    assert data.state.values[:, 0].max() > 2
    assert data.attributes["derived"]["r850"]["from"] == ["t850", "q850"]
    assert data.attributes["not_taken"] == {"r": "is a fraction of one there and says no units"}
    assert "r850" not in data.attributes["channels"]


def test_without_humidity_to_compute_it_from(tmp_path):
    path = write_weatherbench2(tmp_path, days=1, time_chunk=4)
    with pytest.raises(
        InputError, match=r"holds no channel r500; .*r500 could be computed from t500 and q500 \(q500 missing"
    ):
        opened(["t2m", "r500"], path)


def test_files_of_a_user_are_taken_at_their_word(humid):
    """source.kind=files: units that are left out are refused, and a fraction is converted where it is told."""
    source = {"kind": "files", "paths": [str(humid)]}
    with pytest.raises(InputError, match="relative_humidity does not say its units"):
        open_source(DataConfig(store="x", source=source, channels=["r850"]))
    told = source | {"units": {"relative_humidity": "1"}}
    state = open_source(DataConfig(store="x", source=told, channels=["r850"])).state.values
    assert state.max() == pytest.approx(70)


# --- what is not there ---


@pytest.mark.parametrize("resolution", weatherbench2.COPIES)
@pytest.mark.parametrize("channel", ["d2m", "r2m"])
def test_dewpoint_is_refused_without_a_request(monkeypatch, resolution, channel):
    monkeypatch.setattr(weatherbench2, "store_at", lambda *_: pytest.fail("asked the network"))
    with pytest.raises(InputError, match=rf"gs://.*zarr cannot give .*d2m.*source\.kind=arco .*or leave {channel} out"):
        opened(["t2m", channel], resolution=resolution)


@pytest.mark.parametrize(
    ("name", "channel"),
    [("1959-2022-6h-64x33.zarr", "t2m"), ("1959-2022-6h-64x32_equiangular_conservative.zarr", "sst")],
)
def test_copies_by_address(name, channel):
    with pytest.raises(InputError, match=rf"{name} cannot give all of data\.channels: {channel} .*NaN"):
        opened([channel], f"gs://weatherbench2/datasets/era5/{name}/")


def test_others_are_not_refused():
    refuse_empty(["t2m", "z500", "r850", "tisr", "orography"], "512x256", "a")
    refuse_empty(["d2m"], "my-own.zarr", "a")
    with pytest.raises(InputError, match=r"a cannot give .*sst .*copies of 2023_01_10"):
        refuse_empty(["t2m", "sst"], "1959-2022-6h-128x64_equiangular_conservative.zarr", "a")


def test_the_table_knows_its_copies():
    assert set(weatherbench2.COPIES) <= set(EMPTY)
    fluxes = [name for name in EMPTY["1440x721"] if "radiation_flux" in name]
    assert len(fluxes) == 5
    assert all(set(fluxes) <= set(EMPTY[copy]) for copy in weatherbench2.COPIES)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_ask_for_what_is_there(path):
    whole = yaml.safe_load(path.read_text())["data"]
    for data in [whole | part for part in whole["mix"]] if "mix" in whole else [whole]:
        if data["source"]["kind"] != "weatherbench2":
            continue
        copy = data["source"].get("resolution", "64x32")
        refuse_empty([*data["channels"], *data.get("static", [])], copy, "x")
        never = set(known_empty.never_taken(data["channels"]))
        for name in data["channels"]:  # and what is never taken can be computed from others asked for
            if name.rstrip("0123456789") in never:
                level = name.lstrip("r")
                assert {f"t{level}", f"q{level}"} <= set(data["channels"])
