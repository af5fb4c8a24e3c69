"""Facility location by exact lazy greedy on dense similarities.

f(S) = sum over all pool rows i of max(0, max over j in S of s(i, j)): how well every prompt is represented by its most
similar chosen one. Greedy reaches 1 - 1/e of the optimum (Nemhauser, Wolsey & Fisher 1978); lazy evaluation skips candidates
whose old gain, an upper bound by submodularity, is already too small (Minoux 1978) and picks the same rows.

s is the cosine ("cosine"; opposite prompts do not represent each other, so below 0 counts as 0) or exp(-|x-y|^2 / (width *
mean |x-y|^2)) of the L2-normalised rows ("rbf", the mean over all pairs of the pool). With weights, row i counts w_i times; equal weights
choose what no weights choose.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError, OutlayError, near
from ..types import Floats, Indices

KERNELS = ("cosine", "rbf")
MEMORY_LIMIT = 2 << 30  # bytes of similarities that we hold at once
BLOCK = 1024  # rows of similarities computed at once
# Similarities are whole multiples of this. Then float64 sums of them are exact, so that equal prompts have equal gains, lazy
# and plain greedy agree to the last bit, and the rounding of a matrix product does not decide what is bought.
GRAIN = np.float32(2.0**-20)
LEVELS = 4096  # weights are whole multiples of 1/LEVELS of the largest, for the same reason: sums are exact up to two million rows


@dataclass(frozen=True, slots=True)
class Cover:
    """The chosen rows, most useful first, and by how much each raised f when it was chosen. Both (k,)."""

    picks: Indices
    gains: Floats


def cover(
    embedding: Floats, k: int, *, candidates: Indices, chosen: Indices, kernel: str = "cosine", width: float = 0.1, weights: Floats | None = None
) -> Cover:
    """The k candidates that greedily raise f most, given the rows that are already chosen. embedding (n, d).

    Ties go to the candidate that stands first in `candidates`. weights: (n,), not negative; gains are then in units of the largest.
    """
    points, weights = unit(embedding), _levels(weights)
    needed = len(candidates) * len(points) * points.itemsize
    if needed > MEMORY_LIMIT:
        raise OutlayError(
            f"facility location of {len(candidates)} candidates over {len(points)} rows needs {needed / 2**30:.1f} GiB of similarities, "
            f"the limit is {MEMORY_LIMIT / 2**30:.1f}; use a smaller pool, or a strategy without pairwise similarities"
        )
    similar = np.empty((len(candidates), len(points)), dtype=np.float32)
    for at, block in _similarities(points, candidates, kernel, width):
        similar[at] = block
    best = _best(points, chosen, kernel, width)

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


def gains_in_order(embedding: Floats, picks: Indices, *, chosen: Indices, kernel: str = "cosine", width: float = 0.1, weights: Floats | None = None) -> Floats:
    """By how much each pick raises f when the picks are added to `chosen` in their order. -> (k,)."""
    points, weights = unit(embedding), _levels(weights)
    best = _best(points, chosen, kernel, width)
    gains = []
    for _, block in _similarities(points, picks, kernel, width):
        for row in block:
            gains.append(_gain(row, best, weights))
            np.maximum(best, row, out=best)
    return np.array(gains)


def unit(embedding: Floats) -> Floats:
    """Rows of length 1 in float32; zero rows stay zero, similar to nothing. (n, d) -> (n, d)."""
    points = np.asarray(embedding, dtype=np.float32)
    length = np.linalg.norm(points, axis=1, keepdims=True)
    return np.divide(points, length, out=np.zeros_like(points), where=length > 0)


def _levels(weights: Floats | None) -> Floats | None:
    """In units of the largest, in whole levels; all alike if all are 0."""
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=np.float64)
    largest = weights.max(initial=0)
    return np.rint(weights / largest * LEVELS) / LEVELS if largest > 0 else np.ones_like(weights)


def _gain(row: Floats, best: Floats, weights: Floats | None) -> float:
    more = np.maximum(row - best, 0)
    return float(more.sum(dtype=np.float64) if weights is None else more.astype(np.float64) @ weights)


def _best(points: Floats, chosen: Indices, kernel: str, width: float) -> Floats:
    """Similarity of every row to its most similar chosen one, at least 0. -> (n,)."""
    best = np.zeros(len(points), dtype=np.float32)
    for _, block in _similarities(points, chosen, kernel, width):
        np.maximum(best, block.max(axis=0), out=best)
    return best


def _similarities(points: Floats, rows: Indices, kernel: str, width: float) -> Iterator[tuple[slice, Floats]]:
    """Blocks of the similarities of `rows` to all points: (which of `rows`, (block, n) float32)."""
    if kernel not in KERNELS:
        raise ConfigError(f"unknown kernel '{kernel}'; {near(kernel, KERNELS)}")
    if kernel == "rbf":
        if not width > 0:
            raise ConfigError(f"the kernel's width is a multiple of the mean squared distance and must be above 0, got {width}")
        squares = np.einsum("nd,nd->n", points, points)
        mean = points.mean(axis=0, dtype=np.float64)
        spread = 2 * (squares.mean(dtype=np.float64) - mean @ mean)  # mean squared distance over all pairs
        if spread < 1e-9:  # all rows are equal: any width says that they represent each other
            spread = 1.0
    rows = np.asarray(rows, dtype=np.int64)
    for start in range(0, len(rows), BLOCK):
        at = slice(start, min(start + BLOCK, len(rows)))
        block = points[rows[at]] @ points.T
        if kernel == "rbf":
            block = np.exp((2 * block - squares[rows[at], None] - squares) / np.float32(width * spread))
            np.minimum(block, 1, out=block)
        block /= GRAIN
        np.rint(block, out=block)
        block *= GRAIN
        yield at, block
