"""A foreign model on ranks that hold some of the channels each: the same function, gradients and steps as on one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import front_end_page
import pytest
import torch
from spawn_ranks import spawn
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from toy_model import scramble

import weatherfm
from weatherfm.errors import InputError
from weatherfm.model.front_end import ChannelBackEnd, ChannelFrontEnd
from weatherfm.training.plan.counter import counting

TOLERANCE = 1e-9
"""Relative; sums in another order leave 1e-14, a mistake in a factor 1e-2 or more."""
SIZE, PATCH, WIDTH, HEADS = (8, 12), 2, 16, 4
BATCH, POSITIONS = 2, 24
ATTENTION = {"kind": "hierarchical", "groups": 4}
TREE = ATTENTION | {"local": "linear", "tree": 2, "evaluate": "tokens"}
PAGE = front_end_page.code()


class Patchwise(nn.Module):
    """Its positions do not meet between the ends: it can be split by them, and by hidden unit."""

    def __init__(self, channels: int, aggregation: dict | None = None) -> None:
        super().__init__()
        self.front_end = ChannelFrontEnd(channels, SIZE, PATCH, WIDTH, HEADS, aggregation)
        self.place = nn.Parameter(torch.zeros(POSITIONS, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 8), nn.GELU(), nn.Linear(8, WIDTH))
        self.back_end = ChannelBackEnd(self.front_end, channels=5)

    def forward(self, fields: Tensor) -> Tensor:
        return self.back_end(self.mlp(self.norm(self.front_end(fields) + self.place[self.front_end.positions])))


class Convolutions(nn.Module):
    """Sees an image of tokens, and gives one number a sample: every rank has the whole loss."""

    def __init__(self, channels: int, aggregation: dict | None = None) -> None:
        super().__init__()
        self.front_end = ChannelFrontEnd(channels, SIZE, PATCH, WIDTH, HEADS, aggregation)
        self.blocks = nn.Sequential(nn.Conv2d(WIDTH, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.GELU())

    def forward(self, fields: Tensor) -> Tensor:
        return self.blocks(self.front_end(fields).transpose(1, 2).unflatten(2, self.front_end.tokens))


def split_by_unit(model: nn.Module, mesh: DeviceMesh) -> None:
    column, row = ColwiseParallel(input_layouts=Shard(1)), RowwiseParallel(output_layouts=Shard(1))
    parallelize_module(model.mlp, mesh, {"0": column, "2": row})


Forecaster = partial(PAGE["Forecaster"], size=SIZE, patch=PATCH, width=WIDTH, heads=HEADS)
CASES: dict[str, tuple[Callable[..., nn.Module], int, dict | None, str, Callable | None]] = {
    "transformer-flat": (Forecaster, 8, None, "all", None),
    "transformer-flat-uneven-sharded": (Forecaster, 7, None, "all", PAGE["shard"]),
    "transformer-attention-uneven": (Forecaster, 10, ATTENTION, "all", None),
    "transformer-tree-uneven-sharded": (Forecaster, 9, TREE, "all", PAGE["shard"]),
    "patchwise-flat-uneven": (Patchwise, 7, None, "own", split_by_unit),
    "patchwise-attention-uneven": (Patchwise, 10, ATTENTION, "own", None),
    "patchwise-tree": (Patchwise, 8, TREE, "own", split_by_unit),
    "convolutions-flat": (Convolutions, 8, None, "all", None),
    "convolutions-attention-uneven": (Convolutions, 10, ATTENTION, "all", None),
}


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lost(model: nn.Module, out: Tensor) -> Tensor:
    """A loss that is a sum over what comes out, of channels apart."""
    if isinstance(model, Convolutions):
        return (out * draw(5, *out.shape)).sum()
    every = draw(5, BATCH, len(model.back_end.channels), *SIZE)
    return (out * every[:, model.back_end.own]).sum()


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def error(given: Tensor, expected: Tensor) -> float:
    assert expected.norm() > 0
    return float((given - expected).norm() / expected.norm())


def compared(rank: int, name: str, mesh: DeviceMesh) -> dict[str, float]:
    """Relative errors of one case against the model whole on this rank."""
    kind, channels, aggregation, positions, between = CASES[name]
    serial = scramble(kind(channels, aggregation=aggregation)).double()
    model = weatherfm.split_channels(deepcopy(serial), mesh, positions)
    if between is not None:
        between(model, mesh)
    fields = draw(4, BATCH, channels, *SIZE).requires_grad_()
    expected = serial(fields)
    lost(serial, expected).backward()
    own = model.front_end.own
    mine = fields.detach()[:, own].clone().requires_grad_()
    out = model(mine)
    loss = lost(model, out)
    (loss / mesh.size() if isinstance(model, Convolutions) else loss).backward()
    norm = weatherfm.sum_shared_gradients(model, mesh)

    made = expected if isinstance(model, Convolutions) else expected[:, model.back_end.own]
    found = {"output": error(out, made), "fields": error(mine.grad, fields.grad[:, own])}
    for key, parameter in model.named_parameters():
        gradient = serial.get_parameter(key).grad
        if key.startswith("front_end.tokenizer"):
            gradient = gradient[own]
        if key.startswith("back_end"):
            gradient = gradient[model.back_end.own]
        found[key] = error(whole(parameter.grad), gradient)
    total = torch.cat([p.grad.flatten() for p in serial.parameters()]).norm()
    return found | {"norm": error(norm, total)}


def trained(rank: int) -> float:
    """Largest error of any weight after the page's own training, which clips; ranks begin with other random numbers."""
    torch.manual_seed(0)
    batches = [(torch.randn(BATCH, 7, *SIZE), torch.randn(BATCH, 7, *SIZE)) for _ in range(3)]
    names = list("abcdefg")
    torch.manual_seed(0)
    serial = PAGE["Forecaster"](names, SIZE)
    optimizer = torch.optim.AdamW(serial.parameters(), lr=1e-3)
    for fields, target in batches:
        (serial(fields) - target).square().mean().backward()
        nn.utils.clip_grad_norm_(serial.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    torch.manual_seed(rank)
    model = PAGE["train"](names, SIZE, batches)
    errors = []
    for key, value in model.named_parameters():
        reference = serial.get_parameter(key)
        if key.startswith(("front_end.tokenizer", "back_end")):
            reference = reference[model.front_end.own]
        errors.append(float((value - reference).abs().max()))
    return max(errors)


def in_float64(function: Callable[[int], float], rank: int) -> float:
    """Adam divides by gradients, and so makes rounding of the small ones large."""
    torch.set_default_dtype(torch.float64)
    try:
        return function(rank)
    finally:
        torch.set_default_dtype(torch.float32)


def sent(mesh: DeviceMesh) -> dict[str, tuple[int, int]]:
    """Bytes that a rank sends forward and backward through both ends, in float32; of 6 and of 12 channels."""
    found = {}
    for channels in (6, 12):
        for form, aggregation in (("flat", None), ("attention", {"kind": "hierarchical", "groups": 2})):
            for positions in ("all", "own"):
                model = weatherfm.split_channels(Patchwise(channels, aggregation), mesh, positions)
                fields = torch.randn(BATCH, channels // 2, *SIZE, requires_grad=True)
                with counting() as forward:
                    out = model(fields).sum() + 0
                with counting() as backward:
                    out.backward()
                counts = (sum(forward.sent.values()), sum(backward.sent.values()))
                assert found.setdefault(f"{form} {positions}", counts) == counts
    return found


def refused(mesh: DeviceMesh) -> dict[str, str]:
    """What is said to each mistake."""
    split = weatherfm.split_channels(Forecaster(6), mesh)
    mixed = weatherfm.split_channels(Forecaster(6), mesh)
    fully_shard(mixed, mesh=mesh)
    mixed(torch.randn(BATCH, 3, *SIZE)).sum().backward()
    sharded = Forecaster(6)
    fully_shard(sharded, mesh=mesh)
    square = init_device_mesh("cpu", (1, mesh.size()), mesh_dim_names=("dp", "tp"))
    mistakes = {
        "twice": lambda: weatherfm.split_channels(split, mesh),
        "no front end": lambda: weatherfm.split_channels(nn.Linear(2, 2), mesh),
        "axes": lambda: weatherfm.split_channels(Forecaster(6), square),
        "positions": lambda: weatherfm.split_channels(Forecaster(6), mesh, "some"),
        "one channel": lambda: weatherfm.split_channels(Forecaster(1), mesh),
        "groups": lambda: weatherfm.split_channels(Forecaster(6, aggregation=ATTENTION | {"groups": 3}), mesh),
        "odd positions": lambda: weatherfm.split_channels(Forecaster(6, size=(6, 10)), mesh),
        "sharded before": lambda: weatherfm.split_channels(sharded, mesh),
        "rows mixed": lambda: weatherfm.sum_shared_gradients(mixed, mesh),
        "no gradient": lambda: weatherfm.sum_shared_gradients(split, mesh),
        "others' fields": lambda: split(torch.randn(BATCH, 6, *SIZE)),
    }
    said = {}
    for name, mistake in mistakes.items():
        try:
            mistake()
        except InputError as told:
            said[name] = str(told)
    return said


def beside_data_parallelism(rank: int) -> dict[str, float]:
    """Relative errors where the whole model is sharded over another axis, whose ranks see one sample each."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    serial = scramble(Forecaster(7)).double()
    model = weatherfm.split_channels(deepcopy(serial), mesh["tp"])
    fully_shard(model, mesh=mesh["dp"])
    fields = draw(4, 2, 7, *SIZE)
    lost(serial, serial(fields)).backward()
    own, sample = model.front_end.own, mesh["dp"].get_local_rank()
    every = draw(5, BATCH, 7, *SIZE)[sample : sample + 1, own]
    (2 * model(fields[sample : sample + 1, own]) * every).sum().backward()  # FSDP takes the mean over samples
    norm = weatherfm.sum_shared_gradients(model, mesh["tp"])
    found = {"norm": error(norm, torch.cat([p.grad.flatten() for p in serial.parameters()]).norm())}
    for key, parameter in model.named_parameters():
        gradient = serial.get_parameter(key).grad
        mine = gradient[own] if key.startswith(("front_end.tokenizer", "back_end")) else gradient
        found[key] = error(whole(parameter.grad), mine)
    return found


def everything(rank: int) -> dict:
    mesh = init_device_mesh("cpu", (2,))
    return {
        "errors": {name: compared(rank, name, mesh) for name in CASES},
        "trained": in_float64(trained, rank),
        "sent": sent(mesh),
        "refused": refused(mesh),
    }


@pytest.fixture(scope="module")
def ranks() -> list[dict]:
    return spawn(2, everything)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_one_rank(ranks, name):
    for rank in ranks:
        assert max(rank["errors"][name].values()) < TOLERANCE, rank["errors"][name]


def test_the_whole_model_may_be_sharded_over_another_axis():
    for errors in spawn(4, beside_data_parallelism):
        assert max(errors.values()) < TOLERANCE, errors


def test_the_training_on_the_page_ends_where_one_rank_ends(ranks):
    assert max(rank["trained"] for rank in ranks) < TOLERANCE  # a step is 1e-3


def test_bytes_are_those_of_the_page_whatever_the_number_of_channels(ranks):
    positions, token = BATCH * POSITIONS // 2, WIDTH * 4  # (T - 1) / T . B N, s D
    flat = (positions * (2 * token + 12 * HEADS), positions * (2 * token + 4 * HEADS))
    assert ranks[0]["sent"] == {
        "flat all": flat,
        "flat own": flat,
        "attention all": (positions * 2 * token, positions * 2 * token),
        "attention own": (positions * 3 * token, positions * 2 * token),
    }


@pytest.mark.parametrize(
    ("name", "message"),
    {
        "twice": "has been split already",
        "no front end": "Linear holds no ChannelFrontEnd",
        "axes": "over a mesh of one axis",
        "positions": "'some'",
        "one channel": "1 channels cannot be split over 2 ranks",
        "groups": "3 channel groups cannot be split over 2 ranks",
        "odd positions": "3 x 5 positions cannot be split over 2 ranks",
        "sharded before": "is on a mesh already",
        "rows mixed": "weights of channels are sharded over the mesh",
        "no gradient": "no weight has a gradient",
        "others' fields": "takes fields [B, 3, 8, 12], got [2, 6, 8, 12]",
    }.items(),
)
def test_mistakes_are_told(ranks, name, message):
    for rank in ranks:
        assert message in rank["refused"][name]
