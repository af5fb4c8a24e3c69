"""Scoring a random subset of the pool in each round: which prompts, and how far their choice agrees with that from all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import registry, seeds
from .acquisition import scores_of, select
from .types import Indices, View


def candidates(ids: Sequence[str], unlabeled: Indices, share: float, *, least: int, seed: int, number: int) -> Indices:
    """This share of the unlabeled rows, at least `least` of them: those with the smallest hash(seed, round, id). In the order of the pool.

    (m,) -> (at most m,). Campaigns of one seed draw the same prompts where they have the same ones left.
    """
    count = min(len(unlabeled), max(least, math.ceil(share * len(unlabeled))))
    drawn = seeds.lottery(seed, [ids[row] for row in unlabeled], "scored", number)
    return np.sort(unlabeled[np.argsort(drawn, kind="stable")[:count]])


def agreement(strategy: str, whole: View, part: View, k: int, rng: Sequence[np.random.Generator]) -> dict[str, float | int | None]:
    """What the strategy picks from `part` beside what it picks from `whole`, by the same signals; rng: two equal generators.

    scored, unlabeled: how many prompts each choice is from. overlap: share of the k picks from the part that are picks from the whole,
    too; a random part of share s is to have about s. rank: the mean, over the picks from the part, of the share of the whole's prompts with no
    higher score (best_rank: that of the picks from the whole); None where the score is not one of each prompt by itself.
    """
    few, all_ = (select(strategy, view, k, one) for view, one in zip((part, whole), rng, strict=True))
    found: dict[str, float | int | None] = {"scored": len(part.unlabeled), "unlabeled": len(whole.unlabeled)}
    found |= {"overlap": len(np.intersect1d(few.rows, all_.rows)) / k, "rank": None, "best_rank": None}
    card = registry.card("strategy", registry.parse(strategy)[0])
    if isinstance(card.score, str):
        scores = np.sort(scores_of(card, whole, whole.unlabeled, {}))
        for name, picked in (("rank", few), ("best_rank", all_)):
            found[name] = float(np.mean(np.searchsorted(scores, picked.scores, side="right")) / len(scores))
    return found
