from __future__ import annotations

import numpy as np
import pytest
from invented_source import data_config, invented_source, times_every

from weatherfm.data_pipeline.fields.time_axis import day_of_year, hour_of_day, resolve_periods, select_times
from weatherfm.data_pipeline.loader import eligible_init_times
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import Period
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError

DAILY = times_every(24, 10)


def _config(**settings):
    return data_config("unused.zarr", **settings)


def test_everything_is_kept_by_default():
    axis = select_times(times_every(6, 3), _config())
    assert axis.step_hours == 6
    assert len(axis.times) == len(axis.indices) == 12
    assert axis.times.dtype == "datetime64[s]"
    assert len(axis.missing) == 0


def test_period_and_step_select():
    axis = select_times(times_every(1, 5), _config(period="2000-01-02/2000-01-03", step="6h"))
    assert axis.times[0] == np.datetime64("2000-01-02T00")
    assert axis.times[-1] == np.datetime64("2000-01-03T18")
    assert axis.indices.tolist() == list(range(24, 72, 6))
    assert axis.step_hours == 6


def test_step_of_days_counts_from_the_period():
    axis = select_times(times_every(6, 9), _config(period="2000-01-02/2000-01-09", step="48h"))
    assert axis.times.astype("datetime64[D]").astype(str).tolist() == [
        "2000-01-02",
        "2000-01-04",
        "2000-01-06",
        "2000-01-08",
    ]


def test_times_at_noon_make_a_daily_axis():
    axis = select_times(DAILY + np.timedelta64(12, "h"), _config(period="2000-01-01/2000-01-10"))
    assert (axis.step_hours, len(axis.times)) == (24, 10)


def test_steps_may_begin_at_another_hour():
    axis = select_times(times_every(6, 9), _config(step="24h", step_offset="12h"))
    assert axis.times[[0, -1]].astype(str).tolist() == ["2000-01-01T12:00:00", "2000-01-09T12:00:00"]
    axis = select_times(times_every(1, 3), _config(step="6h", step_offset="3h"))
    assert np.unique(axis.times.astype("datetime64[h]").astype(int) % 24).tolist() == [3, 9, 15, 21]
    for settings in ({"step_offset": "12h"}, {"step": "6h", "step_offset": "6h"}, {"step": "6h", "step_offset": "-3h"}):
        with pytest.raises(InputError, match="must lie between 0h and step"):
            _config(**settings)


def test_single_time():
    axis = select_times(DAILY[:1], _config())
    assert (axis.step_hours, len(axis.times), len(axis.missing)) == (24, 1, 0)


@pytest.mark.parametrize(
    ("times", "settings", "message"),
    [
        (DAILY[[0, 1, 1, 2]], {}, "duplicate times 2000-01-02T00"),
        (DAILY[[0, 2, 1, 3]], {}, "out of order: 2000-01-02T00"),
        (DAILY[[0, 1, 3, 4]], {}, "1 of 5 steps of 24h are missing: 2000-01-03T00; .*allow_gaps"),
        (DAILY, {"period": "2000-01-01/2000-01-12"}, "missing: 2000-01-11T00, 2000-01-12T00"),
        (DAILY[1:], {"period": "2000-01-01/2000-01-10"}, "missing: 2000-01-01T00"),
        (DAILY, {"period": "1999"}, "no time of the source lies in period 1999.*10 times from 2000-01-01T00"),
        (DAILY + np.timedelta64(12, "h"), {"step": "24h"}, "from 00 UTC .its hours are 12"),
        (DAILY, {"step": "5h"}, "neither divides a day"),
        (DAILY, {"step": "36h"}, "neither divides a day"),
        (DAILY + np.timedelta64(30, "m"), {}, "whole hours"),
        (np.sort(np.append(DAILY, DAILY[3] + np.timedelta64(5, "h"))), {}, "uneven times.*2000-01-04T05"),
        (DAILY[:0], {}, "no times"),
        (np.array(["2000-01-01", "NaT"], "datetime64[ns]"), {}, "missing values"),
    ],
)
def test_bad_axes_are_refused_with_the_times(times, settings, message):
    with pytest.raises(InputError, match=message):
        select_times(times, _config(**settings))


def test_gaps_are_listed_when_allowed():
    axis = select_times(DAILY[[0, 1, 4, 5]], _config(allow_gaps=True))
    assert axis.missing.astype("datetime64[D]").astype(str).tolist() == ["2000-01-03", "2000-01-04"]


def test_many_missing_times_are_counted_not_listed():
    with pytest.raises(InputError, match="and 93 more"):
        select_times(times_every(24, 2), _config(period="2000-01-01/2000-04-09"))


def test_training_defaults_to_the_whole_record():
    periods = resolve_periods(_config(), DAILY)
    assert str(periods["train"]) == "2000-01-01/2000-01-10"
    assert periods["validation"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "2000", "test": "2001"}, r"test \(2001-01-01/2001-12-31\) holds no time"),
        ({"train": "1999", "test": "2000"}, r"train .* holds no time"),
        ({"test": "2000-01-05/2000-01-08"}, "test given without train"),
    ],
)
def test_bad_splits_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        resolve_periods(_config(**settings), DAILY)


def test_day_of_year_and_hour():
    times = np.array(["2000-02-29T23", "2000-12-31T00", "2001-03-01T06", "1979-01-01T12"], "datetime64[s]")
    assert day_of_year(times).tolist() == [60, 366, 60, 1]
    assert hour_of_day(times).tolist() == [23, 0, 6, 12]


def test_splits_of_several_periods(tmp_path):
    splits = {"train": ["2000-01-01/2000-01-10", "2000-01-21/2000-01-30"], "validation": ["2000-01-11", "2000-01-15"]}
    config = data_config(tmp_path / "s.zarr", **splits, test="2000-02", climatology_window=None)
    assert str(config.train) == "2000-01-01/2000-01-10, 2000-01-21/2000-01-30"
    assert config.model_dump(mode="json")["test"] == {"start": "2000-02-01", "end": "2000-02-29"}  # as it always was
    source = invented_source(times_every(6, 40))
    store = prepare(config, source)
    learned = config.train.contains(store.times)
    assert learned.sum() == 4 * 20
    fields = source.state.values.astype(np.float64)[learned]
    np.testing.assert_allclose(store.mean, fields.mean((0, 2, 3)), rtol=1e-12)
    given = {"train": config.train, "validation": config.validation, "test": config.test}
    assert open_store(store.path).periods == given
    assert store.climatology_period == config.train
    assert verify(store.path).problems == []
    inits = eligible_init_times(store, store.periods["train"], [0], [24])
    assert learned[np.searchsorted(store.times, inits + np.timedelta64(24, "h"))].all()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": ["2000-02", "2000-01"]}, "2000-01-01/2000-01-31 does not come after 2000-02-01/2000-02-29"),
        ({"train": []}, "name at least one period"),
        ({"train": ["2000-01", "2000-03"], "test": "2000-02-20/2000-03-02"}, "share days"),
        ({"train": ["2000-01", "2000-1"]}, "write a period as"),
    ],
)
def test_what_is_no_split(splits, message):
    with pytest.raises(InputError, match=message):
        _config(**splits)


def test_every_period_of_a_split_holds_times():
    with pytest.raises(InputError, match=r"train \(2001-01-01/2001-12-31\) holds no time"):
        resolve_periods(_config(train=["2000", "2001"]), DAILY)


def test_days_between_the_periods_of_a_split_may_be_held_out():
    config = _config(train=["2000-01", "2000-03"], test="2000-02")
    assert not config.train.overlaps(config.test)
    assert config.train.overlaps(Period.model_validate("2000-01-31/2000-02-02"))
