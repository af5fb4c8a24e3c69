"""Facility location in which some rows matter more: f(S) = sum over rows i of w_i max(0, max over j in S of cosine(i, j)).

Exact lazy greedy, as in facility.py. Weights are whole multiples of 1/4096 of the largest: together with the grain of the
similarities, sums in float64 are then exact up to two million rows, equal rows have equal gains, and equal weights choose what
facility.py chooses.
"""

from __future__ import annotations

import heapq

import numpy as np

from ..errors import OutlayError
from ..types import Floats, Indices
from .facility import BLOCK, GRAIN, MEMORY_LIMIT, Cover, unit

LEVELS = 4096


def cover(embedding: Floats, weights: Floats, k: int, *, candidates: Indices, chosen: Indices) -> Cover:
    """The k candidates that greedily raise f most, given the rows already chosen. embedding (n, d), weights (n,), not negative.

    Ties go to the candidate that stands first in `candidates`. Gains are in units of the largest weight.
    """
    needed = 4 * len(candidates) * len(embedding)
    if needed > MEMORY_LIMIT:
        raise OutlayError(
            f"weighted facility location of {len(candidates)} candidates over {len(embedding)} rows needs {needed / 2**30:.1f} GiB of similarities, "
            f"the limit is {MEMORY_LIMIT / 2**30:.1f}; use a smaller pool, or a strategy without pairwise similarities"
        )
    points, weights = unit(embedding), _levels(weights)
    similar = np.concatenate([_cosine(points, candidates[at : at + BLOCK]) for at in range(0, len(candidates), BLOCK)])
    best = _best(points, chosen)
    heap = [(-_gain(row, best, weights), place) for place, row in enumerate(similar)]
    heapq.heapify(heap)
    fresh = np.zeros(len(candidates), dtype=np.int64)  # number of picks when this candidate's gain was last computed
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < k:
        bound, place = heap[0]
        if fresh[place] == len(picks):
            heapq.heappop(heap)
            picks.append(place)
            gains.append(-bound)
            np.maximum(best, similar[place], out=best)
        else:
            fresh[place] = len(picks)
            heapq.heapreplace(heap, (-_gain(similar[place], best, weights), place))
    return Cover(np.asarray(candidates, dtype=np.int64)[picks], np.array(gains))


def gains_in_order(embedding: Floats, weights: Floats, picks: Indices, *, chosen: Indices) -> Floats:
    """By how much each pick raises f when the picks are added to `chosen` in their order. -> (k,)."""
    points, weights = unit(embedding), _levels(weights)
    best = _best(points, chosen)
    gains = []
    for pick in picks:
        row = _cosine(points, np.array([pick]))[0]
        gains.append(_gain(row, best, weights))
        np.maximum(best, row, out=best)
    return np.array(gains)


def _levels(weights: Floats) -> Floats:
    """In units of the largest, in whole levels; all alike if all are 0."""
    weights = np.asarray(weights, dtype=np.float64)
    largest = weights.max(initial=0)
    return np.rint(weights / largest * LEVELS) / LEVELS if largest > 0 else np.ones_like(weights)


def _gain(row: Floats, best: Floats, weights: Floats) -> float:
    return float(np.maximum(row - best, 0).astype(np.float64) @ weights)


def _best(points: Floats, chosen: Indices) -> Floats:
    best = np.zeros(len(points), dtype=np.float32)
    for at in range(0, len(chosen), BLOCK):
        np.maximum(best, _cosine(points, chosen[at : at + BLOCK]).max(axis=0), out=best)
    return best


def _cosine(points: Floats, rows: Indices) -> Floats:
    """Cosine of these rows to all, in whole grains. -> (len(rows), n) float32."""
    return np.rint(points[rows] @ points.T / GRAIN) * GRAIN
