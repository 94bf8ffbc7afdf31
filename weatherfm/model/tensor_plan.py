"""How a backbone of the user's own is to be split over `tp`: its class' `tensor_parallel`, checked and spelt out.

    tensor_parallel = {"blocks.*.expand": "columns", "blocks.*.contract": "rows", "blocks.*.heads": "divided"}

columns: a linear layer's outputs are split; rows: its inputs, and what it makes is added up over ranks; divided: a
whole number that is an attribute of a module, such as a number of heads, and holds for a rank. `*` stands for one name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from torch import nn

from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig, patch_counts
from weatherfm.model.backbone_config import is_own
from weatherfm.model.own_backbone import OwnBackbone, backbone_class

Split = Literal["columns", "rows", "divided"]
_SPLITS = ("columns", "rows", "divided")


def plan_problems(config: ModelConfig, shape: tuple[int, int], periodic: bool, tp: int) -> list[str]:
    """What keeps the backbone of a model from being split over so many devices; empty where nothing does.

    Raises:
        InputError: as `split_of`, or a backbone that cannot be made.
    """
    if not is_own(config.backbone) or tp == 1:
        return []
    name = config.backbone
    if not getattr(backbone_class(name), "tensor_parallel", None):
        return [
            f"tp {tp}: {name} does not say how it is split; give the class tensor_parallel, a dict from names of its "
            'linear layers to "columns" or "rows", as {"blocks.*.mlp.expand": "columns", "blocks.*.mlp.contract": '
            '"rows"} (docs/backbones.md), or set parallel.tp=1'
        ]
    sizes = _sizes(config.model_dump_json(), patch_counts(config.patch, shape), periodic)
    return [f"tp {tp} does not divide {size}, which {name}.{path} has" for path, size in sizes.items() if size % tp]


@lru_cache(maxsize=8)
def _sizes(config: str, grid: tuple[int, int], periodic: bool) -> dict[str, int]:
    """What of a backbone is split, and its size, in all."""
    settings = ModelConfig.model_validate_json(config)
    module = OwnBackbone(settings, grid, periodic, 1).build()
    return {path: split_size(module, path, how) for path, how in split_of(settings.backbone, module).items()}


def split_size(module: nn.Module, path: str, how: Split) -> int:
    """Numbers that are dealt out to ranks: outputs or inputs of a layer, or an attribute."""
    if how == "divided":
        owner, _, attribute = path.rpartition(".")
        return int(getattr(module.get_submodule(owner), attribute))
    layer = module.get_submodule(path)
    assert isinstance(layer, nn.Linear)  # `split_of` saw to it
    return layer.out_features if how == "columns" else layer.in_features


def split_of(name: str, module: nn.Module) -> dict[str, Split]:
    """Path of a linear layer, or of an attribute -> how it is split, as the class says; empty where it says nothing.

    Args:
        name: of the class, for messages.
        module: the backbone.

    Raises:
        InputError: names that it does not have, layers that are not linear, or other words.
    """
    plan = getattr(module, "tensor_parallel", None) or {}
    if not isinstance(plan, Mapping) or (odd := sorted({str(how) for how in plan.values()} - set(_SPLITS))):
        told = plan if not isinstance(plan, Mapping) else ", ".join(odd)
        raise InputError(f"{name}.tensor_parallel has {told}; it is a dict from names to {', '.join(_SPLITS)}")
    if nameless := [key for key in plan if not isinstance(key, str)]:
        raise InputError(f"{name}.tensor_parallel names {nameless[0]!r}, which is no text; name layers by their paths")
    paths = [path for path, _ in module.named_modules() if path]
    found: dict[str, Split] = {}
    absent = []
    for pattern, how in plan.items():
        owner, _, attribute = pattern.rpartition(".")
        if how == "divided":
            owners = [path for path in ["", *paths] if _fits(owner, path)]
            fitting = [f"{path}.{attribute}".lstrip(".") for path in owners if _is_number(module, path, attribute)]
        else:
            fitting = [path for path in paths if _fits(pattern, path)]
        absent += [] if fitting else [pattern]
        found |= {path: how for path in fitting}
    if absent:
        raise InputError(
            f"{name}.tensor_parallel names {', '.join(absent)}, which {name.partition(':')[2]} does not have; its "
            f"linear layers are {', '.join(_linear_layers(module))}"
        )
    layers = [path for path, how in found.items() if how != "divided"]
    if odd := [path for path in layers if not isinstance(module.get_submodule(path), nn.Linear)]:
        raise InputError(f"{name}.tensor_parallel names {', '.join(odd)}, no nn.Linear; such layers are not split")
    return found


def _fits(pattern: str, path: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"[^.]+"), path) is not None


def _is_number(module: nn.Module, path: str, attribute: str) -> bool:
    value = getattr(module.get_submodule(path), attribute, None)
    return isinstance(value, int) and not isinstance(value, bool)


def _linear_layers(module: nn.Module) -> list[str]:
    """With `*` for the number in a list, each once."""
    names = [path for path, part in module.named_modules() if isinstance(part, nn.Linear)]
    return list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names))
