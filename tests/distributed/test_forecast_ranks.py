"""`weatherfm forecast` on several ranks, as a user types it: by initial times, split over tp, killed and refused."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_run
import xarray as xr
from jobs import children, start
from spawn_ranks import spawn
from toy_model import scramble

import weatherfm
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.evaluation import forecast as command
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.loading import load_weights
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import save_weights
from weatherfm.training.forecast_on_ranks import build_split, find_layout, forecast_together
from weatherfm.training.parallel.mesh import build_mesh
from weatherfm.training.run_config import ParallelConfig

CLI = [sys.executable, "-m", "weatherfm.cli", "forecast"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "weatherfm.cli", "forecast"]
CPU = ["forecast.device=cpu", "forecast.init_every=6h"]
SAME = 1e-5  # relative to a field's spread: sums in another order, in single precision
MODEL = {"patch_size": 2, "width": 16, "depth": 2, "heads": 2, "forcings": ["cos_time_of_day", "latitude"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("forecast")
    toy_run.make_store(folder)
    store = open_store(folder / "store.zarr")
    for name, settings in {
        "flat": {},
        "tokens": {"aggregation": {"evaluate": "tokens"}},
        "groups": {"aggregation": {"kind": "hierarchical", "groups": 2}, "input_times": ["-6h", "0h"]},
        "windows": {"backbone": "windows", "patch_size": 1, "windows": {"size": 3}},
        "own": {"backbone": "own_backbones:Layers", "conditioning": "adaln"},
    }.items():
        model = WeatherViT(ModelConfig(**MODEL | settings), store.domain())
        scramble(model)
        trained = {"settings": {"training": {"lead_times": ["6h", "12h"]}}}
        save_weights(folder / f"{name}.safetensors", model, trained)
    return folder


def values(path: Path) -> np.ndarray:
    """[init, channel, lead, lat, lon] in units of each channel's spread."""
    file = ForecastFile(path)
    everything = range(len(file.init_times))
    fields = np.stack([file.read(everything, lead, file.channels) for lead in file.lead_times], axis=2)
    return fields / fields.std((0, 2, 3, 4), keepdims=True)


def alone(folder: Path, name: str, **settings) -> np.ndarray:
    path = folder / f"alone-{name}-{len(list(folder.iterdir()))}.zarr"
    config = ForecastConfig(device="cpu", init_every="6h", **settings)
    command.forecast(folder / f"{name}.safetensors", folder / "store.zarr", config, path)
    return values(path)


def order(folder: Path, name: str, output: str, *more: str) -> list[str]:
    return [str(folder / f"{name}.safetensors"), *CPU, *more, "--store", str(folder / "store.zarr"), "--lead", "6h",
            "12h", "--output", str(folder / output)]  # fmt: skip


def test_two_processes_make_other_initial_times(folder):
    status, lines = start(
        [*CLI, *order(folder, "flat", "two.zarr", "--init=2000-01-03/2000-01-06", "--devices=2")]
    ).end()
    assert status == 0, lines
    assert [line for line in lines if line.startswith("forecast  ")] == [f"forecast  {folder / 'two.zarr'}"], lines
    expected = alone(folder, "flat", lead_times=["6h", "12h"], init="2000-01-03/2000-01-06")
    np.testing.assert_allclose(values(folder / "two.zarr"), expected, atol=SAME)
    assert len(expected) == 16


def test_split_over_tp_under_torchrun(folder):
    arguments = order(folder, "groups", "tp.zarr", "--init=2000-01-03,2000-01-25T18", "--rollout=6h", "parallel.tp=2")
    status, lines = start([*TORCHRUN, *arguments], ranks=2).end()
    assert status == 0, lines
    settings = {"lead_times": ["6h", "12h"], "mode": "rollout", "rollout_step": "6h"}
    expected = alone(folder, "groups", init="2000-01-03,2000-01-25T18", **settings)
    np.testing.assert_allclose(values(folder / "tp.zarr"), expected, atol=SAME)


def _on_ranks(rank: int, folder: Path, name: str, parallel: dict, settings: dict, output: str) -> None:
    config = ForecastConfig(device="cpu", init_every="6h", **settings)
    layout = ParallelConfig(**parallel)
    forecast_together(folder / f"{name}.safetensors", folder / "store.zarr", config, layout, folder / output)


@pytest.mark.parametrize(
    ("name", "parallel", "world"),
    [
        pytest.param("flat", {"tp": 2, "dp_replicate": 2}, 4, marks=pytest.mark.slow),
        ("flat", {"dp_shard": 2}, 2),
        ("groups", {"tp": 2, "dp_shard": 2}, 4),
        ("tokens", {"tp": 2, "channels": "whole"}, 2),
        ("windows", {"tp": 2}, 2),
        ("own", {"tp": 2}, 2),
    ],
    ids=["tp2-replicate2", "shard2", "tp2-shard2-groups", "tp2-whole-channels", "tp2-windows", "tp2-own"],
)
def test_every_layout_makes_the_same_forecast(folder, name, parallel, world):
    """Seven initial times for two data-parallel groups: one of them makes some twice, to keep step."""
    inits = "2000-01-03T06,2000-01-04,2000-01-08T18,2000-01-10T12"
    settings = {"lead_times": ["6h", "12h"], "init": inits, "batch_size": 3}
    output = f"{name}-{world}.zarr"
    spawn(world, _on_ranks, folder, name, parallel, settings, output)
    np.testing.assert_allclose(values(folder / output), alone(folder, name, **settings), atol=SAME)


def _without_channels(rank: int, folder: Path, name: str, output: str) -> None:
    rollout = {"mode": "rollout", "rollout_step": "6h", "lead_times": ["6h", "18h"]}
    config = ForecastConfig(device="cpu", init="2000-01-03", allow_missing=True, **rollout)
    place, layout = folder / f"{name}.nc", ParallelConfig(tp=2)
    forecast_together(folder / f"{name}.safetensors", place, config, layout, folder / output)


@pytest.mark.parametrize(("name", "held"), [("flat", ["z500"]), ("groups", ["z500", "t850"])])
def test_ranks_whose_channels_are_missing_keep_step(folder, name, held):
    """Of three channels one rank has the first two, of which a half is there or both, and the other none that is; also
    in the third step, where all are there at all input times."""
    store = open_store(folder / "store.zarr")
    coordinates = {"time": store.times.astype("datetime64[ns]"), "latitude": store.grid.latitude}
    coordinates |= {"longitude": store.grid.longitude}
    fields = {}
    for channel in held:
        values = xr.DataArray(store.read(np.arange(len(store.times)), [channel])[:, 0], coordinates, list(coordinates))
        level = xr.DataArray([int(channel[1:])], dims="level", attrs={"units": "hPa"})
        units = {"z": "m2 s-2", "t": "K"}[channel[0]]
        fields[channel[0]] = values.expand_dims(level=level, axis=1).assign_attrs(units=units)
    states = xr.merge([field.to_dataset(name=key) for key, field in fields.items()], join="outer")
    states.attrs["simulated"] = "true"
    states.to_netcdf(folder / f"{name}.nc")
    spawn(2, _without_channels, folder, name, f"without-{name}.zarr")
    model, path = load_weights(folder / f"{name}.safetensors", "cpu"), folder / f"without-{name}.zarr"
    alone = weatherfm.forecast(model, states, ["6h", "18h"], "2000-01-03", "6h", allow_missing=True)
    with weatherfm.open_forecast(path) as split:
        for variable, expected in alone.items():
            np.testing.assert_allclose(split[variable].values, expected.values, atol=SAME * float(expected.std()))


@pytest.mark.slow
def test_killed_it_goes_on_with_another_number_of_processes(folder):
    arguments = order(folder, "flat", "killed.zarr", "forecast.batch_size=2", "--init=2000-01-03/2000-01-07")
    slow = [*TORCHRUN[:5], str(Path(__file__).with_name("slow_forecast.py")), "forecast"]
    path = folder / "killed.zarr"
    job = start([*slow, *arguments], ranks=2)
    job.wait_until(lambda: len(list((path / "progress").glob("[0-9]*"))) >= 3)
    os.kill(children(job.process.pid)[1], signal.SIGKILL)
    assert job.process.wait(240) != 0
    done = sorted(int(file.name) for file in (path / "progress").iterdir())
    assert 3 <= len(done) < 10
    files = [file for number in done for file in (path / "geopotential/c" / str(number)).rglob("*") if file.is_file()]
    written = {file: file.stat().st_mtime_ns for file in files}
    assert len(written) == 2 * len(done)  # lead times
    assert not (path / "zarr.json").exists()

    other = folder / "killed-again.zarr"
    shutil.copytree(path, other)
    status, lines = start([*CLI, *arguments], ranks=0).end()  # one process
    assert status == 0, lines
    status, lines = start([*CLI, *arguments, "--devices=2"], ranks=2).end()  # finished: nothing is done
    assert status == 0, lines
    expected = alone(folder, "flat", lead_times=["6h", "12h"], init="2000-01-03/2000-01-07")
    np.testing.assert_allclose(values(path), expected, atol=SAME)
    assert {file: file.stat().st_mtime_ns for file in written} == written  # finished blocks are not made again
    assert not (path / "progress").exists()
    status, lines = start([*CLI, *arguments[:-1], str(other), "--devices=2"], ranks=2).end()
    assert status == 0, lines
    np.testing.assert_array_equal(values(other), values(path))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--devices=2", "--init=2000-01-26T00"], "lacks 2000-01-26T00"),
        pytest.param(
            ["--devices=3", "--init=latest", "parallel.tp=2"],
            "the layout needs dp_replicate 1 x dp_shard 1 x tp 2 = 2 devices, but there are 3",
            marks=pytest.mark.slow,
        ),
        (["--devices=2", "parallel.tp=2", "forecast.device=cuda:0"], "override forecast.device is given twice"),
        (["--devices=2", "model.width=3"], "only forecast.* and parallel.* can be set"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told_once(folder, more, message):
    status, lines = start([*CLI, *order(folder, "flat", "refused.zarr", *more)], ranks=3).end()
    assert status == 2, lines
    assert sum(message in line for line in lines) == 1, lines
    assert sum(line.startswith("weatherfm:") for line in lines) == 1, lines
    assert not (folder / "refused.zarr").exists()


# --- a model too large for one rank ----------------------------------------------------------------------------


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024


def measured(act) -> int:
    """The most memory that an action adds, looked at all the time."""
    before, most, done = anonymous_bytes(), [0], threading.Event()

    def look() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], anonymous_bytes())

    watch = threading.Thread(target=look)
    watch.start()
    try:
        act()
    finally:
        done.set()
        watch.join()
    return most[0] - before


def _load_on_ranks(rank: int, folder: Path, whole_first: bool) -> tuple[int, int]:
    """(most bytes added while loading, bytes held afterwards) of a rank of tp 2."""
    settings = ForecastConfig(device="cpu", init="2000-01-03T00", lead_times=["6h"])
    parallel, device, held = ParallelConfig(tp=2), torch.device("cpu"), []
    task = command.open_task(folder / "large.safetensors", folder / "store.zarr", settings)
    layout = find_layout(parallel, 2, task)
    mesh = build_mesh(layout, "cpu")
    small = command.open_task(folder / "flat.safetensors", folder / "store.zarr", settings)
    build_split(
        small.models[0], parallel, mesh, device, "float32"
    )  # what PyTorch imports and keeps at the first time is not the model's
    if whole_first:
        most = measured(lambda: held.append(load_weights(task.models[0].path)))
    else:
        most = measured(lambda: held.append(build_split(task.models[0], parallel, mesh, device, "float32")[0]))
    local = [p.to_local() if hasattr(p, "to_local") else p for p in (*held[0].parameters(), *held[0].buffers())]
    return most, sum(part.numel() * part.element_size() for part in local)


@pytest.mark.slow
def test_a_model_too_large_for_one_rank(folder):
    """Each rank of tp 2 never holds much more than half; a whole one would not fit into what they are given."""
    store = open_store(folder / "store.zarr")
    config = ModelConfig(patch_size=2, width=512, depth=8, heads=8)
    with torch.device("meta"):
        model = WeatherViT(config, store.domain())
    model.to_empty(device="cpu")
    model.set_statistics()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    save_weights(folder / "large.safetensors", model, {})
    whole = sum(p.numel() * 4 for p in model.parameters())
    assert whole > 90e6
    limit = 0.6 * whole
    for most, held in spawn(2, _load_on_ranks, folder, False):
        assert held < limit
        assert most < limit
    assert min(most for most, _ in spawn(2, _load_on_ranks, folder, True)) > limit  # the measure can fail

    settings = {"lead_times": ["6h"], "init": "2000-01-03T00,2000-01-04T06"}
    spawn(2, _on_ranks, folder, "large", {"tp": 2}, settings, "large.zarr")
    np.testing.assert_allclose(values(folder / "large.zarr"), alone(folder, "large", **settings), atol=SAME)


def test_an_error_while_computing_is_told_once(folder):
    model = load_weights(folder / "flat.safetensors")
    with torch.no_grad():
        model.norm.bias[0] = torch.inf
    save_weights(folder / "broken.safetensors", model, {})
    status, lines = start(
        [*CLI, *order(folder, "broken", "broken.zarr", "--init=2000-01-03/2000-01-06", "--devices=2")], ranks=2
    ).end()
    assert status == 2, lines
    assert sum("the model predicts a value that is not finite" in line for line in lines) == 1, lines
    assert not (folder / "broken.zarr" / "zarr.json").exists()
