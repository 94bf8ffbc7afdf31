"""Trainings by the CRPS of members that differ by noise: they go on, they learn to spread, they start from others."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import toy_run
from safetensors.torch import load_file

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.model.loading import load_weights
from weatherfm.model.noise import member_noise
from weatherfm.training.feeding.noise import training_noise
from weatherfm.training.feeding.ready_batches import make_ready
from weatherfm.training.feeding.samples import training_samples
from weatherfm.training.parallel.role import Role
from weatherfm.training.run_config import RunConfig
from weatherfm.training.trainer import train

NOISY = {"noise": 4, "conditioning": "adaln"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crps")
    toy_run.make_store(folder)
    return folder


def make_run(folder, run, model=NOISY, **training):
    training = {"steps": 8, "lead_times": ["6h"], "checkpoint_every": 3} | training
    settings = toy_run.run_settings(folder, run, **training)
    settings["model"] |= model
    return parse_settings(RunConfig, settings, "toy run")


def lines(folder, run, kind):
    found = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    return [line[kind] for line in found if kind in line]


def part(index, count):
    return Role(None, None, (index, count), 1, None)


def test_noise_of_a_batch_follows_from_seed_and_number_alone(folder):
    config = make_run(folder, "unused", loss="crps", members=3, rollout={"steps": {0: 1, 4: 2}}, accumulate=2)
    whole = list(training_noise(config, part(0, 1), 0, 16))
    assert [tuple(drawn.shape) for drawn in whole] == [(1, 12, 4)] * 8 + [(2, 12, 4)] * 8
    assert torch.equal(next(training_noise(config, part(0, 1), 9, 10)), whole[9])
    halves = [next(training_noise(config, part(index, 2), 9, 10)) for index in range(2)]
    assert torch.equal(torch.cat(halves, 1), whole[9])
    values = torch.cat([drawn.flatten() for drawn in whole])
    assert len(values.unique()) == len(values)  # by batch, model step, sample and member
    other = make_run(folder, "unused", loss="crps", members=3, seed=1)
    assert not torch.equal(next(training_noise(other, part(0, 1), 0, 1)), whole[0])


@pytest.mark.parametrize("curriculum", [{"rollout": {"steps": {0: 1, 4: 2}}}, {"channel_sampling": 0.6}])
def test_a_broken_run_goes_on_to_the_same_bytes(folder, curriculum):
    name = next(iter(curriculum))
    settings = {"loss": "crps", "members": 3, "accumulate": 2, **curriculum}
    whole = train(make_run(folder, f"whole-{name}", **settings))

    class Asked:
        """A signal after the fifth step."""

        def __init__(self):
            self.asked = 0

        @property
        def received(self):
            self.asked += 1
            return "SIGTERM" if self.asked == 5 else None

        def heed(self):
            pass

    broken = make_run(folder, f"broken-{name}", **settings)
    stopped = train(broken, Asked())
    assert 0 < stopped.steps < 8
    ours, theirs = load_file(train(broken).weights), load_file(whole.weights)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert lines(folder, f"broken-{name}", "validation")[-1] == lines(folder, f"whole-{name}", "validation")[-1]


def test_members_learn_to_spread_where_the_truth_cannot_be_told(folder):
    """It sees u10 alone, whose wave has three lengths on the globe: z500, which has one, may be in any of three places,
    and t850 in as many."""
    config = make_run(
        folder, "spread", {**NOISY, "inputs": ["u10"], "outputs": ["z500", "t850"], "dropout": 0.0, "drop_path": 0.0},
        loss="crps", steps=60, learning_rate=1e-2, validate_every=60, ema_decay=0.0,
    )  # fmt: skip
    model = load_weights(train(config).weights, "cpu")
    loader = training_samples(config, open_store(config.data.store))
    noise = member_noise(4, 0, loader.batch(0).init_time, range(20))
    ready = make_ready(loader.batch(0), model, torch.device("cpu"), noise=torch.from_numpy(noise)[None])
    with torch.no_grad():
        state = model(
            model.normalize(ready.batch.history), ready.forcings, ready.batch.lead_time_hours, None, ready.condition,
            ready.noise_of(0),
        )  # fmt: skip
    members = state.unflatten(0, (-1, 20))[:, :, :2]
    assert members.std(1).mean() > 0.4
    truth = model.normalize(ready.batch.target)[:, None, :2]
    fair = (members - truth).abs().mean(1) - (members[:, :, None] - members[:, None]).abs().sum((1, 2)) / 2 / 20 / 19
    single = (members[:, 0] - truth[:, 0]).abs()
    assert fair.mean() < 0.8 * single.mean()


def test_starts_from_weights_without_noise_at_their_own_forecast(folder):
    plain = train(make_run(folder, "plain", {"conditioning": "adaln"})).weights
    config = make_run(
        folder, "started", loss="crps", steps=1, learning_rate=1e-9, warmup_steps=0, weight_decay=0.0, ema_decay=0.0,
        start_from={"weights": str(plain)},
    )  # fmt: skip
    started = load_weights(train(config).weights, "cpu")
    old, batch = load_weights(plain, "cpu"), training_samples(config, open_store(config.data.store)).batch(0)
    ready = make_ready(batch, old, torch.device("cpu"))
    given = (old.normalize(batch.history), ready.forcings, batch.lead_time_hours, None, ready.condition)
    with torch.no_grad():
        expected = old(*given).repeat_interleave(2, 0)
        found = started(*given, torch.from_numpy(member_noise(4, 0, batch.init_time, range(2))))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not np.array_equal(found, expected)  # and yet the noise has begun to act
