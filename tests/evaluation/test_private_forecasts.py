"""Forecasts and states of private stores: keys reach the server, and stand in nothing that is written or said."""

from __future__ import annotations

import json
import logging
import pickle

import numpy as np
import pytest
from cloud_stores import WB2_GRID, serving, values, write_weatherbench2
from small_store import SmallStore, TestModel, drift

from weatherfm.cli import run_command
from weatherfm.data_pipeline.formats.zarr import retries
from weatherfm.errors import InputError
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast_config import EvaluationConfig, ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import make_forecast
from weatherfm.evaluation.forecasting.open_states import open_place
from weatherfm.evaluation.results.scores_file import write_scores
from weatherfm.evaluation.scoring import in_parts as scoring_parts
from weatherfm.face.runs import given_sections
from weatherfm.training.run_config import load_run

SECRET = "s3cr3t-t0k3n"
KEY = {"token": SECRET}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    store = SmallStore()
    config = ForecastConfig(lead_times=["24h"])
    model = TestModel(store.domain(), drift)
    make_forecast(model, store, store.times[2:12], config, folder / "f.zarr", {"weights_sha256": "abc"})
    write_weatherbench2(folder / "states", days=2, variables=("2m_temperature",))
    return folder


@pytest.fixture
def server(folder, monkeypatch):
    monkeypatch.setattr(retries, "WAITS", (0.01,))
    with serving(folder) as server:
        server.secret = SECRET
        yield server


def test_a_private_forecast_is_scored_as_in_a_folder(server, folder, tmp_path, caplog):
    store = SmallStore()
    here = evaluate(folder / "f.zarr", store)
    with caplog.at_level(logging.DEBUG):
        settings = EvaluationConfig(storage_options=KEY)
        there = evaluate(f"{server.address}/f.zarr", store, settings=settings, parts=tmp_path / "parts")
    write_scores(there, tmp_path / "scores.nc")
    np.testing.assert_array_equal(there["rmse"].values[0], here["rmse"].values[0])
    texts = [caplog.text, repr(settings), settings.model_dump_json(), json.dumps(there.attrs, default=str)]
    texts += [file.read_bytes().decode("latin-1") for file in tmp_path.rglob("*") if file.is_file()]
    assert not [text for text in texts if SECRET in text]


def test_a_worker_of_a_cluster_has_the_key(server, monkeypatch, tmp_path):
    """What travels opens the file again, and does not show the key."""
    sent = []

    def pretend(calls, workers, shared, scheduler):
        sent.append(repr(shared))
        works = pickle.loads(pickle.dumps(shared))
        yield from (call.function(works, *call.arguments) for call in calls)

    monkeypatch.setattr(scoring_parts, "run_tasks", pretend)
    monkeypatch.setattr(scoring_parts, "capacity_of", lambda scheduler: (1, 2**30))
    monkeypatch.setattr(scoring_parts, "open_store", lambda path: SmallStore())
    settings = EvaluationConfig(storage_options=KEY, damped_persistence=False)
    address, scheduler = f"{server.address}/f.zarr", "tcp://nowhere:1"
    scores = evaluate(address, SmallStore(), settings=settings, parts=tmp_path / "parts", scheduler=scheduler)
    assert np.isfinite(scores["rmse"].values[0, 0]).all()
    assert sent
    assert SECRET not in sent[0]


def test_without_a_key_the_setting_is_named(server):
    with pytest.raises(InputError, match=r"no Zarr store is there \(.*403.*evaluation\.storage_options"):
        evaluate(f"{server.address}/f.zarr", SmallStore())


def test_an_address_with_a_signature_is_refused_before_it_is_written(server):
    """It stood in the provenance of the scores."""
    with pytest.raises(InputError, match=r"carries a query.*evaluation\.storage_options") as told:
        evaluate(f"{server.address}/f.zarr?sig={SECRET}", SmallStore())
    assert SECRET not in str(told.value)


def test_private_states(server, folder):
    address = f"{server.address}/states/{next((folder / 'states').iterdir()).name}"
    states = open_place(address, ["t2m"], {}, None, KEY)
    found = states.read(states.times[:3], ["t2m"])[:, 0, 0]
    expected = values("2m_temperature", states.times[:3].astype("datetime64[h]"), WB2_GRID)[:, ::-1]
    np.testing.assert_array_equal(found, expected)
    assert SECRET not in json.dumps(states.source)
    with pytest.raises(InputError, match=r"403.*forecast\.storage_options"):
        open_place(address, ["t2m"], {}, None)
    with pytest.raises(InputError, match=r"carries a query.*forecast\.storage_options") as told:
        open_place(f"{address}?sig={SECRET}", ["t2m"], {}, None)
    assert SECRET not in str(told.value)


def test_what_follows_a_forecast_is_read_and_not_passed_over(capsys, tmp_path):
    """`evaluate FORECAST evaluation.by=[month]` scored seasons all the same."""
    told = given_sections("f", ["evaluation.storage_options.token=x1y2"], "a forecast", ["evaluation"])
    assert told == {"evaluation": {"storage_options": {"token": "x1y2"}}}
    assert run_command(["evaluate", str(tmp_path), "data.step=6h", f"--store={tmp_path}"]) == 2
    assert "holds a forecast: only evaluation.* can be set with it, not data" in capsys.readouterr().err
    assert run_command(["evaluate", str(tmp_path), "evaluation.by=[week]", f"--store={tmp_path}"]) == 2
    assert "evaluation" in capsys.readouterr().err


@pytest.mark.parametrize("section", ["forecast", "evaluation"])
@pytest.mark.parametrize(
    "override",
    [
        "{section}.storage_options={{token: {secret}",
        "{section}.storage_options {secret}",
        "{section}.storage_options={secret}",
    ],
    ids=["yaml", "no sign", "no mapping"],
)
def test_a_wrong_setting_does_not_show_a_key(tmp_path, section, override):
    path = tmp_path / "run.yaml"
    path.write_text("run: r\ndata: {store: s, channels: [t2m], source: {kind: planet}}\n")
    with pytest.raises(InputError) as told:
        load_run(path, [override.format(section=section, secret=SECRET)])
    assert SECRET not in str(told.value)


def test_a_file_that_is_no_yaml_does_not_show_a_key(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(f"data:\n  source: {{kind: files, storage_options: {{token: {SECRET}: x}}\n")
    with pytest.raises(InputError, match=r"not valid YAML: .* in line \d, column \d") as told:
        load_run(path)
    assert SECRET not in str(told.value)
