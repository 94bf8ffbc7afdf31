"""Each setting of local structure by itself, through a run: broken off, gone on with, exported, forecast with."""

from __future__ import annotations

import pytest
import torch
import toy_run
from broken_off import Asked

import weatherfm
from weatherfm.config import parse_settings
from weatherfm.earth.forcings import clock, forcing_fields
from weatherfm.training import trainer
from weatherfm.training.run_config import RunConfig

SETTINGS = [{"mlp_convolution": True}, {"rotary": True}, {"decoder_fields": 2}, {"truncation": 1}]
SETTINGS += [{"conditioning": "adaln"}, {"position": "place"}]
INIT = "2000-01-20T12"


def train(folder, name, setting, stop=None):
    given = toy_run.run_settings(folder, name, steps=4, log_every=1, validate_every=2, checkpoint_every=10)
    given["model"] |= {"width": 8} | setting
    return trainer.train(parse_settings(RunConfig, given, "test"), stop)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: next(iter(setting)))
def test_a_run_that_was_broken_off_ends_with_the_same_weights_and_forecast(tmp_path, setting):
    toy_run.make_store(tmp_path)
    whole = train(tmp_path, "whole", setting)
    assert train(tmp_path, "broken", setting, Asked()).steps == 2
    broken = train(tmp_path, "broken", setting)
    assert broken.resumed_from == 2
    assert broken.weights.read_bytes() == whole.weights.read_bytes()

    model = weatherfm.load(whole.weights)
    assert all(value.norm() > 0 for value in model.parameters())
    (name,) = setting
    assert getattr(model.config, name) == setting[name]

    forecast = weatherfm.forecast(model, tmp_path / "store.zarr", "12h", INIT)
    store = weatherfm.open_store(tmp_path / "store.zarr")
    times = forecast.init_time.values
    now = model.normalize(torch.from_numpy(store.read(store.index_of(times))))
    forcings = torch.from_numpy(forcing_fields(model.forcings, times, model.domain.grid))
    condition = torch.from_numpy(clock(model.conditions, times))
    with torch.no_grad():
        expected = model.eval()(now[:, None], forcings, torch.tensor([12]), condition=condition)
    found = torch.from_numpy(forecast.geopotential.values[0, 0, 0])
    torch.testing.assert_close(found, model.denormalize(expected)[0, 0])
