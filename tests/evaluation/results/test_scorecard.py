from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic_scores import full_scores, simple_scores

from weatherfm.evaluation.report.group_table import (
    all_in_one_period,
    limit_of_tables,
    period_table,
    region_table,
)
from weatherfm.evaluation.results.case_counts import cases_of, distinct_periods
from weatherfm.evaluation.results.comparison import merge_scores
from weatherfm.evaluation.results.key_figures import headline, key_leads, key_rows, skill, too_few_to_say
from weatherfm.evaluation.results.lookup import activity_ratios, main_region, means_of, probabilistic_baselines_of
from weatherfm.evaluation.results.score_card import (
    blocks_of,
    make_cell,
    mark_legend,
    references_of,
    score_card,
    shown_leads,
    skill_limits,
)
from weatherfm.evaluation.results.skill_colours import (
    LIMITS,
    colour_of,
    legend,
    limit_for,
    shade_of,
    shade_styles,
)
from weatherfm.evaluation.results.text_table import score_table
from weatherfm.evaluation.results.words import fixed, listed, number, percent, region_in_words

MANY = (*(f"{v}{level}" for v in "ztuvq" for level in (50, 100, 250, 500, 700, 850, 1000)), "t2m", "msl")


# --- key figures ---


def test_skill_is_the_share_of_rmse_saved():
    values = skill(simple_scores(), "model", "persistence")
    assert values.dims == ("region", "lead_time", "channel")
    np.testing.assert_allclose(values, 25)
    assert np.isnan(skill(simple_scores(persistence=0.0), "model", "persistence")).all()


def test_headline_in_plain_words():
    assert headline(simple_scores(), "z500") == [
        "At 24 h the model’s z500 RMSE is 60.0 m² s⁻²: 25 % below persistence (80.0) and 40 % below climatology (100).",
        "In RMSE it beats persistence and climatology on all 2 channels at 24 h.",
    ]
    worse = headline(simple_scores(model=[[[79.9, 120.0]]], models=("model",)), "z500")
    assert "level with persistence" in worse[0]
    assert "on 1 of 2 channels" in worse[1]
    assert "20 % above climatology" in headline(simple_scores(models=("vit",), vit=120.0), "z500")[0]
    assert headline(simple_scores(regions=("tropics",)), "z500")[0].startswith(
        "At 24 h the model’s z500 RMSE in the tropics"
    )


def test_key_rows():
    rows = key_rows(simple_scores(models=("a", "b"), b=90.0), ["z500"])
    assert [(row.lead, row.forecast) for row in rows] == [("24 h", "a"), ("24 h", "b"), ("72 h", "a"), ("72 h", "b")]
    assert rows[0].baselines == (("80.0", "25 %"), ("100", "40 %"))
    assert rows[1].baselines[0] == ("80.0", "−12 %")
    assert (rows[0].acc, rows[0].mae, rows[0].bias, rows[0].units) == ("0.700", "48.0", "−6.00", "m² s⁻²")


def test_key_rows_of_an_ensemble_and_its_baselines():
    scores = full_scores()
    single, ensemble = [row for row in key_rows(scores, ["t2m"]) if row.lead == "24 h"]
    assert (single.crps, single.spread) == ("–", "–")
    assert ensemble.spread == "0.850"
    assert len(single.baselines) == 3  # probabilistic climatology has no RMSE of its own
    assert "persistence, climatology and damped persistence" in headline(scores, "z500")[1]
    assert headline(scores, "z500")[1].endswith("significantly.")


def test_too_few_cases_are_said_to_be_too_few():
    scores = full_scores().isel(init_time=slice(0, 12))
    assert too_few_to_say(scores) == ""  # it holds a test, of another version
    scores["rmse_p_value"] = np.nan * scores["rmse_p_value"]
    assert too_few_to_say(scores) == "12 cases are too few to say whether that is chance (16 would do)"
    assert headline(scores, "z500")[1].endswith(
        "at 24 h; 12 cases are too few to say whether that is chance (16 would do)."
    )
    assert too_few_to_say(simple_scores()) == ""  # not tested at all


def test_lists_in_words():
    assert [listed(["a", "b", "c"][:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


def test_key_leads_and_region():
    assert key_leads(simple_scores(leads=(6, 12, 24, 48, 72, 96, 120, 240))) == [24, 72, 120, 240]
    assert key_leads(simple_scores(leads=(6, 12, 18))) == [6, 12, 18]
    assert key_leads(simple_scores(leads=range(1, 21))) == [1, 6, 11, 16]
    assert main_region(simple_scores(regions=("tropics", "global"))) == "global"


def test_headline_lead_is_a_day_where_scored():
    assert headline(simple_scores(leads=(6, 24)), "z500")[0].startswith("At 24 h")


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
    assert [percent(v) for v in (34.4, -12.0, -0.2, -0.0, float("nan"))] == ["34 %", "−12 %", "0 %", "0 %", "–"]
    assert [percent(v, 1) for v in (2.74, -0.04, -0.06)] == ["2.7 %", "0.0 %", "−0.1 %"]


def test_no_formatter_puts_a_sign_before_a_zero():
    assert [fixed(v, 3) for v in (0.7, -0.25, -0.0004, -0.0, float("nan"))] == [
        "0.700",
        "−0.250",
        "0.000",
        "0.000",
        "–",
    ]
    assert [fixed(v, 3, plus=True) for v in (0.25, 0.0004, -0.0004, -0.25)] == ["+0.250", "0.000", "0.000", "−0.250"]
    scores = simple_scores()
    scores["acc"][:] = -0.0004
    scores["bias"][:] = -0.0
    row = key_rows(scores, ["z500"])[0]
    assert (row.acc, row.bias) == ("0.000", "0")
    scores["rmse"].loc[{"forecast": "model"}] = 80.16
    table = score_table(scores)
    assert " 0 %" in table
    assert "-0 %" not in table
    assert "-0.000" not in table
    cells = [cell for _, row in score_card(scores, "model", "persistence", "global").blocks[0].rows for cell in row]
    assert {cell.text for cell in cells} == {"−0.2"}


# --- score card ---


def test_blocks():
    assert blocks_of(["t2m", "z850", "z500", "t850"]) == [
        ("Single fields", ["t2m", "t850"]),
        ("Geopotential (z)", ["z500", "z850"]),
    ]
    assert blocks_of(["z500", "t850"]) == [("Channels", ["z500", "t850"])]


def test_card_cells():
    rmse = np.array([[[40.0, 160.0], [80.0, 60.0]]])  # [region, lead, channel]
    card = score_card(simple_scores(model=rmse), "model", "persistence", "global")
    (block,) = card.blocks
    assert block.columns == ("24 h", "72 h")
    assert [(label, [cell.text for cell in cells]) for label, cells in block.rows] == [
        ("z500", ["50", "0"]),
        ("t850", ["−100", "25"]),
    ]
    assert block.rows[1][1][0].title == "t850 at 24 h: RMSE 100.0 % above persistence"
    undefined = score_card(simple_scores(persistence=0.0), "model", "persistence", "global").blocks[0].rows[0][1][0]
    assert (undefined.text, undefined.title) == ("–", "z500 at 24 h: RMSE undefined against persistence")


def test_cells_mark_what_is_significant():
    """By a triangle and the fill; what is not is pale; without a test neither."""
    better, worse, unsure, untested = (
        make_cell(value, p_value, 10, 30, "z500 at 24 h: RMSE {} persistence", 60)
        for value, p_value in ((20, 1e-4), (-20, 0.01), (20, 0.2), (20, np.nan))
    )
    assert (better.text, better.shade) == ("▲20", shade_of(20, 60, True))
    assert better.title == (
        "z500 at 24 h: RMSE 20.0 % below persistence; skill 10 % to 30 % with 95 % confidence, p < 0.001"
    )
    assert (worse.text, worse.title[-9:]) == ("▼−20", "p = 0.0100"[-9:])
    assert (unsure.text, unsure.shade[0]) == ("20", "p")
    assert (untested.text, untested.shade, untested.title) == (
        "20", shade_of(20, 60, None), "z500 at 24 h: RMSE 20.0 % below persistence",
    )  # fmt: skip


def test_card_takes_p_values_of_its_reference_and_region():
    scores = full_scores()
    for name in ("rmse_p_value",):
        scores[name][:] = 0.5
        scores[name].loc[{"forecast": "vit", "reference": "climatology", "region": "tropics"}] = 1e-3
    cards = {
        (reference, region): score_card(scores, "vit", reference, region)
        for reference in ("persistence", "climatology")
        for region in ("global", "tropics")
    }
    marked = {
        key: any(cell.text[0] in "▲▼" for block in card.blocks for _, row in block.rows for cell in row)
        for key, card in cards.items()
    }
    assert [key for key, found in marked.items() if found] == [("climatology", "tropics")]


def test_references():
    scores = full_scores({"vit": 1, "ens": 8, "ens2": 4})
    single = ["persistence", "climatology", "damped_persistence"]
    assert references_of(scores, "vit") == [("rmse", name) for name in single]
    assert references_of(scores, "ens2") == [
        ("crps_fair", "probabilistic_climatology"),
        ("crps_fair", "ens"),
        *(("rmse", name) for name in (*single, "vit", "ens")),
    ]
    with_ridge = references_of(full_scores({"vit": 1, "ens": 8}, ridge=True, means=True), "ens")
    assert with_ridge[2:] == [("rmse", name) for name in (*single, "ridge_regression", "vit")]
    assert set(with_ridge[:2]) == {("crps_fair", "ridge_regression"), ("crps_fair", "probabilistic_climatology")}


def test_the_card_of_an_ensemble_is_of_the_fair_crps():
    scores = full_scores(leads=(6, 12, 24, 72), ridge=True)
    card = score_card(scores, "ens", "ridge_regression", "global", "crps_fair")
    assert (card.metric, card.reference) == ("Fair CRPS", "ridge regression")
    fair = scores["crps_fair"].sel(period="all", region="global", channel="t2m").isel(lead_time=2)
    share = 100 * (1 - float(fair.sel(forecast="ens") / fair.sel(forecast="ridge_regression")))
    cells = dict(next(block.rows for block in card.blocks if "t2m" in dict(block.rows)))["t2m"]
    assert cells[2].title.startswith(
        f"t2m at 24 h: Fair CRPS {abs(share):.1f} % {'below' if share > 0 else 'above'} ridge"
    )


def test_headline_and_key_figures_of_an_ensemble():
    scores = full_scores({"ens": 8}, leads=(24, 72), ridge=True, means=True)
    crps = scores["crps_fair"].sel(period="all", region="global", channel="z500").isel(lead_time=0)
    own, ridge = (float(crps.sel(forecast=name)) for name in ("ens", "ridge_regression"))
    sentence = headline(scores, "z500")[1]
    assert sentence.startswith(f"Its fair CRPS, as of an ensemble without end, is {number(own)}: ")
    assert f"below ridge regression ({number(ridge)})" in sentence
    sampled = float(crps.sel(forecast="probabilistic_climatology"))
    assert f"below probabilistic climatology ({number(sampled)})" in sentence
    row = key_rows(scores, ["z500"])[0]
    assert {row.forecast for row in key_rows(scores, ["z500"])} == {"ens"}  # the mean's errors are the ensemble's
    names = probabilistic_baselines_of(scores)
    assert row.crps == number(own)
    assert row.crps_skills[names.index("ridge_regression")] == percent(100 * (1 - own / ridge))
    assert key_rows(full_scores({"vit": 1}), ["z500"])[0].crps_skills == ("–",)


def test_terminal_table_of_an_ensemble():
    scores = full_scores({"ens": 8}, leads=(24, 72), channels=("z500", "t2m"), ridge=True, means=True)
    tables = score_table(scores).split("\n\n")
    assert len(tables) == 2
    lines = tables[0].splitlines()  # what an ensemble is judged by stands first
    assert lines[0].startswith("ens: global, 120 forecasts")
    assert lines[0].endswith("8 members")
    for word in ("fair CRPS ens", "ridge regression", "probabilistic climatology", "spread/RMSE"):
        assert word in lines[1]
    crps = scores["crps_fair"].sel(period="all", region="global", channel="t2m").isel(lead_time=1)
    skill = 100 * (1 - float(crps.sel(forecast="ens") / crps.sel(forecast="ridge_regression")))
    assert lines[6].split()[:2] == ["t2m", "72h"]
    assert f"{float(crps.sel(forecast='ens')):.3g}" in lines[6]
    assert f"{round(skill)} %" in lines[6]
    assert lines[6].endswith("0.85  K")
    assert "members" not in score_table(full_scores({"vit": 1}))


def test_the_terminal_says_what_it_leaves_out():
    assert "not shown" not in score_table(simple_scores())
    said = score_table(full_scores({"vit": 1}, channels=("z500", "t2m")), ["t2m"]).splitlines()[-1]
    assert said == "not shown: z500; the scores file and the report have them, evaluation.headline chooses"
    many = score_table(full_scores({"vit": 1}, channels=MANY), ["t2m"]).splitlines()[-1]
    assert f"{MANY[9]} and {len(MANY) - 11} more;" in many


def test_an_ensemble_is_lively_by_its_members():
    scores = full_scores({"ens": 8}, means=True)
    place = {"period": "all", "region": "global", "channel": "z500", "forecast": "ens"}
    member = float(scores["member_activity_ratio"].sel(place).sel(lead_time=np.timedelta64(24, "h")))
    assert [row.activity for row in key_rows(scores, ["z500"]) if row.lead == "24 h"] == [number(member)]
    np.testing.assert_array_equal(activity_ratios(scores).sel(place), scores["member_activity_ratio"].sel(place))
    mean = place | {"forecast": "ens_mean"}
    np.testing.assert_array_equal(activity_ratios(scores).sel(mean), scores["activity_ratio"].sel(mean))
    assert "In fair CRPS it beats probabilistic climatology" in " ".join(headline(scores, "z500"))


def test_means_of_ensembles_are_known_after_a_merge():
    files = [full_scores({"ens": 8}, means=True), full_scores({"ens": 8, "other": 4}, means=True)]
    assert means_of(files[0]) == {"ens_mean": "ens"}
    merged = merge_scores(files, ["a", "b"], force=True)
    assert means_of(merged) == {"ens_mean (a)": "ens (a)", "ens_mean (b)": "ens (b)", "other_mean": "other"}
    single = full_scores({"ens": 1})
    merged = merge_scores([single, files[0]], ["a", "b"], force=True)
    assert means_of(merged) == {"ens_mean": "ens (b)"}


def test_forced_comparison_keeps_to_the_baselines_of_the_same_cases():
    scores = full_scores({"vit": 1})
    scores["rmse_p_value"].loc[{"reference": "climatology"}] = np.nan
    assert len(references_of(scores, "vit")) == 3
    scores.attrs["differences"] = json.dumps(["a / b: grid (x / y)"])
    assert references_of(scores, "vit") == [("rmse", "persistence"), ("rmse", "damped_persistence")]


def test_every_shade_has_a_style():
    known = {shade for shade, _, _ in shade_styles()}
    values = [*np.linspace(-150, 150, 61), np.nan]
    assert {
        shade_of(value, limit, sure) for value in values for limit in LIMITS for sure in (None, True, False)
    } <= known


# --- regions and periods ---


def test_region_table_holds_against_the_hardest_baseline():
    scores = simple_scores(regions=("global", "tropics"), persistence=np.array([[[80.0], [80.0]], [[120.0], [120.0]]]))
    table = region_table(scores, "model", ["z500"], 60)
    assert table.columns == ("z500 24\u00a0h", "z500 72\u00a0h")
    assert [label for label, _ in table.rows] == ["global", "tropics"]
    first = [cells[0] for _, cells in table.rows]
    assert [cell.text for cell in first] == ["25", "40"]
    assert first[0].title == "z500 at 24 h in global, 3 cases: RMSE 60.0 m² s⁻², 25.0 % below persistence"
    assert first[1].title == "z500 at 24 h in tropics, 3 cases: RMSE 60.0 m² s⁻², 40.0 % below climatology"


def test_period_table_has_the_number_of_cases():
    assert period_table(simple_scores(), "model", ["z500"], 60) is None
    scores = full_scores()
    scores["rmse"].loc[{"forecast": "vit", "period": "JJA"}] = 0
    table = period_table(scores, "vit", ["t2m"], 60)
    months = [(scores["init_time"] + np.timedelta64(lead, "h")).dt.month.values for lead in (24, 240)]
    winter = [int(np.isin(one, (12, 1, 2)).sum()) for one in months]
    labels = [label for label, _ in table.rows]
    assert labels[0] == "all cases, 120 cases"
    assert labels[1] == f"DJF, {winter[0]} cases"
    assert winter[0] == winter[1]
    assert [label[:3] for label in labels[2:]] == ["MAM", "JJA", "SON"]
    assert [cells[0].text for _, cells in table.rows][3] == "100"
    assert f"t2m at 24 h, DJF, {winter[0]} cases: RMSE" in table.rows[1][1][0].title


def test_a_period_of_all_cases_is_no_row_of_its_own():
    scores = full_scores().isel(init_time=slice(21, 23))  # of March alone, ten days ahead too
    scores = scores.sel(period=["all", "MAM"])
    assert distinct_periods(scores, [24, 240]) == [("all", "MAM")]
    assert period_table(scores, "vit", ["t2m"], 60) is None
    assert all_in_one_period(scores) == "MAM"
    assert all_in_one_period(full_scores()) == ""
    assert cases_of(scores, "Mar", 24).tolist() == [True, True]
    scores.attrs["differences"] = json.dumps(["a / b: initial times (1 / 2)"])
    assert region_table(scores, "vit", ["t2m"], 60).title == "By region"  # whose cases?


def test_regions_in_words():
    words = [region_in_words(name) for name in ("area", "northern_extratropics", "north_atlantic", "europe_land")]
    assert words == ["whole area", "northern extratropics", "North Atlantic", "Europe land"]


def test_card_has_at_most_ten_columns():
    assert shown_leads([6, 12, 24]) == [6, 12, 24]
    assert shown_leads(list(range(6, 246, 6))) == list(range(24, 264, 24))[:10]
    assert len(shown_leads(list(range(24, 24 * 47, 24)))) <= 10
    assert len(shown_leads(list(range(1, 24)))) <= 10
    days = score_card(simple_scores(leads=range(24, 264, 24)), "model", "persistence", "global")
    assert days.blocks[0].columns[-1] == "10 d"


def test_colours_diverge_and_text_can_be_read():
    def luminance(text):
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    assert luminance(colour_of(0, 60)[0]) > 0.85
    for limit in LIMITS:
        assert colour_of(limit, limit)[0] == colour_of(5 * limit, limit)[0] != colour_of(-limit, limit)[0]
    for value in np.linspace(-100, 100, 81):
        light, dark = sorted(map(luminance, colour_of(value, 60)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4, value
        pale, ink = map(luminance, colour_of(value, 60, sure=False))
        assert (pale + 0.05) / (ink + 0.05) > 4, value


def test_the_scale_of_colours_suits_the_numbers():
    assert [limit_for(np.array(v)) for v in ([1.0, -1.5], [3.0], [-35.0, 12.0], [80.0], [np.nan], [-900.0])] == [
        2, 5, 40, 100, 2, 100,
    ]  # fmt: skip
    assert limit_for(np.array([3.0] * 95 + [70.0] * 5)) == 5  # a few beyond it
    assert [cell.text for cell in legend(5)] == ["≤ −5.0 %", "−2.5 %", "0.0 %", "2.5 %", "≥ 5.0 %"]
    assert [cell.text for cell in legend(100)] == ["≤ −100 %", "−50 %", "0 %", "50 %", "100 %"]


def test_two_models_three_per_cent_apart_are_told_apart():
    """Beside baselines that both beat by far more: those have a scale of their own."""
    b = 60 * np.array([[[0.97, 1.01], [1.03, 1.0]]])
    scores = simple_scores(models=("a", "b"), b=b)
    assert skill_limits(scores) == (40, 5)
    card = score_card(scores, "b", "a", "global", limit=5)
    cells = [cell for _, row in card.blocks[0].rows for cell in row]
    assert [cell.text for cell in cells] == ["3.0", "−3.0", "−1.0", "0.0"]
    steps = [int(cell.shade[1:]) - 12 for cell in cells]
    assert steps == [7, -7, -2, 0]  # of twelve on either side
    assert card.scale[0].text == "≤ −5.0 %"
    assert len(mark_legend(full_scores())) == 3


def test_tables_of_groups_have_a_scale_of_the_hardest_baselines():
    assert skill_limits(simple_scores(climatology=61.0))[0] == 40
    assert limit_of_tables(simple_scores(climatology=61.0)) == 2  # 25 % below persistence, 1.6 % below climatology
