"""How often events happen on training days, counted by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from weatherfm.evaluation.baselines import event_frequency as module
from weatherfm.evaluation.baselines.event_frequency import event_frequency
from weatherfm.evaluation.metrics.events import parse_event

TIMES = np.arange("1999-01-01T00", "1999-07-01T00", np.timedelta64(12, "h"), dtype="datetime64[s]")
FIELDS = np.random.default_rng(0).normal(280, 5, (len(TIMES), 1, 3, 4)).astype(np.float32)
STORE = SimpleNamespace(
    times=TIMES,
    periods={},
    climatology_window=61,
    grid=SimpleNamespace(shape=(3, 4)),
    channels=("t2m",),
    masks={},
    path="s",
    read=lambda indices, channels: FIELDS[indices],
    index_of=lambda times: np.searchsorted(TIMES, times),
)
EVENTS = [parse_event("t2m > 282"), parse_event("t2m < 270")]


def test_shares_by_month_hour_and_point(monkeypatch):
    monkeypatch.setattr(module, "training_times", lambda store: TIMES[np.datetime64("1999-05-05") > TIMES])
    found = event_frequency(STORE, EVENTS, [3, 4, 5, 6])
    assert found.hours == (0, 12)
    march = (np.datetime64("1999-03-01") <= TIMES) & (np.datetime64("1999-04-01") > TIMES)
    noon = TIMES.astype("datetime64[h]").astype(int) % 24 == 12
    at = found.at(np.array(["2001-03-20T12", "2001-05-20T12", "2001-01-01T00", "2001-03-20T06"], "datetime64[s]"))
    np.testing.assert_allclose(at[0, 0], (FIELDS[march & noon, 0] > 282).mean(0), rtol=1e-6)
    np.testing.assert_allclose(at[0, 1], (FIELDS[march & noon, 0] < 270).mean(0), rtol=1e-6)
    assert np.isnan(at[1:]).all()  # four days of May, a month not asked for, an hour that is not there


def test_thinned_and_in_small_batches(monkeypatch):
    monkeypatch.setattr(module, "training_times", lambda store: TIMES)
    monkeypatch.setattr(module, "_BATCH_BYTES", 1)
    whole = event_frequency(STORE, EVENTS, [4]).probability
    monkeypatch.setattr(module, "_MOST", 15)
    thinned = event_frequency(STORE, EVENTS, [4]).probability
    assert np.isfinite(whole[3]).all()
    assert np.isnan(whole[2]).all()
    april = np.flatnonzero((np.datetime64("1999-04-01") <= TIMES) & (np.datetime64("1999-05-01") > TIMES))
    np.testing.assert_allclose(thinned[3, 0, 0], (FIELDS[april[::4], 0] > 282).mean(0), rtol=1e-6)
