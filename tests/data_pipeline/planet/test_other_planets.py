"""Other planets: their ground and climate, and that the shipped one stays what it was."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest

from weatherfm.data_pipeline.planet import history as history_module
from weatherfm.data_pipeline.planet import simulation
from weatherfm.data_pipeline.planet.conditions import SHIPPED, SPIN_UP, Conditions
from weatherfm.data_pipeline.planet.history import CHANNELS, History
from weatherfm.data_pipeline.planet.levels import GAS_CONSTANT
from weatherfm.data_pipeline.source_config import PlanetSource
from weatherfm.data_pipeline.sources import open_source, planet
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.writing.new_manifest import content_settings, with_defaults
from weatherfm.errors import InputError

DAYS = 3
OTHERS = [{"mountains": 1.5}, {"turn": 90.0}, {"turn": 90.1}, {"contrast": 45.0}, {"mountains": 0.0, "contrast": 45.0}]


def settings(**conditions):
    source = {"kind": "planet", **conditions}
    return DataConfig.model_validate(
        {"store": "s.zarr", "source": source, "channels": ["t850"], "period": "2001-01", "static": ["lsm", "orography"]}
    )


def world(**conditions):
    """As the manifest of a store has it."""
    source = {"request": content_settings(settings(**conditions))["source"]}
    return Store.world.fget(SimpleNamespace(manifest={"source": source}, simulated=True))


@pytest.fixture(scope="module")
def shipped_and_other(tmp_path_factory):
    """Two [12, channel, lat, lon]: days 2 to 4 of the shipped planet, and of one of larger contrast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_module, "DISCARDED_DAYS", 1)
        patch.setattr(history_module, "DISCARDED_DAYS_ELSEWHERE", 1)
        histories = (
            History(str(tmp_path_factory.mktemp("planet")), 0, DAYS, conditions)
            for conditions in (SHIPPED, Conditions(contrast=90))
        )
        return [history.read(0, 0, 4 * DAYS, tuple(range(len(CHANNELS)))) for history in histories]


@pytest.mark.parametrize("given", [{}, {"mountains": 1, "turn": 0, "contrast": 60}])
def test_without_settings_all_is_as_before(given):
    source = PlanetSource(kind="planet", **given)
    assert source.model_dump(exclude={"cache"}) == {"kind": "planet", "seed": 0}
    assert content_settings(settings(**given))["source"] == {"kind": "planet", "seed": 0}
    assert world(**given) == "simulated cb06a6ece77faca4"
    history = planet.open_history(source)
    assert re.search(r"/planet/v1-3e8d6869-dinosaur[0-9.]+/seed0$", history.folder)
    assert history.conditions == SHIPPED
    with np.load(SPIN_UP) as saved:
        assert history.conditions.surface_geopotential().tobytes() == saved["surface_geopotential"].tobytes()
    attributes = open_source(settings(**given)).attributes
    assert not {"mountains", "turn", "contrast"} & set(attributes)
    assert attributes["title"].startswith("Simulated planet: a dry atmosphere")
    assert "over idealised mountains, without moisture" in attributes["source"]


def test_others_are_other_worlds_in_other_folders():
    names = [{}, {"seed": 1}, *OTHERS]
    assert len({world(**given) for given in names}) == len(names)
    assert len({planet.open_history(PlanetSource(kind="planet", **given)).folder for given in names}) == len(names)
    given = {"seed": 2, "mountains": 1.4, "turn": 200}
    assert content_settings(settings(**given))["source"] == {"kind": "planet", **given}
    assert with_defaults(content_settings(settings(**given))) == content_settings(settings(**given))
    folder = planet.open_history(PlanetSource(kind="planet", **given)).folder
    assert folder.endswith("/mountains1.4-turn200.0-contrast60.0/seed2")


def test_their_provenance_tells_the_conditions():
    attributes = open_source(settings(turn=200, contrast=50)).attributes
    for name in ("title", "source"):
        assert "(mountains 1, turn 200, contrast 50)" in attributes[name]
    assert [attributes[name] for name in ("mountains", "turn", "contrast")] == [1, 200, 50]


def test_static_fields_are_those_of_the_planet_asked_for():
    shipped, half, bare = (open_source(settings(mountains=factor)).static for factor in (1, 0.5, 0))
    np.testing.assert_allclose(half.sel(static="orography"), shipped.sel(static="orography") / 2, rtol=1e-6)
    assert 0 < half.sel(static="lsm").sum() < shipped.sel(static="lsm").sum()
    assert not bare.any()


@pytest.mark.parametrize("columns", [1, 16, 63])
def test_mountains_turn_eastward(columns):
    """By whole grid steps of 5.625 degrees they are the same numbers further right, and in two turns as in one."""
    shipped = SHIPPED.surface_geopotential()
    turned = Conditions(turn=5.625 * columns).surface_geopotential()
    np.testing.assert_allclose(turned, np.roll(shipped, columns, axis=1), atol=0.02)
    half = Conditions(turn=5.625 * columns / 2).surface_geopotential()
    assert np.abs(half - shipped).max() > 500
    np.testing.assert_allclose(half.mean(1), shipped.mean(1), atol=0.02)
    np.testing.assert_allclose((half**2).mean(1), (shipped**2).mean(1), rtol=1e-4)


def test_a_turn_between_grid_points_moves_each_mountain(monkeypatch):
    """The mountains of the simulation with their longitudes changed, sampled and truncated anew."""
    further = tuple((top, north, east + 33.3, *sizes) for top, north, east, *sizes in simulation.MOUNTAINS)
    monkeypatch.setattr(simulation, "MOUNTAINS", further)
    expected = simulation.surface_geopotential()
    np.testing.assert_allclose(Conditions(turn=33.3).surface_geopotential(), expected, atol=20)


@pytest.mark.slow
def test_another_contrast_is_another_climate(shipped_and_other):
    """Poles are drawn to air 30 K colder, over 40 days: in three days by 2 K; the equator is not."""
    low = [days[-4:, CHANNELS.index("t850")].mean((0, 2)) for days in shipped_and_other]
    equator, poles = (low[1] - low[0])[15:17].mean(), (low[1] - low[0])[[0, 1, -2, -1]].mean()
    assert poles < -1
    assert abs(equator) < 0.5


def test_air_is_moved_with_the_ground():
    """Mean sea-level pressure stays, so that nothing rushes down where a mountain was."""
    surface = Conditions(turn=90, mountains=1.5).surface_geopotential()
    planet, state = simulation.Planet(surface), history_module._load(SPIN_UP)
    rise = surface - SHIPPED.surface_geopotential()
    moved = planet.raised(state, rise)
    assert moved.keys() == state.keys()
    assert all(moved[name] is state[name] for name in ("vorticity", "divergence", "temperature_variation"))
    before, after = (planet._fields(simulation.State(**each))[3] for each in (state, moved))
    np.testing.assert_allclose(after, before * np.exp(-rise / (GAS_CONSTANT * 288)), rtol=1e-5)


def test_another_planet_begins_on_its_ground_and_throws_more_days_away(tmp_path, monkeypatch):
    runs, rises, surface = [], [], np.zeros((32, 64))
    still = history_module._load(SPIN_UP)
    stub = SimpleNamespace(
        sigma=None, perturbed=lambda state, seed: state, raised=lambda state, rise: rises.append(rise) or state
    )
    monkeypatch.setattr(history_module, "_run", lambda planet, state, days, _: runs.append(days) or (still, None))
    monkeypatch.setattr(history_module, "_planet", lambda conditions: (stub, surface))
    monkeypatch.setattr(history_module, "pressure_channels", lambda *_: np.zeros(1))
    for name, conditions in (("shipped", SHIPPED), ("other", Conditions(mountains=0))):
        History(str(tmp_path / name), 0, 1, conditions).ensure(0)
    assert runs == [40, 1, 120, 1]
    np.testing.assert_array_equal(rises, [-SHIPPED.surface_geopotential()])


def test_one_that_blows_up_is_told_with_its_conditions(tmp_path):
    history = History(str(tmp_path), 7, 1, Conditions(turn=12.5, contrast=90))
    message = "mountains 1, turn 12.5, contrast 90, seed 7 became unstable; choose another seed or milder conditions"
    with pytest.raises(InputError, match=message):
        history._save(0, {}, np.full(3, np.nan))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mountains": -0.1}, "mountains.*greater than or equal to 0"),
        ({"mountains": 2.1}, "mountains.*less than or equal to 2"),
        ({"turn": -90}, "turn.*greater than or equal to 0"),
        ({"turn": 360}, "turn.*less than 360"),
        ({"turn": float("nan")}, "turn"),
        ({"contrast": 20}, "contrast.*greater than or equal to 30"),
        ({"contrast": 91}, "contrast.*less than or equal to 90"),
        ({"mountains": 0, "turn": 90}, "mountains: 0 leaves nothing to turn, but turn is 90; leave it out"),
    ],
)
def test_conditions_out_of_range_are_refused(given, message):
    with pytest.raises((ValueError, InputError), match=f"(?s){message}"):
        PlanetSource(kind="planet", **given)
