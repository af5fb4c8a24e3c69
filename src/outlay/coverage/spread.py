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
    """The chosen rows in the order of choice, and how far each was then from the nearest chosen one (inf if none was). Both (k,).

    `owner`: for each candidate the place in `picks` of the one nearest to it (the earliest of equals, a pick its own), -1 where a row
    chosen before is; `away`: how far that is. Both (candidates,).
    """

    picks: Indices
    distances: Floats
    owner: Indices
    away: Floats


def farthest_first(points: Floats, k: int, *, candidates: Indices, chosen: Indices, threads: int | None = None) -> Spread:
    """Each time the candidate that is farthest from all chosen rows; the first candidate if nothing is chosen. points (n, d).

    Given what is chosen, the largest distance of a candidate to its nearest chosen row ends at most twice as large as it could be
    (Gonzalez 1985). Ties go to the candidate that stands first in `candidates`.
    """
    candidates = np.asarray(candidates, dtype=np.int64)
    if len(candidates) > SMALL:
        from . import spread_at_scale

        places, *found = spread_at_scale.farthest_first(points, k, candidates, chosen, threads)
        return Spread(candidates[places], *found)
    squared = _Squared(points, candidates)
    nearest, owner = squared.nearest(points[chosen]), np.full(len(candidates), -1, dtype=np.int64)
    picks, distances = np.empty(k, dtype=np.int64), np.empty(k)
    for turn in range(k):
        pick = picks[turn] = nearest.argmax()
        distances[turn] = np.sqrt(nearest[pick])
        gap = squared.to(squared.points[pick])
        closer = gap < nearest
        nearest[closer], owner[closer], owner[pick] = gap[closer], turn, turn
        nearest[pick] = -1  # below the duplicates of what is chosen
    return Spread(candidates[picks], distances, owner, np.sqrt(np.maximum(nearest, 0)))


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
