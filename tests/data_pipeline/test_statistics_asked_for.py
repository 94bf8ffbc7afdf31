"""Statistics as models want them: by area, on a logarithm, over several lead times; each against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from invented_source import assert_same_tree, data_config, fields, invented_source, times_every

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError

GRID = regular_grid((48, 48))
TIMES = times_every(6, 40)  # 160 times, 3 shards in time x 2 in channels
TRAIN = np.datetime64("2000-01-31") > TIMES
ASKED = {
    "area_weighted": True,
    "transforms": {"t": {"log1p": 0.5}, "t2m": {"log1p": 2.0}},
    "tendency_leads": ["6h", "24h", "72h"],
    "tendency_lead": "12h",
    "train": "2000-01-01/2000-01-30",
}
SCALES = {"t850": 0.5, "t2m": 2.0}


def scaled() -> np.ndarray:
    """[time, channel, lat, lon] float64 of the training days, as the statistics see them."""
    values = fields(TIMES[TRAIN], GRID).astype(np.float64)
    for channel, name in enumerate(("z500", "t850", "t2m")):
        if name in SCALES:
            x = values[:, channel]
            values[:, channel] = np.copysign(np.log(1 + np.abs(x) / SCALES[name]), x)
    return values


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("asked") / "store.zarr"
    return prepare(data_config(path, **ASKED), invented_source(TIMES, GRID))


def spread(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([channel] mean, [channel] std) of [time, channel, lat, lon], weighted over all but channels."""
    by_channel = values.swapaxes(0, 1).reshape(values.shape[1], len(values), -1)
    w = np.broadcast_to(weights.ravel(), by_channel.shape[1:])
    mean = np.array([np.average(one, weights=w) for one in by_channel])
    return mean, np.array([np.sqrt(np.average((x - m) ** 2, weights=w)) for x, m in zip(by_channel, mean, strict=True)])


def areas() -> np.ndarray:
    edges = np.sin(np.deg2rad(np.linspace(90, -90, 49)))
    return np.broadcast_to((edges[:-1] - edges[1:])[:, None], GRID.shape)


def test_statistics_are_weighted_by_area_and_of_the_logarithm(store):
    mean, std = spread(scaled(), areas())
    np.testing.assert_allclose(store.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(store.std, std, rtol=1e-9)
    raw = fields(TIMES[TRAIN], GRID)
    np.testing.assert_array_equal(store.minimum, raw.min((0, 2, 3)))
    np.testing.assert_array_equal(store.maximum, raw.max((0, 2, 3)))
    np.testing.assert_array_equal(store.read(range(4)), fields(TIMES[:4], GRID))  # the fields stay as they are


@pytest.mark.parametrize("lead", [6, 12, 24, 72])
def test_changes_are_measured_over_each_lead_time(store, lead):
    values, steps = scaled(), lead // 6
    _, std = spread(values[steps:] - values[:-steps], areas())
    np.testing.assert_allclose(store.tendency_std_by_lead[lead], std, rtol=1e-7)  # z500 is subtracted in float32
    if lead == 12:
        np.testing.assert_array_equal(store.tendency_std, store.tendency_std_by_lead[12])


def test_what_was_asked_for_stands_in_the_store_and_in_what_models_know(store):
    assert store.manifest["statistics"]["weights"].startswith("area")
    assert store.manifest["transforms"] == {"t850": {"log1p": 0.5}, "t2m": {"log1p": 2.0}}
    domain = store.domain(["t2m", "z500"])
    assert domain.log_scales == {"t2m": 2.0}
    np.testing.assert_array_equal(domain.tendency_std_by_lead[72], store.tendency_std_by_lead[72][[2, 0]])
    assert verify(store.path).problems == []


def test_a_store_made_longer_or_mended_has_the_bytes_of_one_made_at_once(store, tmp_path):
    path = tmp_path / "store.zarr"
    prepare(data_config(path, **ASKED), invented_source(TIMES[:130], GRID))
    append(data_config(path, **ASKED), invented_source(TIMES, GRID))
    assert_same_tree(store.path, path)
    name = "state/c/1/0/0/0"
    (path / name).write_bytes(b"no shard")
    repair(path, {name}, data_config(path, **ASKED), invented_source(TIMES, GRID))
    assert_same_tree(store.path, path)


def test_masks_areas_and_logarithms_together(tmp_path):
    """Points without a value count in nothing."""
    land = np.random.default_rng(0).random(GRID.shape) < 0.4

    def spoil(number: int, values: np.ndarray) -> np.ndarray:
        values[:, 2, land] = np.nan
        return values

    own = {"sea": {"long_name": "sea_temperature", "units": "K", "bounds": [0, 400], "masked": True}}
    settings = ASKED | {"variables": own, "channels": ["z500", "t850", "sea"], "transforms": {"sea": {"log1p": 2.0}}}
    source = invented_source(TIMES, GRID, spoil=spoil)
    object.__setattr__(source, "state", source.state.assign_coords(channel=["z500", "t850", "sea"]))
    found = prepare(data_config(tmp_path / "store.zarr", **settings), source)
    values = np.log(1 + fields(TIMES[TRAIN], GRID)[:, 2].astype(np.float64)[:, ~land] / 2)
    weights = np.broadcast_to(areas()[~land], values.shape)
    assert found.mean[2] == pytest.approx(np.average(values, weights=weights), rel=1e-12)
    change = (values[12:] - values[:-12])[:, None]
    assert found.tendency_std_by_lead[72][2] == pytest.approx(
        spread(change[..., None], areas()[~land][:, None])[1][0], rel=1e-9
    )
    assert verify(found.path).problems == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transforms": {"q": {"log1p": 1.0}}}, "transforms speaks of q, which is none of data.channels"),
        ({"transforms": {"t2m": {"log1p": 0.0}}}, "data.transforms.t2m.log1p|transforms.t2m.log1p"),
        ({"tendency_leads": ["5h"]}, "tendency_leads has 5h: no two training times are so far apart"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        prepare(data_config(tmp_path / "store.zarr", **settings), invented_source(TIMES, GRID))


def test_stores_without_a_word_hold_no_statistics_nobody_asked_for(tmp_path):
    path = prepare(data_config(tmp_path / "store.zarr"), invented_source(TIMES, GRID)).path
    store = open_store(path)
    assert store.tendency_std_by_lead == {}
    assert store.log_scales == {}
    assert "transforms" not in store.manifest
    assert not (Path(path) / "tendency_leads").exists()
