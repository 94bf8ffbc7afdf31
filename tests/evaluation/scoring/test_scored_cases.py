from __future__ import annotations

import itertools

import numpy as np
import pytest

from weatherfm.evaluation.scoring.sums_and_series import (
    ScoredCases,
    join_channel_groups,
    load_part,
    merge,
    months_of,
    save_part,
)

TIMES = np.datetime64("2020-01-20T00", "s") + np.arange(9) * np.timedelta64(5, "D")
LEADS = (24, 240)
REGIONS, CHANNELS = 3, 4


def means(seed: int, channels: int = CHANNELS) -> dict[str, np.ndarray]:
    """Per-case means [case, lead, region, channel], of very different size from case to case."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(0, 3, (len(TIMES), 1, 1, 1)))
    shape = (len(TIMES), len(LEADS), REGIONS, channels)
    return {"squared_error": size * rng.random(shape), "error": rng.standard_normal(shape)}


def scored(values: dict[str, np.ndarray], cases: slice = slice(None)) -> ScoredCases:
    times = TIMES[cases]
    part = ScoredCases.empty(times, len(LEADS))
    for lead_index, hours in enumerate(LEADS):
        for first in range(0, len(times), 2):  # blocks of two
            block = slice(first, first + 2)
            of_block = {name: array[cases][block, lead_index] for name, array in values.items()}
            part.add(first, lead_index, months_of(times[block] + np.timedelta64(hours, "h")), of_block)
    return part


@pytest.mark.parametrize("cuts", [[1], [4], [2, 3, 7], list(range(1, 9))])
def test_any_partition_in_any_order_gives_the_whole(cuts):
    values = means(0)
    whole = scored(values)
    parts = [{"model": scored(values, slice(*cut))} for cut in itertools.pairwise([0, *cuts, 9])]
    for order in itertools.islice(itertools.permutations(parts), 8):
        merged = merge(order)["model"]
        np.testing.assert_array_equal(merged.init_times, TIMES)
        np.testing.assert_array_equal(merged.state.cases, whole.state.cases)
        for name in values:
            np.testing.assert_allclose(merged.state.sums[name], whole.state.sums[name], rtol=1e-12)
        np.testing.assert_array_equal(merged.series["squared_error"], whole.series["squared_error"])


def test_cases_are_in_the_month_of_their_valid_time():
    state = scored(means(0)).state
    assert state.cases[:, 0].tolist() == [3, 5, 1] + 9 * [0]  # 21 .. 31 January, 5 .. 25 February, 1 March
    assert state.cases[:, 1].tolist() == [1, 6, 2] + 9 * [0]


def test_series_are_the_cases_in_order():
    values = means(0)
    part = scored(values)
    assert set(part.series) == {"squared_error"}  # of the bias there is no series
    np.testing.assert_array_equal(part.series["squared_error"], values["squared_error"])


def test_parts_with_a_case_in_common_are_refused():
    with pytest.raises(ValueError, match=r"1 initial times, the first 2020-01-30.* in both"):
        scored(means(0), slice(0, 3)) + scored(means(0), slice(2, 5))


def test_a_part_on_disk(tmp_path):
    part = {"model": scored(means(0)), "a name / with signs": scored(means(1))}
    save_part(tmp_path / "0.part", part)
    again = load_part(tmp_path / "0.part")
    assert list(again) == list(part)
    for name, held in part.items():
        np.testing.assert_array_equal(again[name].init_times, held.init_times)
        for kind in ("sums", "series"):
            one = held.series if kind == "series" else held.state.sums
            other = again[name].series if kind == "series" else again[name].state.sums
            assert one.keys() == other.keys()
            for statistic in one:
                np.testing.assert_array_equal(one[statistic], other[statistic])


def test_groups_of_channels_stand_side_by_side():
    values = means(0)
    split = [{name: array[..., part] for name, array in values.items()} for part in (slice(0, 1), slice(1, None))]
    joined, whole = join_channel_groups([scored(part) for part in split]), scored(values)
    for name in values:
        np.testing.assert_array_equal(joined.state.sums[name], whole.state.sums[name])
    np.testing.assert_array_equal(joined.series["squared_error"], whole.series["squared_error"])
