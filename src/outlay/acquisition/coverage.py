"""Prompts that together represent the pool, whatever the model says of them."""

from __future__ import annotations

import numpy as np

from ..coverage import clusters, facility, rounds, spread
from ..coverage.similarity import unit
from ..registry import strategy
from ..types import Floats, Indices, View
from .ranking import Line, Share, by_lottery, line_up, reached


def gain(view: View, picks: Indices, *, kernel: str = "cosine", width: float = 0.1) -> Floats:
    """What each pick added to the representation of the pool (similarity summed over prompts). -> (k,)."""
    return facility.gains_in_order(view.signals.columns["embedding"], picks, chosen=view.labeled, kernel=kernel, width=width)


@strategy(needs=("embedding",), score=gain, source="Bhatt et al. 2024, arXiv 2401.06692; greedy: Nemhauser et al. 1978, lazy: Minoux 1978", nested=True)
def facility_location(view: View, k: int, rng: np.random.Generator, *, kernel: str = "cosine", width: float = 0.1) -> Indices:
    """Greedily raise the summed similarity of every prompt to its most similar bought one, counting what is already bought.

    kernel: "cosine", or "rbf" with `width` times the mean squared distance of the pool as its scale. Exact up to 5,000 prompts; above,
    within a thousandth of it or so, and from 5,000 to 20,000 a round goes on from what the first one computed (coverage.rounds).
    """
    line = line_up(view)
    points = view.signals.columns["embedding"][line.rows]
    given = {"candidates": line.unlabeled, "chosen": line.labeled}
    if facility.EXACT_UP_TO < len(points) <= facility.TWO_STAGE_UP_TO:
        found = _known(view, line, kernel, width).moved(points, chosen=line.labeled).next(k, **given)
    else:
        found = facility.cover(points, k, **given, kernel=kernel, width=width)
    reached(view, found.objective, found.bound)
    return line.rows[found.picks]


def _known(view: View, line: Line, kernel: str, width: float) -> rounds.Rounds:
    """What looking at all pairs in the base model's embedding gave: the same in every round, also after an interruption."""
    first = view.base.get("embedding", view.signals.columns["embedding"])[line.rows]
    state = view.memory.get(key := ("facility_location", kernel, width))
    if state is None or not np.array_equal(state.embedding, first):
        state = view.memory[key] = rounds.start(first, kernel=kernel, width=width)
    return state


def distance(view: View, picks: Indices) -> Floats:
    """Distance of each pick to the nearest prompt bought before it; 2, the largest there is, if none was. -> (k,)."""
    return np.minimum(_farthest_first(view, len(picks))[1], 2)


@strategy(needs=("embedding",), score=distance, source="Sener & Savarese 2018, arXiv 1708.00489; greedy: Gonzalez 1985", nested=True)
def k_center(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Each time the prompt that is farthest from everything bought so far, counting what is already bought.

    Euclidean, on rows of length 1. The greedy form of the paper, without its search for a smaller radius around outliers. Starts at
    the head of the lottery if nothing is bought.
    """
    picks, _, radius = _farthest_first(view, k)
    reached(view, radius, radius / 2)  # no k prompts halve it: see acquisition.alone
    return picks


def _farthest_first(view: View, k: int) -> tuple[Indices, Floats, float]:
    line = line_up(view)
    points = unit(view.signals.columns["embedding"], line.rows)
    found = spread.farthest_first(points, k, candidates=line.unlabeled, chosen=line.labeled)
    return line.rows[found.picks], found.distances, float(found.away.max())


# Not nested: each round draws anew, so two rounds do not buy what one would have.
@strategy(needs=("embedding",), source="Arthur & Vassilvitskii 2007 (the seeding alone)")
def k_means_pp(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Each time a random prompt, in proportion to its squared distance to the nearest bought one, counting what is already bought.

    Euclidean, on rows of length 1. Between `random` and `k_center`: far prompts are likely, outliers are not certain.
    """
    line = line_up(view)
    points = unit(view.signals.columns["embedding"], line.rows)
    return line.rows[spread.d2_sample(points, k, candidates=line.unlabeled, chosen=line.labeled, rng=rng)]


@strategy(needs=("embedding",), source="Zhdanov 2019, arXiv 1901.05954, without its uncertainty weights; k-means: Lloyd 1982")
def k_means(view: View, k: int, rng: np.random.Generator) -> Indices:
    """The prompt nearest to the centroid of each of k clusters of what is not bought yet, largest cluster first.

    Euclidean, on rows of length 1. What is already bought plays no part, as in the paper: the next round may buy from the same
    clusters again. Where fewer than k prompts differ, the rest follow in the order of the lottery.
    """
    rows = by_lottery(view)
    found = rows[clusters.representatives(unit(view.signals.columns["embedding"], rows), k, rng)]
    return np.concatenate([found, rows[~np.isin(rows, found)]])[:k]


def in_domain_diversity(view: View, picks: Indices, *, weight: Share = 0.67) -> Floats:
    """The IDDS score of each pick when it was chosen. -> (k,)."""
    return _idds(view, len(picks), weight)[1]


@strategy(needs=("embedding",), score=in_domain_diversity, source="Tsvigun et al. 2022, arXiv 2301.03252 (IDDS)", nested=True)
def idds(view: View, k: int, rng: np.random.Generator, *, weight: Share = 0.67) -> Indices:
    """Prompts that are like those not bought yet and unlike those bought.

    Highest weight * (mean cosine to the other unlabeled prompts) - (1 - weight) * (mean cosine to the labeled ones; 0 without any),
    one at a time: a pick counts as labeled for the next. The paper embeds with a BERT; here the scorer's embedding.
    """
    return _idds(view, k, weight)[0]


def _idds(view: View, k: int, weight: float) -> tuple[Indices, Floats]:
    line = line_up(view)
    points = unit(view.signals.columns["embedding"], line.rows).astype(np.float64)
    free = points[line.unlabeled]
    to_free = free @ free.sum(axis=0) - np.einsum("md,md->m", free, free)  # summed cosine to the others
    to_labeled = free @ points[line.labeled].sum(axis=0)
    picks, scores = np.empty(k, dtype=np.int64), np.empty(k)
    for turn in range(k):
        others, labeled = max(len(free) - turn - 1, 1), max(len(line.labeled) + turn, 1)
        score = np.round(weight * to_free / others - (1 - weight) * to_labeled / labeled, 9)  # the rounding of sums decides no tie
        score[picks[:turn]] = -np.inf
        pick = picks[turn] = score.argmax()
        scores[turn] = score[pick]
        like = free @ free[pick]
        to_free, to_labeled = to_free - like, to_labeled + like
    return line.rows[line.unlabeled[picks]], scores
