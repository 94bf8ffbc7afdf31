from __future__ import annotations

import numpy as np
import pytest
from europe_store import EUROPE_CHANNELS, europe_store
from small_store import CHANNELS, SmallStore

from weatherfm.data_pipeline.fields.time_axis import day_of_year, hour_of_day
from weatherfm.data_pipeline.store_config import Period
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines import probabilistic_climatology
from weatherfm.evaluation.baselines.persistence_and_climatology import normals_at, states_at
from weatherfm.evaluation.baselines.probabilistic_climatology import ProbabilisticClimatology


class Dated(SmallStore):
    """Every value is the number of the day since 1970, so that a member tells its day; trained on 2001-2008."""

    def __init__(self, window: int | None = 61, train: str = "2001-2008", step_hours: int = 24) -> None:
        super().__init__(regular_grid((2, 4)), 2)
        self.climatology_window = window
        self.step_hours = step_hours
        self.times = np.arange("2000-01-01", "2013-01-01", np.timedelta64(step_hours, "h"), dtype="datetime64[s]")
        self.periods["train"] = Period.model_validate(train)

    def read(self, time_indices, channels=None):
        self.reads += list(self.times[time_indices])
        day = self.times[time_indices].astype("datetime64[h]").astype(np.float32) / 24
        return np.tile(day[:, None, None, None], (1, len(channels or CHANNELS), *self.grid.shape))


def days(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[s]")


def distance(times: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Days of the year from `day` to each of `times`, the shorter way round a year of 366."""
    return (day_of_year(times) - day_of_year(day) + 183) % 366 - 183


def member_times(ensemble: ProbabilisticClimatology, valid: np.ndarray) -> np.ndarray:
    """[time, member] datetime64[s]: when the members were, as their values tell."""
    hours = 24 * ensemble.at(valid)[:, :, 0, 0, 0].astype(np.float64)
    return hours.astype("datetime64[h]").astype("datetime64[s]")


ALL_2012 = np.arange("2012-01-01", "2013-01-01", dtype="datetime64[D]").astype("datetime64[s]")


def test_members_are_of_the_window_the_hour_and_every_training_year():
    store = Dated(step_hours=12)
    ensemble = ProbabilisticClimatology(store, CHANNELS)
    assert ensemble.members == 50
    for hour in (0, 12):
        valid = ALL_2012 + np.timedelta64(hour, "h")
        for time, members in zip(valid, member_times(ensemble, valid), strict=True):
            assert np.unique(members).size == 50
            assert (hour_of_day(members) == hour).all()
            assert np.abs(distance(members, valid[valid == time])).max() <= 31  # 29 from the middle of the bin, 2 to it
            years, counts = np.unique(members.astype("datetime64[Y]"), return_counts=True)
            assert years.astype(str).tolist() == [str(year) for year in range(2001, 2009)]
            assert counts.min() >= 5  # 50 of 8 years, and a window that crosses New Year takes from both ends


def test_members_are_dense_around_the_day_as_the_climatology_is():
    """A triangle of half width h has a standard deviation of h / sqrt(6): 12.2 days of 30."""
    offsets = distance(
        member_times(ProbabilisticClimatology(Dated(), CHANNELS), days("2011-06-12")), days("2011-06-12")
    )
    assert abs(offsets.mean()) < 2.5  # a bin's middle is at most 2 days off
    assert offsets.std() == pytest.approx(30 / np.sqrt(6), rel=0.05)  # 50 even steps of its area


@pytest.mark.parametrize("day", ["2012-02-29", "2012-12-31", "2011-12-31", "2012-01-01"])
@pytest.mark.parametrize("window", [1, 7, 61])
def test_leap_days_and_new_year(day, window):
    store = Dated(window, "2000-2008")
    ensemble = ProbabilisticClimatology(store, ["t2m"])
    members = member_times(ensemble, days(day))[0]
    assert np.abs(distance(members, days(day))).max() <= window // 2 + window // 24
    np.testing.assert_array_equal(store.reads, members)


def test_members_are_the_states_of_their_days():
    store = Dated()
    ensemble = ProbabilisticClimatology(store, ["t2m", "z500"], members=7)
    valid = days("2011-03-01", "2011-09-01", "2011-03-01")
    found = ensemble.at(valid)
    assert (found.dtype, found.shape) == (np.float32, (3, 7, 2, 2, 4))
    expected = np.array(store.reads).reshape(2, 7)[[0, 1, 0]].astype("datetime64[D]").astype(int)
    np.testing.assert_array_equal(found, np.broadcast_to(expected[..., None, None, None], found.shape))


def test_the_choice_is_the_same_every_time():
    first, second = (member_times(ProbabilisticClimatology(Dated(), CHANNELS), ALL_2012) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_one_mean_over_all_days_draws_from_all_days():
    store = Dated(None, step_hours=12)
    ensemble = ProbabilisticClimatology(store, CHANNELS)
    members = member_times(ensemble, days("2011-05-05T12"))[0]
    assert (hour_of_day(members) == 12).all()
    gaps = np.diff(members).astype("timedelta64[h]").astype(int) // 24
    assert set(gaps.tolist()) <= {58, 59}  # 2,922 days in 50 even steps
    assert [str(time)[:10] for time in members[[0, -1]]] == ["2001-01-30", "2008-12-02"]  # each half a step from an end
    np.testing.assert_array_equal(member_times(ensemble, days("2012-12-12T12"))[0], members)


def test_fewer_members_where_the_training_days_hold_no_more():
    assert ProbabilisticClimatology(Dated(1), CHANNELS).members == 2  # 29 February of 2004 and 2008
    # two years, each a day with half of the days beside it, one of which is day 366 that neither has: 2 * 1.5
    assert ProbabilisticClimatology(Dated(5, "2001-2002"), CHANNELS).members == 3
    gaps = Dated()
    gaps.times = gaps.times[(day_of_year(gaps.times) < 100) | (gaps.times >= np.datetime64("2005-01-01"))]
    ensemble = ProbabilisticClimatology(gaps, CHANNELS, 500)
    assert ensemble.members == 119  # four summers, triangles of area 30, less the thirtieths of a missing day 366
    assert all(np.unique(members).size == 119 for members in member_times(ensemble, ALL_2012))


def test_few_sets_are_held_and_those_used_last(monkeypatch):
    store = Dated()
    monkeypatch.setattr(probabilistic_climatology, "_CACHE_BYTES", 2 * 4 * 10 * 2 * 8 + 1)
    ensemble = ProbabilisticClimatology(store, ["t2m", "z500"], members=10)  # of 8 points: two sets fit
    a, b, c = days("2011-01-01"), days("2011-03-01"), days("2011-06-01")
    for valid, reads in [(a, 10), (b, 20), (a, 20), (c, 30), (a, 30), (b, 40)]:
        ensemble.at(valid)
        assert len(store.reads) == reads
        assert len(ensemble._held) <= 2
    monkeypatch.setattr(probabilistic_climatology, "_CACHE_BYTES", 0)
    ensemble = ProbabilisticClimatology(store, ["t2m"], members=10)
    ensemble.at(np.concatenate([a, b, c]))
    assert len(ensemble._held) == 1


def test_neighbouring_days_share_one_set_without_a_copy():
    store = Dated()
    found = ProbabilisticClimatology(store, CHANNELS).at(days("2011-01-06", "2011-01-08", "2011-01-10"))
    assert len(store.reads) == 50
    assert np.shares_memory(found[0], found[2])


def test_valid_times_of_training_days_are_refused():
    ensemble = ProbabilisticClimatology(Dated(), CHANNELS)
    with pytest.raises(InputError, match=r"2008-12-31T00 lie in the training days 2001-01-01/2008-12-31"):
        ensemble.at(days("2008-12-31", "2009-01-01"))
    with pytest.raises(InputError, match="lie in the training days"):
        member_times(ensemble, days("2001-01-01"))


def test_hours_without_training_days_are_refused():
    with pytest.raises(InputError, match=r"have no 06 UTC \(asked for 2011-01-01T06\)"):
        ProbabilisticClimatology(Dated(), CHANNELS).at(days("2011-01-01", "2011-01-01T06"))


@pytest.mark.parametrize(
    ("window", "train", "members", "text"),
    [
        (61, "2001", 50, "has 29 of 1 years for some"),
        (61, "2001-07-01/2002-09-30", 50, "of 1 years for some"),
        (61, "2001-01-01/2001-06-30", 50, "has 0 of 0 years for some"),
        (1, "2001-2006", 50, "has 1 of 1 years for some"),
        (None, "2001-01-01/2001-01-01", 50, "has 1 for some"),
        (61, "2001-2008", 1, "members asked for 1"),
        (61, "1990-1999", 50, "0 times"),
        (None, "1990-1999", 50, "0 times"),
    ],
)
def test_too_few_members_or_years_are_refused(window, train, members, text):
    store = Dated(window, train)
    with pytest.raises(InputError, match=text):
        ProbabilisticClimatology(store, CHANNELS, members)


def test_two_years_are_enough():
    assert ProbabilisticClimatology(Dated(61, "2001-2002"), CHANNELS).members == 50


@pytest.mark.parametrize("window", [61, None])
def test_real_weather(real_data, tmp_path, window):
    """The ensemble's mean is the climatology, about; its CRPS is below the climatology's absolute error."""
    channels = EUROPE_CHANNELS
    store = europe_store(real_data, tmp_path / "store.zarr", window)
    ensemble = ProbabilisticClimatology(store, channels)
    valid = store.times[store.periods["test"].contains(store.times)][::6]
    observed, normal = states_at(store, channels, valid), normals_at(store, channels, valid)
    crps = np.zeros(len(channels))
    mean = np.empty_like(normal)
    for i, time in enumerate(valid):
        members = np.sort(ensemble.at(valid[valid == time])[0].astype(np.float64), axis=0)
        mean[i] = members.mean(0)
        rank = (2 * np.arange(1, ensemble.members + 1) - ensemble.members - 1)[:, None, None, None]
        spread = (rank * members).sum(0) / ensemble.members**2  # half the mean difference of two members
        crps += (np.abs(members - observed[i]).mean(0) - spread).mean((1, 2)) / len(valid)
    error = np.abs(normal - observed).mean((0, 2, 3))
    assert (crps < 0.8 * error).all()  # a Gaussian spread right gives 1 / sqrt(2); measured: 0.69 to 0.72
    rmse = [np.sqrt(np.square(x - observed).mean((0, 2, 3))) for x in (mean, normal)]
    np.testing.assert_allclose(rmse[0], rmse[1], rtol=0.02)  # 50 members: about 1 % more; measured: within 1 %
