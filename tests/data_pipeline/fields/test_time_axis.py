from __future__ import annotations

import json
from calendar import monthrange

import numpy as np
import pytest
from invented_source import data_config, invented_source, times_every

from weatherfm.data_pipeline.fields.time_axis import day_of_year, hour_of_day, resolve_periods, select_times
from weatherfm.data_pipeline.loader import eligible_init_times
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import Days, Period
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.init_times import forecast_init_times

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
        ({"train": {"years": "1979-1980"}}, r"give either months, as \[12, 1, 2\], or season"),
        ({"train": {"years": "1979", "season": "JJA", "months": [6]}}, "give either months"),
        ({"train": {"season": "JJA"}}, r"train\.years is missing"),
        ({"train": {"years": "1979-03/1980-02", "season": "JJA"}}, "years are whole, as 1979-2015"),
        ({"train": {"years": 1979, "season": "ASO"}}, "'DJF', 'MAM', 'JJA' or 'SON'"),
        ({"train": {"years": 1979, "months": [0, 1]}}, "greater than or equal to 1"),
        ({"train": {"years": 1979, "months": [6, 6]}}, "repeat one"),
        ({"train": {"years": 1979, "months": []}}, "at least 1 item"),
        ({"train": {"years": 1979, "month": 6}}, "write a period as|month"),
        ({"train": [{"years": "1979-1980", "season": "MAM"}, {"years": 1980, "season": "JJA"}, 1980]}, "come after"),
        (
            {"train": {"years": "1979-1980", "season": "MAM"}, "test": {"years": 1980, "months": [5]}},
            r"train \(MAM 1979-1980\) and test \(1980-05-01/1980-05-31\) share days",
        ),
    ],
)
def test_what_is_no_split(splits, message):
    with pytest.raises(InputError, match=message):
        _config(**splits)


def by_the_calendar(days: Days, years: range) -> set[tuple[int, int]]:
    """(year, month) of each day that the split contains, every day of `years` asked one by one."""
    every = np.arange(f"{years[0]}-01-01", f"{years[-1] + 1}-01-01", dtype="datetime64[D]")
    inside = every[days.contains(every.astype("datetime64[s]"))].tolist()
    found = {(day.year, day.month) for day in inside}
    assert len(inside) == sum(monthrange(*month)[1] for month in found)  # whole months
    return found


@pytest.mark.parametrize(
    ("written", "months", "name", "stretches"),
    [
        ({"years": "1999-2001", "season": "DJF"}, {12, 1, 2}, "DJF 1999-2001", 4),
        ({"years": "1999-2001", "season": "JJA"}, {6, 7, 8}, "JJA 1999-2001", 3),
        ({"years": "1999-2001", "months": [2, 12, 7]}, {2, 7, 12}, "months 2 7 12 of 1999-2001", 9),
        ({"years": "1999-2001", "months": list(range(12, 0, -1))}, set(range(1, 13)), "1999-01-01/2001-12-31", 1),
    ],
)
def test_months_of_years(written, months, name, stretches):
    days = _config(train=written).train
    assert by_the_calendar(days, range(1998, 2003)) == {(y, m) for y in (1999, 2000, 2001) for m in months}
    assert (str(days), len(days.pieces)) == (name, stretches)
    stored = json.loads(json.dumps(_config(train=written).model_dump(mode="json")["train"]))
    assert set(stored) <= {"start", "end", "parts"}  # what stores have held since there are splits of several periods
    assert _config(train=stored).train == days


def test_months_stand_among_other_periods():
    days = _config(test=[{"years": "2000-2001", "season": "SON"}, 2003]).test
    assert str(days) == "2000-09-01/2000-11-30, 2001-09-01/2001-11-30, 2003-01-01/2003-12-31"
    assert str(_config(test={"years": 2000, "season": "DJF"}).test) == "DJF 2000"


def test_a_store_split_by_season(tmp_path):
    splits = {"train": {"years": "2000-2001", "season": "JJA"}, "test": {"years": 2001, "months": [12, 3]}}
    config = data_config(tmp_path / "s.zarr", **splits, climatology_window=None)
    source = invented_source(times_every(24, 731))
    store = prepare(config, source)
    month = store.times.astype("datetime64[M]").astype(int) % 12 + 1
    fields = source.state.values.astype(np.float64)
    summers = fields[np.isin(month, [6, 7, 8])]
    np.testing.assert_allclose(store.mean, summers.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(store.std, summers.std((0, 2, 3)), rtol=1e-9)
    steps = np.concatenate([np.diff(fields[np.isin(month, [6, 7, 8]) & (years_of(store.times) == y)], axis=0)
                            for y in (2000, 2001)])  # fmt: skip
    np.testing.assert_allclose(store.tendency_std, steps.std((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(store.climatology_at(store.times[:1])[0], summers.mean(0), rtol=1e-6)
    report = verify(store.path)
    assert report.problems == []
    assert report.coverage["periods"]["test"] == "2001-03-01/2001-03-31, 2001-12-01/2001-12-31"
    inits = forecast_init_times(store, ForecastConfig(lead_times=["48h"]), [0])
    assert {str(day)[:7] for day in inits} == {"2001-03", "2001-12"}
    assert str(inits[-1] + np.timedelta64(48, "h"))[:10] == "2001-12-31"
    assert prepare(config, source).manifest == store.manifest  # the same request


def years_of(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[Y]").astype(int) + 1970


def test_no_sample_goes_from_one_piece_of_a_split_to_the_next(tmp_path):
    """Three days between two pieces are held out: a forecast of five days would step over them."""
    splits = {"train": ["2000-01-01/2000-01-10", "2000-01-14/2000-01-20"], "test": "2000-01-11/2000-01-13"}
    config = data_config(tmp_path / "s.zarr", **splits, climatology_window=None)
    store = prepare(config, invented_source(times_every(24, 20)))
    inits = eligible_init_times(store, store.periods["train"], [0], [120])
    assert [time.item().day for time in inits] == [1, 2, 3, 4, 5, 14, 15]
    split = Days.model_validate(["2000-01-01/2000-01-10", "2000-01-11/2000-01-20"])  # no day between them
    assert len(eligible_init_times(store, split, [0], [120])) == 15


def test_every_period_of_a_split_holds_times():
    with pytest.raises(InputError, match=r"train \(2001-01-01/2001-12-31\) holds no time"):
        resolve_periods(_config(train=["2000", "2001"]), DAILY)


def test_days_between_the_periods_of_a_split_may_be_held_out():
    config = _config(train=["2000-01", "2000-03"], test="2000-02")
    assert not config.train.overlaps(config.test)
    assert config.train.overlaps(Period.model_validate("2000-01-31/2000-02-02"))
