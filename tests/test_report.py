from __future__ import annotations

import json
import re
import socket
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from small_store import CHANNELS, EUROPE, SmallStore, TestModel, drift, identity

from weatherfm.atomic import write_atomically
from weatherfm.errors import InputError
from weatherfm.evaluation import report as report_module
from weatherfm.evaluation.config import ForecastConfig
from weatherfm.evaluation.curves import acc_figure, rmse_figure
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast import make_forecast
from weatherfm.evaluation.key_figures import headline, key_leads, key_rows, main_region, number, percent, skill
from weatherfm.evaluation.pictures import data_uri, svg_bytes
from weatherfm.evaluation.provenance_table import provenance_rows
from weatherfm.evaluation.report import page_context, render, write_report
from weatherfm.evaluation.scorecard import LIMIT, blocks_of, colour_of, legend, score_card, shown_leads
from weatherfm.evaluation.scores import build_scores, write_scores
from weatherfm.evaluation.training_curve import loss_figure, read_training_curve, running_median
from weatherfm.grid import regular_grid

MANY = (*(f"{v}{level}" for v in "ztuvq" for level in (50, 100, 250, 500, 700, 850, 1000)), "t2m", "msl")


def synthetic(channels=("z500", "t850"), leads=(24, 72), regions=("global", "tropics"), models=("model",), **rmse):
    """Scores with RMSE 60, 80 and 100 of model, persistence and climatology unless given by name."""
    names = (*models, "persistence", "climatology")
    shape = (len(regions), len(leads), len(channels))
    default = {"persistence": 80.0, "climatology": 100.0}
    metrics = {}
    for name in names:
        value = np.broadcast_to(rmse.get(name, default.get(name, 60.0)), shape).astype(float)
        acc = np.full(shape, np.nan if name == "climatology" else 0.7)
        metrics[name] = {"rmse": value, "mse": value**2, "mae": 0.8 * value, "bias": -0.1 * value, "acc": acc}
    inits = np.datetime64("2009-01-01T12", "s") + np.arange(3) * np.timedelta64(24, "h")
    record = {
        "simulated": False,
        "grid": "8 x 16 global",
        "truth": {"kind": "files", "files": [f"f{i}.nc" for i in range(9)]},
        "climatology_period": "2000-01-01/2007-12-31",
        "climatology_window_days": 61,
        "forecasts": {name: {"mode": "direct", "weights_sha256": "abc123"} for name in models},
        "code_version": "1.2.3",
    }
    return build_scores(metrics, regions, leads, channels, regular_grid((8, 16)), inits, record)


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
        if tag not in ("meta", "img", "br", "link"):
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
    assert parsed.ids == ["figures", "card", "curves", "maps", "training", "provenance", "method"]
    # two curves, (one channel x two leads + best + worst) x three panels, two of training
    assert len(parsed.images) == 2 + 4 * 3 + 2
    assert all(len(image["alt"]) > 10 for image in parsed.images)
    assert "Best and worst case" in page


def test_simulated_is_said_loudly(page):
    assert "<b>SIMULATED.</b>" in page
    assert "<title>Forecast report (simulated)</title>" in page
    assert "SIMULATED" not in render(empty_pictures(page_context(synthetic(), ["z500"], "Real")))


def empty_pictures(context):
    return context | {"curves": {}, "training": [], "maps": [], "extremes": []}


def test_report_without_the_optional_things(run, tmp_path):
    out = write_report(run[0] / "scores.nc", tmp_path / "deep" / "report.html", channels=["z500"])
    parsed = Page(out.read_text(encoding="utf-8"))
    assert parsed.ids == ["figures", "card", "curves", "provenance", "method"]
    assert list(out.parent.iterdir()) == [out]


def test_one_channel_one_lead(tmp_path):
    write_scores(synthetic(["t2m"], [6], ["area"]), tmp_path / "s.nc")
    text = write_report(tmp_path / "s.nc", tmp_path / "r.html").read_text()
    assert (
        "At 6 h the model’s t2m RMSE is 60.0 K: 25 % below persistence (80.0) and 40 % below climatology (100)" in text
    )
    assert "1 channel, lead time 6 h, 3 forecasts from 2009-01-01 12 UTC to 2009-01-03 12 UTC" in text
    assert len(Page(text).images) == 2


def test_many_channels_and_leads(tmp_path):
    scores = synthetic(MANY, range(6, 246, 6), ("global", "northern_extratropics", "tropics"))
    write_scores(scores, tmp_path / "s.nc")
    text = write_report(tmp_path / "s.nc", tmp_path / "r.html", channels=["q500"]).read_text()
    Page(text)
    assert text.count("<caption>Specific humidity (q)</caption>") == 2 * 3  # baselines, regions
    assert "not every lead time is shown" in text


def test_names_are_escaped():
    context = page_context(synthetic(models=("<script>",)), ["z500"], "<b>")
    html = render(empty_pictures(context))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_same_input_same_bytes(run, tmp_path):
    first, second = (
        write_report(
            run[0] / "scores.nc", tmp_path / f"{i}.html", metrics_jsonl=run[0] / "metrics.jsonl", channels=["t850"]
        )
        for i in range(2)
    )
    assert first.read_bytes() == second.read_bytes()


# --- refused input ---


def test_forecast_without_truth_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="the store with the truth is missing; give both"):
        write_report(run[0] / "scores.nc", tmp_path / "r.html", run[0] / "f.zarr")
    with pytest.raises(InputError, match="the forecast is missing"):
        write_report(run[0] / "scores.nc", tmp_path / "r.html", store=run[1])
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
    with pytest.raises(InputError, match=r"called 'rival', but scored were model"):
        write_report(folder / "scores.nc", tmp_path / "r.html", named, store)


def test_other_refusals(run, tmp_path):
    with pytest.raises(InputError, match=r"no scores .*nothing\.nc"):
        write_report(tmp_path / "nothing.nc", tmp_path / "r.html")
    with pytest.raises(InputError, match="headline names q700"):
        write_report(run[0] / "scores.nc", tmp_path / "r.html", channels=["q700"])
    with pytest.raises(InputError, match="no training log"):
        write_report(run[0] / "scores.nc", tmp_path / "r.html", metrics_jsonl=tmp_path / "m.jsonl")
    baselines = synthetic(models=())
    write_scores(baselines, tmp_path / "b.nc")
    with pytest.raises(InputError, match="holds baselines only"):
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


# --- key figures ---


def test_skill_is_the_share_of_rmse_saved():
    values = skill(synthetic(), "model", "persistence")
    assert values.dims == ("region", "lead_time", "channel")
    np.testing.assert_allclose(values, 25)
    assert np.isnan(skill(synthetic(persistence=0.0), "model", "persistence")).all()


def test_headline_in_plain_words():
    assert headline(synthetic(), "z500") == [
        "At 24 h the model’s z500 RMSE is 60.0 m² s⁻²: 25 % below persistence (80.0) and 40 % below climatology (100).",
        "In RMSE it beats persistence and climatology on all 2 channels at 24 h.",
    ]
    worse = headline(synthetic(model=[[[79.9, 120.0]]], models=("model",)), "z500")
    assert "level with persistence" in worse[0]
    assert "on 1 of 2 channels" in worse[1]
    assert "20 % above climatology" in headline(synthetic(models=("vit",), vit=120.0), "z500")[0]
    assert headline(synthetic(regions=("tropics",)), "z500")[0].startswith(
        "At 24 h the model’s z500 RMSE in the tropics"
    )


def test_key_rows():
    rows = key_rows(synthetic(models=("a", "b"), b=90.0), ["z500"])
    assert [(row.lead, row.forecast) for row in rows] == [("24 h", "a"), ("24 h", "b"), ("72 h", "a"), ("72 h", "b")]
    assert rows[0].baselines == (("80.0", "25 %"), ("100", "40 %"))
    assert rows[1].baselines[0] == ("80.0", "−12 %")
    assert (rows[0].acc, rows[0].mae, rows[0].bias, rows[0].units) == ("0.700", "48.0", "−6.00", "m² s⁻²")


def test_key_leads_and_region():
    assert key_leads(synthetic(leads=(6, 12, 24, 48, 72, 96, 120, 240))) == [24, 72, 120, 240]
    assert key_leads(synthetic(leads=(6, 12, 18))) == [6, 12, 18]
    assert key_leads(synthetic(leads=range(1, 21))) == [1, 6, 11, 16]
    assert main_region(synthetic(regions=("tropics", "global"))) == "global"


def test_headline_lead_is_a_day_where_scored():
    assert headline(synthetic(leads=(6, 24)), "z500")[0].startswith("At 24 h")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1103.4, "1103"), (435.2, "435"), (1.7149, "1.71"), (-0.25, "−0.250"), (8.14e-5, "8.1 × 10⁻⁵"),
        (0.0, "0"), (float("nan"), "–"), (99999.0, "99999"), (9.97e-4, "1.0 × 10⁻³"),
    ],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_percent():
    assert [percent(v) for v in (34.4, -12.0, -0.2, float("nan"))] == ["34 %", "−12 %", "0 %", "–"]


# --- score card ---


def test_blocks():
    assert blocks_of(["t2m", "z850", "z500", "t850"]) == [
        ("Single fields", ["t2m", "t850"]),
        ("Geopotential (z)", ["z500", "z850"]),
    ]
    assert blocks_of(["z500", "t850"]) == [("Channels", ["z500", "t850"])]


def test_card_cells():
    rmse = np.array([[[40.0, 160.0], [80.0, 60.0]]])  # [region, lead, channel]
    card = score_card(synthetic(model=rmse), "model", "persistence", "global")
    (block,) = card.blocks
    assert block.columns == ("24 h", "72 h")
    assert [(label, [cell.text for cell in cells]) for label, cells in block.rows] == [
        ("z500", ["50", "0"]),
        ("t850", ["−100", "25"]),
    ]
    assert block.rows[1][1][0].title == "t850 at 24 h: RMSE 100.0 % above persistence"
    undefined = score_card(synthetic(persistence=0.0), "model", "persistence", "global").blocks[0].rows[0][1][0]
    assert (undefined.text, undefined.title) == ("–", "z500 at 24 h: RMSE undefined, persistence has no error")


def test_card_has_at_most_ten_columns():
    assert shown_leads([6, 12, 24]) == [6, 12, 24]
    assert shown_leads(list(range(6, 246, 6))) == list(range(24, 264, 24))[:10]
    assert len(shown_leads(list(range(24, 24 * 47, 24)))) <= 10
    assert len(shown_leads(list(range(1, 24)))) <= 10
    days = score_card(synthetic(leads=range(24, 264, 24)), "model", "persistence", "global")
    assert days.blocks[0].columns[-1] == "10 d"


def test_colours_diverge_and_text_can_be_read():
    def luminance(text):
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    assert luminance(colour_of(0)[0]) > 0.85
    assert colour_of(LIMIT)[0] == colour_of(5 * LIMIT)[0] != colour_of(-LIMIT)[0]
    for value in np.linspace(-100, 100, 81):
        light, dark = sorted(map(luminance, colour_of(value)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4, value
    assert len(legend()) == 7


# --- curves, training and provenance ---


def test_curves_name_units_and_forecasts():
    text = svg_bytes(rmse_figure(synthetic(), "z500")).decode()
    for expected in ("RMSE [m² s⁻²]", "Lead time [h]", "model", "persistence", "climatology"):
        assert expected in text
    text = svg_bytes(acc_figure(synthetic(), "z500")).decode()
    assert "persistence" in text
    assert "climatology" not in text  # it has no anomaly
    assert "Lead time [days]" in svg_bytes(rmse_figure(synthetic(leads=(24, 240)), "z500")).decode()


def test_rmse_axis_starts_at_zero():
    assert rmse_figure(synthetic(), "z500").axes[0].get_ylim()[0] == 0


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


def test_training_log_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\nnonsense\n{"step": 2, "loss": 0.4}\n')
    with pytest.raises(InputError, match=r"line 2 of .* is no record of training"):
        read_training_curve(path)
    path.write_text('{"loss": 0.5}\n')
    with pytest.raises(InputError, match="it has no step"):
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
    rows = dict(provenance_rows(synthetic()))
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
