"""A run with a cooldown that is given other steps is the run that was planned so from the beginning, bit for bit."""

from __future__ import annotations

import json
import shutil

import kill_train
import pytest
import toy_run

from weatherfm.config import parse_settings
from weatherfm.errors import InputError
from weatherfm.model.weights import read_header
from weatherfm.training.checkpoints.checkpoint import newest
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.validation import Validator
from weatherfm.training.trainer import train

SHORT = {"schedule": "constant_cooldown", "steps": 24, "cooldown_steps": 6, "learning_rate": 0.01}
LONG = SHORT | {"steps": 40, "cooldown_steps": None}
"""The cooldown of the short one begins at step 18, of the long one at step 36, a tenth before its end."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prolonged")
    toy_run.make_store(folder)
    return folder


def finished(folder, run, settings):
    summary = train(toy_run.make_run(folder, run, **settings))
    assert (summary.steps, summary.stopped_by) == (settings["steps"], None)
    return kill_train.result(folder / run)


@pytest.fixture(scope="module")
def short(folder):
    return finished(folder, "short", SHORT)


@pytest.fixture(scope="module")
def long(folder):
    return finished(folder, "long", LONG)


@pytest.fixture
def copy(folder, request):
    """A copy of the finished short run, in a folder of the test's own."""
    return shutil.copytree(folder / "short", folder / request.node.name).name


def checkpoints(folder, run):
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / run / "checkpoints").glob("step-*"))


def test_the_last_checkpoint_before_the_cooldown_is_kept(folder, short, long):
    assert checkpoints(folder, "short") == [18, 20, 24]
    assert checkpoints(folder, "long") == [36, 40]  # one of the two newest


def test_before_the_cooldown_runs_of_any_length_are_one(short, long):
    shared = [line for line in short["curve"] if line["step"] <= 18]
    assert len(shared) == 8
    assert long["curve"][:8] == shared
    assert short["weights"] != long["weights"]


def test_a_finished_run_goes_back_and_becomes_the_longer_one(folder, short, long, copy, caplog):
    caplog.set_level("INFO")
    summary = train(toy_run.make_run(folder, copy, **LONG))
    assert (summary.resumed_from, summary.steps) == (18, 40)
    assert "the cooldown begins at step 36 of 40" in caplog.text
    assert "going back to the checkpoint of step 18; what came after it is dropped" in caplog.text
    assert kill_train.result(folder / copy) == long


def test_a_run_broken_off_in_its_cooldown_goes_back_as_often_as_asked(folder, short, long, copy, monkeypatch):
    shutil.rmtree(folder / copy / "checkpoints" / "step-00000024")
    kill(folder, copy, 19, LONG)  # before it has written a checkpoint of its own
    assert checkpoints(folder, copy) == [18, 20]
    assert train(toy_run.make_run(folder, copy, **LONG)).resumed_from == 18
    assert kill_train.result(folder / copy) == long


def kill(folder, run, step, settings):
    kill_train.killed_in_step(step, kill_train.write_config(folder, run, **settings))


def test_killed_in_the_constant_part_it_can_be_prolonged(folder, long):
    kill(folder, "killed early", 13, SHORT)
    assert train(toy_run.make_run(folder, "killed early", **LONG)).resumed_from in (5, 10)
    assert kill_train.result(folder / "killed early") == long


def test_killed_in_the_cooldown_it_goes_on_as_it_was(folder, short):
    kill(folder, "killed late", 23, SHORT)
    assert train(toy_run.make_run(folder, "killed late", **SHORT)).resumed_from in (18, 20)
    assert kill_train.result(folder / "killed late") == short


def test_a_copy_is_a_fork_with_another_end(folder, long, short):
    """Shorter ones too: each cools down from the same constant part."""
    shutil.copytree(folder / "long", folder / "fork")
    end = LONG | {"steps": 38, "cooldown_steps": 2, "min_learning_rate": 1e-3}
    assert train(toy_run.make_run(folder, "fork", **end)).resumed_from == 36
    assert kill_train.result(folder / "fork") == finished(folder, "planned", end)


def test_checkpoints_alone_are_a_fork_too(folder, short, long):
    shutil.copytree(folder / "short" / "checkpoints", folder / "bare" / "checkpoints")
    train(toy_run.make_run(folder, "bare", **LONG))
    assert (folder / "bare" / "weights.safetensors").read_bytes() == long["weights"]
    assert kill_train.lines(folder / "bare")[0]["step"] == 21


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-3}, r"training.learning_rate: 0.01 in the checkpoint, 0.001 now"),
        ({"seed": 1}, r"training.seed: 0 in the checkpoint, 1 now"),
        ({"warmup_steps": 5}, r"training.warmup_steps: 4 .*, 5 now"),
        ({"schedule": "cosine", "cooldown_steps": None}, r"training.schedule: constant_cooldown .*, absent now"),
    ],
    ids=str,
)
def test_other_settings_stay_refused(folder, short, changes, message):
    with pytest.raises(InputError, match=message):
        train(toy_run.make_run(folder, "short", **(LONG | changes)))
    assert kill_train.result(folder / "short") == short


def test_other_channels_and_models_stay_refused(folder, short):
    for section, changes in (("data", {"channels": ["z500", "u10"]}), ("model", {"depth": 1})):
        plain = toy_run.run_settings(folder, "short", **LONG)
        plain[section] |= changes
        with pytest.raises(InputError, match=f"{section}.{next(iter(changes))}: .* in the checkpoint"):
            train(parse_settings(RunConfig, plain, "test"))


def test_without_a_checkpoint_before_the_cooldown_it_is_refused(folder, short, copy):
    shutil.rmtree(folder / copy / "checkpoints" / "step-00000018")
    with pytest.raises(
        InputError, match=r"training.steps: 24 .*, 40 now(?s:.*)where there is a checkpoint from before"
    ):
        train(toy_run.make_run(folder, copy, **LONG))
    with pytest.raises(InputError, match=r"training.cooldown_steps: 6 .*, 7 now"):
        train(toy_run.make_run(folder, copy, **(SHORT | {"cooldown_steps": 7})))


def test_a_cooldown_that_would_have_begun_before_is_refused(folder, long, caplog):
    with pytest.raises(InputError, match=r"training.steps: 40 in the checkpoint, 30 now"):
        train(toy_run.make_run(folder, "long", **(LONG | {"steps": 30})))
    assert kill_train.result(folder / "long") == long


def test_a_cosine_cannot_be_prolonged_and_learns_of_what_can(folder):
    train(toy_run.make_run(folder, "cosine", steps=2))
    with pytest.raises(InputError, match=r"steps: 2 .*, 4 now(?s:.*)with training.schedule=constant_cooldown from the"):
        train(toy_run.make_run(folder, "cosine", steps=4))
    record = newest(folder / "cosine" / "checkpoints").record["settings"]["training"]
    told = read_header(folder / "cosine" / "weights.safetensors")[2]["settings"]["training"]
    assert not {"schedule", "cooldown_steps"} & (record.keys() | told.keys())  # as before there were schedules


def by_step(losses):
    """A validation whose loss follows from how often it was asked."""
    coming = iter(losses)
    return lambda self, model, alive: {"loss": next(coming), "rmse": {}}


BEST = {"export": "best", "validate_every": 4}


@pytest.mark.parametrize(
    ("constant", "then", "best"),
    [([3.0, 1.0, 2.0, 2.0], [2.0] * 6, 8), ([3.0, 2.0, 1.0, 2.0], [2.0, 0.5, *[2.0] * 4], 24)],
    ids=["before", "after"],
)
def test_the_best_weights_are_those_of_the_longer_run(folder, monkeypatch, constant, then, best):
    """Not those that the cooldown of the shorter one has exported."""
    runs = [f"{name} {best}" for name in ("planned best", "prolonged best")]
    monkeypatch.setattr(Validator, "__call__", by_step([*constant, *then]))
    expected = train(toy_run.make_run(folder, runs[0], **LONG, **BEST))
    assert (expected.best_step, expected.steps) == (best, 40)
    monkeypatch.setattr(Validator, "__call__", by_step([*constant, 0.1, 0.2]))
    assert train(toy_run.make_run(folder, runs[1], **SHORT, **BEST)).best_step == 20
    monkeypatch.setattr(Validator, "__call__", by_step(then))
    assert train(toy_run.make_run(folder, runs[1], **LONG, **BEST)).best_step == best
    assert kill_train.result(folder / runs[1]) == kill_train.result(folder / runs[0])
    assert read_header(expected.weights)[2]["step"] == best


def test_early_stopping_in_the_cooldown_is_forgotten(folder, monkeypatch):
    patient = {"early_stopping": 2, "validate_every": 4}
    monkeypatch.setattr(Validator, "__call__", by_step([3.0, 2.0, 1.0, 0.5, 0.6, 0.6]))
    assert train(toy_run.make_run(folder, "impatient", **SHORT, **patient)).steps == 24
    monkeypatch.setattr(Validator, "__call__", by_step([0.6, 0.4, 0.6, 0.6]))
    summary = train(toy_run.make_run(folder, "impatient", **LONG, **patient))
    assert (summary.resumed_from, summary.best_step, summary.steps) == (18, 24, 32)


def test_best_weights_that_are_gone_are_told_and_forgotten(folder, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(Validator, "__call__", by_step([3.0, 1.0, 2.0, 2.0, 2.0, 2.0]))
    train(toy_run.make_run(folder, "gone", **SHORT, **BEST))
    shutil.copytree(folder / "gone" / "checkpoints", folder / "gone too" / "checkpoints")
    monkeypatch.setattr(Validator, "__call__", by_step([2.5] * 6))
    assert train(toy_run.make_run(folder, "gone too", **LONG, **BEST)).best_step == 20
    assert "validation so far, 1 at step 8, are not in" in caplog.text
    assert read_header(folder / "gone too" / "weights.safetensors")[2]["step"] == 20


def test_metrics_hold_each_step_once(folder, short, long, copy):
    train(toy_run.make_run(folder, copy, **LONG))
    steps = [json.loads(line)["step"] for line in (folder / copy / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps == [line["step"] for line in long["curve"]]
