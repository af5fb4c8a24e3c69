"""The random slice of each batch: prompts that chance draws, not the strategy.

Alone it is drawn anew each round from what is left. With a shadow arm it comes from one fixed random order of the whole pool: after each
round the first so many prompts of that order are the random sample, and the slice is what of them was not asked yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import seeds
from .types import Indices

if TYPE_CHECKING:
    from .campaign import Campaign, Desk


def size(share: float, k: int) -> int:
    """Prompts of the slice of a batch of k: at least one where there is to be one, and never the whole batch."""
    return min(k - 1, max(1, round(share * k))) if share else 0


def sample(seed: int, ids: Sequence[str], share: float, sizes: Sequence[int]) -> Indices:
    """Rows of the random sample after rounds of these planned sizes, in the fixed order.

    Its number and its order are known before anything is asked, so it is a simple random sample of the pool, whatever the strategy does; a
    prompt of it that the strategy has bought is one that need not be bought again.
    """
    return np.argsort(seeds.lottery(seed, ids, "shadow"), kind="stable")[: sum(size(share, k) for k in sizes)]


def draw(desk: Desk, campaign: Campaign, unlabeled: Indices, number: int, k: int) -> Indices:
    """Rows of the random slice of round `number`, whose batch is of k, among those that were not asked yet."""
    if not desk.audit:
        return unlabeled[:0]
    if desk.shadow:
        wanted = sample(campaign.seed, desk.pool.ids, desk.audit, campaign.sizes[:number])
        return wanted[np.isin(wanted, unlabeled)][: k - 1]
    drawn = seeds.lottery(campaign.seed, desk.pool.ids, "audit", number)[unlabeled]
    return unlabeled[np.argsort(drawn, kind="stable")[: size(desk.audit, k)]]
