"""What a store holds beside its fields: statistics, masks and constant fields, each read when first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from weatherfm.earth.grid import Grid


class SmallArrays:
    """Of a store; how they are read is the store's."""

    manifest: dict[str, Any]
    grid: Grid
    static_names: tuple[str, ...]

    def _small(self, name: str) -> np.ndarray:
        raise NotImplementedError

    @cached_property
    def mean(self) -> np.ndarray:
        """[channel] float64 over the training days, physical units."""
        return self._small("mean")

    @cached_property
    def std(self) -> np.ndarray:
        """[channel] float64 over the training days, physical units."""
        return self._small("std")

    @cached_property
    def minimum(self) -> np.ndarray:
        """[channel] float64 over the training days, physical units."""
        return self._small("minimum")

    @cached_property
    def maximum(self) -> np.ndarray:
        """[channel] float64 over the training days, physical units."""
        return self._small("maximum")

    @cached_property
    def tendency_std(self) -> np.ndarray:
        """[channel] float64 of the change over the tendency lead; NaN where no two training times are so far apart."""
        return self._small("tendency_std")

    @cached_property
    def tendency_std_by_lead(self) -> dict[int, np.ndarray]:
        """Hours -> [channel] as `tendency_std`, of each lead time; none where there is only that one."""
        if "more_lead_hours" not in self.manifest["tendency"]:
            return {}
        return dict(zip(map(int, self._small("tendency_leads")), self._small("tendency_std_by_lead"), strict=True))

    @property
    def log_scales(self) -> dict[str, float]:
        """Channel -> scale of its logarithm (`weatherfm.earth.transforms`), on which its statistics are."""
        return {name: told["log1p"] for name, told in self.manifest.get("transforms", {}).items()}

    @cached_property
    def static(self) -> np.ndarray:
        """[static, lat, lon] float32 constant fields, physical units."""
        if not self.static_names:
            return np.zeros((0, *self.grid.shape), np.float32)
        return self._small("static_fields")

    @cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """Channel -> [lat, lon] bool, True where it never has a value; channels with values everywhere are left out."""
        names = self.manifest.get("masks", [])
        return dict(zip(names, self._small("masks").astype(bool), strict=True)) if names else {}
