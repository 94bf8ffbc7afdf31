"""A forecast and the truth as they were scored, for maps: of the same store, on the rows and points of the scores."""

from __future__ import annotations

from dataclasses import replace

import xarray as xr

from weatherfm.data_pipeline.store.records.replaced_while_read import is_continued
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.results.lookup import lead_hours, provenance_of
from weatherfm.evaluation.scoring.cases_to_score import Cases
from weatherfm.evaluation.scoring.shared_points import (
    POINTS,
    SharedPoints,
    has_rows,
    on_rows,
    points_of,
    share_points,
)


def require_scored_truth(store: Store, scores: xr.Dataset) -> None:
    """That a store is the one that was scored against, or that one with later times (`append`).

    Raises:
        InputError: it is another, or was prepared anew: its maps would be of another truth than the scores.
    """
    record = provenance_of(scores)
    scored, now = record.get("store_checksum"), store.manifest.get("checksum")
    told = record.get("store") or {}
    if scored is None or scored == now or (now and "sha256" in told and is_continued(store.manifest, told)):
        return
    raise InputError(
        f"the store {store.path} (checksum {str(now)[:12]}) is not that of these scores "
        f"({', '.join([*([told['address']] if told else []), f'checksum {scored[:12]}'])}): its maps would show "
        "another truth; give that one, or, where it was prepared anew, evaluate again"
    )


def on_scored_points(file: ForecastFile, store: Store, scores: xr.Dataset) -> Store:
    """The store, and the forecast too, on the rows and points of scores; as they are where nothing is left out.

    Scores of before do not say which points: then those of this forecast are left out.

    Args:
        file: a forecast that was scored.
        store: the truth; one that this gave stays as it is.
        scores: of `evaluate`.
    """
    left_out = provenance_of(scores).get("left_out") or {}
    latitude = scores["latitude"].values
    if points_of(store) is not None or not all(has_rows(grid, latitude) for grid in (store.grid, file.grid)):
        return store
    if "rows" in left_out:
        store = on_rows([file], store, latitude, tuple(left_out["rows"]))
    if POINTS in scores.coords:
        known = points_of(store) or SharedPoints(slice(0, len(latitude)), store.masks)
        gaps = dict(zip(map(str, scores["channel"].values), scores[POINTS].values, strict=True))
        masks = {**known.masks, **{name: gap for name, gap in gaps.items() if gap.any()}}
        store = replace(known, masks=masks).on(store)
    elif "points" in left_out:
        init_times, channels = scores["init_time"].values, tuple(map(str, scores["channel"].values))
        store, _ = share_points({"": file}, store, Cases(init_times, tuple(lead_hours(scores)), channels, {}))
    return store
