"""Prompts that together represent the pool, whatever the model says of them."""

from __future__ import annotations

import numpy as np

from ..coverage import facility
from ..registry import strategy
from ..types import Floats, Indices, View
from .ranking import by_lottery


def gain(view: View, picks: Indices, *, kernel: str = "cosine", width: float = 0.1) -> Floats:
    """What each pick added to the representation of the pool (similarity summed over prompts). -> (k,)."""
    return facility.gains_in_order(view.signals.columns["embedding"], picks, chosen=view.labeled, kernel=kernel, width=width)


@strategy(needs=("embedding",), score=gain, source="Bhatt et al. 2024, arXiv 2401.06692; greedy: Nemhauser et al. 1978, lazy: Minoux 1978", nested=True)
def facility_location(view: View, k: int, rng: np.random.Generator, *, kernel: str = "cosine", width: float = 0.1) -> Indices:
    """Greedily raise the summed similarity of every prompt to its most similar bought one, counting what is already bought.

    kernel: "cosine", or "rbf" with `width` times the mean squared distance of the pool as its scale.
    """
    # The whole problem is put in the order of the lottery: ties, and the rounding of the sums, are then the same in any order of the pool.
    order = np.argsort(view.lottery, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    found = facility.cover(
        view.signals.columns["embedding"][order], k, candidates=place[by_lottery(view)], chosen=np.sort(place[view.labeled]), kernel=kernel, width=width
    )
    return order[found.picks]
