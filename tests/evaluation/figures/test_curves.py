from __future__ import annotations

import numpy as np
import pytest
from synthetic_scores import full_scores, simple_scores

from weatherfm.evaluation.figures.curves import (
    acc_figure,
    activity_figure,
    bias_figure,
    brier_figure,
    crps_figure,
    published_letters,
    rmse_figure,
    seeps_figure,
    wind_figure,
)
from weatherfm.evaluation.figures.ensemble_curves import (
    member_activity_figure,
    member_error_figure,
    rank_histogram_figure,
    spread_skill_figure,
)
from weatherfm.evaluation.figures.line_looks import line_look
from weatherfm.evaluation.figures.pictures import svg_bytes
from weatherfm.evaluation.figures.profiles import profile_figure, variables_on_levels
from weatherfm.evaluation.figures.skill_curves import crps_skill_figure, hardest_baseline, rmse_skill_figure
from weatherfm.evaluation.figures.spectra_curves import energy_ratio_figure
from weatherfm.evaluation.report.scale_sentences import scale_sentences


def test_curves_name_units_and_forecasts():
    text = svg_bytes(rmse_figure(simple_scores(), "z500")).decode()
    for expected in ("RMSE [m² s⁻²]", "Lead time [h]", "model", "persistence", "climatology"):
        assert expected in text
    text = svg_bytes(acc_figure(simple_scores(), "z500")).decode()
    assert "persistence" in text
    assert "climatology" not in text  # it has no anomaly
    assert "Lead time [days]" in svg_bytes(rmse_figure(simple_scores(leads=(24, 240)), "z500")).decode()


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda s: crps_figure(s, "t2m"), ("Fair CRPS [K]", "probabilistic climatology")),
        (lambda s: crps_skill_figure(s, "t2m", "probabilistic_climatology"), ("Fair CRPS skill [%]", "0: as good as")),
        (lambda s: member_error_figure(s, "t2m"), ("RMSE [K]", "ens: mean", "ens: a member")),
        (lambda s: member_activity_figure(s, "t2m"), ("forecast ÷ truth [1]", "ens: mean", "ens: a member")),
        (lambda s: activity_figure(s, "t2m"), ("Activity, forecast ÷ truth [1]", "damped persistence")),
        (lambda s: bias_figure(s, "t2m"), ("Bias [K]", "vit")),
        (lambda s: wind_figure(s, "wind850"), ("Vector RMSE [m s⁻¹]", "wind vector at 850 hPa")),
        (lambda s: brier_figure(s, "t2m > 303.15"), ("Brier score [1]", "303.15 K")),
        (lambda s: seeps_figure(s), ("SEEPS [1]", "precipitation")),
        (lambda s: spread_skill_figure(s, "t2m"), ("RMSE and spread [K]", "ens: spread")),
        (lambda s: rank_histogram_figure(s, "t2m"), ("Rank of the truth", "ens, 8 members")),
        (lambda s: rmse_figure(s, "z500"), ("RMSE [m² s⁻²]", "published elsewhere")),
    ],
)
def test_every_figure_names_units_and_forecasts(draw, expected):
    text = svg_bytes(draw(full_scores())).decode()
    for part in expected:
        assert part in text


def test_ensemble_baseline_is_no_line_of_single_scores():
    labels = [line.get_label() for line in rmse_figure(full_scores(), "t2m").axes[0].get_lines()]
    assert labels == ["vit", "ens", "persistence", "climatology", "damped persistence"]


def test_crps_is_fair_of_ensembles_and_the_mean_error_of_others():
    scores = full_scores()
    lines = {line.get_label(): line.get_ydata() for line in crps_figure(scores, "t2m").axes[0].get_lines()}
    here = scores.sel(period="all", region="global", channel="t2m")
    np.testing.assert_array_equal(lines["ens"], here["crps_fair"].sel(forecast="ens"))
    np.testing.assert_array_equal(lines["vit"], here["mae"].sel(forecast="vit"))


def labels_of(figure) -> list[str]:
    return [line.get_label() for line in figure.axes[0].get_lines() if not line.get_label().startswith("_")]


def test_crps_skill_is_of_ensembles_and_distributions_alone():
    scores = full_scores({"vit": 1, "ens": 8}, ridge=True, means=True)
    assert labels_of(crps_skill_figure(scores, "t2m", "probabilistic_climatology")) == ["ens", "ridge regression"]
    figure = crps_skill_figure(scores, "t2m", "ridge_regression")
    assert labels_of(figure) == ["ens"]
    here = scores["crps_fair"].sel(period="all", region="global", channel="t2m")
    expected = 100 * (1 - here.sel(forecast="ens") / here.sel(forecast="ridge_regression"))
    np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), expected)


def test_small_skill_keeps_its_proportions():
    scores = full_scores({"ens": 8}, ridge=True)
    scores["crps_fair"].loc[{"forecast": "ens"}] = 0.99 * scores["crps_fair"].sel(forecast="ridge_regression")
    for end in ("low", "high"):
        scores[f"crps_fair_skill_{end}"] *= 0.05
    assert crps_skill_figure(scores, "t2m", "ridge_regression").axes[0].get_ylim() == (-5, 5)


def test_the_mean_of_an_ensemble_is_drawn_where_it_differs():
    scores = full_scores({"vit": 1, "ens": 8}, ridge=True, means=True)
    assert "ens mean" not in labels_of(rmse_figure(scores, "t2m"))
    assert "ens mean" in labels_of(crps_figure(scores, "t2m"))
    assert "ens mean" in labels_of(energy_ratio_figure(scores, "t2m", 24))
    looks = [line_look(name, scores) for name in ("ens", "ens_mean")]
    assert looks[0]["color"] == looks[1]["color"]
    assert looks[0]["linestyle"] == "-"
    assert [sentence.split(",")[0] for sentence in scale_sentences(scores, "z500")] == ["vit", "ens", "ens mean"]


def test_long_legends_stand_below_the_axes():
    few, many = (crps_figure(full_scores(models), "t2m") for models in ({"ens": 8}, dict.fromkeys("abcde", 4)))
    assert few.axes[0].get_legend() is not None
    assert many.axes[0].get_legend() is None
    assert len(many.legends[0].get_texts()) == 9
    assert many.get_figheight() > few.get_figheight()


def test_published_scores_stand_apart():
    """Hollow, grey, without a line, and with a letter that the page explains."""
    scores = full_scores()
    figure = rmse_figure(scores, "z500")
    (marks,) = [line for line in figure.axes[0].get_lines() if line.get_label() == "published elsewhere"]
    assert (marks.get_linestyle(), marks.get_markerfacecolor()) == ("None", "none")
    assert {text.get_text() for text in figure.axes[0].texts} >= {"a", "c"}
    assert published_letters(scores)["operational IFS"] == "a"
    tropics = rmse_figure(scores, "z500", "tropics")
    assert "published elsewhere" not in [line.get_label() for line in tropics.axes[0].get_lines()]


def test_rmse_axis_starts_at_zero():
    assert rmse_figure(simple_scores(), "z500").axes[0].get_ylim()[0] == 0


# --- skill with intervals ---


def shades_of(figure) -> list[np.ndarray]:
    """[n, 2] corners of every shaded area."""
    return [area.get_paths()[0].vertices for area in figure.axes[0].collections]


def test_intervals_are_shaded():
    scores = full_scores({"a": 1, "b": 1}, leads=(24, 72, 120))
    reference = hardest_baseline(scores, "t2m")
    rng = np.random.default_rng(1)
    low = rng.uniform(0.05, 0.1, 3)
    scores["rmse_skill_low"].loc[{"forecast": "a", "reference": reference, "region": "global", "channel": "t2m"}] = low
    scores["rmse_skill_high"].loc[{"forecast": "a", "reference": reference, "region": "global", "channel": "t2m"}] = 0.9
    figure = rmse_skill_figure(scores, "t2m")
    assert labels_of(figure) == ["a", "b"]
    rmse = scores["rmse"].sel(period="all", region="global", channel="t2m")
    expected = 100 * (1 - rmse.sel(forecast="a") / rmse.sel(forecast=reference))
    np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), expected)
    areas = shades_of(figure)
    assert len(areas) == 2
    assert areas[0][:, 1].max() == 90
    for lead, end in zip((24, 72, 120), low, strict=True):
        assert 100 * end == pytest.approx(areas[0][areas[0][:, 0] == lead, 1].min())
    assert figure.axes[0].get_ylim()[1] >= 90


def test_no_shading_without_intervals():
    assert shades_of(rmse_skill_figure(simple_scores(), "z500")) == []
    assert len(shades_of(crps_skill_figure(full_scores({"ens": 8}), "t2m", "probabilistic_climatology"))) == 1


def test_the_hardest_baseline_has_the_least_error():
    scores = simple_scores(persistence=np.array([[[80.0, 80.0], [110.0, 150.0]]] * 2))
    assert hardest_baseline(scores, "z500") == "persistence"  # sqrt(80 110) = 93.8
    assert hardest_baseline(scores, "t850") == "climatology"  # sqrt(80 150) = 109.5


# --- many models ---


def test_a_dozen_models_have_a_look_each():
    names = [f"m{i}" for i in range(12)]
    scores = full_scores(dict.fromkeys(names, 1), leads=(24, 72), channels=("t2m",))
    looks = [line_look(name, scores) for name in names]
    assert len({(look["color"], look["linestyle"]) for look in looks}) == 12
    assert len({(look["color"], look["marker"]) for look in looks}) == 12
    figure = rmse_figure(scores, "t2m")
    assert len(figure.legends[0].get_texts()) == 15


# --- by height ---


def test_profile_by_lead_time_and_pressure():
    channels = ("z850", "z500", "z50", "t850", "t500", "msl")
    b = np.arange(50, 62).reshape(1, 2, 6).astype(float)
    scores = simple_scores(channels, (24, 72), ("global",), ("a", "b"), b=b)
    assert variables_on_levels(scores) == [["z50", "z500", "z850"]]
    figure = profile_figure(scores, ["z50", "z500", "z850"], "b", "a", 20)
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # pressure falls upwards
    mesh = axes.collections[0]
    np.testing.assert_allclose(
        np.asarray(mesh.get_array()).reshape(3, 2), 100 * (1 - b[0, :, [2, 1, 0]].reshape(3, 2) / 60)
    )
    assert mesh.get_clim() == (-20, 20)
    edges = mesh.get_coordinates()[:, 0, 1]
    np.testing.assert_allclose(edges[1:3], [np.sqrt(50 * 500), np.sqrt(500 * 850)])
    text = svg_bytes(figure).decode()
    for part in ("Pressure [hPa]", "RMSE skill against a [%]", "Geopotential: b", "Lead time [h]", "850"):
        assert part in text


def test_labels_of_pressure_do_not_stand_on_each_other():
    channels = ["z100", "z500", "z850", "z925", "z1000"]
    axes = profile_figure(simple_scores(channels), channels, "model", "persistence", 40).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["100", "500", "850", "", "1000"]
