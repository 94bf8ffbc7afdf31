"""A backbone of the user's own, called once on tensors that hold nothing: what it does wrong is found before data are
read and devices are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.backbone_config import is_own
from weatherfm.model.model import WeatherViT
from weatherfm.model.own_backbone import require_other_grid
from weatherfm.model.tensor_plan import split_of


def try_backbones(models: Sequence[tuple[ModelConfig, Domain]]) -> None:
    """Make and call the backbone on the data of every store of a run; nothing where it is one of ours.

    Raises:
        InputError: a class that cannot be had, made or called so, that gives something else than it got, that names
            layers to split which it does not have, or that is not for several grids and is to be.
    """
    tried = [_tried(config, domain) for config, domain in models if is_own(config.backbone)]
    for one in tried[1:]:
        require_other_grid(tried[0], one)


def _tried(config: ModelConfig, domain: Domain) -> WeatherViT:
    with torch.device("meta"):
        model = WeatherViT(config, domain)
    assert model.backbone is not None
    assert model.own_backbone is not None
    split_of(config.backbone, model.backbone)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        backbone = model.backbone.to_empty(device="cpu")
        tokens = torch.zeros(1, model.tokens[0] * model.tokens[1], config.width)
        known = torch.zeros(1, model.own_backbone.conditions) if model.own_backbone.conditions else None
        try:
            backbone(tokens, known)
        except InputError:
            raise
        except Exception as error:  # a class of anybody's: whatever it says is told
            raise InputError(
                f"model.backbone {config.backbone} cannot be called ({type(error).__name__}: {error}); it gets tokens "
                f"{list(tokens.shape)} and {'None' if known is None else f'a condition {list(known.shape)}'}"
            ) from error
    return model
