"""The `weatherfm` command: one function a verb, thin; what a verb needs is imported when it runs."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from tqdm.contrib.logging import logging_redirect_tqdm

from weatherfm import __version__
from weatherfm.errors import InputError
from weatherfm.outcome import report_errors
from weatherfm.training.plan.machine import Machine, Training

if TYPE_CHECKING:
    from weatherfm.training.config import RunConfig

app = App(
    name="weatherfm",
    help="""From ERA5 to a verified forecast.

    A run is one YAML file (see configs/); `section.key=value` after it changes a setting. The verbs in their order:
    prepare, train, forecast, evaluate, report. `weatherfm demo` goes through all of them on a simulated planet.

    Interrupted, every verb goes on where it was when started again. `--debug` shows tracebacks.
    """,
    version=__version__,
    result_action="return_value",
)

Overrides = Annotated[str, Parameter(help="Settings to change, as `model.depth=6 training.steps=500`.")]


@app.command(sort_key=0)
def demo(*overrides: Overrides) -> None:
    """Go through everything on a simulated planet: minutes on two CPU cores, offline, ends in report.html.

    Needs the extra `demo` (pip install 'weatherfm[demo]'). The run is configs/planet.yaml; its results go to runs/demo.
    """
    from importlib.resources import as_file, files

    from weatherfm.training.config import load_run

    with as_file(files("weatherfm.configs") / "planet.yaml") as path:
        config = load_run(path, overrides)
    _prepare(config, None)
    if _train(config):
        _forecast(config)
        _evaluate(config)
        _report(config)


@app.command(sort_key=2)
def prepare(config: Path, *overrides: Overrides, dry_run: bool = False, scheduler: str | None = None) -> None:
    """Turn the source of a run into its training store.

    Parameters
    ----------
    config
        The run's YAML file.
    dry_run
        Say what would be read and written, and move nothing.
    scheduler
        Address of a dask.distributed scheduler; without it, threads of this process do the work.
    """
    run = _load(config, overrides)
    if dry_run:
        from weatherfm.data_pipeline.plan import plan_store
        from weatherfm.data_pipeline.sources import open_source

        _say(plan_store(run.data, open_source(run.data)).to_text())
    else:
        _prepare(run, scheduler)


@app.command(sort_key=3)
def verify(store: Path, *, json: bool = False) -> int:
    """Check a store: checksums, time axis, missing values, physical range, statistics, periods.

    Parameters
    ----------
    store
        Folder of the store, or the run's YAML file.
    json
        Print the findings as JSON.
    """
    from weatherfm.data_pipeline.verify import verify as verify_store

    findings = verify_store(_store_path(store))
    _say(_as_json(findings.to_dict()) if json else findings.to_text())
    return 0 if findings.ok else 1


@app.command(sort_key=4)
def train(config: Path, *overrides: Overrides, devices: int | None = None, restarts: int = 0) -> int:
    """Train the model of a run on its store; goes on from the newest checkpoint by itself. Also under torchrun.

    Parameters
    ----------
    config
        The run's YAML file.
    devices
        Start so many processes on this machine, one for each GPU, or on its CPU cores; without it, this one trains.
    restarts
        How often they are started again, from the newest checkpoint, when one of them fails (with --devices).
    """
    run = _load(config, overrides)
    if devices is None:
        _train(run)
        return 0
    from weatherfm.training.ranks.launch import launch, require_devices

    require_devices(devices, restarts, run.training.device)
    debug = ["--debug"] if logging.getLogger().isEnabledFor(logging.DEBUG) else []
    command = [sys.executable, "-P", "-m", "weatherfm.cli", "train", str(config), *overrides, *debug]
    return launch(command, devices, restarts)


@app.command(sort_key=5)
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

    run = _load(source, overrides) if _is_run(source) else None
    given = run.forecast.model_dump(mode="json") if run else {}
    given |= {"lead_times": lead} if lead else {}
    given |= {"mode": "rollout", "rollout_step": rollout} if rollout else {}
    weights = run.folder / "weights.safetensors" if run else source
    place = store or (Path(run.data.store) if run else None)
    if place is None:
        raise InputError(f"{source} holds weights, no data; say where initial states are with --store")
    settings = _settings(ForecastConfig, given, "forecast")
    _say(_results().forecast(weights, place, settings, init, output or weights.parent / "forecast.zarr"))


@app.command(sort_key=6)
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
    run = _load(source, overrides) if _is_run(source) else None
    path = run.folder / "forecast.zarr" if run else source
    place = store or (Path(run.data.store) if run else None)
    if place is None:
        raise InputError(f"{source} is a forecast; say where the truth is with --store")
    regions = region or (run.evaluation.regions if run else None)
    headline = run.evaluation.headline if run else []
    _say(_results().score(path, place, against or [], regions, headline, output or path.parent / "scores.nc"))


@app.command(sort_key=7)
def report(
    source: Path,
    *overrides: Overrides,
    forecast: Path | None = None,
    store: Path | None = None,
    maps: bool = False,
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
    output
        Page to write; by default report.html beside the scores.
    """
    run = _load(source, overrides) if _is_run(source) else None
    scores = run.folder / "scores.nc" if run else source
    place = store or (Path(run.data.store) if run else None)
    _say(_results().write_page(scores, forecast, place, maps, run.evaluation.headline if run else [], output))


@app.command(sort_key=1)
def plan(
    config: Path,
    *overrides: Overrides,
    machine: Annotated[Machine, Parameter(name="*")],
    training: Annotated[Training | None, Parameter(name="*")] = None,
    grid: str | None = None,
    jobs: int | None = None,
    json: bool = False,
) -> None:
    """Say what every layout of some devices holds, sends and computes, before anything is queued.

    One rank of each is simulated on this machine, whatever their number. training.batch_size stays the batch over all
    devices: layouts whose data-parallel groups do not divide it are left out. Of the section `parallel` nothing is
    asked. Times compare layouts, at rates of nodes of eight H100 if not told others; they promise nothing.

    Parameters
    ----------
    config
        The run's YAML file.
    grid
        Latitudes x longitudes, as 128x256, where the store is not prepared yet.
    jobs
        Processes that simulate; by default one a core.
    json
        Print everything as JSON.
    """
    from weatherfm.training.plan.plan import make_plan, plan_domain
    from weatherfm.training.plan.show import to_dict, to_text

    run = _load(config, overrides)
    made = make_plan(run, plan_domain(run, grid), machine, training or Training(), jobs)
    _say(_as_json(to_dict(made)) if json else to_text(made))


@app.command(sort_key=1)
def check(config: Path, *overrides: Overrides, devices: int | None = None) -> int:
    """Check that store, model, layout, training, forecast and baselines of a run fit together, computing nothing.

    Parameters
    ----------
    config
        The run's YAML file.
    devices
        How many it is to be trained on; without it, as many as its section `parallel` asks for.
    """
    from weatherfm.training.preflight import preflight

    findings = preflight(_load(config, overrides), devices)
    _say("\n".join(str(finding) for finding in findings))
    return 0 if all(finding.ok for finding in findings) else 2


def main() -> None:
    """Run the command line and exit: 0 done, 1 a fault, 2 wrong input, 130 interrupted."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit status; errors are one message on stderr, without a traceback.

    Of several ranks (weatherfm.training.ranks.roster) the first speaks, and an error is told by one of them.
    """
    debug, level = "--debug" in arguments, logging.INFO if _speaks() else logging.WARNING
    logging.basicConfig(level=logging.DEBUG if debug else level, format="%(message)s", stream=sys.stderr)
    for noisy in ("distributed", "matplotlib", "cfgrib", "jax", "asyncio", "numcodecs"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with logging_redirect_tqdm():  # notes go above a progress bar, not through it
        return report_errors(lambda: _call_app([a for a in arguments if a != "--debug"]), debug)


def _call_app(arguments: list[str]) -> int:
    if "RANK" not in os.environ:
        try:
            return app(arguments, exit_on_error=False) or 0
        except CycloptsError:  # cyclopts has printed it
            return 2
    from weatherfm.training.ranks.roster import muster

    with muster():  # torchrun has started others beside this process
        try:
            return app(arguments, exit_on_error=False, print_error=False) or 0
        except CycloptsError as error:
            raise InputError(str(error)) from None


def _speaks() -> bool:
    return os.environ.get("RANK", "0") == "0"


# What the verbs and the demo share ---------------------------------------------------------------------------


def _prepare(run: RunConfig, scheduler: str | None) -> None:
    from weatherfm.data_pipeline.prepare import prepare as prepare_store

    _say(f"store     {prepare_store(run.data, scheduler=scheduler).path}")


def _train(run: RunConfig) -> bool:
    """True when training is finished."""
    from weatherfm.training.trainer import train as train_run

    summary = train_run(run)
    if summary.stopped_by:
        _say(f"stopped by {summary.stopped_by} at step {summary.steps}; the same command goes on from there")
        return False
    _say(f"weights   {summary.weights}")
    return True


def _forecast(run: RunConfig) -> None:
    weights = run.folder / "weights.safetensors"
    _say(_results().forecast(weights, Path(run.data.store), run.forecast, None, run.folder / "forecast.zarr"))


def _evaluate(run: RunConfig) -> None:
    forecast, settings = run.folder / "forecast.zarr", run.evaluation
    _say(
        _results().score(
            forecast, Path(run.data.store), [], settings.regions, settings.headline, run.folder / "scores.nc"
        )
    )


def _report(run: RunConfig) -> None:
    _say(
        _results().write_page(
            run.folder / "scores.nc", None, Path(run.data.store), False, run.evaluation.headline, None
        )
    )


def _results() -> Any:
    from weatherfm.evaluation import results

    return results


def _is_run(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml")


def _load(path: Path, overrides: tuple[str, ...]) -> RunConfig:
    from weatherfm.training.config import load_run

    return load_run(path, overrides)


def _store_path(path: Path) -> Path:
    return Path(_load(path, ()).data.store) if _is_run(path) else path


def _settings(cls: Any, data: Any, origin: str) -> Any:
    from weatherfm.config import parse_settings

    return parse_settings(cls, data, origin)


def _as_json(data: Any) -> str:
    return json.dumps(data, indent=2)


def _say(text: str) -> None:
    if _speaks():
        print(text)  # noqa: T201 - the command's own output


if __name__ == "__main__":
    main()
