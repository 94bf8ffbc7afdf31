"""Numbers of levels are not taken for pressures, and pressures in units they cannot have are asked about."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, TIMES, field, open_files, wave, write_netcdf

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources.file_states import open_dataset_states, open_file_states
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

ERA5 = [1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400, 450, 500, 550, 600, 650,
        700, 750, 775, 800, 825, 850, 875, 900, 925, 950, 975, 1000]  # fmt: skip


def on(levels, dim="level", name="t", **attributes) -> xr.Dataset:
    """[time, level, latitude, longitude]; the level of index i has base 200 + i."""
    values = np.stack([wave(base=200.0 + i) for i in range(len(levels))], axis=1)
    coords = {"time": TIMES, dim: np.asarray(levels, float), "latitude": LATITUDE, "longitude": LONGITUDE}
    dataset = xr.Dataset({name: (("time", dim, "latitude", "longitude"), values, {"units": "K"})}, coords=coords)
    dataset[dim].attrs.update(attributes)
    return dataset


def check(path, channel, index, **source):
    np.testing.assert_allclose(open_files(path, [channel], **source).state[:, 0], wave(base=200.0 + index), rtol=3e-7)


@pytest.mark.parametrize(
    ("levels", "dim", "attributes", "channel", "index"),
    [
        (ERA5, "level", {}, "t1", 0),  # plain levels of an archive need no units
        (ERA5[::-1], "level", {}, "t3", 34),
        (ERA5, "pressure_level", {"units": "hPa"}, "t7", 4),
        ([1000, 850, 500], "lev", {}, "t850", 1),
        ([500, 850], "plev", {"units": "mbar"}, "t500", 0),
        ([500, 850], "level", {"units": "millibars"}, "t850", 1),
        ([100000.00000001, 85000.000001, 50000], "plev", {"units": "Pa"}, "t850", 1),
        ([85000.0, 50000.0], "plev", {}, "t500", 1),
        ([1, 2, 3], "level", {"units": "hPa"}, "t2", 1),  # units are believed
        ([1.0], "isobaricInhPa", {}, "t1", 0),  # so is a name that has them
        ([1000, 700, 500, 300, 200, 100], "plev", {"units": "Pa"}, "t5", 2),  # a stratosphere
    ],
)
def test_believed(tmp_path, levels, dim, attributes, channel, index):
    check(write_netcdf(tmp_path / "x.nc", on(levels, dim, **attributes)), channel, index)


@pytest.mark.parametrize(
    ("levels", "dim", "attributes", "says"),
    [
        (range(1, 38), "level", {}, "have no units and may be numbers of levels"),
        (range(38), "lev", {}, "have no units and may be numbers of levels"),
        ([1, 2, 3], "lev", {}, "have no units"),
        ([1], "lev", {}, "have no units"),
        ([5], "level", {}, "have no units"),
        ([1, 3, 7], "level", {}, "have no units"),
        ([0.995], "lev", {}, "have no units"),
        ([137.0, 133.0], "level", {}, "have no units"),
        (range(30, 47), "plev", {}, "have no units"),
        (range(1, 38), "level", {"units": "hPa"}, "run through all whole numbers"),
        ([100000, 85000], "plev", {"units": "hPa"}, "would be up to 100000 hPa"),
        ([1000, 850, 500], "plev", {"units": "Pa"}, "are the usual levels in hPa"),
    ],
)
def test_doubted(tmp_path, levels, dim, attributes, says):
    levels = list(levels)
    path = write_netcdf(tmp_path / "x.nc", xr.merge([on(levels, dim, **attributes), field()]))
    for channel in ("t1", "t850"):
        with pytest.raises(
            InputError, match=rf"no channel {channel}; .*t: its levels {dim} .*{says}.*source\.units: {{{dim}: hPa}}"
        ):
            open_files(path, [channel])
    np.testing.assert_allclose(open_files(path, ["t2m"]).state[:, 0], wave(), rtol=3e-7)  # others are not harmed


def test_a_doubt_is_answered(tmp_path):
    counted = write_netcdf(tmp_path / "x.nc", on([1, 2, 3], "lev"))
    check(counted, "t2", 1, units={"lev": "hPa"})
    one = write_netcdf(tmp_path / "y.nc", on([1], "lev"))
    check(one, "t850", 0, levels={"t": 850})
    check(one, "t1", 0, units={"lev": "hPa"})
    wrong = write_netcdf(tmp_path / "z.nc", on([1000, 850, 500], "plev", units="Pa"))
    check(wrong, "t850", 1, units={"plev": "hPa"})
    scalar = write_netcdf(tmp_path / "s.nc", on([1], "lev").isel(lev=0))
    with pytest.raises(InputError, match=r"t1; .*level not told"):
        open_files(scalar, ["t1"])
    check(scalar, "t500", 0, levels={"t": 500})


def test_a_name_and_a_scalar_that_contradict_each_other(tmp_path):
    dataset = xr.merge([field("t850", "K"), field("z500", "m2 s-2", 5e4)]).assign_coords(level=500.0)
    dataset["level"].attrs["units"] = "hPa"
    path = write_netcdf(tmp_path / "x.nc", dataset)
    for channel in ("t500", "t850"):
        with pytest.raises(InputError, match=r"t850: its name says 850 hPa, and the one level .*rename: {t850: t850}"):
            open_files(path, [channel])
    np.testing.assert_allclose(open_files(path, ["z500"]).state[:, 0], wave(base=5e4), rtol=3e-7)
    told = open_files(path, ["t850"], rename={"t850": "t850"})
    np.testing.assert_allclose(told.state[:, 0], wave(), rtol=3e-7)


@pytest.mark.parametrize(
    "attributes", [{"formula_terms": "a: a b: b ps: ps"}, {"long_name": "model level"}, {"units": "1"}]
)
def test_levels_of_a_model_are_none(tmp_path, attributes):
    path = write_netcdf(tmp_path / "x.nc", on([500, 850], "lev", **attributes))
    with pytest.raises(InputError, match=r"t \(over lev\)"):
        open_files(path, ["t500"])


def test_through_prepare_and_as_states(tmp_path):
    path = write_netcdf(tmp_path / "x.nc", on([1, 2], "lev"))
    source = {"kind": "files", "paths": [str(path)]}
    data = DataConfig(store=str(tmp_path / "s"), source=source, channels=["t1"], climatology_window=None)
    with pytest.raises(InputError, match="may be numbers of levels"):
        prepare(data)
    told = data.model_copy(update={"source": data.source.model_copy(update={"units": {"lev": "hPa"}})})
    np.testing.assert_allclose(prepare(told).read(range(4), ["t1"])[:, 0], wave(base=200.0), rtol=3e-7)
    for open_states, given in ((open_file_states, [str(path)]), (open_dataset_states, on([1, 2], "lev"))):
        with pytest.raises(InputError, match=r"the model needs t1.*may be numbers of levels"):
            open_states(given, ["t1"])
        states = open_states(given, ["t1"], rules={"units": {"lev": "hPa"}})
        np.testing.assert_allclose(states.read(states.times, ["t1"])[:, 0, 0], wave(base=200.0), rtol=3e-7)
