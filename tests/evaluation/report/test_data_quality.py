"""The findings of `weatherfm verify` on the page of a report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib import dates
from moving_weather import GRID, TIMES, weather_store

from weatherfm.data_pipeline.verify import report_to_bytes, verify
from weatherfm.errors import InputError
from weatherfm.evaluation.figures.coverage import coverage_figure
from weatherfm.evaluation.figures.pictures import svg_bytes
from weatherfm.evaluation.report.data_quality import quality_section
from weatherfm.evaluation.report.page import write_report
from weatherfm.evaluation.report_to_file import Page, write_page
from weatherfm.evaluation.results.scores_file import build_scores, write_scores


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """(file of findings, what it says) of a store with a gap and a stuck field."""
    folder = tmp_path_factory.mktemp("quality")

    def spoil(values):
        values[60, 1] = values[59, 1]

    store = weather_store(folder / "s.zarr", spoil, np.delete(TIMES, [20, 21]), allow_gaps=True)
    report = verify(store)
    (folder / "verify.json").write_bytes(report_to_bytes(report))
    return folder / "verify.json", report


def scores_of(store_checksum):
    dims, names = ("period", "region", "lead_time", "channel"), ("model", "persistence", "climatology")
    metrics = {metric: (dims, np.ones((1, 1, 1, 1))) for metric in ("rmse", "mse", "mae", "bias", "acc")}
    labels = {"period": ["all"], "region": ["global"], "lead_time": [6], "channel": ["t850"]}
    record = {"simulated": False, "store_checksum": store_checksum, "climatology_period": "2000-01-01/2000-02-20"}
    inits = TIMES[-4:-3].astype("datetime64[s]")
    return build_scores(dict.fromkeys(names, metrics), dict.fromkeys(names, 1), labels, GRID, inits, record)


@pytest.fixture
def scores(checked, tmp_path):
    """A scores file of the store that was checked."""
    write_scores(scores_of(checked[1].identity), tmp_path / "scores.nc")
    return tmp_path / "scores.nc"


def test_page_shows_what_was_found(checked, scores, tmp_path):
    text = write_report(scores, tmp_path / "r.html", quality_json=checked[0]).read_text(encoding="utf-8")
    assert '<section id="quality">' in text
    assert '<a href="#quality">' in text
    assert "The data are not sound (1 error, 1 warning)." in text
    assert "2 steps of 6h are missing: 2000-01-06T00 .. 2000-01-06T06 (2 steps)" in text
    assert "t850 is stuck: 1 field repeats the one before, at 2000-01-16T12" in text
    assert "Times covered, 2000-01-01T00:00:00 to 2000-03-15T18:00:00: 298 there, 2 missing" in text
    assert "compared with their SHA-256 checksums: every one is as it was written." in text


def test_page_without_findings_has_no_section(scores, tmp_path):
    text = write_report(scores, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "quality" not in text


def test_rows_of_the_table(checked):
    section = quality_section(checked[0], scores_of(checked[1].identity))
    assert [(row.channel, row.bad) for row in section.rows] == [("z500", False), ("t850", True), ("msl", False)]
    row = section.rows[1]
    assert (row.words, row.units, row.missing) == ("temperature at 850 hPa", "K", "none")
    assert row.jump.endswith(" ×")
    assert section.problems[0]["remedy"].startswith("the source itself holds these")
    assert section.caution == ""


def test_findings_about_another_store_are_refused(checked, tmp_path):
    write_scores(scores_of("another"), tmp_path / "scores.nc")
    with pytest.raises(InputError, match="is about another store, or another state of it"):
        write_report(tmp_path / "scores.nc", tmp_path / "r.html", quality_json=checked[0])
    assert not (tmp_path / "r.html").exists()


def test_scores_that_do_not_name_their_store_get_a_caution(checked):
    section = quality_section(checked[0], scores_of(None))
    assert "The scores do not say which store they are of" in section.caution


def test_findings_beside_the_scores_are_shown_by_themselves(checked, scores, tmp_path, caplog):
    (tmp_path / "verify.json").write_bytes(checked[0].read_bytes())
    write_page(Page(scores))
    assert '<section id="quality">' in (tmp_path / "report.html").read_text(encoding="utf-8")
    write_scores(scores_of("another"), scores)
    write_page(Page(scores))
    assert '<section id="quality">' not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "is about another store than the scores; it is left out" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no findings at"), ("{", "is damaged"), ('{"format": "x"}', "is no file of `weatherfm verify --output`")],
)
def test_other_files_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "v.json").write_text(content)
    with pytest.raises(InputError, match=message):
        quality_section(tmp_path / "v.json", scores_of(None))


def test_many_problems_are_cut(checked, tmp_path):
    found = json.loads(checked[0].read_bytes())
    found["problems"] = found["problems"] * 40
    (tmp_path / "v.json").write_text(json.dumps(found))
    section = quality_section(tmp_path / "v.json", scores_of(None))
    assert (len(section.problems), section.n_more) == (40, 40)


def test_damaged_store_without_values_still_has_a_section(checked, tmp_path):
    found = json.loads(checked[0].read_bytes()) | {"channels": [], "coverage": {}}
    (tmp_path / "v.json").write_text(json.dumps(found))
    section = quality_section(tmp_path / "v.json", scores_of(None))
    assert (section.rows, section.coverage) == ([], None)


def test_strip_has_a_row_for_each_thing_that_is_there(checked):
    coverage = checked[1].to_dict()["coverage"]
    figure = coverage_figure(coverage, [])
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["data", "train", "test", "missing"]
    assert svg_bytes(figure) == svg_bytes(coverage_figure(coverage, []))
    with_all = coverage | {"preliminary": coverage["missing"]}
    problems = checked[1].to_dict()["problems"]
    labels = [label.get_text() for label in coverage_figure(with_all, problems).axes[0].get_yticklabels()]
    assert labels[-2:] == ["preliminary", "error"]


def test_strip_shows_every_piece_of_a_split(checked):
    coverage = checked[1].to_dict()["coverage"]
    start = np.datetime64(coverage["start"], "D")
    pieces = [f"{start + a}/{start + b}" for a, b in ((-5, 0), (3, 4), (9000, 9001))]  # the last one lies outside
    figure = coverage_figure(coverage | {"periods": {"train": ", ".join(pieces)}}, [])
    bars = figure.axes[0].collections[1].get_paths()
    days = [sorted({int(x - dates.date2num(start)) for x in bar.vertices[:, 0]}) for bar in bars]
    assert days == [[0, 1], [3, 5]]
