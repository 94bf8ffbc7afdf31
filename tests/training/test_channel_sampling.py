"""Training that shows a share of the channels: what a sample lacks is not looked at, and is scored all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import toy_run
from test_local_structure import Asked
from toy_model import make_domain, make_model, scramble

import weatherfm
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.loader import Batch
from weatherfm.errors import InputError
from weatherfm.model.share import whole
from weatherfm.training import trainer
from weatherfm.training.feeding.ready_batches import ReadyBatch
from weatherfm.training.parallel.role import Role
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.loss import forecast_loss
from weatherfm.training.stepping.step import Ground, compute_gradients

DOMAIN = make_domain(static=1)
MODELS = [
    {"input_times": ["-6h", "0h"]},
    {"predict": "state"},
    {"decoder_fields": 2, "aggregation": {"kind": "hierarchical", "groups": 3}},
]


def made_batch(model, seed=0) -> ReadyBatch:
    """Four samples of which the first two lack t850, the second channel."""
    rng, C, shape = np.random.default_rng(seed), len(DOMAIN.channels), DOMAIN.grid.shape
    T = len(model.config.input_times)
    physical = DOMAIN.mean[:, None, None] + DOMAIN.std[:, None, None] * rng.normal(size=(4, T + 1, C, *shape))
    states = torch.from_numpy(physical)
    forcings = torch.from_numpy(rng.normal(size=(4, len(model.forcings), *shape)))
    batch = Batch(states[:, :T], states[:, T], np.zeros(4), torch.full((4,), 24))
    present = torch.ones(4, T * C + 1 + len(model.forcings), dtype=torch.bool)
    present[:2, 1 : T * C : C] = False
    return ReadyBatch(batch, forcings, torch.zeros(4, 0), present)


def step_of(model, ready: ReadyBatch) -> list[torch.Tensor]:
    """Losses [B, C] and gradients of a training step."""
    model.zero_grad()
    all_of_it = whole(model.config, DOMAIN)
    role = Role(None, all_of_it, (0, 1), 1, all_of_it)
    loss = forecast_loss(model.config, DOMAIN, {})
    (scored,) = compute_gradients(model, [Ground(loss, role)], [ready], 1, torch.float64)
    return [scored.losses, *(p.grad.clone() for p in model.parameters())]


@pytest.fixture(params=MODELS, ids=lambda settings: next(iter(settings)))
def model(request):
    torch.set_default_dtype(torch.float64)
    yield scramble(make_model(DOMAIN, **request.param)).double()
    torch.set_default_dtype(torch.float32)


def test_what_a_sample_does_not_show_changes_nothing(model):
    ready = made_batch(model)
    expected = step_of(model, ready)
    for value in (0.0, 1e6, torch.nan):
        history = ready.batch.history.clone()
        history[:2, :, 1] = value
        found = step_of(model, replace(ready, batch=replace(ready.batch, history=history)))
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_samples_that_show_all_are_those_of_a_step_without_sampling(model):
    ready = made_batch(model)
    sampled, plain = step_of(model, ready)[0], step_of(model, replace(ready, present=None))[0]
    torch.testing.assert_close(sampled[2:], plain[2:], rtol=1e-12, atol=0)
    assert (sampled[:2] != plain[:2]).all()  # also channels that are shown see less


def test_a_channel_that_is_absent_counts_in_units_of_its_std(model):
    """By hand: a head that gives 0.5 means half a std from the mean, and half a change where the state is known."""
    ready = made_batch(model)
    with torch.no_grad():
        model.to_patches.weight.zero_()
        model.to_patches.bias.fill_(0.5)
        if model.decoder is not None:
            model.decoder.contract.zero_()
    losses = step_of(model, ready)[0]
    now, truth = ready.batch.history[:, model.config.input_times.index(0)].numpy(), ready.batch.target.numpy()
    area = DOMAIN.grid.area_weights
    for b, c in np.ndindex(4, 3):
        absent, mean, std, change = b < 2 and c == 1, DOMAIN.mean[c], DOMAIN.std[c], DOMAIN.tendency_std[c]
        plain = absent or model.config.predict == "state"
        error = (truth[b, c] - (mean if plain else now[b, c])) / (std if plain else change) - 0.5
        expected = (error**2 * area).mean() / area.mean()
        assert losses[b, c].item() == pytest.approx(expected, rel=1e-5)  # statistics are float32


def run_of(folder, name: str, **training) -> RunConfig:
    given = toy_run.run_settings(folder, name, steps=4, log_every=1, validate_every=2, checkpoint_every=10, **training)
    given["model"] |= {"width": 8}
    return parse_settings(RunConfig, given, "test")


def test_a_run_that_was_broken_off_ends_with_the_same_weights(tmp_path):
    toy_run.make_store(tmp_path)
    sampled = {"channel_sampling": 0.5, "accumulate": 2}
    whole_run = trainer.train(run_of(tmp_path, "whole", **sampled))
    assert trainer.train(run_of(tmp_path, "broken", **sampled), Asked()).steps == 2
    with pytest.raises(InputError, match=r"training.channel_sampling: 0.5 in the checkpoint, absent now"):
        trainer.train(run_of(tmp_path, "broken", accumulate=2))
    broken = trainer.train(run_of(tmp_path, "broken", **sampled))
    assert broken.resumed_from == 2
    assert broken.weights.read_bytes() == whole_run.weights.read_bytes()
    plain = trainer.train(run_of(tmp_path, "plain", accumulate=2))
    models = [weatherfm.load(trained.weights, "cpu") for trained in (whole_run, plain)]
    assert models[0].provenance["settings"]["training"]["channel_sampling"] == 0.5
    assert "channel_sampling" not in models[1].provenance["settings"]["training"]
    assert any((a != b).any() for a, b in zip(*(model.parameters() for model in models), strict=True))
