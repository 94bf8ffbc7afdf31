"""Channels that only go in, or only come out, from the store to scores: what is read, learned, forecast and scored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy_run
import xarray as xr

import weatherfm
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.loader import read_batch
from weatherfm.data_pipeline.store.states import as_states
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.earth.forcings import forcing_fields
from weatherfm.errors import InputError
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast import forecast
from weatherfm.evaluation.forecast_config import EvaluationConfig, ForecastConfig
from weatherfm.evaluation.forecasting.init_times import choose_init_times
from weatherfm.model.loading import load_weights
from weatherfm.model.model import WeatherViT
from weatherfm.training.feeding.ready_batches import make_ready
from weatherfm.training.feeding.samples import training_samples
from weatherfm.training.parts import open_parts
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.run_start import find_start
from weatherfm.training.stepping.loss import forecast_loss
from weatherfm.training.stepping.rollout import step_losses
from weatherfm.training.trainer import train

ROLES = {"inputs": ["-u10"], "outputs": ["-t850"]}
"""z500 is a state, t850 an input alone, u10 an output alone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roles")
    toy_run.make_store(folder)
    return folder


def make_run(folder, run: str = "run", roles=ROLES, **training) -> RunConfig:
    settings = toy_run.run_settings(folder, run, **training)
    settings["model"] |= roles
    return parse_settings(RunConfig, settings, "test")


@pytest.fixture(scope="module")
def trained(folder) -> RunConfig:
    config = make_run(folder, steps=120, lead_times=["6h"], validate_every=120, learning_rate=1e-2, ema_decay=0.0)
    train(config)
    return config


@pytest.mark.parametrize("kept", [False, True])
def test_only_what_a_role_needs_is_read(folder, monkeypatch, kept):
    store = open_store(folder / "store.zarr")
    inits, leads = store.times[4:6], np.array([6, 12])
    whole = read_batch(store, inits, [0, -6], leads, toy_run.CHANNELS)
    if kept:
        store.keep(np.arange(20), toy_run.CHANNELS)
    asked, read = [], Store.read
    monkeypatch.setattr(
        Store, "read", lambda self, i, names, out=None: asked.append(names) or read(self, i, names, out)
    )
    seen, scored = ("z500", "t850"), ("z500", "u10")
    batch = read_batch(store, inits, [0, -6], leads, toy_run.CHANNELS, None, 2, seen, scored)
    assert asked == [seen, scored]
    np.testing.assert_array_equal(batch.history[:, :, :2], whole.history[:, :, :2])
    np.testing.assert_array_equal(batch.target[:, [0, 2]], whole.target[:, [0, 2]])
    assert not batch.history[:, :, 2].any()
    assert not batch.target[:, 1].any()
    assert batch.further[..., :].shape == (1, 2, 3, 4, 8)


def shaken(model: WeatherViT) -> WeatherViT:
    """With random weights."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("inputs", ["persist", "read"])
def test_losses_of_a_rollout_written_out(folder, inputs):
    """Two steps, with the input of the second as it was, or as the store has it; an output is scored by its std."""
    rollout = {"steps": {0: 2}, "inputs": inputs}
    config = make_run(folder, rollout=rollout, lead_times=["6h"], channel_weights={"u10": 3.0})
    store = open_store(folder / "store.zarr")
    domain = store.domain(toy_run.CHANNELS)
    model = shaken(WeatherViT(config.model, domain))
    batch = training_samples(config, store).batch(0)
    ready = make_ready(batch, model, torch.device("cpu"))
    loss = forecast_loss(config.model, domain, config.training.channel_weights)
    found = step_losses(model, loss, ready, torch.float32, inputs == "read")  # [S, B, O]
    truth = [model.normalize(torch.from_numpy(store.read(store.index_of(batch.init_time + np.timedelta64(6 * n, "h")))))
             for n in range(3)]  # fmt: skip
    area, state = torch.from_numpy(domain.grid.area_weights), truth[0][:, None].clone()
    scale = (domain.tendency_std / domain.std)[0]
    for step in (1, 2):
        forcings, condition = ready.known(step - 1)
        made = model(state, forcings, batch.lead_time_hours, None, condition)
        np.testing.assert_array_equal(made[:, 1].detach(), state[:, 0, 1].detach())
        squared = ((made - truth[step]).double().square() * area).mean((-2, -1))  # [B, C]
        expected = torch.stack([0.5 * squared[:, 0] / scale**2, 1.5 * squared[:, 2]], 1)
        torch.testing.assert_close(found[step - 1].double(), expected, rtol=1e-5, atol=0)
        state = made[:, None].clone()
        if inputs == "read":
            state[:, 0, 1] = truth[1][:, 1]


@pytest.mark.parametrize("inputs", ["persist", "read"])
def test_an_input_that_a_sample_does_not_show_stays_absent_in_a_rollout(folder, inputs):
    """As in a forecast from states that lack it; the state that was not shown is there, as it was predicted."""
    config = make_run(folder, rollout={"steps": {0: 2}, "inputs": inputs}, lead_times=["6h"], channel_sampling=0.5)
    store = open_store(folder / "store.zarr")
    model = shaken(WeatherViT(config.model, store.domain(toy_run.CHANNELS)))
    ready = make_ready(training_samples(config, store).batch(0), model, torch.device("cpu"))
    present = torch.ones(4, 2 + len(model.forcings), dtype=torch.bool)  # of z500, t850
    present[0, 0] = present[1, 1] = False
    loss = forecast_loss(config.model, model.domain, {})
    found = step_losses(model, loss, replace(ready, present=present), torch.float32, inputs == "read")
    first, leads = model.normalize(ready.batch.target), ready.batch.lead_time_hours
    forcings, condition = ready.known(0)
    made = model(model.normalize(ready.batch.history), forcings, leads, present, condition)
    made[:, 1] = first[:, 1] if inputs == "read" else made[:, 1]
    later = present.clone()
    later[0, 0] = True
    forcings, condition = ready.known(1)
    second = model(made[:, None], forcings, leads, later, condition)
    truth = model.normalize(ready.batch.further[0])
    torch.testing.assert_close(found[1], loss(second, truth, leads, model.known_outputs(later)))


def test_outputs_are_learned_validated_and_told(trained):
    lines = [json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    told = [line for line in lines if "loss_by_channel" in line]
    assert set(told[-1]["loss_by_channel"]) == {"z500", "u10"}
    validations = [line["validation"] for line in lines if "validation" in line]
    assert set(validations[-1]["rmse"]) == {"z500", "u10"}
    spread = open_store(trained.data.store).std[2]
    assert validations[-1]["rmse"]["u10"]["6"] < 0.7 * spread


def test_a_forecast_asks_for_inputs_and_holds_outputs(trained, folder):
    model = load_weights(trained.folder / "weights.safetensors")
    store = open_store(folder / "store.zarr")
    dims, fields = ("time", "latitude", "longitude"), store.read(np.arange(90, 92))
    given = xr.Dataset(
        {"z500": (dims, fields[:, 0], {"units": "m2 s-2"}), "t850": (dims, fields[:, 1], {"units": "K"})},
        {"time": store.times[90:92], "latitude": store.grid.latitude, "longitude": store.grid.longitude},
    )
    whole = weatherfm.forecast(model, store, ["6h", "12h"], init=store.times[91:92], rollout="6h")
    assert set(whole.data_vars) == {"geopotential", "10m_u_component_of_wind"}
    few = weatherfm.forecast(model, given, ["6h", "12h"], rollout="6h")
    xr.testing.assert_allclose(few, whole, rtol=1e-5)
    with pytest.raises(InputError, match="t850"):  # an input that is not there
        weatherfm.forecast(model, given.drop_vars("t850"), "6h")


@pytest.mark.parametrize("inputs", ["persist", "read"])
def test_inputs_persist_or_are_read_in_a_rollout(trained, folder, tmp_path, inputs):
    weights, store = trained.folder / "weights.safetensors", open_store(folder / "store.zarr")
    settings = {"lead_times": ["6h", "18h"], "mode": "rollout", "rollout_step": "6h", "device": "cpu", "inputs": inputs}
    config = parse_settings(ForecastConfig, settings | {"init": "2000-01-21,2000-01-22T06"}, "test")
    path = forecast(weights, folder / "store.zarr", config, tmp_path / "forecast.zarr")
    made = xr.open_zarr(path)["geopotential"].values[:, :, 0]
    model = load_weights(weights)
    times = np.array(["2000-01-21T00", "2000-01-22T06"], "datetime64[s]")
    truth = {h: torch.from_numpy(store.read(store.index_of(times + np.timedelta64(h, "h")))) for h in (0, 6, 12)}
    state = model.normalize(truth[0])
    for hours in (0, 6, 12):
        if inputs == "read":
            state[:, 1] = model.normalize(truth[hours])[:, 1]
        known = torch.from_numpy(forcing_fields(model.forcings, times + np.timedelta64(hours, "h"), model.domain.grid))
        with torch.no_grad():
            state = model(state[:, None], known, torch.full((2,), 6), None, torch.zeros(2, 0))
    np.testing.assert_allclose(made[:, 1], model.denormalize(state)[:, 0], rtol=1e-5)


def test_scores_are_of_outputs_against_the_truth(trained, folder, tmp_path):
    config = parse_settings(ForecastConfig, {"lead_times": ["6h"], "device": "cpu", "init": "2000-01-22"}, "test")
    path = forecast(trained.folder / "weights.safetensors", folder / "store.zarr", config, tmp_path / "forecast.zarr")
    settings = EvaluationConfig(spectra=False, damped_persistence=False)
    scores = evaluate(path, open_store(folder / "store.zarr"), settings=settings)
    assert list(scores.channel.values) == ["z500", "u10"]


def test_a_role_that_changes_starts_anew(trained, folder):
    """Rows of an output alone mean all of it, those of a state its increment: one is no start for the other."""
    start = {"start_from": {"weights": str(trained.folder)}}
    roles = {"inputs": None, "outputs": None, "input_gates": True}
    config = make_run(folder, "next", roles, **start)
    found = find_start(config, open_parts(config))
    assert found.match is not None
    assert found.match.outputs == {"z500": ("z500",), "t850": (), "u10": ()}
    assert found.match.inputs["u10"] == ()
    assert any("u10" in line and "persistence" in line for line in found.lines())
    config = make_run(folder, "next", ROLES, **start)
    same = find_start(config, open_parts(config))
    assert same.match is not None
    assert same.match.outputs == {"z500": ("z500",), "u10": ("u10",)}


@pytest.mark.parametrize(
    ("roles", "training", "message"),
    [
        ({"outputs": ["-t850"]}, {"channel_weights": {"t850": 2.0}}, "names t850, which model.outputs leaves out"),
        ({}, {"rollout": {"steps": {0: 2}, "inputs": "read"}}, "all channels that go into the model are predicted"),
        ({"outputs": ["q"]}, {}, "model.outputs names q, no channel or variable of data.channels"),
    ],
)
def test_settings_that_contradict_roles_are_refused(tmp_path, roles, training, message):
    with pytest.raises(InputError, match=message):
        make_run(tmp_path, "run", roles, **training)


def test_reading_inputs_is_refused_where_there_are_none_to_read(folder, tmp_path):
    config = make_run(folder, "states", {}, steps=1, warmup_steps=0, validate_every=1, checkpoint_every=1)
    train(config)
    settings = {"lead_times": ["12h"], "mode": "rollout", "rollout_step": "6h", "inputs": "read", "device": "cpu"}
    with pytest.raises(InputError, match=r"forecast\.inputs is read, and the model predicts all of its inputs"):
        forecast(
            config.folder / "weights.safetensors", folder / "store.zarr",
            parse_settings(ForecastConfig, settings | {"init": "2000-01-22"}, "test"), tmp_path / "forecast.zarr",
        )  # fmt: skip
    with pytest.raises(InputError, match=r"forecast\.inputs: read is for later steps of a rollout"):
        parse_settings(ForecastConfig, {"inputs": "read"}, "test")


def test_the_latest_time_that_all_is_there_for(trained, folder):
    """Inputs that are read ahead are asked for like states to start from."""
    model, store = load_weights(trained.folder / "weights.safetensors"), open_store(folder / "store.zarr")
    settings = {"lead_times": ["18h"], "mode": "rollout", "rollout_step": "6h", "init": "latest"}
    for inputs, hours in (("persist", 0), ("read", 12)):
        config = parse_settings(ForecastConfig, settings | {"inputs": inputs}, "test")
        found = choose_init_times(as_states(store), config, model.config.input_times)
        assert found.tolist() == (store.times[-1:] - np.timedelta64(hours, "h")).tolist()
    late = parse_settings(ForecastConfig, settings | {"inputs": "read", "init": "2000-01-25T12"}, "test")
    with pytest.raises(InputError, match=r"lacks 2000-01-26T00.* need \(states at 0h, 6h, 12h\)"):
        choose_init_times(as_states(store), late, model.config.input_times)


def test_weights_of_the_loss_for_a_variable_without_outputs_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"channel_weights names t, which model\.outputs leaves out"):
        make_run(tmp_path, "run", ROLES, channel_weights={"t": 3.0})
