"""A pool cut into cells of rows that lie close together: k-means on the sphere, on a sample, a few turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import Floats, Indices
from .parallel import Map
from .similarity import unit

TURNS = 3  # of Lloyd's algorithm: cells need not be optimal
CELLS = 3  # times sqrt(n)
TAUGHT = 8  # rows a cell in the sample that k-means sees
FEWEST = 3  # of them; a cell with fewer gives its rows to others, since small products take longer than their share
# Cells that a cell looks at always, itself included, and those that it looks at if a sample finds something there, the first ones included: in
# pools of up to SMALL rows, whose cells have few; of up to MIDDLE; and larger ones, which lose more (docs/selection.md has what they reached).
SMALL, MIDDLE = 30_000, 70_000
LOOKS = ((12, 12), (3, 8), (3, 11))
STEP = 256  # cells whose neighbours are looked for at once
ROWS = 1024  # rows whose cell is looked for at once
LARGEST = 8  # times n / cells; larger cells are cut up, so that a heap of near-duplicates does not visit all of itself


@dataclass(frozen=True, slots=True)
class Cells:
    """rows (n,): the pool ordered by cell; cuts (cells + 1,): where each begins; pairs of cells a <= b that look at each other: those of
    `near` surely, those of `further` where it is worth it."""

    rows: Indices
    cuts: Indices
    near: list[tuple[int, int]]
    further: list[tuple[int, int]]


def cut(embedding: Floats, rng: np.random.Generator, map_: Map) -> Cells:
    """At most CELLS sqrt(n) cells of the pool. embedding (n, d), any length of rows."""
    n = len(embedding)
    count = min(n, int(CELLS * np.sqrt(n)))
    largest = min(max(int(LARGEST * n / count), 64), 1 << 15)
    taught = unit(embedding, np.sort(rng.choice(n, min(n, TAUGHT * count), replace=False)), map_=map_)
    centres = taught[rng.choice(len(taught), count, replace=False)]
    for _ in range(TURNS):
        cell = _nearest(taught, centres, map_)
        centres = _means(taught, cell, centres)
    sizes = np.bincount(cell, minlength=count)
    centres = centres[sizes >= min(FEWEST, sizes.max())]
    count = len(centres)
    cell = _nearest(embedding, centres, map_)
    rows = np.argsort(cell, kind="stable")
    sizes = np.bincount(cell, minlength=count)
    pieces = [(at, size) for at, size in enumerate(sizes.tolist()) if size]
    cuts, owner = [0], []
    for at, size in pieces:
        parts = -(-size // largest)
        cuts += [cuts[-1] + size * (part + 1) // parts for part in range(parts)]
        owner += [at] * parts
    return Cells(rows, np.array(cuts), *_visits(centres[owner], *LOOKS[(n > SMALL) + (n > MIDDLE)], map_))


def _nearest(points: Floats, centres: Floats, map_: Map) -> Indices:
    """The cell of each row, of any length: lengths change no order of cells. points (n, d) -> (n,)."""

    def slab(start: int) -> Indices:
        return (points[start : start + ROWS].astype(np.float32, copy=False) @ centres.T).argmax(axis=1)

    return np.concatenate(list(map_(slab, range(0, len(points), ROWS))))


def _means(points: Floats, cell: Indices, centres: Floats) -> Floats:
    """The direction of the mean of each cell; an empty one keeps its own."""
    from . import compiled

    sums = np.zeros_like(centres)
    compiled.add_up(points, cell, sums)
    return np.where(np.bincount(cell, minlength=len(centres))[:, None] > 0, unit(sums), centres)


def _visits(centres: Floats, always: int, neighbours: int, map_: Map) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs of cells of which one has the other among its `always` nearest, and those further ones of which one has the other among its `neighbours`;
    pieces of one cell, which are equally near, in a ring."""
    count = len(centres)

    def nearest(start: int) -> Indices:
        here = np.arange(start, min(start + STEP, count))
        alike = centres[here] @ centres.T
        alike[np.arange(len(here)), here] = np.inf
        ring = (np.arange(count) - here[:, None]) % count
        return np.lexsort((ring, -np.round(alike, 6)), axis=1)[:, :neighbours]

    found = np.concatenate(list(map_(nearest, range(0, count, STEP))))
    cell = np.arange(count)[:, None]

    def pairs(found: Indices) -> set[tuple[int, int]]:
        return set(zip(np.minimum(cell, found).ravel().tolist(), np.maximum(cell, found).ravel().tolist(), strict=True))

    near = pairs(found[:, :always])
    return sorted(near), sorted(pairs(found) - near)
