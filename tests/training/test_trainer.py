from __future__ import annotations

import json
import os
import re
import signal
import time

import kill_train
import numpy as np
import pytest
import torch
import toy_run
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.loader import eligible_init_times
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.errors import STOPPED, InputError
from weatherfm.model.loading import load_weights
from weatherfm.model.weights import read_header
from weatherfm.training import begin, trainer
from weatherfm.training.checkpoints.checkpoint import newest
from weatherfm.training.checkpoints.state import Window
from weatherfm.training.feeding.samples import spread_evenly, training_samples
from weatherfm.training.parallel.channel_rows import named_parts
from weatherfm.training.ranks.job import Job
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.optimizer import learning_rate
from weatherfm.training.stepping.step import step_seed
from weatherfm.training.stepping.step_result import StepResult
from weatherfm.training.stepping.validation import Validator
from weatherfm.training.stepping.weight_average import WeightAverage
from weatherfm.training.trainer import Trainer, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    toy_run.make_store(folder)
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    """A run that nothing disturbed."""
    summary = train(toy_run.make_run(folder, "alone"))
    assert (summary.steps, summary.resumed_from, summary.stopped_by) == (24, 0, None)
    return kill_train.result(folder / "alone")


def lines(folder, run, kind):
    found = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if kind in line]


def exported(path):
    """Weights of a file, one tensor a channel where they belong to channels, as checkpoints name them."""
    model = load_weights(path)
    return {key: part for name, value in model.named_parameters() for key, part in named_parts(model, name, value)}


def test_metrics_are_complete(folder, alone):
    training, validation = lines(folder, "alone", "loss"), lines(folder, "alone", "validation")
    assert [line["step"] for line in training] == list(range(3, 25, 3))
    assert [line["step"] for line in validation] == [8, 16, 24]
    config = toy_run.make_run(folder).training
    for line in training:
        assert line["loss"] == pytest.approx(np.mean(list(line["loss_by_channel"].values())))
        assert line["learning_rate"] == learning_rate(line["step"] - 1, config)
        assert 0 <= line["data_wait_share"] <= 1
        assert line["samples_per_second"] > 0
        assert line["memory_gib"] > 0
        assert line["gradient_norm"] > 0
    assert list(validation[0]["validation"]["rmse"]) == toy_run.CHANNELS
    assert list(validation[0]["validation"]["rmse"]["z500"]) == ["6", "12"]


def test_loss_by_lead_time_is_of_the_samples_with_that_lead(folder, alone):
    config = toy_run.make_run(folder)
    loader = training_samples(config, open_store(folder / "store.zarr"))
    for line in lines(folder, "alone", "loss"):
        drawn = np.concatenate([loader.samples(step)[1] for step in range(line["step"] - 3, line["step"])])
        found = {int(hours): value for hours, value in line["loss_by_lead_time"].items()}
        assert list(found) == [6, 12]
        assert np.mean([found[lead] for lead in drawn]) == pytest.approx(line["loss"])


def test_a_lead_time_without_samples_is_left_out(folder):
    train(toy_run.make_run(folder, "few", steps=8, batch_size=1, accumulate=2, log_every=1))
    found = lines(folder, "few", "loss")
    assert {tuple(line["loss_by_lead_time"]) for line in found} == {("6",), ("12",), ("6", "12")}
    for line in found:
        if len(line["loss_by_lead_time"]) == 1:
            assert next(iter(line["loss_by_lead_time"].values())) == pytest.approx(line["loss"])


def test_a_checkpoint_without_losses_by_lead_time_goes_on(folder, alone, monkeypatch):
    """Older versions kept none."""
    with monkeypatch.context() as patch:
        whole = Window.tensors
        patch.setattr(Window, "tensors", lambda self: {k: v for k, v in whole(self).items() if k != "lead_loss"})
        patch.setattr(Trainer, "finished", property(lambda self: self.state.progress.step >= 10))
        train(toy_run.make_run(folder, "older"))
    assert train(toy_run.make_run(folder, "older")).resumed_from == 10
    assert (folder / "older" / "weights.safetensors").read_bytes() == alone["weights"]


def test_weights_file_is_the_average_and_says_how_it_came(folder, alone):
    path = folder / "alone" / "weights.safetensors"
    tensors = kill_train.saved_tensors(newest(folder / "alone" / "checkpoints"))
    for name, value in exported(path).items():
        assert torch.equal(value, tensors[f"average.{name}"])
    provenance = read_header(path)[2]
    assert provenance["step"] == 24
    assert provenance["store"]["simulated"] is True
    assert provenance["settings"]["training"]["steps"] == 24
    assert str(folder) not in json.dumps(provenance)


def test_without_average_the_last_weights_are_exported(folder):
    train(toy_run.make_run(folder, "last", steps=2, ema_decay=0.0))
    tensors = kill_train.saved_tensors(newest(folder / "last" / "checkpoints"))
    assert not [name for name in tensors if name.startswith("average")]
    for name, value in exported(folder / "last" / "weights.safetensors").items():
        assert torch.equal(value, tensors[f"model.{name}"])


def test_learns(folder):
    train(toy_run.make_run(folder, "learns", steps=75, learning_rate=1e-2, log_every=15, validate_every=75))
    first, *_, last = lines(folder, "learns", "loss")
    assert last["loss"] < 0.7 * first["loss"]


def test_untrained_model_validates_as_persistence(folder):
    """The head starts at zero, so that scores are known: those of no change at all."""
    train(toy_run.make_run(folder, "idle", steps=1, learning_rate=1e-30, validation_samples=1000, ema_decay=0.0))
    found = lines(folder, "idle", "validation")[0]["validation"]
    store, config = open_store(folder / "store.zarr"), toy_run.make_run(folder)
    inits = eligible_init_times(store, config.data.validation, [0], [6, 12])
    area = store.grid.area_weights / store.grid.area_weights.sum()
    losses = []
    for hours in (6, 12):
        later = store.index_of(inits + np.timedelta64(hours, "h"))
        change = store.read(later).astype(float) - store.read(store.index_of(inits))  # [n, channel, lat, lon]
        mse = (np.square(change) * area).sum((-2, -1)).mean(0)  # [channel]
        for channel, value in zip(store.channels, mse, strict=True):
            assert found["rmse"][channel][str(hours)] == pytest.approx(np.sqrt(value), rel=1e-4)  # float32 increments
        losses.append(mse / np.square(store.tendency_std))
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_gradients_of_batches_accumulate(folder):
    same = {"steps": 1, "lead_times": ["6h"], "log_every": 1, "clip_norm": None}
    configs = [
        toy_run.make_run(folder, "whole", batch_size=8, **same),
        toy_run.make_run(folder, "parts", batch_size=4, accumulate=2, **same),
    ]
    still = configs[0].model.model_copy(update={"dropout": 0.0, "drop_path": 0.0})
    for config in configs:
        train(config.model_copy(update={"model": still}))
    (whole,), (parts,) = lines(folder, "whole", "loss"), lines(folder, "parts", "loss")
    assert whole["loss"] == pytest.approx(parts["loss"], rel=1e-6)  # float32 sums in another order
    assert whole["gradient_norm"] == pytest.approx(parts["gradient_norm"], rel=1e-5)


def test_channel_weights_and_subset_of_channels(folder):
    plain = toy_run.run_settings(folder, "subset", steps=1, log_every=1, channel_weights={"u10": 0.0})
    plain["data"]["channels"] = ["u10", "z500"]
    train(parse_settings(RunConfig, plain, "test"))
    by_channel = lines(folder, "subset", "loss")[0]["loss_by_channel"]
    assert list(by_channel) == ["u10", "z500"]
    assert by_channel["u10"] == 0.0
    assert by_channel["z500"] > 0


def test_killed_run_goes_on_bit_identically(folder, alone):
    kill_train.killed_in_step(13, kill_train.write_config(folder, "killed"))
    step = newest(folder / "killed" / "checkpoints").step
    assert step in (5, 10)  # of step 10 it may have been half-written, as that happens beside training
    summary = train(toy_run.make_run(folder, "killed"))
    assert (summary.resumed_from, summary.steps) == (step, 24)
    assert kill_train.result(folder / "killed") == alone


@pytest.mark.slow
def test_random_kills(tmp_path):
    kills = kill_train.kill_repeatedly(tmp_path, 4, seed=0, steps=120, checkpoint_every=4)
    assert len(kills) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda number: number.name)
def test_signal_ends_with_a_checkpoint_and_a_restart_goes_on(folder, alone, monkeypatch, number):
    run, before = f"stopped by {number.name}", signal.getsignal(number)
    with monkeypatch.context() as patch:
        update = WeightAverage.update

        def interrupt(self, model, step):
            update(self, model, step)
            if step == 7:
                os.kill(os.getpid(), number)

        patch.setattr(WeightAverage, "update", interrupt)
        summary = train(toy_run.make_run(folder, run))
    assert (summary.stopped_by, summary.steps, summary.weights) == (number.name, 8, None)  # ranks agree in each step
    assert signal.getsignal(number) is before
    assert newest(folder / run / "checkpoints").step == 8
    assert train(toy_run.make_run(folder, run)).resumed_from == 8
    assert kill_train.result(folder / run) == alone


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_stopped_is_not_done(folder, number):
    """So that `train && forecast` does not go on with whatever weights lie there."""
    run = folder / f"ended by {number.name}"
    process = kill_train.fork(kill_train.write_config(folder, run.name, steps=100000, log_every=1))
    while not kill_train.moves(run):
        assert process.is_alive()
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.join(240)
    assert process.exitcode == STOPPED == 75
    assert newest(run / "checkpoints").step > 0


@pytest.mark.parametrize("phase", ["agree_on_identity", "keep_fields", "build_model"])
def test_asked_to_stop_before_the_first_step(folder, monkeypatch, phase):
    """Each may take minutes; what comes behind it is not done any more."""
    done, run = [], f"stopped in {phase}"

    def wrap(module, name):
        act = getattr(module, name)

        def wrapped(*arguments, **named):
            done.append(name)
            if name == phase:
                os.kill(os.getpid(), signal.SIGTERM)
            return act(*arguments, **named)

        return wrapped

    phases = ("agree_on_identity", "keep_fields", "build_model", "export_weights")
    with monkeypatch.context() as patch:
        for name in phases:
            module = trainer if name == "export_weights" else begin
            patch.setattr(module, name, wrap(module, name))
        summary = train(toy_run.make_run(folder, run))
    assert done == list(phases[: phases.index(phase) + 1])
    assert (summary.stopped_by, summary.steps, summary.weights) == ("SIGTERM", 0, None)
    assert not (folder / run / "metrics.jsonl").exists()


def test_what_is_refused_is_refused_before_fields_are_read(folder, alone, monkeypatch):
    monkeypatch.setattr(begin, "keep_fields", lambda *arguments, **named: pytest.fail("read"))
    with pytest.raises(InputError, match=r"training\.seed"):
        train(toy_run.make_run(folder, "alone", seed=1))


def test_finished_run_is_left_as_it_is(folder, alone):
    summary = train(toy_run.make_run(folder, "alone"))
    assert summary.resumed_from == summary.steps == 24
    assert kill_train.result(folder / "alone") == alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 48}, r"training.steps: 24 in the checkpoint, 48 now"),
        ({"seed": 1, "batch_size": 2}, r"training.batch_size: 4 .*, 2 now\n  training.seed: 0 .*, 1 now"),
        ({"precision": "bfloat16"}, "precision: torch.float32 in the checkpoint, torch.bfloat16 now"),
        ({"channel_weights": {"z500": 2.0}}, "channel_weights.z500: absent in the checkpoint, 2.0 now"),
    ],
)
def test_other_settings_are_refused(folder, alone, changes, message):
    with pytest.raises(InputError, match=message):
        train(toy_run.make_run(folder, "alone", **changes))
    assert kill_train.result(folder / "alone") == alone


KEEPING = {"checkpoint_every": 7, "keep_checkpoints": 1, "early_stopping": 5, "workers": 0, "cache": "off"}
WATCHING = {"log_every": 5, "validate_every": 9, "validation_samples": 2, "device": "cpu"}
TOKENS = {"evaluate": "tokens", "block_mib": 4}


@pytest.mark.parametrize(
    ("training", "aggregation", "rounding"), [(KEEPING | WATCHING, {}, 0.0), ({}, TOKENS, 3e-5)], ids=["how", "tokens"]
)
def test_settings_that_decide_nothing_may_change(folder, alone, monkeypatch, training, aggregation, rounding):
    """On the way as well: the weights are those of the run that was left alone."""
    run = f"changed {len(training)}"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "finished", property(lambda self: self.state.progress.step >= 10))
        train(toy_run.make_run(folder, run))
    plain = toy_run.run_settings(folder, run, **training)
    plain["model"]["aggregation"] = aggregation
    summary = train(parse_settings(RunConfig, plain, "toy run"))
    assert (summary.resumed_from, summary.steps) == (10, 24)
    found, expected = (load_file(folder / name / "weights.safetensors") for name in (run, "alone"))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= rounding * value.norm(), name


def test_other_store_is_refused(folder, tmp_path, alone):
    other = toy_run.waves()
    other.state.data[...] = other.state.data * 2
    config = toy_run.make_run(folder, "alone")
    data = config.data.model_copy(update={"store": str(tmp_path / "other.zarr")})
    prepare(data, other)
    with pytest.raises(InputError, match=r"data.fields: \w+ in the checkpoint"):
        train(config.model_copy(update={"data": data}))


def test_number_of_reading_threads_changes_nothing(folder, alone):
    train(toy_run.make_run(folder, "unthreaded", workers=0))
    assert kill_train.result(folder / "unthreaded")["curve"] == alone["curve"]


def test_too_large_a_batch_is_refused_before_anything_is_written(folder):
    with pytest.raises(InputError, match="batch needs 1000"):
        train(toy_run.make_run(folder, "large", batch_size=1000))
    assert not (folder / "large").exists()


@pytest.fixture(params=[False, True], ids=["at-once", "a-step-late"])
def late(request, monkeypatch):
    """Whether results of steps are read a step late, as on a GPU."""
    make = Trainer.__init__

    def made(self, *arguments):
        make(self, *arguments)
        self.late = request.param

    monkeypatch.setattr(Trainer, "__init__", made)
    return request.param


def test_reading_results_late_changes_no_weight(folder, alone, late):
    train(toy_run.make_run(folder, f"late-{late}"))
    assert kill_train.result(folder / f"late-{late}") == alone


def test_late_results_are_not_waited_for_in_their_own_step(folder, late, monkeypatch):
    """Nothing in a step may wait for the device: its queue would run dry. What waits asks for a Python number."""
    asked, waits, step = [], [], Trainer.step

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
                waits.append(func)
            return func(*args, **(kwargs or {}))

    def watched(self, *arguments):
        with Watch():
            step(self, *arguments)

    def read(self):
        asked.append((self.step, current[0]))
        return original(self)

    current, original = [0], StepResult.read
    beat = Job.beat
    monkeypatch.setattr(Job, "beat", lambda self, done=None: (current.__setitem__(0, done or 0), beat(self, done)))
    monkeypatch.setattr(Trainer, "step", watched)
    monkeypatch.setattr(StepResult, "read", read)
    train(toy_run.make_run(folder, f"watched-{late}", steps=6, log_every=6, validate_every=6, checkpoint_every=6))
    assert waits == []
    # between steps 1 and 6 nothing is due, so a result is read while the next step is under way, the last at the end
    behind = [under_way - done for done, under_way in asked]
    assert behind == ([1] * 6 if late else [0] * 6)


def test_missing_values_stop_training_and_are_named(folder, monkeypatch, late):
    read = Store.read
    hole = np.datetime64("2000-01-05T12:00")

    def with_hole(self, indices, channels=None, out=None):
        fields = read(self, indices, channels, out)
        fields[self.times[indices] == hole, 1, 2, 3] = np.nan
        return fields

    monkeypatch.setattr(Store, "read", with_hole)
    with pytest.raises(InputError, match=r"stopped at step") as caught:
        train(toy_run.make_run(folder, f"holed-{late}", steps=200, checkpoint_every=1))
    message = str(caught.value)
    assert "missing values in t850:" in message
    samples = message.partition("samples: ")[2].splitlines()[0]
    times = [sample.split(" +") for sample in samples.split(", ")]
    assert 1 <= len(times) <= 4
    for init, lead in times:
        assert hole in (np.datetime64(init), np.datetime64(init) + np.timedelta64(int(lead[:-1]), "h"))
    step = int(message.partition("stopped at step ")[2].partition(":")[0])
    saved = newest(folder / f"holed-{late}" / "checkpoints")
    assert saved is None if step == 1 else saved.step == step - 1
    if saved is not None:
        assert all(value.isfinite().all() for value in kill_train.saved_tensors(saved).values())


def test_divergence_is_told_from_missing_values(folder, late):
    with pytest.raises(InputError, match=r"not finite in .*\n.*2000-01-.* \+\d+h.*\n.*training diverged"):
        train(toy_run.make_run(folder, "diverges", learning_rate=1e30, warmup_steps=0, clip_norm=None))


def script(losses):
    """A validation that gives these losses, one after another."""
    coming = iter(losses)
    return lambda self, model, alive: {"loss": next(coming), "rmse": {}}


def test_best_weights_are_exported(folder, monkeypatch):
    monkeypatch.setattr(Validator, "__call__", script([3.0, 1.0, 2.0]))
    summary = train(toy_run.make_run(folder, "best", export="best"))
    assert (summary.best_loss, summary.best_step, summary.steps) == (1.0, 16, 24)
    assert read_header(summary.weights)[2]["step"] == 16


def interrupted(folder, run, monkeypatch, losses, **training):
    """A run that has ended after step 16, with two validations."""
    monkeypatch.setattr(Validator, "__call__", script(losses))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "finished", property(lambda self: self.state.progress.step >= 16))
        assert train(toy_run.make_run(folder, run, **training)).best_loss == min(losses[:2])


@pytest.mark.parametrize(
    ("change", "then_now"),
    [
        ({"training": {"validation_samples": 3}}, "then 4 initial times from .*, now 3 initial times from"),
        (
            {"data": {"validation": "2000-01-22/2000-01-25"}},
            "then 4 initial .* 2000-01-21T00 .*, now 4 .* 2000-01-22T00",
        ),
        ({"data": {"validation": None}}, "then 4 initial .*, now none"),
    ],
    ids=["samples", "days", "none"],
)
def test_the_best_of_other_validation_samples_is_forgotten(folder, monkeypatch, caplog, change, then_now):
    run = f"forgets {list(change.values())}"
    interrupted(folder, run, monkeypatch, [3.0, 1.0, 2.0])
    plain = toy_run.run_settings(folder, run)
    for section, values in change.items():
        plain[section] |= values
    caplog.set_level("INFO")
    summary = train(parse_settings(RunConfig, plain, "test"))
    expected = (None, None) if change == {"data": {"validation": None}} else (2.0, 24)
    assert (summary.best_loss, summary.best_step) == expected
    assert re.search(rf"best validation loss so far, 1 at step 16, is of other samples .{then_now}", caplog.text)


def test_the_best_of_the_same_samples_is_kept(folder, monkeypatch, caplog):
    """Days that the store does not hold make no sample."""
    interrupted(folder, "keeps", monkeypatch, [3.0, 1.0, 2.0], export="best")
    plain = toy_run.run_settings(folder, "keeps", export="best")
    plain["data"]["validation"] = "2000-01-21/2000-01-31"
    summary = train(parse_settings(RunConfig, plain, "test"))
    assert (summary.best_loss, summary.best_step) == (1.0, 16)
    assert read_header(summary.weights)[2]["step"] == 16
    assert "forgotten" not in caplog.text


def test_early_stopping_and_its_memory(folder, monkeypatch):
    monkeypatch.setattr(Validator, "__call__", script([1.0, 2.0, 0.5, 2.0, 2.0, 2.0]))
    patient = {"early_stopping": 2, "validate_every": 2}
    summary = train(toy_run.make_run(folder, "early", **patient))
    assert (summary.steps, summary.best_step, summary.stopped_by) == (10, 6, None)
    assert summary.weights.is_file()
    again = train(toy_run.make_run(folder, "early", **patient))
    assert (again.resumed_from, again.steps) == (10, 10)


def test_bfloat16_stays_near_float32(folder, alone):
    train(toy_run.make_run(folder, "bfloat16", precision="bfloat16"))
    losses = [line["loss"] for line in lines(folder, "bfloat16", "loss")]
    expected = [line["loss"] for line in lines(folder, "alone", "loss")]
    assert losses == pytest.approx(expected, rel=0.02)
    weights = load_file(folder / "bfloat16" / "weights.safetensors")
    assert weights["to_patches.weight"].dtype == torch.float32


def test_two_input_times_train(folder):
    plain = toy_run.run_settings(folder, "two times", steps=2)
    plain["model"] |= {"input_times": ["-12h", 0], "predict": "state"}
    assert train(parse_settings(RunConfig, plain, "test")).weights.is_file()


def test_random_numbers_of_steps_are_unrelated():
    seeds = {step_seed(seed, step, part) for seed in range(10) for step in range(50) for part in range(2)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_spread_evenly():
    times = np.arange(10)
    assert spread_evenly(times, 20) is times
    assert spread_evenly(times, 4).tolist() == [0, 3, 6, 9]
    assert len(spread_evenly(times, 1)) == 1


def test_dropout_is_on_in_steps_and_off_in_validation(folder, monkeypatch):
    modes = []
    step, score = Trainer.step, Validator._score
    monkeypatch.setattr(Trainer, "step", lambda self, *a: (modes.append(self.state.model.training), step(self, *a)))
    monkeypatch.setattr(Validator, "_score", lambda self, m, *a: (modes.append(m.training), score(self, m, *a))[1])
    train(toy_run.make_run(folder, "modes", steps=2, validate_every=1))
    assert modes == [True, False, False, True, False, False]


def test_dropout_is_on_again_after_a_validation_that_failed(folder, monkeypatch):
    models = []

    def fail(self, model, *arguments):
        models.append(model)
        assert not model.training
        raise RuntimeError("a disk")

    monkeypatch.setattr(Validator, "_score", fail)
    with pytest.raises(RuntimeError, match="a disk"):
        train(toy_run.make_run(folder, "failed", steps=2, validate_every=1))
    assert models[0].training


@pytest.mark.slow
def test_compiled_model_trains_the_same(folder):
    for run, compiled in (("eager", False), ("compiled", True)):
        plain = toy_run.run_settings(folder, run, steps=2, log_every=1, compile=compiled)
        plain["data"]["validation"] = None
        plain["model"]["depth"] = 1
        train(parse_settings(RunConfig, plain, "test"))
    eager, compiled = ([line["loss"] for line in lines(folder, run, "loss")] for run in ("eager", "compiled"))
    assert compiled == pytest.approx(eager, rel=1e-5)
