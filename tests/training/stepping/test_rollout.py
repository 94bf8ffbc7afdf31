"""Loss and gradients over successive model steps against the same written out, and a curriculum of them in a run."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import kill_train
import numpy as np
import pytest
import torch
import toy_run
from safetensors.torch import load_file

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.loader import Batch, eligible_init_times
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.earth.domain import Domain, mask_fields
from weatherfm.earth.forcings import clock, forcing_fields
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT
from weatherfm.training.check import check_run
from weatherfm.training.feeding.ready_batches import make_ready
from weatherfm.training.feeding.samples import training_samples
from weatherfm.training.feeding.store_checks import check_training
from weatherfm.training.parallel.role import find_role
from weatherfm.training.run_config import RunConfig, TrainingConfig
from weatherfm.training.stepping.loss import forecast_loss
from weatherfm.training.stepping.rollout import step_losses
from weatherfm.training.stepping.step import Ground, compute_gradients, exchange
from weatherfm.training.stepping.weight_average import WeightAverage
from weatherfm.training.trainer import train

CURRICULUM = {"rollout": {"steps": {0: 1, 3: 2, 5: 3}}}


@pytest.fixture
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_model(predict, input_times):
    """With a mask, a logarithm and spreads of several lead times; every weight moved away from zero."""
    rng, grid, names = np.random.default_rng(0), regular_grid((4, 8)), ("z500", "t850", "sst", "q700")
    std = rng.uniform(1, 2, 4)
    masks = {"sst": rng.random((4, 8)) < 0.3}
    by_lead = {lead: std * (0.2 + lead / 100) for lead in (6, 24)}
    domain = Domain(names, grid, rng.normal(size=4), std, std / 4, *mask_fields(masks), masks, {"q700": 0.3}, by_lead)
    settings = {"predict": predict, "input_times": [f"{hours}h" for hours in input_times], "conditioning": "adaln"}
    model = WeatherViT(ModelConfig(patch_size=2, width=8, depth=2, heads=2, drop_path=0.0, **settings), domain)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05)
    return model.double(), domain


def make_batch(domain, input_times, leads, count):
    rng = np.random.default_rng(1)
    history = torch.tensor(rng.normal(size=(2, len(input_times), 4, 4, 8)))
    targets = torch.tensor(rng.normal(size=(count, 2, 4, 4, 8)))
    for fields in (history, targets):
        fields[..., torch.from_numpy(~domain.present)] = torch.nan
    inits = np.array(["2000-01-01T06", "2001-07-03T12"], "datetime64[s]")
    return Batch(history, targets[0], inits, torch.tensor(leads), targets[1:] if count > 1 else None)


def by_hand(model, loss, batch):
    """[S, B, C] losses; states are known by the times that they are of."""
    leads, inputs = batch.lead_time_hours, model.config.input_times
    given = model.normalize(batch.history)
    found = []
    for b, lead in enumerate(leads.tolist()):
        states = {hours: given[b, i] for i, hours in enumerate(inputs)}
        for step, target in enumerate(batch.targets):
            start = step * lead
            times = batch.init_time[b : b + 1] + np.timedelta64(start, "h")
            forcings = torch.from_numpy(forcing_fields(model.forcings, times, model.domain.grid))
            condition = torch.from_numpy(clock(model.conditions, times))
            history = torch.stack([states[start + hours] for hours in inputs])[None]
            state = model(history, forcings, leads[b : b + 1], condition=condition)
            found.append(loss(state, model.normalize(target[b : b + 1]), leads[b : b + 1])[0])
            states[start + lead] = state[0]
    return torch.stack(found).unflatten(0, (2, len(batch.targets))).transpose(0, 1)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("predict", ["state", "increment"])
@pytest.mark.parametrize(
    ("input_times", "leads"), [([0], [6, 24]), ([-12, 0, -6], [6, 6])], ids=["mixed leads", "earlier inputs"]
)
def test_equals_the_model_called_step_after_step(count, predict, input_times, leads):
    model, domain = make_model(predict, input_times)
    loss = forecast_loss(model.config, domain, {"z500": 3.0}, 6)
    batch = make_batch(domain, input_times, leads, count)
    expected = by_hand(model, loss, batch)
    wanted = torch.autograd.grad(expected.mean(), list(model.parameters()))

    settings = {"run": "unused", "data": {"store": "unused", "source": {"kind": "planet"}, "channels": domain.channels}}
    config = parse_settings(RunConfig, settings, "test")
    role = find_role(config.parallel, model.config, domain, None)
    ready = make_ready(batch, model, torch.device("cpu"))
    scored = compute_gradients(model, [Ground(loss, role)], [ready], 1, torch.float64)
    told = exchange(model, scored, role, False, torch.tensor([6, 24]))

    close = {"rtol": 1e-12, "atol": 1e-14}
    torch.testing.assert_close(scored[0].losses, expected.mean(0).detach(), **close)
    torch.testing.assert_close(told.step_loss, expected.mean((1, 2)).detach(), **close)
    torch.testing.assert_close(told.channel_loss, expected.mean((0, 1)).detach(), **close)
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        error, size = (parameter.grad - gradient).norm(), gradient.norm()
        assert size > 0
        assert error <= 1e-12 * size


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rollout")
    toy_run.make_store(folder)
    return folder


def make_run(folder, run, **settings):
    return toy_run.make_run(
        folder, run, **{"steps": 8, "accumulate": 2, "validate_every": 4, "checkpoint_every": 20, **settings}
    )


def lines(folder, run, kind="loss"):
    found = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if kind in line]


def test_samples_follow_from_the_step_alone_and_have_room_for_all_steps(folder):
    store = open_store(folder / "store.zarr")
    loader, whole = (
        training_samples(make_run(folder, "unused", rollout={"steps": steps}), store)
        for steps in (CURRICULUM["rollout"]["steps"], {0: 3})
    )
    reached = [6, 12, 18, 24, 36]
    np.testing.assert_array_equal(loader.init_times, eligible_init_times(store, store.periods["train"], [0], reached))
    for step, count in {0: 1, 5: 1, 6: 2, 9: 2, 10: 3, 40: 3}.items():  # two batches an optimizer step
        batch = loader.batch(step)
        for found, expected in zip(loader.samples(step), whole.samples(step), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert len(batch.targets) == len(batch.starts) == count
        leads = batch.lead_time_hours.numpy().astype("timedelta64[h]")
        for i, target in enumerate(batch.targets):
            np.testing.assert_array_equal(batch.starts[i], batch.init_time + i * leads)
            np.testing.assert_array_equal(target, store.read(store.index_of(batch.init_time + (i + 1) * leads)))


def test_the_log_tells_the_loss_of_each_model_step(folder):
    train(make_run(folder, "logged", log_every=1, **CURRICULUM))
    found = lines(folder, "logged")
    assert [list(line["loss_by_rollout_step"]) for line in found] == [["1"]] * 3 + [["1", "2"]] * 2 + [list("123")] * 3
    for line in found:
        assert line["loss"] == pytest.approx(np.mean(list(line["loss_by_rollout_step"].values())))
    validation = lines(folder, "logged", "validation")
    assert list(validation[0]["validation"]["rmse"]["z500"]) == ["6", "12"]  # of single steps


def test_one_step_is_as_without_a_rollout(folder):
    """But for what the log and the checkpoints tell."""
    for run, settings in (("plain", {}), ("one", {"rollout": {"steps": {0: 1}}})):
        train(make_run(folder, run, **settings))
    assert "loss_by_rollout_step" not in lines(folder, "plain")[0]
    plain, one = (load_file(folder / run / "weights.safetensors") for run in ("plain", "one"))
    assert all(torch.equal(value, one[name]) for name, value in plain.items())


@pytest.mark.parametrize("last", [2, 3, 4])
def test_broken_off_around_a_boundary_it_ends_with_the_same_weights(folder, monkeypatch, last):
    """Also in a line of the log whose steps lie on both sides of it."""
    settings = {"log_every": 6, **CURRICULUM}
    if not (folder / "whole").exists():
        train(make_run(folder, "whole", **settings))
    with monkeypatch.context() as patch:
        update = WeightAverage.update

        def interrupt(self, model, step):
            update(self, model, step)
            if step == last - 1:
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(WeightAverage, "update", interrupt)
        stopped = train(make_run(folder, f"broken {last}", **settings))
    assert (stopped.stopped_by, stopped.steps) == ("SIGTERM", last)
    assert train(make_run(folder, f"broken {last}", **settings)).resumed_from == last
    assert kill_train.result(folder / f"broken {last}") == kill_train.result(folder / "whole")


def test_it_starts_from_trained_weights(folder):
    train(make_run(folder, "trained", steps=2))
    start = {"weights": str(folder / "trained"), "freeze": ["tokenizer"]}
    assert train(make_run(folder, "tuned", start_from=start, rollout={"steps": {0: 2}}, steps=2)).weights.exists()


def test_another_curriculum_is_another_run(folder):
    train(make_run(folder, "changed", steps=2, rollout={"steps": {0: 2}}))
    with pytest.raises(InputError, match=r"training.rollout.steps.0: 2 in the checkpoint, 1 now"):
        train(make_run(folder, "changed", steps=2, rollout={"steps": {0: 1}}))


def test_it_is_recorded_where_it_is_set(folder):
    assert "rollout" not in make_run(folder, "unused").training.model_dump(mode="json")
    record = make_run(folder, "unused", **CURRICULUM).training.model_dump(mode="json")
    assert parse_settings(TrainingConfig, json.loads(json.dumps(record)), "test").rollout.steps == {0: 1, 3: 2, 5: 3}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({}, "at least 1 item"),
        ({1: 2}, r"begin at optimizer step 0 and ascend; got \[1\]"),
        ({0: 1, 200: 2, 100: 3}, r"begin at optimizer step 0 and ascend; got \[0, 200, 100\]"),
        ({0: 1, 100: 0}, r"must give 1 model step or more; got \[1, 0\]"),
    ],
)
def test_steps_that_make_no_curriculum_are_refused(steps, message):
    with pytest.raises(InputError, match=message):
        parse_settings(TrainingConfig, {"rollout": {"steps": steps}}, "test")


@pytest.mark.parametrize(
    ("input_times", "leads", "message"),
    [
        (["0h", "-24h"], ["6h"], r"second step of 6h needs the state at -18h, .* \[0h, -24h\]"),
        (["-6h", "0h"], ["6h", "12h"], r"second step of 12h needs the state at 6h"),
        (["0h", "-6h", "-18h"], ["6h"], r"second step of 6h needs the state at -12h"),
    ],
)
def test_input_times_that_no_rollout_finds_are_refused(folder, input_times, leads, message):
    plain = toy_run.run_settings(folder, lead_times=leads, rollout={"steps": {0: 1, 9: 2}})
    plain["model"]["input_times"] = input_times
    with pytest.raises(InputError, match=message):
        parse_settings(RunConfig, plain, "test")
    plain["training"]["rollout"] = {"steps": {0: 1}}
    parse_settings(RunConfig, plain, "test")


def test_a_split_without_room_is_refused(folder):
    config = make_run(folder, "unused", rollout={"steps": {0: 1, 5: 40}})
    with pytest.raises(InputError, match=r"only 0 initial times of the training days .* 40 model steps .* needs 4"):
        check_training(config, open_store(folder / "store.zarr"))


def test_check_tells_of_it(folder):
    (training,) = (line for line in check_run(make_run(folder, "unused", **CURRICULUM)) if line.link == "training")
    assert training.ok
    assert "over model steps of their own output (1 from step 0, 2 from step 3, 3 from step 5)" in training.text


@pytest.mark.usefixtures("_double")
def test_channels_that_are_not_shown_are_there_from_the_second_step_on():
    """The first step is that with absent channels, all others the model's own."""
    model, domain = make_model("increment", [0])
    loss = forecast_loss(model.config, domain, {})
    ready = make_ready(make_batch(domain, [0], [6, 24], 2), model, torch.device("cpu"))
    present = torch.ones(2, len(model.share.input_names([0])), dtype=torch.bool)
    present[0, 1] = False
    found = step_losses(model, loss, replace(ready, present=present), torch.float64)
    leads, history = ready.batch.lead_time_hours, model.normalize(ready.batch.history)
    first = model(history, ready.forcings, leads, present, ready.condition)
    forcings, condition = ready.known(1)
    second = model(first[:, None], forcings, leads, None, condition)
    one, two = (model.normalize(target) for target in ready.batch.targets)
    torch.testing.assert_close(found[0], loss(first, one, leads, present[:, :4]), rtol=1e-12, atol=0)
    torch.testing.assert_close(found[1], loss(second, two, leads), rtol=1e-12, atol=0)
    assert not torch.equal(found, step_losses(model, loss, ready, torch.float64))


def test_channels_that_are_not_shown_need_the_present_state_alone(folder):
    settings = toy_run.run_settings(folder, "both", channel_sampling=0.5, lead_times=["6h"], **CURRICULUM)
    settings["model"]["input_times"] = ["0h", "-6h"]
    with pytest.raises(InputError, match="rollout with channel_sampling is for input_times of 0h alone"):
        parse_settings(RunConfig, settings, "test")
