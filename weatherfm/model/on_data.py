"""What a model has of its data: statistics, masks and constant fields, and how fields become what it computes with.

Legend: B batch, T input time, C channel, O channel that comes out, I input, S static, F forcing, N patch token, H lat,
W lon, L lead time.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weatherfm.earth.domain import Domain
from weatherfm.earth.forcings import require_place
from weatherfm.model.architecture import ModelConfig, patch_counts
from weatherfm.model.increments import increment_scales
from weatherfm.model.place import place_features
from weatherfm.model.present import present_now
from weatherfm.model.share import ChannelShare, whole
from weatherfm.model.truncation import spectral_matrices


class OnData(nn.Module):
    """A module on the channels and the grid of some data; all of its buffers follow from these.

    Args:
        config: architecture.
        domain: of the whole model.
        share: the channels this instance holds; all without it.
    """

    of_data: tuple[str, ...] = ("domain", "share", "tokens", "padded", "forcings")
    """What follows from the data, beside buffers (`weatherfm.model.data_view`); so it is called in all modules."""
    data_buffers = (
        "mean", "std", "increment_scale", "increment_leads", "log_scale", "logged", "static", "there", "places",
        "waves", "analysis", "synthesis", "input_rows", "output_rows", "stated",
    )  # fmt: skip
    """All buffers follow from the data; a model has those that its settings and data call for."""
    mean: Tensor
    std: Tensor
    increment_scale: Tensor
    """[L, C] std of changes over each known lead time, in units of the channel's own std."""
    increment_leads: Tensor
    """[L] hours."""
    log_scale: Tensor | None
    """[C] scale of the logarithm, 1 where a channel has none (`logged` tells); None without any."""
    logged: Tensor | None
    """[C] 1 where a channel has a logarithm, else 0."""
    static: Tensor
    input_rows: Tensor | None
    """Positions in C of the channels that go in; None: all do."""
    output_rows: Tensor | None
    """[O] positions in C of the channels that come out; None: all do."""
    stated: Tensor | None
    """[O] bool, True for outputs that go in as well, whose increment is predicted; None: all do."""
    there: Tensor | None
    """[C, H, W] 1 where a channel has values, 0 where its mask is; None without masks."""
    places: Tensor | None
    """[N, 50] of `model.position: place`; None without it."""
    waves: Tensor
    analysis: Tensor
    synthesis: Tensor
    share: ChannelShare
    """Of the channels at hand, what this instance holds."""
    holds: ChannelShare
    """Channels whose rows its weights have: those at hand, or, on other data (`weatherfm.model.data_view`), more."""

    def __init__(self, config: ModelConfig, domain: Domain, share: ChannelShare | None = None) -> None:
        super().__init__()
        self.config, self.share = config, share or whole(config, domain)
        self.holds = self.share
        self.domain = domain.restricted(self.share.channels, self.share.static_names) if share else domain
        self.forcings = self.share.forcings
        require_place(config.forcings, domain.grid)
        self.tokens = patch_counts(config.patch, domain.grid.shape)
        self.padded = (self.tokens[0] * config.patch[0], self.tokens[1] * config.patch[1])
        for name, value in self._statistics().items():
            self.register_buffer(name, value, persistent=False)  # the domain holds them
        if self.share.inputs == self.share.outputs:
            self.input_rows = self.output_rows = self.stated = None
        if not self.domain.masks:
            self.there = None
        if not self.domain.log_scales:
            self.log_scale = self.logged = None
        if config.position != "place":
            self.places = None

    def normalize(self, state: Tensor) -> Tensor:
        """Physical units -> mean 0, std 1 a channel, of its logarithm where it has one; [..., C, H, W]."""
        if self.log_scale is not None:
            scale = self.log_scale[:, None, None]
            state = torch.where(self._logged, state.sign() * torch.log1p(state.abs() / scale), state)
        return (state - self.mean[:, None, None]) / self.std[:, None, None]

    def denormalize(self, state: Tensor) -> Tensor:
        """Inverse of `normalize`; NaN at points of a mask."""
        physical = state * self.std[:, None, None] + self.mean[:, None, None]
        if self.log_scale is not None:
            exact = physical.sign() * self.log_scale[:, None, None] * torch.expm1(physical.abs())
            physical = torch.where(self._logged, exact, physical)
        return physical if self.there is None else torch.where(self.there > 0, physical, torch.nan)

    @property
    def _logged(self) -> Tensor:
        assert self.logged is not None  # set with `log_scale`
        return self.logged[:, None, None] > 0

    def assemble(self, history: Tensor, forcings: Tensor) -> Tensor:
        """All inputs in the order of `ChannelShare.input_names`: -> [B, I, H, W]."""
        if self.input_rows is not None:
            history = history.index_select(2, self.input_rows)
        static = self.static.expand(history.shape[0], -1, -1, -1)
        return torch.cat([history.flatten(1, 2), static, forcings.to(history.dtype)], dim=1)

    def pad(self, x: Tensor, around: bool = True) -> Tensor:
        """Fill up to whole patches: along longitude from the other side of a global grid, else by repetition.

        Not `around`, by repetition everywhere: a patch then holds nothing of another one.
        """
        south, east = self.padded[0] - x.shape[-2], self.padded[1] - x.shape[-1]
        if south:
            x = F.pad(x, (0, 0, 0, south), mode="replicate")
        if east:
            x = F.pad(x, (0, east, 0, 0), mode="circular" if around and self.domain.grid.periodic else "replicate")
        return x

    def outputs_of(self, values: Tensor) -> Tensor:
        """Those of the channels that come out: [B, C, ...] -> [B, O, ...]."""
        return values if self.output_rows is None else values.index_select(1, self.output_rows)

    def with_inputs_of(self, state: Tensor, other: Tensor) -> Tensor:
        """A state [B, C, H, W] with the channels that are inputs alone of another one."""
        if self.output_rows is None:
            return state
        return other.to(state.dtype).index_copy(1, self.output_rows, self.outputs_of(state))

    def known_outputs(self, present: Tensor | None) -> Tensor | None:
        """[B, O] bool, or [1, O], where an output's present state is among the inputs; None: it always is.

        Args:
            present: as of `forward`.
        """
        if present is not None:
            return present_now(present, self.config.input_times, self.share)
        return None if self.stated is None else self.stated[None]

    def set_statistics(self, device: torch.device | None = None) -> None:
        """Set the buffers from the domain anew, for a model that was made without values (on the meta device).

        With a `device` they are made there; else they are filled where they are.
        """
        for name, value in self._statistics().items():
            if device is None:
                getattr(self, name).copy_(value)
            else:
                setattr(self, name, value.to(device))

    def _statistics(self) -> dict[str, Tensor]:
        domain = self.domain
        static = np.asarray(domain.static, np.float64)
        anomaly = static - static.mean((-2, -1), keepdims=True)
        spread = np.sqrt(np.square(anomaly).mean((-2, -1), keepdims=True))
        leads, scales = increment_scales(domain)
        values = {
            "mean": domain.mean,
            "std": domain.std,
            "increment_leads": leads,
            "increment_scale": scales,
            "static": anomaly / np.where(spread > 0, spread, 1.0),
        }
        if domain.log_scales:
            known = np.array([domain.log_scales.get(name, np.nan) for name in domain.channels])
            values |= {"log_scale": np.nan_to_num(known, nan=1.0), "logged": np.isfinite(known).astype(float)}
        if self.share.inputs != self.share.outputs:
            named = {"input_rows": self.share.inputs, "output_rows": self.share.outputs}
            values |= {key: np.array([domain.channels.index(one) for one in names]) for key, names in named.items()}
            values["stated"] = np.isin(self.share.outputs, self.share.inputs)
        if domain.masks:
            values["there"] = domain.present.astype(np.float32)
        if self.config.position == "place":
            values["places"] = place_features(domain.grid, self.config.patch)
        if self.config.truncation is not None:
            values |= spectral_matrices(domain.grid, self.config.truncation)
        tensors = {name: torch.from_numpy(value) for name, value in values.items()}
        return {name: x.float() if x.is_floating_point() else x for name, x in tensors.items()}
