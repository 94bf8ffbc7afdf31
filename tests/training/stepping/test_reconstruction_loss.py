"""The loss of a masked autoencoder against sums in numpy: what was hidden counts, by area, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import plane_of, regular_grid
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.training.stepping.reconstruction import reconstruction_loss

CHANNELS, SHAPE = ("z500", "t850", "u10"), (6, 8)
CONFIG = ModelConfig(patch_size=(3, 2), reconstruction={"mask_ratio": 0.5})  # 2 x 4 patches
VISIBLE = torch.tensor([[0, 5, 6], [1, 2, 7]])
MASK = np.zeros(SHAPE, bool)
MASK[2:, :3] = True


def domain(masks=None, grid=None, channels=CHANNELS) -> Domain:
    ones = np.ones(len(channels))
    return Domain(channels, grid or regular_grid(SHAPE), ones, ones, ones, masks=masks or {})


def fields(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3, *SHAPE))).float()


def hidden() -> np.ndarray:
    found = np.ones((2, *SHAPE), bool)
    for sample, seen in enumerate(VISIBLE.tolist()):
        for number in seen:
            row, column = divmod(number, 4)
            found[sample, row * 3 : row * 3 + 3, column * 2 : column * 2 + 2] = False
    return found


@pytest.mark.parametrize("grid", [regular_grid(SHAPE), plane_of(SHAPE)], ids=["globe", "picture"])
@pytest.mark.parametrize("shown", [None, [[True, False, True], [True, True, True]]], ids=["all shown", "some withheld"])
def test_it_is_the_mean_over_what_was_hidden(grid, shown):
    held = domain({"t850": MASK}, grid, CHANNELS)
    loss = reconstruction_loss(CONFIG, held, {"u10": 4.0})
    made, truth = fields(0), fields(1)
    made[:, 1, MASK], truth[:, 1, MASK] = 3.0, torch.nan
    given = None if shown is None else torch.tensor(shown)
    found = loss(made, truth, VISIBLE, given).numpy()
    error, points = (made - truth).numpy(), hidden()
    for b in range(2):
        for c in range(3):
            counts = points[b] if shown is None or shown[b][c] else np.ones(SHAPE, bool)
            counts = counts & ~MASK if c == 1 else counts
            weights = grid.area_weights[counts]
            expected = (4.0 if c == 2 else 1.0) / 2 * np.average(error[b, c][counts] ** 2, weights=weights)
            assert found[b, c] == pytest.approx(expected, rel=1e-5)


def test_what_was_seen_does_not_count_and_what_was_hidden_does():
    loss, made, truth = reconstruction_loss(CONFIG, domain(), {}), fields(0), fields(1)
    points = torch.from_numpy(hidden())[:, None]
    before = loss(made, truth, VISIBLE)
    torch.testing.assert_close(loss(torch.where(points, made, 1e3), truth, VISIBLE), before, rtol=0, atol=0)
    assert (loss(torch.where(points, made + 1, made), truth, VISIBLE) != before).all()


def test_a_channel_without_a_value_in_what_is_hidden_has_no_loss():
    seen = ~hidden()[0]
    loss = reconstruction_loss(CONFIG, domain({"t850": ~seen}), {})
    found = loss(fields(0), fields(1), VISIBLE)
    assert found[0, 1] == 0
    assert found[1, 1] > 0
    assert torch.isfinite(found).all()


def test_channels_that_do_not_come_out_have_no_loss():
    config = CONFIG.model_copy(update={"outputs": ["-t850"]})
    found = reconstruction_loss(config, domain(), {"z500": 3.0})(fields(0), fields(1), VISIBLE)
    whole = reconstruction_loss(CONFIG, domain(), {})(fields(0), fields(1), VISIBLE)
    torch.testing.assert_close(found, whole[:, [0, 2]] * torch.tensor([1.5, 0.5]))


def test_weights_of_zero_alone_are_refused():
    with pytest.raises(InputError, match="every channel weight zero"):
        reconstruction_loss(CONFIG, domain(), dict.fromkeys(CHANNELS, 0.0))
