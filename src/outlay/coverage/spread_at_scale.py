"""Farthest first and D^2 sampling in large pools: the same rules as in spread.py, with picks that share matrix products.

Every candidate keeps the distance that it had at the last product with all rows, which can only have fallen since.
"""

from __future__ import annotations

import numpy as np

from ..types import Floats, Indices
from .parallel import Map, workers
from .similarity import SLAB
from .spread import GRAIN

FEWEST, MOST = 64, 1024  # rows that farthest first looks at together
ROWS, COLUMNS = 1024, 1024  # of a matrix product
WAITING = 1024  # picks that D^2 sampling lets wait for the next product
PATIENCE = 128  # refusals after which it does not
FAR = np.int64(1) << 30  # level of the distance to nothing


class Distances:
    """Squared distances of the candidates to the nearest chosen row, in whole levels of GRAIN of the largest squared length."""

    def __init__(self, points: Floats, candidates: Indices, map_: Map):
        points = np.asarray(points)
        first = np.array_equal(candidates, np.arange(len(candidates)))  # then without a copy
        self.points, self.map = np.ascontiguousarray(points[: len(candidates)] if first else points[candidates], dtype=np.float32), map_
        self.lengths = np.einsum("nd,nd->n", self.points, self.points)
        longest = max(float(np.einsum("nd,nd->n", part, part).max()) for part in (np.asarray(points[at : at + SLAB], dtype=np.float32) for at in range(0, len(points), SLAB)))
        self.grain = GRAIN * longest if longest > 0 else 1.0  # of all rows: the grain must not depend on who is left
        self.levels, self.owner = np.full(len(candidates), FAR, dtype=np.int64), np.full(len(candidates), -1, dtype=np.int64)

    def whole(self, squared: Floats) -> np.ndarray:
        """Squared distances in levels."""
        return np.rint(np.maximum(squared, 0).astype(np.float64) / self.grain).astype(np.int64)

    def fall(self, centres: Floats, turn: int | None = None) -> None:
        """Take these rows as chosen, as the picks from this turn on (None: before all picks). (c, d)."""
        from . import compiled

        centres = np.asarray(centres, dtype=np.float32)
        lengths = np.einsum("cd,cd->c", centres, centres)
        turns = np.full(len(centres), -1) if turn is None else np.arange(turn, turn + len(centres))

        def slab(task: tuple[int, int]) -> None:
            at, of = slice(task[0], task[0] + ROWS), slice(task[1], task[1] + COLUMNS)
            block = self.points[at] @ (-2 * centres[of]).T
            compiled.fall_to(block, lengths[of], self.lengths[at], self.grain, turns[of], self.levels[at], self.owner[at])

        for first in range(0, len(centres), COLUMNS):
            list(self.map(slab, ((start, first) for start in range(0, len(self.points), ROWS))))


def farthest_first(points: Floats, k: int, candidates: Indices, chosen: Indices, threads: int | None) -> tuple[Indices, Floats, Indices, Floats]:
    """Places among the candidates, distances, owners and how far they are; see spread.Spread.

    Picks among the rows that were farthest at the last product with all rows, by a table of their distances to each other, for as
    long as the farthest row must be one of them; then updates all rows with one product.
    """
    from . import compiled

    with workers(threads) as map_:
        far = Distances(points, candidates, map_)
        far.fall(np.asarray(points)[chosen])
        n, size = len(candidates), FEWEST
        picks, levels, count = np.empty(k, np.int64), np.empty(k, np.int64), 0
        while count < k:
            keys = (far.levels << 32) - np.arange(n)  # the farthest has the highest, of equals the first
            size = min(size, n)
            ahead = np.argpartition(keys, n - size)[n - size :]
            near = far.points[ahead]
            keys[ahead] = np.iinfo(np.int64).min
            found = compiled.farthest(near @ near.T, far.lengths[ahead], far.grain, far.levels[ahead], ahead, keys.max(), picks[count:], levels[count:])
            far.fall(far.points[picks[count : count + found]], count)
            count += found
            far.levels[picks[:count]] = -1  # below the duplicates of what is chosen
            size = min(2 * size, MOST) if found > size // 4 else max(size // 2, FEWEST) if found < size // 16 else size
    far.owner[picks] = np.arange(k)
    return picks, np.where(levels >= FAR, np.inf, np.sqrt(levels * far.grain)), far.owner, np.sqrt(np.maximum(far.levels, 0) * far.grain)


def d2_sample(points: Floats, k: int, candidates: Indices, chosen: Indices, rng: np.random.Generator, threads: int | None) -> Indices:
    """Places among the candidates; see spread.d2_sample.

    Draws in proportion to the distances of the last product with all rows and keeps the draw with probability (distance now) /
    (distance then): so it is in proportion to the distances now, which are computed for the rows drawn only.
    """
    with workers(threads) as map_:
        now = Distances(points, candidates, map_)
        now.fall(np.asarray(points)[chosen])
        picks, recent = np.empty(k, np.int64), np.empty((WAITING, now.points.shape[1]), np.float32)  # recent: rows of the picks that distances do not know
        count, known, refused = 0, 0, 0  # picks; those that all distances know; draws refused since
        reach = np.cumsum(now.levels)
        while count < k:
            if count - known >= min(max(known, 1), WAITING) or refused > PATIENCE:
                now.fall(now.points[picks[known:count]])
                now.levels[picks[:count]] = 0
                reach, known, refused = np.cumsum(now.levels), count, 0
            if not reach[-1]:  # all are duplicates of chosen rows
                picks[count:] = rng.choice(np.setdiff1d(np.arange(len(candidates)), picks[:count]), k - count, replace=False)
                break
            row = int(np.searchsorted(reach, rng.integers(reach[-1]), side="right"))
            level = int(now.levels[row])
            if count > known:
                squared = now.lengths[picks[known:count]] + now.lengths[row] - 2 * (recent[: count - known] @ now.points[row])
                level = min(level, int(now.whole(squared.min())))
            if rng.integers(now.levels[row]) < level:
                picks[count], recent[count - known] = row, now.points[row]
                count += 1
            else:
                refused += 1
    return picks
