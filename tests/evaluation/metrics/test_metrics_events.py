"""Events as text, and their Brier score."""

from __future__ import annotations

import numpy as np
import pytest

from weatherfm.errors import InputError
from weatherfm.evaluation.metrics.events import Event, event_means, parse_event

CHANNELS = ("z500", "t2m", "tp")
WARM = Event("t2m", ">", 300.0)


def fields(*values: float) -> np.ndarray:
    """[1, C, 1, X]: t2m has these values, other channels 0."""
    field = np.zeros((1, len(CHANNELS), 1, len(values)))
    field[0, 1, 0] = values
    return field


def even(points: int) -> np.ndarray:
    return np.full((1, points), 1 / points)


@pytest.mark.parametrize(
    ("text", "event", "canonical"),
    [
        ("t2m > 273.15", Event("t2m", ">", 273.15), "t2m > 273.15"),
        ("tp>0.001", Event("tp", ">", 0.001), "tp > 0.001"),
        ("  z500<5.3e4 ", Event("z500", "<", 53000.0), "z500 < 53000"),
        ("u10 < -12", Event("u10", "<", -12.0), "u10 < -12"),
        ("msl<98000.5", Event("msl", "<", 98000.5), "msl < 98000.5"),
    ],
)
def test_text(text, event, canonical):
    assert parse_event(text) == event
    assert str(event) == canonical
    assert parse_event(canonical) == event


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t2n > 3", "unknown channel 't2n'; did you mean 't2m'"),
        ("z > 3", "needs its level in hPa"),
        ("t2m >= 273", r"'t2m >= 273' is not a channel, > or < and a threshold; write e\.g\. 't2m > 273\.15'"),
        ("t2m = 273", "is not a channel, > or <"),
        ("t2m 273", "is not a channel, > or <"),
        ("> 273", "is not a channel, > or <"),
        ("", "is not a channel, > or <"),
        ("t2m > warm", "threshold 'warm'; give one number in K, without units"),
        ("t2m >", "threshold ''; give one number in K"),
        ("t2m > 0 C", "threshold '0 C'"),
        ("t2m > 25", r"'t2m > 25' cannot be: t2m lies within 170 \.\. 350 K; give the threshold in K"),
        ("tp > 10", "give the threshold in m"),
        ("t2m > nan", "cannot be"),
        ("t2m > inf", "cannot be"),
    ],
)
def test_bad_text(text, message):
    with pytest.raises(InputError, match=message):
        parse_event(text)


def test_single_forecast_by_hand():
    # Hit, miss, false alarm, rightly none: half of the points are wrong.
    forecast, truth = fields(301, 299, 301, 299), fields(301, 301, 299, 299)
    assert event_means(forecast, truth, [WARM], CHANNELS, even(4))["brier"].tolist() == [[[0.5]]]


def test_ensemble_by_hand():
    # Probabilities 3/4, 1/4, 1, 0 against 1, 1, 1, 0.
    members = [(301, 301, 301, 0), (301, 0, 301, 0), (301, 0, 301, 0), (0, 0, 301, 0)]
    forecast = np.stack([fields(*values) for values in members], axis=1)
    truth = fields(301, 301, 301, 299)
    expected = (1 / 16 + 9 / 16) / 4
    assert event_means(forecast, truth, [WARM], CHANNELS, even(4))["brier"].item() == pytest.approx(expected, rel=1e-14)


def test_the_threshold_itself_is_no_event():
    forecast, truth = fields(300, 300), fields(300, 299)
    for operator in "<>":
        brier = event_means(forecast, truth, [Event("t2m", operator, 300.0)], CHANNELS, even(2))["brier"].item()
        assert brier == {">": 0, "<": 0.5}[operator]


def test_perfect_members_score_nothing():
    truth = np.random.default_rng(0).normal(300, 5, (4, 3, 5, 6))
    forecast = np.repeat(truth[:, None], 300, axis=1)  # more members than a byte counts
    assert (event_means(forecast, truth, [WARM], CHANNELS, even(30))["brier"] == 0).all()


def test_known_probability():
    # The event happens with probability 0.3 in truth and in each of M independent members: p (1 - p) (1 + 1 / M).
    # 80000 points: the standard error is below 0.5 / sqrt(80000).
    rng = np.random.default_rng(0)
    truth = rng.random((1, 3, 200, 400)).astype(np.float32)
    forecast = rng.random((1, 4, 3, 200, 400)).astype(np.float32)
    brier = event_means(forecast, truth, [Event("tp", "<", 0.3)], CHANNELS, even(80000))["brier"].item()
    assert brier == pytest.approx(0.21 * 1.25, abs=5 * 0.5 / np.sqrt(80000))


def test_events_regions_and_partitions():
    rng = np.random.default_rng(0)
    truth, forecast = rng.normal(300, 5, (5, 3, 4, 6)), rng.normal(300, 5, (5, 7, 3, 4, 6))
    weights = rng.random((2, 24))
    weights /= weights.sum(1, keepdims=True)
    events = [WARM, Event("tp", "<", 298.0), Event("t2m", "<", 290.0)]
    whole = event_means(forecast, truth, events, CHANNELS, weights)["brier"]
    assert whole.shape == (5, 2, 3)
    for i, event in enumerate(events):
        c = CHANNELS.index(event.channel)
        errors = (event.happens(forecast[:, :, c]).mean(1) - event.happens(truth[:, c])) ** 2
        np.testing.assert_allclose(whole[..., i], errors.reshape(5, 24) @ weights.T, rtol=1e-13)
    parts = [event_means(forecast[s], truth[s], events, CHANNELS, weights)["brier"] for s in (slice(2), slice(2, 5))]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-13)


@pytest.mark.parametrize("where", ["forecast", "truth"])
def test_nan_shows(where):
    rng = np.random.default_rng(0)
    both = {"truth": rng.normal(300, 5, (2, 3, 4, 6)), "forecast": rng.normal(300, 5, (2, 3, 4, 6))}
    both[where][1, 1, 0, 0] = np.nan
    brier = event_means(both["forecast"], both["truth"], [WARM, Event("tp", ">", 300.0)], CHANNELS, even(24))["brier"]
    assert np.isnan(brier[:, 0]).tolist() == [[False, False], [True, False]]


def test_event_of_an_absent_channel_is_refused():
    with pytest.raises(InputError, match="event 'msl < 98000': there is no msl among z500, t2m, tp; leave it out"):
        event_means(fields(1), fields(1), [Event("msl", "<", 98000.0)], CHANNELS, even(1))
