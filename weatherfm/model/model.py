"""WeatherViT: the state now, and at earlier times, to the state after a lead time.

Legend: B batch, M member, T input time, C channel, O channel that comes out, I input, S static, F forcing, K condition,
Z number of noise, H lat, W lon, N patch token, P values in a patch, D width.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weatherfm.earth.domain import Domain
from weatherfm.earth.forcings import CLOCK, require_place
from weatherfm.errors import InputError
from weatherfm.model.aggregation import ChannelAttention
from weatherfm.model.architecture import ModelConfig, patch_counts
from weatherfm.model.blocks import Block
from weatherfm.model.conditioning import CHANGES, Conditioning, modulated, opened
from weatherfm.model.decoder import ChannelDecoder, require_grid
from weatherfm.model.hierarchical import HierarchicalAggregation
from weatherfm.model.increments import at_lead, increment_scales
from weatherfm.model.initial import initialise
from weatherfm.model.neighbours import Edges
from weatherfm.model.place import Place, place_features
from weatherfm.model.position import Position
from weatherfm.model.present import present_now
from weatherfm.model.roles import find_roles
from weatherfm.model.share import ChannelShare, group_of_inputs, input_names, whole
from weatherfm.model.tokenizer import ChannelOutput, ChannelTokenizer, patchify, unpatchify
from weatherfm.model.truncation import Truncation, spectral_matrices

_LEAD_TIME_SCALE = 100.0
"""Lead time enters as hours / 100, as in ClimaX; kept so that its weights load."""


class WeatherViT(nn.Module):
    """Patch embedding a channel, aggregation over channels, transformer blocks over positions, a head.

    Args:
        config: architecture.
        domain: of the whole model.
        share: the channels this instance holds, of all that the architecture has; all without it. Its `domain`,
            `forcings`, inputs and outputs are then those of the share, and the seams `aggregation.merge` (flat) or
            `aggregation.gather` (hierarchical) have to bring in what the others make of theirs.
    """

    of_data = ("domain", "share", "tokens", "padded", "forcings")
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
    aggregation: ChannelAttention | HierarchicalAggregation
    share: ChannelShare
    """Of the channels at hand, what this instance holds."""
    holds: ChannelShare
    """Channels whose rows its weights have: those at hand, or, on other data (`weatherfm.model.data_view`), more."""
    provenance: dict[str, Any]
    """How its weights came about, where they are from a file; else empty."""
    loaded: Any
    """That file (`weatherfm.model.loading.Loaded`), where `weatherfm.load` has read one; else None."""

    def __init__(self, config: ModelConfig, domain: Domain, share: ChannelShare | None = None) -> None:
        super().__init__()
        self.config, self.share, self.provenance = config, share or whole(config, domain), {}
        self.holds = self.share
        self.loaded = None
        self.domain = domain.restricted(self.share.channels, self.share.static_names) if share else domain
        self.forcings = self.share.forcings
        require_place(config.forcings, domain.grid)
        self.conditions = CLOCK if config.conditioning == "adaln" else ()
        self.tokens = patch_counts(config.patch, domain.grid.shape)
        self.padded = (self.tokens[0] * config.patch[0], self.tokens[1] * config.patch[1])
        D, P = config.width, config.patch[0] * config.patch[1]

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
        inputs = self.share.input_names(config.input_times)
        self.tokenizer = ChannelTokenizer(len(inputs), P, D, config.input_gates)
        if config.aggregation.kind == "hierarchical":
            owners = group_of_inputs(config, domain, self.share)
            self.aggregation = HierarchicalAggregation(D, config.heads, config.aggregation, owners)
        else:
            count = len(input_names(config, domain))  # of all shares
            self.aggregation = ChannelAttention(D, config.heads, config.aggregation, count)
        self.position = Place(D) if config.position == "place" else Position(self.tokens[0] * self.tokens[1], D)
        plain = config.conditioning == "embed"
        self.lead_time = nn.Linear(1, D) if plain else None
        self.conditioning = None if plain else Conditioning(D, config.depth, len(self.conditions))
        known = len(self.conditions) + config.noise
        self.noising = Conditioning(D, config.depth, known) if config.noise else None
        self.dropout = nn.Dropout(config.dropout)
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        edges = Edges.of(domain.grid)
        if config.decoder_fields:
            require_grid(domain.grid.shape)
        self.blocks = nn.ModuleList(Block(config, rate, self.tokens, edges.of_patches()) for rate in rates)
        self.norm = nn.LayerNorm(D, elementwise_affine=plain)
        hidden = [layer for _ in range(config.head_depth) for layer in (nn.Linear(D, D), nn.GELU())]
        self.head = nn.Sequential(*hidden)
        outputs, largest = self.share.outputs, config.truncation
        self.to_patches = ChannelOutput(len(outputs), P, D)
        self.decoder = ChannelDecoder(outputs, config.decoder_fields, edges) if config.decoder_fields else None
        self.truncation = None if largest is None else Truncation(outputs, largest)
        self.sequence = (0, 1)
        roles = find_roles(config, domain.channels)  # of all shares, so that they round alike
        self.exact = config.predict == "state" or not set(roles.outputs) <= set(roles.inputs)
        if not self.position.weight.is_meta:
            initialise(self, seed=0)

    def forward(
        self,
        history: Tensor,
        forcings: Tensor,
        lead_time_hours: Tensor,
        present: Tensor | None = None,
        condition: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """One forecast step, in normalised units.

        Args:
            history: [B, T, C, H, W] normalised states at `config.input_times`; what stands at points of a mask, or of
                channels that do not go in, is not looked at.
            forcings: [B, F, H, W] `self.forcings` at the initial time (`weatherfm.earth.forcings.forcing_fields`).
            lead_time_hours: [B].
            present: [B, I] bool, False where a sample lacks an input channel: its values are ignored. A channel whose
                present state is lacking is forecast from its mean, whatever `predict` says: the state itself, in units
                of its std, is then what the head gives.
            condition: [B, K] `self.conditions` at the initial time (`weatherfm.earth.forcings.clock`).
            noise: [B * M, Z] standard normal (`weatherfm.model.noise`), of a model with `config.noise` Z: M forecasts
                of each sample, side by side, that have the aggregation over channels in common. Zeros: without noise.

        Returns:
            [B * M, C, H, W] normalised state at initial time + lead time; of no meaning at points of a mask. Channels
            that do not come out are as they were.

        Raises:
            InputError: another number of conditions, or noise of another size.
        """
        self._require_known(len(history), condition, noise)
        if self.there is not None:
            history = torch.where(self.there > 0, history, 0)
        x = self.assemble(history, forcings)  # [B, I, H, W]
        if present is not None:
            x = torch.where(present[:, :, None, None], x, 0)
        x = patchify(self._pad(x), self.config.patch)  # [B, N, I, P]
        tokenizer = self.tokenizer if self.tokenizer.rows is None else self.tokenizer.at_hand()
        x = self.aggregation(x, tokenizer, present)  # [B, N, D]
        whole = history[:, self.config.input_times.index(0)]
        if noise is not None and (members := len(noise) // len(x)) > 1:
            x, whole, lead_time_hours = (of.repeat_interleave(members, 0) for of in (x, whole, lead_time_hours))
            present, condition = (None if y is None else y.repeat_interleave(members, 0) for y in (present, condition))
        x = self._through_blocks(x, lead_time_hours, condition, noise)
        x, now = self.head(x), self.outputs_of(whole)
        known = self.known_outputs(present)
        if known is not None:
            known = known[:, :, None, None]
            now = torch.where(known, now, 0)
        state = self._next_state(x, now, known, lead_time_hours)
        if self.output_rows is None:
            return state
        return whole.to(state.dtype).index_copy(1, self.output_rows, state)

    def _require_known(self, samples: int, condition: Tensor | None, noise: Tensor | None) -> None:
        if (given := 0 if condition is None else condition.shape[1]) != len(self.conditions):
            raise InputError(
                f"this model is conditioned on {len(self.conditions)} numbers a sample, got {given}; give it condition="
                "clock(model.conditions, init_times) of weatherfm.earth.forcings as a tensor"
            )
        rows, size = (samples, 0) if noise is None else noise.shape
        if size != self.config.noise or rows % samples:
            raise InputError(
                f"this model takes {self.config.noise} numbers of noise for each of {samples} samples, or as many "
                f"times that as there are members; got {rows} x {size}; give it noise= of "
                "weatherfm.model.noise.member_noise as a tensor, or zeros"
            )

    def _next_state(self, x: Tensor, now: Tensor, known: Tensor | None, lead_time_hours: Tensor) -> Tensor:
        """Tokens [B, N, D] and outputs now [B, O, H, W], `known` [B, O, 1, 1] or not -> [B, O, H, W]."""
        exact = self.exact
        with torch.autocast(x.device.type, enabled=False) if exact else nullcontext():
            if exact:  # bfloat16 would round z500 by some 20 m2 s-2
                x = x.to(torch.promote_types(x.dtype, torch.float32))
            if self.config.predict == "state":
                return self._to_fields(x, now)
            # an increment is small beside the state, and so is its rounding
            scale = self.outputs_of(at_lead(self.increment_scale, self.increment_leads, lead_time_hours))
            scale = scale[:, :, None, None]
            scale = scale if known is None else torch.where(known, scale, 1)
            return now + scale * self._to_fields(x, now, known)

    def known_outputs(self, present: Tensor | None) -> Tensor | None:
        """[B, O] bool, or [1, O], where an output's present state is among the inputs; None: it always is.

        Args:
            present: as of `forward`.
        """
        if present is not None:
            return present_now(present, self.config.input_times, self.share)
        return None if self.stated is None else self.stated[None]

    def outputs_of(self, values: Tensor) -> Tensor:
        """Those of the channels that come out: [B, C, ...] -> [B, O, ...]."""
        return values if self.output_rows is None else values.index_select(1, self.output_rows)

    def _through_blocks(
        self, x: Tensor, lead_time_hours: Tensor, condition: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """Tokens [B, N, D] of the front end -> [B, N, D], normalised, for the head."""
        places = () if self.places is None else (self.places,)
        x = self.position(x, *places)
        if self.lead_time is not None:
            x = x + self.lead_time(lead_time_hours.to(x.dtype)[:, None] / _LEAD_TIME_SCALE)[:, None]
        x = self.dropout(x)
        whole = self._changes(lead_time_hours, condition, noise)
        if whole is None:
            for block in self.blocks:
                x = block(x)
            return self.norm(x)
        *changes, last = whole.split([*[CHANGES] * len(self.blocks), 2], 1)
        for block, change in zip(self.blocks, changes, strict=True):
            x = block(x, change)
        return modulated(self.norm(x), *last[:, :, None].unbind(1))

    def _changes(self, lead_time_hours: Tensor, condition: Tensor | None, noise: Tensor | None) -> Tensor | None:
        """[B, 6 L + 2, D] of all norms; None: they are as they are."""
        whole = None
        if self.conditioning is not None:
            assert condition is not None  # as `forward` saw to
            whole = self.conditioning(lead_time_hours, condition)
        if self.noising is None or noise is None:
            return whole
        known = noise if condition is None else torch.cat([condition, noise.to(condition.dtype)], 1)
        random = self.noising(lead_time_hours, known)
        return opened(random) if whole is None else whole + random

    def with_inputs_of(self, state: Tensor, other: Tensor) -> Tensor:
        """A state [B, C, H, W] with the channels that are inputs alone of another one."""
        if self.output_rows is None:
            return state
        return other.to(state.dtype).index_copy(1, self.output_rows, self.outputs_of(state))

    def _to_fields(self, x: Tensor, now: Tensor, known: Tensor | None = None) -> Tensor:
        """Tokens [B, N, D] and outputs now [B, O, H, W], `known` [B, O, 1, 1] or not -> [B, O, H, W]."""
        patches = self.to_patches(x)  # [B, N, O, P]
        fields = unpatchify(patches, self.config.patch, self.padded)[..., : now.shape[-2], : now.shape[-1]]
        if self.decoder is not None and fields.shape[1]:
            calm = self.outputs_of((-self.mean / self.std)[None])[0]
            of_head = torch.zeros_like(calm) if self.config.predict == "increment" else calm
            if known is not None:  # the head gives the state itself where it is not
                of_head = torch.where(known[:, :, 0, 0], of_head, calm)[:, None, None]  # [B, 1, 1, O]
            fields = fields + self.decoder(fields, now, torch.stack([of_head, calm.expand_as(of_head)], -1))
        if self.truncation is None or not fields.shape[1]:  # a device may have none of the channels of some data
            return fields
        with torch.autocast(fields.device.type, enabled=False):
            exact = fields.to(torch.promote_types(fields.dtype, torch.float32))
            matrices = (matrix.to(exact.dtype) for matrix in (self.waves, self.analysis, self.synthesis))
            return self.truncation(exact, *matrices)

    def assemble(self, history: Tensor, forcings: Tensor) -> Tensor:
        """All inputs in the order of `ChannelShare.input_names`: -> [B, I, H, W]."""
        if self.input_rows is not None:
            history = history.index_select(2, self.input_rows)
        static = self.static.expand(history.shape[0], -1, -1, -1)
        return torch.cat([history.flatten(1, 2), static, forcings.to(history.dtype)], dim=1)

    def place_positions(self) -> None:
        """Give the position embedding its part of the sequence, as `sequence` says: (which, of how many)."""
        index, count = self.sequence
        own = self.tokens[0] * self.tokens[1] // count
        self.position.rows = slice(index * own, (index + 1) * own)

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

    def _pad(self, x: Tensor) -> Tensor:
        """Fill up to whole patches: along longitude from the other side of a global grid, else by repetition."""
        south, east = self.padded[0] - x.shape[-2], self.padded[1] - x.shape[-1]
        if south:
            x = F.pad(x, (0, 0, 0, south), mode="replicate")
        if east:
            x = F.pad(x, (0, east, 0, 0), mode="circular" if self.domain.grid.periodic else "replicate")
        return x

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
