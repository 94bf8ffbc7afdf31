"""Attention within windows against dense attention with an explicit mask, written here from the definition."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch.utils._python_dispatch import TorchDispatchMode
from toy_model import clock_of, inputs, make_domain, make_model, scramble

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.backbone_config import WindowsConfig
from weatherfm.model.data_view import look_at, view_of
from weatherfm.model.share import whole
from weatherfm.model.windows import Windows


def dense_mask(tokens, size, shifted, periodic):
    """[N, N] True where position i sees position j, one pair after the other."""
    (H, W), h, w = tokens, min(size[0], tokens[0]), min(size[1], tokens[1])
    s, t = (h // 2 if shifted and h < H else 0), (w // 2 if shifted and w < W else 0)

    def window(position):
        row, column = position // W - s, position % W - t
        return row // h, (column % W if periodic else column) // w

    return torch.tensor([[window(i) == window(j) for j in range(H * W)] for i in range(H * W)])


def dense_attention(query, key, value, mask):
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value


SIZES = [(2, 4), (3, 3), (8, 4), (2, 20), (1, 1), (1, 2), (9, 9)]


@pytest.mark.parametrize("periodic", [True, False], ids=["periodic", "area"])
@pytest.mark.parametrize("tokens", [(4, 8), (5, 7), (3, 9), (1, 6)], ids=str)
def test_outputs_and_gradients_are_those_of_dense_attention(tokens, periodic):
    torch.manual_seed(0)
    for size in SIZES:
        for shifted in (False, True):
            mask = dense_mask(tokens, size, shifted, periodic)
            windows = Windows.over(tokens, size, shifted, periodic)
            if windows is None:  # one holds the whole grid
                assert mask.all()
                continue
            assert not mask.all()
            shape = (3, 2, tokens[0] * tokens[1], 4)
            given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
            found = windows.attend(*given, F.scaled_dot_product_attention)
            expected = dense_attention(*given, mask)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
            weights = torch.randn_like(found)
            for own, other in zip(
                torch.autograd.grad(found, given, weights), torch.autograd.grad(expected, given, weights), strict=True
            ):
                torch.testing.assert_close(own, other, rtol=0, atol=1e-10)


def area(shape):
    return Grid(np.linspace(60, 40, shape[0]), np.linspace(0, 30, shape[1]))


MODELS = {
    "plain": {"windows": {"size": 2}},
    "global": {"windows": {"size": [2, 3], "global_every": 3}, "rotary": True, "mlp_convolution": True},
    "unshifted": {"windows": {"size": 3, "shift": False}, "conditioning": "adaln", "noise": 2},
}


@pytest.mark.parametrize("grid", [regular_grid((10, 14)), area((9, 13))], ids=["globe", "area"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_that_of_dense_blocks_with_its_masks(name, grid, monkeypatch):
    """All parts of blocks that may stand beside windows, four blocks deep, in float64; patches: 5 x 7 in both."""
    model = scramble(make_model(make_domain(grid), backbone="windows", patch_size=2, depth=4, **MODELS[name])).double()
    assert model.tokens == (5, 7)
    settings = model.config.windows
    given = inputs(model, dtype=torch.float64)
    told = {"condition": clock_of(model, dtype=torch.float64), "noise": torch.randn(2, 2).double()}
    told = told if model.config.noise else {}
    found = model(*given, **told)
    gradients = torch.autograd.grad(found.square().mean(), list(model.parameters()))

    shifts = {"plain": [0, 1, 0, 1], "global": [0, 1, None, 0], "unshifted": [0, 0, 0, 0]}[name]
    everything = torch.ones(35, 35, dtype=torch.bool)
    masks = [everything if s is None else dense_mask((5, 7), settings.sides, bool(s), grid.periodic) for s in shifts]
    turn = iter(masks)
    for block in model.blocks:
        block.attention.windows = None
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, k, v, dropout_p: dense_attention(q, k, v, next(turn))
    )
    expected = model(*given, **told)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    others = torch.autograd.grad(expected.square().mean(), list(model.parameters()))
    for (key, _), own, other in zip(model.named_parameters(), gradients, others, strict=True):
        assert (own - other).norm() <= 1e-10 * max(1.0, float(other.norm())), key


def test_windows_lie_across_the_seam_whole_and_end_at_the_poles():
    windows = Windows.over((4, 8), (2, 4), True, True)
    order, rectangles = windows._order(1, torch.device("cpu"))
    assert rectangles == [(2, 4), (2, 8), (2, 4)]  # a row of windows at each pole, half as high, and whole ones between
    across = order[8 + 8 : 8 + 16].tolist()
    assert across == [14, 15, 8, 9, 22, 23, 16, 17]  # columns 6, 7, 0, 1 of rows 1 and 2


def test_nothing_of_the_size_of_all_pairs_is_made_and_no_mask():
    class Largest(TorchDispatchMode):
        size, masks = 0, 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made = [x for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, torch.Tensor)]
            self.size = max([self.size, *(x.numel() for x in made)])
            if "scaled_dot_product" in str(func):
                assert "flash" in str(func)  # the kernel that makes no scores
                self.masks += (kwargs or {}).get("attn_mask") is not None
            return out

    windows, N = Windows.over((45, 50), (8, 8), True, True), 45 * 50
    given = [torch.randn(1, 2, N, 4, requires_grad=True) for _ in range(3)]
    with Largest() as seen:
        windows.attend(*given, F.scaled_dot_product_attention).sum().backward()
    assert seen.size == N * 2 * 4
    assert seen.masks == 0


@pytest.mark.parametrize(
    ("settings", "kinds", "period"),
    [
        ({}, [False, True, False, True, False], 2),
        ({"shift": False}, [False] * 5, 1),
        ({"global_every": 2}, [False, None, True, None, False], 4),
        ({"global_every": 3}, [False, True, None, False, True], 3),
        ({"global_every": 3, "shift": False}, [False, False, None, False, False], 3),
    ],
    ids=str,
)
def test_kinds_of_blocks_come_again_after_a_period(settings, kinds, period):
    windows = WindowsConfig(**settings)
    assert windows.kinds(5) == kinds
    assert windows.period == period
    long = windows.kinds(24)
    assert next(p for p in range(1, 12) if long[p:] == long[: 24 - p]) == period


def test_weights_are_those_of_vit_and_so_is_what_windows_of_the_whole_grid_compute():
    vit, windows = (scramble(make_model(backbone=name, patch_size=2)) for name in ("vit", "windows"))
    assert [name for name, _ in vit.named_parameters()] == [name for name, _ in windows.named_parameters()]
    torch.testing.assert_close(vit(*inputs(vit)), windows(*inputs(windows)))  # 4 x 8 patches
    small = scramble(make_model(backbone="windows", patch_size=2, windows={"size": 2}))
    assert (vit(*inputs(vit)) - small(*inputs(small))).norm() > 1e-3


def test_on_data_of_another_grid_windows_are_those_of_that_grid():
    settings = {"backbone": "windows", "windows": {"size": 3}, "patch_size": 2, "position": "place", "rotary": True}
    model, there = scramble(make_model(**settings)), make_domain(area((10, 6)))
    other = scramble(make_model(there, **settings))
    look_at(model, view_of(model, model.config, there, whole(model.config, there), torch.device("cpu")))
    torch.testing.assert_close(model(*inputs(model)), other(*inputs(other)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "vit", "windows": {"size": 4}}, "windows belong to backbone: windows, and backbone is vit"),
        ({"windows": {}}, "windows belong to backbone: windows"),
        ({"backbone": "windows", "windows": {"size": 0}}, "greater than or equal to 1"),
        ({"backbone": "windows", "windows": {"size": [4, 0]}}, "greater than or equal to 1"),
        ({"backbone": "windows", "windows": {"global_every": 1}}, "greater than or equal to 2"),
        ({"backbone": "windows", "backbone_options": {"a": 1}}, "backbone_options are for a backbone of your own"),
        ({"backbone": "window"}, "'window' is none of vit, windows, and no class of your own either"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises((ValidationError, ValueError), match=re.escape(message)):
        ModelConfig(**settings)


def test_a_block_with_windows_is_one_graph_for_the_compiler():
    model = scramble(make_model(backbone="windows", patch_size=2, windows={"size": 3}, rotary=True))
    block, x = model.blocks[1], torch.randn(2, 32, 32, requires_grad=True)
    compiled = torch.compile(block.forward, backend="aot_eager", fullgraph=True)
    found, expected = compiled(x), block(x)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(y.square().sum(), [x, *block.parameters()]) for y in (found, expected)]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
