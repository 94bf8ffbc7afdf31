"""Verbs that use a model: forecast, evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from weatherfm.errors import InputError
from weatherfm.verbs.run import Overrides, is_run, load, say, settings

if TYPE_CHECKING:
    from weatherfm.training.config import RunConfig


def forecast(
    source: Path,
    *overrides: Overrides,
    store: Path | None = None,
    init: str | None = None,
    lead: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    rollout: str | None = None,
    output: Path | None = None,
) -> None:
    """Forecast from trained weights into Zarr, in WeatherBench2's layout.

    Parameters
    ----------
    source
        The run's YAML file, or a weights file (then --store says where initial states are).
    store
        Store with the initial states; by default the run's.
    init
        Days of initial times, as 2018-10-01/2018-10-31 or 2018; by default the store's test period.
    lead
        Lead times, as `--lead 24h 72h`.
    rollout
        Feed steps of this length back into the model instead of one step a lead time, as 24h.
    output
        Folder to write; by default forecast.zarr beside the weights.
    """
    from weatherfm.evaluation.config import ForecastConfig

    run = load(source, overrides) if is_run(source) else None
    given = run.forecast.model_dump(mode="json") if run else {}
    given |= {"lead_times": lead} if lead else {}
    given |= {"mode": "rollout", "rollout_step": rollout} if rollout else {}
    weights = run.folder / "weights.safetensors" if run else source
    place = store or (Path(run.data.store) if run else None)
    if place is None:
        raise InputError(f"{source} holds weights, no data; say where initial states are with --store")
    wanted = settings(ForecastConfig, given, "forecast")
    say(_results().forecast(weights, place, wanted, init, output or weights.parent / "forecast.zarr"))


def evaluate(
    source: Path,
    *overrides: Overrides,
    store: Path | None = None,
    against: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    region: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    output: Path | None = None,
) -> None:
    """Score a forecast against persistence and climatology, on the same initial times, always.

    Parameters
    ----------
    source
        The run's YAML file, or a forecast in WeatherBench2's layout (then --store says where the truth is).
    store
        Store with truth and climatology; by default the run's.
    against
        Other forecasts in the same layout to score beside this one.
    region
        Regions to score: global, northern_extratropics, southern_extratropics, tropics, area.
    output
        Scores file; by default scores.nc beside the forecast.
    """
    run = load(source, overrides) if is_run(source) else None
    path = run.folder / "forecast.zarr" if run else source
    place = store or (Path(run.data.store) if run else None)
    if place is None:
        raise InputError(f"{source} is a forecast; say where the truth is with --store")
    regions = region or (run.evaluation.regions if run else None)
    headline = run.evaluation.headline if run else []
    say(_results().score(path, place, against or [], regions, headline, output or path.parent / "scores.nc"))


def report(
    source: Path,
    *overrides: Overrides,
    forecast: Path | None = None,
    store: Path | None = None,
    maps: bool = False,
    quality: Path | None = None,
    output: Path | None = None,
) -> None:
    """Show scores, curves and maps on one self-contained page.

    Parameters
    ----------
    source
        The run's YAML file, or a scores file.
    forecast
        Forecast for the maps; by default forecast.zarr beside the scores.
    store
        Store with the truth for the maps; by default the run's.
    maps
        Write the maps as PNG files into a folder `maps` beside the page as well.
    quality
        Findings of `weatherfm verify STORE --output FILE` to show; by default verify.json beside the scores.
    output
        Page to write; by default report.html beside the scores.
    """
    run = load(source, overrides) if is_run(source) else None
    scores = run.folder / "scores.nc" if run else source
    place = store or (Path(run.data.store) if run else None)
    headline = run.evaluation.headline if run else []
    say(_results().write_page(scores, forecast, place, maps, headline, output, quality))


def forecast_run(run: RunConfig) -> None:
    """Forecast with the weights of a run."""
    weights = run.folder / "weights.safetensors"
    say(_results().forecast(weights, Path(run.data.store), run.forecast, None, run.folder / "forecast.zarr"))


def evaluate_run(run: RunConfig) -> None:
    """Score the forecast of a run."""
    forecast, settings = run.folder / "forecast.zarr", run.evaluation
    say(
        _results().score(
            forecast, Path(run.data.store), [], settings.regions, settings.headline, run.folder / "scores.nc"
        )
    )


def report_run(run: RunConfig) -> None:
    """Show the scores of a run."""
    say(
        _results().write_page(
            run.folder / "scores.nc", None, Path(run.data.store), False, run.evaluation.headline, None
        )
    )


def _results() -> Any:
    from weatherfm.evaluation import results

    return results
