"""Facility location on pools whose table of similarities is too large to hold, or to compute.

With coverage c_i of row i, only pairs with s_ij > c_i can matter again, and c only grows. So a head of picks is chosen first,
then one pass over pairs of blocks collects the pairs that are left (a few hundred a row), and greedy goes on with those lists
exactly as it would with all pairs.

- "exact": the head is chosen on all rows. The picks are plain greedy's.
- "two_stage": the head, 0.15 % of the pool, is chosen on a sample of rows.
- "cells": so too, and the pass looks at pairs in neighbouring k-means cells only: the nearest, and of further ones those in which
  a sample finds a pair that is left.

What is drawn (samples, cells) is fixed by the size of the pool alone; the caller brings the rows in an order that means nothing.
"""

from __future__ import annotations

import numpy as np

from .. import seeds
from ..types import Floats, Indices
from . import cells, facility, pairs
from .parallel import Map, Progress, workers
from .similarity import SLAB, TOP, Kernel, Similarity, kernel

HEAD, HEAD_AT_LEAST = 0.0015, 16  # picks of the head (labeled rows count), as a share of the pool
SAMPLE, SAMPLE_CELLS = (1024, 8192), (2048, 4096)  # rows and candidates that the head is chosen on; in "cells"
HEAD_AT_MOST = 256  # picks on that sample; a longer head is chosen by "cells" on a part of the pool of PART rows a pick
PART = 32
PAIRS = 1 << 25  # pairs that "exact" may hold
LOOK = 256  # rows on which it counts them, and candidates that are looked at together
ENOUGH = 16  # so many of a sample must be expected among the k largest gains for the sample alone to tell their sum
SHARE = 4096  # candidates whose gains are added up by one task
FULL = 2048  # labeled rows that "cells" compares with all rows; the rest with their neighbours only


def cover(
    embedding: Floats, k: int, candidates: Indices, chosen: Indices, similarity: Similarity, width: float, weights: np.ndarray, mode: str, threads: int | None, progress: Progress | None
) -> facility.Found:
    """See facility.cover; weights (n,) in whole levels."""
    n = len(embedding)
    with workers(threads) as map_:
        if mode == "cells":
            parts = cells.cut(embedding, seeds.generator(0, "cells", n), map_)
            order, cuts, visits = parts.rows, parts.cuts, parts.near + parts.further
        else:
            order, cuts, visits = np.arange(n), pairs.even_cuts(n), None
        place_of = np.empty(n, dtype=np.int64)  # row of the pool -> row in the order of the cells
        place_of[order] = np.arange(n)
        similar = kernel(embedding, similarity, width, rows=order if visits else None, map_=map_)
        job = Job(similar, place_of[candidates], weights[order], map_, progress)
        job.label(place_of[chosen], cuts, visits)
        sample = seeds.generator(0, "head", n)
        if mode == "exact":
            job.head_by_all(k)
        else:
            job.head_by_sample(head_size(n) - len(chosen), k, sample, place_of, SAMPLE if visits is None else SAMPLE_CELLS)
        if visits is not None:
            visits = sorted(parts.near + pairs.worth(similar, job.cover, cuts, parts.further, map_))
        left, gains = job.rest(k, cuts, visits)
        more = facility.most(gains, k)
        if visits is not None and len(left):  # lists do not have all pairs: all of them, for some candidates
            listed = np.zeros(n, dtype=np.int64)
            listed[left] = gains
            looked = place_of[sample.permutation(n)]
            looked = looked[np.isin(looked, left)][:LOOK]
            more = likely_most(job.gains(looked), listed[looked], more, k, len(left))
    owner = np.empty(n, dtype=np.int64)
    covered = np.empty(n, dtype=np.int32)
    owner[order], covered[order] = job.owner, job.cover
    return facility.Found(job.picked, job.won, job.total, job.total + more, owner, covered)


def likely_most(gains: np.ndarray, listed: np.ndarray, most_listed: int, k: int, of: int) -> int:
    """An estimate of the sum of the k largest gains of so many candidates, from the gains of a sample of them and what lists give of these.

    Of few picks a sample has none or hardly one: then the k largest that lists give of all, `most_listed`, and the k largest of what lists
    lack, by the sample. gains, listed (sample,).
    """
    share, k = len(gains) / of, min(k, of)
    if share == 1 or k * share >= ENOUGH:
        return round(facility.most(gains, round(k * share)) / share)
    lacking, whole = np.sort(np.maximum(gains - listed, 0))[::-1], int(k * share)
    return most_listed + round((int(lacking[:whole].sum()) + (k * share - whole) * int(lacking[whole])) / share)


def head_size(n: int) -> int:
    """Picks of the head of a pool of n rows."""
    return max(HEAD_AT_LEAST, round(HEAD * n))


class Job:
    """Greedy under way: what is covered how well, by whom, and what was picked. Rows in the order of the kernel."""

    def __init__(self, similar: Kernel, candidates: Indices, weights: np.ndarray, map_: Map, progress: Progress | None = None):
        n = len(similar)
        self.similar, self.candidates, self.weights, self.map, self.progress = similar, candidates, weights, map_, progress
        self.cover, self.owner = np.where(weights > 0, 0, TOP).astype(np.int32), np.full(n, -1, dtype=np.int32)  # without weight: as if covered
        self.places = np.full(n, -1, dtype=np.int64)  # of each row among the candidates, -1: not for sale
        self.places[candidates] = np.arange(len(candidates))
        self.picked, self.won = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)

    @property
    def total(self) -> int:
        return int(self.cover[self.weights > 0] @ self.weights[self.weights > 0])

    @property
    def sells(self) -> np.ndarray:
        """(n,): which rows are candidates and not picked yet."""
        sells = self.places >= 0
        sells[self.candidates[self.picked]] = False
        return sells

    def raise_cover(self, rows: Indices, turns: np.ndarray) -> np.ndarray:
        """Cover the pool by these rows in turn. -> what each of them adds, (rows,)."""
        from . import compiled

        def slab(start: int) -> np.ndarray:
            at, won = slice(start, start + SLAB), np.zeros(len(rows), np.int64)
            for first in range(0, len(rows), pairs.BLOCK):
                part = slice(first, first + pairs.BLOCK)
                compiled.cover_by(self.similar.block(at, rows[part]), turns[part], self.cover[at], self.owner[at], self.weights[at], won[part])
            return won

        return sum(self.map(slab, range(0, len(self.similar), SLAB)), np.zeros(len(rows), np.int64))

    def buy(self, rows: Indices) -> None:
        """Add picks and raise the coverage by them."""
        won = self.raise_cover(rows, np.arange(len(self.picked), len(self.picked) + len(rows), dtype=np.int32))
        self.picked, self.won = np.append(self.picked, self.places[rows]), np.append(self.won, won)

    def label(self, chosen: Indices, cuts: Indices, visits: list | None) -> None:
        """Cover the pool by the rows that are labeled already."""
        full = chosen if visits is None else chosen[:FULL]
        self.raise_cover(full, np.full(len(full), -1, np.int32))
        if len(full) == len(chosen):
            return
        labeled = np.zeros(len(self.similar), dtype=bool)
        labeled[chosen] = True
        lists = pairs.collect(self.similar, self.cover, labeled, cuts, visits, self.map, self.progress)
        np.maximum.at(self.cover, lists.rows, lists.values)

    def head_by_sample(self, quota: int, k: int, rng: np.random.Generator, place_of: Indices, sizes: tuple[int, int] = SAMPLE) -> None:
        """The first picks, k at most, on a sample of so many rows and candidates. `place_of` makes the sample the same in any order of cells."""
        from . import compiled

        mixed, sells = place_of[rng.permutation(len(place_of))], self.sells
        rows = mixed[self.weights[mixed] > 0]
        if quota <= 0 or not len(rows):
            return
        if quota > HEAD_AT_MOST:
            part = np.sort(mixed[: PART * quota])
            for_sale = part[sells[part]]
            inner = Job(self.similar.part(part), np.searchsorted(part, for_sale), self.weights[part], self.map)
            inner.cover = self.cover[part]
            inner.head_by_sample(head_size(len(part)), k, rng, np.arange(len(part)), sizes)
            inner.rest(min(quota, k, len(for_sale)), pairs.even_cuts(len(part)), None)
            self.buy(for_sale[inner.picked])
            return
        rows, offered = np.sort(rows[: sizes[0]]), np.sort(mixed[: sizes[1]])
        offered = offered[sells[offered]]
        table = np.empty((len(offered), len(rows)), dtype=np.int32)

        def fill(start: int) -> None:
            self.similar.levels(offered[start : start + LOOK], rows, out=table[start : start + LOOK])

        list(self.map(fill, range(0, len(offered), LOOK)))
        if len(rows) == sizes[0]:  # in the pool a row stands for itself once, not once for every row that a row of the sample stands for
            itself = np.searchsorted(rows, offered)
            there = np.flatnonzero(rows[np.minimum(itself, len(rows) - 1)] == offered)
            table[there, itself[there]] = 0
        quota = min(quota, k, len(offered))
        found, won = np.empty(quota, np.int64), np.empty(quota, np.int64)
        compiled.dense_greedy(table, self.places[offered], self.cover[rows], self.weights[rows], found, won)
        self.buy(offered[found])

    def head_by_all(self, k: int) -> None:
        """The first picks on all rows, until few enough pairs are left to hold."""
        n = len(self.similar)
        look = np.arange(0, n, max(1, n // LOOK))
        table = self.similar.levels(look, slice(None))
        ceilings = self._ceilings()
        while len(self.picked) < k and np.count_nonzero(table > self.cover[look, None]) / len(look) * n > PAIRS:
            np.minimum(ceilings, self._ceilings(), out=ceilings)
            ceilings[self.picked] = -1
            fresh = np.zeros(len(ceilings), dtype=bool)
            while True:
                best = ceilings.max()
                first = np.flatnonzero(ceilings == best)[0]
                if fresh[first]:
                    break
                known = ceilings[fresh].max(initial=-1)
                stale = np.flatnonzero(~fresh & (ceilings >= max(known, 0)))
                stale = stale[np.argsort(-ceilings[stale], kind="stable")][: LOOK * 4]

                ceilings[stale] = self.gains(self.candidates[stale])
                fresh[stale] = True
            self.buy(self.candidates[[first]])

    def _ceilings(self) -> np.ndarray:
        """No candidate gains more than this, from two moments: sum w max(0, x) <= (sum w x + sqrt(sum w * sum w x^2)) / 2. -> (candidates,)."""
        weights, points = self.weights.astype(np.float64), self.similar.points
        everything = np.nextafter(float(self.weights @ (TOP - self.cover.astype(np.int64))), np.inf)
        if self.similar.scale or self.similar.of is not None:
            return np.full(len(self.candidates), int(everything), dtype=np.int64)
        cover = self.cover.astype(np.float64) / TOP
        offered = points[self.candidates]
        if not hasattr(self, "_moments"):
            gram = (points * weights[:, None].astype(np.float32)).T @ points
            self._moments = offered @ (weights @ points) / TOP, np.einsum("cd,cd->c", offered @ gram, offered) / TOP**2  # points are STRETCH long
        first, second = self._moments
        mean = first - weights @ cover
        square = second - 2 * (offered @ ((weights * cover) @ points)) / TOP + weights @ cover**2
        total = weights.sum()
        ceiling = (mean + np.sqrt(total * np.maximum(square, 0))) / 2 + 1e-5 * total  # float32 sums
        return np.minimum(ceiling * TOP, everything).astype(np.int64)

    def rest(self, k: int, cuts: Indices, visits: list | None) -> tuple[Indices, np.ndarray]:
        """All further picks, by lists of the pairs that are visited (None: all). -> see greedy."""
        lists = pairs.collect(self.similar, self.cover, self.sells, cuts, visits if visits is not None else pairs.all_blocks(cuts), self.map, self.progress)
        return self.greedy(k, lists)

    def greedy(self, k: int, lists: pairs.Lists) -> tuple[Indices, np.ndarray]:
        """Picks up to the k-th by these lists, which it shortens. -> the candidates that are left, and the gains of each."""
        from . import compiled

        before, quota = len(self.picked), k - len(self.picked)
        offered, bounds = self.candidates[self.sells[self.candidates]], np.zeros(len(self.similar), np.int64)
        found, won = np.empty(quota, np.int64), np.empty(quota, np.int64)
        state = (lists.starts, lists.ends, lists.rows, lists.values)

        def listed(candidates: Indices) -> np.ndarray:  # the gain of each by the lists
            parts = [candidates[at : at + SHARE] for at in range(0, len(candidates), SHARE)]
            return np.concatenate([np.empty(0, np.int64), *self.map(lambda part: compiled.current_gains(part, *state, self.cover, self.weights), parts)])

        bounds[offered] = listed(offered)
        left = compiled.greedy(offered, bounds, self.places, *state, self.cover, self.owner, self.weights, before, found, won)
        self.picked, self.won = np.append(self.picked, self.places[found]), np.append(self.won, won)
        return left, listed(left)

    def gains(self, rows: Indices) -> np.ndarray:
        """What each of these rows would add, over all pairs. -> (rows,)."""
        from . import compiled

        def slab(start: int) -> np.ndarray:
            at, found = slice(start, start + SLAB), np.zeros(len(rows), np.int64)
            compiled.gains_of(self.similar.block(at, rows), self.cover[at], self.weights[at], found)
            return found

        return sum(self.map(slab, range(0, len(self.similar), SLAB)), np.zeros(len(rows), np.int64))
