"""Facility location round after round: what one round computed serves the next.

The lists of pairs (pairs.py) hold whatever can still matter once a head of picks is bought. While embeddings stay as they are, a
later round needs no product of matrices: the coverage by what is labeled is in the lists. When embeddings change a little, each
pair that the lists hold is scored again, about one in a hundred of all; a look at 256 rows over all pairs says how much of what
a pick can still add the lists hold, and below a limit they are made anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .. import seeds
from ..errors import DataError
from ..types import Floats, Indices
from . import cells, facility, pairs, scale
from .parallel import Map, workers
from .similarity import TOP, Kernel, Similarity, check

LOOK = 256  # rows of the recall check
LEAST = 0.985  # recall below which the lists are made anew: above it, rounds gained at least 0.998 of what a fresh start gains (docs/selection.md)
PAIRS = 100  # a row, of which the lists hold the nearest even if they cannot matter now: they may when embeddings change
NOBODY: Indices = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Rounds:
    """What facility location knows of a pool of fixed rows between two rounds; `start` makes it.

    `recall`: of what single picks could still add when the embeddings last changed, the share that the lists of pairs held
    (1 before any change). `remade`: they held too little and were made anew. After a change that did not remake them, the `bound` of
    `next` is an estimate: pairs that the lists lack may add to it. Keeps a copy of the embeddings, so that a change in place is seen.
    """

    embedding: Floats = field(repr=False)
    kernel: Similarity
    width: float
    threads: int | None
    recall: float
    remade: bool
    _similar: Kernel = field(repr=False)
    _order: Indices = field(repr=False)  # neighbours lie close together in it
    _floor: Indices = field(repr=False)  # the rows whose coverage the lists take as given: labeled ones, then the head in its order
    _lists: pairs.Lists = field(repr=False)

    def next(self, k: int, *, candidates: Indices, chosen: Indices) -> facility.Cover:
        """The k candidates that greedily raise f most, given what is chosen; see facility.cover, whose mode "two_stage" does the same.

        And does it here, unless the head is bought or nothing but the beginning of it is: the lists say nothing below its coverage.
        """
        from . import compiled

        n = len(self._similar)
        candidates, chosen = facility.row_numbers(candidates, n, "candidates"), facility.row_numbers(chosen, n, "chosen rows")
        if not 1 <= k <= len(candidates):
            raise DataError(f"cannot choose {k} rows of {len(candidates)} candidates; choose k between 1 and {len(candidates)}")
        missing = self._floor[~np.isin(self._floor, chosen)]
        begun = np.array_equal(np.unique(chosen), np.sort(self._floor[: len(self._floor) - len(missing)]))
        if len(missing) and not (begun and np.isin(missing, candidates).all()):
            return facility.cover(self.embedding, k, candidates=candidates, chosen=chosen, kernel=self.kernel, width=self.width, mode="two_stage", threads=self.threads)
        lists = self._lists.copy()
        with workers(self.threads) as map_:
            job = scale.Job(self._similar, candidates, np.ones(n, np.int64), map_)
            job.raise_cover(known := np.setdiff1d(self._floor, missing), np.full(len(known), -1, np.int32))
            compiled.cover_by_lists(chosen, lists.starts, lists.ends, lists.rows, lists.values, job.cover, job.owner)
            job.buy(missing[:k])
            total, owner, covered = job.total, job.owner.copy(), job.cover.copy()
            if len(missing) > k:  # lists say nothing below the coverage by the whole head; no k rows reach more than with it and k more
                job.raise_cover(missing[k:], np.full(len(missing) - k, -1, np.int32))
            ceiling = job.total
            _, gains = job.greedy(k, lists)
            if len(missing) <= k:
                total = ceiling = job.total
                owner, covered = job.owner, job.cover
        ceiling = max(total, min(ceiling + facility.most(gains, k), n * TOP))
        return facility.Cover(candidates[job.picked], job.won / TOP, total / TOP, ceiling / TOP, owner.astype(np.int64), covered / TOP, "rounds")

    def moved(self, embedding: Floats, *, chosen: Indices) -> Rounds:
        """The same for other embeddings of the same rows, of which `chosen` are labeled. `recall` says how much of it still held."""
        from . import compiled

        check(embedding)
        if len(embedding) != len(self._similar):
            raise DataError(f"the new embeddings have {len(embedding)} rows, the old ones {len(self._similar)}; rounds go over one pool")
        if np.array_equal(embedding, self.embedding):
            return self
        chosen = facility.row_numbers(chosen, len(embedding), "chosen rows")
        similar = facility.make_kernel(embedding, self.kernel, self.width)
        n, lists = len(similar), self._lists
        look = _look(n)
        place = np.full(n, -1, np.int64)
        place[look] = np.arange(len(look))
        with workers(self.threads) as map_:
            above = similar.levels(look, slice(None))
            above -= np.maximum(above[:, np.union1d(chosen, self._floor)].max(axis=1, keepdims=True), 0)
            np.maximum(above, 0, out=above)
            everything = int(above.sum(dtype=np.int64))
            recall = compiled.held(above, place, lists.starts, lists.ends, lists.rows) / everything if everything else 1.0
            if recall < LEAST:
                return replace(start(embedding, labeled=chosen, kernel=self.kernel, width=self.width, threads=self.threads), recall=recall, remade=True)
            values = _score(similar, lists, self._order, map_)
        return replace(self, embedding=np.array(embedding), recall=recall, remade=False, _similar=similar, _lists=replace(lists, values=values))


def start(embedding: Floats, *, labeled: Indices = NOBODY, kernel: Similarity = "cosine", width: float = 0.1, threads: int | None = None) -> Rounds:
    """Look at all pairs of rows once. embedding (n, d); labeled: rows that are labeled already; the rest as in facility.cover."""
    check(embedding)
    n, labeled = len(embedding), facility.row_numbers(labeled, len(embedding), "labeled rows")
    similar = facility.make_kernel(embedding, kernel, width)
    free = np.setdiff1d(np.arange(n), labeled)
    with workers(threads) as map_:
        job = scale.Job(similar, free, np.ones(n, np.int64), map_)
        cuts = pairs.even_cuts(n)
        job.label(labeled, cuts, None)
        job.head_by_sample(scale.head_size(n) - len(labeled), len(free), seeds.generator(0, "head", n), np.arange(n))
        order = cells.cut(similar.points, seeds.generator(0, "cells", n), map_).rows
        lists = pairs.collect(similar, _lowered(similar, job.cover), np.ones(n, dtype=bool), cuts, pairs.all_blocks(cuts), map_)
    return Rounds(np.array(embedding), kernel, width, threads, 1.0, False, similar, order, np.concatenate([labeled, free[job.picked]]), lists)


def _lowered(similar: Kernel, cover: np.ndarray) -> np.ndarray:
    """The coverage in levels, (n,), that share nearer to none at which about PAIRS pairs a row lie above it, or as it is if more do."""
    look = _look(len(cover))
    left = (TOP - cover[look, None]).astype(np.float32)  # up to an equal row
    below = np.maximum(cover[look, None] - similar.levels(look, slice(None)), 0) / np.maximum(left, 1)
    share = np.partition(below.ravel(), at)[at] if (at := PAIRS * len(look)) < below.size else below.max()
    return np.maximum(cover - share * (TOP - cover), 0).astype(np.int32)


def _look(n: int) -> Indices:
    return np.sort(seeds.generator(0, "recall", n).choice(n, min(LOOK, n), replace=False))


def _score(similar: Kernel, lists: pairs.Lists, order: Indices, map_: Map) -> np.ndarray:
    """The pairs of these lists in levels, neighbours after one another: their rows are in the cache then."""
    from . import compiled

    inner = np.empty(len(lists.rows), np.float32)
    step = max(1, len(order) // 64)

    def part(at: int) -> None:
        compiled.inner_products(similar.points, order[at : at + step], lists.starts, lists.ends, lists.rows, inner)

    list(map_(part, range(0, len(order), step)))
    owners = np.repeat(np.arange(len(lists.starts)), lists.ends - lists.starts)
    return np.rint(similar.of_inner(inner, owners, lists.rows)).astype(np.int32)
