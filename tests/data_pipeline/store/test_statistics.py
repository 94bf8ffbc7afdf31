from __future__ import annotations

import json

import numpy as np
import pytest

from weatherfm.data_pipeline.store.statistics import ChannelStatistics, join_channels, pairs, total

RNG = np.random.default_rng(7)
# geopotential: a mean 30 times its spread, where a naive sum of squares in float32 loses everything
VALUES = (RNG.standard_normal((40, 3, 5, 6)) * [[[[2e3]], [[9]], [[1e-3]]]] + [[[[6e4]], [[280]], [[0]]]]).astype("f4")


def _assert_of_values(found: ChannelStatistics, values: np.ndarray, rtol: float) -> None:
    exact = values.astype(np.float64)
    axes = (0, 2, 3)
    np.testing.assert_array_equal(found.count, values.size / values.shape[1])
    np.testing.assert_allclose(found.mean, exact.mean(axes), rtol=rtol, atol=rtol * 1e-3)
    np.testing.assert_allclose(found.std, exact.std(axes), rtol=rtol)
    np.testing.assert_array_equal(found.minimum, exact.min(axes))
    np.testing.assert_array_equal(found.maximum, exact.max(axes))


def test_statistics_of_values_are_numpys_in_float64():
    _assert_of_values(ChannelStatistics.of(VALUES), VALUES, 1e-13)


@pytest.mark.parametrize("cuts", [[1], [7, 8, 30], [0, 40]])
def test_sum_of_parts_is_the_whole(cuts):
    parts = [ChannelStatistics.of(part) for part in np.split(VALUES, cuts)]
    _assert_of_values(total(parts, 3), VALUES, 1e-12)


def test_sum_is_the_same_in_any_order():
    parts = [ChannelStatistics.of(part) for part in np.split(VALUES, 10)]
    forward, backward = total(parts, 3), total(parts[::-1], 3)
    np.testing.assert_allclose(forward.mean, backward.mean, rtol=1e-13, atol=1e-18)
    np.testing.assert_allclose(forward.m2, backward.m2, rtol=1e-12)


def test_empty_is_the_zero_of_addition():
    some = ChannelStatistics.of(VALUES)
    for both in (some + ChannelStatistics.empty(3), ChannelStatistics.empty(3) + some):
        np.testing.assert_array_equal(both.mean, some.mean)
        np.testing.assert_array_equal(both.m2, some.m2)
    assert np.isnan(ChannelStatistics.empty(2).std).all()


@pytest.mark.parametrize("some", [ChannelStatistics.of(VALUES), ChannelStatistics.empty(2)], ids=["values", "empty"])
def test_json_keeps_every_bit(some):
    back = ChannelStatistics.from_dict(json.loads(json.dumps(some.to_dict(), allow_nan=False)))
    for name in ("count", "mean", "m2", "minimum", "maximum"):
        np.testing.assert_array_equal(getattr(back, name), getattr(some, name))


@pytest.mark.parametrize(
    "data", [{}, {"float64": 1}, {"float64": "many"}, {"float64": "AAAA"}, {"float64": "/////////38=" * 5}], ids=str
)
def test_what_is_no_record_of_statistics_is_refused(data):
    with pytest.raises((KeyError, TypeError, ValueError)):
        ChannelStatistics.from_dict(data)


def test_join_channels_restores_all_channels():
    joined = join_channels([ChannelStatistics.of(VALUES[:, :2]), ChannelStatistics.of(VALUES[:, 2:])])
    np.testing.assert_array_equal(joined.m2, ChannelStatistics.of(VALUES).m2)


def test_pairs_cross_neither_gap_nor_split():
    times = np.datetime64("2000-01-01T00") + np.array([0, 6, 12, 24, 30, 36]) * np.timedelta64(1, "h")
    usable = np.array([True, True, True, True, True, False])
    earlier, later = pairs(times, usable, 6)
    assert list(zip(earlier.tolist(), later.tolist(), strict=True)) == [(0, 1), (1, 2), (3, 4)]
    assert len(pairs(times, usable, 48)[0]) == 0
