"""The file that training starts from: a weights file of ours, or ClimaX's checkpoint, seen alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.home import expanded
from weatherfm.model.adapter import base_of, weights_in
from weatherfm.model.architecture import ModelConfig, patch_counts
from weatherfm.model.roles import find_roles
from weatherfm.model.share import input_names
from weatherfm.model.weights import open_tensors, parameter_names, read_header, weights_hash
from weatherfm.training.starting.climax_donor import read_climax

_CLIMAX = (".ckpt", ".pt", ".pth")


@dataclass(frozen=True, eq=False)
class Donor:
    """A trained model, by the names of its weights."""

    path: Path
    config: ModelConfig
    inputs: tuple[str, ...]
    """Names of the rows of its tokenizer."""
    outputs: tuple[str, ...]
    """Names of the rows of its output."""
    tokens: tuple[int, int]
    """(lat, lon) patches of its grid."""
    names: frozenset[str]
    """Of its weights."""
    domain: Domain | None
    """What its channels are measured in; None where the file does not tell (ClimaX)."""
    sha256: str
    provenance: Mapping[str, Any]
    """How its weights came about; empty where the file does not tell."""

    @property
    def is_ours(self) -> bool:
        """A weights file of this package."""
        return self.domain is not None

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], Tensor]]:
        """A function from the name of a weight to its values; what is not asked for is not read."""
        if self.is_ours:
            with open_tensors(self.path) as file:
                yield file.get_tensor
            return
        tensors = read_climax(self.path, self.config.heads).tensors
        yield tensors.__getitem__


def find_donor(path: str, heads: int) -> Donor:
    """Read what a file says of itself, no weights.

    Args:
        path: `weights.safetensors`, or a checkpoint of ClimaX (`.ckpt`).
        heads: of the attention, which ClimaX's file does not tell.

    Raises:
        InputError: no such file, none of either kind, or an adapter.
    """
    place = weights_in(expanded(path))
    if place.suffix.lower() in _CLIMAX:
        found = read_climax(place, heads)
        return Donor(
            place, found.config, found.inputs, found.outputs, found.tokens, frozenset(found.tensors), None,
            weights_hash(place), {},
        )  # fmt: skip
    config, domain, provenance = read_header(place)
    if (base := base_of(place)) is not None:
        raise InputError(
            f"{place} is an adapter of {base}, and training starts from whole weights; make one file of both with "
            "weatherfm.merge_adapter, and name that"
        )
    with open_tensors(place) as file:
        names = frozenset(parameter_names(file))
    inputs, tokens = input_names(config, domain), patch_counts(config.patch, domain.grid.shape)
    return Donor(
        place,
        config,
        tuple(inputs),
        find_roles(config, domain.channels).outputs,
        tokens,
        names,
        domain,
        weights_hash(place),
        provenance,
    )


def require_known(names: Mapping[str, list[str]], donor: Donor) -> None:
    """Refuse channels that are to be made of others which the weights lack.

    Raises:
        InputError: names them.
    """
    known = {name.partition("@")[0] for name in donor.inputs} | set(donor.outputs)
    for new, others in names.items():
        if new in known:
            raise InputError(f"start_from.new_channels names {new}, which {donor.path} has itself; leave it out")
        if absent := [name for name in others if name not in known]:
            raise InputError(
                f"start_from.new_channels makes {new} of {', '.join(absent)}, which {donor.path} does not have; it has "
                f"{' '.join(donor.outputs)}"
            )
