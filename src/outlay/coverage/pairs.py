"""The pairs of rows that can still matter, as one list a candidate, without a table of all pairs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from threading import local

import numpy as np

from ..types import Indices
from .parallel import Map, Progress, bundled
from .similarity import TOP, Kernel

BLOCK = 1024  # rows of a block: its table of similarities stays in the cache
EVERY, MOST = 20, 24  # the sample by which `worth` judges a block: one row in so many, no more than so many


@dataclass(frozen=True, slots=True)
class Lists:
    """For each row (as a candidate) the rows that it would cover better than they are covered, and how well.

    Row j's list is rows[starts[j]:ends[j]] (int32) with its levels in values (int32). starts, ends (n,).
    """

    starts: np.ndarray
    ends: np.ndarray
    rows: np.ndarray
    values: np.ndarray

    def copy(self) -> Lists:
        """For the greedy, which shortens lists as it goes."""
        return Lists(self.starts, self.ends.copy(), self.rows.copy(), self.values.copy())


def even_cuts(n: int) -> Indices:
    """Boundaries of blocks of at most BLOCK rows."""
    return np.append(np.arange(0, n, BLOCK), n)


def all_blocks(cuts: Indices) -> list[tuple[int, int]]:
    """Every pair of blocks, a block with itself included."""
    blocks = len(cuts) - 1
    return [(a, b) for a in range(blocks) for b in range(a, blocks)]


def worth(kernel: Kernel, cover: np.ndarray, cuts: Indices, visits: list[tuple[int, int]], map_: Map) -> list[tuple[int, int]]:
    """The pairs of blocks among `visits` in which a sample finds a pair above `cover` (n,): of each block one row in EVERY, 2 to MOST of them."""
    spread = [np.linspace(low, high - 1, min(max(-(-(high - low) // EVERY), 2), MOST, high - low)).astype(np.int64) for low, high in pairwise(cuts.tolist())]

    def found(task: tuple[int, list[int]]) -> list[tuple[int, int]]:
        a, others = task
        ends = np.cumsum([len(spread[b]) for b in others])
        theirs = np.concatenate([spread[b] for b in others])
        above = kernel.block(spread[a], theirs) > np.minimum(cover[spread[a], None], cover[theirs]) + np.float32(0.5)
        hits = np.logical_or.reduceat(above.any(axis=0), np.append(0, ends[:-1]))
        return [(a, b) for b, hit in zip(others, hits.tolist(), strict=True) if hit]

    return [visit for part in bundled(map_, found, _by_first(visits).items()) for visit in part]


def _by_first(visits: list[tuple[int, int]]) -> dict[int, list[int]]:
    """What each block is to be compared with: enough work for one task."""
    others: dict[int, list[int]] = {}
    for a, b in visits:
        others.setdefault(a, []).append(b)
    return others


def collect(kernel: Kernel, cover: np.ndarray, sells: np.ndarray, cuts: Indices, visits: list[tuple[int, int]], map_: Map, progress: Progress | None = None) -> Lists:
    """The pairs above `cover` (n,) in the visited pairs of blocks (a <= b) of rows. sells (n,): which rows are candidates.

    A product of two blocks serves both directions. Blocks in which every row is covered as well as can be are passed over.
    """
    from . import compiled

    over = cover.astype(np.float32) + np.float32(0.5)
    open_ = np.logical_or.reduceat(cover < TOP, cuts[:-1])
    for_sale = np.logical_or.reduceat(sells, cuts[:-1])
    rooms = local()  # of each thread, for as many numbers as its largest block so far has

    def sift(task: tuple[int, list[int]]) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
        a, others = task
        found = []
        for b in others:
            at, to = slice(cuts[a], cuts[a + 1]), slice(cuts[b], cuts[b + 1])
            rows, columns = at.stop - at.start, to.stop - to.start
            if not hasattr(rooms, "table") or len(rooms.table) < rows * columns:
                rooms.table = np.empty(rows * columns, np.float32)
                rooms.found = [np.empty(rows * columns, kind) for _ in range(2) for kind in (np.uint32, np.int32)]
            block = kernel.block(at, to, out=rooms.table[: rows * columns].reshape(rows, columns))
            counts = compiled.sift(block, over[at], over[to], sells[at], sells[to], a != b, *rooms.found)
            for side, (candidates, covered) in enumerate(((b, a), (a, b))):
                if counts[side]:
                    found.append((candidates, int(cuts[covered]), *(part[: counts[side]].copy() for part in rooms.found[2 * side : 2 * side + 2])))
        return found

    needed = _by_first([(a, b) for a, b in visits if (open_[a] and for_sale[b]) or (open_[b] and for_sale[a])])
    parts: list[list[tuple[int, np.ndarray, np.ndarray]]] = [[] for _ in cuts[:-1]]
    for done, found in enumerate(map_(sift, needed.items())):
        if progress:
            progress("blocks compared", done, len(needed))
        for candidates, *part in found:
            parts[candidates].append(tuple(part))
    counts = np.zeros(len(kernel), np.int64)

    def count(block: int) -> None:
        for _, keys, _ in parts[block]:
            compiled.tally(keys, counts[cuts[block] : cuts[block + 1]])

    list(bundled(map_, count, range(len(parts))))
    ends = np.cumsum(counts)
    starts = ends - counts
    rows, values = np.empty(ends[-1], np.int32), np.empty(ends[-1], np.int32)
    cursor = starts.copy()

    def deal(block: int) -> None:
        for first, keys, levels in parts[block]:
            compiled.deal(keys, levels, first, cursor[cuts[block] : cuts[block + 1]], rows, values)
        parts[block].clear()  # as we go, or everything would be there twice

    list(bundled(map_, deal, range(len(parts))))
    return Lists(starts, ends, rows, values)
