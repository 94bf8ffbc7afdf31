from __future__ import annotations

import json
import re
import shutil
import socket
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from small_store import CHANNELS, EUROPE, SmallStore, TestModel, drift, identity
from synthetic_scores import full_scores, simple_scores

from weatherfm.atomic import write_atomically
from weatherfm.errors import InputError
from weatherfm.evaluation import report_to_file as results
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.figures.maps.case import load_case
from weatherfm.evaluation.figures.pictures import data_uri, svg_bytes
from weatherfm.evaluation.figures.training_curve import loss_figure, read_training_curve, running_median
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import make_forecast
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.report import page as report_module
from weatherfm.evaluation.report.case_studies import case_study, scored_name
from weatherfm.evaluation.report.page import page_context, render, write_report
from weatherfm.evaluation.report.provenance_table import provenance_rows
from weatherfm.evaluation.report.sections import definitions
from weatherfm.evaluation.results.comparison import merge_scores
from weatherfm.evaluation.results.scores_file import read_scores, write_scores
from weatherfm.evaluation.results.words import number

MANY = (*(f"{v}{level}" for v in "ztuvq" for level in (50, 100, 250, 500, 700, 850, 1000)), "t2m", "msl")


class Page(HTMLParser):
    """What matters of a page: addresses it refers to, its pictures and its tables; fails on tags left open."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.images, self.open, self.ids = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [attrs[name] for name in ("src", "href") if name in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "img":
            self.images.append(attrs)
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the report opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a simulated planet: scores, forecast, log and store."""
    folder, store = tmp_path_factory.mktemp("run"), SmallStore(EUROPE)
    config = ForecastConfig(lead_times=["24h", "72h"])
    model = TestModel(store.domain(), drift)
    path = make_forecast(model, store, store.times[2:12], config, folder / "f.zarr", {"weights_sha256": "abc"})
    write_scores(evaluate(path, store), folder / "scores.nc")
    records = [{"step": s, "loss": 1 / s, "learning_rate": 1e-4} for s in range(10, 110, 10)]
    records.append({"step": 100, "validation": {"loss": 0.02, "rmse": {"z500": {"24": 400.0}}}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder, store


@pytest.fixture(scope="module")
def page(run):
    folder, store = run
    out = write_report(
        folder / "scores.nc", folder / "report.html", folder / "f.zarr", store, folder / "metrics.jsonl", ["z500"]
    )
    return out.read_text(encoding="utf-8")


# --- the page ---


def test_page_is_one_file_without_a_network(page):
    parsed = Page(page)
    outside = [a for a in parsed.addresses if not a.startswith(("data:", "#"))]
    assert outside == []
    assert {a[1:] for a in parsed.addresses if a.startswith("#")} <= set(parsed.ids)
    assert "@import" not in page
    assert "url(" not in page
    assert len(page) < 5e6


def test_page_has_every_section_and_described_pictures(page):
    parsed = Page(page)
    ids = ["figures", "card", "curves", "maps", "training", "provenance", "method"]
    assert [name for name in parsed.ids if name != "spectra"] == ids
    # RMSE, ACC, RMSE of every case, activity, bias; (one channel x two leads + best + worst + two frames) x three
    # panels; mean error and RMSE at two leads; training
    assert len(parsed.images) == 5 + 6 * 3 + 2 * 2 + 2
    assert "all valid in DJF" in page  # and no table of one period
    assert all(len(image["alt"]) > 10 for image in parsed.images)
    assert "Best and worst case" in page


def test_simulated_is_said_loudly(page):
    assert "<b>SIMULATED.</b>" in page
    assert "<title>Forecast report (simulated)</title>" in page
    assert "SIMULATED" not in render(page_context(simple_scores(), ["z500"], "Real"))


def test_report_without_the_optional_things(run, tmp_path):
    out = write_report(run[0] / "scores.nc", tmp_path / "deep" / "report.html", channels=["z500"])
    parsed = Page(out.read_text(encoding="utf-8"))
    assert parsed.ids == ["figures", "card", "curves", "provenance", "method"]
    assert list(out.parent.iterdir()) == [out]


def test_one_channel_one_lead(tmp_path):
    write_scores(simple_scores(["t2m"], [6], ["area"]), tmp_path / "s.nc")
    text = write_report(tmp_path / "s.nc", tmp_path / "r.html").read_text()
    sentence = "At 6 h the model’s t2m RMSE is 60.0 K: 25 % below persistence (80.0) and 40 % below climatology (100)"
    assert sentence.replace(" %", "\u00a0%") in text
    assert "1 channel, lead time 6 h, 3 forecasts from 2009-01-01 12 UTC to 2009-01-03 12 UTC" in text
    assert len(Page(text).images) == 3  # RMSE, ACC, bias


def test_many_channels_and_leads(tmp_path):
    scores = simple_scores(MANY, range(6, 246, 6), ("global", "northern_extratropics", "tropics"))
    write_scores(scores, tmp_path / "s.nc")
    text = write_report(tmp_path / "s.nc", tmp_path / "r.html", channels=["q500"]).read_text()
    Page(text)
    assert text.count("<caption>Specific humidity (q)</caption>") == 2 * 3  # baselines, regions
    assert "not every lead time is shown" in text


def test_an_ensemble_is_carded_on_the_fair_crps_and_the_page_says_so():
    scores = full_scores({"vit": 1, "ens": 8}, ridge=True, leads=(24, 72))
    text = render(page_context(scores, ["z500"], "x"))
    heads = re.findall(r"<h3>([^<]+) against ([^<]+) <small>global", text)
    own = heads[heads.index(("RMSE", "ridge regression")) + 1 :]  # behind those of vit
    assert sorted(own[:2]) == [("Fair CRPS", "probabilistic climatology"), ("Fair CRPS", "ridge regression")]
    assert "of ensembles also the fair CRPS, corrected for the number of members" in text
    assert "CRPS is the fair one everywhere on this page" in text
    assert "CRPS is the fair one" not in render(page_context(full_scores({"vit": 1}), ["z500"], "x"))


def test_a_card_has_its_scale_and_the_number_of_cases():
    scores = full_scores({"a": 1, "b": 1}, leads=(24, 72))
    scores["rmse"].loc[{"forecast": "b"}] = 1.03 * scores["rmse"].sel(forecast="a")
    text = render(page_context(scores, ["z500"], "x"))
    assert "RMSE against a <small>global, 120 cases</small>" in text
    card = text[text.index("RMSE against a <small>global") :]
    assert re.findall(r"<span class=\"s\d+\">([^<]+)</span>", card)[:5] == [
        "≤ −5.0 %", "−2.5 %", "0.0 %", "2.5 %", "≥ 5.0 %",
    ]  # fmt: skip
    assert ">▼−3.0</td>" in card
    assert "−0 %" not in text
    assert "-0 %" not in text


def test_names_are_escaped():
    context = page_context(simple_scores(models=("<script>evil",)), ["z500"], "<b>")
    html = render(context)
    assert "<script>evil" not in html
    assert "&lt;script&gt;evil" in html


def test_same_input_same_bytes(run, tmp_path):
    first, second = (
        write_report(
            run[0] / "scores.nc", tmp_path / f"{i}.html", metrics_jsonl=run[0] / "metrics.jsonl", channels=["t850"]
        )
        for i in range(2)
    )
    assert first.read_bytes() == second.read_bytes()


# --- cases ---


@pytest.fixture
def plain_maps(monkeypatch):
    """Maps that are quick to draw: empty figures."""
    monkeypatch.setattr(
        "weatherfm.evaluation.figures.maps.map_groups.panel_figure", lambda *which: Figure(figsize=(3, 2))
    )


def test_a_section_a_case(run, tmp_path, plain_maps):
    folder, store = run
    times = [np.datetime64("2020-01-05T00"), np.datetime64("2020-01-07T00")]
    out = write_report(folder / "scores.nc", tmp_path / "r.html", folder / "f.zarr", store, None, ["z500"], cases=times)
    text = out.read_text()
    assert {"cases", "case-2020-01-05T00", "case-2020-01-07T00"} <= set(Page(text).ids)
    assert "Forecast from 2020-01-05 00 UTC" in text
    assert text.count('class="film"') == 1  # of the first case instead of the median one


def test_errors_of_a_case(run, plain_maps):
    folder, store = run
    scores = read_scores(folder / "scores.nc")
    file = ForecastFile(folder / "f.zarr")
    study = case_study(file, store, scores, ["z500"], np.datetime64("2020-01-05T00"))
    case = load_case(file, store, "z500", 72, np.datetime64("2020-01-05T00"))
    row = study.rows[1]
    error = case.forecast - case.truth
    usual = float(scores["rmse"].sel(forecast="model", period="all", region="area", channel="z500")[1])
    assert (row.lead, row.valid, row.units) == ("72 h", "2020-01-08 00 UTC", "m² s⁻²")
    assert (row.rmse, row.usual) == (number(case.rmse), number(usual))
    assert row.ratio == f"{case.rmse / usual:.2f} ×"
    assert row.largest == number(float(error.flat[np.abs(error).argmax()]))


def test_cases_refused(run, tmp_path):
    folder, store = run
    wrong = [np.datetime64("2020-01-05T06")]
    with pytest.raises(InputError, match=r"nearest .* are 2020-01-04T00, 2020-01-05T00, 2020-01-06T00"):
        write_report(folder / "scores.nc", tmp_path / "r.html", folder / "f.zarr", store, cases=wrong)
    with pytest.raises(InputError, match=r"case 2020-01-05T06 needs maps; give the forecast and the store"):
        write_report(folder / "scores.nc", tmp_path / "r.html", cases=wrong)
    assert not list(tmp_path.iterdir())


# --- several models ---


def test_differences_are_said_loudly():
    scores = full_scores()
    assert "NOT COMPARABLE" not in render(page_context(scores, ["z500"], "x"))
    scores.attrs["differences"] = json.dumps(["a / b: grid (32 x 64 / 16 x 32)"])
    html = render(page_context(scores, ["z500"], "x"))
    assert "NOT COMPARABLE AS THEY STAND" in html
    assert "a / b: grid (32 x 64 / 16 x 32)" in html


def test_merged_scores_find_their_forecast(run, plain_maps):
    folder, store = run
    scores = read_scores(folder / "scores.nc")
    merged = merge_scores([scores, scores], ["run", "rival"])
    file = ForecastFile(folder / "f.zarr")
    assert scored_name(file, scores) == "model"
    assert scored_name(file, merged) == "model (run)"
    assert case_study(file, store, merged, ["z500"], file.init_times[2]).rows[0].usual != "–"


def test_definitions_of_all_that_is_scored():
    found = definitions(full_scores())
    assert {"RMSE", "Fair CRPS", "Bias", "Activity ratio", "Brier score", "SEEPS", "RMSE p-value"} <= set(found)
    assert all(found.values())


# --- refused input ---


def test_forecast_without_truth_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="the store with the truth is missing; give both"):
        write_report(run[0] / "scores.nc", tmp_path / "r.html", run[0] / "f.zarr")
    with pytest.raises(InputError, match="the forecast is missing"):
        write_report(run[0] / "scores.nc", tmp_path / "r.html", store=run[1])
    assert not list(tmp_path.iterdir())


def test_maps_without_truth_are_refused_before_a_page_is_drawn(run, tmp_path):
    with pytest.raises(InputError, match="say where it is with --store"):
        results.write_page(results.Page(run[0] / "scores.nc", maps=True, output=tmp_path / "r.html"))
    assert not list(tmp_path.iterdir())


def test_another_forecast_is_refused(run, tmp_path):
    folder, store = run
    config = ForecastConfig(lead_times=["24h", "72h"])
    for name, inits, provenance in (
        ("weights", store.times[2:12], {"weights_sha256": "other"}),
        ("times", store.times[3:12], {"weights_sha256": "abc"}),
    ):
        path = make_forecast(TestModel(store.domain(), identity), store, inits, config, tmp_path / name, provenance)
        with pytest.raises(InputError, match="is not the forecast these scores are of"):
            write_report(folder / "scores.nc", tmp_path / "r.html", path, store)
    named = make_forecast(
        TestModel(store.domain(), identity), store, inits, config, tmp_path / "named", {"name": "rival"}
    )
    with pytest.raises(InputError, match=r"is not the forecast these scores are of \(model\); name that one"):
        write_report(folder / "scores.nc", tmp_path / "r.html", named, store)


def test_a_forecast_scored_under_another_name_is_found_by_what_it_is(run, tmp_path):
    """`evaluate NAME=PATH`: by its place, and, when it has moved, by its record."""
    folder, store = run
    scores = evaluate(f"rival={folder / 'f.zarr'}", store)
    assert scored_name(ForecastFile(folder / "f.zarr"), scores) == "rival"
    moved = shutil.copytree(folder / "f.zarr", tmp_path / "moved.zarr")
    assert scored_name(ForecastFile(moved), scores) == "rival"


def test_other_refusals(run, tmp_path):
    with pytest.raises(InputError, match=r"no scores .*nothing\.nc"):
        write_report(tmp_path / "nothing.nc", tmp_path / "r.html")
    with pytest.raises(InputError, match="headline names q700"):
        write_report(run[0] / "scores.nc", tmp_path / "r.html", channels=["q700"])
    with pytest.raises(InputError, match="no training log"):
        write_report(run[0] / "scores.nc", tmp_path / "r.html", metrics_jsonl=tmp_path / "m.jsonl")
    baselines = simple_scores(models=())
    write_scores(baselines, tmp_path / "b.nc")
    with pytest.raises(InputError, match="hold baselines only"):
        write_report(tmp_path / "b.nc", tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_failure_leaves_the_old_page(run, tmp_path, monkeypatch):
    out = tmp_path / "r.html"
    out.write_text("old")

    def fail(context):
        raise RuntimeError("broken")

    monkeypatch.setattr(report_module, "render", fail)
    with pytest.raises(RuntimeError, match="broken"):
        write_report(run[0] / "scores.nc", out, channels=["z500"])
    assert out.read_text() == "old"


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")

    def fail(source, target):
        raise OSError("disk")

    monkeypatch.setattr("weatherfm.atomic.os.replace", fail)
    with pytest.raises(OSError, match="disk"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --- training and provenance ---


def test_data_uri():
    assert data_uri(b"ab", "png") == "data:image/png;base64,YWI="


def test_training_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 20, "loss": 0.5, "learning_rate": 0.001}\n{"step": 10, "loss": 0.9}\n'
        '{"step": 20, "validation": {"loss": 0.6}}\n{"step": 20, "loss": 0.4}\n{"step": 30, "lo'
    )
    curve = read_training_curve(path)
    assert curve.steps.tolist() == [10, 20]
    assert curve.loss.tolist() == [0.9, 0.4]
    assert (curve.validation_steps.tolist(), curve.validation_loss.tolist()) == ([20], [0.6])
    assert "validation" in svg_bytes(loss_figure(curve)).decode()


def test_training_log_with_bad_lines(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    bad = [b"nonsense", b"\xff\xfe", b'{"loss": 0.5}', b'{"step": "2", "loss": 1}', b'{"step": 2, "loss": null}']
    bad += [b'{"step": 2, "validation": 7}', b"[" * 100_000]
    path.write_bytes(b"\n".join([b'{"step": 1, "loss": 0.5}', *bad, b'{"step": 3, "loss": 0.4}', b'{"st']))
    assert read_training_curve(path).steps.tolist() == [1, 3]
    assert "7 lines (2, 3, 4, 5, 6 and 2 more) of" in caplog.text


def test_training_log_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"loss": 0.5}\n')
    with pytest.raises(InputError, match=r"no line of .* is a record of training"):
        read_training_curve(path)


def test_empty_training_log_has_no_section(run, tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    out = write_report(
        run[0] / "scores.nc", tmp_path / "r.html", metrics_jsonl=tmp_path / "metrics.jsonl", channels=["z500"]
    )
    assert "training" not in Page(out.read_text()).ids


def test_running_median_ignores_spikes():
    values = np.ones(100)
    values[50] = 1e6
    assert running_median(values).max() == 1
    assert running_median(np.arange(2.0)).shape == (2,)


def test_provenance_rows():
    rows = dict(provenance_rows(simple_scores()))
    assert rows["Climatology"] == "2000-01-01 to 2007-12-31, by day of year, 61 days around it"
    assert rows["Initial times"] == "3 from 2009-01-01 12 UTC to 2009-01-03 12 UTC"
    assert rows["Forecast model: weights, sha256"] == "abc123"
    assert rows["Truth"] == "kind files; files f0.nc, f1.nc, f2.nc, f3.nc, f4.nc, f5.nc, … (9 in all)"
    assert rows["weatherfm"] == "1.2.3"
    assert all(rows.values())


def test_provenance_is_on_the_page(page, run):
    scores = xr.open_dataset(run[0] / "scores.nc")
    assert len(scores["channel"]) == len(CHANNELS)
    for expected in ("abc", "11 x 7 limited area", "2010-01-01 to 2019-12-31", "direct"):
        assert re.search(re.escape(expected), page)
