"""The notebook from data to pictures: its settings are those of configs/debug.yaml, and all of its cells run."""

from __future__ import annotations

import json
import re

import pytest
from notebooks import executed, pictures, said
from places import ROOT

import weatherfm

NAME = "from_era5_to_a_forecast.ipynb"


def test_its_settings_are_the_debug_run():
    cells = json.loads((ROOT / "docs" / NAME).read_text())["cells"]
    source = next("".join(cell["source"]) for cell in cells if "settings = {" in "".join(cell["source"]))
    values: dict = {}
    exec(source.partition("\nrun = ")[0], values)
    assert weatherfm.read_run(values["settings"]) == weatherfm.read_run(ROOT / "configs" / "debug.yaml")


def test_only_the_public_face_is_used():
    cells = json.loads((ROOT / "docs" / NAME).read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    used = set(re.findall(r"\bweatherfm\.(\w+)", code))
    assert used <= set(weatherfm.__all__)
    assert "from weatherfm" not in code


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    pytest.importorskip("dinosaur", reason="the simulated planet needs the extra `demo`")
    done = executed(NAME, tmp_path, monkeypatch)
    text = said(done)
    assert "0 errors, 0 warnings: sound" in text
    assert text.count("ok      ") == 6  # links of `check`
    for words in ("damped_persistence", "report.html", "did you mean training.steps?", "learning_rate", "q700"):
        assert words in text
    assert pictures(done) == 5
    assert (tmp_path / "runs" / "debug" / "report.html").is_file()
