"""k-means clusters and the rows that stand for them."""

from __future__ import annotations

import warnings

import numpy as np

from ..types import Floats, Indices
from . import spread

MOST_ITERATIONS = 100


def representatives(points: Floats, k: int, rng: np.random.Generator) -> Indices:
    """The row nearest to the centroid of each of k clusters, largest cluster first; ties to the first row. points (n, d) -> (at most k,).

    Fewer than k only if there are fewer than k different rows.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    points = np.ascontiguousarray(points, dtype=np.float32)
    everyone, nobody = np.arange(len(points)), np.empty(0, dtype=np.int64)
    start = points[spread.d2_sample(points, k, candidates=everyone, chosen=nobody, rng=rng)]
    # One thread: several add up a centroid in whatever order they finish. Fewer different rows than clusters: said above.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(k, init=start, n_init=1, max_iter=MOST_ITERATIONS, random_state=0).fit(points)
    gaps = points - found.cluster_centers_[found.labels_]
    away = np.rint(np.einsum("nd,nd->n", gaps, gaps) / spread.GRAIN)
    order = np.lexsort((everyone, away, found.labels_))
    _, first, sizes = np.unique(found.labels_[order], return_index=True, return_counts=True)
    picks = order[first]
    return picks[np.lexsort((picks, -sizes))]
