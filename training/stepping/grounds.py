"""What batches of each store are worked on with: the loss, the rank's role, and how the model is on these data."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.model.data_view import view_of
from weatherfm.model.model import WeatherViT
from weatherfm.training.parallel.role import Role
from weatherfm.training.parts import Part
from weatherfm.training.stepping.objective import loss_of
from weatherfm.training.stepping.step import Ground


def roles_of(role: Role, domains: Sequence[Domain]) -> list[Role]:
    """This rank's role on the data of each store."""
    return [role] if len(domains) == 1 else [role.on(domain) for domain in domains]


def build_grounds(
    model: WeatherViT, parts: Sequence[Part], domains: Sequence[Domain], role: Role, device: torch.device
) -> list[Ground]:
    """One of each store.

    Args:
        model: of this rank.
        parts: the stores.
        domains: of each.
        role: of this rank on the whole model.
        device: of the model.
    """
    found = []
    for part, domain, own in zip(parts, domains, roles_of(role, domains), strict=True):
        config = part.config.model
        loss = loss_of(part.config.training, config, domain, own.share).to(device)
        view = None if len(parts) == 1 else view_of(model, config, domain, own.share, device)
        found.append(Ground(loss, own, view))
    return found


def require_losses(parts: Sequence[Part]) -> None:
    """Refuse weights of channels that leave a store without a loss.

    Raises:
        InputError: naming the store, where there are several.
    """
    for part in parts:
        try:
            loss_of(part.config.training, part.config.model, part.domain)
        except InputError as error:
            raise InputError(f"data.mix, {part.name}: {error}" if part.name else str(error)) from None
