"""The arm that every other one is compared with."""

from __future__ import annotations

import numpy as np

from ..registry import strategy
from ..types import Indices, View
from .ranking import by_lottery


@strategy(source="simple random sampling without replacement", nested=True)
def random(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Uniformly at random: the head of the campaign's lottery, so smaller budgets and earlier rounds are subsets of larger ones."""
    return by_lottery(view)[:k]
