"""Verbs that use a model: forecast, evaluate, report, reconstruct."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from weatherfm.verbs.run import Overrides, Whole, importing, is_run, load, say

if TYPE_CHECKING:
    from weatherfm.training.run_config import RunConfig


def forecast(
    source: Path,
    *overrides: Overrides,
    store: str | None = None,
    init: str | None = None,
    lead: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    rollout: str | None = None,
    output: str | None = None,
    devices: Whole = None,
    allow_missing: bool = False,
    base: str | None = None,
    members: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
) -> int:
    """Forecast from trained weights into Zarr, in WeatherBench2's layout. Also under torchrun.

    Interrupted and started again it goes on. `forecast.device=cpu`, `forecast.precision=float32` and other settings may
    follow the source, also where it is a weights file.

    Parameters
    ----------
    source
        The run's YAML file, or a weights file (then --store says where initial states are).
    store
        Store with the initial states, or NetCDF, GRIB or Zarr files (a path or a pattern); by default the run's store.
    init
        Initial times: an hour as 2018-10-01T06, days as 2018-10-01, 2018-10-01/2018-10-31 or 2018, several with
        commas, or latest. Only the states they start from are needed. By default those of the store's test period that
        can be scored; latest for files.
    lead
        Lead times, as `--lead 24h 72h` or `--lead 24h,72h`, or ranges as `--lead 24h..365d/24h`.
    rollout
        Feed steps of this length back into the model instead of one step a lead time, as 24h.
    output
        Folder to write; by default forecast.zarr beside the weights.
    devices
        Start so many processes on this machine, one for each GPU, or on its CPU cores. Each makes other initial times;
        where the section `parallel` splits the model, as training does, they hold it together.
    allow_missing
        Forecast also from states that lack channels of the model, with these absent: they are predicted like the
        others. For weights that were trained with `training.channel_sampling`.
    base
        Weights that an adapter.safetensors started from (a file, or the folder of its run); those of a run are named in
        its settings.
    members
        Make an ensemble: `--members 16` of weights with noise, or of several weights files, patterns or folders of
        runs, as `--members a.safetensors b.safetensors`.
    """
    with importing():
        from weatherfm.face.forecasting import Asked, carry_out

        if "RANK" in os.environ:
            import weatherfm.training.forecast_on_ranks  # noqa: F401 - what the ranks will take

    asked = Asked(source, overrides, store, init, lead, rollout, output, devices, allow_missing, base, members)
    path, status = carry_out(asked)
    if devices is None:
        say(f"forecast  {path}")
    return status


@dataclass(frozen=True)
class Some:
    """Which of a forecast's cases are scored; all where nothing is said."""

    channel: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None
    """Channels to score, as `--channel z500 t2m`; by default all of the forecast."""
    lead: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None
    """Lead times to score, as `--lead 24h 72h` or `--lead 24h..240h/24h`; by default all."""
    init: str | None = None
    """Initial times to score: 2018, 2018-10-01/2018-10-31, 2018-10-01T06, several with commas, or latest; by default
    all."""
    every: str | None = None
    """Hours between initial times, as 72h: every third of daily ones."""


def evaluate(
    source: str,
    *overrides: Overrides,
    store: Path | None = None,
    against: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    region: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    by: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    event: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    some: Annotated[Some | None, Parameter(name="*")] = None,
    common: bool = False,
    output: Path | None = None,
    workers: Whole = None,
    scheduler: str | None = None,
) -> None:
    """Score forecasts against persistence and climatology, on the same initial times, always.

    Ensembles (dim `number`) have CRPS, spread and rank histograms too, beside an ensemble of the climatology. An
    interrupted evaluation goes on where it was.

    Parameters
    ----------
    source
        The run's YAML file, or a forecast in WeatherBench2's layout: a folder, or an address as
        gs://weatherbench2/datasets/... (then --store says where the truth is, and evaluation.* alone can be set).
    store
        Store with truth and climatology; by default the run's.
    against
        Other forecasts in the same layout, folders or addresses, to score beside this one; NAME=ADDRESS calls one NAME.
    region
        Regions to score: global, northern_extratropics, southern_extratropics, tropics, europe, north_america,
        north_atlantic, north_pacific, east_asia, ausnz, arctic, antarctic, area, each also with _land or _sea; or a box
        as alps:48/5/44/16 (north/west/south/east). By default all that suit the grid.
    by
        Scores of every `season` or `month` as well; by default of seasons.
    event
        Thresholds for the Brier score, as "t2m > 303.15", in canonical units.
    common
        Score what all forecasts share, and say what was left out; without it, anything missing is an error.
    output
        Scores file; by default scores.nc beside the forecast (here for an address), or pangu.scores.nc of one that is
        called pangu.zarr.
    workers
        Threads; by default as many as there are cores.
    scheduler
        Address of a dask.distributed scheduler (tcp://host:port) whose workers score; they must see the same files.
    """
    with importing():
        from weatherfm.face.arguments import require_values
        from weatherfm.face.results import Asked, chosen

    require_values({"--against": against, "--region": region, "--by": by, "--event": event})
    _say_scores(
        Asked(
            source, overrides, store, against or (), region or (), by or (), event or (), common, output, workers,
            scheduler, chosen(**vars(some or Some())),
        )
    )  # fmt: skip


def report(
    source: Path,
    *overrides: Overrides,
    forecast: str | None = None,
    store: Path | None = None,
    case: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    compare: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    force: bool = False,
    maps: bool = False,
    quality: Path | None = None,
    output: Path | None = None,
) -> None:
    """Show scores, curves, spectra and maps on one self-contained page.

    Parameters
    ----------
    source
        The run's YAML file, or a scores file.
    forecast
        Forecast for the maps, a folder or an address; by default forecast.zarr, or X.zarr of X.scores.nc.
    store
        Store with the truth for the maps; by default the run's.
    case
        Initial times to look at closely, as --case 2018-10-12T00; by default one of median error, the best and the
        worst.
    compare
        Other scores files whose forecasts are shown beside these; refused where they were not made alike.
    force
        Compare them all the same; the page says in what they differ.
    maps
        Write the maps as PNG files into a folder `maps` beside the page as well.
    quality
        Findings of `weatherfm verify STORE --output FILE` to show; by default verify.json beside the scores.
    output
        Page to write; by default report.html beside the scores, or pangu.report.html of pangu.scores.nc.
    """
    run = load(source, overrides) if is_run(source) else None
    with importing():
        from weatherfm.face.arguments import require_values
        from weatherfm.face.results import report as write
        from weatherfm.face.runs import refuse_overrides

    if run is None:
        refuse_overrides(source, overrides, "no run but scores")
    require_values({"--case": case, "--compare": compare})

    written = write(
        run or source,
        forecast=forecast,
        store=store,
        case=case or (),
        compare=compare or (),
        force=force,
        maps=maps,
        quality=quality,
        output=output,
    )
    if maps:
        say(f"maps      {len(written.maps)} pictures in {written.page.parent / 'maps'}")
    say(f"report    {written.page}")


def reconstruct(
    source: Path,
    *overrides: Overrides,
    store: Path | None = None,
    on: str | None = None,
    samples: int = 6,
    output: Path | None = None,
) -> None:
    """Hide patches of states, let a masked autoencoder make them, and show how well it does on one page.

    For runs with `training.objective: reconstruct`. Scores are of what was hidden, beside two guesses that need no
    model; pictures are in colours where channels are at wavelengths. What is hidden follows from the run's seed.

    Parameters
    ----------
    source
        The run's YAML file, or its weights file (then --store says where states are).
    store
        Store with the states; by default the run's.
    on
        test, validation, or days as 2018 or 2018-10-01/2018-10-31; by default the test period, or, where there is
        none, validation. Days that were trained on are refused.
    samples
        How many states to show.
    output
        Page to write; by default reconstruction.html beside the weights. The numbers are written beside it, as JSON.
    """
    run = load(source, overrides) if is_run(source) else None
    with importing():
        from weatherfm.face.reconstructing import write_reconstruction

    left = () if run else overrides
    made = write_reconstruction(run or source, *left, store=store, on=on, samples=samples, output=output)
    for sentence in made.headline:
        say(sentence)
    say(f"numbers   {made.numbers}\nreport    {made.page}")


def forecast_run(run: RunConfig) -> None:
    """Forecast with the weights of a run."""
    with importing():
        from weatherfm.face.forecasting import write_forecast

    say(f"forecast  {write_forecast(run)}")


def evaluate_run(run: RunConfig) -> None:
    """Score the forecast of a run."""
    with importing():
        from weatherfm.face.results import Asked

    _say_scores(Asked(run, ()))


def report_run(run: RunConfig) -> None:
    """Show the scores of a run."""
    with importing():
        from weatherfm.face.results import report as write

    say(f"report    {write(run).page}")


def _say_scores(asked: Any) -> None:
    """Carry out an evaluation (`weatherfm.face.results.Asked`), and show its table."""
    from weatherfm.evaluation.results.text_table import score_table
    from weatherfm.face.results import score

    scored = score(asked)
    say(f"{score_table(scored.scores, scored.headline)}\nscores    {scored.path}")
