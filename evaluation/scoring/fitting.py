"""Fits a group of channels when its turn comes, and keeps what it fitted: an interruption loses one group's at most.

A group's fit is in memory while the group is scored and no longer; other processes get its place on disk. Groups are
made so that the fit of one, too, keeps to their bound (`weatherfm.evaluation.evaluate`). One file is common to all
groups: the predictors of ridge regression, a few hundred numbers a start time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tqdm import tqdm

from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines.ridge_predictors import Predictors, ridge_predictors
from weatherfm.evaluation.scoring.fitted import (
    Fitted,
    RidgeInputs,
    ToFit,
    arrays_of,
    fit_group,
    fitted_of,
    predictors_of,
    times_to_fit,
)
from weatherfm.evaluation.scoring.kept_parts import KeptParts

_PREDICTORS = "predictors"


class Fitting:
    """Fits, or finds what was fitted before.

    Args:
        store: states, climatology and training days.
        init_times: datetime64 [case] of all cases.
        kept: where fits are found and kept.
        shown: with a progress bar of the training times done.
    """

    def __init__(self, store: Store, init_times: np.ndarray, kept: KeptParts, shown: bool = True) -> None:
        self._store, self._init_times, self._kept, self._shown = store, init_times, kept, shown
        self._predictors: Predictors | None = None

    def of(self, name: str, wanted: ToFit) -> Fitted:
        """What the group of this name asks for.

        Raises:
            InputError: as of `fit_group` and `ridge_predictors`.
        """
        if not wanted.anything:
            return Fitted()
        if (found := self._kept.find_fit(name)) is not None:
            return fitted_of(found)
        predictors = self.predictors(wanted.ridge, wanted.lead_times) if wanted.ridge else None
        total = times_to_fit(self._store, wanted, predictors)
        first, *others = wanted.channels
        said = f"fit {first}" + (f" and {len(others)} more" if others else "")
        hidden = None if self._shown else True
        with tqdm(total=total, desc=said, unit="time", leave=False, disable=hidden) as bar:
            fitted = fit_group(self._store, wanted, predictors, bar.update)
        self._kept.keep_fit(name, arrays_of(fitted))
        return fitted

    def predictors(self, inputs: RidgeInputs, lead_times: tuple[int, ...]) -> Predictors:
        """Of ridge regression, for all groups.

        Raises:
            InputError: as of `ridge_predictors`.
        """
        if self._predictors is None and (found := self._kept.find_fit(_PREDICTORS)) is not None:
            self._predictors = predictors_of(found)
        if self._predictors is None:
            made = ridge_predictors(self._store, inputs.channels, lead_times, self._init_times, inputs.times)
            self._predictors = replace(made, components=None)
            self._kept.keep_fit(_PREDICTORS, arrays_of(self._predictors))
        return self._predictors


def fitted_elsewhere(name: str, wanted: ToFit, kept: KeptParts) -> Fitted:
    """What another process has fitted for the group of this name.

    Raises:
        InputError: its folder is not seen from here.
    """
    found = kept.find_fit(name) if wanted.anything else {}
    if found is None:
        raise InputError(
            f"a worker of the cluster does not see {kept.folder}, where what was fitted is kept; let all of them see "
            "the same folder, or score without --scheduler"
        )
    return fitted_of(found)
