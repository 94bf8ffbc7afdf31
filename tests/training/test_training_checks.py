from __future__ import annotations

import re

import pytest
import toy_run

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.device import choose_device
from weatherfm.errors import InputError
from weatherfm.training.check import check_run
from weatherfm.training.feeding.samples import training_period
from weatherfm.training.feeding.store_checks import check_training
from weatherfm.training.run_config import RunConfig, TrainingConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checks")
    toy_run.make_store(folder)
    return folder


def changed(folder, section, **settings):
    plain = toy_run.run_settings(folder)
    plain[section] |= settings
    return parse_settings(RunConfig, plain, "test")


def test_toy_run_is_in_order(folder):
    check_training(toy_run.make_run(folder), open_store(folder / "store.zarr"))


def test_a_run_without_periods_takes_the_training_days_of_the_store(folder):
    config, store = changed(folder, "data", train=None, validation=None), open_store(folder / "store.zarr")
    check_training(config, store)
    assert str(training_period(config, store)) == "2000-01-01/2000-01-20"


def test_a_subset_of_channels_in_another_order_is_in_order(folder):
    check_training(changed(folder, "data", channels=["u10", "z500"]), open_store(folder / "store.zarr"))


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("data", {"channels": ["z500", "q700"]}, r"q700, which the store .* holds z500 t850 u10"),
        ("data", {"static": ["lsm"]}, r"data.static is \[lsm\], but the store .* holds \[\]"),
        ("data", {"train": "2000-01-01/2000-01-10"}, r"statistics .* are over 2000-01-01/2000-01-20"),
        ("data", {"train": None, "validation": None, "test": "2000-01-20/2000-01-30"}, r"data.test .* shares days"),
        ("data", {"validation": "2001"}, r"no initial time of data.validation \(2001-01-01"),
        ("training", {"lead_times": ["5d"]}, r"no initial time of data.validation"),
        ("training", {"batch_size": 1000}, r"only \d+ init times .* a batch needs 1000"),
        ("training", {"lead_times": ["6h", "9h"]}, r"lead_times holds 9h, .* 6h apart"),
        ("model", {"input_times": ["-1h", 0]}, r"input_times holds -1h, .* 6h apart"),
        ("model", {"patch_size": [2, 16]}, r"patch_size \(2, 16\) is larger than the grid, 4 x 8"),
    ],
)
def test_what_does_not_go_together_is_refused(folder, section, settings, message):
    config, store = changed(folder, section, **settings), open_store(folder / "store.zarr")
    with pytest.raises(InputError, match=message):
        check_training(config, store)


@pytest.mark.parametrize("setting", [{"early_stopping": 2}, {"export": "best"}])
def test_what_needs_a_validation_period_says_so(folder, setting):
    plain = toy_run.run_settings(folder, **setting)
    plain["data"]["validation"] = None
    config = parse_settings(RunConfig, plain, "test")
    with pytest.raises(InputError, match=f"{next(iter(setting))}.* needs a validation period"):
        check_training(config, open_store(folder / "store.zarr"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lead_times": [0]}, "must be positive"),
        ({"lead_times": ["-6h"]}, "must be positive"),
        ({"lead_times": ["1d", "24h"]}, "each given once"),
        ({"learning_rate": 1e-5, "min_learning_rate": 1e-4}, "above learning_rate"),
        ({"channel_weights": {"z500": -1.0}}, "not negative"),
        ({"channel_weights": {"z500": float("inf")}}, "must be finite"),
        ({"channel_weights": {"z500": "high"}}, "must be finite and not negative; got z500: high"),
        ({"channel_weights": "presure"}, "knows the scheme pressure alone, got 'presure'"),
        ({"channel_weights": {"scheme": 2}}, "knows the scheme pressure alone, got 2"),
        ({"cooldown_steps": 10}, "cooldown_steps 10 is for schedule constant_cooldown, and schedule is cosine"),
        ({"schedule": "constant_cooldown", "cooldown_steps": 0}, "greater than or equal to 1"),
        (
            {"schedule": "constant_cooldown", "steps": 54, "warmup_steps": 50},
            "warmup_steps 50 and cooldown_steps 5 are more than steps 54",
        ),
        ({"schedule": "constant"}, "cosine"),
        ({"betas": [0.9, 1.0]}, r"betas must lie in \[0, 1\)"),
        ({"clip_norm": 0}, "greater than 0"),
        ({"ema_decay": 1}, "less than 1"),
        ({"stepz": 3}, "did you mean"),
    ],
)
def test_senseless_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        parse_settings(TrainingConfig, settings, "test")


def test_the_check_tells_the_schedule(folder):
    config = toy_run.make_run(folder, schedule="constant_cooldown", steps=60)
    found = next(f for f in check_run(config) if f.link == "training")
    assert "60 steps of 4, learning rate 0.003: rising over 4 steps, constant, from step 54 on falling to 0;" in str(
        found
    )


@pytest.mark.parametrize("name", ["toaster", "cuda:99"])
def test_device_that_is_not_there_is_refused(name):
    with pytest.raises(InputError, match=f"{name}.*write auto or cpu"):
        choose_device(name)


def layout_link(folder, devices=None, **parallel):
    plain = toy_run.run_settings(folder) | {"parallel": parallel}
    return next(f for f in check_run(parse_settings(RunConfig, plain, "test"), devices) if f.link == "layout")


@pytest.mark.parametrize(
    ("parallel", "devices", "text"),
    [
        ({}, None, "alone: 1 device, 4 of 4 samples of a batch and at most 3 of 3 channels each"),
        ({"tp": 2}, None, "tp2: 2 devices, 4 of 4 samples of a batch and at most 2 of 3 channels each"),
        ({"tp": 2}, 4, "shard2-tp2: 4 devices, 2 of 4 samples"),
        ({"tp": 2, "dp_replicate": 2}, None, "replicate2-tp2: 4 devices"),
    ],
)
def test_check_says_what_a_layout_gives_each_device(folder, parallel, devices, text):
    found = layout_link(folder, devices, **parallel)
    assert found.ok
    assert found.text.startswith(text)


@pytest.mark.parametrize(
    ("parallel", "devices", "problem"),
    [
        ({"tp": 4}, None, r"layout tp4 cannot train this model.*tp 4 does not divide model\.heads 2"),
        ({"tp": 2}, 3, r"needs dp_replicate 1 x dp_shard 1 x tp 2 = 2 devices, but there are 3"),
        ({"dp_shard": 3}, None, r"batch_size 4 .*not a multiple of the 3 data-parallel groups"),
        ({}, 0, "--devices must be 1 or more, got 0"),
    ],
)
def test_check_refuses_a_layout_that_cannot_work(folder, parallel, devices, problem):
    found = layout_link(folder, devices, **parallel)
    assert not found.ok
    assert re.search(problem, found.text, re.DOTALL)
