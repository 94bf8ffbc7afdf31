"""Errors of single cases: their lines, which cases maps are of, and scores that hold none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic_scores import simple_scores

from weatherfm.evaluation.figures.case_curves import FEWEST, case_figure
from weatherfm.evaluation.figures.maps import map_groups
from weatherfm.evaluation.figures.maps.map_groups import shown_cases
from weatherfm.evaluation.report.provenance_table import provenance_rows
from weatherfm.evaluation.report.skill_sections import case_groups
from weatherfm.evaluation.results.by_case import case_rmse

DIMS = ("forecast", "init_time", "lead_time", "region", "channel")


def with_cases(count: int = FEWEST, models=("one", "two")):
    """Scores whose cases have squared errors that tell forecast, case, lead time, region and channel apart."""
    scores = simple_scores(models=models)
    scores = scores.drop_dims("init_time", errors="ignore").drop_vars("init_time", errors="ignore")
    inits = np.datetime64("2009-01-01", "s") + np.arange(count) * np.timedelta64(24, "h")
    scores = scores.assign_coords(init_time=inits)
    shape = [scores.sizes[dim] for dim in DIMS]
    return scores.assign(mse_by_case=(DIMS, np.arange(np.prod(shape), dtype=np.float32).reshape(shape)))


def test_cases_are_of_the_forecast_lead_time_channel_and_main_region():
    scores = with_cases()
    held = scores["mse_by_case"].values  # [forecast, init_time, lead_time, region, channel]
    np.testing.assert_allclose(case_rmse(scores, "two", "t850", 72), np.sqrt(held[1, :, 1, 0, 1].astype(float)))
    np.testing.assert_allclose(case_rmse(scores, "one", "z500", 24, "tropics"), np.sqrt(held[0, :, 0, 1, 0]))


def test_scores_without_cases_or_with_some_have_no_line():
    assert case_rmse(simple_scores(), "model", "z500", 24) is None
    scores = with_cases()
    scores["mse_by_case"][1, 2] = np.nan
    assert case_rmse(scores, "two", "z500", 24) is None
    assert [line.get_label() for line in case_figure(scores, "z500", 24).axes[0].lines] == ["one", "persistence"]


def test_a_line_a_model_and_the_hardest_baseline():
    scores = with_cases()
    lines = case_figure(scores, "z500", 24).axes[0].lines
    assert [line.get_label() for line in lines] == ["one", "two", "persistence"]  # 80, and climatology 100
    for line in lines:
        np.testing.assert_allclose(line.get_ydata(), case_rmse(scores, line.get_label(), "z500", 24))
        assert len(line.get_xdata()) == FEWEST


@pytest.mark.parametrize(("count", "plots"), [(FEWEST, 2), (FEWEST - 1, None)])
def test_the_page_has_them_of_enough_cases(count, plots):
    groups = case_groups(with_cases(count), ["z500", "t850"])
    assert [len(group.plots) for group in groups] == ([] if plots is None else [plots])


def test_the_extremes_are_those_of_all_cases(monkeypatch):
    """More than the 120 that are looked at without them."""
    monkeypatch.setattr(map_groups, "load_case", lambda file, store, channel, lead, time: (channel, lead, time))
    errors = np.ones(500)
    errors[[77, 78]] = 0.5, 3.0
    inits = np.datetime64("2009-01-01", "s") + np.arange(500) * np.timedelta64(6, "h")
    shown, _ = shown_cases(None, None, ["z500", "t850"], [24, 72], inits, errors)
    found = {one.which: one.case for one in shown}
    assert found["best"] == ("z500", 24, inits[77])
    assert found["worst"] == ("z500", 24, inits[78])


def test_what_is_left_out_stands_in_the_table_of_where_scores_come_from():
    scores = simple_scores()
    assert "Left out" not in dict(provenance_rows(scores))

    record = json.loads(scores.attrs["provenance"]) | {"left_out": {"rows": ["90"], "channels": ["t2m", "msl"]}}
    scores.attrs["provenance"] = json.dumps(record)
    assert dict(provenance_rows(scores))["Left out"] == (
        "rows 90, which not all forecasts and the truth have; channels t2m, msl, which not all forecasts and the truth "
        "have"
    )
