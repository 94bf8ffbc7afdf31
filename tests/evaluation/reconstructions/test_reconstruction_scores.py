"""Scores of reconstructions against sums written out by hand."""

import numpy as np
import pytest

from weatherfm.errors import InputError
from weatherfm.evaluation.reconstructions.page import headline
from weatherfm.evaluation.reconstructions.scores import ReconstructionScores, ReconstructionSums
from weatherfm.evaluation.reconstructions.wavelengths import (
    colour_channels,
    vegetation_channels,
    vegetation_index,
    wavelengths_of,
)

CHANNELS = ("refl450", "refl550", "refl650", "refl670", "refl800")


def case(count: int = 3) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(0)
    truth = random.uniform(0.1, 0.6, (count, 5, 4, 6))
    made = truth + random.normal(0, 0.05, truth.shape)
    hidden = random.random((count, 4, 6)) < 0.5
    there = np.broadcast_to(random.random((count, 1, 4, 6)) < 0.8, truth.shape)
    return truth, made, hidden, there


def test_errors_are_of_hidden_points_that_are_there():
    truth, made, hidden, there = case()
    weights = np.linspace(0.5, 1.5, 4)[:, None] * np.ones((4, 6))
    mean = np.arange(5) / 10
    sums = ReconstructionSums(CHANNELS, mean, weights)
    sums.add(truth[:2], made[:2], hidden[:2], there[:2])
    sums.add(truth[2:], made[2:], hidden[2:], there[2:])
    scores = sums.scores()
    for c in range(5):
        squares, of_mean, of_seen, total = 0.0, 0.0, 0.0, 0.0
        for n in range(3):
            seen = [(i, j) for i in range(4) for j in range(6) if there[n, c, i, j] and not hidden[n, i, j]]
            share = sum(weights[i, j] for i, j in seen)
            guess = sum(weights[i, j] * truth[n, c, i, j] for i, j in seen) / share
            for i in range(4):
                for j in range(6):
                    if hidden[n, i, j] and there[n, c, i, j]:
                        total += weights[i, j]
                        squares += weights[i, j] * (made[n, c, i, j] - truth[n, c, i, j]) ** 2
                        of_mean += weights[i, j] * (mean[c] - truth[n, c, i, j]) ** 2
                        of_seen += weights[i, j] * (guess - truth[n, c, i, j]) ** 2
        expected = np.sqrt(np.array([squares, of_mean, of_seen]) / total)
        found = [scores.rmse[c], scores.rmse_of_mean[c], scores.rmse_of_visible[c]]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_allclose(scores.skill[c], 1 - squares / of_seen, rtol=1e-12)
    assert scores.samples == 3
    assert scores.hidden == pytest.approx((hidden & there[:, 0]).sum() / there[:, 0].sum())


def test_vegetation_index_is_of_the_same_points():
    truth, made, hidden, there = case()
    truth[0, :, 0, 0] = made[0, :, 0, 0] = 0.001  # dark: no index
    sums = ReconstructionSums(CHANNELS, np.zeros(5), np.ones((4, 6)))
    sums.add(truth, made, hidden, there)
    found = sums.scores().vegetation
    differences = []
    for n, i, j in zip(*np.nonzero(hidden & there[:, 0]), strict=True):
        if (n, i, j) == (0, 0, 0):
            continue
        true, guess = ((x[n, 4, i, j] - x[n, 3, i, j]) / (x[n, 4, i, j] + x[n, 3, i, j]) for x in (truth, made))
        differences.append(guess - true)
    assert found is not None
    assert found.points == len(differences)
    assert found.bias == pytest.approx(np.mean(differences))
    assert found.rmse == pytest.approx(np.sqrt(np.mean(np.square(differences))))


def test_a_pixel_that_is_reconstructed_as_dark_counts_with_its_index():
    """It was left out, and with it the worst of all. Truth: 0.4 and 0.1, an index of 0.6."""
    truth, made = np.full((1, 5, 1, 3), 0.1), np.full((1, 5, 1, 3), 0.1)
    truth[:, 4] = 0.4
    made[0, 3:, 0] = [[0.1, -0.2, 0.001], [0.4, -0.1, 0.003]]  # red, infrared; the second has no light
    sums = ReconstructionSums(CHANNELS, np.zeros(5), np.ones((1, 3)))
    sums.add(truth, made, np.ones((1, 1, 3), bool), np.ones(truth.shape, bool))
    found = sums.scores().vegetation
    assert found is not None
    assert found.points == 3
    assert found.bias == pytest.approx(((0.6 - 0.6) + (0 - 0.6) + (0.5 - 0.6)) / 3)
    assert found.rmse == pytest.approx(np.sqrt((0.6**2 + 0.1**2) / 3))


def test_what_is_not_there_may_hold_anything():
    truth, made, hidden, there = case()
    there = there & ~np.isnan(truth)
    one, other = (ReconstructionSums(CHANNELS, np.zeros(5), np.ones((4, 6))) for _ in range(2))
    one.add(truth, made, hidden, there)
    other.add(np.where(there, truth, np.nan), np.where(there, made, np.inf), hidden, there)
    np.testing.assert_array_equal(one.scores().rmse, other.scores().rmse)
    np.testing.assert_array_equal(one.scores().rmse_of_visible, other.scores().rmse_of_visible)


def test_nothing_hidden_and_what_is_not_finite_are_refused():
    truth, made, hidden, there = case()
    sums = ReconstructionSums(CHANNELS, np.zeros(5), np.ones((4, 6)))
    sums.add(truth, made, np.zeros_like(hidden), there)
    with pytest.raises(InputError, match="no point of refl450 was hidden"):
        sums.scores()
    with pytest.raises(InputError, match="not finite"):
        sums.add(truth, np.full_like(made, np.nan), hidden, there)


@pytest.mark.parametrize(
    ("channels", "colours", "vegetation"),
    [
        (CHANNELS, (2, 1, 0), (4, 3)),
        (("refl900", "refl1000", "refl1100", "refl1200", "refl1300", "refl1400"), (5, 3, 1), None),
        (("refl450", "refl470"), None, None),
        (("z500", "t850", "refl550"), None, None),
    ],
)
def test_channels_are_found_by_wavelength(channels, colours, vegetation):
    assert colour_channels(channels) == colours
    assert vegetation_channels(channels) == vegetation
    assert (wavelengths_of(channels) is None) == ("z500" in channels)


def test_index_of_the_dark_is_undefined():
    found = vegetation_index(np.array([0.5, 0.004]), np.array([0.1, 0.002]))
    np.testing.assert_allclose(found[0], 2 / 3)
    assert np.isnan(found[1])


@pytest.mark.parametrize(
    ("rmse", "told"),
    [
        ([0.5, 0.6, 0.8], "Of the variance about the mean of what is seen, 64 % is reconstructed (median of 3 "
         "channels; the worst 36 %, the best 75 %)."),
        ([0.9, 1.5, 2.0], "Worse than the mean of what is seen: the squared error is 2.2 times as large (median of 3 "
         "channels; the worst 4 times, the best 0.81 times)."),
    ],
)  # fmt: skip
def test_no_variance_is_said_to_be_negative(rmse, told):
    guess = np.ones(3)
    scores = ReconstructionScores(CHANNELS[:3], np.array(rmse), guess, guess, 7, 0.5, None)
    assert headline(scores) == [told]
