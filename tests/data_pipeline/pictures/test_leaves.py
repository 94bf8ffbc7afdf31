"""Simulated leaves: PROSPECT as its own package says it, smooth over each picture, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

import weatherfm
from weatherfm.data_pipeline.leaves.leaf import TRAITS, traits_of
from weatherfm.data_pipeline.leaves.reflectance import leaf_reflectance
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError

pytest.importorskip("prosail")


def config(folder="unused", period="2001-01-01/2001-01-05", channels=("refl450..2450/200",), **source) -> DataConfig:
    data = {"store": f"{folder}/store.zarr", "source": {"kind": "leaves", "size": (3, 4), **source}}
    return DataConfig(**data, channels=list(channels), period=period, climatology_window=None)


def test_the_package_says_the_same_of_a_pixel():
    """A leaf of prosail's own documentation: N 1.5, 40 ug cm-2 of chlorophyll, 8 of carotenoids."""
    from prosail import run_prospect

    leaf = {"n": 1.5, "cab": 40.0, "car": 8.0, "ant": 0.0, "cbrown": 0.0, "cw": 0.01, "cm": 0.009}
    wavelengths, reflectance, _ = run_prospect(1.5, 40.0, 8.0, 0.0, 0.01, 0.009, prospect_version="D")
    at = np.array([400, 550, 680, 800, 1450, 2500])
    found = leaf_reflectance({name: np.full((1, 1), value) for name, value in leaf.items()}, at)
    np.testing.assert_array_equal(found[:, 0, 0], np.float32([reflectance[list(wavelengths).index(a)] for a in at]))
    assert found[1] > found[2]  # green reflects more than red
    assert found[3] > 0.4  # near infrared
    assert found[4] < found[3] / 2  # water


def test_traits_are_smooth_bounded_and_a_matter_of_seed_and_picture():
    pictures = [traits_of(seed, picture, (24, 16)) for seed, picture in ((0, 0), (0, 1), (1, 0), (0, 0))]
    for name, (low, high) in TRAITS.items():
        fields = [one[name] for one in pictures]
        assert all(low < field.min() < field.max() < high for field in fields)
        for field in fields:
            steps = [np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)]
            assert max(steps) < 0.15 * (high - low)
        np.testing.assert_array_equal(fields[0], fields[3])
        assert not np.array_equal(fields[0], fields[1])
        assert not np.array_equal(fields[0], fields[2])


def test_pictures_do_not_depend_on_where_a_period_begins_or_what_is_read():
    whole = open_source(config())
    later = open_source(config(period="2001-01-04/2001-01-06", channels=["refl2450", "refl650"]))
    assert whole.simulated
    assert whole.plane
    part = whole.fields.read(np.array([4, 3]), np.array([10, 1]))
    np.testing.assert_array_equal(later.fields.read(np.array([1, 0]), np.array([0, 1])), part)


def test_leaves_become_a_sound_store_that_grows(tmp_path):
    store = prepare(config(tmp_path))
    assert store.simulated
    assert store.grid.shape == (3, 4)
    assert len(store.channels) == 11
    report = verify(store.path)
    assert report.ok
    assert not report.problems
    first = store.read(range(5))
    assert 0 < first.min() < first.max() < 1
    run = {"run": str(tmp_path / "run"), "data": config(tmp_path, "2001-01-01/2001-01-07").model_dump(mode="json")}
    longer = weatherfm.append(run)
    np.testing.assert_array_equal(longer.read(range(5)), first)
    assert len(longer.times) == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"channels": ["refl399"]}, "simulated leaves have no refl399; they have refl400 to refl2500"),
        ({"channels": ["t500"]}, "have no t500"),
        ({"period": None}, "say how many with data.period"),
        ({"period": "2000"}, "the first leaf is of 2001-01-01"),
    ],
)
def test_what_leaves_do_not_have(given, message):
    with pytest.raises(InputError, match=message):
        open_source(config(**given))
