"""What the verb `evaluate` writes, from paths to paths: scores, and while it works the parts that are finished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.results.scores_file import refuse_to_replace, write_scores
from weatherfm.evaluation.scoring.cases_to_score import Choice
from weatherfm.evaluation.scoring.kept_parts import remove_parts
from weatherfm.file_lock import hold_output


def score(
    forecast: str,
    store: Path,
    settings: EvaluationConfig,
    output: Path,
    against: Sequence[str] = (),
    common: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    choice: Choice = Choice(),  # noqa: B008 - frozen
) -> xr.Dataset:
    """Score a forecast and write the scores; returns them.

    Finished parts of the work stay in a folder beside the output until the scores are written.

    Raises:
        InputError: as `evaluate`; another process writes the same output.
    """
    parts = output.with_name(f".{output.name}.parts")
    truth = open_store(store)
    with hold_output(output):
        refuse_to_replace(output)
        scores = evaluate(forecast, truth, against, settings, choice, common, parts, workers, scheduler)
        write_scores(scores, output)
        remove_parts(parts)
    return scores
