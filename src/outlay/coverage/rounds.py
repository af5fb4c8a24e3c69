"""Facility location round after round: what one round computed serves the next.

The lists of pairs (pairs.py) hold whatever can still matter once a head of picks is bought. While embeddings stay as they are, a
later round needs no product of matrices: the coverage by what is labeled is in the lists. When embeddings change a little, each
pair that the lists hold is scored again, about one in a hundred of all; a look at 256 rows over all pairs says how much of what
matters the lists still hold, and below a limit they are made anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .. import seeds
from ..errors import DataError
from ..types import Floats, Indices
from . import cells, facility, pairs, scale
from .parallel import Map, workers
from .similarity import Kernel, Similarity, check, kernel, unit

LOOK = 256  # rows of the recall check
LEAST = 0.8  # recall below which the lists are made anew


@dataclass(slots=True)
class Rounds:
    """The state of facility location over a pool of fixed rows. embedding (n, d); kernel and width as in facility.cover.

    Rounds buy what "two_stage" would, if what the first round picked is labeled in the second; else the head's coverage is taken as
    given although it is not bought, which raises no gain. `recall`: of the last change of embeddings (1 before any).
    """

    embedding: Floats = field(repr=False)
    kernel: Similarity = "cosine"
    width: float = 0.1
    threads: int | None = None
    recall: float = field(default=1.0, init=False)
    _similar: Kernel = field(init=False, repr=False)
    _order: Indices = field(init=False, repr=False)  # neighbours lie close together in it
    _head: Indices = field(init=False, repr=False)
    _floor: np.ndarray = field(init=False, repr=False)  # coverage by the head, in levels
    _lists: pairs.Lists = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check(self.embedding)
        self._similar = kernel(unit(self.embedding), self.kernel, self.width)
        self._build()

    def next(self, k: int, *, candidates: Indices, chosen: Indices, weights: Floats | None = None) -> facility.Cover:
        """The k candidates that greedily raise f most, given what is chosen; see facility.cover."""
        from . import compiled

        n = len(self._similar)
        candidates, chosen = np.asarray(candidates, dtype=np.int64), np.asarray(chosen, dtype=np.int64)
        if not 1 <= k <= len(candidates):
            raise DataError(f"cannot choose {k} rows of {len(candidates)} candidates; choose k between 1 and {len(candidates)}")
        levels, unit_of_gain = facility._levels(weights, n)
        lists = self._lists.copy()
        with workers(self.threads) as map_:
            job = scale.Job(self._similar, candidates, levels, map_)
            buying = np.setdiff1d(self._head, chosen, assume_unique=True)[: max(0, len(self._head) - len(chosen))]
            buying = self._head[np.isin(self._head, buying) & job.sells[self._head]][:k]  # in its order
            job.buy(buying)
            known = np.setdiff1d(self._head, buying)
            job.raise_cover(known, np.full(len(known), -1, np.int32))
            compiled.cover_by_lists(chosen, lists.starts, lists.ends, lists.rows, lists.values, job.cover, job.owner)
            _, gains = job.greedy(k, lists)
        total = job.total
        ceiling = total + facility.most(gains, k)
        return facility.Cover(candidates[job.picked], job.won / unit_of_gain, total / unit_of_gain, ceiling / unit_of_gain, job.owner.astype(np.int64), job.cover / 2.0**20, "rounds")

    def update(self, embedding: Floats) -> float:
        """Go on with other embeddings of the same rows. -> recall: how much of the similarity above the head's coverage the old
        pairs still hold, on 256 rows; below 0.8 the lists were made anew."""
        from . import compiled

        check(embedding)
        if embedding.shape[0] != len(self._similar):
            raise DataError(f"the new embeddings have {embedding.shape[0]} rows, the old ones {len(self._similar)}; rounds go over one pool")
        self._similar = kernel(unit(embedding), self.kernel, self.width)
        before = self._lists
        with workers(self.threads) as map_:
            self._floor = self._coverage(map_)
            values = self._score(before, map_)
            self._lists = pairs.Lists(before.starts, before.ends, before.rows, values)
            rng = seeds.generator(0, "recall", len(self._similar))
            look = np.sort(rng.choice(len(self._similar), min(LOOK, len(self._similar)), replace=False))
            above = np.maximum(self._similar.levels(look, slice(None)) - self._floor[look, None], 0)
            held = compiled.held(look, before.starts, before.ends, before.rows, values, self._floor)
            everything = int(above.sum(dtype=np.int64))
            self.recall = held / everything if everything else 1.0
            if self.recall < LEAST:
                self._build()
        return self.recall

    def _score(self, lists: pairs.Lists, map_: Map) -> np.ndarray:
        """The pairs of these lists in levels, neighbours after one another: their rows are in the cache then."""
        from . import compiled

        inner = np.empty(len(lists.rows), np.float32)
        step = max(1, len(self._order) // 64)

        def part(start: int) -> None:
            compiled.inner_products(self._similar.points, self._order[start : start + step], lists.starts, lists.ends, lists.rows, inner)

        list(map_(part, range(0, len(self._order), step)))
        owners = np.repeat(np.arange(len(lists.starts)), lists.ends - lists.starts)
        return np.rint(self._similar.of_inner(inner, owners, lists.rows)).astype(np.int32)

    def _coverage(self, map_: Map) -> np.ndarray:
        job = scale.Job(self._similar, np.arange(len(self._similar)), np.ones(len(self._similar), np.int64), map_)
        job.raise_cover(self._head, np.full(len(self._head), -1, np.int32))
        return job.cover

    def _build(self) -> None:
        n = len(self._similar)
        with workers(self.threads) as map_:
            job = scale.Job(self._similar, np.arange(n), np.ones(n, np.int64), map_)
            job.head_by_sample(scale.head_size(n), n, seeds.generator(0, "head", n), np.arange(n))
            self._head, self._floor = job.picked, job.cover
            self._order = cells.cut(self._similar.points, seeds.generator(0, "cells", n), map_).rows
            cuts = pairs.even_cuts(n)
            self._lists = pairs.collect(self._similar, job.cover, np.ones(n, dtype=bool), cuts, pairs.all_blocks(cuts), map_)
