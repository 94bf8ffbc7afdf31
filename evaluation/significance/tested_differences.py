"""Every forecast's difference from every other, tested: variables for the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weatherfm.evaluation.baselines.names import ALL_BASELINES
from weatherfm.evaluation.scoring.case_series import case_scores
from weatherfm.evaluation.scoring.metrics_from_sums import Variables
from weatherfm.evaluation.scoring.sums_and_series import ScoredCases
from weatherfm.evaluation.significance.skill_intervals import compare_cases

_DIMS = ("reference", "region", "lead_time", "channel")


def significance_variables(
    scored: Mapping[str, ScoredCases], references: Sequence[str] | None = None
) -> dict[str, Variables]:
    """Forecast -> `rmse_p_value`, `rmse_skill_low`, `rmse_skill_high` and, of ensembles, the same of `crps_fair`.

    Baselines are references only. NaN against itself, against a forecast without such scores, and where cases are too
    few (`weatherfm.evaluation.significance.skill_intervals`).

    Args:
        scored: forecast -> cases.
        references: their order; without it, that of `scored`. Those without cases are NaN.
    """
    references = list(scored if references is None else references)
    found: dict[str, Variables] = {name: {} for name in scored}
    for metric, root in (("rmse", True), ("crps_fair", False)):
        series = {name: case_scores(cases, metric) for name, cases in scored.items()}
        having = {name: values for name, values in series.items() if values is not None}
        for name in [name for name in having if name not in ALL_BASELINES]:
            found[name] |= _against_all(metric, root, name, having, references, scored[name].init_times)
    return found


def _against_all(
    metric: str,
    root: bool,
    name: str,
    series: Mapping[str, np.ndarray],
    references: list[str],
    init_times: np.ndarray,
) -> Variables:
    shape = (len(references), *series[name].shape[1:])
    results = {what: np.full(shape, np.nan) for what in ("p_value", "skill_low", "skill_high")}
    for i, reference in enumerate(references):
        if reference != name and reference in series:
            told = compare_cases(series[name], series[reference], init_times, root)
            for what, values in results.items():
                values[i] = getattr(told, what)
    return {f"{metric}_{what}": (_DIMS, values.swapaxes(1, 2)) for what, values in results.items()}
