"""A file that was replaced or changed is noticed: by readers at once, by records through its identity."""

from __future__ import annotations

import os

import numpy as np
import pytest
import xarray as xr
import zarr
from cloud_stores import serving
from synthetic_files import field, grib_message, open_files, write_netcdf

from weatherfm.data_pipeline.access import PUBLIC
from weatherfm.data_pipeline.formats.files.identity import identities_of, identity_of, refuse_changed, stamp_of
from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.errors import InputError


def touch(path, seconds=10) -> None:
    """As if it had been written again later, with the same size."""
    stat = os.stat(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + seconds * 10**9))


def grib(path, time=0):
    path.write_bytes(grib_message("2t", kind="surface", time=time))
    return path


def zarr_v2(path):
    field().to_zarr(path, zarr_format=2, consolidated=True)
    return path


def zarr_v3(path):
    field().to_zarr(path, zarr_format=3, consolidated=False)
    return path


def zarr_v3_consolidated(path):
    field().to_zarr(path, zarr_format=3, consolidated=True)
    return path


@pytest.mark.parametrize(
    ("make", "noticed_in"),
    [(lambda p: write_netcdf(p, field()), ""), (lambda p: write_netcdf(p, field(), format="NETCDF3_CLASSIC"), ""),
     (grib, ""), (zarr_v2, ".zmetadata"), (zarr_v3, "zarr.json")],
)  # fmt: skip
def test_a_reader_refuses_what_changed_since_it_was_indexed(tmp_path, make, noticed_in):
    path = make(tmp_path / "x")
    data, states = open_files(path, ["t2m"]), open_file_states([str(path)], ["t2m"])
    assert np.isfinite(data.state.values).all()
    touch(path / noticed_in if noticed_in else path)
    for read in (lambda: data.state.values, lambda: states.read(states.times, ["t2m"])):
        with pytest.raises(
            InputError, match=rf"{path} changed since its headers were read.*start the same command again"
        ):
            read()
    assert np.isfinite(open_files(path, ["t2m"]).state.values).all()


def test_a_file_that_is_gone_or_longer(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", field())
    stamp, size = stamp_of(str(path)), path.stat().st_size
    refuse_changed(str(path), stamp)
    refuse_changed("gs://bucket/x.zarr", stamp_of("gs://bucket/x.zarr"))
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=rf"it has {size + 4} bytes, where {size} were read"):
        refuse_changed(str(path), stamp)
    path.unlink()
    with pytest.raises(InputError, match="it is gone"):
        refuse_changed(str(path), stamp)
    with pytest.raises(InputError, match="is gone; put it back"):
        identity_of(str(path))


def test_the_identity_of_a_file(tmp_path):
    path = grib(tmp_path / "x.grib")
    before = identity_of(str(path))
    assert before == f"{path.stat().st_size} bytes, changed {path.stat().st_mtime_ns}"
    grib(path, time=1200)  # as long as before
    touch(path)
    assert identity_of(str(path)) != before


@pytest.mark.parametrize("make", [zarr_v2, zarr_v3])
def test_the_identity_of_a_store_is_its_metadata(tmp_path, make):
    path = make(tmp_path / "x.zarr")
    before = identity_of(str(path))
    for name in (".zmetadata", "zarr.json"):
        if (path / name).exists():
            touch(path / name)
    assert identity_of(str(path)) == before  # copied elsewhere, it is the same
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    group.attrs["valid_time_stop"] = "2026-01-01"  # moves on each day in ARCO-ERA5
    consolidate(path, make)
    assert identity_of(str(path)) == before
    group.attrs["title"] = "another"
    consolidate(path, make)
    changed = identity_of(str(path))
    assert changed != before
    group["t2m"].resize((5, 4, 8))
    consolidate(path, make)
    assert identity_of(str(path)) not in (before, changed)


def consolidate(path, make) -> None:
    if make is zarr_v2:
        zarr.consolidate_metadata(path, zarr_format=2)


@pytest.mark.parametrize("make", [zarr_v2, zarr_v3_consolidated])
def test_the_identity_of_a_store_at_an_address_is_that_of_its_folder(tmp_path, make):
    make(tmp_path / "x.zarr")
    with serving(tmp_path) as server:
        assert identity_of(f"{server.address}/x.zarr") == identity_of(str(tmp_path / "x.zarr"))
        with pytest.raises(InputError, match=r"its metadata cannot be read.*correct the address"):
            identity_of(f"{server.address}/none.zarr")


def test_names_are_as_short_as_tells_them_apart(tmp_path):
    for folder in ("2019/a", "2020/a", "2020/b"):
        (tmp_path / folder).mkdir(parents=True)
    paths = [
        write_netcdf(tmp_path / name, field()) for name in ("2019/a/t.nc", "2020/a/t.nc", "2020/b/t.nc", "2020/b/q.nc")
    ]
    assert set(identities_of(dict.fromkeys(map(str, paths), PUBLIC))) == {
        "2019/a/t.nc",
        "2020/a/t.nc",
        "b/t.nc",
        "q.nc",
    }


def test_a_source_tells_the_identity_of_what_it_reads(tmp_path):
    used = write_netcdf(tmp_path / "t.nc", field())
    write_netcdf(tmp_path / "unused.nc", field("d2m"))
    static = write_netcdf(tmp_path / "static.nc", field("lsm", "1", 0.5).isel(time=0, drop=True))
    data = open_files([tmp_path / "*.nc"], ["t2m"], ("lsm",))
    assert data.identity == {"t.nc": identity_of(str(used)), "static.nc": identity_of(str(static))}
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    os.rename(used, moved / "t.nc")
    assert open_files([moved / "*.nc"], ["t2m"]).identity == {"t.nc": data.identity["t.nc"]}


def test_regridding_keeps_the_identity(tmp_path):
    from weatherfm.data_pipeline.sources import open_source
    from weatherfm.data_pipeline.store_config import DataConfig

    path = write_netcdf(tmp_path / "t.nc", field(latitude=np.arange(80.0, -81, -10), longitude=np.arange(0, 360, 10.0)))
    data = DataConfig(
        store="s", source={"kind": "files", "paths": [str(path)]}, channels=["t2m"], regrid={"resolution": 30.0}
    )
    assert open_source(data).identity == {"t.nc": identity_of(str(path))}
    assert isinstance(open_source(data).state, xr.DataArray)
