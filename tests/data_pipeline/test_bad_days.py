"""Days that are left out, and times without values that become gaps: nothing else moves, and nothing crosses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from invented_source import assert_same_tree, data_config, fields, invented_source, times_every

from weatherfm.data_pipeline.loader import eligible_init_times
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError

GRID = regular_grid((48, 48))
TIMES = times_every(6, 40)  # 160 times, 3 shards in time x 2 in channels
BAD = ["2000-01-05", "2000-02-02/2000-02-03"]
AWAY = np.isin(TIMES.astype("datetime64[D]"), np.array(["2000-01-05", "2000-02-02", "2000-02-03"], "datetime64[D]"))


def without_values(*times: str, channel: int | None = None, piece: int = 24):
    """NaN throughout at some times, of one channel or all."""
    positions = np.flatnonzero(np.isin(TIMES, np.array(times, "datetime64[ns]")))

    def spoil(number: int, values: np.ndarray) -> np.ndarray:
        for position in positions:
            if position // piece == number:
                values[position % piece, slice(None) if channel is None else channel] = np.nan
        return values

    return spoil


def told(path: Path) -> list[str]:
    """The warnings of verify, which has no errors."""
    problems = verify(path).problems
    assert all(problem.severity == "warning" for problem in problems)
    return [problem.message.partition(":")[0] for problem in problems]


@pytest.fixture(scope="module")
def excluded(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("excluded") / "store.zarr"
    prepare(data_config(path, exclude=BAD), invented_source(TIMES, GRID))
    return path


def test_excluded_days_are_gaps_that_no_sample_crosses(excluded):
    store = open_store(excluded)
    np.testing.assert_array_equal(store.times, TIMES[~AWAY].astype("datetime64[s]"))
    np.testing.assert_array_equal(store.read(range(len(store.times))), fields(TIMES[~AWAY], GRID))
    assert store.manifest["times"]["missing"] == [
        ["2000-01-05T00:00:00", "2000-01-05T18:00:00"],
        ["2000-02-02T00:00:00", "2000-02-03T18:00:00"],
    ]
    learned = fields(TIMES[~AWAY], GRID).astype(np.float64)
    np.testing.assert_allclose(store.mean, learned.mean((0, 2, 3)), rtol=1e-12)
    inits = eligible_init_times(store, None, [0, -6], [6])
    assert not np.isin(np.array(["2000-01-04T18", "2000-01-06T00"], "datetime64[s]"), inits).any()
    assert np.isin(np.array(["2000-01-04T12", "2000-01-06T06"], "datetime64[s]"), inits).all()
    assert told(excluded) == ["12 steps of 6h are missing"]


def test_they_are_not_read(tmp_path):
    """What is wrong with them, as damage, does no harm."""

    def fail(number: int, values: np.ndarray) -> np.ndarray:
        if number == 1:  # 2000-01-07 to 2000-01-12
            raise OSError("this day is damaged")
        return values

    prepare(
        data_config(tmp_path / "s.zarr", exclude=["2000-01-07/2000-01-12"]), invented_source(TIMES, GRID, spoil=fail)
    )


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        (
            ["2001-01-05"],
            "data.exclude names 2001-01-05/2001-01-05, which is outside the days to keep, 2000-01-01/2000-02-09",
        ),
        (["2000"], "no time is left"),
    ],
)
def test_what_cannot_be_excluded(tmp_path, exclude, message):
    with pytest.raises(InputError, match=message):
        prepare(data_config(tmp_path / "s.zarr", exclude=exclude), invented_source(TIMES, GRID))


def test_other_missing_steps_are_still_refused(tmp_path):
    some = np.delete(TIMES, [50])
    with pytest.raises(InputError, match=r"1 of .* steps of 6h are missing: 2000-01-13T12"):
        prepare(data_config(tmp_path / "s.zarr", exclude=["2000-01-05"]), invented_source(some, GRID))


EMPTY = ("2000-01-09T06", "2000-01-20T00", "2000-01-20T06", "2000-02-06T12")


@pytest.mark.parametrize("channel", [None, 1], ids=["all channels", "one channel"])
def test_times_without_values_become_gaps(tmp_path, caplog, channel):
    spoil = without_values(*EMPTY, channel=channel)
    path = tmp_path / "store.zarr"
    store = prepare(data_config(path, allow_gaps=True), invented_source(TIMES, GRID, spoil=spoil))
    kept = TIMES[~np.isin(TIMES, np.array(EMPTY, "datetime64[ns]"))]
    np.testing.assert_array_equal(store.times, kept.astype("datetime64[s]"))
    np.testing.assert_array_equal(store.read(range(len(kept))), fields(kept, GRID))
    stated = store.manifest["times"]
    assert stated["empty"] == stated["missing"]
    assert stated["empty"][1] == ["2000-01-20T00:00:00", "2000-01-20T06:00:00"]
    assert "2000-01-09T06: no values, left out as gaps" in caplog.text
    assert told(path) == ["4 steps of 6h are missing"]
    assert "steps of 6h are missing" not in caplog.text  # one by one


@pytest.fixture(scope="module")
def with_gaps(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gaps") / "store.zarr"
    prepare(data_config(path, allow_gaps=True), invented_source(TIMES, GRID, spoil=without_values(*EMPTY)))
    return path


def test_without_leave_they_end_it_and_are_named(tmp_path):
    source = invented_source(TIMES, GRID, spoil=without_values(*EMPTY, channel=1))
    message = r"t850 have no value at all at 2000-01-09T06: .*data.exclude.*data.allow_gaps"
    with pytest.raises(InputError, match=message):
        prepare(data_config(tmp_path / "s.zarr"), source)


def test_some_values_missing_are_no_gap(tmp_path):
    def spoil(number: int, values: np.ndarray) -> np.ndarray:
        if number == 3:
            values[5, 0, 1, 2] = np.nan
        return values

    with pytest.raises(InputError, match=r"z500 has 1 at 2000-01-20T06\. Leave .*data.exclude"):
        prepare(data_config(tmp_path / "s.zarr", allow_gaps=True), invented_source(TIMES, GRID, spoil=spoil))


def test_interrupted_it_ends_with_the_same_bytes(with_gaps, tmp_path):
    path, holes = tmp_path / "store.zarr", without_values(*EMPTY)

    def fail(number: int, values: np.ndarray) -> np.ndarray:
        if number == 5:
            raise OSError("the disk went away")
        return holes(number, values)

    with pytest.raises(OSError, match="went away"):
        prepare(data_config(path, allow_gaps=True), invented_source(TIMES, GRID, spoil=fail), workers=1)
    prepare(data_config(path, allow_gaps=True), invented_source(TIMES, GRID, spoil=holes))
    assert_same_tree(path, with_gaps)


def test_appended_and_repaired_it_has_the_bytes_of_one_prepared_at_once(with_gaps, tmp_path):
    path, holes = tmp_path / "store.zarr", without_values(*EMPTY)
    some = {"allow_gaps": True, "period": "2000-01-01/2000-01-25"}
    prepare(data_config(path, **some), invented_source(TIMES, GRID, spoil=holes))
    append(data_config(path, allow_gaps=True), invented_source(TIMES, GRID, spoil=holes))
    assert_same_tree(path, with_gaps)
    shard = "state/c/1/0/0/0"
    content = bytearray((path / shard).read_bytes())
    content[100] ^= 1
    (path / shard).write_bytes(content)
    repair(path, {shard}, data_config(path, allow_gaps=True), invented_source(TIMES, GRID, spoil=holes))
    assert_same_tree(path, with_gaps)


def test_days_are_excluded_later_only_before_they_are_there(excluded, tmp_path):
    path = tmp_path / "store.zarr"
    prepare(data_config(path, exclude=BAD[:1], period="2000-01-01/2000-01-25"), invented_source(TIMES, GRID))
    append(data_config(path, exclude=BAD), invented_source(TIMES, GRID))
    assert_same_tree(path, excluded)
    with pytest.raises(InputError, match=r"has 4 times that the source or data.period no longer has"):
        append(data_config(path, exclude=[*BAD, "2000-01-07"]), invented_source(TIMES, GRID))
