"""The `weatherfm` command: its verbs in their order, and how it ends."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from cyclopts import App, CycloptsError
from tqdm.contrib.logging import logging_redirect_tqdm

from weatherfm import __version__
from weatherfm.errors import STOPPED, InputError
from weatherfm.outcome import report_errors
from weatherfm.verbs.data import append, prepare, prepare_run, verify, verify_run
from weatherfm.verbs.model import check, plan, train, train_run, validate
from weatherfm.verbs.results import evaluate, evaluate_run, forecast, forecast_run, reconstruct, report, report_run
from weatherfm.verbs.run import Overrides, flush, importing, speaks

app = App(
    name="weatherfm",
    help="""From ERA5 to a verified forecast.

    A run is one YAML file (see configs/); `section.key=value` after it changes a setting. The verbs in their order:
    prepare, train, forecast, evaluate, report. `weatherfm demo` goes through all of them on a simulated planet.

    Interrupted, every verb goes on where it was when started again. `--debug` shows tracebacks.

    Exit status: 0 done, 1 a fault, 2 wrong input, 75 training stopped by a signal and not done, 130 interrupted.
    """,
    version=__version__,
    result_action="return_value",
)


_NOISY = ("distributed", "matplotlib", "cfgrib", "jax", "asyncio", "numcodecs")
_WITH_KEYS = ("fsspec", "s3fs", "gcsfs", "adlfs", "botocore", "aiobotocore", "azure", "google", "urllib3", "aiohttp")
"""Loggers that would write down keys, signatures or signed addresses at DEBUG."""

_SETTING = re.compile(r"(data|model|training|forecast|evaluation)(\.\w+)+=")


def demo(*overrides: Overrides) -> int:
    """Go through everything on a simulated planet: minutes on two CPU cores, offline, ends in report.html.

    Needs the extra `demo` (pip install 'weatherfm[demo]'). The run is configs/planet.yaml; its results go to runs/demo.
    """
    from importlib.resources import as_file, files

    from weatherfm.training.run_config import load_run

    with as_file(files("weatherfm.configs") / "planet.yaml") as path:
        config = load_run(path, overrides)
    prepare_run(config)
    if not verify_run(config):
        return 1
    if not train_run(config):
        return STOPPED
    forecast_run(config)
    evaluate_run(config)
    report_run(config)
    return 0


_VERBS: tuple[Callable[..., Any], ...] = (
    demo, check, plan, prepare, append, verify, validate, train, forecast, evaluate, report, reconstruct,
)  # fmt: skip
for _position, _verb in enumerate(_VERBS):
    app.command(_verb, sort_key=_position)


def main() -> None:
    """Run the command line and exit: 0 done, 1 a fault, 2 wrong input, 75 training stopped, 130 interrupted."""
    status = run_command(sys.argv[1:])
    flush()
    sys.exit(status)


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit status; errors are one message on stderr, without a traceback.

    Of several ranks (weatherfm.training.ranks.job) the first speaks, and an error is told by one of them.
    """
    debug, level = "--debug" in arguments, logging.INFO if speaks() else logging.WARNING
    logging.basicConfig(level=logging.DEBUG if debug else level, format="%(message)s", stream=sys.stderr)
    for noisy in _NOISY + _WITH_KEYS:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with logging_redirect_tqdm():  # notes go above a progress bar, not through it
        return report_errors(lambda: _call_app([a for a in arguments if a != "--debug"]), debug)


def _refuse_empty(arguments: list[str]) -> None:
    """An empty path would be the current folder."""
    for before, given in zip(["weatherfm", *arguments], arguments, strict=False):
        if not given.strip():
            raise InputError(
                f"the argument after {before} is empty (got {given!r}); write what it is, or leave it out (a variable "
                "of the shell that has no value looks like that)"
            )


def _settings_last(arguments: list[str]) -> list[str]:
    """Settings behind `--`: an option that takes several values would take them, too."""
    if "--" in arguments:
        return arguments
    settings = [given for given in arguments if _SETTING.match(given)]
    return [*(given for given in arguments if not _SETTING.match(given)), *(["--", *settings] if settings else [])]


def _call_app(arguments: list[str]) -> int:
    _refuse_empty(arguments)
    arguments = _settings_last(arguments)
    if "RANK" not in os.environ:
        try:
            return app(arguments, exit_on_error=False) or 0
        except CycloptsError:  # cyclopts has printed it
            return 2
    with importing():
        from weatherfm.training.ranks.job import join_job

    with join_job():  # torchrun has started others beside this process
        try:
            return app(arguments, exit_on_error=False, print_error=False) or 0
        except CycloptsError as error:
            raise InputError(str(error)) from None


if __name__ == "__main__":
    main()
