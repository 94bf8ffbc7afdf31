"""A backbone of the user's own: found by its name, made without values, asked for its initial ones.

It may be far larger than what a process holds, so it is made with parameters that have no values (on the meta device),
like all of a model. All else that its constructor makes, buffers and plain tensors, has values there and then: nothing
would bring them back. Buffers are kept as they were made, and come back where memory for them was made anew.

Its constructor alone knows what its weights shall begin as, so for them it is called twice more, seeded, on the CPU,
and must give the same both times. Until its weights are handed over a process holds the whole backbone.

Legend: B batch, N patch token, D width.
"""

from __future__ import annotations

import importlib
import random
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from weatherfm.errors import InputError, some_of
from weatherfm.model.architecture import ModelConfig

PREFIX = "backbone."
"""Of the names of its weights."""
_GATHERS = str(Path("torch", "distributed"))
_SAME = 0
"""Seed of all that is no weight: it has to be the same in every process, now and when weights are loaded."""


def backbone_class(name: str) -> type[nn.Module]:
    """The class that `package.module:Class` names.

    Raises:
        InputError: it cannot be imported, or is no `torch.nn.Module`.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"model.backbone {name} cannot be imported ({error}); install its package, or put its folder into "
            "PYTHONPATH"
        ) from None
    except Exception as error:  # a module of anybody's: whatever it says is told
        raise InputError(
            f"model.backbone {name} cannot be imported ({type(error).__name__}: {error}); correct the module {module}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"model.backbone {name} is no torch.nn.Module, but {found!r}; name a class that is one")
    return found


@dataclass(eq=False)
class OwnBackbone:
    """How the backbone of a model is made.

    Args:
        config: architecture.
        grid: (rows, columns) of patches.
        periodic: the last column neighbours the first.
        conditions: numbers of the condition of a sample.
    """

    config: ModelConfig
    grid: tuple[int, int]
    periodic: bool
    conditions: int
    _constants: dict[str, Tensor] = field(default_factory=dict)
    _initial: dict[str, Tensor] = field(default_factory=dict)
    _seed: int | None = None

    def build(self) -> nn.Module:
        """The backbone, its parameters without values.

        Raises:
            InputError: a constructor that cannot be called so, or a module that could not be trained on many ranks.
        """
        with _parameters_without_values():
            module = self._construct(_SAME)
        _require_trainable(self.config.backbone, module)
        for part in module.modules():
            part._non_persistent_buffers_set.update(part._buffers)  # made anew, not read from a file
        self._constants = {name: buffer.clone() for name, buffer in module.named_buffers()}
        module.register_forward_hook(self._require_same)
        return module

    def restore(self, module: nn.Module, device: torch.device | None) -> None:
        """Give buffers their values again, where they are or on a device."""
        for name, value in self._constants.items():
            if device is None:
                module.get_buffer(name).copy_(value)
            else:
                path, _, key = name.rpartition(".")
                setattr(module.get_submodule(path), key, value.to(device))

    def take_initial(self, name: str, seed: int) -> Tensor:
        """What the constructor gave a parameter, on the CPU; each is handed over once, then no longer held.

        Raises:
            InputError: as of `build`; it gives other values with the same seed, and would on every rank.
        """
        if seed != self._seed or name not in self._initial:
            before = {key: _checksum(p) for key, p in self._construct(seed).named_parameters()}
            self._initial = {key: p.detach() for key, p in self._construct(seed).named_parameters()}
            self._seed = seed
            if other := [key for key, value in self._initial.items() if _checksum(value) != before.get(key)]:
                raise InputError(
                    f"model.backbone {self.config.backbone} gave {other[0]} other values when it was made again with "
                    "the same seed; let it draw from the random numbers of PyTorch, NumPy or Python, and not from a "
                    "generator of its own"
                )
        return self._initial.pop(name)

    def call(self, module: nn.Module, tokens: Tensor, known: Tensor | None) -> Tensor:
        """What the backbone makes of tokens [B, N, D] and what is known of samples [B, C].

        Raises:
            InputError: its own code failed, or it gave something else than it got.
        """
        try:
            made: Tensor = module(tokens, known)
        except Exception as error:  # a class of anybody's: whatever it says is told
            if isinstance(error, InputError) or not _fails_of_itself(error):
                raise
            raise InputError(
                f"model.backbone {self.config.backbone} failed ({type(error).__name__}: {error}) on tokens "
                f"{list(tokens.shape)}; correct the class (--debug shows where)"
            ) from error
        return made

    def _construct(self, seed: int) -> nn.Module:
        config = self.config
        found = backbone_class(config.backbone)
        with _seeded(seed), torch.device("cpu"):
            try:
                return found(
                    width=config.width,
                    depth=config.depth,
                    heads=config.heads,
                    grid=self.grid,
                    periodic=self.periodic,
                    conditions=self.conditions,
                    **config.backbone_options,
                )
            except InputError:
                raise
            except Exception as error:  # a class of anybody's: whatever it says is told
                raise InputError(
                    f"model.backbone {config.backbone} cannot be made ({type(error).__name__}: {error}); its "
                    "constructor takes width, depth, heads, grid, periodic, conditions, and model.backbone_options"
                    f"{told(config.backbone_options)}"
                ) from error

    def _require_same(self, module: nn.Module, given: tuple[Any, ...], made: Any) -> Tensor:
        """A forward hook: tokens come out as they went in."""
        tokens: Tensor = given[0]
        if not isinstance(made, Tensor):
            raise InputError(
                f"model.backbone {self.config.backbone} gave {type(made).__name__} for tokens; it has to give a tensor "
                f"{list(tokens.shape)}, as it got"
            )
        device = tokens.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tokens.dtype
        if made.shape != tokens.shape or made.dtype not in (tokens.dtype, low):
            raise InputError(
                f"model.backbone {self.config.backbone} gave {list(made.shape)} {made.dtype} for tokens "
                f"{list(tokens.shape)} {tokens.dtype}; it has to give the same shape and dtype"
            )
        if made.device != tokens.device:
            raise InputError(
                f"model.backbone {self.config.backbone} gave a tensor on {made.device} for tokens on {tokens.device}; "
                "let it stay where the tokens are"
            )
        return made.to(tokens.dtype)


def _checksum(values: Tensor) -> int:
    return zlib.crc32(values.detach().reshape(-1).view(torch.uint8).numpy().tobytes())


def _fails_of_itself(error: Exception) -> bool:
    """Memory that is lacking, and ranks that no longer answer while weights are gathered, are no faults of a class."""
    calls = traceback.extract_tb(error.__traceback__)
    return not isinstance(error, torch.OutOfMemoryError) and not any(_GATHERS in call.filename for call in calls)


def told(options: Mapping[str, Any]) -> str:
    """The names of options, in brackets; nothing where there are none."""
    return f" ({', '.join(options)})" if options else ""


class Model(Protocol):
    """A model with, perhaps, a backbone of the user's own, as `WeatherViT` has it."""

    own_backbone: OwnBackbone | None
    backbone: nn.Module | None


def require_other_grid(model: Model, there: Model) -> None:
    """Refuse to let a backbone be on another grid than it was made for, unless it says what follows from the grid.

    Args:
        model: that has the weights.
        there: the same, built for another grid.

    Raises:
        InputError: it says nothing, or weights of it are of one grid.
    """
    here, elsewhere = model.own_backbone, there.own_backbone
    if here is None or elsewhere is None or model.backbone is None or there.backbone is None:
        return
    if (here.grid, here.periodic) == (elsewhere.grid, elsewhere.periodic):
        return
    name, (rows, columns) = here.config.backbone, elsewhere.grid
    if not any(hasattr(part, "of_data") for part in model.backbone.modules()):
        raise InputError(
            f"model.backbone {name} was made for {here.grid[0]} x {here.grid[1]} patches, and other data "
            f"have {rows} x {columns}; name in its of_data the attributes that follow from grid and periodic "
            "(of_data = () where none does)"
        )
    shapes = {key: p.shape for key, p in model.backbone.named_parameters()}
    if of_one := [key for key, p in there.backbone.named_parameters() if p.shape != shapes.get(key)]:
        raise InputError(
            f"model.backbone {name}: {', '.join(of_one)} is of one grid, and other data have {rows} x {columns} "
            "patches; let it depend on no grid"
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Inside, the random numbers of PyTorch (of the CPU alone), NumPy and Python follow from a seed; then those of
    others go on as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


@contextmanager
def _parameters_without_values() -> Iterator[None]:
    """Inside, modules put a parameter on the meta device as soon as they have it, in the precision of all; what is
    one stays one."""
    register: Callable[..., None] = nn.Module.register_parameter
    known = WeakIdKeyDictionary()

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            if parameter not in known:
                dtype = torch.get_default_dtype() if parameter.is_floating_point() else parameter.dtype
                known[parameter] = nn.Parameter(parameter.detach().to("meta", dtype), parameter.requires_grad)
            parameter = known[parameter]
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _require_trainable(name: str, module: nn.Module) -> None:
    """Refuse what the house's promises do not hold for."""
    for path, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            raise InputError(
                f"model.backbone {name}: {path} keeps statistics of batches, which would depend on the layout of "
                "devices; use LayerNorm or GroupNorm, or track_running_stats=False"
            )
    usual = torch.get_default_dtype()
    floats = {key: p.dtype for key, p in module.named_parameters() if p.is_floating_point()}
    if other := [f"{key} {dtype}" for key, dtype in floats.items() if dtype != usual]:
        raise InputError(
            f"model.backbone {name}: {some_of(other, 3)} came out of its constructor; leave parameters in {usual} (no "
            "half(), bfloat16() or to(dtype)): training.precision says in what products are computed"
        )
    if scalars := [key for key, p in module.named_parameters() if not p.ndim]:
        raise InputError(f"model.backbone {name}: {', '.join(scalars)} has no dims to split; give it the shape [1]")
    if lost := [key for key, b in module.named_buffers() if b.is_meta]:
        raise InputError(
            f"model.backbone {name}: the buffers {', '.join(lost)} are made of parameters, which have no values yet; "
            "make them of constants"
        )
    once = {key for key, _ in module.named_parameters()}
    if shared := [key for key, _ in module.named_parameters(remove_duplicate=False) if key not in once]:
        raise InputError(f"model.backbone {name}: {', '.join(shared)} is another parameter too; give each its own")
