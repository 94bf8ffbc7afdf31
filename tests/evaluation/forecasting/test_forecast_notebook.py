"""The notebook about forecasts runs from its first cell to its last, and its outputs say what its text says."""

from __future__ import annotations

from notebooks import executed, said


def test_the_notebook_runs(tmp_path, monkeypatch):
    text = said(executed("forecast_from_python.ipynb", tmp_path, monkeypatch))
    assert "'init_time': 2, 'lead_time': 30" in text
    for words in ("needs t2m", "'Pa', which do not convert to K", "the model's grid is", "no time to forecast from"):
        assert words in text
