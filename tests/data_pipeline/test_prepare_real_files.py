"""Every kind of real file goes through `prepare` to a sound store that holds what an independent reader finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cfgrib
import netCDF4
import numpy as np
import pytest

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.store_config import DataConfig, RegridConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError


def netcdf(path: Path, name: str) -> np.ndarray:
    with netCDF4.Dataset(path) as file:
        return np.asarray(np.ma.filled(file[name][:].astype(np.float64), np.nan))


def grib(path: Path, **keys) -> np.ndarray:
    (cube,) = cfgrib.open_datasets(str(path), backend_kwargs={"indexpath": "", "filter_by_keys": keys})
    return next(iter(cube.data_vars.values())).values


class Case(NamedTuple):
    source: dict
    channels: list[str]
    expected: Callable[[Path], dict[str, np.ndarray]]
    """Fields [time, lat, lon] by channel, north first."""
    more: dict = {}


CASES = {
    "pair of GRIB": Case(
        {"paths": ["pairs/test4.grib"]},
        ["z500", "t850"],
        lambda d: {"z500": grib(d / "pairs/test4.grib", shortName="z", level=500)[None]},
    ),
    "pair of NetCDF": Case(
        {"paths": ["pairs/test4.nc"]},
        ["z500", "t850"],
        lambda d: {"t850": netcdf(d / "pairs/test4.nc", "t")[:, 1]},
    ),
    "ensemble member": Case(
        {"paths": ["era5_members/*.grib"], "number": 3},
        ["z500", "t850", "z850"],
        lambda d: {"z850": grib(next((d / "era5_members").glob("*.grib")), shortName="z", level=850)[3]},
    ),
    "global state": Case(
        {"paths": ["era5_global_state/*.nc"]},
        ["z500", "t850", "q700", "u1", "ciwc500"],
        lambda d: {"q700": state_field(d, "specific_humidity", 700)[None]},
    ),
    "hourly levels": Case(
        {"paths": ["era5_hourly_levels/*.nc"]},
        ["u850", "q500", "u10", "sp", "tp"],
        lambda d: {name: netcdf(d / f"era5_hourly_levels/ERA5_2020-01-01_{name}.nc", name) for name in ("sp", "tp")},
    ),
    "GFS with a gap": Case(
        {"paths": ["gfs_wind_global/gfs*"], "exclude": ["*f3", "*2018101100", "*2018101106*"]},
        ["u10", "v10"],
        lambda d: {},
        {"allow_gaps": True},
    ),
}


def state_field(folder: Path, name: str, level: int) -> np.ndarray:
    with netCDF4.Dataset(next((folder / "era5_global_state").glob("*.nc"))) as file:
        index = file["level"][:].tolist().index(level)
        return np.asarray(file[name][index], np.float64).T[::-1]  # stored [lon, lat], south first


def settings(case: Case, data: Path, store: Path) -> DataConfig:
    paths = [str(data / path) for path in case.source["paths"]]
    source = {"kind": "files", **case.source, "paths": paths}
    plain = {"store": str(store), "source": source, "channels": case.channels, "climatology_window": None}
    return DataConfig.model_validate(plain | case.more)


def html_pages(folder: Path) -> list[str]:
    return [p.name for p in folder.glob("gfs*") if p.read_bytes()[:100].lstrip()[:1] == b"<"]


def check_one_analysis(path: Path, store: Store) -> None:
    cube = cfgrib.open_dataset(path, indexpath="", filter_by_keys={"shortName": "10v"})
    time = cube["valid_time"].values.astype("datetime64[s]")
    stored = store.read(store.index_of(time[None]), ["v10"])[0, 0]
    assert np.array_equal(stored, cube["v10"].values)


@pytest.mark.parametrize("name", CASES)
def test_prepares_to_a_sound_store(real_data, tmp_path, name):
    case = CASES[name]
    if name.startswith("GFS"):
        pages = html_pages(real_data / "gfs_wind_global")
        case = case._replace(source={**case.source, "exclude": ["*f3", *(f"*{page}" for page in pages)]})
    store = prepare(settings(case, real_data, tmp_path / "store.zarr"))
    for channel, expected in case.expected(real_data).items():
        stored = store.read(range(len(store.times)), [channel])[:, 0]
        assert np.array_equal(stored, expected.astype(np.float32)), channel
    report = verify(store.path)
    assert report.ok, report.to_text()
    if case.more:
        assert store.manifest["times"]["missing"]
        check_one_analysis(real_data / "gfs_wind_global" / "gfs.t00z.pgrb2.1p00.f000.2018101306", store)


def test_the_pair_gives_the_same_store(real_data, tmp_path):
    """Equal to within the packing of the NetCDF file, half a step of its 16-bit integers."""
    first, second = (
        prepare(settings(CASES[f"pair of {kind}"], real_data, tmp_path / f"{kind}.zarr")) for kind in ("GRIB", "NetCDF")
    )
    assert first.channels == second.channels
    assert first.grid == second.grid
    np.testing.assert_array_equal(first.times, second.times)
    for channel, file_name in zip(first.channels, ("z", "t"), strict=True):
        with netCDF4.Dataset(real_data / "pairs/test4.nc") as file:
            step = file[file_name].scale_factor
        difference = np.abs(first.read([0], [channel]) - second.read([0], [channel]))
        rounding = 2 * np.spacing(np.abs(first.read([0], [channel])).max())
        assert difference.max() <= step / 2 + rounding
        assert difference.max() < 1e-3 * first.std[first.channels.index(channel)]


@pytest.mark.parametrize(
    ("paths", "channels", "message"),
    [
        (["era5_new_cds/*.nc"], ["t2m"], r"HICCUP_TEST.*latitude"),
        (["gfs_wind_global/gfs*"], ["u10", "v10"], r"(?s)gfs\.t00z.*HTML"),
    ],
    ids=["fill values as coordinates", "HTML pages"],
)
def test_damaged_files_are_refused_by_name(real_data, tmp_path, paths, channels, message):
    case = Case({"paths": paths}, channels, lambda d: {})
    with pytest.raises(InputError, match=message):
        prepare(settings(case, real_data, tmp_path / "store.zarr"))
    assert not (tmp_path / "store.zarr").exists()


def test_october_2018_winds_on_a_coarser_grid_with_their_gap(real_data, tmp_path):
    folder = real_data / "gfs_wind_global"
    exclude = ["*f3", *(f"*{page}" for page in html_pages(folder))]
    case = Case({"paths": ["gfs_wind_global/gfs*"], "exclude": exclude}, ["u10", "v10", "ws10"], lambda d: {})
    wanted = settings(case, real_data, tmp_path / "store.zarr")
    wanted = wanted.model_copy(update={"regrid": RegridConfig(resolution=5.625), "step": 6, "allow_gaps": True})
    store = prepare(wanted)
    assert store.grid.shape == (32, 64)
    assert store.manifest["times"]["missing"] == [["2018-10-10T18:00:00"] * 2]
    report = verify(store.path)
    assert report.ok, report.to_text()
    assert [p.message for p in report.problems] == ["1 steps of 6h are missing: 2018-10-10T18"]
    cube = cfgrib.open_datasets(folder / "gfs.t00z.pgrb2.1p00.f000.2018101306", indexpath="")
    speed = next(np.hypot(d["u10"].values, d["v10"].values) for d in cube if "u10" in d)
    fine = Grid(np.linspace(90, -90, 181), np.arange(360.0))
    coarse = store.read(store.index_of(np.array(["2018-10-13T06"], "datetime64[s]")), ["ws10"])[0, 0]
    expected = (fine.area_weights * speed).mean()  # of the speeds at 1 degree, not the speed of mean winds
    assert (store.grid.area_weights * coarse).mean() == pytest.approx(expected, rel=1e-6)
