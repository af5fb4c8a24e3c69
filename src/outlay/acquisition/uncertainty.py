"""Prompts that the model is unsure of, judged by its own greedy response.

Margins are log p1 - log p2 (nats) of the two most likely tokens; the papers take the difference of the probabilities.
"""

from __future__ import annotations

import numpy as np

from ..registry import strategy
from ..types import Floats, Indices, View
from .ranking import highest


@strategy(needs=("mean_entropy",), score="mean_entropy", source="Settles 2009, section 3.1; for responses Bhatt et al. 2024, arXiv 2401.06692", nested=True, divisible=True)
def mean_entropy(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Highest mean token entropy (nats) of the response first."""
    return highest(view, view.score("mean_entropy"), k)


@strategy(needs=("max_entropy",), score="max_entropy", source="Bhatt et al. 2024, arXiv 2401.06692 (maximum token uncertainty)", nested=True, divisible=True)
def max_token_entropy(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Highest entropy (nats) of the response's least certain token first."""
    return highest(view, view.score("max_entropy"), k)


@strategy(needs=("mean_margin",), score="-mean_margin", source="Scheffer et al. 2001; for responses Bhatt et al. 2024, arXiv 2401.06692", nested=True)
def mean_margin(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Smallest margin (nats) between the two most likely tokens first, averaged over the response."""
    return highest(view, -view.score("mean_margin"), k)


@strategy(needs=("min_margin",), score="-min_margin", source="Scheffer et al. 2001; for responses Bhatt et al. 2024, arXiv 2401.06692", nested=True)
def min_margin(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Smallest margin (nats) between the two most likely tokens first, at the response's least certain token."""
    return highest(view, -view.score("min_margin"), k)


def surprise(view: View, picks: Indices, *, per_token: bool = False) -> Floats:
    """Negative log-probability (nats) of the model's own response, of the whole or of a token of it. -> (k,)."""
    return -view.signals.columns["mean_logprob" if per_token else "sum_logprob"][picks]


@strategy(needs=("sum_logprob", "mean_logprob"), score=surprise, source="Lewis & Gale 1994; for responses Bhatt et al. 2024, arXiv 2401.06692", nested=True, divisible=True)
def least_confidence(view: View, k: int, rng: np.random.Generator, *, per_token: bool = False) -> Indices:
    """Lowest probability of the model's own greedy response first.

    The greedy response stands for the most likely one. The probability of a whole response falls with its length, so long responses
    come first; `per_token` takes the geometric mean over its tokens instead (ranking as the normalised sequence probability does).
    """
    return highest(view, surprise(view, view.unlabeled, per_token=per_token), k)
