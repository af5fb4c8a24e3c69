"""Far from what is chosen: farthest first and D^2 sampling, on Euclidean distances to the nearest chosen row.

No more than one distance a row is held. In small pools a pick costs one product of all candidates with it; large ones are in
spread_at_scale.py, where picks share matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import Floats, Indices

# Squared distances are whole multiples of this share of the largest squared length, so that duplicates are at distance 0 and
# the rounding of a matrix product does not decide between equals.
GRAIN = 2.0**-20
SMALL = 4096  # candidates


@dataclass(frozen=True, slots=True)
class Spread:
    """The chosen rows in the order of choice, and how far each was then from the nearest chosen one (inf if none was). Both (k,)."""

    picks: Indices
    distances: Floats


def farthest_first(points: Floats, k: int, *, candidates: Indices, chosen: Indices, threads: int | None = None) -> Spread:
    """Each time the candidate that is farthest from all chosen rows; the first candidate if nothing is chosen. points (n, d).

    Given what is chosen, the largest distance of a candidate to its nearest chosen row ends at most twice as large as it could be
    (Gonzalez 1985). Ties go to the candidate that stands first in `candidates`.
    """
    candidates = np.asarray(candidates, dtype=np.int64)
    if len(candidates) > SMALL:
        from . import spread_at_scale

        places, distances = spread_at_scale.farthest_first(points, k, candidates, chosen, threads)
        return Spread(candidates[places], distances)
    squared = _Squared(points, candidates)
    nearest = squared.nearest(points[chosen])
    picks, distances = np.empty(k, dtype=np.int64), np.empty(k)
    for turn in range(k):
        pick = picks[turn] = nearest.argmax()
        distances[turn] = np.sqrt(nearest[pick])
        np.minimum(nearest, squared.to(squared.points[pick]), out=nearest)
        nearest[pick] = -1  # below the duplicates of what is chosen
    return Spread(candidates[picks], distances)


def d2_sample(points: Floats, k: int, *, candidates: Indices, chosen: Indices, rng: np.random.Generator, threads: int | None = None) -> Indices:
    """Each time a candidate at random, in proportion to its squared distance to the nearest chosen row. points (n, d) -> (k,).

    The seeding of k-means++ (Arthur & Vassilvitskii 2007). Uniform if nothing is chosen, and among those left if all are duplicates
    of chosen rows.
    """
    candidates = np.asarray(candidates, dtype=np.int64)
    if len(candidates) > SMALL:
        from . import spread_at_scale

        return candidates[spread_at_scale.d2_sample(points, k, candidates, chosen, rng, threads)]
    squared = _Squared(points, candidates)
    nearest = squared.nearest(points[chosen])
    left = np.ones(len(candidates))
    picks = np.empty(k, dtype=np.int64)
    for turn in range(k):
        weights = nearest if np.isfinite(nearest[0]) and nearest.any() else left
        pick = picks[turn] = rng.choice(len(weights), p=weights / weights.sum())
        np.minimum(nearest, squared.to(squared.points[pick]), out=nearest)
        left[pick] = nearest[pick] = 0
    return candidates[picks]


def assign(points: Floats, centres: Indices, *, threads: int | None = None) -> tuple[Indices, Floats]:
    """Which of these rows is nearest to each row, and how far: (n,) places among `centres`, (n,) Euclidean distances. points (n, d) float32.

    A centre is nearest to itself at distance 0, though a duplicate of it may come before it.
    """
    from .parallel import workers

    lengths = np.einsum("nd,nd->n", points, points)
    nearest, squared = np.zeros(len(points), dtype=np.int64), np.full(len(points), np.inf)

    def slab(start: int) -> None:
        at = slice(start, start + SMALL)
        for first in range(0, len(centres), SMALL):
            part = centres[first : first + SMALL]
            block = points[at] @ (-2 * points[part]).T
            block += lengths[part]
            best = block.argmin(axis=1)
            found = block[np.arange(len(block)), best] + lengths[at]
            closer = found < squared[at]
            nearest[at][closer], squared[at][closer] = first + best[closer], found[closer]

    with workers(threads) as map_:
        list(map_(slab, range(0, len(points), SMALL)))
    nearest[centres], squared[centres] = np.arange(len(centres)), 0
    return nearest, np.sqrt(np.maximum(squared, 0))


class _Squared:
    """Squared distances of the candidates to one row at a time."""

    def __init__(self, points: Floats, candidates: Indices):
        points = np.asarray(points, dtype=np.float32)
        self.points = points[candidates]
        self.lengths = np.einsum("nd,nd->n", self.points, self.points)
        longest = np.einsum("nd,nd->n", points, points).max(initial=0)  # of all rows: the grain must not depend on who is left
        self.grain = GRAIN * float(longest) if longest > 0 else 1.0

    def to(self, centre: Floats) -> Floats:
        """(d,) -> (m,) float64."""
        centre = np.asarray(centre, dtype=np.float32)
        squared = self.lengths + centre @ centre - 2 * (self.points @ centre)
        return np.rint(np.maximum(squared, 0) / self.grain) * self.grain

    def nearest(self, centres: Floats) -> Floats:
        """To the nearest of these, inf without any. (c, d) -> (m,)."""
        best = np.full(len(self.points), np.inf)
        for centre in centres:
            np.minimum(best, self.to(centre), out=best)
        return best
