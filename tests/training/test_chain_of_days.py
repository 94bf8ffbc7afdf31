"""Daily statistics, sums on a logarithm and spreads by lead time, from files to scores; and what does not fit them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from synthetic_files import LATITUDE, LONGITUDE, write_netcdf
from toy_model import make_domain, make_model

import weatherfm
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.errors import InputError
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast_config import EvaluationConfig, ForecastConfig
from weatherfm.evaluation.forecasting.provenance import record_of
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import channel_shares
from weatherfm.training import trainer
from weatherfm.training.check import check_run
from weatherfm.training.run_config import RunConfig

HOURS = np.arange(24 * 30 + 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("days")
    rng = np.random.default_rng(0)
    shape = (len(HOURS), len(LATITUDE), len(LONGITUDE))
    wave = 10 * np.sin(HOURS / 20)[:, None, None] + rng.random(shape)
    fields = {"t2m": (280 + wave, "K"), "tp": (np.maximum(1e-3 * rng.standard_normal(shape), 0), "m")}
    axes = {"time": np.datetime64("2000-01-01", "ns") + HOURS * np.timedelta64(1, "h")}
    axes |= {"latitude": LATITUDE, "longitude": LONGITUDE}
    dataset = xr.Dataset({k: (tuple(axes), v.astype(np.float32), {"units": u}) for k, (v, u) in fields.items()}, axes)
    write_netcdf(folder / "hourly.nc", dataset)
    trainer.train(config(folder))
    return folder


def config(folder: Path, **data) -> RunConfig:
    settings = {
        "run": str(folder / "run"),
        "data": {
            "store": str(folder / "store.zarr"),
            "source": {"kind": "files", "paths": [str(folder / "hourly.nc")], "sums": "1h"},
            "variables": {"t2m_low": {"of": "t2m", "daily": "minimum"}},
            "channels": ["t2m", "t2m_low", "tp"], "daily": "mean", "climatology_window": None,
            "train": "2000-01-01/2000-01-20", "test": "2000-01-21/2000-01-30",
            "transforms": {"tp": {"log1p": 1e-5}}, "tendency_leads": ["24h", "48h"],
            "period": "2000-01-01/2000-01-30",
        } | data,
        "model": {"patch_size": 2, "width": 8, "depth": 1, "heads": 2},
        "training": {"steps": 4, "batch_size": 4, "lead_times": ["24h", "48h"], "device": "cpu"},
    }  # fmt: skip
    found = parse_settings(RunConfig, settings, "test")
    if not Path(found.data.store).exists():
        prepare(found.data)
    return found


def test_days_are_forecast_and_scored_by_name(folder):
    given = config(folder)
    path = weatherfm.write_forecast(
        given.model_dump(mode="json", exclude_defaults=False) | {"run": str(folder / "run")},
        init="2000-01-22/2000-01-24", output=folder / "forecast.zarr",
    )  # fmt: skip
    with weatherfm.open_forecast(path) as forecast:
        assert set(forecast.data_vars) == {"2m_temperature", "2m_temperature_daily_minimum", "total_precipitation"}
        assert float(forecast["total_precipitation"].min()) > -1e-3
    store = weatherfm.open_store(folder / "store.zarr")
    scores = evaluate(path, store, settings=EvaluationConfig())
    assert list(scores["channel"].values) == ["t2m", "t2m_low", "tp"]
    assert '"log_scales": {"tp": 1e-05}' in scores.attrs["provenance"]


def test_every_rank_tells_the_scales_of_the_whole_model():
    domain = dataclasses.replace(make_domain(), log_scales={"msl": 10.0})
    share = channel_shares(make_model(domain).config, domain, 3)[0]
    model = WeatherViT(make_model(domain).config, domain, share)
    states = SimpleNamespace(source=None, simulated=True, channels=domain.channels)
    assert record_of(model, domain, states, ForecastConfig(), {}, torch.float32)["log_scales"] == {"msl": 10.0}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"tendency_leads": []}, r"data.tendency_leads is none, but the store .* was prepared with \['24h', '48h'\]"),
        ({"area_weighted": True}, "data.area_weighted is true, but the store .* was prepared with false"),
        ({"daily": "maximum"}, "data.daily is maximum, but the store .* was prepared with mean"),
        ({"tendency_lead": "48h"}, "data.tendency_lead is 48h, but the tendency_std of the store .* is over 24h"),
        ({"transforms": {}}, "data.transforms asks for log1p of nothing, but the statistics .* with {'tp': 1e-05}"),
    ],
)
def test_settings_that_the_store_was_not_prepared_with_are_refused(folder, data, message):
    with pytest.raises(InputError, match=message):
        trainer.train(config(folder, **data))
    problems = [finding.text for finding in check_run(config(folder, **data)) if not finding.ok]
    assert len(problems) == 1


def test_weights_of_days_start_from_no_single_times(folder):
    model = weatherfm.load(folder / "run" / "weights.safetensors", device="cpu")
    own = {"daily": None, "transforms": {}, "tendency_leads": [], "variables": {}, "channels": ["t2m", "tp"]}
    hours = config(folder, **own | {"store": str(folder / "hours.zarr"), "step": "6h", "period": None})
    with pytest.raises(InputError, match=r"these weights forecast from daily mean, the store .* holds single times"):
        weatherfm.forecast(model, hours.data.store, "24h", "2000-01-22")
    with pytest.raises(InputError, match=r"forecast from daily statistics \(data.daily: mean\)"):
        weatherfm.forecast(model, folder / "hourly.nc", "24h", "2000-01-22")


def test_weights_start_from_sums_over_their_own_span(folder):
    own = {"daily": None, "transforms": {}, "tendency_leads": [], "variables": {}, "channels": ["t2m", "tp"]}
    six, one = ({"store": str(folder / f"{span}.zarr"), "step": span, "period": None} for span in ("6h", "1h"))
    given = config(folder, **own | six)
    trainer.train(given.model_copy(update={"run": str(folder / "six")}))
    model = weatherfm.load(folder / "six" / "weights.safetensors", device="cpu")
    config(folder, **own | one)
    with pytest.raises(InputError, match="tp is a sum over 6h to these weights, and over 1h in the store"):
        weatherfm.forecast(model, folder / "1h.zarr", "24h", "2000-01-22")
