"""Rotary positions: scores of attention depend on how far apart patches are, round the Earth where it is round."""

from __future__ import annotations

import pytest
import torch

from weatherfm.model.position import Rotary

TOKENS = (4, 8)


def scores(rotary, query, key):
    """[N, N] of the same query and key at all positions."""
    everywhere = [x.expand(1, 1, TOKENS[0] * TOKENS[1], -1) for x in (query, key)]
    turned = [rotary(x)[0, 0] for x in everywhere]
    return (turned[0] @ turned[1].T).unflatten(0, TOKENS).unflatten(-1, TOKENS)


@pytest.mark.parametrize("periodic", [True, False])
def test_scores_depend_on_distance_alone(periodic):
    torch.manual_seed(0)
    query, key = torch.randn(2, 16, dtype=torch.float64)
    found = scores(Rotary(TOKENS, 16, periodic), query, key)  # [row, column, row, column]
    torch.testing.assert_close(found[1:, 1:, 1:, 1:], found[:-1, :-1, :-1, :-1])
    around = found.roll((1, 1), (1, 3))
    assert torch.allclose(around, found) == periodic
    assert found[0, 0].std() > 0.1


def test_lengths_and_the_first_patch_stay():
    x = torch.randn(2, 3, 32, 16, dtype=torch.float64)
    turned = Rotary(TOKENS, 16, True)(x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[:, :, 0], x[:, :, 0])
    assert Rotary(TOKENS, 16, True)(x.bfloat16()).dtype == torch.bfloat16


def test_columns_turn_whole_times_round_a_periodic_grid():
    angles = Rotary(TOKENS, 32, True).angles(torch.zeros(1)).unflatten(0, TOKENS)
    turns = (angles[0, 1, 8:] - angles[0, 0, 8:]) * TOKENS[1] / (2 * torch.pi)
    torch.testing.assert_close(turns, turns.round())
    assert turns.min() == 1
    assert turns.max() <= TOKENS[1] / 2
