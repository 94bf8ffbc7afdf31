"""One forecast looked at closely: its errors beside the usual ones, and its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.figures.maps.case import Case, load_case, require_init_time
from weatherfm.evaluation.figures.maps.ensemble_maps import MemberMaps, member_maps
from weatherfm.evaluation.figures.maps.film import Animation, animation, load_cases
from weatherfm.evaluation.figures.maps.map_groups import MAP_CHANNELS, MapGroup, map_group
from weatherfm.evaluation.figures.maps.panels import Levels, when
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.metrics.events import parse_event
from weatherfm.evaluation.results.key_figures import headline_lead, key_leads
from weatherfm.evaluation.results.lookup import WHOLE, lead_hours, main_region, models_of, overall, provenance_of
from weatherfm.evaluation.results.words import number, pretty_units

_MEMBERS_LEAD = 72
"""Hours from which on members have gone their own ways."""
_MOST_EVENTS = 3
"""With maps of their chance."""


@dataclass(frozen=True)
class CaseRow:
    """Errors of one channel at one lead time, as text."""

    channel: str
    lead: str
    valid: str
    rmse: str
    usual: str
    """RMSE over all cases; a dash where they were not scored over the whole grid."""
    ratio: str
    bias: str
    largest: str
    """The largest error of all points, with its sign."""
    place: str
    units: str


@dataclass(frozen=True)
class CaseStudy:
    """What the page says of one initial time."""

    anchor: str
    title: str
    rows: tuple[CaseRow, ...]
    maps: tuple[MapGroup, ...]
    animation: Animation | None


def case_study(
    file: ForecastFile,
    store: Store,
    scores: xr.Dataset,
    channels: Sequence[str],
    init_time: np.datetime64,
    animated: bool = True,
    levels: Mapping[str, Levels] | None = None,
) -> CaseStudy:
    """Errors of the channels at the key lead times; maps of the first channel at all of them, of the next three at one.

    `animated` adds the first channel by lead time, which makes a page some 1.5 MB larger. `levels` of every channel
    shown are those of its maps; without them, each map has its own.

    Raises:
        InputError: the forecast has no such initial time (the nearest are named), or forecast and store do not share
            a channel, lead time or grid.
    """
    init_time = require_init_time(file, init_time)
    name, rows, maps = scored_name(file, scores), [], []
    levels, mapped = levels or {}, _on_maps(scores, channels)
    wanted = [(channel, lead) for channel in channels for lead in key_leads(scores)]
    for channel, lead in tqdm(wanted, desc=f"case {str(init_time)[:13]}", unit="field", disable=None):
        case = load_case(file, store, channel, lead, init_time)
        rows.append(_row(case, name, scores))
        if (channel, lead) in mapped:
            maps.append(map_group(case, "", levels.get(channel)))
    film = None
    if animated:
        film = animation(load_cases(file, store, channels[0], init_time, lead_hours(scores)), levels.get(channels[0]))
    hour = str(init_time.astype("datetime64[h]"))
    return CaseStudy(f"case-{hour}", f"Forecast from {when(init_time)}", tuple(rows), tuple(maps), film)


def cases_on_maps(
    file: ForecastFile, store: Store, scores: xr.Dataset, channels: Sequence[str], init_time: np.datetime64
) -> list[Case]:
    """Those that `case_study` draws, its animation aside."""
    return [load_case(file, store, channel, lead, init_time) for channel, lead in _on_maps(scores, channels)]


def _on_maps(scores: xr.Dataset, channels: Sequence[str]) -> list[tuple[str, int]]:
    """(channel, hours): the first channel at all key lead times, the next three at the headline's."""
    others = [(channel, headline_lead(scores)) for channel in channels[1:MAP_CHANNELS]]
    leads = key_leads(scores)
    return [*((channels[0], lead) for lead in leads), *(pair for pair in others if pair[1] in leads)]


def members_case(
    file: ForecastFile, store: Store, scores: xr.Dataset, channel: str, init_time: np.datetime64
) -> list[Case]:
    """The case whose members `members_of_one` shows; none of a single forecast."""
    return [] if file.members is None else [load_case(file, store, channel, _members_lead(scores), init_time)]


def _members_lead(scores: xr.Dataset) -> int:
    leads = key_leads(scores)
    return next((hours for hours in leads if hours >= _MEMBERS_LEAD), leads[-1])


def members_of_one(
    file: ForecastFile,
    store: Store,
    scores: xr.Dataset,
    channel: str,
    init_time: np.datetime64,
    levels: Levels | None = None,
) -> list[MemberMaps]:
    """Maps of the members at the first key lead time of three days or more, with the events that were scored.

    None of a single forecast; one at most, which makes a page some 0.5 MB larger.
    """
    if file.members is None:
        return []
    texts = [str(text) for text in scores["event"].values] if "event" in scores.coords else []
    events = [event for event in map(parse_event, texts) if event.channel in file.channels]
    return [member_maps(file, store, channel, _members_lead(scores), init_time, events[:_MOST_EVENTS], levels)]


def scored_name(file: ForecastFile, scores: xr.Dataset) -> str:
    """What the scores call a forecast; in merged scores perhaps `model (run)`.

    Raises:
        InputError: it was not scored, or is another one than the one that was.
    """
    records: dict[str, dict[str, Any]] = provenance_of(scores).get("forecasts", {})
    names = [name for name in models_of(scores) if name in records]
    has_times = np.isin(scores["init_time"].values.astype("datetime64[s]"), file.init_times).all()
    same = [name for name in names if has_times and _record(records[name]) == file.provenance]
    here = [name for name in same if records[name].get("address") == str(file.path)]
    called = [name for name in same if name == file.name or name.startswith(f"{file.name} (")]
    told = same if file.provenance and len(same) == 1 else []  # scored under a name of its own, and moved
    if found := here or called or told:
        return found[0]
    raise InputError(
        f"{file.path} is not the forecast these scores are of ({', '.join(names)}); name that one, or evaluate this "
        "one and report again"
    )


def _record(record: dict[str, Any]) -> dict[str, Any]:
    """All but where it was: it may have moved."""
    return {key: value for key, value in record.items() if key != "address"}


def _row(case: Case, name: str, scores: xr.Dataset) -> CaseRow:
    error = case.forecast.astype(np.float64) - case.truth
    there = np.isfinite(error)
    error, weights = np.where(there, error, 0), case.grid.area_weights * there
    lat, lon = np.unravel_index(int(np.argmax(np.abs(error))), error.shape)
    usual = _usual(case, name, scores)
    return CaseRow(
        case.channel,
        f"{case.lead_time} h",
        when(case.valid_time),
        number(case.rmse),
        number(usual),
        f"{case.rmse / usual:.2f} ×" if usual > 0 else "–",
        number(float((weights * error).sum() / weights.sum())),
        number(float(error[lat, lon])),
        _place(float(case.grid.latitude[lat]), float(case.grid.longitude[lon])),
        pretty_units(str(scores["units"].sel(channel=case.channel).values)),
    )


def _usual(case: Case, name: str, scores: xr.Dataset) -> float:
    """RMSE over all cases of the forecast on the whole grid, NaN where that was not scored."""
    if main_region(scores) not in WHOLE:
        return float("nan")
    here = overall(scores)["rmse"].sel(forecast=name, region=main_region(scores), channel=case.channel)
    return float(here.isel(lead_time=lead_hours(scores).index(case.lead_time)))


def _place(latitude: float, longitude: float) -> str:
    """`52.5° N 5° E`."""
    longitude = (longitude + 180) % 360 - 180
    return f"{abs(latitude):g}° {'N' if latitude >= 0 else 'S'} {abs(longitude):g}° {'E' if longitude >= 0 else 'W'}"
