"""The simulated planet: contract, determinism, restart, physics and refusals."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from threading import Thread

import numpy as np
import pytest

from weatherfm.data_pipeline.planet import history as history_module
from weatherfm.data_pipeline.planet import simulation
from weatherfm.data_pipeline.planet.conditions import SHIPPED, SPIN_UP
from weatherfm.data_pipeline.planet.history import CHANNELS, History, planet_grid
from weatherfm.data_pipeline.source_config import PlanetSource
from weatherfm.data_pipeline.sources import open_source, planet
from weatherfm.data_pipeline.store_config import DataConfig, Period
from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError


@pytest.fixture(scope="module", autouse=True)
def _short_beginning():
    """Keep a day instead of weeks between the perturbation and the first day: the tests need no other weather."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_module, "DISCARDED_DAYS", 1)
        yield


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Three segments of one day, simulated in one go."""
    history = History(str(tmp_path_factory.mktemp("planet")), seed=0, segment_days=1)
    history.ensure(2)
    return history


@pytest.fixture(scope="module")
def days(history):
    """[12, channel, lat, lon] three days of weather."""
    return np.concatenate([read_all(history, i) for i in range(3)])


def read_all(history, index):
    return history.read(index, 0, history.segment_steps, tuple(range(len(CHANNELS))))


def settings(cache, **changes):
    source = {"kind": "planet", "cache": str(cache)}
    return DataConfig.model_validate(
        {"store": "s.zarr", "source": source, "channels": list(CHANNELS), "period": "2001-01-01/2001-01-02"} | changes
    )


def area_mean(fields):
    return (fields * planet_grid().area_weights).mean((-2, -1), dtype=np.float64)


def test_opens_as_the_contract_says(tmp_path):
    data = open_source(settings(tmp_path / "cache", static=["lsm", "orography"], period="2001-01-30/2001-02-02"))
    assert not (tmp_path / "cache").exists(), "opening must not simulate"
    assert data.simulated is True
    assert data.state.shape == (16, 33, 32, 64)
    assert data.state.dtype == np.float32
    assert data.state["channel"].values.tolist() == list(CHANNELS)
    assert data.state["time"].values[[0, 1, -1]].astype("datetime64[h]").astype(str).tolist() == [
        "2001-01-30T00",
        "2001-01-30T06",
        "2001-02-02T18",
    ]
    assert data.state.chunks[0] == (4, 12), "one chunk a month of history"
    assert Grid(data.state["latitude"].values, data.state["longitude"].values).periodic
    assert data.static["static"].values.tolist() == ["lsm", "orography"]
    assert set(np.unique(data.static.sel(static="lsm"))) == {0, 1}
    assert data.static.sel(static="orography").max() > 2500 * 9.8
    assert "not observations" in data.attributes["title"]
    assert "Held-Suarez" in data.attributes["source"]
    assert data.attributes["seed"] == 0


def test_thirty_three_channels_of_the_table():
    assert len(CHANNELS) == 33
    assert {parse_channel(name).units for name in CHANNELS} == {"m2 s-2", "K", "m s-1", "Pa"}


def test_state_reads_what_the_history_holds(tmp_path, monkeypatch, history, days):
    monkeypatch.setattr(planet, "open_history", lambda source: history)
    names = ["sp", "v300", "z500"]
    data = open_source(settings(tmp_path, channels=names, period="2001-01-02/2001-01-03"))
    expected = days[4:, [CHANNELS.index(name) for name in names]]
    np.testing.assert_array_equal(data.state.values, expected)
    np.testing.assert_array_equal(data.state.isel(time=[1, 6], channel=1).values, expected[[1, 6], 1])


def test_same_seed_gives_the_same_bytes_in_another_cache(tmp_path, history, days):
    again = History(str(tmp_path), seed=0, segment_days=3)  # and cut into other segments
    assert read_all(again, 0).tobytes() == days.tobytes()


def test_continuing_equals_one_go(tmp_path, history, days):
    for index in range(3):
        History(str(tmp_path), seed=0, segment_days=1).ensure(index)
    finished = [f"000{index}.{kind}" for index in range(3) for kind in ("npy", "state.npz")]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*finished, "start.npz"]
    for index in range(3):
        assert read_all(History(str(tmp_path), 0, 1), index).tobytes() == days[4 * index : 4 * index + 4].tobytes()


def test_interrupted_simulation_loses_one_segment(tmp_path, monkeypatch, history, days):
    broken, whole = History(str(tmp_path), seed=0, segment_days=1), history_module._run
    runs = []

    def run_three_times(*arguments):
        runs.append(arguments)
        if len(runs) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(history_module, "_run", run_three_times)
    with pytest.raises(KeyboardInterrupt):
        broken.ensure(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000.npy", "0000.state.npz", "start.npz"]
    assert read_all(broken, 2).tobytes() == days[8:].tobytes()
    assert len(runs) == 5, "the two segments that were missing, and no more"


def test_interrupted_write_leaves_nothing_behind(tmp_path):
    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        history_module._write(tmp_path / "0000.npy", fail)
    assert list(tmp_path.iterdir()) == []


def test_two_threads_simulate_once(tmp_path, monkeypatch):
    runs, whole = [], history_module._run
    monkeypatch.setattr(history_module, "_run", lambda *a: runs.append(a) or whole(*a))
    threads = [Thread(target=History(str(tmp_path), 0, 1).ensure, args=(index,)) for index in (0, 1, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 3, "the discarded day and two segments"


def test_seeds_are_other_histories_of_the_same_planet(tmp_path, days):
    other = read_all(History(str(tmp_path), seed=1, segment_days=1), 0)
    difference = other - days[:4]
    assert (np.abs(difference).max((0, 2, 3)) > 0).all(), "every channel differs"
    np.testing.assert_allclose(area_mean(other)[:, -1], area_mean(days[:4])[:, -1], atol=2)  # Pa: the same mass of air
    first, second = (planet.open_history(PlanetSource(kind="planet", seed=seed)).folder for seed in (0, 1))
    assert first != second


@pytest.mark.slow
def test_discarded_days_make_histories_independent(tmp_path, monkeypatch):
    monkeypatch.setattr(history_module, "DISCARDED_DAYS", 40)
    channel = CHANNELS.index("v300")
    first, second = (History(str(tmp_path / str(seed)), seed, 5).read(0, 0, 20, (channel,))[:, 0] for seed in (0, 1))
    difference = np.sqrt(area_mean((first - second) ** 2).mean())
    assert difference > 8  # m/s; 2.5 at the start, sqrt(2) * 7.4 = 10.5 between unrelated days


def test_values_are_possible_and_the_grid_is_filled(days):
    assert np.isfinite(days).all()
    for index, name in enumerate(CHANNELS):
        low, high = parse_channel(name).variable.bounds
        assert low < days[:, index].min() < days[:, index].max() < high, name


def test_geopotential_and_temperature_are_hydrostatic(days):
    upper, lower = CHANNELS.index("z400"), CHANNELS.index("z500")
    thickness = days[:, upper] - days[:, lower]
    warm = (days[:, CHANNELS.index("t400")] + days[:, CHANNELS.index("t500")]) / 2
    # the mean of both levels misses the kink of temperature at the layer centre between them by a few K at most
    np.testing.assert_allclose(thickness, 1004 * 2 / 7 * warm * np.log(500 / 400), rtol=0.01)


def test_jets_blow_in_mid_latitudes(days):
    wind = days[:, CHANNELS.index("u200")].mean((0, 2))  # [lat]
    latitude = planet_grid().latitude
    for half in (latitude > 0, latitude < 0):
        assert 20 < wind[half].max() < 60
        assert 20 < abs(latitude[half][wind[half].argmax()]) < 60
    assert wind[np.abs(latitude) < 5].max() < 15, "no jet on the equator"


def test_storms_move(days):
    wind = days[:, CHANNELS.index("v300")]
    assert 2 < np.sqrt(area_mean((wind[4:] - wind[:-4]) ** 2)).mean() < 15
    assert np.sqrt(area_mean((wind[1:] - wind[:-1]) ** 2)).mean() < 4, "6 hours change less than a day does"


def test_tropics_are_warm_and_mass_is_conserved(days):
    low = days[:, CHANNELS.index("t850")].mean((0, 2))
    assert low[15:17].mean() > low[[0, -1]].mean() + 25
    mass = area_mean(days[:, -1])
    assert 9.6e4 < mass.mean() < 1e5
    assert np.ptp(mass) < 2  # Pa; cell areas are not the quadrature by which the planet conserves its mass


def test_pressure_follows_the_ground(days):
    pressure = np.log(days[:, -1].mean(0))
    assert np.corrcoef(pressure.ravel(), SHIPPED.surface_geopotential().ravel())[0, 1] < -0.97


def test_shipped_ground_is_the_mountains():
    np.testing.assert_allclose(simulation.surface_geopotential(), SHIPPED.surface_geopotential(), atol=1)
    assert SPIN_UP.stat().st_size < 100_000


@pytest.mark.slow
def test_spin_up_starts_from_rest():
    state, _ = simulation.spin_up(days=1)
    shipped = history_module._load(SPIN_UP)
    assert {name: field.shape for name, field in state.items()} == {
        name: field.shape for name, field in shipped.items()
    }
    assert 0 < np.abs(state["vorticity"]).max() < 0.3 * np.abs(shipped["vorticity"]).max()


def test_damaged_cache_is_named_and_heals_when_deleted(tmp_path, days):
    history = History(str(tmp_path), seed=0, segment_days=1)
    history.ensure(1)
    (tmp_path / "0001.npy").write_bytes((tmp_path / "0001.npy").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"0001\.npy is damaged .* delete the file"):
        read_all(history, 1)
    (tmp_path / "0001.npy").unlink()
    assert read_all(history, 1).tobytes() == days[4:8].tobytes()
    with pytest.raises(InputError, match=r"shape \(4, .* not \(8, "):
        History(str(tmp_path), seed=0, segment_days=2).read(0, 0, 8, (0,))
    (tmp_path / "0001.state.npz").write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(InputError, match=r"0001\.state\.npz is damaged"):
        history.ensure(2)


def test_unstable_simulation_is_refused(tmp_path):
    fields = np.full((4, 33, 32, 64), np.nan, np.float32)
    with pytest.raises(InputError, match="seed 7 became unstable"):
        History(str(tmp_path), seed=7, segment_days=1)._save(0, {}, fields)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"period": None}, "say which days to keep"),
        ({"period": "2000-12-31/2001-01-05"}, "begins on 2001-01-01, but data.period is 2000-12-31/2001-01-05"),
        ({"step": "3h"}, "every 6 hours, but data.step is 3h"),
        ({"channels": ["z500", "q700", "t2m"]}, "no channel q700, t2m; it has z100,"),
    ],
)
def test_refusals(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        open_source(settings(tmp_path, **changes))


@pytest.mark.parametrize("step", ["6h", "12h", "24h"])
def test_multiples_of_six_hours_are_welcome(tmp_path, step):
    assert open_source(settings(tmp_path, step=step)).state.sizes["time"] == 8  # thinning is prepare's work


def test_missing_dycore_is_named(tmp_path, monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(planet, "version", absent)
    with pytest.raises(InputError, match=r"dinosaur-dycore, which is not installed; pip install 'weatherfm\[demo\]'"):
        open_source(settings(tmp_path))


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        PlanetSource(kind="planet", seed=-1)


def test_long_period_crosses_leap_days(tmp_path):
    data = open_source(settings(tmp_path, period=Period.model_validate("2003-12-31/2004-12-31")))
    assert data.state.sizes["time"] == 367 * 4
    assert data.state["time"].values[-1] == np.datetime64("2004-12-31T18:00")
