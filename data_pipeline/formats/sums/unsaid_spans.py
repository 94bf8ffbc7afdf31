"""What sums span where files do not say: by the settings, by the archive they come from, and by a look at values."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.data_pipeline.fields.time_axis import spacing
from weatherfm.data_pipeline.formats.pieces import Piece
from weatherfm.data_pipeline.formats.sums.look_at_values import look
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError, OutsideError

_log = logging.getLogger(__name__)
_DAY = np.timedelta64(1, "D")
_SECOND = np.timedelta64(1, "s")
_HOUR = np.timedelta64(3600, "s")
_SINCE = {"since_midnight": "sums since 00 UTC", "since_start": "sums since the start of the forecast"}


@dataclass(frozen=True, eq=False)
class SumRows:
    """The fields of one accumulated channel, one a row."""

    channel: str
    times: np.ndarray
    leads: np.ndarray
    hours: np.ndarray
    """[row] that a field is summed over, NaN where that is not told."""
    piece: np.ndarray
    slot: np.ndarray


def settle_hours(rows: SumRows, pieces: Sequence[Piece], source: FilesSource) -> tuple[np.ndarray, str | None]:
    """([row] hours that each field is summed over, `since_midnight` or `since_start` where that is their manner).

    Raises:
        InputError: nobody says it and it cannot be told safely, or a setting that does not fit.
    """
    hours, manners = rows.hours.copy(), set()
    for number in np.unique(rows.piece):
        name = pieces[number].name
        said = source.sums_of(name, rows.channel)
        mine = rows.piece == number
        mine &= np.isnan(hours) | source.names_sum(name, rows.channel)
        if said is None or not mine.any():
            continue
        hours[mine] = _hours_of(said, rows.times[mine], rows.leads[mine], pieces[number])
        manners.add(said)
        if said not in _SINCE:
            _warn_of_growth(rows, mine, pieces, said)
    unsaid = np.isnan(hours)
    if unsaid.any():
        manner, each = _told_by_values(rows, unsaid, pieces)
        hours[unsaid] = each if manner is None else _hours_of(manner, rows.times[unsaid], rows.leads[unsaid], None)
        manners.add(manner or "")
    since = manners & _SINCE.keys()
    return hours, since.pop() if len(since) == 1 else None


def _hours_of(said: str, times: np.ndarray, leads: np.ndarray, piece: Piece | None) -> np.ndarray:
    if said == "since_midnight":
        hours: np.ndarray = (times - (times - _SECOND).astype("datetime64[D]")) / _HOUR
        return hours
    if said == "since_start":
        if np.isnan(leads).any():
            raise InputError(
                f"{piece.path if piece else 'the files'}: source.sums says since_start, but the start of the forecast "
                "is not told; give the file a forecast_reference_time or a step, or say the span in hours"
            )
        return leads
    return np.full(len(times), float(said.removesuffix("h")))


def _told_by_values(rows: SumRows, unsaid: np.ndarray, pieces: Sequence[Piece]) -> tuple[str | None, float]:
    """(manner of sums since a start or None, else the hours that each is summed over)."""
    numbers = np.unique(rows.piece[unsaid])
    archives = {pieces[i].archive for i in numbers}
    first = pieces[numbers[0]]
    subject = f"{first.path}{' and others' if len({pieces[i].path for i in numbers}) > 1 else ''}: {rows.channel}"
    if archives == {"era5_land"}:
        _log.warning("%s is of ERA5-Land: sums since 00 UTC; differences are taken", subject)
        return "since_midnight", 0.0
    by_run = _by_run(rows, unsaid)
    apart = spacing(rows.times[unsaid])
    seen, never_fell = "unknown", False
    if by_run or (apart is not None and apart < 24):
        seen, never_fell = _look(rows, unsaid, pieces, by_run)
    if seen == "growing":
        manner = "since_start" if by_run else "since_midnight"
        why = "never fall within a forecast" if by_run else "never fall within a day and drop after 00 UTC"
        _log.warning("%s holds %s (its values %s); differences are taken", subject, _SINCE[manner], why)
        return manner, 0.0
    era5 = archives == {"era5"} or (archives <= {"era5", "climate data store"} and seen == "each")
    if era5 and not never_fell:
        return None, 1.0
    if seen == "each" and apart is not None and apart <= 1:
        return None, apart
    raise InputError(
        f"{subject} {_doubt(apart, seen, never_fell)}; say it with source.sums: {{{first.name}: 1h}}, or "
        "since_midnight (sums since 00 UTC, as ERA5-Land), or since_start (since the start of a forecast)"
    )


def _warn_of_growth(rows: SumRows, mine: np.ndarray, pieces: Sequence[Piece], said: str) -> None:
    """Say that fields look like sums since a start, though `source.sums` says that each is over the same span."""
    by_run, apart = _by_run(rows, mine), spacing(rows.times[mine])
    if not by_run and (apart is None or apart >= 24):
        return
    if _look(rows, mine, pieces, by_run)[0] == "growing":
        first = pieces[rows.piece[mine][0]]
        since = "since_start" if by_run else "since_midnight"
        _log.warning(
            "%s: source.sums says that %s is summed over %s, but its values never fall within a %s, as %s: if they "
            "are, say source.sums: {%s: %s}",
            first.path, first.name, said, "forecast" if by_run else "day", _SINCE[since],
            first.name, since,
        )  # fmt: skip


def _by_run(rows: SumRows, which: np.ndarray) -> bool:
    """Of several lead times, all of them told."""
    return len(np.unique(rows.leads[which])) > 1 and not np.isnan(rows.leads[which]).any()


def _doubt(apart: float | None, seen: str, never_fell: bool) -> str:
    if apart is None:
        return "has a single time and does not say what it is summed over"
    if never_fell:
        return (
            f"does not say what it is summed over, and its values (every {apart:g}h) never fall, as sums since a "
            "start do, but do not tell which start"
        )
    if seen == "each" or apart >= 24:
        return (
            f"does not say what it is summed over: its times are {apart:g}h apart, but hourly sums of which only some "
            f"were fetched look the same as sums over {apart:g}h"
        )
    return f"does not say what it is summed over, and the values looked at (every {apart:g}h) do not tell"


def _look(rows: SumRows, unsaid: np.ndarray, pieces: Sequence[Piece], by_run: bool) -> tuple[str, bool]:
    which = np.flatnonzero(unsaid)
    if by_run:
        start = rows.times[which] - np.round(rows.leads[which] * 3600).astype("timedelta64[s]")
        group = np.unique(start, return_inverse=True)[1]
        restarts = False
    else:
        which = which[np.unique(rows.times[which], return_index=True)[1]]
        group = (rows.times[which] - _SECOND).astype("datetime64[D]").astype(np.int64)
        restarts = True
    order = np.lexsort((rows.times[which], group))
    which, group = which[order], group[order]
    low, high = parse_channel(rows.channel).variable.bounds
    first = pieces[rows.piece[which[0]]]
    noise = 2 * abs(first.conversion.factor) * first.reader.value_step(int(rows.slot[which[0]]))
    return look(group, lambda at: _values(rows, which[at], pieces), restarts, low < -1e-3 * high, noise)


def _values(rows: SumRows, which: np.ndarray, pieces: Sequence[Piece]) -> np.ndarray:
    """[n, point] canonical units."""
    fields: list[np.ndarray | None] = [None] * len(which)
    for number in np.unique(rows.piece[which]):
        piece, here = pieces[number], np.flatnonzero(rows.piece[which] == number)
        slots, back = np.unique(rows.slot[which[here]], return_inverse=True)
        try:
            read = piece.reader.read(slots, [piece.level])[:, 0]
        except (InputError, OutsideError):
            raise
        except (OSError, RuntimeError, IndexError, ValueError) as error:
            raise InputError(
                f"{piece.path} could not be read ({type(error).__name__}: {error}); fetch it again"
            ) from error
        for i, at in zip(here, back, strict=True):
            fields[i] = piece.conversion.apply(piece.orientation.arrange(read[at])).ravel()
    return np.stack([field for field in fields if field is not None])
