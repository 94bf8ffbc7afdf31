"""`train --seeds`: ordinary runs that differ in their seed, one after another, gone on with, refused."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
from pathlib import Path

import kill_train
import pytest
import torch
import toy_run
import yaml

import weatherfm
from weatherfm.cli import run_command
from weatherfm.errors import STOPPED, InputError
from weatherfm.face.seeds import seed_runs, seed_weights
from weatherfm.file_lock import FileLock
from weatherfm.model.model import WeatherViT
from weatherfm.training import trainer
from weatherfm.training.stepping.weight_average import WeightAverage
from weatherfm.training.upkeep.stop_signals import StopSignals

STEPS = 12
SEEDS = (3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    toy_run.make_store(folder)
    return folder


def settings(folder: Path, run: str, **training) -> dict:
    found = toy_run.run_settings(folder, run, **({"steps": STEPS, "seed": SEEDS[0]} | training))
    found["model"]["depth"] = 1
    return found


def write(folder: Path, run: str, **training) -> str:
    path = folder / f"{run}.yaml"
    path.write_text(yaml.safe_dump(settings(folder, run, **training)))
    return str(path)


def results(run: Path) -> list[dict]:
    return [kill_train.result(run / f"seed{seed}") for seed in SEEDS]


@pytest.fixture(scope="module")
def undisturbed(folder):
    """Each seed trained by itself, as a run like any other."""
    for seed in SEEDS:
        trainer.train(weatherfm.read_run(settings(folder, f"alone/seed{seed}", seed=seed)))
    return results(folder / "alone")


def test_each_is_the_run_that_it_would_be_by_itself(folder, undisturbed, capsys):
    assert run_command(["train", write(folder, "turn"), "--seeds", "2"]) == 0
    assert results(folder / "turn") == undisturbed
    assert undisturbed[0]["weights"] != undisturbed[1]["weights"]
    said = capsys.readouterr().out.splitlines()
    assert said == [f"weights   {folder / 'turn' / f'seed{seed}' / 'weights.safetensors'}" for seed in SEEDS]
    assert sorted(path.name for path in (folder / "turn").iterdir()) == ["seed3", "seed4"]


def stop_in(monkeypatch, run: Path, step: int) -> None:
    """SIGTERM in that step of that run: it is exchanged in the next one, and so the last."""
    update = WeightAverage.update

    def updated(self, model, now):
        if now == step and (run / ".training.lock").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        update(self, model, now)

    monkeypatch.setattr(WeightAverage, "update", updated)


def test_stopped_in_the_second_the_same_command_goes_on(folder, undisturbed, monkeypatch, capsys, caplog):
    command = ["train", write(folder, "stopped"), "--seeds", "2"]
    with monkeypatch.context() as patch:
        stop_in(patch, folder / "stopped" / "seed4", 7)
        assert run_command(command) == STOPPED
    assert "stopped by SIGTERM at step 8; the same command goes on from there" in capsys.readouterr().out
    assert not (folder / "stopped" / "seed4" / "weights.safetensors").exists()
    caplog.set_level(logging.INFO)
    assert run_command(command) == 0
    assert results(folder / "stopped") == undisturbed
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if line.startswith("going on from the checkpoint")] == [
        f"going on from the checkpoint of step {step} in {folder / 'stopped' / f'seed{seed}'}"
        for seed, step in zip(SEEDS, (STEPS, 8), strict=True)
    ]
    assert sum(line.startswith("fields are ") for line in said) == 1  # nothing is asked of them for what is finished


def test_a_signal_at_the_end_of_one_begins_no_other(folder, monkeypatch):
    """It came too late to stop that one."""
    stop_in(monkeypatch, folder / "late" / "seed3", STEPS)
    trained = weatherfm.train(write(folder, "late"), seeds=3)
    assert [member.steps for member in trained.members] == [STEPS, 0, 0]
    assert [member.stopped_by for member in trained.members] == [None, "SIGTERM", "SIGTERM"]
    assert trained.stopped_by == "SIGTERM"
    assert trained.weights == (folder / "late" / "seed3" / "weights.safetensors",)
    assert not (folder / "late" / "seed5").exists()


@pytest.mark.parametrize("ways", [{"devices": 1}, {"at_once": 2}], ids=str)
def test_a_signal_before_processes_are_started_starts_none(folder, caplog, ways):
    caplog.set_level(logging.INFO)
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        trained = weatherfm.train(settings(folder, "early"), seeds=2, stop=stop, **ways)
    assert [(member.steps, member.stopped_by) for member in trained.members] == [(0, "SIGUSR1")] * 2
    assert caplog.text.count("stopped by SIGUSR1 before seed3 began; the same command goes on from there") == 1
    assert not (folder / "early").exists()


def test_from_python(folder, undisturbed):
    """On from where the command was, and of more seeds than before."""
    run_command(["train", write(folder, "python"), "--seeds", "2"])
    trained = weatherfm.train(settings(folder, "python"), {"training.log_every": 4}, seeds=3)
    assert results(folder / "python")[0]["weights"] == undisturbed[0]["weights"]
    assert trained.folder == folder / "python"
    assert [member.folder.name for member in trained.members] == ["seed3", "seed4", "seed5"]
    assert [member.resumed_from for member in trained.members] == [STEPS, STEPS, 0]
    assert [member.steps for member in trained.members] == [STEPS] * 3
    assert all("rmse" in member.validation for member in trained.members)
    assert trained.stopped_by is None
    assert list(trained.weights) == seed_weights(settings(folder, "python"), seeds=3)
    assert len({path.read_bytes() for path in trained.weights}) == 3


def test_nothing_is_left_of_one_for_the_next(folder):
    def world():
        gc.collect()
        alive = [one for one in gc.get_objects() if isinstance(one, WeatherViT)]
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
        return len(alive), handlers, torch.get_num_threads(), list(logging.getLogger().handlers), dict(os.environ)

    before = world()
    weatherfm.train(settings(folder, "clean", steps=2), seeds=2)
    assert world() == before


def test_a_single_training_stays_beside_them(folder):
    single = weatherfm.train(settings(folder, "both", steps=2))
    weights = single.weights.read_bytes()
    trained = weatherfm.train(settings(folder, "both", steps=2), seeds=2)
    assert single.weights.read_bytes() == weights == trained.weights[0].read_bytes()


def test_one_that_fails_ends_it_and_says_which(folder, undisturbed, capsys):
    path = write(folder, "failing")
    (folder / "failing").mkdir()
    (folder / "failing" / "seed4").touch()
    assert run_command(["train", path, "--seeds", "3"]) == 2
    told = capsys.readouterr().err
    assert f"{folder / 'failing' / 'seed4'} cannot be written (a file of this name is there)" in told
    assert f"(training seed4, in {folder / 'failing' / 'seed4'}; seed3 stays)" in told
    assert not (folder / "failing" / "seed5").exists()
    (folder / "failing" / "seed4").unlink()
    assert run_command(["train", path, "--seeds", "2"]) == 0
    assert results(folder / "failing") == undisturbed


def test_a_fault_in_one_says_which(folder, capsys, monkeypatch):
    def broken(config, stop=None):
        raise RuntimeError("a wheel came off")

    monkeypatch.setattr(trainer, "train", broken)
    assert run_command(["train", write(folder, "broken"), "--seeds", "2"]) == 1
    assert f"a wheel came off\n(training seed3, in {folder / 'broken' / 'seed3'})" in capsys.readouterr().err


def test_other_settings_than_those_of_finished_ones_are_refused(folder, capsys):
    path = write(folder, "other", steps=2)
    assert run_command(["train", path, "--seeds", "2"]) == 0
    assert run_command(["train", path, "--seeds", "2", "training.learning_rate=1.0e-4"]) == 2
    told = capsys.readouterr().err
    assert "learning_rate" in told
    assert "(training seed3, in" in told


def test_a_second_command_in_the_same_folder_is_refused(folder, capsys):
    path = write(folder, "locked", steps=2)
    (folder / "locked" / "seed3").mkdir(parents=True)
    with FileLock(folder / "locked" / "seed3" / ".training.lock"):
        assert run_command(["train", path, "--seeds", "2"]) == 2
    assert "seed3 is being trained by another process" in capsys.readouterr().err
    assert not (folder / "locked" / "seed4").exists()


def test_runs_of_seeds_differ_in_seed_and_name_alone(folder):
    run = weatherfm.read_run(settings(folder, "x", wandb={"project": "p"}))
    first, second = seed_runs(run, "model.depth=2", seeds=2)
    assert (first.training.seed, second.training.seed) == SEEDS
    assert (first.folder, second.folder) == (folder / "x" / "seed3", folder / "x" / "seed4")
    shown = [(one.training.wandb.project, one.training.wandb.group, one.training.wandb.name) for one in (first, second)]
    assert shown == [("p", "x", "x-seed3"), ("p", "x", "x-seed4")]
    back = {"run": run.run, "training.seed": 3, "training.wandb.group": None, "training.wandb.name": None}
    assert weatherfm.read_run(second, back) == weatherfm.read_run(run, "model.depth=2")
    (named, _) = seed_runs(run, {"training.wandb.group": "g", "training.wandb.name": "n"}, seeds=2)
    assert (named.training.wandb.group, named.training.wandb.name) == ("g", "n-seed3")


def test_folders_are_beside_each_other_wherever_the_run_is(folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = [one.folder for one in seed_runs(settings(Path(), "here"), seeds=2)]
    assert found == [Path("here/seed3"), Path("here/seed4")]
    (first, _) = seed_runs(settings(Path(), "here"), "run=.", seeds=2)
    assert (first.folder, first.training.wandb.group) == (Path("seed3"), folder.name)


def test_weights_that_are_not_there_are_named(folder):
    config = settings(folder, "half", steps=1)
    for run in seed_runs(config, seeds=2):
        trainer.train(run)
    assert [path.parent.name for path in seed_weights(config, seeds=2)] == ["seed3", "seed4"]
    with pytest.raises(InputError, match=re.escape(f"2 of 3 seeds are trained: no {folder / 'half' / 'seed5'}")):
        seed_weights(config, seeds=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "1"], "--seeds 1: an ensemble has two trainings or more; leave --seeds out to train one"),
        (["--seeds", "0"], "--seeds 0: an ensemble has two trainings or more"),
        (["--seeds", "-3"], "--seeds -3: an ensemble has two trainings or more"),
        (["--seeds", "2", "--at-once", "0"], "--at-once must be 1 or more, got 0"),
        (["--at-once", "2"], "--at-once 2 is for several trainings; say how many with --seeds"),
        (["--seeds", "2", "--restarts", "1"], "say how many with devices"),
        (["--seeds", "2", "--devices", "0"], "--devices must be 1 or more"),
        (["--seeds", "2", "--at-once", "2", "training.device=cpu:0"], "training.device cpu:0 is one device, not 2"),
        (["--seeds", "2", "training.stpes=3"], r"did you mean training\.steps"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_refused_before_any_work(folder, capsys, options, message):
    assert run_command(["train", write(folder, "refused"), *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (folder / "refused").exists()


@pytest.mark.parametrize("seeds", [1, True, 2.5, "two"])
def test_no_number_of_trainings_is_refused(folder, seeds):
    with pytest.raises(InputError, match="--seeds"):
        weatherfm.train(settings(folder, "refused"), seeds=seeds)


def test_under_torchrun_they_are_trained_in_turn_alone(folder, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(InputError, match=r"--at-once 2 under torchrun: its 8 processes train one model after another"):
        weatherfm.train(settings(folder, "refused"), seeds=2, at_once=2)
    with pytest.raises(InputError, match=r"--devices 2 under torchrun: it has started 8 already"):
        weatherfm.train(settings(folder, "refused"), seeds=2, devices=2)
