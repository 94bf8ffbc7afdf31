"""A backbone of the user's own, called on tensors that hold nothing, as in two steps of a training: what it does wrong
is found before data are read and devices are asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.backbone_config import is_own
from weatherfm.model.data_view import take_of_data
from weatherfm.model.model import WeatherViT
from weatherfm.model.own_backbone import require_other_grid
from weatherfm.model.tensor_plan import Split, split_of, split_size

_VALUES = (
    "it is tried on tensors that hold no values, so that nothing may depend on values (.item(), float(x), bool(x), "
    "nonzero, masks as indices): compute all and choose by torch.where"
)


def try_backbones(models: Sequence[tuple[ModelConfig, Domain]]) -> None:
    """Make and call the backbone on the data of every store of a run; nothing where it is one of ours.

    Raises:
        InputError: a class that cannot be had, made or called so, that gives something else than it got, that names
            layers to split which it does not have, or that is not for several grids and is to be.
    """
    tried = [_tried(config, domain) for config, domain in models if is_own(config.backbone)]
    for one, (config, domain) in zip(tried[1:], models[1:], strict=False):
        require_other_grid(tried[0], one)
        if tried[0].tokens != one.tokens:
            _try_elsewhere(_without_values(*models[0]), _without_values(config, domain))


def _try_elsewhere(model: WeatherViT, there: WeatherViT) -> None:
    """Call the backbone of one grid on another, as training on several stores does."""
    config, (rows, columns) = model.config, there.tokens
    with _without_its_log(), FakeTensorMode(allow_non_fake_inputs=True):
        backbone, other = (cast(nn.Module, one.backbone).to_empty(device="cpu") for one in (model, there))
        take_of_data(backbone, other)
        tokens, known = _given(there)
        what = f"{config.backbone}, made for {model.tokens[0]} x {model.tokens[1]} patches, cannot be called on "
        cure = "name in its of_data every attribute that follows from grid and periodic, of each of its modules"
        _step(backbone, tokens, known, f"{what}{rows} x {columns} of other data", cure)


def _given(model: WeatherViT) -> tuple[Tensor, Tensor | None]:
    """Tokens and condition of one sample."""
    assert model.own_backbone is not None
    conditions = model.own_backbone.conditions
    tokens = torch.zeros(1, model.tokens[0] * model.tokens[1], model.config.width)
    return tokens, torch.zeros(1, conditions) if conditions else None


def _tried(config: ModelConfig, domain: Domain) -> WeatherViT:
    model = _without_values(config, domain)
    assert model.backbone is not None
    plan = split_of(config.backbone, model.backbone)
    halves = bool(plan) and not any(split_size(model.backbone, path, how) % 2 for path, how in plan.items())
    half = _without_values(config, domain) if halves else None  # what was made in the mode could not be given memory
    with _without_its_log(), FakeTensorMode(allow_non_fake_inputs=True):
        backbone = model.backbone.to_empty(device="cpu")
        tokens, known = _given(model)
        gets = f"{list(tokens.shape)} and {'None' if known is None else f'a condition {list(known.shape)}'}"
        _step(backbone, tokens, known, f"{config.backbone} cannot be called", f"it gets tokens {gets}")
        of_one = "let it keep nothing of a call that the next one uses (self.x = x.detach() at most)"
        _step(backbone, tokens, known, f"{config.backbone} cannot be trained for a second step", of_one)
        if half is not None:
            split = cast(nn.Module, half.backbone).to_empty(device="cpu")
            _try_split(config.backbone, split, plan, tokens, known)
    return model


def _step(backbone: nn.Module, tokens: Tensor, known: Tensor | None, what: str, cure: str) -> None:
    """Forward and backward."""
    try:
        backbone(tokens.clone().requires_grad_() + 0, known).sum().backward()
    except InputError:
        raise
    except Exception as error:  # a class of anybody's: whatever it says is told
        cure = _VALUES if isinstance(error, DataDependentOutputException | DynamicOutputShapeException) else cure
        raise InputError(f"model.backbone {what} ({type(error).__name__}: {error}); {cure}") from error


@contextmanager
def _without_its_log() -> Iterator[None]:
    """What it writes there stands in the error, too."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _without_values(config: ModelConfig, domain: Domain) -> WeatherViT:
    with torch.device("meta"):
        return WeatherViT(config, domain)


def _try_split(name: str, backbone: nn.Module, plan: Mapping[str, Split], tokens: Tensor, known: Tensor | None) -> None:
    """Call it as the first of two devices of `tp` would."""
    for path, how in plan.items():
        owner, _, attribute = path.rpartition(".")
        if how == "divided":
            setattr(backbone.get_submodule(owner), attribute, split_size(backbone, path, how) // 2)
            continue
        layer = cast(nn.Linear, backbone.get_submodule(path))
        layer.weight = nn.Parameter(layer.weight.chunk(2, 0 if how == "columns" else 1)[0])
        if how == "columns" and layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.chunk(2)[0])
    try:
        backbone(tokens, known)
    except Exception as error:  # a class of anybody's: whatever it says is told
        raise InputError(
            f"model.backbone {name} cannot be called where its layers are split as tensor_parallel says "
            f"({type(error).__name__}: {error}); what `columns` splits has to come into `rows`, and what counts it in "
            "between is `divided` (docs/backbones.md)"
        ) from error
