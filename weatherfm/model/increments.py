"""How large an increment of each channel is at a lead time: what the head's output and the loss are in units of.

Legend: L known lead time, B batch, C channel.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weatherfm.earth.domain import Domain


def increment_scales(domain: Domain) -> tuple[np.ndarray, np.ndarray]:
    """([L] hours ascending, [L, C] tendency_std in units of std) of a domain; one lead time stands for all where only
    one is known."""
    if not domain.tendency_std_by_lead:
        return np.zeros(1), (domain.tendency_std / domain.std)[None]
    leads = sorted(domain.tendency_std_by_lead)
    return np.array(leads, float), np.stack([domain.tendency_std_by_lead[lead] for lead in leads]) / domain.std


def at_lead(scales: Tensor, leads: Tensor, hours: Tensor) -> Tensor:
    """Scales [L, C] of lead times [L] at those of samples [B]: [B, C].

    Between known lead times on a straight line; before the first and after the last, theirs.
    """
    if len(scales) == 1:
        return scales.expand(len(hours), -1)
    hours = hours.to(leads.dtype)
    upper = torch.searchsorted(leads, hours.contiguous()).clamp(1, len(leads) - 1)
    low, high = leads[upper - 1], leads[upper]
    share = ((hours - low) / (high - low)).clamp(0, 1)[:, None].to(scales.dtype)
    return torch.lerp(scales[upper - 1], scales[upper], share)
