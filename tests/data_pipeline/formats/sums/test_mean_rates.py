"""Mean rates, as CMIP6's `pr` and `rsds`: sums over their intervals, where files say that they are, and of which."""

from __future__ import annotations

import logging
from pathlib import Path

import eccodes
import netCDF4
import numpy as np
import pytest
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, grib_message, open_files, wave

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError

DAY = np.timedelta64(24, "h")
MEAN = "area: time: mean"


def daily(
    path: Path, name: str, units: str, base: float, spread: float, days=range(8), methods: str | None = MEAN,
    bounds: str | None = "day", hour: float = 12, frequency: str = "day", **attributes,
) -> Path:  # fmt: skip
    """A file as CMIP's, by netCDF4 alone: days since 2001 at noon, bounds at midnight; a day's values are its own."""
    with netCDF4.Dataset(path, "w") as file:
        file.frequency = frequency
        for dim, size in (("time", None), ("bnds", 2), ("lat", 4), ("lon", 8)):
            file.createDimension(dim, size)
        for dim, values, said in (("lat", LATITUDE, "degrees_north"), ("lon", LONGITUDE, "degrees_east")):
            file.createVariable(dim, "f8", (dim,))[:] = values
            file[dim].units = said
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts({"units": "days since 2001-01-01", "calendar": "gregorian", "standard_name": "time"})
        time[:] = np.array(days) + hour / 24
        if bounds:
            time.bounds = "time_bnds"
            edges = np.array(days)[:, None] + {"late": [0.5, 1.5]}.get(bounds, [0.0, 1.0])
            edges[-1] += {"torn": 0.25}.get(bounds, 0)
            time[-1] += {"odd": 0.25}.get(bounds, 0)
            file.createVariable("time_bnds", "f8", ("time", "bnds"))[:] = edges
        field = file.createVariable(name, "f4", ("time", "lat", "lon"))
        field.setncatts({"units": units, **({"cell_methods": methods} if methods else {}), **attributes})
        for i, day in enumerate(days):
            field[i] = base + spread * np.random.default_rng([day, len(name)]).random((4, 8))
    return path


def raw(path: Path, name: str) -> np.ndarray:
    with netCDF4.Dataset(path) as file:
        return file[name][:].astype(np.float64)


def rain(path: Path, **settings) -> Path:
    return daily(path, "pr", "kg m-2 s-1", 0.0, 2e-4, **settings)


def warmth(path: Path, **settings) -> Path:
    return daily(path, "tas", "K", 280.0, 5.0, **settings)


def times_of(data) -> list[str]:
    return [str(time)[:13] for time in data.state["time"].values]


@pytest.mark.parametrize(
    ("name", "units", "base", "spread", "channel", "factor"),
    [
        ("pr", "kg m-2 s-1", 0.0, 2e-4, "tp", 86.4),  # s a day / kg of water a m3
        ("pr", "mm/day", 0.0, 20.0, "tp", 1e-3),
        ("prsn", "kg m-2 s-1", 0.0, 2e-4, "sf", 86.4),
        ("prc", "kg m-2 s-1", 0.0, 2e-4, "cp", 86.4),
        ("rsds", "W m-2", 0.0, 300.0, "ssrd", 86400),
        ("rlds", "W m-2", 200.0, 200.0, "strd", 86400),
        ("rsdt", "W m-2", 0.0, 400.0, "tisr", 86400),
        ("rlut", "W m-2", 150.0, 150.0, "ttr", -86400),
        ("hfls", "W m-2", -10.0, 200.0, "slhf", -86400),
        ("hfss", "W m-2", -50.0, 200.0, "sshf", -86400),
    ],
)
def test_a_mean_rate_is_the_sum_over_its_bounds(tmp_path, name, units, base, spread, channel, factor):
    path = daily(tmp_path / "x.nc", name, units, base, spread)
    data = open_files(path, [channel])
    np.testing.assert_allclose(data.state.values[:, 0], factor * raw(path, name), rtol=2e-7)
    assert times_of(data)[:2] == ["2001-01-02T00", "2001-01-03T00"]  # a sum stands at its end
    assert data.attributes["accumulation"][channel] == {"window_hours": 24, "source_hours": 24}
    told = data.attributes["channels"][channel]
    assert (told["name"], told["units"], told["factor"]) == (name, units, pytest.approx(factor))
    assert data.attributes["means"] == {}


def test_beside_daily_means_sums_stand_at_their_day(tmp_path, caplog):
    """CMIP6's temperature and rain of a day both say noon: they are of one day, and one time of the store."""
    paths = [rain(tmp_path / "pr.nc"), warmth(tmp_path / "tas.nc")]
    data = open_files(paths, ["t2m", "tp"])
    assert times_of(data) == [f"2001-01-{day:02d}T12" for day in range(1, 9)]
    np.testing.assert_allclose(data.state.values[:, 0], raw(paths[1], "tas"), rtol=1e-7)
    np.testing.assert_allclose(data.state.values[:, 1], 86.4 * raw(paths[0], "pr"), rtol=2e-7)
    window = {"window_hours": 24, "source_hours": 24, "ends_hours_after": 12}
    assert data.attributes["accumulation"]["tp"] == window
    assert "tp stands at the times of its files, 12h before its sums end" in caplog.text
    states = open_file_states([str(path) for path in paths], ["t2m", "tp"])  # to forecast from: the same times
    np.testing.assert_array_equal(states.times, data.state["time"].values.astype("datetime64[s]"))
    two = open_files(paths, ["t2m", "tp"], accumulation="48h")
    assert times_of(two)[0] == "2001-01-02T12"
    np.testing.assert_allclose(two.state.values[0, 1], 86.4 * raw(paths[0], "pr")[:2].sum(0), rtol=2e-7)
    assert two.attributes["accumulation"]["tp"] == window | {"window_hours": 48}


def test_beside_instants_sums_stand_at_their_end(tmp_path):
    instants = warmth(tmp_path / "tas.nc", methods="area: mean time: point", hour=0, bounds=None)
    data = open_files([rain(tmp_path / "pr.nc"), instants], ["t2m", "tp"], allow_gaps=True)
    assert times_of(data) == [f"2001-01-{day:02d}T00" for day in range(2, 9)]
    np.testing.assert_allclose(data.state.values[:, 1], 86.4 * raw(tmp_path / "pr.nc", "pr")[:7], rtol=2e-7)
    assert data.attributes["accumulation"]["tp"] == {"window_hours": 24, "source_hours": 24}


def test_a_day_of_a_mean_at_noon_needs_no_bounds(tmp_path):
    paths = [rain(tmp_path / "pr.nc", bounds=None), warmth(tmp_path / "tas.nc", bounds=None)]
    assert open_files(paths, ["t2m", "tp"]).attributes["accumulation"]["tp"]["ends_hours_after"] == 12
    assert times_of(open_files(paths[0], ["tp"]))[0] == "2001-01-02T00"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"methods": None}, r"this one does not; .*source\.sums: \{pr: 24h\}"),
        ({"methods": "area: mean time: point"}, "this one does not"),
        ({"bounds": None, "hour": 0}, "this one does not"),  # the day before, or the day after?
        ({"bounds": None, "frequency": "6hr"}, "this one does not"),  # of each day the mean over 6 h
        ({"bounds": "torn"}, "this one does not"),  # the last day begins a quarter late: bounds of something else
        ({"methods": "time: maximum"}, "is a maximum"),
        ({"days": range(0, 240, 30), "bounds": None, "frequency": "mon"}, "is a mean over time|is a monthly mean"),
    ],
)
def test_rates_that_do_not_say_what_they_are_means_over(tmp_path, settings, says):
    with pytest.raises(InputError, match=rf"no channel tp: tp .*{says}"):
        open_files(rain(tmp_path / "x.nc", **settings), ["tp"])


def test_the_settings_say_it_where_the_file_does_not(tmp_path):
    path = rain(tmp_path / "x.nc", methods=None, bounds=None)
    data = open_files(path, ["tp"], sums={"pr": "24h"})
    assert times_of(data)[0] == "2001-01-01T12"  # the mean of the time before
    np.testing.assert_allclose(data.state.values[:, 0], 86.4 * raw(path, "pr"), rtol=2e-7)
    with pytest.raises(InputError, match="tp is not taken from pr"):
        open_files(path, ["tp"], sums="24h")  # speaks of sums, and this is none
    with pytest.raises(InputError, match=r"pr is a rate, and source\.sums says since_midnight"):
        open_files(path, ["tp"], sums={"pr": "since_midnight"})


@pytest.mark.parametrize(("window", "says"), [("6h", "shorter than the 24h"), ("36h", "not a multiple of the 24h")])
def test_windows_that_days_do_not_fill(tmp_path, window, says):
    with pytest.raises(InputError, match=says):
        open_files(rain(tmp_path / "x.nc"), ["tp"], accumulation=window)


def test_days_that_lie_about_their_labels_in_two_ways(tmp_path):
    odd = rain(tmp_path / "odd.nc", bounds="odd")
    with pytest.raises(InputError, match=r"odd\.nc: the intervals of pr lie about its times in different ways"):
        open_files([odd, warmth(tmp_path / "tas.nc")], ["t2m", "tp"])
    first, late = rain(tmp_path / "a.nc", days=range(4)), rain(tmp_path / "b.nc", days=range(4, 8), bounds="late")
    with pytest.raises(InputError, match="sums of tp end 12h, 24h after the times of their files"):
        open_files([first, late, tmp_path / "tas.nc"], ["t2m", "tp"])


def test_a_sum_comes_before_a_rate_of_the_same_file(tmp_path):
    path = rain(tmp_path / "x.nc")
    with netCDF4.Dataset(path, "a") as file:
        sums = file.createVariable("tp", "f4", ("time", "lat", "lon"))
        sums.setncatts({"units": "m", "cell_methods": "time: sum"})
        sums[:] = 0.005
    np.testing.assert_allclose(open_files(path, ["tp"]).state.values, 0.005, rtol=1e-6)


def test_mean_rates_of_the_climate_data_store(tmp_path):
    """Hourly ERA5, of which 00 UTC alone was fetched: a mean over the hour before, never over a day."""
    latitude, longitude = np.arange(50, 48.9, -0.25), np.arange(0, 1.1, 0.25)
    times = np.datetime64("2020-01-01", "ns") + np.arange(4) * DAY
    said = {"units": "kg m**-2 s**-1", "long_name": "Time-mean total precipitation rate", "GRIB_stepType": "avg"}
    said |= {"GRIB_iDirectionIncrementInDegrees": 0.25}
    values = np.random.default_rng(0).random((4, 5, 5)).astype(np.float32) * 1e-3
    dataset = xr.Dataset(
        {"avg_tprate": (("valid_time", "latitude", "longitude"), values, said)},
        coords={"valid_time": times, "latitude": latitude, "longitude": longitude,
                "expver": ("valid_time", ["0001"] * 4), "number": 0},
        attrs={"GRIB_centre": "ecmf", "institution": "European Centre for Medium-Range Weather Forecasts"},
    )  # fmt: skip
    dataset.to_netcdf(tmp_path / "x.nc")
    data = open_files(tmp_path / "x.nc", ["tp"])
    np.testing.assert_allclose(data.state.values[:, 0], 3.6 * values, rtol=2e-7)
    assert data.attributes["accumulation"]["tp"] == {"window_hours": 1, "source_hours": 1}
    with pytest.raises(InputError, match="no 24h sum of tp is complete"):
        open_files(tmp_path / "x.nc", ["tp"], accumulation="24h")
    dataset.isel(longitude=slice(None, None, 2), latitude=slice(None, None, 2)).assign(
        avg_tprate=lambda d: d.avg_tprate.assign_attrs(GRIB_iDirectionIncrementInDegrees=0.5)
    ).to_netcdf(tmp_path / "coarse.nc")
    with pytest.raises(InputError, match="tp is not taken from avg_tprate"):
        open_files(tmp_path / "coarse.nc", ["tp"])


def message(steps: str, base: float, kind: str = "avg", name: str = "avg_tprate") -> bytes:
    return grib_message(
        name, 0, "surface", edition=2, values=wave(base=base)[0] * 1e-6, stepType=kind, stepRange=steps, bitsPerValue=24
    )


def rate_in(encoded: bytes) -> np.ndarray:
    held = eccodes.codes_new_from_message(encoded)
    assert eccodes.codes_get(held, "units") == "kg m**-2 s**-1"
    values = eccodes.codes_get_values(held).reshape(4, 8)
    eccodes.codes_release(held)
    return values


def test_mean_rates_in_grib(tmp_path):
    """0-3, 3-6 and 0-6 h by their step ranges: 6 h are the sum of two, or one alone."""
    parts = [message("0-3", 100.0), message("3-6", 300.0)]
    (tmp_path / "x.grib2").write_bytes(b"".join(parts))
    data = open_files(tmp_path / "x.grib2", ["tp"], accumulation="6h", lead_time="shortest")
    both = 3 * 3.6 * sum(rate_in(part) for part in parts)
    np.testing.assert_allclose(data.state.values[0, 0], both, rtol=3e-7)
    assert times_of(data) == ["2020-01-01T06"]
    (tmp_path / "y.grib2").write_bytes(message("0-3", 100.0) + message("0-6", 200.0))
    data = open_files(tmp_path / "y.grib2", ["tp"], accumulation="3h", allow_gaps=True, lead_time="shortest")
    later = 6 * 3.6 * rate_in(message("0-6", 200.0)) - 3 * 3.6 * rate_in(message("0-3", 100.0))
    np.testing.assert_allclose(data.state.values[1, 0], later, rtol=3e-6)


def test_rates_of_an_instant_in_grib(tmp_path):
    (tmp_path / "x.grib2").write_bytes(grib_message("prate", 0, "surface", edition=2, values=wave()[0] * 1e-6))
    with pytest.raises(InputError, match=r"tp is not taken from prate: a rate \(kg m\*\*-2 s\*\*-1\)"):
        open_files(tmp_path / "x.grib2", ["tp"])


def settings(folder: Path, paths: list[Path], **others) -> DataConfig:
    named = {"source": {"kind": "files", "paths": [str(path) for path in paths]}, "channels": ["t2m", "tp"]}
    given = {"store": str(folder / "s.zarr"), "climatology_window": None, "train": "2001-01-01/2001-01-06"}
    return parse_settings(DataConfig, named | given | others, "test")


def test_through_prepare_append_and_repair(tmp_path, caplog):
    """A store of daily means and sums: its statistics by hand, its bytes the same at once and in two goes."""
    caplog.set_level(logging.ERROR)
    files = {
        name: [make(tmp_path / f"{name}{i}.nc", days=days) for i, days in enumerate((range(6), range(6, 14)))]
        for name, make in (("pr", rain), ("tas", warmth))
    }
    (tmp_path / "whole").mkdir()
    everything = settings(tmp_path / "whole", [*files["pr"], *files["tas"]])
    whole = prepare(everything, open_source(everything))
    early = settings(tmp_path, [files["pr"][0], files["tas"][0]])
    prepare(early, open_source(early))
    append(settings(tmp_path, [*files["pr"], *files["tas"]]))
    paths = [tmp_path / "s.zarr", tmp_path / "whole" / "s.zarr"]
    one, other = ({str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()} for path in paths)
    assert one == other
    expected = 86.4 * raw(files["pr"][0], "pr")
    assert whole.mean[1] == pytest.approx(expected.mean(), rel=1e-6)
    assert whole.std[1] == pytest.approx(expected.std(), rel=1e-6)
    assert whole.manifest["source"]["attributes"]["accumulation"]["tp"]["ends_hours_after"] == 12
    assert verify(paths[0]).ok
    shard = next(p for p in paths[0].glob("state/c/0/*/0/0"))
    shard.unlink()
    assert not verify(paths[0]).ok
    repair(paths[0], {str(shard.relative_to(paths[0]))})
    assert verify(paths[0]).ok
    assert shard.read_bytes() == one[str(shard.relative_to(paths[0]))]
