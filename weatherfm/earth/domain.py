"""What a model is a model of: channels, grid, constant fields and the statistics that normalise them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError, some_of


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
    """[channel] over the training days, physical units; of channels in `log_scales`, of their logarithm"""
    std: np.ndarray
    """[channel] over the training days, physical units."""
    tendency_std: np.ndarray
    """[channel] standard deviation of the change over the tendency lead time, physical units."""
    static_names: tuple[str, ...] = ()
    static: np.ndarray = None  # type: ignore[assignment]  # becomes an empty array
    """[static, lat, lon] constant fields, physical units; none by default."""
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Channel -> [lat, lon] bool, True where it never has a value, as sea surface temperature over land."""

    log_scales: Mapping[str, float] = field(default_factory=dict)
    """Channel -> scale of its logarithm (`weatherfm.earth.transforms`): mean, std and tendency_std are of that."""
    tendency_std_by_lead: Mapping[int, np.ndarray] = field(default_factory=dict)
    """Hours of lead time, ascending -> [channel] as `tendency_std`; none where one lead time stands for all."""
    stores: tuple[tuple[str, ...], ...] = ()
    """Channels of each store, where a model is trained on several that do not have the same; none else."""

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
        if odd := [name for name, mask in self.masks.items() if np.shape(mask) != self.grid.shape or np.all(mask)]:
            raise InputError(f"the mask of {odd[0]} is none: it must leave some points of {self.grid}")
        if unknown := [name for name in self.masks if name not in self.channels]:
            raise InputError(f"there is a mask of {unknown[0]}, which is no channel of the domain")
        for lead, spread in self.tendency_std_by_lead.items():
            if np.shape(spread) != (len(self.channels),) or not np.all(np.asarray(spread) > 0):
                raise InputError(
                    f"tendency_std over {lead}h is not one positive number a channel; leave that lead time out of "
                    "data.tendency_leads, or the channel that does not change over it, and prepare anew"
                )
        self._require_spread()

    def _require_spread(self) -> None:
        if bad := [c for c, value in zip(self.channels, self.std, strict=True) if not value > 0]:
            raise InputError(
                f"std of {', '.join(bad)} is not positive: the channel does not vary over the training days; "
                "drop it or lengthen the training period"
            )
        if np.isnan(self.tendency_std).all():
            raise InputError(
                "tendency_std is unknown: no two training times are one tendency lead apart; set data.tendency_lead to "
                "a multiple of the step, or lengthen the training period, and prepare anew"
            )
        if bad := [c for c, value in zip(self.channels, self.tendency_std, strict=True) if not value > 0]:
            varies = ", ".join(f"{self.std[self.channels.index(name)]:.3g}" for name in bad)
            raise InputError(
                f"tendency_std of {', '.join(bad)} is not positive, though the channel varies (std {varies}): it has "
                "the same value again after the tendency lead (24h unless data.tendency_lead says otherwise), as "
                "a field that repeats itself daily; set data.tendency_lead to a shorter span, e.g. 6h, and prepare anew"
            )

    def restricted(self, channels: Sequence[str], static_names: Sequence[str]) -> Domain:
        """The same domain with only these channels and constant fields, in the order given.

        Raises:
            InputError: names that the domain does not have.
        """
        known = (*self.channels, *self.static_names)
        if unknown := [name for name in (*channels, *static_names) if name not in known]:
            raise InputError(f"the domain has no {some_of(unknown)}; it has {some_of(known)}")
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
            masks={name: mask for name, mask in self.masks.items() if name in channels},
            log_scales={name: scale for name, scale in self.log_scales.items() if name in channels},
            tendency_std_by_lead={lead: spread[index] for lead, spread in self.tendency_std_by_lead.items()},
        )

    @property
    def present(self) -> np.ndarray:
        """[channel, lat, lon] bool: where each channel has values."""
        everywhere = np.zeros(self.grid.shape, bool)
        return ~np.stack([np.asarray(self.masks.get(name, everywhere), bool) for name in self.channels])


def masks_of(domain: Domain, channels: Sequence[str]) -> dict[str, np.ndarray]:
    """The masks of some channels."""
    return {name: mask for name, mask in domain.masks.items() if name in channels}


def mask_fields(masks: Mapping[str, np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
    """Masks as constant fields that a model is shown: names, and [mask, lat, lon] float32, 1 where there is no value.

    Channels with the same mask share one, named after the first of them: `mask_sst`.
    """
    distinct: dict[bytes, str] = {}
    for name, mask in masks.items():
        distinct.setdefault(np.packbits(mask).tobytes(), name)
    names = tuple(distinct.values())
    return tuple(f"mask_{name}" for name in names), np.stack([masks[name] for name in names]).astype(np.float32)
