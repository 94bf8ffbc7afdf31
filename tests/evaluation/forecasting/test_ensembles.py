"""Ensembles: members by noise and by weights are what each alone would be, however they are batched."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import member_weights
import numpy as np
import pytest
import torch
import toy_run
import xarray as xr
from member_weights import by_hand, fields

import weatherfm
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT

INITS = ["2000-01-03T00", "2000-01-07T06", "2000-01-20T18"]
SAME = {"rtol": 1e-6, "atol": 1e-5}  # 54,000 m2 s-2 in single precision are exact to 4e-6 of a spread
DIRECT, ROLLED = [(0, 6), (0, 12), (0, 18)], [(0, 6), (6, 6), (12, 6)]


def make(models, store, mode="direct", init=INITS, **settings) -> xr.Dataset:
    rollout = None if mode == "direct" else "6h"
    return weatherfm.forecast(
        models, store, ["6h", "12h", "18h"], init, rollout, mode=mode, init_every="6h", **settings
    )


def steps_of(mode: str):
    return DIRECT if mode == "direct" else ROLLED


@pytest.mark.parametrize("mode", ["direct", "rollout"])
@pytest.mark.parametrize("name", ["noisy", "other"])
def test_every_member_is_what_a_model_makes_of_its_noise(store, load, name, mode):
    model = load(name)
    ensemble = make(model, store, mode, members=3, seed=5)
    assert ensemble["geopotential"].dims == ("init_time", "number", "lead_time", "level", "latitude", "longitude")
    assert ensemble["number"].values.tolist() == [0, 1, 2]
    made = fields(ensemble)
    for i, init in enumerate(INITS):
        for member in range(3):
            # of direct steps each lead time has the noise of hour 0
            expected = [by_hand(model, store, init, [step], member, 5)[0] for step in DIRECT]
            if mode == "rollout":
                expected = by_hand(model, store, init, ROLLED, member, 5)
            np.testing.assert_allclose(made[i, member], expected, **SAME)
    assert np.abs(made[:, 0] - made[:, 1]).mean() > 0.01


@pytest.mark.parametrize("mode", ["direct", "rollout", "mean"])
def test_sixteen_members_are_the_same_in_any_groups(store, load, mode):
    model = load("noisy")
    whole = fields(make(model, store, mode, members=16, batch_size=48))
    for size in (1, 4, 6, 32):  # members alone, in fours, in unequal groups; whole initial times, and a rest
        np.testing.assert_allclose(fields(make(model, store, mode, members=16, batch_size=size)), whole, **SAME)
    for i, init in enumerate(INITS):
        alone = fields(make(model, store, mode, init, members=16, batch_size=4))
        np.testing.assert_allclose(alone[0], whole[i], **SAME)
    few = fields(make(model, store, mode, members=3))
    np.testing.assert_allclose(few, whole[:, :3], **SAME)


def test_the_seed_decides(store, load):
    model = load("noisy")
    first, again, other = (fields(make(model, store, members=2, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.01


def test_larger_noise_is_the_same_to_the_network_as_larger_weights_of_it(store, load):
    model, louder = load("noisy"), load("noisy")
    with torch.no_grad():
        louder.noising.expand.weight[:, -model.config.noise :] *= 1.5
    expected = make(louder, store, "rollout", members=2, seed=1)
    made = make(model, store, "rollout", members=2, seed=1, noise_scale=1.5)
    np.testing.assert_allclose(fields(made), fields(expected), **SAME)
    assert json.loads(made.attrs["provenance"])["members"]["noise_scale"] == 1.5
    assert "noise_scale" not in json.loads(expected.attrs["provenance"])["members"]


@pytest.mark.parametrize("mode", ["direct", "rollout", "mean"])
def test_members_of_several_weights_are_each_ones_own_forecast(store, load, mode):
    """Of other widths, depths, patches, input times and inputs, in another order of channels."""
    models = [load(name) for name in ("plain", "early", "other")]
    made = fields(make(models, store, mode))
    assert made.shape[1] == 3
    for number, model in enumerate(models):
        if not model.config.noise:
            np.testing.assert_allclose(made[:, [number]], fields(make(model, store, mode)), **SAME)
    alone = [by_hand(models[2], store, init, ROLLED, 2) for init in INITS]  # its noise is that of member 2
    if mode == "rollout":
        np.testing.assert_allclose(made[:, 2], alone, **SAME)


def test_numbers_run_through_several_weights(store, load):
    models = [load("noisy"), load("other")]
    made = fields(make(models, store, "rollout", members=2, seed=3, batch_size=5))
    for i, init in enumerate(INITS):
        for number, model in enumerate([models[0], models[0], models[1], models[1]]):
            np.testing.assert_allclose(made[i, number], by_hand(model, store, init, ROLLED, number, 3), **SAME)


def test_a_model_with_noise_alone_forecasts_without_and_says_so(store, load, caplog):
    model = load("noisy")
    with caplog.at_level(logging.WARNING):
        single = make(model, store)
    assert "number" not in single.dims
    assert "this model takes noise, and no members are asked for: a single forecast without noise" in caplog.text
    assert json.loads(single.attrs["provenance"])["noise"] == "zeros"
    for i, init in enumerate(INITS):
        expected = [by_hand(model, store, init, [step], None)[0] for step in DIRECT]
        np.testing.assert_allclose(fields(single)[i, 0], expected, **SAME)


def test_the_mean_is_that_of_direct_and_rolled_forecasts(store, load):
    model = load("plain")
    direct, rolled, mean = (fields(make(model, store, mode)) for mode in ("direct", "rollout", "mean"))
    np.testing.assert_allclose(mean, (direct + rolled) / 2, **SAME)
    assert np.abs(direct - rolled)[:, :, 1:].mean() > 1e-3
    record = json.loads(make(model, store, "mean").attrs["provenance"])
    assert (record["mode"], record["rollout_step_hours"]) == ("mean", 6)


def test_untrained_steps_of_both_are_told(store, load, caplog):
    made = weatherfm.forecast(load("plain"), store, ["24h", "48h"], INITS[0], "24h", mode="mean")
    assert "not trained for steps of 24h, 48h, only of 6h, 12h, 18h" in caplog.text
    assert json.loads(made.attrs["provenance"])["untrained_steps_hours"] == [24, 48]


class Members:
    """Three states at each time, of numbers that are none of 0, 1, 2."""

    name, simulated, source, numbers = "three members", True, {"kind": "members"}, (4, 7, 9)

    def __init__(self, store) -> None:
        self.store, self.channels, self.grid, self.times = store, tuple(store.channels), store.grid, store.times

    def read(self, times, channels):
        values = self.store.read(self.store.index_of(times), channels)
        return np.stack([values + 0.1 * i for i in range(3)], axis=1)


def test_each_member_of_the_states_has_noise_of_its_own(store, load):
    model = load("noisy")
    made = make(model, Members(store), "rollout", batch_size=2)
    assert made["number"].values.tolist() == [4, 7, 9]
    change = 0.1 / model.std[:, None, None]
    for i, number in enumerate((4, 7, 9)):
        expected = by_hand(model, store, INITS[1], ROLLED, number, change=i * change)
        np.testing.assert_allclose(fields(made)[1, i], expected, rtol=1e-5, atol=1e-4)  # 0.1 added in float32
    assert json.loads(made.attrs["provenance"])["members"] == {"of_states": True, "seed": 0, "noise": 4}


def test_members_of_members_are_refused(store, load):
    with pytest.raises(InputError, match="three members has 3 members already: leave members out"):
        make(load("noisy"), Members(store), members=2)


def test_what_the_record_tells(store, load, folder):
    record = json.loads(make([load("noisy"), load("other")], store, members=2, seed=9).attrs["provenance"])
    assert record["members"] == {"each": 2, "seed": 9, "noise": [4, 3]}
    assert [told["width"] for told in record["model"]] == [16, 8]
    assert record["training"] == [member_weights.PROVENANCE] * 2
    hashes = [weatherfm.model.weights.weights_hash(folder / f"{name}.safetensors") for name in ("noisy", "other")]
    assert record["weights_sha256"] == hashes
    alone = json.loads(make(load("noisy"), store, members=2).attrs["provenance"])
    assert (alone["members"], alone["weights_sha256"]) == ({"each": 2, "seed": 0, "noise": 4}, hashes[0])


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        ("plain", {"members": 16}, "all 16 members of the model would be the same: it takes no noise"),
        (["plain", "early"], {"members": 2}, "all 2 members of model 0 would be the same"),
        ("noisy", {"members": 1}, "one member is a single forecast: ask for 2 members or more"),
        ("noisy", {"members": 0}, "one member is a single forecast"),
        ("noisy", {"members": -3}, "one member is a single forecast"),
        (["noisy"], {}, "forecast.members is model 0 alone, one member, which is a single forecast"),
        (["noisy"], {"members": 0}, "members.each: input should be greater than or equal to 1"),
        ("plain", {"members": 4, "dropout": True}, "the model was trained with neither dropout nor drop_path"),
        (["dropping", "plain"], {"dropout": True}, "model 1 was trained with neither dropout nor drop_path"),
        ("dropping", {"dropout": True}, "forecast.dropout makes members of an ensemble differ, and there are none"),
        ("plain", {"perturbation": {"amplitude": 0.1}}, "forecast.perturbation makes members of an ensemble differ"),
        ("plain", {"members": 2, "perturbation": {"amplitude": 0}}, "perturbation.amplitude: input should be greater"),
        ("plain", {"members": 2, "perturbation": {}}, "perturbation.amplitude is missing"),
        ("noisy", {"members": ["a.safetensors", "b"]}, "members is a number, got .* give a list of models"),
        ("noisy", {"members": 2, "noise_scale": 0}, "noise_scale: input should be greater than 0"),
        ("noisy", {"members": 2, "seed": -1}, "seed: input should be greater than or equal to 0"),
        ([], {}, "the list of models is empty"),
    ],
)
def test_refused(store, load, names, settings, message):
    models = load(names) if isinstance(names, str) else [load(name) for name in names]
    with pytest.raises(InputError, match=message):
        make(models, store, **settings)


def test_one_model_twice_is_refused(store, load):
    model = load("noisy")
    with pytest.raises(InputError, match="has one of them twice"):
        make([model, model], store)


def test_members_that_forecast_other_fields_are_refused(store, load):
    from toy_model import make_domain, make_model

    names = toy_run.CHANNELS
    grid = make_model(make_domain(regular_grid((8, 16)), names))
    fewer = WeatherViT(ModelConfig(width=8, heads=2, outputs=["-u10"]), store.domain())
    daily = WeatherViT(ModelConfig(width=8, heads=2), store.domain())
    daily.provenance = {"settings": {"data": {"daily": "mean"}}}
    for other, what in [
        (grid, "its grid is 8 x 16 global"),
        (fewer, "it does not forecast u10"),
        (daily, "it forecasts daily mean, not single times"),
    ]:
        with pytest.raises(InputError, match=f"model 1 cannot be a member beside model 0: {what}"):
            make([load("plain"), other], store)
    masked = WeatherViT(
        ModelConfig(width=8, heads=2), replace(store.domain(), masks={"t850": np.eye(4, 8, dtype=bool)})
    )
    with pytest.raises(InputError, match=r"model 1 cannot be .*: it has no values of t850 at other points"):
        make([load("plain"), masked], store)
    sums = [WeatherViT(ModelConfig(width=8, heads=2), store.domain()) for _ in range(2)]
    for model, hours in zip(sums, (6.0, 24.0), strict=True):
        model.provenance = {"store": {"accumulation_hours": {"u10": hours}}}
    with pytest.raises(InputError, match=r"model 1 cannot be .*: its u10 is a sum over 24h, not 6h"):
        make(sums, store)
    with pytest.raises(InputError, match="model 1 cannot be a member beside model 0: it forecasts u10 as well"):
        make([fewer, load("plain")], store)
