"""Channels that hardly vary, or hardly change, are told as they are: by prepare, check and train."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import xarray as xr
import yaml
from invented_source import data_config, times_every

from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.fields.spread import doubts_about_spread
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.training.check import check_run
from weatherfm.training.feeding.store_checks import warn_of_spread
from weatherfm.training.run_config import load_run
from weatherfm.training.trainer import train

GRID = regular_grid((4, 8))
TIMES = times_every(6, 20)
CHANNELS = ["t2m", "skt", "t500", "clwc500", "u10"]
"""Of which: a daily cycle alone; packing about 280 K; weather; rounding about zero; nothing at all."""


def doubts(name, std, tendency, low, high, lead=24):
    return doubts_about_spread([name], *(np.array([value]) for value in (std, tendency, low, high)), lead)


@pytest.mark.parametrize(
    ("statistics", "words"),
    [
        (("t2m", 0, 0, 280, 280), "t2m does not vary over the training days"),
        (("t2m", np.nan, np.nan, 280, 280), "t2m does not vary"),
        (("t2m", 7, 0, 250, 300), "t2m varies (std 7 K), but not at all over the tendency lead of 24h"),
        (("t2m", 7, 1e-6, 250, 300), "but by 1e-06, no more than rounding makes, over the tendency lead"),
        (("t2m", 1e-3, 1e-3, 279.99, 280.01), "t2m varies by 0.001 K about values up to 280, no more than packing"),
        (("clwc500", 1e-11, 1e-11, 0, 3e-11), "clwc500 varies by 1e-11"),
    ],
)
def test_told_as_it_is(statistics, words):
    (text,) = doubts(*statistics)
    assert words in text
    if "tendency lead" in text:
        assert "set data.tendency_lead to another span, e.g. 6h" in text


@pytest.mark.parametrize(
    "statistics",
    [
        ("t2m", 7, 2, 250, 300), ("sst", 8, 0.15, 271, 305), ("z500", 3000, 500, 48000, 59000),
        ("q50", 3e-7, 1e-8, 1.5e-6, 4e-6), ("tp", 2e-3, 2e-3, 0, 0.2), ("t2m", 7, np.nan, 250, 300),
        ("o3500", 2e-8, 8e-9, 2e-8, 3e-7), ("sp", 900, 300, 52000, 104000), ("ciwc300", 1e-6, 1e-6, 0, 1e-3),
    ],
    ids=lambda values: values[0],
)  # fmt: skip
def test_weather_is_not_doubted(statistics):
    assert doubts(*statistics) == []


@pytest.fixture(scope="module")
def store(tmp_path_factory, request):
    """A prepared store of such channels and what preparing it said."""
    folder, said = tmp_path_factory.mktemp("spread"), []
    hours = (np.arange(len(TIMES)) * 6 % 24)[:, None, None]
    noise = np.random.default_rng(1).standard_normal((len(CHANNELS), len(TIMES), 4, 8))
    fields = [
        280 + 10 * np.sin(2 * np.pi * hours / 24) + 5 * np.linspace(0, 1, 8),
        280 + 1e-3 * noise[1] + 0 * hours,
        255 + 8 * noise[2],
        1e-11 * np.abs(noise[3]),
        np.full(noise[4].shape, 1e-3) + 1e-3 * np.linspace(0, 1, 8) * 0,
    ]
    values = np.stack(np.broadcast_arrays(*fields), axis=1).astype(np.float32)
    coordinates = {"time": TIMES, "channel": CHANNELS, "latitude": GRID.latitude, "longitude": GRID.longitude}
    state = xr.DataArray(values, dims=tuple(coordinates), coords=coordinates).chunk({"time": 24})
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("weatherfm").addHandler(handler)
    try:
        source = SourceData(state, None, {"made": "for a test"}, simulated=False)
        prepare(data_config(folder / "s.zarr", channels=CHANNELS, **PERIODS), source)
    finally:
        logging.getLogger("weatherfm").removeHandler(handler)
    return folder / "s.zarr", said


PERIODS = {"train": "2000-01-01/2000-01-12", "validation": "2000-01-14/2000-01-20"}


def test_prepare_says_so(store):
    _, said = store
    told = {name: [text for text in said if text.startswith(f"{name} ")] for name in CHANNELS}
    assert any("varies (std" in text and "not at all over the tendency lead of 24h" in text for text in told["t2m"])
    assert any("no more than packing" in text for text in told["skt"])
    assert any("varies by" in text for text in told["clwc500"])
    assert any("does not vary" in text for text in told["u10"])
    assert told["t500"] == []


def test_check_and_train_say_so(store, tmp_path, caplog):
    path, _ = store
    settings = {
        "run": str(tmp_path / "run"),
        "data": {"store": str(path), "source": {"kind": "planet"}, "channels": ["t500", "skt"], **PERIODS},
        "training": {"steps": 1, "warmup_steps": 0, "batch_size": 2, "device": "cpu", "validation_samples": 2},
        "model": {"patch_size": 2, "width": 16, "depth": 1, "heads": 2},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings))
    run = load_run(file)
    check_run(run)
    assert "skt varies by" in caplog.text
    caplog.clear()
    warn_of_spread(run, open_store(path))
    assert [record.getMessage()[:4] for record in caplog.records] == ["skt "]
    caplog.clear()
    train(run)
    assert sum(record.getMessage().startswith("skt varies by") for record in caplog.records) == 1


def test_a_daily_cycle_is_not_said_to_be_still(store):
    path, _ = store
    opened = open_store(path)
    assert opened.std[0] > 5
    with pytest.raises(
        InputError, match=r"tendency_std of t2m is not positive, though .*\(std 7.*data\.tendency_lead to a short"
    ):
        opened.domain(["t2m", "t500"])
    with pytest.raises(InputError, match=r"std of u10 is not positive: the channel does not vary"):
        opened.domain(["u10"])


def test_a_shorter_lead_mends_it(store, tmp_path):
    path, _ = store
    state = open_store(path)
    values = state.read(np.arange(len(TIMES)), ["t2m"])
    coordinates = {"time": TIMES, "channel": ["t2m"], "latitude": GRID.latitude, "longitude": GRID.longitude}
    source = SourceData(
        xr.DataArray(values, dims=tuple(coordinates), coords=coordinates).chunk({}), None, {}, simulated=False
    )
    made = prepare(data_config(tmp_path / "s.zarr", channels=["t2m"], tendency_lead="6h", **PERIODS), source)
    assert made.domain(["t2m"]).tendency_std[0] == pytest.approx(10, rel=0.01)  # RMS of a quarter of a sine of 10 K
