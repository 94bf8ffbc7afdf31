"""The continuous ranked probability score of a few members, as a loss.

With members X_1 .. X_M and the truth y,

    afCRPS = mean over j of |X_j - y|  -  (1 - e) / (M (M - 1)) * sum over j < k of |X_j - X_k|,   e = (1 - alpha) / M

(Lang et al. 2024, AIFS-CRPS, arXiv 2412.15832, eqs. 3 and 4). At alpha 1 it is the fair score (Ferro 2014,
doi:10.1002/qj.2270), whose expectation is least for members from which the truth cannot be told, however few; but of
two members one may be anything while the other is the truth. A little less than 1 forbids that. At alpha 0 it is the
score of the members' own distribution, which wants too little spread of them.

Legend: B sample, M member.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor


def almost_fair_crps(errors: Tensor, alpha: float) -> Tensor:
    """Score at every point; differences of equal members have no gradient.

    Args:
        errors: [B, M, ...] members minus truth, M at least 2.
        alpha: 1: fair; 0: of the members' own distribution.

    Returns:
        [B, ...].
    """
    members = errors.shape[1]
    pairs = torch.zeros_like(errors[:, 0])
    for first, second in combinations(range(members), 2):
        pairs = pairs + (errors[:, first] - errors[:, second]).abs()
    share = (1 - (1 - alpha) / members) / (members * (members - 1))
    return errors.abs().mean(1) - share * pairs
