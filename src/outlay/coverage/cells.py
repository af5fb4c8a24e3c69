"""A pool cut into cells of rows that lie close together: k-means on the sphere, on a sample, a few turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import Floats, Indices
from .parallel import Map
from .similarity import SLAB, unit

TURNS = 3  # of Lloyd's algorithm: cells need not be optimal
TAUGHT = 24  # rows a cell in the sample that k-means sees
NEIGHBOURS = 12  # cells that a cell looks at, itself included
LARGEST = 4  # times the mean size; larger cells are cut up, so that a heap of near-duplicates does not visit all of itself


@dataclass(frozen=True, slots=True)
class Cells:
    """rows (n,): the pool ordered by cell; cuts (cells + 1,): where each begins; visits: pairs of cells a <= b that look at each other."""

    rows: Indices
    cuts: Indices
    visits: list[tuple[int, int]]


def cut(embedding: Floats, rng: np.random.Generator, map_: Map, neighbours: int = NEIGHBOURS) -> Cells:
    """2 sqrt(n) cells of the pool. embedding (n, d), any length of rows."""
    n = len(embedding)
    count = min(n, int(2 * np.sqrt(n)))
    taught = unit(embedding, np.sort(rng.choice(n, min(n, TAUGHT * count), replace=False)))
    centres = taught[rng.choice(len(taught), count, replace=False)]
    for _ in range(TURNS):
        centres = _means(taught, _nearest(taught, centres, map_), centres)
    cell = np.concatenate(list(map_(lambda start: (unit(embedding[start : start + SLAB]) @ centres.T).argmax(axis=1), range(0, n, SLAB))))
    rows = np.argsort(cell, kind="stable")
    sizes = np.bincount(cell, minlength=count)
    largest = min(max(int(LARGEST * n / count), 64), 1 << 15)
    pieces = [(at, size) for at, size in enumerate(sizes.tolist()) if size]
    cuts, owner = [0], []
    for at, size in pieces:
        parts = -(-size // largest)
        cuts += [cuts[-1] + size * (part + 1) // parts for part in range(parts)]
        owner += [at] * parts
    return Cells(rows, np.array(cuts), _visits(centres[owner], neighbours, map_))


def _nearest(points: Floats, centres: Floats, map_: Map) -> Indices:
    return np.concatenate(list(map_(lambda start: (points[start : start + SLAB] @ centres.T).argmax(axis=1), range(0, len(points), SLAB))))


def _means(points: Floats, cell: Indices, centres: Floats) -> Floats:
    """The direction of the mean of each cell; an empty one keeps its own."""
    order = np.argsort(cell, kind="stable")
    there, first = np.unique(cell[order], return_index=True)
    centres = centres.copy()
    centres[there] = unit(np.add.reduceat(points[order], first, axis=0))
    return centres


def _visits(centres: Floats, neighbours: int, map_: Map) -> list[tuple[int, int]]:
    """Pairs of cells of which one has the other among its nearest; pieces of one cell, which are equally near, in a ring."""
    count = len(centres)
    near = min(neighbours, count)
    pairs = set()
    for start in range(0, count, SLAB):
        here = np.arange(start, min(start + SLAB, count))
        alike = centres[here] @ centres.T
        alike[np.arange(len(here)), here] = np.inf
        ring = (np.arange(count) - here[:, None]) % count
        found = np.lexsort((ring, -np.round(alike, 6)), axis=1)[:, :near]
        pairs.update(zip(np.minimum(here[:, None], found).ravel().tolist(), np.maximum(here[:, None], found).ravel().tolist(), strict=True))
    return sorted(pairs)
