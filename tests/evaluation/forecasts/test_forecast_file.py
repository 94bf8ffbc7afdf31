"""Forecasts of others: every layout that is published is read to the same values, and what cannot be scored is said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr
from foreign_forecasts import CHANNELS, GRID, INITS, LEADS, ORDER, dataset, expected, hours, write

from weatherfm.data_pipeline.formats.datasets.reader import DatasetReader
from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.reader import ForecastFile

OUR_GRID = Grid(GRID[0][::-1], GRID[1])
ALL = np.arange(len(INITS))


def check(file: ForecastFile, made: xr.Dataset, channels=CHANNELS) -> None:
    file.require(channels, LEADS, OUR_GRID)
    for lead in LEADS:
        np.testing.assert_array_equal(file.read(ALL, lead, channels), expected(made, lead, channels))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("members", [None, 3])
@pytest.mark.parametrize(
    "order",
    [
        ORDER,
        ("time", "prediction_timedelta", "number", "level", "latitude", "longitude"),
        ("number", "level", "latitude", "prediction_timedelta", "longitude", "time"),
    ],
    ids=["weatherbench2", "north-south", "scrambled"],
)
def test_dims_in_any_order(tmp_path, zarr_format, members, order):
    made = dataset(members=members)
    path = write(made.transpose(*order, missing_dims="ignore"), tmp_path / "f.zarr", zarr_format)
    file = ForecastFile(path)
    assert (file.members, file.lead_times, file.name, file.provenance) == (members, LEADS, "f", {})
    assert sorted(file.channels) == ["t2m", "z500", "z850"]
    assert file.grid == OUR_GRID
    check(file, made)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.rename(time="init_time", prediction_timedelta="lead_time"),
        lambda d: d.rename(latitude="lat", longitude="lon"),
        lambda d: d.rename(number="realization").drop_vars("realization"),
        lambda d: d.rename(number="sample"),
        lambda d: d.isel(latitude=slice(None, None, -1)),
        lambda d: d.assign_coords(longitude=np.where(GRID[1] > 180, GRID[1] - 360, GRID[1])).sortby("longitude"),
        lambda d: d.assign_coords(level=("level", [5e4, 8.5e4], {"units": "Pa"})),
        lambda d: d.assign(unknown=d["2m_temperature"]),
        lambda d: d.assign(geopotential_at_surface=d["2m_temperature"].isel(time=0, prediction_timedelta=0, drop=True)),
        lambda d: d.assign(
            valid_time=(("time", "prediction_timedelta"), INITS[:, None] + d["prediction_timedelta"].values)
        ).set_coords("valid_time"),
        lambda d: d.assign_attrs(provenance="made by hand", channels="sst"),
    ],
    ids=[
        "weatherbench-x", "lat-lon", "realization", "sample", "north-first", "from-180-west", "pascal", "unknown",
        "constant", "valid-time", "attributes-of-others",
    ],
)  # fmt: skip
def test_names_and_axes_that_are_published(tmp_path, change):
    made = dataset(members=2)
    check(ForecastFile(write(change(made), tmp_path / "f.zarr")), made)


def test_one_member_is_no_ensemble(tmp_path):
    made = dataset(members=1)
    file = ForecastFile(write(made, tmp_path / "f.zarr"))
    assert file.members is None
    check(file, made.isel(number=0))


@pytest.mark.parametrize(
    ("values", "attributes"),
    [
        (np.array(LEADS), {"units": "hours"}),
        (np.array(LEADS) / 24, {"units": "days"}),
        (np.array(LEADS), {"units": "h"}),
        (hours(LEADS).astype(np.int64), {}),
    ],
    ids=["hours", "days", "h", "raw-nanoseconds"],
)
def test_lead_times_as_numbers(tmp_path, values, attributes):
    made = dataset()
    numbers = made.assign_coords(prediction_timedelta=("prediction_timedelta", values, attributes))
    file = ForecastFile(write(numbers, tmp_path / "f.zarr"))
    check(file, made)


@pytest.mark.parametrize("chunks", [{"prediction_timedelta": 2}, {"prediction_timedelta": 4, "time": 4, "number": 9}])
def test_lead_times_of_one_chunk_are_read_together(tmp_path, monkeypatch, chunks):
    reads = []
    read = DatasetReader.read
    monkeypatch.setattr(DatasetReader, "read", lambda self, *a: reads.append(self.name) or read(self, *a))
    made = dataset(members=2)
    file = ForecastFile(write(made, tmp_path / "f.zarr", chunks=chunks))
    check(file, made)
    assert len(reads) == 2 * 4 / chunks["prediction_timedelta"]  # two variables
    check(file, made)  # again: nothing that was taken once is given out twice
    reads.clear()
    file.require(CHANNELS, (6,), OUR_GRID)
    file.read(ALL, 6, CHANNELS)
    assert len(reads) == 2  # one lead time is expected, one is read


def test_little_is_kept(tmp_path, monkeypatch):
    from weatherfm.evaluation.forecasts import read_ahead as forecast_ahead

    monkeypatch.setattr(forecast_ahead, "AHEAD_BYTES", 2 * len(INITS) * len(CHANNELS) * 4 * 40)  # two lead times
    made = dataset()
    file = ForecastFile(write(made, tmp_path / "f.zarr", chunks={"prediction_timedelta": 4}))
    check(file, made)
    for block in np.array_split(ALL, 4):
        file.read(block, 0, CHANNELS)
    assert len(file._ahead._kept) == 2


@pytest.mark.parametrize("together", [1, 4])
def test_reads_from_several_threads(tmp_path, together):
    made = dataset(members=2)
    file = ForecastFile(write(made, tmp_path / "f.zarr", chunks={"prediction_timedelta": together}))
    file.require(CHANNELS, LEADS, OUR_GRID)
    jobs = [(block, lead) for block in np.array_split(ALL, 3) for lead in LEADS] * 3
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda job: file.read(*job, CHANNELS), jobs))
    for (block, lead), fields in zip(jobs, found, strict=True):
        np.testing.assert_array_equal(fields, expected(made, lead)[block])


def test_times_are_found_in_a_file_of_more(tmp_path):
    file = ForecastFile(write(dataset(), tmp_path / "f.zarr"))
    wanted = INITS[[1, 3, 5]].astype("datetime64[s]")
    assert file.positions(wanted).tolist() == [1, 3, 5]
    later = np.append(wanted, wanted[-1] + np.array([12, 24], "timedelta64[h]"))
    with pytest.raises(InputError, match=r"lacks 2 of the 5 initial times .*first is 2020-01-04T00:00:00; its 6"):
        file.positions(later)
    with pytest.raises(InputError, match=r"no initial time in common with those to score .2021-01-01T12:00:00 to"):
        file.positions(wanted + np.timedelta64(366, "D"))


SILENT_REFUSED = {
    "height": ("geopotential", 1 / 9.81, "z500, .* could be metres"),
    "celsius": ("temperature", -260 / 273.15, "t500.* are not that"),
    "millimetres": ("total_precipitation_6hr", 1e3, "tp.* could be millimetres"),
    "dry": ("total_precipitation_6hr", 0.0, "all 0, which tells nothing"),
    "hectopascal": ("mean_sea_level_pressure", 1e6, "msl.* could be hPa"),
}


@pytest.mark.parametrize("case", SILENT_REFUSED)
def test_units_left_out_are_not_guessed_against_the_values(tmp_path, case):
    name, factor, words = SILENT_REFUSED[case]
    made = dataset([name])
    made[name] = (made[name] * factor).astype(np.float32)
    file = ForecastFile(write(made.drop_attrs(), tmp_path / "f.zarr"), step_hours=6)
    with pytest.raises(InputError, match=f"{name} of .* has units None, expected .*{words}"):
        file.require([file.channels[0]], LEADS, OUR_GRID)


def test_height_near_the_ground_is_ambiguous(tmp_path):
    """200 m2 s-2 and 200 m are both weather at 1000 hPa; 500 hPa tells them apart, and is asked where it is there."""
    near_ground = dataset(["geopotential"], levels=(1000,)).drop_attrs() * np.float32(200 / 1.6e4)
    with pytest.raises(InputError, match=r"could be m2 s-2 or metres .geopotential height."):
        ForecastFile(write(near_ground, tmp_path / "f.zarr")).require(["z1000"], LEADS, OUR_GRID)
    both = dataset(["geopotential"], levels=(500, 1000)).drop_attrs()
    both["geopotential"] = both["geopotential"] - xr.where(both["level"] == 1000, 1.58e4, 0).astype(np.float32)
    ForecastFile(write(both, tmp_path / "g.zarr")).require(["z1000"], LEADS, OUR_GRID)


def test_units_left_out_are_era5s_where_values_say_so(tmp_path):
    made = dataset(["geopotential", "temperature", "2m_temperature", "total_precipitation_6hr"])
    file = ForecastFile(write(made.drop_attrs(), tmp_path / "f.zarr"), step_hours=6)
    file.require(["z850", "t500", "t2m", "tp"], LEADS, OUR_GRID)


def test_sums_over_the_step_of_the_truth(tmp_path):
    made = dataset(["2m_temperature", "total_precipitation", "total_precipitation_6hr", "total_precipitation_24hr"])
    made["total_precipitation_24hr"] *= 4
    path = write(
        made.assign(total_precipitation_24hr=made.total_precipitation_24hr.assign_attrs(units="m")), tmp_path / "f"
    )
    day, six, never = (ForecastFile(path, step_hours=step).channels for step in (24, 6, None))
    assert (sorted(day), sorted(six), never) == (["t2m", "tp"], ["t2m", "tp"], ("t2m",))
    for step in (6, 24):
        file = ForecastFile(path, step_hours=step)
        file.require(["tp"], LEADS, OUR_GRID)
        wanted = made[f"total_precipitation_{step}hr"].isel(prediction_timedelta=1, latitude=slice(None, None, -1))
        np.testing.assert_array_equal(
            file.read(ALL, 6, ["tp"])[:, 0], wanted.transpose("time", "latitude", "longitude")
        )
    with pytest.raises(InputError, match=r"lacks total_precipitation_12hr .channel tp."):
        ForecastFile(path, step_hours=12).require(["tp"], LEADS, OUR_GRID)


BAD = {
    "analysis": (lambda d: d.isel(prediction_timedelta=0, drop=True), "'prediction_timedelta', only .*an analysis is"),
    "no-times": (lambda d: d.isel(time=slice(0, 0)), "is empty: it holds no time"),
    "no-levels": (lambda d: d.isel(level=slice(0, 0)), "is empty: it holds no level"),
    "repeated-level": (lambda d: d.isel(level=[0, 1, 1]), "its level holds 850 more than once"),
    "repeated-member": (lambda d: d.isel(number=[0, 0]), "its number holds 0 more than once"),
    "repeated-time": (lambda d: d.isel(time=[0, 1, 1]), "time does not ascend strictly .2020-01-01T12"),
    "times-as-text": (lambda d: d.assign_coords(time=[str(t) for t in INITS]), r"its time .* is no time"),
    "half-hours": (lambda d: d.assign_coords(prediction_timedelta=hours(LEADS) / 4), "not whole hours"),
    "hours-without-units": (lambda d: d.assign_coords(prediction_timedelta=list(LEADS)), "time span; give it CF units"),
    "curved": (lambda d: d.assign_coords(latitude=np.array([0, 1, 2, 3, 1e37])), "on no grid we know: .*fill values"),
    "nothing-known": (lambda d: d.rename(geopotential="a", **{"2m_temperature": "b"}), "no variable we know, only "),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_forecast_is_refused_on_opening(tmp_path, case):
    change, words = BAD[case]
    with pytest.raises(InputError, match=r"f\.zarr.*" + words):
        ForecastFile(write(change(dataset(members=2)), tmp_path / "f.zarr"))


UNFIT = {
    "grid": (lambda d: d.assign_coords(longitude=GRID[1] + 2), "the grid of .* is 5 x 8 .*regrid"),
    "lead": (lambda d: d.isel(prediction_timedelta=[0, 1]), "lacks lead times 12h, 24h; it has 0h, 6h"),
    "level": (lambda d: d.isel(level=[0]), r"lacks level 850 .*has levels 500 hPa"),
    "units": (lambda d: d.assign(geopotential=d["geopotential"].assign_attrs(units="m")), "units 'm', expected"),
    "a-dim-more": (lambda d: d.assign(geopotential=d["geopotential"].expand_dims(run=2)), "has dims run, time"),
    "no-member": (lambda d: d.assign(geopotential=d["geopotential"].isel(number=0)), "of .* has dims time"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_what_cannot_be_scored_is_refused_when_required(tmp_path, case):
    change, words = UNFIT[case]
    file = ForecastFile(write(change(dataset(members=2)), tmp_path / "f.zarr"))
    with pytest.raises(InputError, match=words):
        file.require(CHANNELS, LEADS, OUR_GRID)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_none_is_named(tmp_path, bad):
    made = dataset(members=3)
    made["2m_temperature"].loc[{"number": 1, "time": INITS[2], "longitude": 90}] = bad
    file = ForecastFile(write(made, tmp_path / "f.zarr"))
    with pytest.raises(InputError, match=r"not finite: t2m from 2020-01-02T00:00:00 at 12h, member 2 of 3"):
        file.read(ALL, 12, CHANNELS)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_that_is_not_there_is_never_filled_in(tmp_path, zarr_format):
    path = write(dataset(), tmp_path / "f.zarr", zarr_format)
    chunk = path / "2m_temperature" / ("2.1.0.0" if zarr_format == 2 else "c/2/1/0/0")
    chunk.unlink()
    file = ForecastFile(path)
    file.read(ALL, 0, CHANNELS)
    with pytest.raises(InputError, match=r"2m_temperature at 2020-01-02T00:00: chunk .* is not there"):
        file.read(ALL, 6, CHANNELS)


def test_a_real_state_without_units(real_data, tmp_path):
    """37 levels of ERA5 from south to north: values tell their units at every level, and metres are found out."""
    names = ["geopotential", "temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity"]
    with xr.open_dataset(real_data / "era5_global_state" / "era5_tl31_19590102T00.nc") as state:
        made = state[names].astype(np.float32).drop_attrs().reset_coords(drop=True).load()
    made = made.expand_dims(time=INITS[:1], prediction_timedelta=hours([24])).drop_encoding()
    file = ForecastFile(write(made, tmp_path / "f.zarr"))
    assert len(file.channels) == 5 * 37 - 2  # the winds at 10 hPa have no short name: u10 is at 10 m
    file.require(file.channels, (24,), file.grid)
    wanted = made["temperature"].sel(level=850)[0, 0].transpose("latitude", "longitude").values[::-1]
    np.testing.assert_array_equal(file.read([0], 24, ["q500", "t850"])[0, 1], wanted)
    metres = made.assign(geopotential=made["geopotential"] / np.float32(9.80665))
    file = ForecastFile(write(metres, tmp_path / "g.zarr"))
    with pytest.raises(InputError, match=r"geopotential of .* could be metres"):
        file.require(file.channels, (24,), file.grid)


def test_a_real_ensemble(real_data, tmp_path):
    path = real_data / "era5_members" / "era5-levels-members.grib"
    with xr.open_dataset(path, engine="cfgrib", backend_kwargs={"indexpath": ""}, decode_timedelta=True) as members:
        made = members[["z", "t"]].reset_coords(drop=True).load()
    made = made.rename(isobaricInhPa="level", z="geopotential", t="temperature").drop_encoding()
    made = made.assign_coords(level=made["level"].astype(int)).expand_dims(prediction_timedelta=hours([6]))
    for array in made.data_vars.values():
        array.attrs = {"units": array.attrs["units"]}
    file = ForecastFile(write(made.transpose(*ORDER), tmp_path / "f.zarr"))
    file.require(["z500", "t850"], (6,), file.grid)
    assert (file.members, len(file.init_times)) == (10, 4)
    fields = file.read([3, 0], 6, ["t850", "z500"])
    assert fields.shape == (2, 10, 2, *file.grid.shape)
    wanted = made["geopotential"].sel(level=500)[0].transpose("time", "number", "latitude", "longitude")
    np.testing.assert_array_equal(fields[:, :, 1], wanted.values[[3, 0]])
