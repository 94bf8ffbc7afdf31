"""The crossings between ranks of `tp`: what they give, what their gradients are, and what they send."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from spawn_ranks import spawn
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from weatherfm.training.parallel.channel_parallel import (
    gather_groups,
    gather_positions,
    keep_positions,
    merge_softmax,
    split_positions,
    sum_positions,
)
from weatherfm.training.plan.counter import counting

B, N, D, HEADS = 2, 8, 16, 4


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request) -> list[tuple[dict, tuple, dict]]:
    """What every rank found of everything below."""
    return spawn(request.param, everything, request.param)


def everything(rank: int, size: int) -> tuple[dict, tuple, dict]:
    return cross_all(rank, size), merged(rank, size), sent(rank, size)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def through(cross: Callable[[Tensor, DeviceMesh], Tensor], x: Tensor, gradient: Tensor, tp: DeviceMesh):
    """Result, gradient of the input for a gradient of the result, and bytes sent forward and backward."""
    x = x.clone().requires_grad_()
    with counting() as forward:
        y = cross(x, tp)
        y = y + 0  # wait for it
    with counting() as backward:
        y.backward(gradient)
    return y.detach(), x.grad, sum(forward.sent.values()), sum(backward.sent.values())


def cross_all(rank: int, size: int) -> dict[str, bool]:
    """What every rank sees of each crossing, against its definition with all ranks' tensors at hand."""
    tp = init_device_mesh("cpu", (size,), mesh_dim_names=("tp",))
    ranks, own = range(size), slice(rank * N // size, (rank + 1) * N // size)
    fields = [draw(r, B, N, D) for r in ranks]  # a rank's own
    pulls = [draw(100 + r, B, N, D) for r in ranks]  # a gradient for all positions, another on each rank
    same = pulls[0]
    part = N // size
    checks = {}

    y, g, _, _ = through(sum_positions, fields[rank], same[:, own], tp)
    checks["sum"] = torch.allclose(y, sum(fields)[:, own]) and torch.allclose(g, same)

    y, g, _, _ = through(gather_positions, fields[0][:, own], pulls[rank], tp)
    checks["gather positions"] = torch.allclose(y, fields[0]) and torch.allclose(g, sum(pulls)[:, own])

    # all ranks go on alike, so each has the same gradient, of which by the rule it holds one part of a sum
    y, g, _, _ = through(split_positions, fields[0], same[:, own], tp)
    checks["split positions"] = torch.allclose(y, fields[0][:, own]) and torch.allclose(g * size, same)

    y, g, _, _ = through(keep_positions, fields[0], pulls[rank], tp)
    checks["keep positions"] = torch.allclose(y, fields[0]) and torch.allclose(g * size, sum(pulls))

    tokens, pull = draw(7, B, N, 2 * size, D), draw(8, B, N, 2 * size, D)
    mine = slice(2 * rank, 2 * rank + 2)
    y, g, _, back = through(gather_groups, tokens[:, :, mine], pull / size, tp)
    checks["gather groups"] = torch.allclose(y, tokens) and torch.allclose(g, pull[:, :, mine])
    checks["gather groups sends nothing back"] = back == 0
    checks["positions"] = part * size == N
    return checks


def test_crossings_keep_to_their_definition(ranks):
    for checks, _, _ in ranks:
        assert all(checks.values()), checks


def merged(rank: int, size: int) -> tuple[float, float, float]:
    """Errors of the merged mean and of its gradients against attention over all channels at once."""
    tp = init_device_mesh("cpu", (size,), mesh_dim_names=("tp",))
    scores, values = 5 * draw(1, B, N, HEADS, 3 * size), draw(2, B, N, HEADS, 3 * size, D // HEADS)
    pull = draw(3, B, N, D)
    whole = [scores.clone().requires_grad_(), values.clone().requires_grad_()]
    expected = torch.einsum("bnhc,bnhcd->bnhd", whole[0].softmax(-1), whole[1]).flatten(-2)
    expected.backward(pull)

    mine, own = slice(3 * rank, 3 * rank + 3), slice(rank * N // size, (rank + 1) * N // size)
    part = [scores[..., mine].clone().requires_grad_(), values[..., mine, :].clone().requires_grad_()]
    mixed = torch.einsum("bnhc,bnhcd->bnhd", part[0].softmax(-1), part[1]).flatten(-2)
    out = merge_softmax(mixed, part[0].logsumexp(-1), tp)
    out.backward(pull[:, own])
    return (
        float((out - expected[:, own]).abs().max()),
        float((part[0].grad - whole[0].grad[..., mine]).abs().max()),
        float((part[1].grad - whole[1].grad[..., mine, :]).abs().max()),
    )


def test_partial_softmaxes_merge_exactly(ranks):
    assert max(error for _, errors, _ in ranks for error in errors) < 1e-14


def sent(rank: int, size: int) -> dict[str, int]:
    """Bytes a rank sends for one sample, forward and backward, in float32 at a width of 1,024 and 16 heads."""
    tp = init_device_mesh("cpu", (size,), mesh_dim_names=("tp",))
    mixed, mass = torch.randn(1, 64, 1024, requires_grad=True), torch.randn(1, 64, 16, requires_grad=True)
    token = torch.randn(1, 64, 1, 1024, requires_grad=True)
    found = {}
    with counting() as counter:
        out = merge_softmax(mixed, mass, tp) + 0
        found["flat forward"] = sum(counter.sent.values())
        out.sum().backward()
    found["flat"] = sum(counter.sent.values())
    with counting() as counter:
        groups = gather_groups(token, tp) + 0
        found["groups forward"] = sum(counter.sent.values())
        out = split_positions(groups.sum(2), tp) + 0
        out.sum().backward()
    found["groups"] = sum(counter.sent.values())
    return found


def test_the_exact_merge_sends_no_more_than_the_gather_of_groups(ranks):
    size, found = len(ranks), ranks[0][2]
    field, scalars = 64 * 1024 * 4, 64 * 16 * 4
    assert found["groups forward"] == (size - 1) * field  # one token a rank, past all others
    assert found["flat forward"] == round((size - 1) / size * (field + scalars + 2 * scalars))  # mean, mass, maximum
    assert found["flat forward"] < found["groups forward"]
    assert found["flat"] < found["groups"]  # backward both gather one gradient over positions
