"""The pairs of rows that can still matter, as one list a candidate, without a table of all pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import Indices
from .parallel import Map, Progress
from .similarity import TOP, Kernel

BLOCK = 1024  # rows of a block: its table of similarities stays in the cache


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


def collect(kernel: Kernel, cover: np.ndarray, sells: np.ndarray, cuts: Indices, visits: list[tuple[int, int]], map_: Map, progress: Progress | None = None) -> Lists:
    """The pairs above `cover` (n,) in the visited pairs of blocks (a <= b) of rows. sells (n,): which rows are candidates.

    A product of two blocks serves both directions. Blocks in which every row is covered as well as can be are passed over.
    """
    from . import compiled

    over = cover.astype(np.float32) + np.float32(0.5)
    open_ = np.logical_or.reduceat(cover < TOP, cuts[:-1])
    for_sale = np.logical_or.reduceat(sells, cuts[:-1])

    def sift(visit: tuple[int, int]) -> tuple:
        a, b = visit
        at, to = slice(cuts[a], cuts[a + 1]), slice(cuts[b], cuts[b + 1])
        block = kernel.block(at, to)
        sides = 1 if a == b else 2
        room = [(np.empty(block.size, np.uint32), np.empty(block.size, np.int32)) for _ in range(sides)]
        found = compiled.sift(block, over[at], over[to], sells[at], sells[to], sides == 2, *room[0], *room[-1])
        return visit, [(keys[:count].copy(), levels[:count].copy()) for (keys, levels), count in zip(room, found[:sides], strict=True)]

    needed = [(a, b) for a, b in visits if (open_[a] and for_sale[b]) or (open_[b] and for_sale[a])]
    parts: list[list[tuple[int, np.ndarray, np.ndarray]]] = [[] for _ in cuts[:-1]]
    counts = np.zeros(len(kernel), np.int64)
    for done, ((a, b), sides) in enumerate(map_(sift, needed)):
        if progress:
            progress("pairs of blocks compared", done, len(needed))
        for (keys, levels), candidates, covered in zip(sides, (b, a), (a, b), strict=False):
            if len(keys):
                compiled.tally(keys, counts[cuts[candidates] : cuts[candidates + 1]])
                parts[candidates].append((int(cuts[covered]), keys, levels))
    ends = np.cumsum(counts)
    starts = ends - counts
    rows, values = np.empty(ends[-1], np.int32), np.empty(ends[-1], np.int32)
    cursor = starts.copy()
    for block, found in enumerate(parts):
        for first, keys, levels in found:
            compiled.deal(keys, levels, first, cursor[cuts[block] : cuts[block + 1]], rows, values)
        found.clear()  # as we go, or everything would be there twice
    return Lists(starts, ends, rows, values)
