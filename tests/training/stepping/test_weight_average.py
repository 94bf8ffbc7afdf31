from __future__ import annotations

import pytest
import torch
from torch import nn

from weatherfm.training.stepping.weight_average import WeightAverage


def test_follows_its_recursion():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 5.0)
    average, expected = WeightAverage(model, 0.5), 5.0
    for step, value in enumerate([1.0, 2.0, -3.0, 4.0, 0.5, 7.0, 1.0, 1.0, 9.0, 9.0], start=1):
        nn.init.constant_(model.weight, value)
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert average.values["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_weights_come_back_bit_for_bit_even_after_an_error():
    model = nn.Linear(3, 3)
    average = WeightAverage(model, 0.9)
    nn.init.normal_(model.weight)
    own = model.weight.detach().clone()

    def fail():
        with average.applied(model):
            assert torch.equal(model.weight, average.values["weight"])
            assert not torch.equal(model.weight, own)
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail()
    assert torch.equal(model.weight, own)
