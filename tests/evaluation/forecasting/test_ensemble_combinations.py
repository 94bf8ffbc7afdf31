"""Ensembles with all else: masks, inputs that are read, missing channels; onto disk, interrupted, refused, scored."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from types import SimpleNamespace

import member_weights
import numpy as np
import pytest
import sea
import torch
import toy_run
import xarray as xr
import yaml
from member_weights import fields

import weatherfm
from weatherfm.cli import run_command
from weatherfm.data_pipeline.store.training_store import EARTH
from weatherfm.earth.forcings import clock, forcing_fields
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasting import steps
from weatherfm.evaluation.forecasting.open_states import require_read_alike
from weatherfm.evaluation.forecasting.weights_files import absent_members, member_files
from weatherfm.evaluation.forecasts import writer
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.report.provenance_table import provenance_rows
from weatherfm.evaluation.scoring.learned_days import refuse_days_of_weights
from weatherfm.model.adapter import save_adapter
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT
from weatherfm.model.noise import member_noise
from weatherfm.model.weights import save_weights, weights_hash

INITS = ["2000-01-03T00", "2000-01-07T06", "2000-01-20T18"]
SAME = {"rtol": 1e-6, "atol": 1e-5}


def of_sea(store, width: int, **settings):
    config = ModelConfig(
        patch_size=2, width=width, depth=2, heads=2, conditioning="adaln", outputs=["-sst"], **settings
    )
    model = WeatherViT(config, store.domain()).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_noise_with_inputs_that_are_read_masks_and_several_weights(tmp_path):
    """Each member of two models by hand: sea surface temperatures, which have no values on land, are those of the time
    that a step starts from."""
    sea.make_store(tmp_path)
    store = weatherfm.open_store(tmp_path / "store.zarr")
    torch.manual_seed(0)
    models = [of_sea(store, 16, noise=3), of_sea(store, 8, noise=2, input_times=["0h", "-6h"])]
    save_weights(tmp_path / "a.safetensors", models[0], {})
    save_weights(tmp_path / "b.safetensors", models[1], {})
    run_command(
        ["forecast", str(tmp_path / "a.safetensors"), "--store", str(tmp_path / "store.zarr"), "--lead", "6h", "18h",
         "--rollout=6h", "--init", ",".join(INITS), "forecast.inputs=read", "forecast.batch_size=3",
         f"forecast.members={{weights: ['{tmp_path}/[ab].safetensors'], each: 2}}", "forecast.seed=4",
         "--output", str(tmp_path / "f.zarr"), "forecast.device=cpu"]
    )  # fmt: skip
    with weatherfm.open_forecast(tmp_path / "f.zarr") as made:
        assert set(made.data_vars) == {"geopotential", "10m_u_component_of_wind"}
        made = made["10m_u_component_of_wind"].transpose(..., "latitude", "longitude").load()
    for i, init in enumerate(INITS):
        for number in range(4):
            model, time = models[number // 2], np.datetime64(init, "s")
            states = {}
            for hours in (-6, 0, 6, 12, 18):
                at = store.index_of(np.array([time + np.timedelta64(hours, "h")]))
                states[hours] = model.normalize(torch.from_numpy(store.read(at, model.domain.channels)))
            for start in (0, 6, 12):
                now = np.array([time + np.timedelta64(start, "h")])
                given = torch.stack([states[start + hours] for hours in model.config.input_times], 1)
                forcings = torch.from_numpy(forcing_fields(model.forcings, now, model.domain.grid))
                noise = torch.from_numpy(member_noise(model.config.noise, 4, np.array([time]), [number], start))
                told = torch.from_numpy(clock(model.conditions, now))
                with torch.no_grad():
                    state = model(given, forcings, torch.tensor([6]), None, told, noise)
                states[start + 6] = torch.cat([state[:, :1], states[start + 6][:, 1:2], state[:, 2:]], 1)
            expected = model.denormalize(states[18])[0, 2].numpy()
            given = made.isel(init_time=i, number=number, lead_time=1).values
            np.testing.assert_allclose(given, expected, atol=1e-4)


@pytest.mark.parametrize("mode", ["direct", "rollout"])
def test_masks_stay_as_they_are_in_perturbed_members(tmp_path, mode):
    sea.make_store(tmp_path)
    store = weatherfm.open_store(tmp_path / "store.zarr")
    torch.manual_seed(0)
    model = WeatherViT(ModelConfig(patch_size=2, width=8, depth=1, heads=2), store.domain()).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    rollout = "6h" if mode == "rollout" else None
    told = {"amplitude": 0.3, "kind": "spherical"}
    made = weatherfm.forecast(model, store, ["6h", "12h"], INITS, rollout, members=3, perturbation=told)
    temperature = made["sea_surface_temperature"].values
    assert (np.isnan(temperature) == sea.LAND).all()
    assert temperature[..., ~sea.LAND].std(1).mean() > 0.01


def test_members_of_states_that_lack_a_channel(store, load):
    """Of weights with and without noise: each as alone, and in any groups."""
    rows = np.arange(60)
    wind, warm = (store.read(rows, [name])[:, 0] for name in ("u10", "t850"))
    dims = ("time", "latitude", "longitude")
    coordinates = {"time": store.times[rows].astype("datetime64[ns]"), "latitude": store.grid.latitude}
    states = xr.Dataset(
        {"u10": (dims, wind, {"units": "m s-1"}), "t": (("time", "level", *dims[1:]), warm[:, None], {"units": "K"})},
        coordinates | {"longitude": store.grid.longitude, "level": ("level", [850], {"units": "hPa"})},
        {"simulated": "true"},
    )
    models, inits = [load("noisy"), load("plain"), load("other")], INITS[:2]
    settings = {"allow_missing": True, "rollout": "6h"}
    made = weatherfm.forecast(models, states, ["6h", "18h"], inits, **settings)
    apart = weatherfm.forecast(models, states, ["6h", "18h"], inits, batch_size=1, **settings)
    np.testing.assert_allclose(fields(apart), fields(made), **SAME)
    alone = weatherfm.forecast(models[1], states, ["6h", "18h"], inits, **settings)
    np.testing.assert_allclose(fields(made)[:, [1]], fields(alone), **SAME)
    first = weatherfm.forecast(models[0], states, ["6h", "18h"], inits, members=2, **settings)
    np.testing.assert_allclose(fields(made)[:, 0], fields(first)[:, 0], **SAME)
    assert json.loads(made.attrs["provenance"])["missing_channels"] == ["z500"]


def test_members_share_what_comes_before_the_noise(store, load):
    model, batches = load("noisy"), []
    model.aggregation.register_forward_pre_hook(lambda _, given: batches.append(len(given[0])))
    weatherfm.forecast(model, store, ["6h", "12h", "18h"], INITS, "6h", members=4, batch_size=12)
    assert batches == [3, 12, 12]  # initial times alone in the first step
    batches.clear()
    weatherfm.forecast(model, store, ["6h", "12h"], INITS, members=4, batch_size=2)
    assert batches == [1] * 12  # members in twos, of three initial times, at two lead times


class Counted:
    """A store's states that count how often they are read."""

    name, simulated, source, numbers = "counted", True, {"kind": "counted"}, None

    def __init__(self, store, broken: bool = False) -> None:
        self.store, self.channels, self.grid, self.times = store, tuple(store.channels), store.grid, store.times
        self.reads, self.broken = [], broken

    def read(self, times, channels):
        self.reads.append((times.astype(str).tolist(), tuple(channels)))
        if self.broken:
            raise OSError("the disk is gone")
        return self.store.read(self.store.index_of(times), channels)[:, None]


def test_models_that_start_from_the_same_states_read_them_once(store, load):
    models, states = [load("noisy"), load("plain"), load("dropping")], Counted(store)
    made = weatherfm.forecast(models, states, ["6h"], INITS, batch_size=3)
    assert len(states.reads) == len(INITS)
    alone = weatherfm.forecast(models[1], store, ["6h"], INITS)
    np.testing.assert_allclose(fields(made)[:, [1]], fields(alone), **SAME)
    with pytest.raises(OSError, match="the disk is gone"):
        weatherfm.forecast(models, Counted(store, broken=True), ["6h"], INITS)


# --- on disk ---------------------------------------------------------------------------------------------------


def order(folder, output: str, *more: str, weights: str = "noisy", init="2000-01-03/2000-01-05") -> list[str]:
    states = ["--store", str(folder / "store.zarr"), "--init", init, "--lead", "6h", "12h"]
    output = ["--output", str(folder / output), "forecast.device=cpu"]
    return ["forecast", str(folder / f"{weights}.safetensors"), *states, *output, *more]


def values(path) -> np.ndarray:
    with weatherfm.open_forecast(path) as opened:
        return fields(opened.load())


def test_settings_of_members_may_stand_in_a_runs_file_and_their_number_on_the_command(folder, capsys):
    run = {
        "run": str(folder / "elsewhere"),
        "data": {
            "store": str(folder / "store.zarr"),
            "source": {"kind": "planet"},
            "channels": list(member_weights.CHANNELS),
        },
        "forecast": {"perturbation": {"amplitude": 0.1}, "device": "cpu"},
    }
    (folder / "elsewhere").mkdir()
    shutil.copy(folder / "plain.safetensors", folder / "elsewhere" / "weights.safetensors")
    path = folder / "perturbed.yaml"
    path.write_text(json.dumps(run))
    asked = ["forecast", str(path), "--init", "2000-01-03", "--lead", "6h", "--output", str(folder / "perturbed.zarr")]
    assert run_command(asked) == 2
    assert "forecast.perturbation makes members of an ensemble differ, and there are none" in capsys.readouterr().err
    assert run_command([*asked, "--members", "3"]) == 0
    assert values(folder / "perturbed.zarr").shape[1] == 3


def test_the_three_spellings(folder, store, load):
    noisy, other = (str(folder / f"{name}.safetensors") for name in ("noisy", "other"))
    orders = {
        "number": ["--members", "4"],
        "setting": ["forecast.members=4"],
        "files": ["--members", noisy, other],
        "pattern": ["--members", str(folder / "no*y.safetensors"), other],
        "both": [f"forecast.members={{weights: [{noisy}, {other}], each: 2}}"],
    }
    for name, more in orders.items():
        assert run_command(order(folder, f"{name}.zarr", *more)) == 0, name
    made = {name: values(folder / f"{name}.zarr") for name in orders}
    assert {name: given.shape[1] for name, given in made.items()} == dict(zip(orders, (4, 4, 2, 2, 4), strict=True))
    np.testing.assert_array_equal(made["number"], made["setting"])
    np.testing.assert_array_equal(made["files"], made["pattern"])
    np.testing.assert_allclose(made["both"][:, :2], made["number"][:, :2], **SAME)
    in_memory = weatherfm.forecast(load("noisy"), store, ["6h", "12h"], "2000-01-03/2000-01-05", members=4)
    np.testing.assert_allclose(made["number"], fields(in_memory), **SAME)
    file = ForecastFile(folder / "both.zarr")
    assert file.members == 4
    assert file.provenance["members"] == {"each": 2, "seed": 0, "noise": [4, 3]}
    assert file.provenance["weights_sha256"] == [weights_hash(noisy), weights_hash(other)]


def test_members_of_runs_in_the_settings_of_another(folder, tmp_path):
    """The run's own weights need not be there: members are those that are listed."""
    folders = [tmp_path / "seed1", tmp_path / "seed2"]
    for place, name in zip(folders, ("plain", "early"), strict=True):
        place.mkdir()
        shutil.copy(folder / f"{name}.safetensors", place / "weights.safetensors")
    settings = toy_run.run_settings(folder, str(tmp_path / "none"))
    members = [str(tmp_path / "seed*/weights.safetensors")]
    settings["forecast"] = {"lead_times": ["6h", "12h"], "device": "cpu", "members": members}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    path = weatherfm.write_forecast(tmp_path / "run.yaml", init="2000-01-05", output=tmp_path / "a.zarr")
    settings["forecast"]["members"] = None
    other = weatherfm.write_forecast(settings, init="2000-01-05", output=tmp_path / "b.zarr", members=folders)
    np.testing.assert_array_equal(values(path), values(other))
    by_seed = weatherfm.write_forecast(settings, init="2000-01-05", output=tmp_path / "c.zarr", members=tmp_path)
    np.testing.assert_array_equal(values(path), values(by_seed))
    assert str(tmp_path) not in json.dumps(ForecastFile(path).provenance)


def test_seeds_are_counted_and_a_runs_own_weights_come_before_them(tmp_path):
    for seed in (10, 9, 2, 0):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}/weights.safetensors").touch()
    expected = [tmp_path / f"seed{seed}/weights.safetensors" for seed in (0, 2, 9, 10)]
    assert member_files([str(tmp_path)]) == expected
    assert member_files([str(tmp_path / "seed*/*.safetensors")]) == expected
    assert member_files([str(tmp_path / "seed*")]) == expected
    (tmp_path / "weights.safetensors").touch()
    assert member_files([str(tmp_path)]) == [tmp_path / "weights.safetensors"]
    assert absent_members([str(tmp_path / "seed1"), str(tmp_path / "seed2")]) == [str(tmp_path / "seed1")]


def test_adapters_stand_beside_whole_weights(folder, store, load, capsys):
    """`--base` is for the adapters among them."""
    model = load("plain")
    changed = dict(model.named_parameters()) | {"norm.weight": torch.full_like(model.norm.weight, 1.5)}
    base = folder / "plain.safetensors"
    save_adapter(folder / "apart.safetensors", model, member_weights.PROVENANCE, changed, 1.0, base)
    members = ["--members", str(base), str(folder / "apart.safetensors")]
    assert run_command(order(folder, "adapted.zarr", *members, weights="plain")) == 2
    assert "apart.safetensors is an adapter: it holds what was learned beside plain" in capsys.readouterr().err
    assert run_command(order(folder, "adapted.zarr", f"--base={base}", *members, weights="plain")) == 0
    adapted = weatherfm.load(folder / "apart.safetensors", "cpu", base)
    for number, own in enumerate((model, adapted)):
        alone = weatherfm.forecast(own, store, ["6h", "12h"], "2000-01-03/2000-01-05")
        np.testing.assert_allclose(values(folder / "adapted.zarr")[:, [number]], fields(alone), **SAME)


def test_members_that_would_read_files_otherwise_are_refused():
    """By other rules, or other sums where there are any; daily statistics are of stores."""
    plain, other = ({"settings": {"data": {"step": step}}} for step in ("6h", "24h"))
    ruled = {"settings": {"data": {"step": "6h", "source": {"kind": "files", "levels": {"lev": "hPa"}}}}}
    require_read_alike([plain, other], ["z500", "t2m"], None)
    require_read_alike([plain, ruled], ["z500"], {"levels": {}})
    for provenances, channels in (([plain, other], ["z500", "tp"]), ([plain, ruled], ["z500"])):
        with pytest.raises(InputError, match="read by different rules or sums"):
            require_read_alike(provenances, channels, None)
    with pytest.raises(InputError, match="these weights forecast from daily statistics"):
        require_read_alike([plain, {"settings": {"data": {"daily": "mean"}}}], ["z500"], None)


def test_interrupted_it_goes_on_and_refuses_other_members(folder, monkeypatch, capsys):
    """Of blocks of one initial time each."""
    monkeypatch.setattr(writer, "_BLOCK_BYTES", 1)
    asked = ["forecast.batch_size=2", "--members", "4"]
    assert run_command(order(folder, "whole.zarr", *asked)) == 0
    step, calls = steps.Steps._step, []

    def killed(self, *given):
        calls.append(given)
        if len(calls) > 6:  # of four an initial time
            raise KeyboardInterrupt
        return step(self, *given)

    monkeypatch.setattr(steps.Steps, "_step", killed)
    with suppress(SystemExit):
        run_command(order(folder, "broken.zarr", *asked))
    monkeypatch.setattr(steps.Steps, "_step", step)
    assert not (folder / "broken.zarr/zarr.json").exists()
    capsys.readouterr()
    for more in (["--members", "8"], ["forecast.seed=1", *asked], [], ["forecast.perturbation.amplitude=0.1", *asked]):
        assert run_command(order(folder, "broken.zarr", *more)) == 2
        told = capsys.readouterr().err
        assert "holds another forecast: " in told
        assert "members" in told
    assert run_command(order(folder, "broken.zarr", "forecast.batch_size=16", "--members=4")) == 0
    np.testing.assert_allclose(values(folder / "broken.zarr"), values(folder / "whole.zarr"), **SAME)


@pytest.mark.parametrize(
    ("weights", "more", "message"),
    [
        ("plain", ["--members", "16"], "all 16 members of {folder}/plain.safetensors would be the same"),
        ("noisy", ["--members", "1"], "forecast: members: one member is a single forecast"),
        ("noisy", ["--members", "{folder}/noisy.safetensors"], "is {folder}/noisy.safetensors alone, one member"),
        ("noisy", ["--members", "{folder}/none*.safetensors"], "nothing matches {folder}/none*.safetensors"),
        ("noisy", ["--members", "{folder}/gone.safetensors"], "no weights file {folder}/gone.safetensors"),
        ("noisy", ["--members", "{folder}"], "the folder {folder} has no weights.safetensors"),
        ("noisy", ["--members", "{folder}/*y.safetensors", "{folder}/noisy.safetensors"], "noisy.safetensors twice"),
        ("plain", ["--members", "{folder}/noisy.safetensors", "{folder}/other.safetensors"], "is not among forecast.m"),
        ("noisy", ["--members", "4", "{folder}/other.safetensors"], "these are no members; write a number as 16"),
        ("noisy", ["forecast.members=[]"], "these are no members; write a number as 16"),
        ("noisy", ["forecast.members=true"], "these are no members; write a number as 16"),
        ("noisy", ["forecast.members.each=0"], "members.each: input should be greater than or equal to 1"),
        ("noisy", ["--members="], "--members has no value"),
        ("noisy", ["--members", "2", "forcast.dropout=true"], "--members takes forcast.dropout=true for weights"),
        ("noisy", ["--members", "2", "forecast.dropout=true"], "was trained with neither dropout nor drop_path"),
        ("noisy", ["forecast.dropout=true", "--members=2"], "was trained with neither dropout nor drop_path"),
        ("noisy", ["forecast.dropout=true"], "forecast.dropout makes members of an ensemble differ, and th"),
        ("noisy", ["--members", "2", "--base", "{folder}/plain.safetensors"], "is for an adapter; leave base out"),
    ],
)  # fmt: skip
def test_refused_in_one_message(folder, capsys, weights, more, message):
    status = run_command(order(folder, "refused.zarr", *(text.format(folder=folder) for text in more), weights=weights))
    told = capsys.readouterr().err
    assert status == 2
    assert message.format(folder=folder) in told
    assert told.count("weatherfm:") == 1
    assert not (folder / "refused.zarr").exists()


def test_variables_of_other_units_are_refused_by_their_file(tmp_path, capsys):
    """Under one name, in two files: neither is opened as what the other means."""
    from safetensors import safe_open
    from safetensors.torch import save_file
    from toy_model import make_domain, make_model

    for name, units in (("a", "m"), ("b", "cm")):
        save_weights(tmp_path / "plain.safetensors", make_model(make_domain()), {})
        with safe_open(tmp_path / "plain.safetensors", "pt") as file:
            header = json.loads(file.metadata()["weatherfm"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        told = {"era5": "depth_of_dust", "long_name": "depth of dust", "units": units, "bounds": [0, 9]}
        header["domain"]["variables"] = {"dustdepth": told}
        del header["checksum"]  # as a version before wrote it
        save_file(tensors, tmp_path / f"{name}.safetensors", {"weatherfm": json.dumps(header)})
    paths = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    assert run_command(["forecast", paths[0], "--store", "none", "--members", *paths]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"{paths[1]} cannot be a member beside {paths[0]}: its variable dustdepth has units 'cm', not 'm'" in told


def test_days_that_any_member_learned_from_are_refused():
    def weights(year: str) -> dict:
        days = {"start": f"{year}-01-01", "end": f"{year}-12-31"}
        return {"store": {"simulated": False, "world": EARTH, "train": days}, "settings": {"data": {}}}

    times, store = np.array(["2010-01-01"], "datetime64[s]"), SimpleNamespace(world=EARTH)
    refuse_days_of_weights(times, store, {"model": {"training": [weights("2008"), {}, weights("2009")]}})
    with pytest.raises(InputError, match="its weights were trained on"):
        refuse_days_of_weights(times, store, {"model": {"training": [weights("2009"), weights("2010")]}})


def test_an_ensemble_is_scored_and_the_report_tells_its_members(folder, tmp_path):
    paths = [str(folder / f"{name}.safetensors") for name in ("noisy", "other")]
    members = f"forecast.members={{weights: [{', '.join(paths)}], each: 2}}"
    run_command(order(folder, "scored.zarr", members, init="2000-01-22/2000-01-24"))
    scores = weatherfm.evaluate(folder / "scored.zarr", store=folder / "store.zarr", output=tmp_path / "scores.nc")
    assert np.isfinite(scores["crps"].sel(forecast="model")).any()
    rows = dict(provenance_rows(scores))
    assert rows["Forecast model: weights, sha256 (2 of 2)"] == weights_hash(paths[1])
    assert "width 8" in rows["Forecast model: model (2 of 2)"]
    assert rows["Forecast model: members"] == "each 2; noise 4, 3; seed 0"
