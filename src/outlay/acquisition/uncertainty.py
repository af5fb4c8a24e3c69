"""Prompts that the model is unsure of, judged by its own greedy response."""

from __future__ import annotations

import numpy as np

from ..registry import strategy
from ..types import Indices, View
from .ranking import highest


@strategy(needs=("mean_entropy",), score="mean_entropy", source="Settles 2009, section 3.1; for responses Bhatt et al. 2024, arXiv 2401.06692", nested=True)
def mean_entropy(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Highest mean token entropy (nats) of the response first."""
    return highest(view, view.score("mean_entropy"), k)


@strategy(needs=("min_margin",), score="-min_margin", source="Scheffer et al. 2001; for responses Bhatt et al. 2024, arXiv 2401.06692", nested=True)
def min_margin(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Smallest margin first: the difference of the two highest token probabilities, at the response's least certain token."""
    return highest(view, -view.score("min_margin"), k)
