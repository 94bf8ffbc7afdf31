"""The domain of a run that starts from trained weights: channels they know keep what they were trained with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.training.starting.donor import Donor


def with_statistics_of(domain: Domain, donor: Donor) -> Domain:
    """Mean, std and tendency_std of the channels that the weights know, as they know them; of others the store's.

    Weights without any (ClimaX) leave the store's.

    Raises:
        InputError: a channel on another scale, or spreads over other lead times, than the weights'.
    """
    known = donor.domain
    if known is None:
        return domain
    kept = [name for name in domain.channels if name in known.channels]
    _require_same_scale(domain, known, kept, donor)
    own = [domain.channels.index(name) for name in kept]
    theirs = [known.channels.index(name) for name in kept]

    def merged(held: np.ndarray, trained: np.ndarray) -> np.ndarray:
        values = held.copy()
        values[own] = trained[theirs]
        return values

    return replace(
        domain,
        mean=merged(domain.mean, known.mean),
        std=merged(domain.std, known.std),
        tendency_std=merged(domain.tendency_std, known.tendency_std),
        tendency_std_by_lead={
            lead: merged(spread, known.tendency_std_by_lead[lead])
            for lead, spread in domain.tendency_std_by_lead.items()
        },
    )


def _require_same_scale(domain: Domain, known: Domain, kept: list[str], donor: Donor) -> None:
    scales = [{name: one.log_scales.get(name) for name in kept} for one in (domain, known)]
    if scales[0] != scales[1]:
        other = next(name for name in kept if scales[0][name] != scales[1][name])
        raise InputError(
            f"{donor.path} was trained with log1p of {other} by {scales[1][other]}, the store has {scales[0][other]}; "
            "set data.transforms as the weights have it, and prepare anew"
        )
    leads = [sorted(one.tendency_std_by_lead) for one in (domain, known)]
    if leads[0] != leads[1]:
        texts = [", ".join(f"{hours}h" for hours in one) or "one lead time alone" for one in leads]
        raise InputError(
            f"{donor.path} measures changes over {texts[1]}, the store over {texts[0]}; set data.tendency_leads as the "
            "weights have it, and prepare anew"
        )
