"""A channel with a mask from its store to its scores: nothing of what is computed knows what stands on land."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sea
import torch
import xarray as xr

import weatherfm
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.loader import Batch, fixed_batches
from weatherfm.earth.domain import Domain, mask_fields
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.figures.maps.case import load_case
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.report.case_studies import case_study
from weatherfm.evaluation.report.sections import spectra_groups
from weatherfm.evaluation.scoring.cases_to_score import Choice
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT
from weatherfm.training import trainer
from weatherfm.training.feeding.ready_batches import make_ready
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.loss import forecast_loss
from weatherfm.training.stepping.rollout import step_losses

WATER = ~sea.LAND


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sea")
    sea.make_store(folder)
    train_here(folder, "alone")
    return folder


def train_here(folder: Path, run: str) -> None:
    settings = sea.run_settings(folder, run, steps=6, validate_every=3)
    settings["model"] |= {"mlp_convolution": True, "decoder_fields": 2}
    trainer.train(parse_settings(RunConfig, settings, "test"))


@pytest.fixture
def model(folder) -> WeatherViT:
    return weatherfm.load(folder / "alone" / "weights.safetensors", device="cpu")


def batch_of(store, **changes) -> Batch:
    (batch,) = fixed_batches(store, store.times[10:14], [0], 12, 4, workers=0)
    return replace(batch, **{name: change(getattr(batch, name).clone()) for name, change in changes.items()})


def on_land(value: float):
    """Other values of the masked channel on land."""

    def change(fields: torch.Tensor) -> torch.Tensor:
        fields[..., 1, :, :][..., torch.from_numpy(sea.LAND)] = value
        return fields

    return change


@pytest.fixture
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_float64")
def test_the_loss_is_that_of_the_sea_alone():
    """Computed here point by point."""
    torch.manual_seed(0)
    masks = {"sst": sea.LAND}
    mean, std = np.array([54000, 280, 5.0]), np.array([1000, 8, 6.0])
    domain = Domain(tuple(sea.CHANNELS), regular_grid((4, 8)), mean, std, std / 2, *mask_fields(masks), masks)
    loss = forecast_loss(ModelConfig(predict="state"), domain, {"sst": 2.0})
    prediction, target = torch.randn(2, 5, 3, 4, 8, dtype=torch.float64)
    target[:, 1, torch.from_numpy(sea.LAND)] = torch.nan
    prediction.requires_grad_()
    found = loss(prediction, target, torch.full((5,), 6))
    area = domain.grid.area_weights
    for b in range(5):
        error = (prediction[b, 1] - target[b, 1]).detach().numpy()
        expected = np.average(error[WATER] ** 2, weights=area[WATER]) * 2 / (4 / 3)
        assert found[b, 1].item() == pytest.approx(expected, rel=1e-12)
        for channel in (0, 2):
            error = (prediction[b, channel] - target[b, channel]).detach().numpy()
            assert found[b, channel].item() == pytest.approx(np.average(error**2, weights=area) * 3 / 4, rel=1e-12)
    found.mean().backward()
    assert (prediction.grad[:, 1, torch.from_numpy(sea.LAND)] == 0).all()
    assert (prediction.grad[:, 1, torch.from_numpy(WATER)] != 0).all()


def test_what_stands_on_land_changes_nothing(folder, model):
    """Neither the forecast at sea, nor the loss, nor a gradient."""
    store = weatherfm.open_store(folder / "store.zarr")
    loss = forecast_loss(model.config, model.domain, {})
    found = []
    for value in (np.nan, 0.0, 300.0):
        model.zero_grad()
        batch = batch_of(store, history=on_land(value), target=on_land(value))
        losses = step_losses(model, loss, make_ready(batch, model, torch.device("cpu")), torch.float32)
        losses.mean().backward()
        assert losses.isfinite().all()
        found.append([losses.detach(), *(p.grad.clone() for p in model.parameters())])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_the_mask_is_shown_to_the_model(model):
    assert model.domain.static_names == ("mask_sst",)
    np.testing.assert_array_equal(model.domain.static[0], sea.LAND)
    np.testing.assert_array_equal(model.domain.masks["sst"], sea.LAND)


@pytest.fixture(scope="module")
def forecast(folder) -> Path:
    settings = sea.run_settings(folder, "alone")
    settings["forecast"] = {"lead_times": ["6h", "12h"], "init_every": "6h", "device": "cpu"}
    return weatherfm.write_forecast(settings, init="2000-01-21/2000-01-24", output=folder / "forecast.zarr")


def test_forecasts_have_no_value_on_land(folder, forecast, model):
    with weatherfm.open_forecast(forecast) as opened:
        written = opened["sea_surface_temperature"].values
        assert np.isnan(written[..., sea.LAND]).all()
        assert np.isfinite(written[..., WATER]).all()
        assert np.isfinite(opened["geopotential"].values).all()
    store = weatherfm.open_store(folder / "store.zarr")
    stepped = weatherfm.forecast(model, store, ["6h", "12h"], "2000-01-21", rollout="6h")
    assert np.isnan(stepped["sea_surface_temperature"].values[..., sea.LAND]).all()
    assert np.isfinite(stepped["sea_surface_temperature"].values[..., WATER]).all()


REGIONS = {
    "global": np.ones((4, 8), bool),
    "southern_extratropics": np.arange(4)[:, None] + np.zeros((1, 8), int) >= 2,
    "inland:30/90/-70/180": sea.LAND & (np.arange(4) > 0)[:, None],
}


def test_scores_are_those_of_the_sea_alone(folder, forecast):
    """Computed here point by point from the forecast's file; a region that is all land has none."""
    store = weatherfm.open_store(folder / "store.zarr")
    settings = EvaluationConfig(regions=list(REGIONS), events=["sst > 281", "z500 > 54000"], spectra=True)
    scores = evaluate(forecast, store, settings=settings)
    with weatherfm.open_forecast(forecast) as opened:
        at = opened["sea_surface_temperature"].sel(lead_time=np.timedelta64(12, "h"))
        fields, valid = at.values.astype(np.float64), (at["init_time"] + np.timedelta64(12, "h")).values
    truth = store.read(store.index_of(valid), ["sst"])[:, 0].astype(np.float64)
    normal = store.climatology_at(valid, ["sst"])[:, 0].astype(np.float64)
    for region, inside in REGIONS.items():
        own = scores.sel(region=region, lead_time=np.timedelta64(12, "h"), forecast="model", period="all")
        brier, own = own["brier"].sel(event="sst > 281"), own.sel(channel="sst")
        points = inside & WATER
        if not points.any():
            assert np.isnan([float(own[name]) for name in ("rmse", "bias", "acc")]).all()
            assert np.isnan(float(brier))
            continue
        weights = store.grid.area_weights[points] / store.grid.area_weights[points].sum()
        error = (fields - truth)[:, points]
        assert float(own["rmse"]) == pytest.approx(np.sqrt((error**2 @ weights).mean()), rel=1e-12)
        assert float(own["bias"]) == pytest.approx((error @ weights).mean(), rel=1e-9)
        ours, theirs = (fields - normal)[:, points], (truth - normal)[:, points]
        pairs = ((ours, theirs), (ours, ours), (theirs, theirs))
        product, square, other = (((a * b) @ weights).mean() for a, b in pairs)
        assert float(own["acc"]) == pytest.approx(product / np.sqrt(square * other), rel=1e-12)
        wrong = (fields[:, points] > 281) != (truth[:, points] > 281)
        assert float(brier) == pytest.approx((wrong @ weights).mean(), rel=1e-12)
    assert np.isfinite(scores["rmse"].sel(channel="z500")).all()
    spectra = [name for name in scores if name.endswith("spectrum")]
    assert spectra
    assert all(np.isnan(scores[name].sel(channel="sst")).all() for name in spectra)


def test_only_masked_channels_are_scored_too(folder, forecast):
    store = weatherfm.open_store(folder / "store.zarr")
    both, alone = (evaluate(forecast, store, choice=Choice(names)) for names in (("z500", "sst"), ("sst",)))
    np.testing.assert_array_equal(alone["rmse"].sel(channel="sst"), both["rmse"].sel(channel="sst"))
    said = json.loads(alone.attrs["provenance"])["missing_data"]
    assert said.startswith("masked points of sst are left out")


@pytest.mark.filterwarnings("error")
def test_a_report_that_begins_with_it(folder, forecast, tmp_path):
    store = weatherfm.open_store(folder / "store.zarr")
    file, scores = ForecastFile(forecast), evaluate(forecast, store)
    groups = spectra_groups(scores, ["sst", "z500"])
    assert "None of sst: fields with holes have no spectra." in [group.note for group in groups]
    assert all("Sea" not in plot.text for group in groups for plot in group.plots)
    init = file.init_times[0]
    study = case_study(file, store, scores, ["sst"], init)
    (row,) = [row for row in study.rows if row.lead == "6 h"]
    case = load_case(file, store, "sst", 6, init)
    error = (case.forecast - case.truth).astype(np.float64)
    largest = error[WATER][np.abs(error[WATER]).argmax()]
    assert float(row.largest.replace("−", "-")) == pytest.approx(largest, rel=0.01)
    assert "–" not in (row.bias, row.largest)


def test_another_mask_of_a_foreign_forecast_is_told(folder, forecast, tmp_path):
    with weatherfm.open_forecast(forecast) as opened:
        foreign = opened.load().drop_attrs()
    foreign["sea_surface_temperature"][:, :, 0, 0] = np.nan
    for name, units in (("sea_surface_temperature", "K"), ("geopotential", "m2 s-2")):
        foreign[name].attrs["units"] = units
    foreign = foreign.rename(init_time="time", lead_time="prediction_timedelta").drop_vars("valid_time")
    foreign[["sea_surface_temperature", "geopotential"]].to_zarr(tmp_path / "foreign.zarr")
    store = weatherfm.open_store(folder / "store.zarr")
    with pytest.raises(InputError, match=r"sst from .*; the truth has values at 1 points where the forecast has none"):
        evaluate(tmp_path / "foreign.zarr", store)


def test_training_that_diverges_is_not_blamed_on_the_mask(folder):
    settings = sea.run_settings(folder, "diverged", steps=6, learning_rate=1e30, warmup_steps=1)
    with pytest.raises(InputError, match="the data are finite, so training diverged"):
        trainer.train(parse_settings(RunConfig, settings, "test"))


def test_a_map_of_it(forecast, folder):
    store = weatherfm.open_store(folder / "store.zarr")
    case = load_case(ForecastFile(forecast), store, "sst", 12, np.datetime64("2000-01-22T00"))
    assert np.isnan(case.forecast[sea.LAND]).all()
    weights = store.grid.area_weights[WATER]
    assert case.rmse == pytest.approx(
        np.sqrt(np.average((case.forecast - case.truth)[WATER].astype(np.float64) ** 2, weights=weights)), rel=1e-12
    )


def test_states_with_holes_at_sea_are_refused(folder, model):
    store = weatherfm.open_store(folder / "store.zarr")
    states = store.read(store.index_of(np.array(["2000-01-21"], "datetime64[s]")))
    states[0, 1, 0, 0] = np.nan
    names = {"z500": "z500", "sst": "sst", "u10": "u10"}
    axes = {"time": np.array(["2000-01-21"], "datetime64[ns]"), "latitude": store.grid.latitude}
    axes |= {"longitude": store.grid.longitude}
    units = {"z500": "m2 s-2", "sst": "K", "u10": "m s-1"}
    given = xr.Dataset(
        {n: (tuple(axes), states[:, i], {"units": units[n]}) for i, n in enumerate(names)}, axes, {"simulated": "true"}
    )
    with pytest.raises(InputError, match="missing values in sst"):
        weatherfm.forecast(model, given, "6h")
    given["sst"][0, 0, 0] = 280.0
    assert np.isfinite(weatherfm.forecast(model, given, "6h")["geopotential"].values).all()


def test_the_log_has_the_error_of_the_sea(folder):
    lines = [json.loads(line) for line in (folder / "alone" / "metrics.jsonl").read_text().splitlines()]
    rmse = [line["validation"]["rmse"]["sst"] for line in lines if "validation" in line]
    assert rmse
    assert all(np.isfinite(value) for by_lead in rmse for value in by_lead.values())
