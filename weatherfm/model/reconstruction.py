"""The decoder of a masked autoencoder: from tokens of the patches that were seen to tokens of all (arXiv 2111.06377).

It has blocks of its own, norms that no sample changes, and positions of its own; where nothing was seen, one learned
token stands. What it makes goes through the output rows of every channel, as a forecast does.

Legend: B batch, N position, V visible position, D width of the encoder, E of the decoder.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.blocks import Block
from weatherfm.model.neighbours import Edges
from weatherfm.model.place import Place
from weatherfm.model.position import Position


class ReconstructionDecoder(nn.Module):
    """Tokens of visible patches -> tokens of all of them.

    Args:
        config: of the whole model, with `reconstruction`.
        tokens: (rows, columns) of patches.
        edges: of the patches.
    """

    gather: Callable[[Tensor], Tensor] | None = None
    """Seam: adds what others have of the visible patches: [B, own, E] -> [B, V, E]. None: all are here."""

    def __init__(self, config: ModelConfig, tokens: tuple[int, int], edges: Edges) -> None:
        super().__init__()
        own = decoder_config(config)
        self.embed = nn.Linear(config.width, own.width)
        self.hidden = nn.Parameter(torch.zeros(own.width))
        count = tokens[0] * tokens[1]
        self.position = Place(own.width) if config.position == "place" else Position(count, own.width)
        self.blocks = nn.ModuleList(Block(own, 0.0, tokens, edges) for _ in range(own.depth))
        self.norm = nn.LayerNorm(own.width)

    def forward(self, x: Tensor, visible: Tensor, positions: int, places: Tensor | None = None) -> Tensor:
        """Decode.

        Args:
            x: [B, V, D], or of these the own ones.
            visible: [B, V] numbers of the patches that were seen.
            positions: N.
            places: of all positions, for `model.position: place`.

        Returns:
            [B, N, E], or of these the own ones.
        """
        x = self.embed(x)
        if self.gather is not None:
            x = self.gather(x)
        own = self.position.rows
        # scattered, not gathered: the gradient is a gather then, and hidden places never meet in one sum
        rows = visible[:, :, None].expand(-1, -1, x.shape[2])
        x = x.new_zeros(len(x), positions, x.shape[2]).scatter(1, rows, x)[:, own]
        seen = torch.zeros(len(x), positions, dtype=torch.bool, device=x.device).scatter(1, visible, True)
        x = torch.where(seen[:, own, None], x, self.hidden)
        x = self.position(x) if places is None else self.position(x, places)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x)
        return out


def decoder_config(config: ModelConfig) -> ModelConfig:
    """The settings of a masked autoencoder's decoder, as of a model of its own."""
    settings = config.reconstruction
    assert settings is not None  # whoever has a decoder has its settings
    changed = {
        "width": settings.width or config.width,
        "depth": settings.depth,
        "heads": settings.heads or config.heads,
        "conditioning": "embed",
        "reconstruction": None,
    }
    return config.model_copy(update=changed)


def require_visible(visible: Tensor | None, samples: int, positions: int, reconstructs: bool) -> None:
    """Refuse a model that reconstructs without patches to see, and one that forecasts with them.

    Raises:
        InputError: with what to do.
    """
    if visible is None and reconstructs:
        raise InputError(
            "these are weights of a masked autoencoder (training.objective: reconstruct), which forecasts nothing; "
            "reconstruct with them (weatherfm.model.reconstruct), or train a forecasting model that starts from them "
            "(training.start_from)"
        )
    if visible is None:
        return
    if not reconstructs:
        raise InputError("this model forecasts and hides no patches (model.reconstruction is null); leave visible out")
    fits = visible.ndim == 2 and len(visible) == samples and 1 <= visible.shape[1] < positions
    if not fits:
        raise InputError(
            f"visible must hold numbers of some of the {positions} patches for each of {samples} samples, as many in "
            f"each; got shape {list(visible.shape)}"
        )
