"""Ensemble metrics: by hand, Gaussian ensembles whose scores are known, and what must not change them."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from weatherfm.errors import InputError
from weatherfm.evaluation.metrics import ensemble
from weatherfm.evaluation.metrics.case_sums import AggregationState, mean_over_cases
from weatherfm.evaluation.metrics.ensemble import ensemble_means, ensemble_metrics

NORMAL = NormalDist()


def even(points: int) -> np.ndarray:
    return np.full((1, points), 1 / points)


def at_one_point(members, truth) -> dict[str, np.ndarray]:
    """Statistics of one case at one point, without dims of length 1."""
    x = np.asarray(members, dtype=np.float64).reshape(1, -1, 1, 1, 1)
    means = ensemble_means(x, np.full((1, 1, 1, 1), truth, dtype=np.float64), even(1))
    return {name: values.squeeze((0, 1, 2)) for name, values in means.items()}


def random_case(seed: int = 0, members: int = 5, cases: int = 6, dtype=np.float32):
    """(members [B, M, C, H, W], truth, weights) with three channels and regions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(280, 3, (cases, members, 3, 4, 7)).astype(dtype)
    y = rng.normal(281, 4, (cases, 3, 4, 7)).astype(dtype)
    weights = rng.random((3, 28)) * (rng.random((3, 28)) < 0.7)
    return x, y, weights / weights.sum(1, keepdims=True)


def gaussian_crps(mean: float, deviation: float, truth: float) -> float:
    """Gneiting et al. (2005), Monthly Weather Review 133, 1098, eq. 5."""
    z = (truth - mean) / deviation
    return deviation * (z * (2 * NORMAL.cdf(z) - 1) + 2 * NORMAL.pdf(z) - 1 / math.sqrt(math.pi))


def test_two_members_by_hand():
    # Members 1 and 4, truth 2: |X - y| = 1, 2; |X - X'| = 3; mean 2.5; variance 2 * 1.5^2 / 1.
    means = at_one_point([4, 1], 2)
    expected = {"crps_skill": 1.5, "crps_spread": 3, "ensemble_mean_squared_error": 0.25, "ensemble_variance": 4.5}
    for name, value in expected.items():
        assert means[name] == pytest.approx(value, rel=1e-14), name
    assert means["rank_counts"].tolist() == [0, 1, 0]
    metrics = ensemble_metrics(means, 2)
    assert set(metrics) == {"crps", "crps_fair", "ensemble_spread", "spread_skill_ratio"}
    assert metrics["crps"] == pytest.approx(1.5 - 12 / 16)  # the sum over all pairs, 6, over 2 M^2 = 8
    assert metrics["crps_fair"] == pytest.approx(0)
    assert metrics["ensemble_spread"] == pytest.approx(math.sqrt(4.5))
    assert metrics["spread_skill_ratio"] == pytest.approx(math.sqrt(1.5 * 4.5 / 0.25))


def test_the_score_is_the_integral_between_distributions():
    # Steps of the members' distribution at 0, 1, 1, 3; truth 2: integral of (F - 1[x >= 2])^2.
    expected = 1 * 0.25**2 + 1 * 0.75**2 + 1 * (0.75 - 1) ** 2
    means = at_one_point([3, 1, 0, 1], 2)
    assert ensemble_metrics(means, 4)["crps"] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("members", "truth", "shares"),
    [
        ([1, 2, 3], 0, [1, 0, 0, 0]),
        ([1, 2, 3], 9, [0, 0, 0, 1]),
        ([3, 1, 2], 2.5, [0, 0, 1, 0]),
        ([2, 1, 3], 2, [0, 0.5, 0.5, 0]),
        ([2, 1, 2], 2, [0, 1 / 3, 1 / 3, 1 / 3]),
        ([0, 0, 0], 0, [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_rank_of_the_truth_and_ties(members, truth, shares):
    np.testing.assert_allclose(at_one_point(members, truth)["rank_counts"], shares, atol=1e-15)


def test_more_members_than_a_byte_counts():
    means = at_one_point(np.arange(300), 299)
    assert np.flatnonzero(means["rank_counts"]).tolist() == [299, 300]
    below = at_one_point(np.arange(300), 288.5)["rank_counts"]
    assert np.flatnonzero(below).tolist() == [289]


@pytest.mark.parametrize("truth", [-1.0, 2.0, 9.0])
def test_gaussian_ensemble(truth):
    # Members at the quantiles (i + 1/2) / M of N(2, 3): their distribution nears the Gaussian's as 1 / M.
    size = 4000
    members = [NormalDist(2, 3).inv_cdf((i + 0.5) / size) for i in range(size)]
    metrics = ensemble_metrics(at_one_point(members, truth), size)
    assert metrics["crps"] == pytest.approx(gaussian_crps(2, 3, truth), rel=1e-3)
    assert metrics["ensemble_spread"] == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize("size", [2, 3, 10])
def test_fair_score_does_not_depend_on_the_ensemble_size(size):
    # Members from N(0, 1), truth 0.5: the expectation is the Gaussian's own score. The biased one is larger by the
    # mean difference 2 / sqrt(pi) over 2 M. 40000 points: within 5 standard errors, each below 1 / sqrt(40000).
    rng = np.random.default_rng(size)
    x = rng.standard_normal((1, size, 1, 200, 200))
    means = ensemble_means(x, np.full((1, 1, 200, 200), 0.5), even(40000))
    metrics = ensemble_metrics(means, size)
    exact = gaussian_crps(0, 1, 0.5)
    assert metrics["crps_fair"].item() == pytest.approx(exact, abs=5 / 200)
    assert metrics["crps"].item() - metrics["crps_fair"].item() == pytest.approx(
        1 / math.sqrt(math.pi) / size, rel=0.03
    )


def perfect(size: int, spread: float = 1.0) -> dict[str, np.ndarray]:
    """Mean statistics where truth and members vary alike about a mean of their own at 60000 points, times `spread`."""
    rng = np.random.default_rng(1)
    centre = rng.normal(0, 4, (1, 1, 1, 200, 300))
    x = centre + spread * rng.standard_normal((1, size, 1, 200, 300))
    return ensemble_means(x, (centre + rng.standard_normal(centre.shape))[:, 0], even(60000))


@pytest.mark.parametrize("size", [2, 9])
def test_perfect_ensemble(size):
    # Shares scatter by sqrt(p (1 - p) / N) < 0.002, both terms of the ratio by 1 / sqrt(2 N) = 0.003: four times that.
    means = perfect(size)
    np.testing.assert_allclose(means["rank_counts"].ravel(), 1 / (size + 1), atol=0.008)
    assert ensemble_metrics(means, size)["spread_skill_ratio"].item() == pytest.approx(1, abs=0.016)


def test_overconfident_ensemble():
    means = perfect(9, spread=0.5)
    ranks = means["rank_counts"].ravel()
    assert min(ranks[0], ranks[-1]) > 2 * ranks[1:-1].max()
    # Variance 1/4; error variance of the mean 1 + 1/4 / 9.
    exact = math.sqrt(10 / 9 * 0.25 / (1 + 0.25 / 9))
    assert ensemble_metrics(means, 9)["spread_skill_ratio"].item() == pytest.approx(exact, abs=0.016)


def test_identical_members_are_a_single_forecast():
    x, y, weights = random_case()
    x = np.repeat(x[:, :1], 5, axis=1)
    means = ensemble_means(x, y, weights)
    assert (means["crps_spread"] == 0).all()
    assert (means["ensemble_variance"] == 0).all()
    error = (x[:, 0].astype(np.float64) - y).reshape(6, 3, 28)
    expected = (np.abs(error) @ weights.T).swapaxes(1, 2)  # single precision inside
    np.testing.assert_allclose(ensemble_metrics(means, 5)["crps"], expected, rtol=1e-6)


def test_regions_and_weights():
    x, y, weights = random_case(dtype=np.float64)
    means = ensemble_means(x, y, weights)
    flat = x.reshape(6, 5, 3, 28)
    error, variance = flat.mean(1) - y.reshape(6, 3, 28), flat.var(1, ddof=1)
    pairs = np.abs(flat[:, :, None] - flat[:, None]).sum((1, 2)) / 20
    below = (flat < y.reshape(6, 1, 3, 28)).sum(1)
    points = {
        "crps_skill": np.abs(flat - y.reshape(6, 1, 3, 28)).mean(1),
        "crps_spread": pairs,
        "ensemble_mean_squared_error": error**2,
        "ensemble_variance": variance,
    }
    for name, values in points.items():
        np.testing.assert_allclose(means[name], (values @ weights.T).swapaxes(1, 2), rtol=1e-12, err_msg=name)
    for rank in range(6):
        expected = ((below == rank) @ weights.T).swapaxes(1, 2)
        np.testing.assert_allclose(means["rank_counts"][..., rank], expected, atol=1e-15)


def test_single_precision_far_from_zero():
    # Geopotential: 5e4 with a spread of 5; steps of single precision are 0.004, but differences of them are exact.
    rng = np.random.default_rng(0)
    x = (5e4 + 5 * rng.standard_normal((1, 10, 1, 20, 20))).astype(np.float32)
    y = (5e4 + 5 * rng.standard_normal((1, 1, 20, 20))).astype(np.float32)
    single, double = (ensemble_means(x.astype(t), y.astype(t), even(400)) for t in (np.float32, np.float64))
    for name in single:
        np.testing.assert_allclose(single[name], double[name], rtol=1e-6, err_msg=name)


def test_order_of_members_does_not_matter():
    x, y, weights = random_case(dtype=np.float64)
    mixed = np.random.default_rng(5).permuted(x, axis=1)
    one, other = ensemble_means(x, y, weights), ensemble_means(mixed, y, weights)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("values", [1, 40, 300])
def test_pieces_add_up(monkeypatch, values):
    # In single precision sums of a lone point and of many round differently: pieces are of points, never of cases.
    x, y, weights = random_case(dtype=np.float64)
    whole = ensemble_means(x, y, weights)
    monkeypatch.setattr(ensemble, "_VALUES", values)
    pieces = ensemble_means(x, y, weights)
    for name in whole:
        np.testing.assert_allclose(pieces[name], whole[name], rtol=1e-12, atol=1e-15, err_msg=name)


@pytest.mark.parametrize("parts", [[[0, 1, 2], [3, 4, 5]], [[5], [0, 3], [4, 1, 2]]])
def test_any_partition_of_cases_merges_to_the_whole(parts):
    x, y, weights = random_case()

    def state(cases) -> AggregationState:
        found = AggregationState(1, 1)
        found.add(0, np.zeros(len(cases), np.int64), ensemble_means(x[cases], y[cases], weights))
        return found

    whole, merged = state(range(6)), sum((state(part) for part in parts), AggregationState(1, 1))
    assert merged.cases.item() == 6
    for name in whole.sums:
        np.testing.assert_allclose(merged.sums[name], whole.sums[name], rtol=1e-12, err_msg=name)
    metrics = ensemble_metrics({name: mean_over_cases(s, merged.cases) for name, s in merged.sums.items()}, 5)
    assert metrics["crps"].shape == (1, 1, 3, 3)


@pytest.mark.parametrize("where", ["members", "truth"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_show(where, value):
    x, y, weights = random_case()
    good = ensemble_means(x, y, weights)
    target = {"members": x[2, 1], "truth": y[2]}[where]
    target[1, 0, 0] = value
    with np.errstate(invalid="ignore"):
        means = ensemble_means(x, y, weights)
    assert np.isnan(means["rank_counts"][2, :, 1]).all()
    of_members_alone = ("crps_spread", "ensemble_variance")
    for name, values in means.items():
        if name != "rank_counts" and not (where == "truth" and name in of_members_alone):
            assert not np.isfinite(values[2, :, 1]).any(), name
        others = np.ones((6, 3), bool)
        others[2, 1] = False
        np.testing.assert_array_equal(values.swapaxes(1, 2)[others], good[name].swapaxes(1, 2)[others], err_msg=name)


def test_ratio_without_an_error():
    means = {name: np.array([1.0, 0.0]) for name in ("crps_skill", "crps_spread", "ensemble_variance")}
    ratio = ensemble_metrics(means | {"ensemble_mean_squared_error": np.zeros(2)}, 3)["spread_skill_ratio"]
    assert ratio[0] == np.inf
    assert np.isnan(ratio[1])


def test_a_single_member_is_refused():
    x, y, weights = random_case(members=1)
    with pytest.raises(InputError, match=r"needs two members .* has 1; score it as a single forecast"):
        ensemble_means(x, y, weights)
    with pytest.raises(InputError, match="needs two members"):
        ensemble_metrics({}, 1)


def test_shapes_that_do_not_match_are_refused():
    x, y, weights = random_case()
    with pytest.raises(ValueError, match=r"\(6, 5, 3, 4, 7\) \[B, M, C, H, W\] and truth \(6, 2, 4, 7\)"):
        ensemble_means(x, y[:, :2], weights)
