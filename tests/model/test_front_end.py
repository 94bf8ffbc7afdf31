"""The ends of a model of one's own are their plain definition, written out here; what cannot be is refused."""

from __future__ import annotations

import subprocess
import sys

import front_end_page
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_model import make_model, scramble

from weatherfm.errors import InputError
from weatherfm.model.front_end import ChannelBackEnd, ChannelFrontEnd
from weatherfm.model.initial import initialise

SIZE, PATCH, WIDTH, HEADS = (4, 12), (2, 3), 16, 4
FORMS = {
    "flat": None,
    "flat-tokens": {"evaluate": "tokens"},
    "attention": {"kind": "hierarchical", "groups": 2},
    "linear-tokens": {"kind": "hierarchical", "groups": 2, "local": "linear", "evaluate": "tokens"},
    "tree": {"kind": "hierarchical", "groups": 2, "local": "linear", "tree": 2},
}


class Convolutions(nn.Module):
    """A foreign model that sees an image of tokens."""

    def __init__(self, channels, size, patch, width, heads, aggregation=None):
        super().__init__()
        self.front_end = ChannelFrontEnd(channels, size, patch, width, heads, aggregation)
        self.blocks = nn.Sequential(nn.Conv2d(width, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, width, 3, padding=1))
        self.back_end = ChannelBackEnd(self.front_end)

    def between(self, tokens):
        return self.blocks(tokens.transpose(1, 2).unflatten(2, self.front_end.tokens)).flatten(2).transpose(1, 2)

    def forward(self, fields):
        return self.back_end(self.between(self.front_end(fields)))


Forecaster = front_end_page.code()["Forecaster"]


def between(model: nn.Module, tokens: Tensor) -> Tensor:
    return model.between(tokens) if isinstance(model, Convolutions) else model.blocks(tokens + model.place)


def attention(query, tokens: Tensor) -> Tensor:
    """[B, N, C, D] -> [B, N, D] by torch's own multi-head attention."""
    B, N, C, D = tokens.shape
    keys = tokens.reshape(B * N, C, D).transpose(0, 1)
    latent = query.latent.expand(1, B * N, D)
    weights = [query.query.weight, query.key.weight, query.value.weight]
    biases = torch.cat([query.query.bias, torch.zeros(D, dtype=tokens.dtype), query.value.bias])
    mixed, _ = F.multi_head_attention_forward(
        latent, keys, keys, D, HEADS, None, biases, None, None, False, 0.0, query.out.weight, query.out.bias,
        need_weights=False, use_separate_proj_weight=True, q_proj_weight=weights[0], k_proj_weight=weights[1],
        v_proj_weight=weights[2],
    )  # fmt: skip
    return mixed[0].reshape(B, N, D)


def combined(of, tokens: Tensor) -> Tensor:
    """By attention or by one weight a token."""
    if hasattr(of, "latent"):
        return attention(of, tokens)
    return sum(of.weight[c] * tokens[:, :, c] for c in range(tokens.shape[2])) + of.bias


def definition(model: nn.Module, fields: Tensor) -> Tensor:
    """The same function of the same parameters, from torch's own functions: a token of every channel is made."""
    front, rows = model.front_end, model.front_end.tokenizer
    tokens = []
    for c in range(fields.shape[1]):
        image = F.conv2d(fields[:, c : c + 1], rows.weight[c].reshape(WIDTH, 1, *PATCH), rows.bias[c], stride=PATCH)
        tokens.append(image.flatten(2).transpose(1, 2) + rows.embedding[c])
    tokens = torch.stack(tokens, 2)  # [B, N, C, D]
    if front.groups is None:
        x = attention(front.aggregation, tokens)
    else:
        of_groups = []
        for group, own in zip(front.aggregation.groups.values(), (slice(0, 4), slice(4, 7)), strict=True):
            leaves = [tokens[:, :, own]]
            if len(group.leaves) == 2:  # 4 channels are 2 and 2, 3 are 2 and 1
                leaves = [tokens[:, :, own][:, :, :2], tokens[:, :, own][:, :, 2:]]
            found = [combined(leaf, part) for leaf, part in zip(group.leaves, leaves, strict=True)]
            of_groups.append(found[0] if group.root is None else combined(group.root, torch.stack(found, 2)))
        x = attention(front.aggregation.final, torch.stack(of_groups, 2))
    x = between(model, x)
    image, output = x.transpose(1, 2).unflatten(2, (2, 4)), model.back_end.to_patches
    made = []
    for c in range(len(output.weight)):
        kernel = output.weight[c].T.reshape(WIDTH, 1, *PATCH)
        made.append(F.conv_transpose2d(image, kernel, stride=PATCH) + output.bias[c].reshape(PATCH).repeat(2, 4))
    return torch.cat(made, 1)


def outcome(model: nn.Module, function) -> dict[str, Tensor]:
    """Output and the gradients of all parameters and of the fields."""
    torch.manual_seed(3)
    fields = torch.randn(2, 7, *SIZE, dtype=torch.float64, requires_grad=True)
    out = function(fields)
    loss = (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum()
    names = [name for name, _ in model.named_parameters()]
    gradients = torch.autograd.grad(loss, [fields, *model.parameters()])
    return {"output": out.detach(), **dict(zip(["fields", *names], gradients, strict=True))}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [Forecaster, Convolutions], ids=["transformer", "convolutions"])
def test_a_foreign_model_between_the_ends_is_its_plain_definition(kind, form):
    model = scramble(kind(7, SIZE, PATCH, WIDTH, HEADS, aggregation=FORMS[form])).double()
    expected = outcome(model, lambda fields: definition(model, fields))
    for name, value in outcome(model, model).items():
        assert expected[name].norm() > 0, name
        assert (value - expected[name]).norm() <= 1e-10 * expected[name].norm(), name


def test_the_model_on_the_page_has_twenty_lines():
    lines = [line for line in front_end_page.MODEL.splitlines() if line.strip() and "import" not in line]
    assert len(lines) <= 20


def test_absent_channels_have_no_influence():
    front = scramble(ChannelFrontEnd(5, SIZE, PATCH, WIDTH, HEADS))
    fields, present = torch.randn(2, 5, *SIZE), torch.ones(2, 5, dtype=torch.bool)
    present[1, 2:4] = False
    other = torch.where(present[:, :, None, None], fields, 7.0)
    torch.testing.assert_close(front(fields, present), front(other, present))
    assert not torch.allclose(front(fields), front(other))


def test_ends_start_as_those_of_the_model_and_take_its_weights():
    model = make_model(width=16, heads=4, patch_size=2, forcings=[], predict="state")
    front = ChannelFrontEnd(model.domain.channels, model.domain.grid.shape, 2, 16, 4)
    back = ChannelBackEnd(front)
    for end, owners in ((front, ("tokenizer", "aggregation")), (back, ("to_patches",))):
        for name, value in end.state_dict().items():
            assert name.startswith(owners)
            assert torch.equal(value, model.state_dict()[name]), name
    scramble(model)
    whole = model.state_dict()
    front.load_state_dict({name: whole[name] for name in front.state_dict()})
    fields = torch.randn(1, 3, *model.domain.grid.shape)
    heard = []
    model.aggregation.register_forward_hook(lambda module, inputs, tokens: heard.append(tokens))
    model(fields[:, None], torch.zeros(1, 0, *model.domain.grid.shape), torch.tensor([24]))
    torch.testing.assert_close(front(fields), heard[0])


@pytest.mark.parametrize("aggregation", [None, {"kind": "hierarchical", "groups": 4, "tree": 2}], ids=["flat", "tree"])
@pytest.mark.parametrize("count", [2, 4])
def test_a_share_begins_as_the_whole_and_keeps_whole_groups(aggregation, count):
    names = [f"w{400 + 10 * i}" for i in range(11)]
    whole = ChannelFrontEnd(names, SIZE, PATCH, WIDTH, HEADS, aggregation, seed=5)
    outputs = ChannelBackEnd(whole, seed=5)
    held = []
    for index in range(count):
        front = ChannelFrontEnd(names, SIZE, PATCH, WIDTH, HEADS, aggregation, seed=5)
        back = ChannelBackEnd(front, seed=5)
        front.keep(index, count)
        back.keep(index, count)
        held += names[front.own]
        assert front.own == back.own
        assert front.holds.channels == tuple(names[front.own])
        for end, reference in ((front, whole), (back, outputs)):
            kept = {name: value.clone() for name, value in end.state_dict().items()}
            for name, value in kept.items():
                full = reference.state_dict()[name]
                assert torch.equal(value, full[front.own] if name.startswith(("token", "to_pat")) else full), name
            initialise(scramble(end), 5)  # as on the meta device: drawn for the share alone
            assert all(torch.equal(value, kept[name]) for name, value in end.state_dict().items())
    assert held == names


def test_a_share_tells_the_groups_it_holds_and_what_it_makes():
    front = ChannelFrontEnd(10, SIZE, PATCH, WIDTH, HEADS, {"kind": "hierarchical", "groups": 4})
    front.keep(1, 2)
    assert front.own == slice(6, 10)  # groups of 3, 3 | 2, 2
    assert list(front.aggregation.groups) == ["2", "3"]
    other = ChannelBackEnd(ChannelFrontEnd(10, SIZE, PATCH, WIDTH, HEADS), channels=["rain", "snow", "hail"])
    other.keep(0, 2)
    assert other.holds.channels == ("rain", "snow")
    assert other(torch.zeros(2, 8, WIDTH)).shape == (2, 2, *SIZE)


def front(channels=6, size=SIZE, patch=PATCH, width=WIDTH, heads=HEADS, **aggregation):
    return ChannelFrontEnd(channels, size, patch, width, heads, aggregation)


def twice(end):
    end.keep(0, 2)
    end.keep(0, 2)


FIELDS = torch.zeros(2, 6, *SIZE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: front()(torch.zeros(2, 5, *SIZE)), r"takes fields \[B, 6, 4, 12\], got \[2, 5, 4, 12\]"),
        (lambda: front()(torch.zeros(2, 6, 12, 4)), r"got \[2, 6, 12, 4\]"),
        (lambda: front()(torch.zeros(6, *SIZE)), r"got \[6, 4, 12\]"),
        (lambda: front()(FIELDS, torch.ones(6, dtype=torch.bool)), r"present is a bool tensor \[2, 6\].*bool \[6\]"),
        (lambda: front()(FIELDS, torch.ones(2, 1, dtype=torch.bool)), r"got torch.bool \[2, 1\]"),
        (lambda: front()(FIELDS, torch.ones(2, 6)), r"got torch.float32 \[2, 6\]"),
        (lambda: front()(FIELDS, [[True] * 6] * 2), "got list"),
        (lambda: front(size=(5, 12)), "5 x 12 points cannot be cut into patches of 2 x 3"),
        (lambda: front(patch=5), "patches of 5 x 5"),
        (lambda: front(patch=0), "patches of 0 x 0"),
        (lambda: front(width=18), "width 18 is not divisible by heads 4; choose a multiple, e.g. 20"),
        (lambda: front(heads=0), "front end: heads: input should be greater than or equal to 1"),
        (lambda: front(kind="deep"), "aggregation.kind"),
        (lambda: front(groups=2), "belongs to aggregation.kind hierarchical"),
        (lambda: front(kind="hierarchical", groups=7), "6 channels are too few for 7 groups of 1 sub-groups"),
        (lambda: front(kind="hierarchical", groups=4, tree=2), "6 channels are too few for 4 groups of 2 sub-groups"),
        (lambda: front(channels=0), "got none"),
        (lambda: front(channels=["t2m", "z500", "t2m"]), "got t2m twice"),
        (lambda: ChannelBackEnd(front(), channels=[]), "got none"),
        (lambda: ChannelBackEnd(front())(torch.zeros(2, 7, WIDTH)), r"takes tokens \[B, 8, 16\], got \[2, 7, 16\]"),
        (lambda: front().keep(0, 7), "6 channels cannot be split over 7 ranks"),
        (lambda: front().keep(0, 3), "2 x 4 positions cannot be split over 3 ranks"),
        (lambda: front(kind="hierarchical", groups=3).keep(0, 2), "3 channel groups cannot be split over 2 ranks"),
        (lambda: twice(front()), "has been split already"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_only_light_packages_are_imported():
    code = """
import sys
import weatherfm
weatherfm.ChannelFrontEnd, weatherfm.ChannelBackEnd
print("weatherfm.training" in sys.modules, "weatherfm.data_pipeline" in sys.modules)
weatherfm.split_channels
print({m.split(".")[0] for m in sys.modules} & {"xarray", "zarr", "dask", "tensorstore", "scipy", "pandas"} or "none")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.split() == ["False", "False", "none"]
