"""How diverse is what was bought? Every number is about a set of pool rows, in an embedding that `prepare` made.

Diversity grows with the number of rows, so compare sets of one size, or a set with `random_band` of its size.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..types import Floats, Indices

BLOCK = 4096  # pool rows compared with the bought ones at once


def prepare(embedding: Floats) -> Floats:
    """Centred rows of length 1, float32. (n, d) -> (n, d), or (n, d + 1) if a row equals the mean of all.

    Embeddings of language models share a large mean, which hides differences in the cosine (Mu & Viswanath 2018). A row that
    equals the mean has no direction; such rows get one of their own, the added coordinate: alike, and unlike all others.
    """
    points = np.asarray(embedding, dtype=np.float64)
    if points.ndim != 2 or not len(points) or not np.isfinite(points).all():
        raise DataError(f"an embedding is a table of finite numbers, (n, d); got shape {points.shape}, {np.isnan(points).sum()} NaN")
    scale = np.linalg.norm(points, axis=1).max()
    points = points - points.mean(axis=0)
    length = np.linalg.norm(points, axis=1, keepdims=True)
    lost = length <= 1e-6 * scale  # the rest of a subtraction in which everything cancelled
    points = np.divide(points, length, out=np.zeros_like(points), where=~lost)
    return np.hstack([points, lost] if lost.any() else [points]).astype(np.float32)


def group_coverage(groups: npt.NDArray[np.str_], bought: Indices) -> float:
    """Share of the pool's groups of which at least one row was bought. groups (n,); NaN if the pool has no groups."""
    return math.nan if _ungrouped(groups) else len(np.unique(groups[bought])) / len(np.unique(groups))


def group_entropy(groups: npt.NDArray[np.str_], bought: Indices) -> float:
    """Entropy (nats) of the group of a bought row. groups (n,); NaN if the pool has no groups."""
    if _ungrouped(groups):
        return math.nan
    shares = np.unique(groups[bought], return_counts=True)[1] / len(bought)
    return abs(float(shares @ np.log(shares)))


def nearest_distance(embedding: Floats, bought: Indices) -> float:
    """Mean over the pool of the cosine distance to the nearest bought row, 0 to 2: smaller is better covered. embedding (n, d), prepared."""
    total = 0.0
    for start in range(0, len(embedding), BLOCK):
        nearest = (embedding[start : start + BLOCK] @ embedding[bought].T).max(axis=1)
        total += float(np.clip(1 - nearest, 0, 2).sum(dtype=np.float64))
    return total / len(embedding)


def vendi(embedding: Floats, bought: Indices) -> float:
    """Vendi score (Friedman & Dieng 2023, arXiv 2210.02410): the effective number of different rows, 1 to len(bought).

    exp of the entropy of the eigenvalues of K / n, K the cosine kernel of the bought rows. embedding (n, d), prepared.
    """
    points = embedding[bought].astype(np.float64)
    # X X' and X' X have the same eigenvalues but for zeros, which add nothing: take the smaller.
    kernel = points @ points.T if len(points) <= points.shape[1] else points.T @ points
    values = np.linalg.eigvalsh(kernel / len(points))
    values = values[values > 1e-12]
    return float(np.exp(-(values @ np.log(values))))


def jaccard(a: Collection[str], b: Collection[str]) -> float:
    """Overlap of two sets of ids: common ones / all of them. NaN if both are empty."""
    a, b = set(a), set(b)
    return len(a & b) / len(a | b) if a or b else math.nan


def panel(embedding: Floats, groups: npt.NDArray[np.str_], bought_rows: Indices) -> dict[str, float]:
    """All diversity measures of the bought rows. embedding (n, d), prepared; groups (n,); bought_rows (b,), distinct."""
    bought = np.asarray(bought_rows, dtype=np.int64)
    if not len(bought):
        raise DataError("the diversity of nothing is undefined: measure after the first batch")
    kinds = len(np.unique(groups))
    entropy = group_entropy(groups, bought)
    return {
        "group_coverage": group_coverage(groups, bought),
        "group_entropy": entropy,
        "group_entropy_share": entropy / math.log(kinds) if kinds > 1 else math.nan,  # 1 where all groups are bought alike
        "nearest_distance": nearest_distance(embedding, bought),
        "vendi": vendi(embedding, bought),
    }


def random_band(
    embedding: Floats, groups: npt.NDArray[np.str_], size: int, draws: int, rng: np.random.Generator
) -> dict[str, tuple[float, float, float]]:
    """What `panel` says of random sets of this size: measure -> (mean, 2.5 percentile, 97.5 percentile) over the draws."""
    if not 1 <= size <= len(embedding) or draws < 1:
        raise DataError(f"cannot draw {draws} random sets of {size} rows from a pool of {len(embedding)}")
    panels = [panel(embedding, groups, rng.choice(len(embedding), size, replace=False)) for _ in range(draws)]
    band = {}
    for name in panels[0]:
        values = np.array([found[name] for found in panels])
        low, high = np.percentile(values, [2.5, 97.5])
        band[name] = (float(values.mean()), float(low), float(high))
    return band


def _ungrouped(groups: npt.NDArray[np.str_]) -> bool:
    return not (groups != "").any()
