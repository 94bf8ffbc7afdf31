"""The notebook of the documentation runs from its first cell to its last, and its outputs say what its text says."""

from __future__ import annotations

import os

import pytest
from places import ROOT

NOTEBOOK = ROOT / "docs" / "forecast_from_python.ipynb"


def texts(cell) -> str:
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="the notebook's test needs nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="the notebook's test needs nbclient and ipykernel")
    pytest.importorskip("ipykernel", reason="the notebook's test needs nbclient and ipykernel")
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # kept clean, so that changes can be read
    run = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    run.execute()
    said = "\n".join(texts(cell) for cell in notebook.cells if cell.cell_type == "code")
    assert "'init_time': 2, 'lead_time': 30" in said
    for words in ("needs t2m", "'Pa', which do not convert to K", "the model's grid is", "no time to forecast from"):
        assert words in said
