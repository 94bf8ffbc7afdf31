"""Peak memory of a rank by a formula on paper: a check on the simulation, which alone decides.

With p the weights a rank holds (float32: 4 bytes each), l those of them that learn (two moments: 8 bytes more, 12 with
the gradient), s = 4 p + 8 l, b its samples, n = N / tp its positions and h = 2 or 4 the bytes of a number in matrix
products, most is held at one of three moments: when the forward pass ends, when the backward pass is in the last block,
or when it comes to the front end:

    s + batches + gathered weights + kept by the front end + depth x kept by a block + head and loss
    s + batches + gathered weights + kept by the front end + depth x kept by a block + work of a block
    s + 4 l + batches + gathered weights + work of the front end

Kept by a block, a number of it in units of b n D (r: MLP ratio; `tp` stands for what has all positions of a sample):

    none       8 + h (4 + 2 r + 2 tp)   norms' inputs; q k v, attention; both sides of GELU; inputs of q k v, expand
    selective  8 + h (4 + r + 2 tp)     norms' inputs; results of all products, of out and contract before their sum
    block      4                        its input

With `model.mlp_convolution`, `none` keeps its input as well: h r, and the patches around; with `model.conditioning:
adaln` or `noise` norms before they are changed and what gates multiply: 4 h; in blocks whose attention stays within
windows (`model.backbone`) its result in the order of positions as well: h. With low-rank factors `selective` keeps
both products of an adapted matrix. With `model.decoder_fields` E
the head keeps h (2 + 2 E) for each value of its channels, and for those around; with `model.truncation` coefficients.
With S model steps a sample (`training.rollout`) all that S - 1 of them keep, head and loss too, is held at each of the
three moments of the last. With M members a sample (`training.loss: crps`) b counts them all but for batches and the
front end, which in the first model step they have in common. Of a masked autoencoder (`model.reconstruction`) N are the
positions that are seen, and the decoder's blocks, of its own D and of all positions, are kept and worked on likewise;
it has no target but the state.
Work of a block is what `none` would keep of it and the gradients on both sides of GELU. Left out: dropout's masks,
kernels' workspaces, what is not kept for weights that are frozen, and how FSDP overlaps its messages.
"""

from __future__ import annotations

import torch

from weatherfm.earth.domain import Domain
from weatherfm.model.architecture import patch_counts
from weatherfm.model.model import WeatherViT
from weatherfm.model.reconstruction import decoder_config
from weatherfm.model.share import channel_shares, whole
from weatherfm.training.parallel.build_model import add_factors
from weatherfm.training.parallel.channel_rows import belongs_to_channels
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.role import heaviest_rank
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.learning import freeze


def expected_peak(config: RunConfig, domain: Domain, layout: Layout, dtype: torch.dtype) -> float:
    """Bytes of the heaviest rank, for a backbone of ours (of others' nothing is known)."""
    split = config.parallel.channels == "split"
    index = heaviest_rank(config, domain, layout)
    share = channel_shares(config.model, domain, layout.tp)[index] if split else whole(config.model, domain)
    with torch.device("meta"):
        model = WeatherViT(config.model, domain, share)
    add_factors(model, config)
    freeze(model, config.training.start_from)
    return _Terms(config, model, layout, dtype).peak()


class _Terms:
    """The terms of the formula, in bytes."""

    def __init__(self, config: RunConfig, model: WeatherViT, layout: Layout, dtype: torch.dtype) -> None:
        self.config, self.model, self.layout, self.h = config, model, layout, dtype.itemsize
        samples = config.training.batch_size // layout.dp
        self.positions = patch_counts(config.model.patch, model.domain.grid.shape)
        everywhere = self.positions[0] * self.positions[1]
        self.masked = config.model.reconstruction
        self.rows = samples * everywhere if self.masked is None else samples * self.masked.visible(everywhere)
        self.seen = self.rows / (samples * everywhere)  # `rows` are b N, without members
        self.members = config.training.members if config.model.noise else 1
        self.stream = self.members * self.rows // layout.tp * config.model.width  # b n D
        self.fields = samples * everywhere * config.model.patch[0] * config.model.patch[1]  # b H W
        self.decoder = None if self.masked is None else decoder_config(config.model)
        width = config.model.width if self.decoder is None else self.decoder.width
        self.last = self.members * samples * everywhere // layout.tp * width  # b n D, before the output rows
        self.mode = config.parallel.activation_checkpointing
        self.aggregation = config.model.aggregation
        self.split = config.parallel.channels == "split"
        self.model_steps = max(config.training.model_steps.values())

    def peak(self) -> float:
        """The largest of the three moments."""
        held, learn = self.weights_held(), self.weights_that_learn()
        average = 4 * (self.config.training.ema_decay > 0)
        steady = (4 + average) * held + 8 * learn + self.gathered() + self.data() + self.matrices()
        gradients = 4 * learn
        again = gradients if self.config.training.accumulate > 1 else 0  # those of the batch before
        blocks = self.config.model.depth * self.block_kept(self.mode, self.stream) + self.decoder_kept()
        later = self.members * self.front_kept()
        fronts = [self.front_kept(), *[later] * (self.model_steps - 1)]
        before = sum(front + blocks + self.head() for front in fronts[:-1])
        forward, backward = (again + fronts[-1] + blocks + x for x in (self.head(), self.block_work()))
        work = self.front_work() * (1 if self.model_steps == 1 else self.members)
        return steady + before + max(forward, backward, gradients + work)

    def matrices(self) -> float:
        """Of the truncation, for scalars and winds, there and back, in float32."""
        largest = self.config.model.truncation
        return 0 if largest is None else 2 * 2 * 4 * (largest + 1) ** 2 * self.model.domain.grid.shape[0]

    def weights_held(self) -> float:
        """Of the rank, after splitting."""
        return sum(self._split(name, p.numel()) for name, p in self.model.named_parameters())

    def weights_that_learn(self) -> float:
        """Of those."""
        return sum(self._split(name, p.numel()) for name, p in self.model.named_parameters() if p.requires_grad)

    def gathered(self) -> float:
        """A channel's rows for all of the step in float32, and the blocks around the one at work."""
        if self.layout.devices == 1:  # autocast's copies; those of frozen weights are a block's, and go with it
            known = [p for p in self.model.parameters() if p.requires_grad or self.mode != "block"]
            return self.h * sum(p.numel() for p in known) if self.h < 4 else 0
        rows = sum(p.numel() for name, p in self.model.named_parameters() if belongs_to_channels(name))
        block = sum(p.numel() for p in self.model.blocks[0].parameters()) / self.layout.tp
        return 4 * rows * self.split + self.h * 2 * block

    def data(self) -> float:
        """The batch at work and the one read ahead: history and targets."""
        targets = self.model_steps if self.masked is None else 0
        states = len(self.config.model.input_times) + targets
        return 4 * 2 * self.fields * len(self.model.domain.channels) * states

    def decoder_kept(self) -> float:
        """Of a masked autoencoder: the encoder's last norm, what the decoder begins with, and its blocks."""
        if self.decoder is None:
            return 0
        begun = self.stream * (8 + self.h) + 4 * self.last
        return begun + self.decoder.depth * self.block_kept(self.mode, self.last, changed=False)

    def block_kept(self, mode: str, stream: float, changed: bool = True) -> float:
        """By one block of so many numbers; `changed`: its norms are adaptive if the model's are."""
        h, r, tp = self.h, self.config.model.mlp_ratio, self.layout.tp
        factor = {"none": 8 + h * (4 + 2 * r + 2 * tp), "selective": 8 + h * (4 + r + 2 * tp), "block": 4}[mode]
        if mode == "none" and self.config.model.mlp_convolution:
            factor += h * r * self.around(1, self.positions)
        if mode == "none" and changed and (self.config.model.conditioning == "adaln" or self.config.model.noise):
            factor += 4 * h
        if mode == "none" and self.config.model.backbone == "windows":
            kinds = self.config.model.windows.kinds(self.config.model.depth)
            factor += h * sum(shifted is not None for shifted in kinds) / len(kinds)
        if mode == "selective":
            factor += h * self.low_rank_products()
        return stream * factor

    def low_rank_products(self) -> float:
        """Of one block, in units of b n D: split by output as the matrix is, or a part of a sum over all positions."""
        start, width = self.config.training.start_from, self.config.model.width
        names = [] if start is None or start.lora is None else start.lora.matrices
        whole = ("attention.out", "mlp.contract")
        rows = {name: self.model.blocks[0].get_parameter(f"{name}.lora_b").shape[0] for name in names}
        return sum(self.layout.tp if name in whole else size / width for name, size in rows.items())

    def block_work(self) -> float:
        """Of one block in its backward pass, beside what it keeps: of the larger ones."""
        stream = max(self.stream, self.last if self.decoder else 0)
        again = max(0.0, self.block_kept("none", stream) - self.block_kept(self.mode, stream))
        return again + 2 * self.h * self.config.model.mlp_ratio * stream

    def front_kept(self) -> float:
        """Input patches and group tokens; over tokens these, keys and values."""
        aggregation, heads = self.aggregation, 1 if self.split else self.layout.tp
        kept = (1 + self.seen) * 4 * self.fields * self._inputs() + 3 * self._tokens(aggregation.groups or 0)
        if aggregation.evaluate == "tokens":
            kept += (1 + 2 / heads) * self._tokens(self._inputs())
        return kept

    def front_work(self) -> float:
        """What is kept; folded: a few of the largest blocks; over tokens: their gradients, also by keys and values."""
        aggregation = self.aggregation
        work = self.front_kept() + 2 * self._tokens(aggregation.groups or 0)
        if aggregation.evaluate == "tokens":
            return work + 2 * self._tokens(self._inputs())
        whole = self.h * self.seen * self.fields * self._inputs() * self.config.model.heads
        return work + 2 * min(aggregation.block_bytes("cuda"), whole)

    def head(self) -> float:
        """Hidden layers, gathered positions, and prediction, target and error of own channels."""
        layers = self.config.model.head_depth if self.masked is None else 0
        hidden = self.last * (8 + 2 * self.h * layers) + self.h * self.last * self.layout.tp
        values = self.members * self.fields * len(self.model.share.outputs)
        fields = self.config.model.decoder_fields
        decoder = self.h * (2 + 2 * fields) * self.around(2, self.model.domain.grid.shape) if fields else 0
        return hidden + values * (4 * 5 + 2 * self.h + decoder + self._truncation())

    def _truncation(self) -> float:
        """A value's share of coefficients by row, by total wavenumber, times their gain, and by row again: float32."""
        largest, (H, W) = self.config.model.truncation, self.model.domain.grid.shape
        return 0 if largest is None else 4 * 2 * (largest + 1) / W * (2 + 2 * (largest + 1) / H)

    @staticmethod
    def around(width: int, shape: tuple[int, int]) -> float:
        """Size of a field with `width` more rows and columns on each side, in units of the field."""
        return (shape[0] + 2 * width) * (shape[1] + 2 * width) / (shape[0] * shape[1])

    def _split(self, name: str, size: int) -> float:
        alone = self.split and belongs_to_channels(name)
        return size / (self.layout.dp_shard * (1 if alone else self.layout.tp))

    def _inputs(self) -> int:
        return len(self.model.share.input_names(self.config.model.input_times))

    def _tokens(self, count: int) -> float:
        return self.rows * count * self.config.model.width * self.h
