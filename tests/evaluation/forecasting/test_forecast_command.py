"""`weatherfm forecast` in one process, as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy_run
import xarray as xr
import yaml
from toy_model import scramble

from weatherfm.cli import run_command
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import save_weights, weights_hash


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run whose weights are there, with no test period in its store."""
    folder = tmp_path_factory.mktemp("command")
    toy_run.make_store(folder)
    model = WeatherViT(
        ModelConfig(patch_size=2, width=16, depth=1, heads=2, input_times=["-6h", "0h"]),
        open_store(folder / "store.zarr").domain(),
    )
    provenance = {"settings": {"training": {"lead_times": ["6h", "12h"]}}}
    save_weights(folder / "run" / "weights.safetensors", scramble(model), provenance)
    settings = toy_run.run_settings(folder) | {"forecast": {"lead_times": ["6h"], "device": "cpu"}}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture
def say(folder, capsys):
    """Run the command; its status, and everything it says."""

    def run(*arguments: str) -> tuple[int, str]:
        status = run_command(["forecast", *map(str, arguments)])
        told = capsys.readouterr()
        return status, told.out + told.err

    return run


def test_a_run_from_its_latest_state(folder, say):
    status, told = say(folder / "run.yaml", "--init", "latest", "--lead", "6h", "12h")
    assert status == 0
    assert told.strip().endswith(f"forecast  {folder / 'run' / 'forecast.zarr'}")
    file = ForecastFile(folder / "run" / "forecast.zarr")
    assert [str(time) for time in file.init_times] == ["2000-01-25T18:00:00"]
    assert file.lead_times == (6, 12)
    assert file.provenance["weights_sha256"] == weights_hash(folder / "run" / "weights.safetensors")


def test_weights_with_a_store_and_settings(folder, say):
    weights = folder / "run" / "weights.safetensors"
    out = folder / "hours.zarr"
    status, _ = say(
        weights, "forecast.device=cpu", "forecast.init_every=12h", "--store", folder / "store.zarr",
        "--init", "2000-01-24,2000-01-25T06", "--output", out,
    )  # fmt: skip
    assert status == 0
    hours = [str(time.astype("datetime64[h]")) for time in ForecastFile(out).init_times]
    assert hours == ["2000-01-24T00", "2000-01-24T12", "2000-01-25T06"]


def test_initial_times_may_stand_in_the_file(folder, say):
    out = folder / "yaml.zarr"
    status, _ = say(folder / "run.yaml", "forecast.init=2000-01-24T06", "--output", out)
    assert status == 0
    assert len(ForecastFile(out).init_times) == 1


def test_states_from_a_file(folder, say):
    """The same as from the store it was cut from."""
    with xr.open_zarr(folder / "store.zarr") as store:
        state = store["state"].isel(time=slice(-2, None)).load()
    upper = {"level": ("level", [500], {"units": "hPa"})}
    fields = {
        "geopotential": state.sel(channel="z500", drop=True).expand_dims(level=[500], axis=1).assign_coords(upper),
        "u10": state.sel(channel="u10", drop=True),
    }
    for name, units in (("geopotential", "m2 s-2"), ("u10", "m s-1")):
        fields[name].attrs = {"units": units}
    xr.Dataset(fields).to_netcdf(folder / "a.nc")
    warm = (
        state.sel(channel="t850", drop=True)
        .expand_dims(level=[850], axis=1)
        .assign_coords(level=("level", [850], {"units": "hPa"}))
    )
    xr.Dataset({"t": warm.assign_attrs(units="K")}).to_netcdf(folder / "b.nc")
    weights = folder / "run" / "weights.safetensors"
    status, told = say(weights, "--store", folder / "[ab].nc", "--lead", "6h", "--output", folder / "files.zarr")
    assert status == 0, told
    say(weights, "--store", folder / "store.zarr", "--init=latest", "--lead", "6h", "--output", folder / "store-f.zarr")
    from_files, from_store = (ForecastFile(folder / name) for name in ("files.zarr", "store-f.zarr"))
    assert from_files.init_times.tolist() == from_store.init_times.tolist()
    channels = from_store.channels
    np.testing.assert_allclose(from_files.read([0], 6, channels), from_store.read([0], 6, channels), rtol=1e-4)


def test_untrained_steps_are_said_once(folder, say, caplog):
    status, told = say(folder / "run.yaml", "--init=latest", "--lead", "6h", "24h", "--output", folder / "odd.zarr")
    assert status == 0
    said = told + caplog.text
    assert "not trained for steps of 24h, only of 6h, 12h" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forecast.device=cuda:5", "--init=latest"], "forecast.device 'cuda:5' cannot be used here"),
        (["--init=2000-01-01T00"], "lacks 1999-12-31T18, which forecasts from 2000-01-01T00 start from"),
        (["--init=1999"], "has no state in 1999-01-01/1999-12-31, only 100 times from 2000-01-01T00"),
        (["--init=yesterday"], "'yesterday' are not understood"),
        ([], "names no test period; set data.test and prepare again, or give initial times (--init)"),
        (["--init=latest", "--lead", "1h..3h"], "write a range of lead times as 24h..365d/24h"),
        (["--init=latest", "--store", "/no/such"], "no store at /no/such"),
        (["--init=latest", "--devices=0"], "--devices must be 1 or more"),
        (["--init=latest", "forecast.devise=cpu"], "did you mean forecast.device?"),
        (["--init=latest", "forecast.device=meta"], "forecast.device: no device that PyTorch knows"),
        (["--init="], "--init has no value; give one, or leave the option out"),
        (["--init", " "], "the argument after --init is empty"),
        (["--init=latest", "--rollout="], "--rollout has no value"),
        (["--init=latest", "--store="], "--store has no value"),
        (["--init=latest", "--lead="], "--lead has no value"),
        (["--init=latest", "--lead", "6h,"], "--lead has no value"),
        (["--init=latest", "--store=nope.nc"], "no file nope.nc to read states from"),
        (["--init=2000-02-30"], "the calendar has no such day"),
        (["--init=latest", "parallel.tp=2"], "parallel.tp=2 splits the work over 2 processes, and there is one; add"),
        (["--init=latest", "parallel.tp=2", "--devices=1"], "there is one; add --devices 2, or start under torchrun"),
    ],
    ids=str,
)
def test_refused_in_one_message(folder, say, arguments, message):
    status, told = say(folder / "run.yaml", *arguments, "--output", folder / "refused.zarr")
    assert status == 2
    assert message in told
    assert told.count("weatherfm:") == 1
    assert "Traceback" not in told
    assert not (folder / "refused.zarr").exists()


def test_lead_times_with_commas(folder, say):
    out = folder / "commas.zarr"
    assert say(folder / "run.yaml", "--init=latest", "--lead", "6h,12h", "18h..24h/6h", "--output", out)[0] == 0
    assert ForecastFile(out).lead_times == (6, 12, 18, 24)


def test_options_that_say_nothing(folder, say):
    status, told = say(folder / "run.yaml", "--output=")
    assert (status, "--output has no value" in told) == (2, True)
    status, told = say(folder / "run.yaml", "--init=latest", "--lead")
    assert status == 2
    assert "--lead" in told
    assert "empty-lead" not in say("--help")[1]


def test_a_run_that_was_trained_on_several_forecasts_on_one(folder, say):
    settings = yaml.safe_load((folder / "run.yaml").read_text()) | {"parallel": {"tp": 2}}
    (folder / "split.yaml").write_text(yaml.safe_dump(settings))
    assert say(folder / "split.yaml", "--init=latest", "--output", folder / "split.zarr")[0] == 0


@pytest.mark.parametrize("section", ["forecast=3", "forecast=[]", "parallel=2", "forecast="])
def test_a_section_is_no_setting(folder, say, section):
    weights = folder / "run" / "weights.safetensors"
    status, told = say(weights, section, "--store", folder / "store.zarr", "--init=latest")
    assert status == 2
    assert "is a section, not a setting; write" in told


def test_an_output_that_cannot_be(folder, say):
    (folder / "file").touch()
    for output, why in ((folder / "file" / "f.zarr", "File exists"), ("/proc/none/f.zarr", "No such file")):
        status, told = say(folder / "run.yaml", "--init=latest", "--output", output)
        assert status == 2
        assert f"the forecast cannot be written to {output} ({why}" in told
        assert "choose another path (--output)" in told


def test_weights_need_states_and_take_no_other_settings(folder, say):
    weights = folder / "run" / "weights.safetensors"
    assert "say where initial states are with --store" in say(weights)[1]
    assert "only forecast.* and parallel.* can be set with it, not data" in say(weights, "data.step=6h", "--store=x")[1]


def test_another_grid_is_refused(folder, say, tmp_path):
    from toy_model import make_domain, make_model

    from weatherfm.earth.grid import regular_grid

    model = make_model(make_domain(regular_grid((8, 16)), ("z500", "t850", "u10")))
    save_weights(tmp_path / "w.safetensors", model, {})
    status, told = say(tmp_path / "w.safetensors", "--store", folder / "store.zarr", "--init=latest")
    assert status == 2
    assert "the model's grid is" in told
    lacking = make_model(make_domain(regular_grid((4, 8)), ("z500", "msl")))
    save_weights(tmp_path / "w2.safetensors", lacking, {})
    assert "the model needs msl, which" in say(tmp_path / "w2.safetensors", "--store", folder / "store.zarr")[1]
