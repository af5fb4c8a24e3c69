"""Facility location: the rows that together represent the pool.

f(S) = sum over all pool rows i of max(0, max over j in S of s(i, j)): how well every prompt is represented by its most
similar chosen one. Greedy reaches 1 - 1/e of the optimum (Nemhauser, Wolsey & Fisher 1978); lazy evaluation skips candidates
whose old gain, an upper bound by submodularity, is already too small (Minoux 1978) and picks the same rows.

s is the cosine ("cosine"; opposite prompts do not represent each other, so below 0 counts as 0) or exp(-|x-y|^2 / (width *
mean |x-y|^2)) of the L2-normalised rows ("rbf", the mean over all pairs of the pool), or any function of the inner product.
With weights, row i counts w_i times; equal weights choose what no weights choose.

Three modes: "exact" picks what plain greedy picks; "two_stage" and "cells" (scale.py) come close to its value, sooner.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError, near
from ..types import Floats, Indices
from .parallel import Progress, workers
from .similarity import TOP, Kernel, Similarity
from .similarity import kernel as make_kernel

MODES = ("auto", "exact", "two_stage", "cells")
EXACT_UP_TO, TWO_STAGE_UP_TO = 5_000, 20_000  # rows, in mode "auto"
BLOCK = 1 << 24  # similarities computed at once
FINEST = 20  # weights are whole multiples of 2^-20 of the largest, at least one; coarser above four million rows, so that sums are exact in 63 bits


@dataclass(frozen=True, slots=True)
class Cover:
    """The chosen rows, most useful first, by how much each raised f when it was chosen (both (k,)), and how good that is.

    `objective`: f of labeled and chosen rows. `bound`: no k candidates reach more, given the labeled rows; f(S) + the k largest
    gains that are left. Mode "cells" does not look at all pairs: f is at least its `objective`, and its `bound` is an estimate from
    the gains of 256 candidates.
    `owner`: (n,) the place among the picks of the one that represents each row best (the earliest of equals), -1 where a labeled
    row does or nobody; `similarity`: (n,) how well. All in rows of the pool; with weights in units of the largest, as rounded to whole
    multiples of 2^-20 of it; a row without weight has no owner and similarity 0.
    """

    picks: Indices
    gains: Floats
    objective: float
    bound: float
    owner: Indices
    similarity: Floats
    mode: str

    @property
    def represents(self) -> Indices:
        """How many rows each pick represents best. -> (k,)."""
        return np.bincount(self.owner[self.owner >= 0], minlength=len(self.picks))


def cover(
    embedding: Floats,
    k: int,
    *,
    candidates: Indices,
    chosen: Indices,
    kernel: Similarity = "cosine",
    width: float = 0.1,
    weights: Floats | None = None,
    mode: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Cover:
    """The k candidates that greedily raise f most, given the rows that are already chosen. embedding (n, d).

    Ties go to the candidate that stands first in `candidates`. weights: (n,), not negative; gains are then in units of the largest.
    mode: "auto" is exact up to 5,000 rows, two_stage up to 20,000, and cells above. threads: as many as BLAS may use; they do not
    change the answer.
    """
    if mode not in MODES:
        raise ConfigError(f"unknown mode '{mode}' of facility location; {near(mode, MODES)}")
    n = len(embedding)
    if mode == "auto":
        mode = "exact" if n <= EXACT_UP_TO else "two_stage" if n <= TWO_STAGE_UP_TO else "cells"
    candidates, chosen = row_numbers(candidates, n, "candidates"), row_numbers(chosen, n, "chosen rows")
    levels, unit_of_gain = _levels(weights, n)
    if mode == "exact" and n <= EXACT_UP_TO:
        with workers(1):  # the same products whatever the number of threads
            found = _by_table(make_kernel(embedding, kernel, width), k, candidates, chosen, levels)
    else:
        from . import scale

        found = scale.cover(embedding, k, candidates, chosen, kernel, width, levels, mode, threads, progress)
    ceiling = max(found.total, min(found.ceiling, int(levels.sum()) * TOP))  # no choice represents rows better than perfectly
    similarity = np.where(levels > 0, found.cover, 0) / TOP
    return Cover(candidates[found.places], found.won / unit_of_gain, found.total / unit_of_gain, ceiling / unit_of_gain, found.owner, similarity, mode)


def row_numbers(given: npt.ArrayLike, n: int, what: str) -> Indices:
    """Row numbers, or the rows of a mask (n,), as int64 in their order. DataError for anything else, and for rows that do not exist."""
    rows = np.asarray(given)
    if rows.dtype == bool:
        if rows.shape != (n,):
            raise DataError(f"the mask of {what} has shape {rows.shape}, the embeddings have {n} rows")
        return np.flatnonzero(rows)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise DataError(f"{what} are row numbers or a mask, got {rows.dtype} of shape {rows.shape}")
    if rows.size and (rows.min() < 0 or rows.max() >= n):
        raise DataError(f"{what}: row {rows.min() if rows.min() < 0 else rows.max()} does not exist: the embeddings have {n} rows, 0 to {n - 1}")
    return rows.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Found:
    """A cover in whole levels: places among the candidates, what each won (k,), f, its bound, owner and coverage (n,)."""

    places: Indices
    won: np.ndarray
    total: int
    ceiling: int
    owner: np.ndarray
    cover: np.ndarray


def _by_table(similar: Kernel, k: int, candidates: Indices, chosen: Indices, weights: np.ndarray) -> Found:
    """Lazy greedy on the whole table of similarities: what "exact" means, and fastest for small pools."""
    table = similar.levels(candidates, slice(None))
    best = np.where(weights > 0, 0, TOP).astype(np.int32)  # a row without weight is as if covered
    for _, block in _blocks(similar, chosen):
        np.maximum(best, block.max(axis=0), out=best)
    owner = np.full(len(similar), -1, dtype=np.int64)

    heap = [(-_gain(row, best, weights), place) for place, row in enumerate(table)]
    heapq.heapify(heap)
    fresh = np.zeros(len(candidates), dtype=np.int64)  # number of picks when this candidate's gain was last computed
    places: list[int] = []
    won: list[int] = []
    while len(places) < k:
        bound, place = heap[0]
        if fresh[place] == len(places):
            heapq.heappop(heap)
            owner[table[place] > best] = len(places)
            places.append(place)
            won.append(-bound)
            np.maximum(best, table[place], out=best)
        else:
            fresh[place] = len(places)
            heapq.heapreplace(heap, (-_gain(table[place], best, weights), place))
    total = int(best @ weights)
    left = np.array([_gain(table[place], best, weights) for _, place in heap], dtype=np.int64)
    return Found(np.array(places, dtype=np.int64), np.array(won, dtype=np.int64), total, total + most(left, k), owner, best)


def most(gains: np.ndarray, k: int) -> int:
    """The sum of the k largest."""
    return int((gains if len(gains) <= k else np.partition(gains, len(gains) - k)[len(gains) - k :] if k else gains[:0]).sum())


def gains_in_order(embedding: Floats, picks: Indices, *, chosen: Indices, kernel: Similarity = "cosine", width: float = 0.1, weights: Floats | None = None) -> Floats:
    """By how much each pick raises f when the picks are added to `chosen` in their order. -> (k,)."""
    similar = make_kernel(embedding, kernel, width)
    levels, unit_of_gain = _levels(weights, len(similar))
    best = np.zeros(len(similar), dtype=np.int32)
    for _, block in _blocks(similar, chosen):
        np.maximum(best, block.max(axis=0), out=best)
    gains = []
    for _, block in _blocks(similar, picks):
        for row in block:
            gains.append(_gain(row, best, levels))
            np.maximum(best, row, out=best)
    return np.array(gains, dtype=np.float64) / unit_of_gain


def _levels(weights: Floats | None, n: int) -> tuple[np.ndarray, float]:
    """Weights in whole levels of the largest (all alike if all are 0), (n,) int64; and how many levels of gain are 1."""
    if weights is None:
        return np.ones(n, dtype=np.int64), float(TOP)
    weights = np.asarray(weights, dtype=np.float64)
    largest = weights.max(initial=0)
    levels = 1 << min(FINEST, 42 - n.bit_length())
    whole = np.maximum(np.rint(weights / largest * levels), weights > 0) if largest > 0 else np.full(n, levels)
    return whole.astype(np.int64), float(TOP) * levels


def _gain(row: np.ndarray, best: np.ndarray, weights: np.ndarray) -> int:
    return int(np.maximum(row - best, 0) @ weights)


def _blocks(similar: Kernel, rows: Indices) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of the similarities of `rows` to all points: (which of `rows`, (block, n) levels)."""
    step = max(1, BLOCK // len(similar))
    rows = np.asarray(rows, dtype=np.int64)
    for start in range(0, len(rows), step):
        at = slice(start, min(start + step, len(rows)))
        yield at, similar.levels(rows[at], slice(None))
