"""Verdicts on scales, on spectra whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_scores import full_scores, simple_scores

from weatherfm.evaluation.metrics.spherical_spectra import spherical_wavelengths
from weatherfm.evaluation.report.scale_sentences import resolution_table, runs_in_words, scale_sentences
from weatherfm.evaluation.results.scales import effective_resolution, resolved, scale_runs, scales_of

WAVES = np.arange(64)
KM = spherical_wavelengths(WAVES)
TRUTH = 1e6 / (1 + WAVES / 4.0) ** 3
TRUTH[0] = 3e9


def verdicts(ratio: np.ndarray, truth: np.ndarray = TRUTH) -> list[tuple[str, int, int]]:
    """(verdict, first and last wavenumber)."""
    at = {round(float(km), 3): wave for wave, km in enumerate(KM) if wave}
    return [
        (run.verdict, at[round(run.longest, 3)], at[round(run.shortest, 3)])
        for run in scale_runs(ratio * truth, truth, KM)
    ]


def test_what_is_kept_blurred_and_noisy():
    steps = np.where(WAVES < 20, 1.0, np.where(WAVES < 40, 0.1, 30.0))
    found = verdicts(steps)
    assert [verdict for verdict, _, _ in found] == [
        "kept",
        "blurred",
        "kept",
        "noisy",
    ]  # on the way up it is right once
    assert found[0][2] in range(16, 24)  # blurred from 20 on, within a fifth
    runs = scale_runs(steps * TRUTH, TRUTH, KM)
    assert runs[-1].ratio == pytest.approx(30)
    assert runs[1].ratio == pytest.approx(0.1)
    assert effective_resolution(runs) == pytest.approx(KM[found[0][2]])


def test_one_odd_wavenumber_decides_nothing():
    """Of l = 1, in which weather has a hundredth of the power of l = 2, it was once said of all waves."""
    truth = TRUTH.copy()
    truth[1] = truth[2] / 100
    ratio = np.ones(64)
    ratio[1] = 0.1
    ratio[40] = 4.0
    assert verdicts(ratio, truth) == [("kept", 1, 63)]


def test_noise_is_not_praised():
    runs = scale_runs(np.where(WAVES > 45, 1644.0, 1.0) * TRUTH, TRUTH, KM)
    said = runs_in_words(runs)
    assert "up to 1644 times the weather’s energy: noise, no detail" in said
    assert "all scales" not in said
    assert "all scales down to 630 km have between half and twice" in runs_in_words(scale_runs(TRUTH, TRUTH, KM))
    blurred = runs_in_words(scale_runs(np.exp(-0.05 * WAVES) * TRUTH, TRUTH, KM))
    assert "as little as 0.0" in blurred
    assert "Effective resolution: 2\u202f800 km" in blurred  # exp(-0.05 l) = 1/2 at l = 13.9: 2 780 km


def test_no_effective_resolution_where_the_longest_waves_are_wrong():
    runs = scale_runs(0.1 * TRUTH, TRUTH, KM)
    assert np.isnan(effective_resolution(runs))
    assert runs_in_words(runs).endswith("It has no effective resolution.")


def test_a_spectral_truth_ends_at_its_truncation():
    """Power 12 times less from 21 to 22 and steep beyond: that of a T21 planet brought to a finer grid."""
    truth = np.where(WAVES <= 21, TRUTH, TRUTH / 12 * (22 / np.maximum(WAVES, 1)) ** 15)
    known = resolved(truth)
    assert known[:20].all()
    assert not known[24:].any()
    noisy = truth + 100 * (WAVES > 30)
    runs = scale_runs(noisy, truth, KM)
    assert runs[-1].verdict == "unknown"
    assert np.isnan(runs[-1].ratio)
    said = runs_in_words(runs, "m")
    assert "; the forecast has 5" in said  # 33 waves of 100: 57.4 m
    assert said.endswith(" m: noise.")
    assert not runs_in_words(scale_runs(truth, truth, KM), "m").endswith("noise.")


def test_weather_is_resolved_to_the_end_and_rounding_is_not():
    for slope, waves in ((0, 64), (3, 64), (5, 64), (10, 20)):
        assert resolved(1e6 / (1 + WAVES[:waves]) ** float(slope)).all()
    odd = np.where(WAVES % 2, TRUTH, 1e-13)
    odd[0] = 8e4
    assert (resolved(odd)[1:] == (WAVES % 2 == 1)[1:]).all()
    assert not resolved(np.zeros(64)).any()
    assert runs_in_words(scale_runs(TRUTH, np.zeros(64), KM)) == "the truth resolves no scale: there is no verdict."


def test_sentences_and_table_of_scores():
    scores = full_scores({"vit": 1, "ens": 8}, means=True)
    assert [sentence.split(",")[0] for sentence in scale_sentences(scores, "z500")] == ["vit", "ens", "ens mean"]
    assert all(" z500 at 24 h: " in sentence for sentence in scale_sentences(scores, "z500"))
    names, rows = resolution_table(scores, ["z500", "t2m"])
    assert names == ["vit", "ens", "ens mean"]
    assert rows[0][0] == "z500, 24 h"
    assert all("km" in cell or cell == "none" for _, cells in rows for cell in cells)
    assert scales_of(simple_scores(), "model", "z500", 24) == []
    assert scale_sentences(simple_scores(), "z500") == []
    zonal = scores.drop_vars([name for name in scores if str(name).startswith("spherical")])
    assert "(tropics)" in scale_sentences(zonal, "z500")[0]
