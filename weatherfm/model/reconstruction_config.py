"""Settings of a masked autoencoder: how much is hidden, and the decoder that is trained beside the encoder."""

from __future__ import annotations

from pydantic import Field

from weatherfm.config import Config
from weatherfm.errors import InputError

_SHOWN = 6


class ReconstructionConfig(Config):
    """Masked autoencoder (arXiv 2111.06377): the blocks see some patches, a small decoder makes all of them."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the patches that are hidden, the same number in every sample; their places are drawn anew for each."""
    depth: int = Field(2, ge=1, le=1000)
    """Transformer blocks of the decoder, over all patches."""
    width: int | None = Field(None, ge=1, le=2**16)
    """Numbers in a token of the decoder, a multiple of its `heads` and of 4; null: as `model.width`."""
    heads: int | None = Field(None, ge=1, le=2**16)
    """Of the decoder's attention; null: as `model.heads`."""

    def visible(self, positions: int) -> int:
        """How many of so many patches are seen: the nearest whole number; of two, the even one.

        Raises:
            InputError: none would be seen, or none hidden.
        """
        seen = round((1 - self.mask_ratio) * positions)
        if not 1 <= seen < positions:
            nothing = "see" if seen < 1 else "reconstruct"
            raise InputError(
                f"model.reconstruction.mask_ratio {self.mask_ratio:g} of {positions} patches leaves nothing to "
                f"{nothing}; " + (self._cure(positions) if positions > 1 else "make model.patch_size smaller")
            )
        return seen

    def _cure(self, positions: int) -> str:
        near = 1 if self.mask_ratio > 0.5 else positions - 1
        return f"choose {_ratio(positions, near)}, which leaves {near}, or make model.patch_size smaller"

    def ratios_for(self, positions: int, count: int) -> list[str]:
        """Mask ratios near this one at which `count` divides the patches that are seen, the nearest first."""
        good = range(count, positions, count)
        nearest = sorted(good, key=lambda seen: abs(1 - seen / positions - self.mask_ratio))
        return [_ratio(positions, seen) for seen in nearest[:_SHOWN]]


def _ratio(positions: int, seen: int) -> str:
    """A mask ratio, as short as can be, at which so many of the patches are seen."""
    exact = 1 - seen / positions
    texts = (f"{exact:.{digits}f}" for digits in range(1, 17))
    return next(text for text in texts if round((1 - float(text)) * positions) == seen and 0 < float(text) < 1)
