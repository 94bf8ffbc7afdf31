"""Random shifts: where values come from, what counts in the loss, and that a step's shift follows from its number."""

from __future__ import annotations

import json

import pytest
import torch
import toy_run
from toy_model import make_domain

from weatherfm.model import ModelConfig
from weatherfm.training.config import TrainingConfig
from weatherfm.training.loss import forecast_loss
from weatherfm.training.shift import Shift, draw_shift
from weatherfm.training.trainer import train

FIELD = torch.arange(12.0).reshape(3, 4)


def test_a_limited_area_repeats_its_edge_and_does_not_count_it():
    shift = Shift(south=1, east=-1, periodic=False)
    assert shift.fields(FIELD).tolist() == [[4, 4, 5, 6], [8, 8, 9, 10], [8, 8, 9, 10]]
    assert shift.inside((3, 4)).tolist() == [[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]]


def test_a_global_grid_goes_round_the_earth():
    shift = Shift(south=0, east=3, periodic=True)
    assert torch.equal(shift.fields(FIELD), FIELD.roll(-3, dims=1))
    assert (shift.inside((3, 4)) == 1).all()


def test_no_shift_is_the_identity():
    shift = Shift(0, 0, periodic=False)
    assert torch.equal(shift.fields(FIELD), FIELD)
    assert (shift.inside((3, 4)) == 1).all()


def test_drawn_by_seed_and_step_over_the_whole_range():
    assert draw_shift(0, False, seed=1, step=2) is None
    drawn = [draw_shift(2, False, seed=1, step=step) for step in range(300)]
    assert drawn == [draw_shift(2, False, seed=1, step=step) for step in range(300)]
    assert drawn != [draw_shift(2, False, seed=2, step=step) for step in range(300)]
    assert {(s.south, s.east) for s in drawn} == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}


def test_cells_from_beyond_the_edge_have_no_say_in_the_loss():
    domain = make_domain()
    loss = forecast_loss(ModelConfig(predict="state"), domain, {})
    inside = Shift(1, 0, periodic=False).inside(domain.grid.shape)
    prediction, target = torch.randn(2, 3, *domain.grid.shape), torch.randn(2, 3, *domain.grid.shape)
    leads = torch.tensor([24, 24])
    other = target + 1e3 * (1 - inside)
    torch.testing.assert_close(loss(prediction, target, leads, inside), loss(prediction, other, leads, inside))
    assert not torch.allclose(loss(prediction, target, leads), loss(prediction, other, leads))


def test_training_with_shifts(tmp_path):
    toy_run.make_store(tmp_path)
    losses = {}
    for shift in (0, 1):
        train(toy_run.make_run(tmp_path, f"shift{shift}", steps=4, log_every=1, shift=shift))
        lines = (tmp_path / f"shift{shift}" / "metrics.jsonl").read_text().splitlines()
        losses[shift] = [json.loads(line).get("loss") for line in lines]
    assert losses[0] != losses[1]


def test_negative_shift_is_refused():
    with pytest.raises(ValueError, match="shift"):
        TrainingConfig(shift=-1)
