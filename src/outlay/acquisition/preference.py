"""Strategies for campaigns that buy preferences: which of two drafts by the round's model is better."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from annotated_types import Ge

from ..registry import strategy
from ..types import Indices, View
from .ranking import highest

PAPER = "Muldrew, Hayes, Zhang & Barber 2024, arXiv 2402.08114"


@strategy(needs=("sample_entropy",), score="sample_entropy", source=f"{PAPER} (entropy)", nested=True, divisible=True)
def sample_entropy(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Highest entropy (nats) of the model's answer to the prompt first, estimated from sampled responses: mean of -log p(y|x).

    Entropy adds up over tokens, so prompts with long answers come first. The scorer's samples and temperature say how many are drawn and how.
    """
    return highest(view, view.score("sample_entropy"), k)


@strategy(needs=("reward_gap",), score="reward_gap", source=f"{PAPER} (preference certainty)", nested=True, divisible=True)
def reward_gap(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Largest distance between the implicit rewards of the two drafts first: there a judgement can prove the model wrong where it is sure.

    The implicit reward of a response is beta * (log p(y|x) - log p_base(y|x)); the distance is in nats, without beta, which orders nothing. For
    the untouched base it is 0 everywhere, so a first round from the base buys at random. It means what its name says where preferences are bought.
    """
    return highest(view, view.score("reward_gap"), k)


@strategy(needs=("sample_entropy", "reward_gap"), score="reward_gap", source=f"{PAPER} (APL: entropy, then certainty)")
def apl(view: View, k: int, rng: np.random.Generator, *, factor: Annotated[float, Ge(1)] = 4.0) -> Indices:
    """Of the `factor` times k prompts of highest `sample_entropy`, the k with the largest `reward_gap`.

    Where all gaps are equal (the untouched base's are 0), the lottery decides among the filtered. The paper filters a random part of the pool
    in each round; here every prompt that is scored is looked at (`scored_share` in the config makes it a part).
    """
    open_to = highest(view, view.score("sample_entropy"), math.ceil(factor * k))
    gaps = view.signals.columns["reward_gap"][open_to]
    return open_to[np.lexsort((view.lottery[open_to], -gaps))[:k]]
