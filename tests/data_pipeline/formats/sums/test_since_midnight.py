"""Sums since 00 UTC or since the start of a forecast: known by their values or ranges, and differences are taken."""

from __future__ import annotations

import pickle
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
from places import REAL_DATA
from synthetic_files import LATITUDE, LONGITUDE, field, grib_message, open_files, write_netcdf

from weatherfm.data_pipeline.fields.time_axis import select_times
from weatherfm.data_pipeline.formats.sums.look_at_values import look
from weatherfm.data_pipeline.formats.sums.sums_from_sums import HeldSums
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

CASES = REAL_DATA / "cases" / "made"
HOUR = np.timedelta64(1, "h")
DAYS = 6


def hourly(days=DAYS, start="2020-03-01T01") -> tuple[np.ndarray, np.ndarray]:
    """(ends [time], metres of rain in each hour [time, lat, lon]): showers with dry hours between."""
    times = np.datetime64(start, "h") + np.arange(24 * days) * HOUR
    draw = np.random.default_rng(4)
    rain = draw.gamma(0.4, 1e-3, (len(times), 4, 8)) * (draw.random((len(times), 4, 8)) < 0.6)
    return times, rain.astype(np.float32).astype(np.float64)


def grown(times: np.ndarray, rain: np.ndarray) -> np.ndarray:
    """Sums since 00 UTC by plain addition; the one labelled 00 UTC is that of the whole day before."""
    total, out = np.zeros(rain.shape[1:]), np.empty_like(rain)
    for i, time in enumerate(times):
        total = rain[i] if str(time)[11:13] == "01" else total + rain[i]
        out[i] = total
    return out


def land(times: np.ndarray, values: np.ndarray, every: int = 1) -> xr.Dataset:
    """As the Climate Data Store writes ERA5-Land."""
    keep = (times.astype(int) % every) == 0
    dataset = field("tp", "m", times=times[keep].astype("datetime64[ns]")).rename(time="valid_time")
    dataset["tp"].values[:] = values[keep]
    dataset = dataset.assign_coords(expver=("valid_time", ["0001"] * int(keep.sum())), number=0)
    return dataset.assign_attrs(GRIB_centre="ecmf").astype({"tp": "float32"})


def window(times: np.ndarray, rain: np.ndarray, end: np.datetime64, hours: int) -> np.ndarray:
    return rain[(times > end - hours * HOUR) & (times <= end)].sum(0)


@pytest.mark.parametrize(("every", "hours"), [(1, 6), (1, 1), (1, 24), (6, 6), (3, 12)])
def test_differences_are_the_rain_of_the_window(tmp_path, caplog, every, hours):
    times, rain = hourly()
    path = write_netcdf(tmp_path / "land.nc", land(times, grown(times, rain), every))
    data = open_files(path, ["tp"], step=f"{hours}h")
    ends = data.state["time"].values.astype("datetime64[h]")
    assert len(ends) == 24 * DAYS // hours - (1 if hours == 1 and every == 1 and ends[0] != times[0] else 0)
    for end, found in zip(ends, data.state.values[:, 0], strict=True):
        np.testing.assert_allclose(found, window(times, rain, end, hours), atol=3e-8, rtol=1e-6)
    assert "tp holds sums since 00 UTC" in caplog.text
    assert data.attributes["accumulation"]["tp"]["source_sums"] == "since_midnight"


def test_the_case_of_era5_land():
    if not CASES.is_dir():
        pytest.skip("needs ../shared/data")
    with netCDF4.Dataset(CASES / "S1_era5_land.nc") as file:
        assert file["tp"][24, 0, 0] == pytest.approx(0.024)  # of the day before
    data = open_files(CASES / "S1_era5_land.nc", ["tp", "t2m"], step="6h")
    np.testing.assert_allclose(data.state.values[:, 0], 0.006, rtol=1e-6)
    assert str(data.state["time"].values[0])[:13] == "2020-01-01T06"


def test_the_case_of_gfs():
    if not CASES.is_dir():
        pytest.skip("needs ../shared/data")
    path = CASES / "S2_gfs_f012.grib2"
    for hours, metres in ((6, 0.006), (12, 0.010)):
        for settings in ({"step": f"{hours}h"}, {"accumulation": f"{hours}h"}):
            data = open_files(path, ["tp"], **settings)
            np.testing.assert_allclose(data.state.values, metres, rtol=1e-3)
    with pytest.raises(InputError, match=r"different spans \(0-12h, 6-12h\) at a single time.*data\.accumulation=6h"):
        open_files(path, ["tp"])


def test_a_period_needs_the_hours_before_it(tmp_path):
    times, rain = hourly()
    path = write_netcdf(tmp_path / "land.nc", land(times, grown(times, rain)))
    says = r"the 6h sums of tp at 2020-03-01T.* begin before the files do|steps of 6h are missing"
    with pytest.raises(InputError, match=says):
        select_times(
            open_files(path, ["tp"], step="6h", period="2020-03-01/2020-03-02").state["time"].values,
            DataConfig(store="x", source={"kind": "files", "paths": ["x"]}, channels=["tp"], step="6h",
                       period="2020-03-01/2020-03-02"),
        )  # fmt: skip
    data = open_files(path, ["tp"], step="6h", period="2020-03-02/2020-03-03")
    first = np.datetime64("2020-03-02T00", "h")
    assert data.state["time"].values[0] == first
    np.testing.assert_allclose(data.state.values[0, 0], window(times, rain, first, 6), atol=3e-8)


def test_fields_in_another_process_and_out_of_order(tmp_path):
    """What a task carries holds the signs; a Zarr store in chunks of some hours gives what the file gives."""
    times, rain = hourly()
    dataset = land(times, grown(times, rain))
    data = open_files(write_netcdf(tmp_path / "land.nc", dataset), ["tp"], step="6h")
    chosen = data.state.isel(time=[5, 2])
    there = pickle.loads(pickle.dumps(chosen.data))
    np.testing.assert_array_equal(there.compute(scheduler="synchronous"), data.state.values[[5, 2]])
    dataset.chunk(valid_time=5).to_zarr(tmp_path / "land.zarr")
    again = open_files(tmp_path / "land.zarr", ["tp"], step="6h")
    np.testing.assert_array_equal(again.state.values, data.state.values)


def test_a_dry_spell_and_a_dry_day_do_not_mislead(tmp_path):
    times, rain = hourly(days=8)
    rain[24:96] = 0
    path = write_netcdf(tmp_path / "land.nc", land(times, grown(times, rain)))
    data = open_files(path, ["tp"], step="24h")
    np.testing.assert_allclose(
        data.state.values[:, 0], [window(times, rain, end, 24) for end in times[23::24]], atol=1e-7
    )


def test_a_dry_record_is_asked_about(tmp_path):
    times, rain = hourly()
    path = write_netcdf(tmp_path / "x.nc", land(times, 0 * rain))
    with pytest.raises(InputError, match=r"values looked at \(every 1h\) do not tell.*source\.sums.*since_midnight"):
        open_files(path, ["tp"], step="6h")
    assert not open_files(path, ["tp"], step="6h", sums="since_midnight").state.values.any()


def test_hourly_sums_are_not_taken_for_growth(tmp_path):
    times, rain = hourly()
    data = open_files(write_netcdf(tmp_path / "x.nc", land(times, rain)), ["tp"], step="6h")
    assert data.attributes["accumulation"]["tp"] == {"window_hours": 6, "source_hours": 1}
    np.testing.assert_allclose(data.state.values[0, 0], window(times, rain, times[5], 6), rtol=1e-6)


def sunshine(times: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """[time, longitude] J m-2 in the hour before each time, at the equator at an equinox, every day a little other."""
    hour = (times - np.datetime64("2020-03-01T00", "h")) / HOUR
    angle = 2 * np.pi * ((hour[:, None] - 0.5) / 24 + longitude / 360 - 0.5)
    return 3600 * 1000 * np.maximum(0, np.cos(angle)) * (1 - 0.01 * (hour[:, None] // 24))


@pytest.mark.parametrize("longitude", [0.0, 90.0, 180.0, 270.0])
@pytest.mark.parametrize("every", [1, 3, 6])
def test_sunshine_by_the_hour_is_never_growth(longitude, every):
    times = np.datetime64("2020-03-01T01", "h") + np.arange(24 * 6) * HOUR
    keep = times.astype(int) % every == 0
    values = sunshine(times, np.full(4, longitude))[keep]
    groups = (times[keep] - np.timedelta64(1, "s")).astype("datetime64[D]").astype(int)
    manner, _ = look(groups, lambda rows: values[rows], True, False, 0.0)
    assert manner in (("each",) if every == 1 else ("each", "unknown"))


@pytest.mark.parametrize("longitude", [0.0, 90.0, 180.0, 270.0])
def test_sunshine_since_midnight_is_growth(longitude):
    times = np.datetime64("2020-03-01T01", "h") + np.arange(24 * 6) * HOUR
    values = sunshine(times, np.full(4, longitude)).reshape(6, 24, 4).cumsum(1).reshape(-1, 4)
    groups = np.repeat(np.arange(6), 24)
    assert look(groups, lambda rows: values[rows], True, False, 0.0)[0] == "growing"
    assert look(groups, lambda rows: -values[rows], True, True, 0.0)[0] == "growing"  # a flux away from the ground


def test_fluxes_of_both_signs_are_never_settled_by_falling():
    draw = np.random.default_rng(1).normal(size=(144, 5))
    assert look(np.repeat(np.arange(6), 24), lambda rows: draw[rows], True, True, 0.0)[0] == "unknown"
    assert look(np.repeat(np.arange(6), 24), lambda rows: np.abs(draw)[rows], True, False, 0.0)[0] == "each"


# --- what packing leaves ---


def read(path: Path, **settings) -> np.ndarray:
    """[time, lat, lon] of tp."""
    return open_files(path, ["tp"], **settings).state.values[:, 0]


def test_packing_noise_becomes_zero_and_real_negatives_are_refused(tmp_path):
    times, rain = hourly()
    rain[30:40, 0, 0] = 0  # no rain: the difference is noise alone
    values = grown(times, rain)
    packed = {"tp": {"dtype": "int16", "scale_factor": 2e-6, "add_offset": 0.03, "_FillValue": -32767}}
    noisy = values + np.random.default_rng(2).uniform(-9e-7, 9e-7, values.shape)
    path = write_netcdf(tmp_path / "packed.nc", land(times, noisy), encoding=packed)
    found = open_files(path, ["tp"], step="1h").state.values[:, 0]
    with netCDF4.Dataset(path) as file:
        stored = np.asarray(file["tp"][:], np.float64)
    plain = np.where((np.arange(len(times)) % 24 == 0)[:, None, None], stored, np.diff(stored, axis=0, prepend=0))
    assert (plain < 0).any()
    np.testing.assert_allclose(found, np.maximum(plain, 0), atol=1e-9)
    values[35:48, 0, 0] -= 1e-3  # a sum that falls by 1 mm within a day
    with pytest.raises(
        InputError, match=r"broken\.nc: the sum of tp that ends 2020-03-02T12 would be -0\.001.*source\.sums"
    ):
        read(write_netcdf(tmp_path / "broken.nc", land(times, values)), sums="since_midnight")


def test_packed_grib_tells_its_own_step(tmp_path):
    """Of two neighbouring steps of packing, one may be lower: the difference is nothing."""
    values = [np.full((4, 8), 3e-3), np.full((4, 8), 3e-3), np.full((4, 8), 3e-3)]
    values[0][0, 0], values[1][0, 0], values[2][0, 0] = 0.01, 0.01, 0.01
    values[1][1, 1] -= 1e-6
    message = lambda step: grib_message(  # noqa: E731
        "tp", 0, "surface", values=values[step // 6 - 1], stepType="accum", stepRange=f"0-{step}", bitsPerValue=12
    )
    path = tmp_path / "x.grib"
    path.write_bytes(message(6) + message(12) + message(18))
    found = open_files(path, ["tp"], step="6h").state.values[:, 0]
    assert found[1:].min() == 0
    values[1][1, 1] -= 1e-3
    path.write_bytes(message(6) + message(12) + message(18))
    with pytest.raises(InputError, match=r"which packing .* does not explain"):
        read(path, step="6h")


# --- forecasts ---


def run(start: int, steps: list[int], edition=1) -> bytes:
    """Sums since the start, at hour `start` of 2020-01-01: 1 mm in the first hour, 2 mm in the second, and so on."""
    keys = {"stepType": "accum"} if edition == 1 else {"productDefinitionTemplateNumber": 8}
    return b"".join(
        grib_message(
            "tp", 0, "surface", time=100 * start, edition=edition, **keys, stepRange=f"0-{step}",
            values=np.full((len(LATITUDE), len(LONGITUDE)), 1e-3 * step * (step + 1) / 2),
        )
        for step in steps
    )  # fmt: skip


def millimetres(first: int, last: int) -> float:
    return 1e-3 * sum(range(first + 1, last + 1))


@pytest.mark.parametrize("edition", [1, 2])
def test_since_the_start_of_a_forecast(tmp_path, edition):
    path = tmp_path / "x.grib"
    path.write_bytes(run(0, [6, 12, 18, 24], edition))
    data = open_files(path, ["tp"], step="6h")
    expected = [millimetres(6 * i, 6 * i + 6) for i in range(4)]
    np.testing.assert_allclose(data.state.values[:, 0, 0, 0], expected, rtol=1e-5)
    data = open_files(path, ["tp"], accumulation="12h")
    expected = [millimetres(0, 12), millimetres(6, 18), millimetres(12, 24)]
    np.testing.assert_allclose(data.state.values[:, 0, 0, 0], expected, rtol=1e-5)


def test_forecasts_that_overlap(tmp_path):
    """Of runs 12 h apart up to 18 h, the shortest lead; each difference is of one run."""
    path = tmp_path / "x.grib"
    path.write_bytes(run(0, [0, 6, 12, 18]) + run(12, [0, 6, 12, 18]))
    with pytest.raises(InputError, match=r"tp at 2020-01-01T18.*6h, 18h: choose one with source\.lead_time.*shortest"):
        open_files(path, ["tp"], step="6h")
    data = open_files(path, ["tp"], step="6h", lead_time="shortest")
    of_run = [millimetres(0, 6), millimetres(6, 12)]
    np.testing.assert_allclose(data.state.values[:, 0, 0, 0], [*of_run, *of_run, millimetres(12, 18)], rtol=1e-5)
    data = open_files(path, ["tp"], accumulation="6h", lead_time="18h")
    np.testing.assert_allclose(data.state.values[:, 0, 0, 0], [millimetres(12, 18)] * 2, rtol=1e-5)


def test_a_forecast_without_a_word_on_its_sums(tmp_path, caplog):
    steps = np.arange(3, 48, 3).astype("timedelta64[h]").astype("timedelta64[ns]")
    rain = np.random.default_rng(3).gamma(0.4, 1e-3, (1, 15, 4, 8))
    dims = ("time", "step", "latitude", "longitude")
    coords = {"time": [np.datetime64("2020-01-01", "ns")], "step": steps, "latitude": LATITUDE, "longitude": LONGITUDE}
    dataset = xr.Dataset({"tp": (dims, rain.cumsum(1), {"units": "m"})}, coords=coords)
    data = open_files(write_netcdf(tmp_path / "x.nc", dataset), ["tp"], step="3h")
    np.testing.assert_allclose(data.state.values[:, 0], rain[0], atol=1e-8)
    assert "tp holds sums since the start of the forecast" in caplog.text
    each = xr.Dataset({"tp": (dims, rain, {"units": "m"})}, coords=coords)
    path = write_netcdf(tmp_path / "y.nc", each)
    with pytest.raises(InputError, match=r"its times are 3h apart, but hourly sums of which only some were fetched"):
        open_files(path, ["tp"], step="3h")
    np.testing.assert_allclose(open_files(path, ["tp"], sums="3h").state.values[:, 0], rain[0], rtol=1e-6)


def test_states_of_a_file_that_does_not_say_its_sums(tmp_path):
    times, rain = hourly()
    path = write_netcdf(tmp_path / "x.nc", land(times[5:6], rain[5:6]))
    with pytest.raises(InputError, match=r"single time .*a name such as total_precipitation_6hr tells the span"):
        open_file_states([str(path)], ["tp"], accumulation=6)
    states = open_file_states([str(path)], ["tp"], accumulation=6, rules={"sums": "6h"})
    np.testing.assert_allclose(states.read(states.times, ["tp"])[0, 0, 0], rain[5], rtol=1e-6)


def test_growth_without_a_start_is_asked_about(tmp_path):
    """A forecast whose file keeps valid times only."""
    times, rain = hourly()
    path = write_netcdf(tmp_path / "x.nc", field("tp", "m", times=times.astype("datetime64[ns]")).assign(
        tp=(("time", "latitude", "longitude"), rain.cumsum(0), {"units": "m"})))  # fmt: skip
    with pytest.raises(InputError, match=r"its values \(every 1h\) never fall.*do not tell which start"):
        open_files(path, ["tp"], step="6h")
    with pytest.raises(InputError, match=r"source\.sums says since_start, but the start of the forecast is not told"):
        open_files(path, ["tp"], step="6h", sums="since_start")


def test_any_path_of_fields_is_the_wanted_sum():
    """Every combination of spans that reaches back far enough, against brute force."""
    draw = np.random.default_rng(8)
    rain = draw.random(48)
    start = np.datetime64("2020-01-01T00", "s")
    for _ in range(20):
        ends = np.sort(draw.choice(np.arange(1, 48), 42, replace=False))
        begins = np.where(draw.random(42) < 0.5, ends - 1, ends // 12 * 12 - 12 * (ends % 12 == 0))
        held = HeldSums.of(
            start + ends * np.timedelta64(3600, "s"),
            (ends - begins).astype(float),
            np.full(42, np.nan),
            np.ones(42, bool),
        )
        values = np.array([rain[a:b].sum() for a, b in zip(begins, ends, strict=True)])
        for hours in (1, 3, 6, 12):
            wanted = np.arange(hours, 48)
            terms = held.terms(start + wanted * np.timedelta64(3600, "s"), 3600 * hours, int(start.astype(int)))
            found = (values[terms.rows] * terms.signs).sum(1)
            expected = np.array([rain[b - hours : b].sum() for b in wanted])
            np.testing.assert_allclose(found[terms.complete], expected[terms.complete], atol=1e-12)
            assert terms.complete.any() or hours == 12


# --- end to end ---


def settings(tmp_path: Path, name: str, paths: list[Path], **more) -> DataConfig:
    source = {"kind": "files", "paths": [str(path) for path in paths]}
    return DataConfig.model_validate(
        {"store": str(tmp_path / name), "source": source, "channels": ["tp"], "step": "6h", "climatology_window": None}
        | more
    )


def test_prepared_appended_and_forecast_from(tmp_path):
    """The first sum of an appended day needs the day before; a store prepared at once has the same bytes of values."""
    times, rain = hourly(days=8)
    values = grown(times, rain)
    first = write_netcdf(tmp_path / "a.nc", land(times[:119], values[:119]))  # to 23 UTC of the fifth day
    second = write_netcdf(tmp_path / "b.nc", land(times[119:], values[119:]))
    prepare(settings(tmp_path, "store.zarr", [first]))
    store = append(settings(tmp_path, "store.zarr", [first, second]))
    whole = prepare(settings(tmp_path, "whole.zarr", [first, second]))
    np.testing.assert_array_equal(store.times, whole.times)
    everything = np.arange(len(store.times))
    np.testing.assert_array_equal(store.read(everything, ["tp"]), whole.read(everything, ["tp"]))
    expected = np.stack([window(times, rain, end, 6) for end in store.times.astype("datetime64[h]")])
    np.testing.assert_allclose(store.read(everything, ["tp"])[:, 0], expected, atol=3e-8)
    assert store.manifest["channels"][0]["accumulation_hours"] == 6
    assert store.manifest["source"]["attributes"]["accumulation"]["tp"]["source_sums"] == "since_midnight"
    states = open_file_states([str(first), str(second)], ["tp"], accumulation=6)
    np.testing.assert_array_equal(states.read(store.times, ["tp"])[:, 0, 0], store.read(everything, ["tp"])[:, 0])
