"""Brier score of events: a channel above or below a threshold.

The forecast probability p is the share of members in which the event happens, 0 or 1 of a single forecast; o is 1 where
it happens in truth, else 0. The score is the mean of (p - o)^2 (Brier 1950, Monthly Weather Review 78, 1, of one of the
two classes): 0 is perfect, and a single forecast's is the share of cases and area that it gets wrong. Members are few:
an endless ensemble of the same kind would score better (Ferro 2014, doi:10.1002/qj.2270). The Brier skill score is
1 - the score / that of the frequency of the event on training days (`brier_climatology`): a single forecast of a rare
event is often below 0, as it should be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError
from weatherfm.evaluation.metrics.ensemble import count_members, pieces
from weatherfm.evaluation.metrics.spatial_means import spatial_means

_PARTS = re.compile(r"\s*([^\s<>=!]*)\s*([<>=!]*)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Event:
    """A channel strictly above or below a threshold; as text, `t2m > 273.15`."""

    channel: str
    """Short name."""
    operator: str
    """`>` or `<`."""
    threshold: float
    """In canonical units of the channel."""

    def __str__(self) -> str:
        return f"{self.channel} {self.operator} {self.threshold:.12g}"

    def happens(self, values: np.ndarray) -> np.ndarray:
        """Bool of the same shape; compared in the precision of the values. Never where a value is NaN."""
        return values > self.threshold if self.operator == ">" else values < self.threshold


def parse_event(text: str) -> Event:
    """The event that text such as `t2m > 273.15` or `tp>0.001` means.

    Raises:
        InputError: an unknown channel, another operator, no number, or a threshold that the channel cannot take on
            Earth (in other units, as a rule).
    """
    name, operator, number = _PARTS.fullmatch(text).groups()  # type: ignore[union-attr] # any text matches
    if not name or operator not in ("<", ">"):
        raise InputError(f"event {text!r} is not a channel, > or < and a threshold; write e.g. 't2m > 273.15'")
    channel = parse_channel(name)
    try:
        threshold = float(number)
    except ValueError:
        raise InputError(
            f"event {text!r} has the threshold {number!r}; give one number in {channel.units}, without units"
        ) from None
    low, high = channel.variable.bounds
    if not (math.isfinite(threshold) and low <= threshold <= high):
        raise InputError(
            f"event {text!r} cannot be: {channel.name} lies within {low:g} .. {high:g} {channel.units};"
            f" give the threshold in {channel.units}"
        )
    return Event(channel.name, operator, threshold)


def parse_events(texts: Sequence[str], channels: Sequence[str]) -> list[Event]:
    """The events that texts mean, each once and of scored channels.

    Raises:
        InputError: as `parse_event`, one that stands twice, or one of a channel that is not scored.
    """
    events = [parse_event(text) for text in texts]
    for place, event in enumerate(events):
        if event.channel not in channels:
            raise InputError(
                f"event '{event}' is about {event.channel}, which is not scored; scored are {', '.join(channels)}"
            )
        if event in events[:place]:
            raise InputError(f"event '{event}' stands twice; name each once")
    return events


def event_means(
    forecast: np.ndarray, truth: np.ndarray, events: Sequence[Event], channels: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Spatial means of every case.

    A value that is not finite makes the means of its case and event NaN: check before.

    Args:
        forecast: [B, C, H, W], or [B, M, C, H, W] of an ensemble, in physical units.
        truth: [B, C, H, W] at the valid time.
        events: at least one.
        channels: names, in the order of C.
        weights: [R, X], rows sum to 1.

    Returns:
        `brier` [B, R, E] float64: a mean over cases is the score.

    Raises:
        InputError: an event of a channel that is not there.
    """
    ensemble = forecast[:, None] if forecast.ndim == 4 else forecast
    cases, members, points = len(truth), ensemble.shape[1], truth[0, 0].size
    means = np.zeros((cases, len(weights), len(events)))
    for e, event in enumerate(events):
        at = event_position(event, channels)
        x, y = ensemble[:, :, at].reshape(cases, members, points), truth[:, at].reshape(cases, points)
        for columns, _ in pieces(members, 1, points):
            some = weights[:, columns]
            for case in range(cases):
                values = _squared_errors(event, x[case, :, columns], y[case, columns])
                means[case, :, e] += spatial_means(values[None], some)[0]
    return {"brier": means}


def frequency_means(
    probability: np.ndarray, truth: np.ndarray, events: Sequence[Event], channels: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Brier score of a probability that is given, as of the climatological frequency.

    Args:
        probability: [B, E, H, W] in [0, 1]; NaN makes the mean of its case and event NaN where it has weight.
        truth: [B, C, H, W].
        events: E.
        channels: names, in the order of C.
        weights: [R, X], rows sum to 1.

    Returns:
        `brier_climatology` [B, R, E] float64.
    """
    means = np.empty((len(truth), len(weights), len(events)))
    for e, event in enumerate(events):
        happened = event.happens(truth[:, event_position(event, channels)])
        error = np.square(probability[:, e].astype(np.float64) - happened)
        means[:, :, e] = spatial_means(error.reshape(len(truth), -1), weights)
    return {"brier_climatology": means}


def event_position(event: Event, channels: Sequence[str]) -> int:
    """Where the event's channel is among short names.

    Raises:
        InputError: it is not.
    """
    if event.channel not in channels:
        known = ", ".join(channels)
        raise InputError(f"event '{event}': there is no {event.channel} among {known}; leave it out")
    return channels.index(event.channel)


def _squared_errors(event: Event, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[X] float64: (p - o)^2 of members x [M, X] and truth y [X]; NaN where one of them is not finite."""
    probability = count_members(event.happens(x)) / len(x)
    values = np.square(probability - event.happens(y))
    with np.errstate(invalid="ignore"):  # infinities of both signs
        values[~np.isfinite(x.sum(0) + y)] = np.nan
    return values
