"""Variables that the channel table does not have: from settings into a store, and on into all that is made of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import weatherfm
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth import variables as table
from weatherfm.earth.grid import regular_grid
from weatherfm.earth.variables import add_variables, own_variables, parse_channel
from weatherfm.errors import InputError

DUST = {"long_name": "dust_optical_depth", "units": "1", "bounds": [0, 20], "aliases": ["aod_dust"]}
SMOKE = {"long_name": "smoke_mass_mixing_ratio", "units": "ug kg-1", "bounds": [-1, 1e6], "on_levels": True}
GRID = regular_grid((4, 8))
TIMES = np.datetime64("2000-01-01", "ns") + np.arange(100) * np.timedelta64(6, "h")


@pytest.fixture(autouse=True)
def _table():
    """Each test begins and ends with the table itself."""
    before = dict(table.VARIABLES), dict(table._BY_ANY_NAME), set(table._OWN)
    yield
    for held, kept in zip((table.VARIABLES, table._BY_ANY_NAME, table._OWN), before, strict=True):
        held.clear()
        held.update(kept)


def write_file(path: Path) -> dict[str, np.ndarray]:
    """Travelling waves, under a foreign name and units, and on two levels."""
    phase = np.deg2rad(GRID.longitude)[None, None] - np.pi * np.arange(len(TIMES))[:, None, None] / 8
    wave = np.sin(phase) * np.cos(np.deg2rad(GRID.latitude))[None, :, None]
    fields = {"z500": 5.4e4 + 1e3 * wave, "dust": 0.5 + 0.4 * wave, "smoke500": 10 + wave, "smoke850": 40 + 3 * wave}
    fields = {name: values.astype(np.float32) for name, values in fields.items()}
    axes = {"time": TIMES, "level": ("level", [500, 850], {"units": "hPa"})}
    axes |= {"latitude": GRID.latitude, "longitude": GRID.longitude}
    flat, deep = ("time", "latitude", "longitude"), ("time", "level", "latitude", "longitude")
    smoke = np.stack([fields["smoke500"], fields["smoke850"]], 1)
    made = {
        "z": (deep, np.stack([fields["z500"]] * 2, 1), {"units": "m2 s-2"}),
        "aod_dust": (flat, 100 * fields["dust"], {"units": "%"}),
        "smoke": (deep, smoke, {"units": "ug kg-1"}),
    }
    xr.Dataset(made, axes).to_netcdf(path)
    return fields


def settings(folder: Path) -> dict:
    return {
        "run": str(folder / "run"),
        "data": {
            "store": str(folder / "store.zarr"),
            "source": {"kind": "files", "paths": [str(folder / "air.nc")]},
            "variables": {"dust": DUST, "smoke": SMOKE},
            "channels": ["z500", "dust", "smoke850", "smoke500"],
            "train": "2000-01-01/2000-01-15",
            "validation": "2000-01-16/2000-01-19",
            "test": "2000-01-20/2000-01-25",
            "climatology_window": None,
        },
        "model": {"patch_size": 2, "width": 16, "depth": 1, "heads": 2},
        "training": {"steps": 4, "batch_size": 4, "lead_times": ["6h"], "device": "cpu"},
        "forecast": {"lead_times": ["6h"], "init_every": "6h", "device": "cpu"},
    }


def test_from_a_file_to_scores_and_every_file_knows_them(tmp_path):
    fields, run = write_file(tmp_path / "air.nc"), settings(tmp_path)
    store = weatherfm.prepare(run)
    for name, values in fields.items():
        np.testing.assert_allclose(store.read(range(len(TIMES)), [name])[:, 0], values, rtol=2e-7)
    assert verify(store.path).problems == []
    weatherfm.train(run)
    forecast = weatherfm.write_forecast(run)
    weatherfm.evaluate(run)
    with weatherfm.open_forecast(forecast) as opened:
        assert opened["dust_optical_depth"].attrs["units"] == "1"
        assert opened["smoke_mass_mixing_ratio"].sel(level=850).notnull().all()
    opens = {
        "store": f"weatherfm.open_store({str(store.path)!r})",
        "weights": f"weatherfm.load({str(tmp_path / 'run/weights.safetensors')!r})",
        "scores": f"weatherfm.open_scores({str(tmp_path / 'run/scores.nc')!r})",
        "report": f"weatherfm.report({str(tmp_path / 'run/scores.nc')!r})",
    }
    for what, call in opens.items():  # in a process that has seen no settings
        asked = "from weatherfm.earth.variables import parse_channel\n"
        asked += "print(parse_channel('dust').units, parse_channel('smoke850').units)"
        done = subprocess.run(
            [sys.executable, "-c", f"import weatherfm\n{call}\n{asked}"], capture_output=True, text=True
        )
        assert done.stdout.splitlines()[-1:] == ["1 ug kg-1"], (what, done.stderr)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dust": {k: v for k, v in DUST.items() if k != "bounds"}}, "variables.dust: bounds missing"),
        ({"dust": {k: v for k, v in DUST.items() if k != "units"}}, "variables.dust: units missing"),
        ({"dust": DUST | {"bounds": [2, 1]}}, "bounds 2 and 1 must ascend"),
        ({"t2m": DUST}, "the name 't2m' is that of t2m"),
        ({"dust": DUST | {"aliases": ["z"]}}, r"the name 'z' is that of z \(geopotential\)"),
        ({"z501": DUST}, "the name 'z501' is that of z at 501 hPa"),
        ({"Dust": DUST}, "variables.Dust"),
    ],
)
def test_what_is_no_definition(tmp_path, changes, message):
    data = settings(tmp_path)["data"] | {"variables": changes, "channels": ["z500"]}
    with pytest.raises(InputError, match=message):
        parse_settings(DataConfig, data, "test")


def test_one_name_means_one_thing_in_a_process():
    definition = {"era5": "dust_optical_depth", "units": "1", "bounds": [0, 20], "standard_name": ""}
    add_variables({"dust": definition})
    add_variables({"dust": definition})
    assert own_variables(["dust", "z500"])["dust"]["bounds"] == (0.0, 20.0)
    with pytest.raises(InputError, match="variable 'dust': the name 'dust' is that of dust"):
        add_variables({"dust": definition | {"units": "%"}})
    with pytest.raises(InputError, match="cannot be read"):
        add_variables({"smoke": {"era5": "smoke"}})
    with pytest.raises(InputError, match="did you mean 'dust'"):
        parse_channel("duzt")


def test_a_store_of_1024_channels(tmp_path):
    """Made up at 32 x 64: 1,000 numbered variables and the levels of two more."""

    grid, times = regular_grid((32, 64)), TIMES[:12]
    names = [f"x{i:04d}_" for i in range(1000)] + [f"{short}{level}" for short in "zt" for level in range(100, 700, 50)]
    own = {name: {"long_name": f"variable_{name}", "units": "1", "bounds": [-10, 10]} for name in names[:1000]}
    rng = np.random.default_rng(0)
    values = rng.standard_normal((len(times), len(names), *grid.shape), np.float32)
    centre = np.array([0.0] * 1000 + [5e4] * 12 + [250.0] * 12, np.float32)
    axes = {"time": times, "channel": names, "latitude": grid.latitude, "longitude": grid.longitude}
    state = xr.DataArray(values + centre[:, None, None], axes, tuple(axes)).chunk({"time": 4, "channel": 256})
    source = SourceData(state, None, {"made": "for a test"}, simulated=True)
    plain = {"store": str(tmp_path / "s.zarr"), "source": {"kind": "planet"}, "channels": names, "variables": own}
    config = parse_settings(DataConfig, plain | {"climatology_window": None, "tendency_lead": "6h"}, "test")
    store = prepare(config, source)
    assert len(store.channels) == 1024
    chosen = ["x0999_", "z500", "x0000_"]
    index = [names.index(name) for name in chosen]
    np.testing.assert_array_equal(store.read([3, 1], chosen), state.values[[3, 1]][:, index])
    assert [p for p in verify(store.path).problems if p.severity == "error"] == []
