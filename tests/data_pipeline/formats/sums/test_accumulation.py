"""Accumulated channels are summed to the window asked for, labelled by its end, or refused with the reason."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, field, grib_message, open_files, wave, write_netcdf

from weatherfm.data_pipeline.formats.datasets.reader import DatasetReader
from weatherfm.data_pipeline.formats.reading import blocks
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

HOURS = np.arange("2020-01-01T01", "2020-01-03T01", np.timedelta64(1, "h"), "datetime64[h]").astype("datetime64[ns]")
"""48 hourly sums, the first ending 1 January 01 UTC."""


def rain(times=HOURS, name="tp", units="m") -> xr.Dataset:
    """Sums that differ at every hour and point, and rise and fall as rain does, by up to 25 mm."""
    dataset = field(name, units, times=times)
    hours = (np.asarray(times) - HOURS[0]) / np.timedelta64(1, "h") + 1
    dataset[name].values[:] = 1e-3 * (1 + 7 * hours % 25)[:, None, None] * (1 + 0.01 * wave(times, base=0.0))
    return dataset


def sums(dataset: xr.Dataset, ends, window: int, name="tp") -> np.ndarray:
    """[end, lat, lon] float32 by xarray alone."""
    series = dataset[name].astype(np.float64)
    parts = [series.sel(time=slice(end - np.timedelta64(window - 1, "h"), end)).sum("time").values for end in ends]
    return np.stack(parts).astype(np.float32)


def every(hours: int, start="2020-01-01T06", end="2020-01-03T01") -> np.ndarray:
    return np.arange(start, end, np.timedelta64(hours, "h"), "datetime64[h]").astype("datetime64[ns]")


def check(data, dataset, ends, window: int) -> None:
    np.testing.assert_array_equal(data.state["time"].values, ends)
    np.testing.assert_array_equal(data.state.values[:, 0], sums(dataset, ends, window))


def test_step_sums_hourly_fields(tmp_path):
    dataset = rain()
    data = open_files(write_netcdf(tmp_path / "tp.nc", dataset), ["tp"], step="6h")
    check(data, dataset, every(6), 6)
    assert data.attributes["accumulation"] == {"tp": {"window_hours": 6, "source_hours": 1}}


def test_without_step_fields_stay_as_they_are(tmp_path):
    dataset = rain()
    data = open_files(write_netcdf(tmp_path / "tp.nc", dataset), ["tp"])
    check(data, dataset, HOURS, 1)
    assert data.attributes["accumulation"] == {"tp": {"window_hours": 1, "source_hours": 1}}


@pytest.mark.parametrize(("step", "window"), [("6h", "12h"), ("6h", "24h"), ("6h", "1h"), ("24h", "6h"), (None, "3h")])
def test_window_of_the_config(tmp_path, step, window):
    dataset = rain()
    settings = {} if step is None else {"step": step}
    data = open_files(write_netcdf(tmp_path / "tp.nc", dataset), ["tp"], accumulation=window, **settings)
    hours, apart = int(window[:-1]), int((step or "1h")[:-1])
    ends = HOURS[hours - 1 :]
    ends = ends[(ends.astype("datetime64[h]").astype(int) % apart) == 0]
    check(data, dataset, ends, hours)


def test_a_window_over_two_files_whatever_their_names(tmp_path):
    dataset = rain()
    write_netcdf(tmp_path / "b.nc", dataset.isel(time=slice(0, 9)))
    write_netcdf(tmp_path / "a.nc", dataset.isel(time=slice(9, None)))
    check(open_files(tmp_path / "*.nc", ["tp"], step="6h"), dataset, every(6), 6)


def test_terms_are_added_forward_in_time(tmp_path):
    """1e17 - 1e17 + 1 is 1 forward and 0 where the later file, first by name, is added first."""
    dataset = rain()
    dataset["tp"].values[:6] = np.array([1e17, -1e17, 1.0, 0, 0, 0])[:, None, None]
    write_netcdf(tmp_path / "b.nc", dataset.isel(time=slice(0, 2)))
    write_netcdf(tmp_path / "a.nc", dataset.isel(time=slice(2, None)))
    data = open_files(tmp_path / "*.nc", ["tp"], step="6h")
    assert (data.state.values[0] == np.float32(1.0)).all()


def test_a_file_for_each_hour_and_units(tmp_path):
    dataset = rain()
    for i in range(12):
        part = dataset.isel(time=[i]).copy(deep=True)
        if i % 2:
            part["tp"].values *= 1000
            part["tp"].attrs["units"] = "mm"
        write_netcdf(tmp_path / f"{(i * 5) % 12:02d}.nc", part)
    data = open_files(tmp_path / "*.nc", ["tp"], step="6h")
    # converted terms round once each in float64
    np.testing.assert_allclose(data.state.values[:, 0], sums(dataset, every(6)[:2], 6), rtol=2e-7)


def test_zarr(tmp_path):
    dataset = rain()
    dataset.chunk(time=5).to_zarr(tmp_path / "tp.zarr")
    check(open_files(tmp_path / "tp.zarr", ["tp"], step="6h"), dataset, every(6), 6)


def test_small_blocks_give_the_same_and_decode_few_chunks_at_a_time(tmp_path, monkeypatch):
    dataset = rain()
    dataset.chunk(time=2).to_zarr(tmp_path / "tp.zarr")
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    monkeypatch.setattr(blocks, "DECODE_BYTES", 1)
    read = []
    one = DatasetReader.read
    monkeypatch.setattr(
        DatasetReader, "read", lambda self, slots, levels: read.append(slots) or one(self, slots, levels)
    )
    source = open_files(tmp_path / "tp.zarr", ["tp"], step="6h", sums="1h")
    read.clear()  # of a look whether the values contradict the settings
    check(source, dataset, every(6), 6)
    np.testing.assert_array_equal(np.sort(read, axis=0), np.arange(48).reshape(24, 2))  # each chunk of 2 h once


def test_beside_instantaneous_channels(tmp_path):
    dataset = rain()
    write_netcdf(tmp_path / "tp.nc", dataset)
    write_netcdf(tmp_path / "t2m.nc", field(times=HOURS))
    data = open_files(tmp_path / "*.nc", ["t2m", "tp"], step="6h")
    ends = every(6)
    np.testing.assert_array_equal(data.state["time"].values, ends)
    np.testing.assert_allclose(data.state.values[:, 0], wave(ends), rtol=2e-7)
    np.testing.assert_array_equal(data.state.values[:, 1], sums(dataset, ends, 6))
    np.testing.assert_array_equal(data.state.isel(channel=[1], time=[3]).values[0, 0], sums(dataset, ends[3:4], 6)[0])


def test_missing_values_and_negative_ones_are_kept(tmp_path):
    dataset = rain()
    dataset["tp"].values[2, 1, 1] = np.nan
    dataset["tp"].values[:, 0, 0] = -1e-6
    values = open_files(write_netcdf(tmp_path / "tp.nc", dataset), ["tp"], step="6h").state.values[:, 0]
    assert np.isnan(values[0, 1, 1])
    assert np.isnan(values).sum() == 1
    np.testing.assert_allclose(values[:, 0, 0], -6e-6, rtol=1e-6)


# --- names and messages that tell the span ---


def test_weatherbench_name_tells_the_span(tmp_path):
    """A 24 h sum every 6 h: its spacing would say 6 h."""
    times = every(6)
    dataset = rain(times, "total_precipitation_24hr")
    path = write_netcdf(tmp_path / "x.nc", dataset)
    data = open_files(path, ["tp"], step="6h")
    np.testing.assert_allclose(data.state.values[:, 0], dataset["total_precipitation_24hr"].values, rtol=1e-7)
    assert data.attributes["accumulation"] == {"tp": {"window_hours": 24, "source_hours": 24}}
    twice = open_files(path, ["tp"], accumulation="48h", step="6h")
    series = dataset["total_precipitation_24hr"].values
    np.testing.assert_allclose(twice.state.values[:, 0], series[4:] + series[:-4], rtol=1e-7)
    with pytest.raises(
        InputError, match=r"data\.accumulation 6h is shorter than the 24h that tp is summed over in .*x"
    ):
        open_files(path, ["tp"], accumulation="6h")


@pytest.mark.parametrize(("apart", "chosen"), [(6, "tp_6hr"), (1, "plain")])
def test_a_name_that_tells_the_span_wins_over_sparse_hourly_sums(tmp_path, apart, chosen):
    """WeatherBench2: `total_precipitation` holds hourly sums, in its 6-hourly stores too."""
    plain = rain(every(apart), "total_precipitation")
    told = rain(every(apart), "total_precipitation_6hr") * 2
    told["total_precipitation_6hr"].attrs["units"] = "m"
    data = open_files(write_netcdf(tmp_path / "x.nc", xr.merge([plain, told])), ["tp"], step="6h")
    if chosen == "plain":
        ends = every(6)[1:]  # the record begins at 06 UTC
        check(data, plain.rename(total_precipitation="tp"), ends, 6)
    else:
        check(data, told.rename(total_precipitation_6hr="tp"), every(6), 1)
        assert data.attributes["accumulation"] == {"tp": {"window_hours": 6, "source_hours": 6}}


def grib_rain(starts_and_steps, edition=1) -> bytes:
    """One message a (start hour, first step, last step); its value is its valid hour in mm."""
    keys = {"stepType": "accum"} if edition == 1 else {"productDefinitionTemplateNumber": 8}
    messages = []
    for start, first, last in starts_and_steps:
        values = np.full((len(LATITUDE), len(LONGITUDE)), 1e-3 * (start + last))
        messages.append(
            grib_message(
                "tp",
                0,
                "surface",
                time=100 * start,
                values=values,
                edition=edition,
                **keys,
                stepRange=f"{first}-{last}",
            )
        )
    return b"".join(messages)


@pytest.mark.parametrize("edition", [1, 2])
def test_grib_tells_the_span(tmp_path, edition):
    """As ERA5: forecasts from 06 UTC on, each field one hour; all leads are needed."""
    (tmp_path / "tp.grib").write_bytes(grib_rain([(6, step - 1, step) for step in range(1, 13)], edition))
    data = open_files(tmp_path / "tp.grib", ["tp"], step="6h")
    np.testing.assert_array_equal(data.state["time"].values, every(6, "2020-01-01T12", "2020-01-01T19"))
    np.testing.assert_allclose(
        data.state.values[:, 0, 0, 0], [1e-3 * sum(range(7, 13)), 1e-3 * sum(range(13, 19))], rtol=1e-6
    )
    assert data.attributes["accumulation"] == {"tp": {"window_hours": 6, "source_hours": 1}}


def test_grib_hours_of_which_only_some_were_fetched(tmp_path):
    """Hourly sums at 00, 06, 12 and 18 UTC: the spacing says 6 h, the messages say 1 h."""
    (tmp_path / "tp.grib").write_bytes(grib_rain([(0, 5, 6), (0, 11, 12), (0, 17, 18)]))
    says = r"no 6h sum of tp is complete: it needs 6 sums over 1h, 1h apart.*keep the sums as they are with data\.acc"
    with pytest.raises(InputError, match=says):
        open_files(tmp_path / "tp.grib", ["tp"], step="6h", period="2020-01-01/2020-01-01")
    kept = open_files(tmp_path / "tp.grib", ["tp"], step="6h", accumulation="1h")
    np.testing.assert_allclose(kept.state.values[:, 0, 0, 0], [6e-3, 12e-3, 18e-3], rtol=1e-6)
    assert kept.attributes["accumulation"] == {"tp": {"window_hours": 1, "source_hours": 1}}


def test_sums_of_one_lead_time_stay_as_they_are(tmp_path):
    (tmp_path / "tp.grib").write_bytes(grib_rain([(0, 0, 3), (0, 0, 6), (0, 0, 12), (12, 0, 12)]))
    data = open_files(tmp_path / "tp.grib", ["tp"], lead_time="12h")
    assert data.attributes["accumulation"]["tp"]["window_hours"] == 12
    np.testing.assert_allclose(data.state.values[:, 0, 0, 0], [12e-3, 24e-3], rtol=1e-6)


# --- what cannot be summed ---


@pytest.mark.parametrize(
    ("hours", "settings", "says"),
    [
        (
            6,
            {"accumulation": "3h"},
            r"data\.accumulation 3h is shorter than the 6h that tp .* set data\.accumulation=6h",
        ),
        (6, {"accumulation": "9h"}, r"data\.accumulation 9h is not a multiple of the 6h that tp is .* e\.g\. 12h"),
        (4, {"step": "6h"}, r"data\.step 6h is not a multiple of the 4h that tp is summed over in .*tp\.nc"),
    ],
)
def test_windows_that_do_not_fit_are_refused(tmp_path, hours, settings, says):
    path = write_netcdf(tmp_path / "tp.nc", rain(every(hours, "2020-01-01T00")))
    with pytest.raises(InputError, match=says):
        open_files(path, ["tp"], sums=f"{hours}h", **settings)


def test_a_single_time_cannot_tell(tmp_path):
    path = write_netcdf(tmp_path / "tp.nc", rain(HOURS[5:6]))
    with pytest.raises(InputError, match=r"tp\.nc: tp has a single time and does not say .*source\.sums: \{tp: 1h\}"):
        open_files(path, ["tp"])
    told = open_files(path, ["tp"], sums="6h")
    assert told.attributes["accumulation"] == {"tp": {"window_hours": 6, "source_hours": 6}}


def test_a_source_coarser_than_the_step_keeps_its_own_sums(tmp_path):
    dataset = rain(every(6))
    data = open_files(write_netcdf(tmp_path / "tp.nc", dataset), ["tp"], step="1h", sums="6h")
    np.testing.assert_allclose(data.state.values[:, 0], dataset["tp"].values, rtol=1e-7)


# --- incomplete windows ---


def test_sums_that_begin_before_the_files(tmp_path, caplog):
    """ERA5's day begins at 00 UTC, whose sum is of the day before."""
    times = np.concatenate([HOURS[:1] - np.timedelta64(1, "h"), HOURS])
    dataset = rain(times)
    write_netcdf(tmp_path / "tp.nc", dataset)
    write_netcdf(tmp_path / "t2m.nc", field(times=times))
    data = open_files(tmp_path / "*.nc", ["t2m", "tp"], step="6h")
    np.testing.assert_array_equal(data.state["time"].values, every(6))
    assert "1 times left out: the sums at 2020-01-01T00 begin before the files do" in caplog.text
    says = (
        r"the 6h sums of tp at 2020-01-01T00 begin before the files do \(their first 1h sum ends 2020-01-01T00\); add "
        r"the files before, or start data\.period a window later \(2020-01-02\); without data\.period"
    )
    with pytest.raises(InputError, match=says):
        open_files(tmp_path / "*.nc", ["t2m", "tp"], step="6h", period="2020-01-01/2020-01-02")
    data = open_files(tmp_path / "*.nc", ["t2m", "tp"], step="6h", period="2020-01-02/2020-01-02")
    check_last = every(6, "2020-01-02T00", "2020-01-02T19")
    np.testing.assert_array_equal(data.state["time"].values, check_last)
    np.testing.assert_array_equal(data.state.values[:, 1], sums(dataset, check_last, 6))
    data = open_files(tmp_path / "*.nc", ["t2m", "tp"], step="6h", period="2020-01-01/2020-01-02", allow_gaps=True)
    np.testing.assert_array_equal(data.state["time"].values, every(6)[:-1])


def test_an_hour_missing_in_the_middle(tmp_path, caplog):
    dataset = rain().isel(time=[i for i in range(48) if i != 8])  # 09 UTC of the first day
    write_netcdf(tmp_path / "tp.nc", dataset)
    write_netcdf(tmp_path / "t2m.nc", field(times=HOURS))
    with pytest.raises(InputError, match=r"tp has no complete 6h sum at 1 of 8 \(first 2020-01-01T12.*allow_gaps"):
        open_files(tmp_path / "*.nc", ["t2m", "tp"], step="6h")
    data = open_files(tmp_path / "*.nc", ["t2m", "tp"], step="6h", allow_gaps=True)
    np.testing.assert_array_equal(data.state["time"].values, np.delete(every(6), 1))
    assert "1 6h sums of tp are not complete: 2020-01-01T12" in caplog.text
    alone = open_files(tmp_path / "tp.nc", ["tp"], step="6h")  # prepare then finds the gap of its time axis
    np.testing.assert_array_equal(alone.state["time"].values, np.delete(every(6), 1))


def test_an_hour_held_twice_is_refused(tmp_path):
    write_netcdf(tmp_path / "a.nc", rain().isel(time=slice(0, 10)))
    write_netcdf(tmp_path / "b.nc", rain().isel(time=slice(8, None)))
    with pytest.raises(InputError, match=r"tp at 2020-01-01T09:00:00 stands in .*a\.nc and .*b\.nc"):
        open_files(tmp_path / "*.nc", ["tp"], step="6h")


# --- the store ---


def test_the_store_tells_the_window(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    write_netcdf(tmp_path / "tp.nc", rain())
    write_netcdf(tmp_path / "t2m.nc", field(times=HOURS))
    source = {"kind": "files", "paths": [str(tmp_path / "*.nc")]}
    settings = {"store": str(tmp_path / "s.zarr"), "source": source, "channels": ["t2m", "tp"], "step": "6h"}
    store = prepare(DataConfig.model_validate({**settings, "climatology_window": None}))
    assert [channel["accumulation_hours"] for channel in store.manifest["channels"]] == [None, 6]
    np.testing.assert_array_equal(store.read(range(len(store.times)), ["tp"])[:, 0], sums(rain(), every(6), 6))


def test_real_hourly_precipitation(real_data, tmp_path):
    """ERA5 tp summed to 6 h beside winds and humidity on levels, against xarray by itself."""
    folder = real_data / "era5_hourly_levels"
    channels = ["u850", "v850", "q700", "tp"]
    source = {"kind": "files", "paths": [str(folder / "*.nc")]}
    settings = {"store": str(tmp_path / "s.zarr"), "source": source, "channels": channels, "step": "6h"}
    store = prepare(DataConfig.model_validate({**settings, "climatology_window": None}))
    ends = np.arange("2020-01-01T06", "2020-01-01T19", np.timedelta64(6, "h"), "datetime64[h]")
    np.testing.assert_array_equal(store.times, ends.astype("datetime64[s]"))
    with xr.open_dataset(folder / "ERA5_2020-01-01_tp.nc", engine="netcdf4") as hourly:
        expected = sums(hourly, ends.astype("datetime64[ns]"), 6).astype(np.float32)
    stored = store.read(range(3), ["tp"])[:, 0]
    assert stored.max() > 1e-3
    np.testing.assert_array_equal(stored, expected)
    with xr.open_dataset(folder / "ERA5_2020-01-01_pl_u.nc", engine="netcdf4") as levels:
        wind = levels["u"].sel(level=850, time=ends.astype("datetime64[ns]")).values
    np.testing.assert_array_equal(store.read(range(3), ["u850"])[:, 0], wind.astype(np.float32))
