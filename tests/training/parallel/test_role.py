"""A rank's part of the samples, and of the channels among those of all."""

from __future__ import annotations

import pytest
import torch
from toy_model import make_domain

from weatherfm.model.architecture import ModelConfig
from weatherfm.model.share import ChannelShare
from weatherfm.training.parallel.role import Role, find_role
from weatherfm.training.run_config import ParallelConfig

CHANNELS = ("z500", "t850", "msl")


def role(part=(0, 1), channels=CHANNELS, copies=1) -> Role:
    return Role(None, ChannelShare(tuple(channels), (), ()), part, copies, ChannelShare(CHANNELS, (), ()))


@pytest.mark.parametrize(("items", "count"), [(10, 3), (9, 3), (2, 4), (1, 2)])
def test_items_are_dealt_out_once_and_every_rank_has_as_many_steps(items, count):
    hands = [role((i, count)).deal_out(range(items)) for i in range(count)]
    counted = [item for own, n in hands for item in own[:n]]
    assert sorted(counted) == list(range(items))
    assert {len(own) for own, _ in hands} == {-(-items // count)}


def test_own_channels_stand_at_their_place_among_all():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    found = role(channels=("t850", "msl")).spread(values)
    assert found.tolist() == [[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]]
    assert role(channels=("t850", "msl"), copies=2).spread(values)[0].tolist() == [0.0, 0.5, 1.0]
    assert role(channels=("z500", "msl")).spread(values).tolist() == [[1.0, 0.0, 2.0], [3.0, 0.0, 4.0]]


def test_alone_a_role_is_everything():
    domain = make_domain()
    found = find_role(ParallelConfig(), ModelConfig(width=32, heads=4), domain, None)
    assert (found.share.channels, found.part, found.copies) == (domain.channels, (0, 1), 1)
    assert found.first
    assert found.union(["a", "b", "a"]) == ["a", "b"]
    assert found.sum(torch.ones(2)).tolist() == [1.0, 1.0]
