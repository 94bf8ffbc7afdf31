"""A backbone of the user's own: what it is made with and called with, what of it is kept, and what is refused."""

from __future__ import annotations

import random
import re
import sys
from types import ModuleType

import numpy as np
import own_backbones
import pytest
import torch
from places import ROOT
from toy_model import clock_of, inputs, make_domain, scramble

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.data_view import look_at, view_of
from weatherfm.model.initial import initialise
from weatherfm.model.loading import load_weights
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import whole
from weatherfm.model.tensor_plan import plan_problems, split_of
from weatherfm.model.weights import save_weights
from weatherfm.training.parallel.own_backbone_trial import try_backbones


def config(name="Plain", **settings) -> ModelConfig:
    return ModelConfig(**{"width": 16, "depth": 2, "heads": 4, "backbone": f"own_backbones:{name}"} | settings)


def model_of(name="Plain", domain=None, **settings) -> WeatherViT:
    return WeatherViT(config(name, **settings), domain or make_domain())


def test_it_stands_between_aggregation_and_head_and_is_told_what_is_known():
    """Against a backbone of the same class that is made and called here, by hand."""
    options = {"conditioning": "adaln", "noise": 3, "backbone_options": {"hidden": 3}}
    model = scramble(model_of("Layers", **options)).eval()
    history, forcings, lead = inputs(model)
    clock, noise = clock_of(model), torch.randn(2, 3)
    seen = {}
    model.head.register_forward_pre_hook(lambda module, given: seen.update(tokens=given[0]))
    model(history, forcings, lead, condition=clock, noise=noise)

    with torch.no_grad():
        own = own_backbones.Layers(16, 2, 4, (2, 4), True, 32 + 4 + 3, hidden=3).eval()
        own.load_state_dict(model.backbone.state_dict(), strict=False)
        hours = torch.full((2, 1), 24.0) / 10000 ** (torch.arange(16) / 16)
        known = torch.cat([hours.sin(), hours.cos(), clock, noise], 1)
        tokens = own(model.position(model._front(history, forcings, None)), known)
        expected = torch.nn.functional.layer_norm(tokens, (16,), model.norm.weight, model.norm.bias)
    torch.testing.assert_close(seen["tokens"], expected, rtol=1e-4, atol=1e-5)


def test_initial_values_that_no_seed_decides_are_refused():
    """Every rank would begin with its own."""
    with pytest.raises(InputError, match=r"Unseeded gave map.bias other values when it was made again with the same"):
        initialise(model_of("Unseeded"), seed=0)


def test_without_a_condition_the_lead_time_is_in_the_tokens():
    model = scramble(model_of("Layers"))
    assert model.backbone.told is None
    history, forcings, lead = inputs(model)
    assert (model(history, forcings, lead) - model(history, forcings, 2 * lead)).norm() > 1e-3


def test_initial_values_are_its_constructors_under_the_seed():
    first, same, other = (model_of("Layers") for _ in range(3))
    initialise(other, seed=1)
    values = {name: p for name, p in first.named_parameters() if name.startswith("backbone.")}
    assert len(values) == 2 * 12
    for name, value in values.items():
        torch.testing.assert_close(value, same.get_parameter(name), rtol=0, atol=0)
        drawn = value.ndim > 1
        assert (value - other.get_parameter(name)).norm() > 0.1 * value.norm() if drawn else True, name
    expected = torch.nn.Linear(16, 32)  # of the same spread as PyTorch's own
    found = first.backbone.blocks[1].linear1.weight
    assert found.std().item() == pytest.approx(expected.weight.std().item(), rel=0.2)
    assert first.own_backbone._initial == {}  # nothing is held of it


def test_making_one_leaves_the_random_numbers_of_others_as_they_were():
    own = model_of("Layers").own_backbone
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    own.build()
    own.take_initial("blocks.0.linear1.weight", 3)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_what_is_drawn_by_numpy_and_python_follows_from_the_seed_too():
    """Else replicas on several ranks began with other weights, and nobody told."""
    np.random.seed(5)
    random.seed(5)
    expected = np.random.rand(), random.random()
    np.random.seed(5)
    random.seed(5)
    first, same, other = (model_of("DrawnOtherwise") for _ in range(3))
    assert (np.random.rand(), random.random()) == expected
    initialise(other, seed=1)
    scale = "backbone.scale"
    torch.testing.assert_close(first.get_parameter(scale), same.get_parameter(scale), rtol=0, atol=0)
    assert (first.get_parameter(scale) - other.get_parameter(scale)).norm() > 1e-3


def test_weights_are_in_one_precision_whatever_the_constructor_says():
    """FSDP gathers no others together, and `validate` computes in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        model = model_of("DrawnOtherwise")
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in model.backbone.parameters()} == {torch.float64}
    assert model.get_parameter("backbone.scale").norm() > 0


def test_a_module_that_fails_when_it_is_imported_is_told(tmp_path, monkeypatch):
    (tmp_path / "broken_backbone.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = r"broken_backbone:A cannot be imported \(SyntaxError: .*\); correct the module broken_backbone"
    with pytest.raises(InputError, match=message):
        WeatherViT(ModelConfig(backbone="broken_backbone:A"), make_domain())


def test_what_is_no_weight_has_its_values_however_the_model_is_made(tmp_path):
    plain = scramble(model_of("Drawn"))
    assert plain.backbone.whole == 7
    expected = plain(*inputs(plain))
    with torch.device("meta"):
        made = WeatherViT(plain.config, plain.domain)
    assert all(p.is_meta for p in made.parameters())
    made.to_empty(device="cpu")
    for buffer in made.backbone.buffers():
        buffer.fill_(3)  # as memory happens to be
    made.set_statistics()
    made.load_state_dict(plain.state_dict())
    torch.testing.assert_close(made(*inputs(made)), expected, rtol=0, atol=0)

    save_weights(tmp_path / "w.safetensors", plain, {})
    loaded = load_weights(tmp_path / "w.safetensors")
    torch.testing.assert_close(loaded(*inputs(loaded)), expected, rtol=0, atol=0)
    assert loaded.config == plain.config


def test_weights_of_a_class_that_is_gone_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(own_backbones, "Gone_", own_backbones.Plain, raising=False)
    save_weights(tmp_path / "w.safetensors", model_of("Gone_"), {})
    monkeypatch.delattr(own_backbones, "Gone_")
    with pytest.raises(InputError, match=r"own_backbones:Gone_ cannot be imported .* PYTHONPATH"):
        load_weights(tmp_path / "w.safetensors")


OTHER = Grid(np.linspace(60, 40, 16), np.linspace(0, 30, 12))


def test_on_another_grid_it_is_what_it_says_follows_from_the_grid():
    settings = {"position": "place"}
    model, there = scramble(model_of("Layers", **settings)), make_domain(OTHER)
    other = scramble(model_of("Layers", there, **settings))
    look_at(model, view_of(model, model.config, there, whole(model.config, there), torch.device("cpu")))
    torch.testing.assert_close(model(*inputs(model)), other(*inputs(other)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("HeadsDivided", "made for 2 x 4 patches, and other data have 4 x 3; name in its of_data"),
        ("OfOneGrid", "name in its of_data"),
    ],
)
def test_on_another_grid_one_that_says_nothing_is_refused(name, message):
    config_of = config(name, position="place")
    with pytest.raises(InputError, match=message):
        try_backbones([(config_of, make_domain()), (config_of, make_domain(OTHER))])
    model, there = model_of(name, position="place"), make_domain(OTHER)
    with pytest.raises(InputError, match=message):
        view_of(model, model.config, there, whole(model.config, there), torch.device("cpu"))


def test_one_that_hides_what_follows_from_the_grid_is_found_before_it_trains():
    config_of = config("OfGridHidden", position="place")
    with pytest.raises(
        InputError, match=r"OfGridHidden, made for 2 x 4 patches, cannot be called on 4 x 3 of other data"
    ):
        try_backbones([(config_of, make_domain()), (config_of, make_domain(OTHER))])


def test_weights_of_one_grid_are_refused_whatever_it_says(monkeypatch):
    monkeypatch.setattr(own_backbones.OfOneGrid, "of_data", (), raising=False)
    config_of = config("OfOneGrid", position="place")
    with pytest.raises(InputError, match="table is of one grid, and other data have 4 x 3"):
        try_backbones([(config_of, make_domain()), (config_of, make_domain(OTHER))])


def test_under_autocast_it_may_give_what_products_are_in():
    model = scramble(model_of("Layers"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(*inputs(model)).dtype == torch.float32


WRONG = {
    "shape": r"gave \[1, 7, 16\] torch.float32 for tokens \[1, 8, 16\] torch.float32; it has to give the same",
    "dtype": r"gave \[1, 8, 16\] torch.float64 for tokens",
    "device": "gave a tensor on meta for tokens on cpu; let it stay where the tokens are",
    "tuple": "gave tuple for tokens; it has to give a tensor",
    "call": r"cannot be called \(AttributeError: .*no_such_thing.*\); it gets tokens \[1, 8, 16\] and None",
    "kept": r"cannot be trained for a second step \(RuntimeError: .*a second time.*\); let it keep nothing of a call",
    "constructor": r"cannot be made \(RuntimeError: no such thing\); its constructor takes width, .*\(wrong\)",
    "values": r"on tensors that hold no values, so that nothing may depend on values .*torch.where",
    "half": r"map.weight torch.float16, map.bias torch.float16 came out of its constructor; leave param",
    "scalar": r"scale has no dims to split; give it the shape \[1\]",
    "batches": "norm keeps statistics of batches",
    "twice": "map.weight is another parameter too",
    "buffer of weights": "the buffers copy are made of parameters",
    "names": r"names blocks.\*.mlp, which Wrong does not have; its linear layers are map",
    "words": "tensor_parallel has diagonals; it is a dict from names to columns, rows, divided",
    "numbers": "tensor_parallel names 0, which is no text",
    "kinds": "names norm, no nn.Linear",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_it_does_wrong_is_found_before_it_trains(wrong):
    with pytest.raises(InputError, match=WRONG[wrong]):
        try_backbones([(config("Wrong", backbone_options={"wrong": wrong}), make_domain())])


@pytest.mark.parametrize(
    ("name", "plan"),
    [("Plain", {"map": "columns"}), ("Plain", {"map": "rows"}), ("HeadsDivided", {"q": "columns", "out": "rows"})],
)
def test_plans_that_do_not_fit_together_are_found_before_it_trains(monkeypatch, name, plan):
    monkeypatch.setattr(getattr(own_backbones, name), "tensor_parallel", plan, raising=False)
    with pytest.raises(InputError, match=r"cannot be called where its layers are split as tensor_parallel says"):
        try_backbones([(config(name), make_domain())])


def test_what_fails_later_is_said_to_be_its_own():
    """The trial calls it on one sample."""
    try_backbones([(config("Wrong", backbone_options={"wrong": "other batches"}), make_domain())])
    model = model_of("Wrong", backbone_options={"wrong": "other batches"})
    with pytest.raises(InputError, match=r":Wrong failed \(KeyError: .of one sample only.\) on tokens \[2,"):
        model(*inputs(model))


def test_memory_that_is_lacking_is_no_fault_of_a_class(monkeypatch):
    def lacking(module, tokens, condition):
        raise torch.OutOfMemoryError("tried to allocate 9 GiB")

    monkeypatch.setattr(own_backbones.Plain, "forward", lacking)
    model = model_of()
    with pytest.raises(torch.OutOfMemoryError, match="9 GiB"):
        model(*inputs(model))


def test_one_that_does_all_right_is_passed():
    try_backbones([(config("Wrong", backbone_options={"wrong": ""}), make_domain())])
    try_backbones([(config("Layers", conditioning="adaln"), make_domain())])
    try_backbones([(config("HeadsDivided"), make_domain())])
    try_backbones([(ModelConfig(), make_domain())])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_backbones:Absent", "cannot be imported .*Absent"),
        ("no_such_package.x:Y", "cannot be imported .*no_such_package.* install its package, or put its folder"),
        ("own_backbones:NoModule", "is no torch.nn.Module"),
        ("own_backbones:torch", "is no torch.nn.Module"),
    ],
)
def test_names_that_name_no_module_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        WeatherViT(ModelConfig(backbone=name), make_domain())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotary": True}, "rotary: for the blocks of weatherfm alone"),
        ({"drop_path": 0.1, "mlp_ratio": 4.0}, "drop_path, mlp_ratio: for the blocks of weatherfm alone"),
        ({"dropout": 0.0, "mlp_convolution": False}, "dropout, mlp_convolution: for the blocks"),
        ({"noise": 2}, "noise reaches backbone own_backbones:Plain in its condition alone"),
        ({"windows": {"size": 4}}, "windows belong to backbone: windows"),
        ({"backbone": "own_backbones"}, "'own_backbones' is none of vit, windows"),
        ({"backbone": "own backbones:Plain"}, "no class of your own either"),
        ({"backbone": ":Plain"}, "no class of your own either"),
    ],
    ids=str,
)
def test_settings_that_it_cannot_follow_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config(**settings)


def test_what_is_recorded_of_it_can_be_read_again():
    told = config("Layers", conditioning="adaln", noise=2, backbone_options={"hidden": 2}).model_dump(mode="json")
    assert ModelConfig.model_validate(told) == config(
        "Layers", conditioning="adaln", noise=2, backbone_options={"hidden": 2}
    )
    assert "drop_path" not in told
    assert "backbone" not in ModelConfig().model_dump(mode="json")


def test_a_plan_is_spelt_out_and_has_to_divide():
    layers, heads = model_of("Layers").backbone, model_of("HeadsDivided").backbone
    names = {f"blocks.{i}.linear{n}": how for n, how in ((1, "columns"), (2, "rows")) for i in range(2)}
    assert split_of("m:Layers", layers) == names
    assert split_of("m:HeadsDivided", heads)["heads"] == "divided"
    shape = regular_grid((8, 16)).shape
    assert plan_problems(config("HeadsDivided"), shape, True, 4) == []
    (problem,) = plan_problems(config("HeadsDivided"), shape, True, 8)
    assert problem == "tp 8 does not divide 4, which own_backbones:HeadsDivided.heads has"
    (problem,) = plan_problems(config("Plain"), shape, True, 2)
    assert "own_backbones:Plain does not say how it is split; give the class tensor_parallel" in problem
    assert plan_problems(config("Plain"), shape, True, 1) == []


def test_the_example_of_the_page_is_one(monkeypatch):
    text = (ROOT / "docs" / "backbones.md").read_text()
    example = text.split("```python\n")[2].split("```")[0]
    module = ModuleType("of_the_page")
    exec(example, module.__dict__)
    monkeypatch.setitem(sys.modules, "of_the_page", module)
    given = config(backbone="of_the_page:Layers", backbone_options={"hidden": 2})
    try_backbones([(given, make_domain()), (given, make_domain(OTHER))])
    assert plan_problems(given, (8, 16), True, 4) == []
