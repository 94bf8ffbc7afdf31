"""A masked autoencoder against its definition, written out patch by patch; what it sees, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from weatherfm.config import parse_settings
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import plane_of, regular_grid
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.hidden_patches import hidden_points, visible_at, visible_in_batch
from weatherfm.model.loading import load_weights
from weatherfm.model.model import WeatherViT
from weatherfm.model.reconstruct import reconstruct
from weatherfm.model.reconstruction_config import ReconstructionConfig
from weatherfm.model.tokenizer import patches_at, patchify
from weatherfm.model.weights import save_weights

CHANNELS = ("z500", "t850", "u10")
SHAPE, PATCH, WIDTH, HEADS = (6, 10), 4, 16, 2  # 2 x 3 patches, of which the last of each axis reach beyond the grid
DECODER = {"mask_ratio": 0.5, "depth": 2, "width": 8, "heads": 2}


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def domain(shape: tuple[int, int] = SHAPE, masks: dict | None = None) -> Domain:
    rng = np.random.default_rng(1)
    mean, std = rng.normal(size=3), rng.uniform(1, 2, 3)
    return Domain(CHANNELS, regular_grid(shape), mean, std, std / 4, masks=masks or {})


def build(held: Domain | None = None, **model) -> WeatherViT:
    settings = {
        "patch_size": PATCH, "width": WIDTH, "depth": 2, "heads": HEADS, "drop_path": 0.0, "forcings": [],
        "reconstruction": DECODER,
    }  # fmt: skip
    built = WeatherViT(parse_settings(ModelConfig, settings | model, "test"), held or domain())
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return built.eval()


def batch(samples: int = 3, shape: tuple[int, int] = SHAPE) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    visible = np.stack([np.sort(np.random.default_rng(i).permutation(6)[:3]) for i in range(samples)])
    return torch.randn(samples, 1, 3, *shape, generator=random), torch.from_numpy(visible)


def run(model: WeatherViT, states: Tensor, visible: Tensor, **given) -> Tensor:
    forcings = torch.zeros(len(states), len(model.forcings), *states.shape[-2:])
    return model(states, forcings, torch.zeros(len(states)), visible=visible, **given)


# The definition -----------------------------------------------------------------------------------------------


def linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    out = x @ weights[f"{name}.weight"].T
    return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out


def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """[Q, D], [K, D], [K, D] -> [Q, D]."""
    size = query.shape[1] // heads
    parts = []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        scores = query[:, own] @ key[:, own].T / math.sqrt(size)
        parts.append(scores.softmax(1) @ value[:, own])
    return torch.cat(parts, 1)


def block(weights: dict[str, Tensor], name: str, x: Tensor, heads: int) -> Tensor:
    seen = norm(weights, f"{name}.attention_norm", x)
    query, key, value = (linear(weights, f"{name}.attention.{one}", seen) for one in ("query", "key", "value"))
    x = x + linear(weights, f"{name}.attention.out", attend(query, key, value, heads))
    hidden = linear(weights, f"{name}.mlp.expand", norm(weights, f"{name}.mlp_norm", x))
    return x + linear(weights, f"{name}.mlp.contract", 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))))


def patch_of(field: Tensor, number: int) -> Tensor:
    """[16] of a field [6, 10]: points beyond its edge are those on it."""
    row, column = divmod(number, 3)
    rows = [min(row * PATCH + i, SHAPE[0] - 1) for i in range(PATCH)]
    columns = [min(column * PATCH + i, SHAPE[1] - 1) for i in range(PATCH)]
    return torch.stack([field[i, j] for i in rows for j in columns])


def written_out(model: WeatherViT, state: Tensor, seen: list[int]) -> Tensor:
    """[C, H, W] of one normalised state [C, H, W]."""
    w = dict(model.named_parameters())
    tokens = []
    for number in seen:
        of_channels = torch.stack(
            [
                w["tokenizer.weight"][c] @ patch_of(state[c], number)
                + w["tokenizer.bias"][c]
                + w["tokenizer.embedding"][c]
                for c in range(3)
            ]
        )
        query = linear(w, "aggregation.query", w["aggregation.latent"])[None]
        key, value = (linear(w, f"aggregation.{one}", of_channels) for one in ("key", "value"))
        joined = linear(w, "aggregation.out", attend(query, key, value, HEADS))[0]
        tokens.append(joined + w["position.weight"][number])
    x = torch.stack(tokens)
    for i in range(2):
        x = block(w, f"blocks.{i}", x, HEADS)
    small = linear(w, "reconstruction.embed", norm(w, "norm", x))
    whole = [
        (small[seen.index(number)] if number in seen else w["reconstruction.hidden"])
        + w["reconstruction.position.weight"][number]
        for number in range(6)
    ]
    x = torch.stack(whole)
    for i in range(2):
        x = block(w, f"reconstruction.blocks.{i}", x, 2)
    x = norm(w, "reconstruction.norm", x)
    out = torch.zeros(3, 8, 12)
    for number in range(6):
        row, column = divmod(number, 3)
        for c in range(3):
            values = w["to_patches.weight"][c] @ x[number] + w["to_patches.bias"][c]
            out[c, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = values.view(4, 4)
    return out[:, : SHAPE[0], : SHAPE[1]]


@pytest.mark.parametrize("evaluate", ["folded", "tokens"])
def test_it_computes_what_the_definition_says_and_so_are_its_gradients(evaluate):
    model, (states, visible) = build(aggregation={"evaluate": evaluate}), batch()
    made = run(model, states, visible)
    expected = torch.stack([written_out(model, one[0], own.tolist()) for one, own in zip(states, visible, strict=True)])
    torch.testing.assert_close(made, expected, rtol=1e-10, atol=1e-12)
    names, parameters = zip(*model.named_parameters(), strict=True)
    weight = torch.randn(made.shape, generator=torch.Generator().manual_seed(5))
    found = torch.autograd.grad((made * weight).sum(), parameters)
    wanted = torch.autograd.grad((expected * weight).sum(), parameters)
    for name, one, other in zip(names, found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11, msg=name)


FORMS = {
    "plain": {},
    "places and adaptive norms": {"position": "place", "conditioning": "adaln", "rotary": True},
    "groups": {"aggregation": {"kind": "hierarchical", "groups": 3, "local": "linear"}},
}


@pytest.mark.parametrize("model", FORMS.values(), ids=FORMS)
def test_what_is_hidden_is_not_looked_at_whatever_it_is(model):
    built, (states, visible) = build(**model), batch()
    known = {"condition": torch.ones(3, len(built.conditions))} if built.conditions else {}
    made = run(built, states, visible, **known)
    hidden = hidden_points(visible, (2, 3), (4, 4), SHAPE)[:, None, None]
    torch.testing.assert_close(
        run(built, torch.where(hidden, torch.nan, states), visible, **known), made, rtol=0, atol=0
    )
    other = run(built, torch.where(hidden, states, states + 1), visible, **known)
    assert (other - made).abs().amax((1, 2, 3)).min() > 1e-3  # of each sample, what is seen is
    assert made[:, :, hidden[0, 0, 0]].std() > 0


def test_rotary_turns_by_where_a_patch_lies_and_not_by_how_many_are_seen():
    """With all patches but one seen, those of a whole state are turned as in a model without hiding."""
    model = build(rotary=True)
    attention = model.blocks[0].attention
    x = torch.randn(1, 6, WIDTH, generator=torch.Generator().manual_seed(1))
    chosen = torch.tensor([[0, 2, 3, 5]])
    query = x.unflatten(-1, (HEADS, -1)).transpose(1, 2)
    turned = attention.rotary(query)
    torch.testing.assert_close(attention.rotary(query[:, :, chosen[0]], chosen), turned[:, :, chosen[0]])
    torch.testing.assert_close(attention(x, torch.arange(6)[None]), attention(x))


# Masks --------------------------------------------------------------------------------------------------------


def test_chosen_patches_are_those_of_all():
    x = torch.randn(2, 3, 8, 12)
    visible = torch.tensor([[0, 3, 5], [1, 2, 4]])
    whole = patchify(x, (4, 4))
    torch.testing.assert_close(patches_at(x, (4, 4), visible), torch.stack([whole[i, visible[i]] for i in range(2)]))


def test_patches_follow_from_seed_and_name_alone_and_none_is_preferred():
    drawn = visible_in_batch(0, 7, 64, 20, 5)
    assert drawn.shape == (64, 5)
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, visible_in_batch(0, 7, 64, 20, 5))
    assert not np.array_equal(drawn, visible_in_batch(0, 8, 64, 20, 5))
    assert not np.array_equal(drawn, visible_in_batch(1, 7, 64, 20, 5))
    counts = np.bincount(np.concatenate([visible_in_batch(0, i, 64, 20, 5).ravel() for i in range(30)]), minlength=20)
    assert abs(counts / counts.mean() - 1).max() < 0.15
    times = np.array(["1959-12-31", "2001-01-01", "2001-01-02"], "datetime64[D]")
    of_times = visible_at(0, times, 20, 5)
    np.testing.assert_array_equal(of_times[1:], visible_at(0, times[1:].astype("datetime64[ns]"), 20, 5))
    assert len({tuple(row) for row in of_times}) == 3
    assert visible_at(0, times[:0], 20, 5).shape == (0, 5)


def test_hidden_points_are_those_of_patches_that_are_not_seen():
    found = hidden_points(torch.tensor([[0, 5]]), (2, 3), (4, 4), SHAPE)[0]
    expected = np.ones((6, 10), bool)
    expected[:4, :4] = expected[4:, 8:] = False
    np.testing.assert_array_equal(found.numpy(), expected)


def test_as_many_are_seen_as_the_ratio_leaves():
    assert ReconstructionConfig().visible(16) == 4
    assert ReconstructionConfig(mask_ratio=0.9).visible(196) == 20
    assert ReconstructionConfig(mask_ratio=0.5).visible(5) == 2  # 2.5: the even one
    for ratio in ReconstructionConfig(mask_ratio=0.7).ratios_for(196, 8):
        assert ReconstructionConfig(mask_ratio=float(ratio)).visible(196) % 8 == 0


@pytest.mark.parametrize(
    ("ratio", "positions", "message"),
    [
        (0.9, 4, "leaves nothing to see; choose 0.8, which leaves 1"),
        (0.1, 4, "leaves nothing to reconstruct; choose 0.2, which leaves 3"),
        (0.5, 1, "leaves nothing to see; make model.patch_size smaller"),
    ],
)
def test_masks_that_leave_nothing_are_refused_with_one_that_does(ratio, positions, message):
    with pytest.raises(InputError, match=message):
        ReconstructionConfig(mask_ratio=ratio).visible(positions)
    if "choose" in message:
        chosen = float(message.split("choose ")[1].split(",")[0])
        assert 1 <= ReconstructionConfig(mask_ratio=chosen).visible(positions) < positions


# Settings, weights, and the model at work -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"noise": 4}, "noise cannot be had with reconstruction"),
        ({"decoder_fields": 2, "truncation": 5}, "decoder_fields, truncation cannot be had"),
        ({"mlp_convolution": True}, "mlp_convolution"),
        ({"predict": "state"}, "predict"),
        ({"head_depth": 0}, "head_depth"),
        (
            {"reconstruction": {"width": 20, "heads": 3}},
            "width 20 does not go with its 3 heads; choose a multiple of 12",
        ),
        ({"reconstruction": {"width": 8, "heads": 4}, "rotary": True}, "multiple of 16, e.g. 16"),
        ({"reconstruction": {"mask_ratio": 1.0}}, "mask_ratio"),
        ({"reconstruction": {"mask_ratio": 0.0}}, "mask_ratio"),
        (
            {"reconstruction": {"ratio": 0.5}},
            "unknown key reconstruction.ratio; did you mean reconstruction.mask_ratio",
        ),
    ],
    ids=str,
)
def test_settings_that_cannot_be(model, message):
    with pytest.raises(InputError, match=message):
        parse_settings(ModelConfig, {"width": 16, "heads": 2, "reconstruction": {}} | model, "test")


def test_weights_hold_encoder_and_decoder_and_say_so(tmp_path):
    torch.set_default_dtype(torch.float32)
    model, (states, visible) = build(), batch()
    save_weights(tmp_path / "w.safetensors", model, {})
    held = load_weights(tmp_path / "w.safetensors")
    assert held.config.reconstruction == ReconstructionConfig(**DECODER)
    torch.testing.assert_close(run(held, states.float(), visible), run(model, states.float(), visible), rtol=0, atol=0)
    with pytest.raises(InputError, match=r"masked autoencoder \(.*\), which forecasts nothing"):
        held(states.float(), torch.zeros(3, 0, *SHAPE), torch.zeros(3))


def test_patches_that_are_none_are_refused():
    model, (states, visible) = build(), batch()
    for wrong in (visible[:2], visible[:, :0], torch.arange(6).expand(3, 6), visible[0]):
        with pytest.raises(InputError, match="visible must hold numbers of some of the 6 patches"):
            run(model, states, wrong)
    with pytest.raises(InputError, match="this model forecasts and hides no patches"):
        run(build(reconstruction=None), states, visible)


def test_states_in_memory_are_reconstructed_in_their_units():
    torch.set_default_dtype(torch.float32)
    masks = {"t850": np.eye(*SHAPE, dtype=bool)}
    model = build(domain(masks=masks), forcings=["latitude"], conditioning="adaln")
    held = model.domain
    rng = np.random.default_rng(0)
    states = (held.mean[:, None, None] + held.std[:, None, None] * rng.normal(size=(5, 3, *SHAPE))).astype(np.float32)
    states[:, 1, masks["t850"]] = np.nan
    times = np.datetime64("2001-01-01T06") + np.arange(5) * np.timedelta64(6, "h")
    found = reconstruct(model, states, times=times, seed=3, batch_size=2)
    np.testing.assert_array_equal(found.visible, visible_at(3, times, 6, 3))
    np.testing.assert_array_equal(found.hidden[1], hidden_points(torch.tensor(found.visible), (2, 3), (4, 4), SHAPE)[1])
    assert found.fields.shape == states.shape
    assert np.isnan(found.fields[:, 1, masks["t850"]]).all()
    assert np.isfinite(found.fields[:, 0]).all()
    again = reconstruct(model, states[3:], found.visible[3:, ::-1], times[3:])
    np.testing.assert_allclose(again.fields, found.fields[3:], rtol=1e-4, atol=1e-5)


def test_states_without_values_are_told_where_they_are_seen():
    """Where they are hidden, or at points of a mask, nothing is looked at."""
    torch.set_default_dtype(torch.float32)
    model = build(domain(masks={"t850": np.eye(*SHAPE, dtype=bool)}))
    states, visible = np.zeros((2, 3, *SHAPE), np.float32), np.array([[0], [4]])
    states[1, 1, 5, 5] = states[0, :, :4, 4:] = np.nan  # patch 4 is rows 4 and 5, columns 4 to 7
    expected = reconstruct(model, np.nan_to_num(states), visible)
    np.testing.assert_array_equal(reconstruct(model, states, visible).fields, expected.fields)
    states[1, 2, 5, 6] = np.inf
    with pytest.raises(InputError, match=r"states\[1\] has no finite value of .* at row 5, column 6, .* 1 such points"):
        reconstruct(model, states, visible)


def test_what_is_no_model_is_refused():
    with pytest.raises(InputError, match=r"what weatherfm.load\('weights.safetensors'\) returns, got str"):
        reconstruct("weights.safetensors", np.zeros((2, 3, *SHAPE)))


def test_pictures_need_no_times():
    torch.set_default_dtype(torch.float32)
    ones = np.ones(3)
    model = build(Domain(tuple(f"refl{nm}" for nm in (450, 550, 650)), plane_of(SHAPE), ones / 3, ones / 10, ones))
    assert reconstruct(model, np.full((2, 3, *SHAPE), 0.3), np.array([[0], [4]])).fields.shape == (2, 3, *SHAPE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"states": np.zeros((2, 3, 6, 9))}, r"shape \[2, 3, 6, 9\]; this model takes \[n, 1, 3, 6, 10\]"),
        ({"visible": np.array([[0, 0], [1, 2]])}, "as many different numbers from 0 to 5"),
        ({"visible": np.array([[0, 6], [1, 2]])}, "as many different numbers from 0 to 5"),
        ({"visible": np.array([[0.5], [1.0]])}, "got float64"),
        ({"visible": [[0, 1], [2]]}, "as many different numbers from 0 to 5"),
        ({"visible": 5}, "as many different numbers from 0 to 5"),
        ({"visible": None}, "give times= of the states"),
        ({"seed": -1}, "seed must be 0 or more, and batch_size 1 or more; got -1 and 16"),
        ({"batch_size": 0}, "seed must be 0 or more, and batch_size 1 or more; got 0 and 0"),
        ({"times": np.array(["2001-01-01"], "datetime64[D]")}, "times must be one for each of 2 states"),
        ({"times": np.array(["2001-01-01", "NaT"], "datetime64[D]")}, "one for each of 2 states, got NaT"),
        ({"states": np.full((2, 3, *SHAPE), np.nan)}, r"states\[0\] has no finite value of \w+ at row 0, column 0"),
        ({"model": {"reconstruction": None}}, "this model forecasts"),
    ],
    ids=str,
)
def test_what_cannot_be_reconstructed(given, message):
    usual = {"states": np.zeros((2, 3, *SHAPE)), "visible": np.array([[0], [1]])} | given
    model = build(**usual.pop("model", {}))
    with pytest.raises(InputError, match=message):
        reconstruct(model, usual.pop("states"), **usual)
