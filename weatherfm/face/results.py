"""Scores and the page that shows them, from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import xarray as xr

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.access import PUBLIC, Access
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError
from weatherfm.evaluation.evaluate_to_file import score as score_to_file
from weatherfm.evaluation.forecast_config import EvaluationConfig, ForecastConfig
from weatherfm.evaluation.forecasting.arguments import Span, init_text, lead_times_text, span_text
from weatherfm.evaluation.forecasts.address import locate, name_of, split_name
from weatherfm.evaluation.results.names_beside import default_forecast
from weatherfm.evaluation.scoring.cases_to_score import Choice
from weatherfm.face.arguments import count, file_to_write, listed, path_text, scheduler_address
from weatherfm.face.runs import Override, RunLike, given_sections, is_run, read_run, refuse_overrides, refuse_set_twice
from weatherfm.training.run_config import RunConfig

if TYPE_CHECKING:
    from weatherfm.evaluation.report_to_file import Written

Place: TypeAlias = str | os.PathLike[str]


def evaluate(
    source: RunLike,
    *overrides: Override,
    store: Place | Store | None = None,
    against: Place | Sequence[Place] = (),
    region: str | Sequence[str] = (),
    by: str | Sequence[str] = (),
    event: str | Sequence[str] = (),
    channel: str | Sequence[str] = (),
    lead: Span | Sequence[Span] | None = None,
    init: Any = None,
    every: Span | None = None,
    common: bool = False,
    output: Place | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> xr.Dataset:
    """Score forecasts against persistence and climatology, on the same initial times, always; write the scores.

        scores = weatherfm.evaluate("my_run.yaml", region=["global", "europe"])
        scores["rmse"].sel(region="global", channel="z500", forecast="model").isel(period=0)  # [lead_time], m2 s-2

    Ensembles (dim `number`) have CRPS, spread and rank histograms too, beside an ensemble of the climatology. An
    interrupted evaluation goes on where it was.

    Args:
        source: a run (path of its YAML file, a dict, settings of `weatherfm.read_run`), or a forecast in
            WeatherBench2's layout: a folder or an address (then `store` says where the truth is).
        overrides: settings to change, each as "section.key=value" or {"section.key": value}; of a forecast only
            `evaluation.*`.
        store: with truth and climatology, its folder or opened; without it, the run's.
        against: other forecasts in the same layout, folders or addresses; NAME=ADDRESS calls one NAME.
        region: regions to score, as "europe" or "alps:48/5/44/16" (north/west/south/east); without it, all that suit
            the grid.
        by: "season" or "month": scores of each as well; without it, of seasons.
        event: thresholds for the Brier score, as "t2m > 303.15", in canonical units.
        channel: channels to score, as "z500"; without it, all of the forecast.
        lead: lead times to score, as "24h" or ["24h..240h/24h"]; without it, all.
        init: initial times to score, as "2018", "2018-10-01/2018-10-31", "2018-10-01T06"; without it, all.
        every: hours between initial times, as "72h": every third of daily ones.
        common: score what all forecasts share, and say what was left out; without it, anything missing is an error.
        output: scores file; without it, scores.nc beside the forecast (here for an address), or pangu.scores.nc of one
            that is called pangu.zarr.
        workers: threads; without it, as many as there are cores.
        scheduler: address of a dask.distributed scheduler whose workers score; they must see the same files.

    Returns:
        What was written: `rmse`, `bias`, `acc`, ... with dims forecast (the model, then baselines), period, region,
        lead_time and channel, in the channels' units; `weatherfm.open_scores` reads it again.

    Raises:
        InputError: wrong settings, forecasts that do not fit the truth or each other, or days that were trained on.
        OutsideError: the network failed for too long.
    """
    choice = chosen(channel, lead, init, every)
    asked = Asked(source, overrides, store, against, region, by, event, common, output, workers, scheduler, choice)
    return score(asked).scores


def chosen(
    channel: str | Sequence[str] | None = (),
    lead: Span | Sequence[Span] | None = None,
    init: Any = None,
    every: Span | None = None,
) -> Choice:
    """What is to be scored, of the arguments of `evaluate`.

    Raises:
        InputError: an unknown channel, one that is named twice, or no time span.
    """
    spans = [] if lead is None else [part for span in lead_times_text(lead) for part in str(span).split(",")]
    said: dict[str, Any] = {"lead_times": spans} if lead is not None else {}
    said |= {} if every is None else {"init_every": span_text(every)}
    times = parse_settings(ForecastConfig, said, "evaluate")
    names = [name for given in listed(channel, "channel") for name in str(given).split(",")]
    channels = [parse_channel(name.strip()).name for name in names]
    if twice := [name for name in dict.fromkeys(channels) if channels.count(name) > 1]:
        raise InputError(f"--channel names {', '.join(twice)} twice; name each once")
    return Choice(
        tuple(channels),
        () if lead is None else tuple(times.lead_times),
        None if init is None else init_text(init),
        None if every is None else times.init_every,
    )


def report(
    source: RunLike,
    *overrides: Override,
    forecast: Place | None = None,
    store: Place | Store | None = None,
    case: str | Sequence[str] = (),
    compare: Place | Sequence[Place] = (),
    force: bool = False,
    maps: bool = False,
    quality: Place | None = None,
    output: Place | None = None,
) -> Written:
    """Show scores, curves, spectra and maps on one self-contained page.

        written = weatherfm.report("my_run.yaml", maps=True)
        written.page, written.maps  # HTML, PNG files

    Args:
        source: a run (path of its YAML file, a dict, settings of `weatherfm.read_run`), or a scores file.
        overrides: settings of the run to change, each as "section.key=value" or {"section.key": value}.
        forecast: for the maps, a folder or an address; without it, forecast.zarr beside the scores, or pangu.zarr
            beside pangu.scores.nc.
        store: with the truth for the maps, its folder or opened; without it, the run's.
        case: initial times to look at closely, as "2018-10-12T00"; without it, one of median error, the best and the
            worst.
        compare: other scores files whose forecasts are shown beside these; refused where they were not made alike.
        force: compare them all the same; the page says in what they differ.
        maps: write the maps as PNG files into a folder `maps` beside the page as well.
        quality: findings that `weatherfm.verify` has written; without it, verify.json beside the scores.
        output: page to write; without it, report.html beside the scores, or pangu.report.html of pangu.scores.nc.

    Returns:
        Paths of the page and of the maps.

    Raises:
        InputError: no scores, maps without a store to take the truth from, an initial time that is no date, or scores
            that cannot be compared.
    """
    run = read_run(source, *overrides) if is_run(source) else None
    if run is None:
        refuse_overrides(source, overrides, "no run but scores")
    scores = _scores_to_show(source, run)
    _require_for_maps(scores, forecast, store, run)
    from weatherfm.evaluation.report_to_file import Page, write_page  # brings the figures

    return write_page(
        Page(
            scores,
            None if forecast is None else locate(path_text(forecast, "forecast")),
            Access.of(run.evaluation.storage_options) if run else PUBLIC,
            _store(store, run),
            maps,
            run.evaluation.headline if run else [],
            None if output is None else file_to_write(output, "output", ".html"),
            None if quality is None else _findings(quality),
            [str(time) for time in listed(case, "case")],
            _others(scores, compare, force),
            force,
        )
    )


def _scores_to_show(source: RunLike, run: RunConfig | None) -> Path:
    _require_forecasts(run)
    return run.folder / "scores.nc" if run else Path(_text(source, "a report is of a run or a scores file"))


def _others(scores: Path, compare: Place | Sequence[Place], force: bool) -> list[Path]:
    """Scores to show beside these.

    Raises:
        InputError: these themselves, or none where they are to be compared at any rate.
    """
    others = [Path(path_text(path, "compare")) for path in listed(compare, "compare")]
    if force and not others:
        raise InputError("--force is for comparing with other scores; name them with --compare, or leave it out")
    if scores.resolve() in [path.resolve() for path in others]:
        raise InputError(f"--compare {scores} are the scores themselves; name others, or leave it out")
    return others


def _require_for_maps(scores: Path, forecast: Place | None, store: Place | Store | None, run: RunConfig | None) -> None:
    """Refuse a forecast without the truth to show it beside, and the other way round, where they are given.

    Raises:
        InputError: with what is missing.
    """
    fields = default_forecast(scores) if forecast is None else locate(path_text(forecast, "forecast"))
    lacking = isinstance(fields, Path) and not fields.exists()
    if forecast is not None and lacking:
        raise InputError(f"no forecast {fields} to show maps of; name another, or leave --forecast out")
    if forecast is not None and store is None and run is None:
        raise InputError(f"maps of {fields} need the truth; say where it is with --store, or leave --forecast out")
    if store is not None and lacking:
        raise InputError(f"--store is for maps, and there is no forecast {fields}; name it with --forecast")


@dataclass(frozen=True)
class Asked:
    """What the command line says of an evaluation, or a call."""

    source: RunLike
    overrides: tuple[Override, ...]
    store: Place | Store | None = None
    against: Place | Sequence[Place] = ()
    region: str | Sequence[str] = ()
    by: str | Sequence[str] = ()
    event: str | Sequence[str] = ()
    common: bool = False
    output: Place | None = None
    workers: int | None = None
    scheduler: str | None = None
    choice: Choice = Choice()  # noqa: RUF009 - frozen


@dataclass(frozen=True)
class Scored:
    """Scores, where they were written, and the channels that are shown first."""

    scores: xr.Dataset
    path: Path
    headline: Sequence[str]


def score(asked: Asked) -> Scored:
    """Carry out an evaluation.

    Raises:
        InputError: as `evaluate`.
    """
    run = read_run(asked.source, *asked.overrides) if is_run(asked.source) else None
    _require_forecasts(run)
    path = str(run.folder / "forecast.zarr") if run else _text(asked.source, "a run or a forecast on disk is scored")
    place = _store(asked.store, run)
    if place is None:
        raise InputError(f"{path} is a forecast; say where the truth is with --store")
    given = {"regions": listed(asked.region, "region"), "by": listed(asked.by, "by")}
    given |= {"events": listed(asked.event, "event")}
    options = {"--region": "regions", "--by": "by", "--event": "events"}
    refuse_set_twice(asked.overrides, {f"evaluation.{name}": option for option, name in options.items() if given[name]})
    chosen = _chosen(run, path, asked.overrides)
    wanted = parse_settings(EvaluationConfig, chosen | {k: v for k, v in given.items() if v}, "evaluation")
    output = file_to_write(_scores_of(path) if asked.output is None else asked.output, "output", ".nc")
    others = [path_text(other, "against") for other in listed(asked.against, "against")]
    workers, scheduler = count(asked.workers, "workers"), scheduler_address(asked.scheduler)
    scores = score_to_file(path, place, wanted, output, others, asked.common, workers, scheduler, asked.choice)
    return Scored(scores, output, wanted.headline)


def _scores_of(forecast: str) -> Path:
    """Where scores go: beside a forecast, here for an address, called after it where it is not forecast.zarr."""
    named, place = split_name(forecast)
    name = named or name_of(place)
    folder = Path() if "://" in place else Path(place).parent
    return folder / ("scores.nc" if name in ("", "forecast") else f"{name}.scores.nc")


def _require_forecasts(run: RunConfig | None) -> None:
    if run is not None and run.model.reconstruction is not None:
        raise InputError(
            f"{run.folder} is the run of a masked autoencoder (training.objective: reconstruct), which forecasts "
            "nothing; `weatherfm reconstruct` scores it and writes its page"
        )


def _chosen(run: RunConfig | None, source: str, overrides: Sequence[Override]) -> dict[str, Any]:
    """Settings of the evaluation: of a run, or those that follow a forecast."""
    if run is None:
        return given_sections(source, overrides, "a forecast", ("evaluation",))["evaluation"]
    return run.evaluation.model_dump(mode="json") | {"storage_options": run.evaluation.storage_options}


def _store(given: Place | Store | None, run: RunConfig | None) -> Path | None:
    if isinstance(given, Store):
        return given.path
    if given is not None:
        return Path(path_text(given, "store"))
    return Path(run.data.store) if run else None


def _findings(given: Any) -> Path:
    """The file of a verification."""
    path = Path(path_text(given, "quality"))
    if path.is_dir():
        raise InputError(
            f"quality {path} is a folder; name the findings that `weatherfm verify` has written, verify.json"
        )
    return path


def _text(source: Any, what: str) -> str:
    """A path or an address as it was given."""
    if not isinstance(source, str | os.PathLike):
        hint = "; write it with to_zarr and give its folder" if isinstance(source, xr.Dataset) else ""
        raise InputError(f"{what}, got {type(source).__name__}{hint}")
    if not (text := os.fspath(source)).strip():
        raise InputError(f"{what}, got {text!r}; name one")
    return text
