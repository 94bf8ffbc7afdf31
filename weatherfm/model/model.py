"""WeatherViT: the state now, and at earlier times, to the state after a lead time.

Legend: B batch, M member, T input time, C channel, O channel that comes out, I input, S static, F forcing, K condition,
Z number of noise, H lat, W lon, N patch token, P values in a patch, D width.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from weatherfm.earth.domain import Domain
from weatherfm.earth.forcings import CLOCK
from weatherfm.errors import InputError
from weatherfm.model.aggregation import ChannelAttention
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.backbone_config import is_own
from weatherfm.model.blocks import transformer_blocks
from weatherfm.model.conditioning import CHANGES, LEAD_TIME, Conditioning, known_of, modulated, opened
from weatherfm.model.decoder import ChannelDecoder, require_grid
from weatherfm.model.hierarchical import HierarchicalAggregation
from weatherfm.model.increments import at_lead
from weatherfm.model.initial import initialise
from weatherfm.model.neighbours import Edges
from weatherfm.model.on_data import OnData
from weatherfm.model.own_backbone import OwnBackbone
from weatherfm.model.place import Place
from weatherfm.model.position import Position
from weatherfm.model.reconstruction import ReconstructionDecoder, decoder_config, require_visible
from weatherfm.model.roles import find_roles
from weatherfm.model.share import ChannelShare, group_of_inputs, input_names
from weatherfm.model.tokenizer import ChannelOutput, ChannelTokenizer, patches_at, patchify, unpatchify
from weatherfm.model.truncation import Truncation

_LEAD_TIME_SCALE = 100.0
"""Lead time enters as hours / 100, as in ClimaX; kept so that its weights load."""


class WeatherViT(OnData):
    """Patch embedding a channel, aggregation over channels, transformer blocks over positions, a head.

    Args:
        config: architecture.
        domain: of the whole model.
        share: the channels this instance holds, of all that the architecture has; all without it. Its `domain`,
            `forcings`, inputs and outputs are then those of the share, and the seams `aggregation.merge` (flat) or
            `aggregation.gather` (hierarchical) have to bring in what the others make of theirs.
    """

    aggregation: ChannelAttention | HierarchicalAggregation
    provenance: dict[str, Any]
    """How its weights came about, where they are from a file; else empty."""
    loaded: Any
    """That file (`weatherfm.model.loading.Loaded`), where `weatherfm.load` has read one; else None."""

    def __init__(self, config: ModelConfig, domain: Domain, share: ChannelShare | None = None) -> None:
        super().__init__(config, domain, share)
        self.provenance, self.loaded = {}, None
        self.conditions = CLOCK if config.conditioning == "adaln" else ()
        D, P = config.width, config.patch[0] * config.patch[1]
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
        self.lead_time = nn.Linear(1, D) if plain and config.reconstruction is None else None
        own, known = is_own(config.backbone), len(self.conditions) + config.noise
        self.conditioning = None if plain or own else Conditioning(D, config.depth, len(self.conditions))
        self.noising = Conditioning(D, config.depth, known) if config.noise and not own else None
        self.dropout = nn.Dropout(config.dropout)
        edges = Edges.of(domain.grid)
        if config.decoder_fields:
            require_grid(domain.grid.shape)
        self.blocks = transformer_blocks(config, self.tokens, edges.of_patches())
        self.own_backbone: OwnBackbone | None = None
        self.backbone: nn.Module | None = None
        if own:
            self.own_backbone = OwnBackbone(config, self.tokens, edges.periodic, 0 if plain else LEAD_TIME + known)
            self.backbone = self.own_backbone.build()
            if not self.position.weight.is_meta:
                self.own_backbone.restore(self.backbone.to_empty(device=self.position.weight.device), None)
        self.norm = nn.LayerNorm(D, elementwise_affine=plain or own)
        masked = config.reconstruction is not None
        layers = 0 if masked else config.head_depth
        hidden = [layer for _ in range(layers) for layer in (nn.Linear(D, D), nn.GELU())]
        self.head = nn.Sequential(*hidden)
        self.reconstruction = ReconstructionDecoder(config, self.tokens, edges.of_patches()) if masked else None
        outputs, largest = self.share.outputs, config.truncation
        self.to_patches = ChannelOutput(len(outputs), P, decoder_config(config).width if masked else D)
        self.decoder = ChannelDecoder(outputs, config.decoder_fields, edges) if config.decoder_fields else None
        self.truncation = None if largest is None else Truncation(outputs, largest)
        self.sequence = (0, 1)
        roles = find_roles(config, domain.channels)  # of all shares, so that they round alike
        self.exact = not masked and (config.predict == "state" or not set(roles.outputs) <= set(roles.inputs))
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
        visible: Tensor | None = None,
    ) -> Tensor:
        """One forecast step, or with `config.reconstruction` the present state from a part of it, in normalised units.

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
            visible: [B, V] numbers of the patches that are seen (`weatherfm.model.hidden_patches`), for models with
                `config.reconstruction` alone: nothing of the others is looked at.

        Returns:
            [B * M, C, H, W] normalised state at initial time + lead time; of no meaning at points of a mask. Channels
            that do not come out are as they were.

        Raises:
            InputError: another number of conditions, noise of another size, or patches to see that are none.
        """
        self._require_known(len(history), condition, noise)
        require_visible(visible, len(history), self.tokens[0] * self.tokens[1], self.reconstruction is not None)
        if self.there is not None:
            history = torch.where(self.there > 0, history, 0)
        x = self._front(history, forcings, present, visible)
        whole = history[:, self.config.input_times.index(0)]
        if noise is not None and (members := len(noise) // len(x)) > 1:
            x, whole, lead_time_hours = (of.repeat_interleave(members, 0) for of in (x, whole, lead_time_hours))
            present, condition = (None if y is None else y.repeat_interleave(members, 0) for y in (present, condition))
        x = self._through_blocks(x, lead_time_hours, condition, noise, visible)
        x, now = self.head(x), self.outputs_of(whole)
        if visible is not None:
            return self._with_outputs(whole, self._reconstructed(x, visible))
        known = self.known_outputs(present)
        if known is not None:
            known = known[:, :, None, None]
            now = torch.where(known, now, 0)
        return self._with_outputs(whole, self._next_state(x, now, known, lead_time_hours))

    def _with_outputs(self, whole: Tensor, state: Tensor) -> Tensor:
        """The channels that come out [B, O, H, W] among those that do not, as these are in [B, C, H, W]."""
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

    def _front(
        self, history: Tensor, forcings: Tensor, present: Tensor | None, visible: Tensor | None = None
    ) -> Tensor:
        """States [B, T, C, H, W] and forcings [B, F, H, W] -> tokens [B, N, D] of all positions, or of those [B, N]
        that are `visible`; of all channels."""
        x = self.assemble(history, forcings)  # [B, I, H, W]
        if present is not None:
            x = torch.where(present[:, :, None, None], x, 0)
        x = self.pad(x, around=visible is None)
        patch = self.config.patch
        x = patchify(x, patch) if visible is None else patches_at(x, patch, visible)  # [B, N, I, P]
        tokenizer = self.tokenizer if self.tokenizer.rows is None else self.tokenizer.at_hand()
        return self.aggregation(x, tokenizer, present)

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

    def _reconstructed(self, x: Tensor, visible: Tensor) -> Tensor:
        """Tokens [B, V, D] of the visible positions [B, V] -> [B, O, H, W] of all."""
        assert self.reconstruction is not None  # as `require_visible` saw to
        x = self.reconstruction(x, visible, self.tokens[0] * self.tokens[1], self.places)
        fields = unpatchify(self.to_patches(x), self.config.patch, self.padded)
        height, width = self.domain.grid.shape
        return fields[..., :height, :width]

    def _through_blocks(
        self, x: Tensor, lead_time_hours: Tensor, condition: Tensor | None, noise: Tensor | None,
        visible: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Tokens [B, N, D] of the front end -> [B, N, D], normalised, for the head; N all or those `visible`."""
        places = () if self.places is None else (self.places,)
        x = self.position(x, *places, chosen=None if visible is None else self._own(visible))
        more = () if visible is None or not self.config.rotary else (visible,)  # attention sees all of them
        if self.lead_time is not None:
            x = x + self.lead_time(lead_time_hours.to(x.dtype)[:, None] / _LEAD_TIME_SCALE)[:, None]
        x = self.dropout(x)
        if self.backbone is not None and self.own_backbone is not None:
            known = None if self.lead_time is not None else known_of(lead_time_hours, condition, noise, x.dtype)
            return self.norm(self.own_backbone.call(self.backbone, x, known))
        whole = self._changes(lead_time_hours, condition, noise)
        if whole is None:
            for block in self.blocks:
                x = block(x, None, *more)
            return self.norm(x)
        *changes, last = whole.split([*[CHANGES] * len(self.blocks), 2], 1)
        for block, change in zip(self.blocks, changes, strict=True):
            x = block(x, change, *more)
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

    @property
    def all_blocks(self) -> list[nn.Module]:
        """Transformer blocks, those of a masked autoencoder's decoder behind the others; a backbone of one's own has
        none."""
        return [*self.blocks, *([] if self.reconstruction is None else self.reconstruction.blocks)]

    @property
    def units(self) -> list[nn.Module]:
        """What is gathered, compiled and made again by itself: the blocks, or, of a backbone without, all of it."""
        if self.backbone is None:
            return self.all_blocks
        blocks = getattr(self.backbone, "blocks", None)
        return list(blocks) if isinstance(blocks, nn.ModuleList) and len(blocks) else [self.backbone]

    def set_statistics(self, device: torch.device | None = None) -> None:
        """Of the data, and what a backbone of one's own has beside weights (`OnData.set_statistics`)."""
        super().set_statistics(device)
        if self.own_backbone is not None and self.backbone is not None:
            self.own_backbone.restore(self.backbone, device)

    def place_positions(self) -> None:
        """Give position embeddings their part of the sequence, as `sequence` says: (which, of how many)."""
        rows = self._part_of(self.tokens[0] * self.tokens[1])
        for one in (self, self.reconstruction):
            if one is not None:
                one.position.rows = rows

    def _own(self, visible: Tensor) -> Tensor:
        """Of the visible positions [B, V] those of this part of the sequence."""
        return visible[:, self._part_of(visible.shape[1])]

    def _part_of(self, positions: int) -> slice:
        index, count = self.sequence
        own = positions // count
        return slice(index * own, (index + 1) * own)
