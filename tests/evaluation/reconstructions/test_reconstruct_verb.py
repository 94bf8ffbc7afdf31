"""The verb `reconstruct`, from a trained run to its page: of weather and of pictures; and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import toy_run

import weatherfm
from weatherfm.cli import run_command
from weatherfm.config import parse_settings
from weatherfm.training.run_config import RunConfig
from weatherfm.training.trainer import train

WAVELENGTHS = [450.0, 550.0, 650.0, 670.0, 800.0]


@pytest.fixture(scope="module")
def weather(tmp_path_factory) -> RunConfig:
    """A masked autoencoder after a few steps, on waves."""
    folder = tmp_path_factory.mktemp("weather")
    toy_run.make_store(folder)
    plain = toy_run.run_settings(folder, "run", objective="reconstruct", steps=4)
    plain["model"] |= {"reconstruction": {"mask_ratio": 0.5, "depth": 1, "width": 8}}
    plain["training"].pop("lead_times")
    config = parse_settings(RunConfig, plain, "test")
    train(config)
    return config


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> RunConfig:
    """The same on crops of a picture of five bands, with background, which is 0 in all of them."""
    folder = tmp_path_factory.mktemp("pictures")
    cube = np.random.default_rng(0).uniform(0.1, 0.6, (16, 16, 5)).astype(np.float32)
    cube[:4, :4] = 0.0
    np.save(folder / "cube.npy", cube)
    source = {
        "kind": "cubes",
        "paths": [str(folder / "cube.npy")],
        "crop": 4,
        "wavelengths": WAVELENGTHS,
        "wavelength_units": "nm",
        "test": {"rows": 0.5},
    }
    plain = {
        "run": str(folder / "run"),
        "data": {
            "store": str(folder / "store.zarr"),
            "source": source,
            "channels": [f"refl{int(nm)}" for nm in WAVELENGTHS],
            "climatology_window": None,
        },
        "model": {
            "patch_size": 2, "width": 16, "depth": 1, "heads": 2, "forcings": [],
            "reconstruction": {"mask_ratio": 0.5, "depth": 1},
        },
        "training": {"objective": "reconstruct", "steps": 3, "batch_size": 4, "device": "cpu"},
    }  # fmt: skip
    config = parse_settings(RunConfig, plain, "test")
    weatherfm.prepare(config)
    train(config)
    return config


def test_of_weather_it_scores_the_hidden_points_of_validation(weather, capsys):
    path = weather.folder / "run.yaml"
    path.write_text(json.dumps(weather.model_dump(mode="json")))  # JSON is YAML
    assert run_command(["reconstruct", str(path), "--samples", "2"]) == 0
    told = json.loads((weather.folder / "reconstruction.json").read_text())
    page = (weather.folder / "reconstruction.html").read_text()
    assert page.count("data:image/png") == 2
    assert "SIMULATED" in page
    assert "validation: 2000-01-21/2000-01-25" in page
    assert "Of the variance" in capsys.readouterr().out

    store, model = weatherfm.open_store(weather.data.store), weatherfm.load(weather.folder / "weights.safetensors")
    times = store.times[store.periods["validation"].contains(store.times)]
    states = store.read(store.index_of(times), model.domain.channels)
    made = weatherfm.reconstruct(model, states, times=times, seed=weather.training.seed)
    weights = np.asarray(store.grid.area_weights) * made.hidden
    for place, name in enumerate(model.domain.channels):
        square = (made.fields[:, place].astype(float) - states[:, place]) ** 2
        np.testing.assert_allclose(
            told["channels"][name]["rmse"], np.sqrt((square * weights).sum() / weights.sum()), rtol=1e-5
        )
    assert told["samples"] == len(times)


def test_of_pictures_background_does_not_count(pictures):
    made = weatherfm.write_reconstruction(pictures, samples=3)
    assert made.scores.samples == 8  # the lower half, 2 x 4 crops; the background is in the upper one
    assert made.scores.vegetation is not None
    page = made.page.read_text()
    assert page.count("data:image/png") == 3
    assert "650/550/450 nm" in page
    upper = weatherfm.write_reconstruction(
        made.page.with_name("weights.safetensors"), store=_as_test(pictures), output=made.page.with_name("u.html")
    )
    assert upper.scores.samples == 8
    assert upper.scores.hidden == pytest.approx(0.5, abs=0.1)
    assert np.isfinite(upper.scores.rmse).all()


def _as_test(pictures: RunConfig) -> Path:
    """A store of the same picture whose upper half is held out."""
    folder = Path(pictures.data.store).parent
    np.save(folder / "turned.npy", np.load(folder / "cube.npy")[::-1])
    store = folder / "turned.zarr"
    weatherfm.prepare(pictures, {"data.source.paths": [str(folder / "turned.npy")], "data.store": str(store)})
    return store


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "2000-01-03"}, "trained on"),
        ({"on": "2001"}, "no states of 2001"),
        ({"on": "test"}, "has no test days"),
        ({"on": "soon"}, "--on"),
        ({"samples": 0}, "samples must be 1 or more"),
        ({"store": "nowhere.zarr"}, "no store at nowhere.zarr"),
        ({"output": "."}, "is a folder"),
    ],
)
def test_what_cannot_be_is_refused(weather, options, message):
    with pytest.raises(weatherfm.InputError, match=message):
        weatherfm.write_reconstruction(weather, **options)


def test_weights_for_one_of_several_stores_have_a_page_of_their_own(weather, pictures, tmp_path):
    """As a run with data.mix writes them."""
    weights = shutil.copy(weather.folder / "weights.safetensors", tmp_path / "weights.coarse.safetensors")
    made = weatherfm.write_reconstruction(weights, store=weather.data.store, samples=1)
    assert made.page == tmp_path / "reconstruction.coarse.html"
    with pytest.raises(weatherfm.InputError, match=r"or, of a run on several stores .* weights.NAME.safetensors"):
        weatherfm.write_reconstruction(weights, store=pictures.data.store)


def test_weights_that_forecast_and_settings_behind_weights_are_refused(weather, tmp_path):
    toy_run.make_store(tmp_path)
    config = parse_settings(RunConfig, toy_run.run_settings(tmp_path, "run", steps=1), "test")
    train(config)
    with pytest.raises(weatherfm.InputError, match="forecasts"):
        weatherfm.write_reconstruction(config)
    weights = weather.folder / "weights.safetensors"
    with pytest.raises(weatherfm.InputError, match="no settings can follow"):
        weatherfm.write_reconstruction(weights, "training.seed=3", store=weather.data.store)
    with pytest.raises(weatherfm.InputError, match="does not say where states are"):
        weatherfm.write_reconstruction(weights)


@pytest.mark.parametrize("verb", [weatherfm.evaluate, weatherfm.report])
def test_scores_of_forecasts_that_it_cannot_make_are_refused(weather, verb):
    said = r"a masked autoencoder .* forecasts nothing; `weatherfm reconstruct` scores"
    with pytest.raises(weatherfm.InputError, match=said):
        verb(weather)
