"""Which weights learn of a model that starts from trained ones."""

from __future__ import annotations

from torch import nn

from weatherfm.errors import InputError
from weatherfm.model.lora import AdaptedLinear, is_factor
from weatherfm.training.start_config import StartFrom


def freeze(model: nn.Module, settings: StartFrom | None) -> None:
    """Let what shall not learn have no gradients: what `freeze` names but for factors, and matrices that have these.

    Args:
        model: with its factors (`weatherfm.training.parallel.build_model.meta_model`), split over ranks or not.
        settings: None: all learns.

    Raises:
        InputError: a name that no weight has, or nothing that would learn.
    """
    if settings is None:
        return
    for module in model.modules():
        if isinstance(module, AdaptedLinear):
            module.weight.requires_grad_(False)
    names = [name for name, _ in model.named_parameters() if not is_factor(name)]
    if idle := [part for part in settings.freeze if not any(_belongs(name, part) for name in names)]:
        parts = sorted({name.partition(".")[0] for name in names})
        raise InputError(
            f"start_from.freeze names {', '.join(idle)}, which no weight's name starts with; there are "
            f"{', '.join(parts)}, and blocks by number (blocks.0)"
        )
    for name in names:
        if any(_belongs(name, part) for part in settings.freeze):
            model.get_parameter(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("start_from.freeze leaves nothing to learn; leave some parts out of it")


def count_learning(model: nn.Module) -> tuple[int, int]:
    """How many numbers learn, and how many there are."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)


def _belongs(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")
