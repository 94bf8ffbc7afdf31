"""The weights file round-trips, refuses what it is not, and ClimaX's tensors give ClimaX's function."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from toy_model import inputs, make_domain, make_model, scramble

from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.model.climax import load_climax, read_climax_checkpoint
from weatherfm.model.loading import load_weights
from weatherfm.model.weights import read_header, save_weights, weights_hash


@pytest.mark.parametrize("aggregation", [{}, {"kind": "hierarchical", "groups": 3, "tree": 2}], ids=str)
def test_round_trip_is_the_same_function(tmp_path, aggregation):
    settings = {"input_times": ["0h", "-24h"], "patch_size": (2, 4), "aggregation": aggregation}
    model = scramble(make_model(make_domain(static=2), **settings)).eval()
    path = tmp_path / "run" / "weights.safetensors"
    save_weights(path, model, {"steps": 7})
    loaded = load_weights(path)
    assert not loaded.training
    assert loaded.config == model.config
    assert loaded.domain.grid == model.domain.grid
    assert loaded.domain.channels == model.domain.channels
    np.testing.assert_array_equal(loaded.domain.mean, model.domain.mean)
    torch.testing.assert_close(loaded(*inputs(model)), model(*inputs(model)), rtol=0, atol=0)
    assert read_header(path)[2] == {"steps": 7}
    assert [p.name for p in path.parent.iterdir()] == ["weights.safetensors"]


def test_other_values_may_be_written_under_the_same_names(tmp_path):
    model = make_model()
    averaged = {name: torch.full_like(value, 0.5) for name, value in model.named_parameters()}
    save_weights(tmp_path / "w", model, {}, averaged)
    assert all((value == 0.5).all() for value in load_weights(tmp_path / "w").parameters())


def test_loading_draws_no_initial_values(tmp_path, monkeypatch):
    """At 89 million weights, drawing them first takes longer than all else."""
    model = make_model(make_domain(static=2))
    save_weights(tmp_path / "w", model, {"steps": 7})

    def refuse(*arguments, **named):
        raise AssertionError("an initial value was drawn")

    monkeypatch.setattr("weatherfm.model.model.initialise", refuse)
    monkeypatch.setattr("weatherfm.model.initial._draw", refuse)
    loaded = load_weights(tmp_path / "w", "cpu")
    assert loaded.provenance == {"steps": 7}
    for name, value in [*loaded.named_parameters(), *loaded.named_buffers()]:
        assert value.device.type == "cpu"
        torch.testing.assert_close(value, dict([*model.named_parameters(), *model.named_buffers()])[name])
    assert all(parameter.requires_grad for parameter in loaded.parameters())  # for fine-tuning


def test_a_loaded_model_does_not_depend_on_its_file(tmp_path):
    model, path = make_model(), tmp_path / "w"
    save_weights(path, model, {})
    loaded = load_weights(path)
    path.write_bytes(b"\0" * path.stat().st_size)  # in place, as some tools copy
    torch.testing.assert_close(dict(loaded.named_parameters()), dict(model.named_parameters()))


def test_hash_tells_files_apart(tmp_path):
    model = make_model()
    save_weights(tmp_path / "a", model, {})
    save_weights(tmp_path / "b", model, {})
    assert weights_hash(tmp_path / "a") == weights_hash(tmp_path / "b")
    save_weights(tmp_path / "b", scramble(model), {})
    assert weights_hash(tmp_path / "a") != weights_hash(tmp_path / "b")


def test_refusals_name_the_file(tmp_path):
    with pytest.raises(InputError, match="no weights file"):
        load_weights(tmp_path / "absent")
    foreign = tmp_path / "foreign"
    foreign.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_weights(foreign)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(InputError, match="not a weights file of this version"):
        load_weights(tmp_path / "other")
    model = make_model()
    short = {name: value for name, value in model.named_parameters() if name != "norm.bias"}
    save_weights(tmp_path / "short", model, {}, short)
    with pytest.raises(InputError, match=r"does not fit its own configuration.*norm\.bias"):
        load_weights(tmp_path / "short")
    whole = tmp_path / "whole"
    save_weights(whole, model, {})
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_weights(tmp_path / "cut")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: header.pop("domain"), "does not tell domain"),
        (lambda header: header.pop("provenance"), "does not tell provenance"),
        (lambda header: header["domain"].pop("grid"), "its domain cannot be read .'grid'"),
        (lambda header: header["domain"].update(channels=3), "its domain cannot be read"),
        (None, "its header is no JSON"),
    ],
)
def test_damaged_headers(tmp_path, change, words):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    whole = tmp_path / "whole"
    save_weights(whole, make_model(), {})
    with safe_open(whole, framework="pt") as file:
        header = json.loads(file.metadata()["weatherfm"])
    del header["checksum"]  # as a version before wrote it
    if change:
        change(header)
    text = json.dumps(header)
    save_file(load_file(whole), tmp_path / "w", metadata={"weatherfm": text if change else text[:-9]})
    with pytest.raises(InputError, match=words):
        load_weights(tmp_path / "w")


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        save_weights(tmp_path / "w", make_model(), {})
    finally:
        os.umask(before)
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o640


def test_a_home_is_a_home(tmp_path, monkeypatch):
    import weatherfm

    monkeypatch.setenv("HOME", str(tmp_path))
    save_weights(tmp_path / "w", make_model(), {"steps": 7})
    assert weatherfm.load("~/w", "cpu").provenance == {"steps": 7}


# --- ClimaX ------------------------------------------------------------------------------------------------

VARIABLES = ["land_sea_mask", "z500", "t850", "t2m", "u10"]  # the checkpoint's; ours are a subset in another order


class ClimaXReference(nn.Module):
    """ClimaX's published forward (arXiv 2301.10343, appendix) with its parameter names, written from the paper."""

    def __init__(self, variables, tokens, width=32, depth=2, heads=4, patch=2):
        super().__init__()
        self.tokens, self.patch, self.heads = tokens, patch, heads
        self.token_embeds = nn.ModuleList(
            nn.ModuleDict({"proj": nn.Conv2d(1, width, patch, patch)}) for _ in range(variables)
        )
        self.var_embed = nn.Parameter(torch.zeros(1, variables, width))
        self.var_query = nn.Parameter(torch.zeros(1, 1, width))
        self.var_agg = nn.MultiheadAttention(width, heads, batch_first=True)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens[0] * tokens[1], width))
        self.lead_time_embed = nn.Linear(1, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width),
                    "attn": nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}),
                    "norm2": nn.LayerNorm(width),
                    "mlp": nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}),
                }
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, variables * patch**2),
        )

    def forward(self, x, lead_time_hours, ids):
        tokens = torch.stack(
            [self.token_embeds[i]["proj"](x[:, [k]]).flatten(2).transpose(1, 2) for k, i in enumerate(ids)], 2
        )  # [B, N, V, D]
        tokens = tokens + self.var_embed[0, ids]
        B, N = tokens.shape[:2]
        query = self.var_query.expand(B * N, -1, -1)
        x = self.var_agg(query, tokens.flatten(0, 1), tokens.flatten(0, 1))[0][:, 0].unflatten(0, (B, N))
        x = x + self.pos_embed + self.lead_time_embed(lead_time_hours[:, None] / 100)[:, None]
        for block in self.blocks:
            q, k, v = block["attn"]["qkv"](block["norm1"](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = ((q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5).softmax(-1) @ v
            x = x + block["attn"]["proj"](mixed.transpose(1, 2).flatten(2))
            x = x + block["mlp"]["fc2"](nn.functional.gelu(block["mlp"]["fc1"](block["norm2"](x))))
        x = self.head(self.norm(x)).unflatten(1, self.tokens).unflatten(-1, (self.patch, self.patch, -1))
        x = x.permute(0, 5, 1, 3, 2, 4)  # [B, V, h, patch, w, patch]
        return x.flatten(4).flatten(2, 3)


def climax_pair(shape=(8, 16), **settings):
    torch.manual_seed(3)
    reference = ClimaXReference(len(VARIABLES), (4, 8))
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.3)
    domain = make_domain(regular_grid(shape), ("t2m", "z500", "u10"))
    model = make_model(domain, predict="state", patch_size=2, forcings=[], **settings).eval()
    return reference.double(), model.double()


@pytest.mark.parametrize("stacked", [False, True], ids=["a conv each", "stacked"])
def test_climax_checkpoint_is_the_same_function(tmp_path, stacked):
    reference, model = climax_pair()
    state = {f"net.{name}": value for name, value in reference.state_dict().items()}
    if stacked:
        for kind, name in (("weight", "proj_weights"), ("bias", "proj_biases")):
            parts = [state.pop(f"net.token_embeds.{i}.proj.{kind}") for i in range(len(VARIABLES))]
            state[f"net.token_embeds.{name}"] = torch.stack(parts)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "climax.ckpt")
    load_climax(model, read_climax_checkpoint(tmp_path / "climax.ckpt"), VARIABLES, (4, 8))

    history, forcings, lead = inputs(model, dtype=torch.float64)
    ids = [VARIABLES.index(c) for c in model.domain.channels]
    expected = reference(history[:, 0], lead.double(), ids)[:, ids]
    torch.testing.assert_close(model(history, forcings, lead), expected, rtol=1e-10, atol=1e-10)


def test_climax_position_embedding_is_interpolated_to_another_grid():
    reference, model = climax_pair((16, 32))
    with torch.no_grad():
        reference.pos_embed.copy_(torch.linspace(0, 1, 8).repeat(4)[None, :, None].expand_as(reference.pos_embed))
    load_climax(model, reference.state_dict(), VARIABLES, (4, 8))
    position = model.position.weight.detach().unflatten(0, (8, 16))
    assert position.shape == (8, 16, 32)
    assert (position[:, 1:] - position[:, :-1] > -1e-3).all()  # still rises from west to east
    torch.testing.assert_close(position[0], position[7])


def test_climax_refusals(tmp_path):
    reference, model = climax_pair()
    state = reference.state_dict()
    with pytest.raises(InputError, match="no variable t2m"):
        load_climax(model, state, ["z500", "u10", "v10", "t850", "lsm"], (4, 8))
    with pytest.raises(InputError, match=r"blocks\.1\.norm1\.weight"):
        load_climax(model, {k: v for k, v in state.items() if not k.startswith("blocks.1")}, VARIABLES, (4, 8))
    with pytest.raises(InputError, match="does not fit the model"):
        load_climax(model, {**state, "norm.weight": torch.ones(8)}, VARIABLES, (4, 8))
    _, increment = climax_pair()
    increment = make_model(increment.domain, patch_size=2, forcings=[])
    with pytest.raises(InputError, match="predict=state"):
        load_climax(increment, state, VARIABLES, (4, 8))
    for setting, theirs in ({"conditioning": "adaln"}, "embed"), ({"position": "place"}, "learned"):
        (name,) = setting
        _, other = climax_pair(**setting)
        with pytest.raises(InputError, match=f"set model.{name}={theirs}"):
            load_climax(other, state, VARIABLES, (4, 8))
    with pytest.raises(InputError, match="no ClimaX checkpoint"):
        read_climax_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "bad.ckpt").write_text(json.dumps({}))
    with pytest.raises(InputError, match="cannot be read"):
        read_climax_checkpoint(tmp_path / "bad.ckpt")
