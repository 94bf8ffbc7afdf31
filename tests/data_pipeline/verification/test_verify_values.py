"""Every fault that a source can bring into a store is found and named; sound stores and real weather have none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from moving_weather import CHANNELS, GRID, TIMES, weather, weather_store

from weatherfm.cli import run_command
from weatherfm.data_pipeline.fields.plausible import plausible_bounds, suspect_units
from weatherfm.data_pipeline.store_config import Period
from weatherfm.data_pipeline.verification.changes import usual_change
from weatherfm.data_pipeline.verification.turned_fields import explain
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.variables import GRAVITY, parse_channel
from weatherfm.errors import InputError

Z, T, MSL = range(3)
FIRST, LAST = 100, 130  # 2000-01-26T00 .. 2000-02-02T06


def found(path, **settings) -> list[tuple[str, str, str]]:
    return [(p.severity, p.kind, p.message) for p in verify(path, **settings).problems]


def test_the_size_of_the_pieces_does_not_change_what_is_found(tmp_path, monkeypatch):
    path = weather_store(tmp_path / "s.zarr", _range(T, lambda x: x[:, ::-1]))
    at_once = verify(path)
    monkeypatch.setattr("weatherfm.data_pipeline.verification.field_stream.MEMORY", 1)  # one time after the other
    monkeypatch.setattr("weatherfm.data_pipeline.verification.channel_scan._PIECE_VALUES", 1)
    one_by_one = verify(path)
    assert one_by_one.problems == at_once.problems
    for row, other in zip(one_by_one.channels, at_once.channels, strict=True):
        assert row.pop("mean") == pytest.approx(other.pop("mean"), rel=1e-12)  # float64 sums in another order
        assert row.pop("std") == pytest.approx(other.pop("std"), rel=1e-9)
        assert row == other


@pytest.mark.parametrize("simulated", [False, True])
def test_sound_weather_has_no_findings(tmp_path, simulated):
    report = verify(weather_store(tmp_path / "s.zarr", simulated=simulated))
    assert report.problems == []
    assert [row["name"] for row in report.channels] == list(CHANNELS)
    values = weather()[:, T]
    row = report.channels[T]
    assert (row["minimum"], row["maximum"]) == (values.min(), values.max())
    np.testing.assert_allclose(row["std"], values.astype(float).std(), rtol=1e-9)
    assert row["missing"] == 0
    assert 1 < row["largest_jump"] < 2
    assert report.coverage["count"] == len(TIMES)


def _convert(channel, function):
    def spoil(values):
        values[:, channel] = function(values[:, channel])

    return spoil


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (_convert(T, lambda x: x - 273.15), "units", "possible on Earth is 180 to 325: looks like degrees Celsius"),
        (_convert(MSL, lambda x: x / 100), "units", "possible on Earth is 85000 to 110000: looks like hPa"),
        (_convert(Z, lambda x: x / GRAVITY), "units", "looks like metres (geopotential height)"),
        (_convert(Z, lambda x: x + 1e5), "range", "wrong units or damaged"),
    ],
    ids=["celsius", "hpa", "gpm", "damaged"],
)
def test_wrong_units_of_the_whole_record(tmp_path, spoil, kind, message):
    (problem,) = verify(weather_store(tmp_path / "s.zarr", spoil)).problems
    assert (problem.severity, problem.check, problem.kind) == ("error", "range", kind)
    assert message in problem.message
    assert problem.times[0].count == len(TIMES)


def _range(channel, function):
    def spoil(values):
        values[FIRST:LAST, channel] = function(values[FIRST:LAST, channel])

    return spoil


WHEN = "2000-01-26T00 .. 2000-02-02T06 (30 steps)"


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (_range(T, lambda x: x[:, ::-1]), "flipped", f"t850 has its latitudes upside down at {WHEN}"),
        (_range(T, lambda x: np.roll(x, 4, 1)), "swapped", "t850 has its northern and southern half swapped at"),
        (_range(Z, lambda x: np.roll(x, 8, 2)), "rolled", f"z500 is rolled by half of the longitudes at {WHEN}"),
        (_range(MSL, lambda x: x[:, :, ::-1]), "mirrored", f"msl has its longitudes in reverse at {WHEN}"),
        (_range(T, lambda x: x - 273.15), "units", f"t850 is in degrees Celsius at {WHEN}"),
        (_range(MSL, lambda x: x / 100), "units", f"msl is in hPa at {WHEN}"),
        (_range(Z, lambda x: x / GRAVITY), "units", f"z500 is in metres (geopotential height) at {WHEN}"),
    ],
    ids=["flipped", "swapped", "rolled", "mirrored", "celsius", "hpa", "gpm"],
)
def test_fields_turned_or_in_other_units_for_a_week(tmp_path, spoil, kind, message):
    problems = [p for p in verify(weather_store(tmp_path / "s.zarr", spoil)).problems if p.check == "changes"]
    assert [(p.severity, p.kind) for p in problems] == [("error", kind)]
    assert problems[0].message.startswith(message)
    assert problems[0].times[0].count == LAST - FIRST


def test_a_turn_without_end_says_so(tmp_path):
    def spoil(values):
        values[FIRST:, T] = values[FIRST:, T, ::-1]

    ((_, kind, message),) = found(weather_store(tmp_path / "s.zarr", spoil))
    assert kind == "flipped"
    assert message == "t850 has its latitudes upside down from 2000-01-26T00 on, or it is the fields before"


def test_units_that_change_back_begin_at_the_start(tmp_path):
    def spoil(values):
        values[:FIRST, MSL] = values[:FIRST, MSL] / 100

    path = weather_store(tmp_path / "s.zarr", spoil)
    messages = [m for _, kind, m in found(path) if kind == "units"]
    assert messages[1] == "msl is in hPa at 2000-01-01T00 .. 2000-01-25T18 (100 steps)"


def test_stuck_fields_are_named_by_time(tmp_path):
    def spoil(values):
        values[FIRST : FIRST + 3, Z] = values[FIRST - 1, Z]
        values[200, Z] = values[199, Z]

    ((severity, kind, message),) = found(weather_store(tmp_path / "s.zarr", spoil))
    assert (severity, kind) == ("error", "stuck")
    assert message == (
        "z500 is stuck: 4 fields repeat the one before, at 2000-01-26T00 .. 2000-01-26T12 (3 steps), 2000-02-20T00"
    )


def test_one_strange_field_is_one_finding(tmp_path):
    def spoil(values):
        values[FIRST, T] += 15 * np.random.default_rng(1).standard_normal(GRID.shape)

    ((severity, kind, message),) = found(weather_store(tmp_path / "s.zarr", spoil))
    assert (severity, kind) == ("warning", "jump")
    assert message.startswith("t850 jumps at 2000-01-26T00: ")
    assert "times the usual change" in message
    assert message.endswith("the next field jumps back: this one is unlike both")


def test_a_mean_that_shifts_is_a_jump(tmp_path):
    def spoil(values):
        values[FIRST:, T] += 20

    ((severity, kind, message),) = found(weather_store(tmp_path / "s.zarr", spoil))
    assert (severity, kind) == ("warning", "jump")
    before, after = map(float, message.split("area mean ")[1].split(" to "))
    assert after - before == pytest.approx(20, abs=1)  # the weather itself changes by less


def test_a_uniform_field(tmp_path):
    def spoil(values):
        values[FIRST, MSL] = 1.01e5

    problems = found(weather_store(tmp_path / "s.zarr", spoil))
    assert ("error", "uniform", "msl is the same everywhere (101000 Pa) at 2000-01-26T00") in problems


def test_impossible_at_this_level_is_possible_at_another():
    for name, low, high in (("z500", 4.5e4, 6.0e4), ("t850", 200, 320), ("q500", 0, 0.012), ("u250", -90, 130)):
        bounds = plausible_bounds(parse_channel(name))
        assert bounds[0] <= low < high <= bounds[1]
    assert plausible_bounds(parse_channel("z700"))[1] < 4.4e4 <= plausible_bounds(parse_channel("z500"))[0]
    assert plausible_bounds(parse_channel("t2m")) == parse_channel("t2m").variable.bounds
    assert plausible_bounds(parse_channel("z5"))[0] < plausible_bounds(parse_channel("z1"))[0]


@pytest.mark.parametrize(
    ("channel", "low", "high", "units"),
    [
        ("t2m", -60.0, 45.0, "degrees Celsius"),
        ("sp", 500.0, 1050.0, "hPa"),
        ("z500", 480.0, 600.0, "decametres (geopotential height)"),
        ("q850", 1e-2, 20.0, "g/kg"),
        ("tp", 0.0, 80.0, "millimetres"),
        ("siconc", 0.0, 100.0, "per cent"),
        ("u10", -900.0, 900.0, None),
    ],
)
def test_units_that_give_themselves_away(channel, low, high, units):
    assert suspect_units(parse_channel(channel), low, high) == units


def test_bounds_hold_real_states(real_data):
    xr = pytest.importorskip("xarray")
    (file,) = (real_data / "era5_global_state").glob("*.nc")
    with xr.open_dataset(file) as data:
        for variable, name in (("geopotential", "z"), ("temperature", "t"), ("u_component_of_wind", "u"),
                               ("v_component_of_wind", "v"), ("specific_humidity", "q")):  # fmt: skip
            for level in data["level"].values:
                field = data[variable].sel(level=level)
                low, high = plausible_bounds(parse_channel(f"{name}{level}"))
                assert low < float(field.min()), (name, level)
                assert float(field.max()) < high, (name, level)


def test_usual_change_by_hour_of_day_and_over_gaps():
    times = TIMES[:80].astype("datetime64[s]")
    change = np.where(np.arange(80) % 4 == 2, 8.0, 1.0)  # 12 UTC changes most, every day
    change[0] = np.nan
    usual = usual_change(change, times, 6)
    assert usual is not None
    np.testing.assert_allclose(usual.ratio[1:], 1)
    change[41] = 8.0
    assert usual_change(change, times, 6).ratio[41] == pytest.approx(8)
    gap = np.r_[times[:40], times[40:] + np.timedelta64(18, "h")]  # four steps at once
    assert usual_change(np.ones(80), gap, 6).ratio[40] == pytest.approx(0.5)
    assert usual_change(change[:8], times[:8], 6) is None


def test_rain_that_starts_is_no_change_of_units():
    rng = np.random.default_rng(0)
    dry, wet = 1e-4 * rng.random(GRID.shape), 0.02 * rng.random(GRID.shape)
    weights = GRID.area_weights / GRID.area_weights.sum()
    assert explain(dry, wet, "tp", weights, usual=1e-4) is None
    kind, what, begins = explain(wet, 1000 * wet, "tp", weights, usual=1e-4)
    assert (kind, what, begins) == ("units", "is in millimetres", True)


def test_dry_days_and_daily_analyses_may_repeat():
    from weatherfm.data_pipeline.verification.changes import _check_repeats
    from weatherfm.data_pipeline.verification.channel_scan import ChannelScan
    from weatherfm.data_pipeline.verification.report import VerifyReport

    class Store:
        channels, times, step_hours = ("tp", "sst", "t2m"), TIMES, 6

    scan = ChannelScan.__new__(ChannelScan)
    scan.change = np.ones(len(TIMES), np.float32)
    scan.change[5:8] = 0  # 18 hours
    scan.low = scan.high = np.zeros(len(TIMES), np.float32)
    report = VerifyReport("s")
    for channel in range(3):
        _check_repeats(Store(), report, channel, scan)
    assert [p.channel for p in report.problems] == ["t2m"]


def test_seasons_turned_round(tmp_path):
    times = np.datetime64("2000-01-01", "ns") + np.arange(366) * np.timedelta64(24, "h")
    settings = {"train": "2000", "test": None}
    assert found(weather_store(tmp_path / "a.zarr", times=times, **settings)) == []

    def swap(values):
        values[:] = np.roll(values, 4, axis=2)

    problems = found(weather_store(tmp_path / "b.zarr", swap, times=times, **settings))
    assert [(severity, kind) for severity, kind, _ in problems] == [("error", "season")] * 2
    assert "t850 has its seasons turned round" in problems[1][2]


def test_gap_is_reported_by_time(tmp_path):
    times = np.delete(TIMES, [10, 11, 12, 50])
    report = verify(weather_store(tmp_path / "s.zarr", times=times, allow_gaps=True))
    (problem,) = report.problems
    assert (problem.severity, problem.kind) == ("warning", "gap")
    message = "4 steps of 6h are missing: 2000-01-03T12 .. 2000-01-04T00 (3 steps), 2000-01-13T12"
    assert problem.message == message
    assert [run["count"] for run in report.coverage["missing"]] == [3, 1]


def test_leap_day_missing(tmp_path):
    times = TIMES[TIMES.astype("datetime64[D]") != np.datetime64("2000-02-29")]
    problems = found(weather_store(tmp_path / "s.zarr", times=times, allow_gaps=True))
    assert [(severity, kind) for severity, kind, _ in problems] == [("warning", "gap"), ("error", "leap day")]
    assert "leap day missing: 2000-02-29; its neighbours are there" in problems[1][2]


def test_sample_sees_the_range_but_no_changes(tmp_path):
    def spoil(values):
        values[FIRST:LAST, T] -= 273.15

    path = weather_store(tmp_path / "s.zarr", spoil)
    assert [kind for _, kind, _ in found(path, sample=40)] == ["units"]
    with pytest.raises(InputError, match="a sample of 0 times checks nothing"):
        verify(path, sample=0)


def test_json_is_for_programs(tmp_path):
    report = verify(weather_store(tmp_path / "s.zarr", _range(T, lambda x: x[:, ::-1])))
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["format"] == "weatherfm verify 1"
    assert data["identity"] == json.loads((tmp_path / "s.zarr" / "manifest.json").read_text())["checksum"]
    (problem,) = data["problems"]
    assert problem["channel"] == "t850"
    assert problem["times"] == [{"start": "2000-01-26T00", "end": "2000-02-02T06", "count": 30}]
    assert Period.model_validate(data["coverage"]["periods"]["train"])


def test_the_command_writes_findings_and_prints_nothing_but_json(tmp_path, capsys):
    path = str(weather_store(tmp_path / "s.zarr", _range(T, lambda x: x[:, ::-1])))
    file = tmp_path / "out" / "verify.json"
    assert run_command(["verify", path, "--json", "--output", str(file)]) == 1
    assert json.loads(capsys.readouterr().out) == json.loads(file.read_text())
    assert [p.name for p in file.parent.iterdir()] == ["verify.json"]
    assert run_command(["verify", path, "--sample", "20"]) == 0
    assert "20 of 300 times read" in capsys.readouterr().out


def test_real_weather_has_no_findings(real_data, tmp_path):
    from weatherfm.config import parse_settings
    from weatherfm.data_pipeline.prepare import prepare
    from weatherfm.data_pipeline.store_config import DataConfig

    paths = [str(real_data / "era_interim_europe" / "*.nc")]
    source = {"kind": "files", "paths": paths, "levels": {"z": 500, "t": 850}}
    settings = {"store": str(tmp_path / "s.zarr"), "source": source, "channels": list(CHANNELS)}
    prepare(parse_settings(DataConfig, settings, "test"))
    assert verify(tmp_path / "s.zarr").problems == []  # eleven years of days, storms and all
