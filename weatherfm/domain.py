"""What a model is a model of: channels, grid, constant fields and the statistics that normalise them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weatherfm.errors import InputError
from weatherfm.grid import Grid


@dataclass(frozen=True, eq=False)
class Domain:
    """The fields a model reads and predicts.

    Raises:
        InputError: shapes that do not belong together, or a channel that does not vary.
    """

    channels: tuple[str, ...]
    """Short names, in the order of every [channel] dim."""
    grid: Grid
    mean: np.ndarray
    """[channel] over the training days, physical units."""
    std: np.ndarray
    """[channel] over the training days, physical units."""
    tendency_std: np.ndarray
    """[channel] standard deviation of the change over the tendency lead time, physical units."""
    static_names: tuple[str, ...] = ()
    static: np.ndarray = None  # type: ignore[assignment]  # becomes an empty array
    """[static, lat, lon] constant fields, physical units; none by default."""

    def __post_init__(self) -> None:
        if self.static is None:
            object.__setattr__(self, "static", np.zeros((0, *self.grid.shape), np.float32))
        for name in ("mean", "std", "tendency_std"):
            values = np.asarray(getattr(self, name), np.float64)
            object.__setattr__(self, name, values)
            if values.shape != (len(self.channels),):
                raise InputError(f"{name} has shape {values.shape} for {len(self.channels)} channels; give one each")
        expected = (len(self.static_names), *self.grid.shape)
        if np.shape(self.static) != expected:
            raise InputError(f"static fields have shape {np.shape(self.static)}, expected {expected}")
        for name in ("std", "tendency_std"):
            bad = [c for c, value in zip(self.channels, getattr(self, name), strict=True) if not value > 0]
            if bad:
                raise InputError(
                    f"{name} of {', '.join(bad)} is not positive: the channel does not vary over the training days; "
                    "drop it or lengthen the training period"
                )

    def restricted(self, channels: Sequence[str], static_names: Sequence[str]) -> Domain:
        """The same domain with only these channels and constant fields, in the order given.

        Raises:
            InputError: names that the domain does not have.
        """
        known = (*self.channels, *self.static_names)
        if unknown := [name for name in (*channels, *static_names) if name not in known]:
            raise InputError(f"the domain has no {', '.join(unknown)}; it has {', '.join(known)}")
        index = [self.channels.index(name) for name in channels]
        fields = [self.static_names.index(name) for name in static_names]
        return Domain(
            channels=tuple(channels),
            grid=self.grid,
            mean=self.mean[index],
            std=self.std[index],
            tendency_std=self.tendency_std[index],
            static_names=tuple(static_names),
            static=self.static[fields],
        )
