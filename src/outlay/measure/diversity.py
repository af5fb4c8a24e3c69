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
# Rows this alike (an angle of 18 degrees) say the same. SemDeDup (Abbas et al. 2023, arXiv 2303.09540) sets such a threshold per
# embedding; tools take 0.9 and more. Centring has taken off the similarity that all rows share, so 0.95 is strict here.
NEAR = 0.95
RIDGE = 1 - NEAR  # finer differences count neither in the determinant nor in the density of NovelSum
OF_GROUPS = ("group_coverage", "group_entropy", "group_entropy_share")
AMONG = ("neighbour_distance", "near_duplicates", "vendi", "log_determinant")  # of the bought rows alone
MEASURES = ("nearest_distance", "coverage_radius", "novelsum", *AMONG)
NEIGHBOURS = 10  # of the density in NovelSum, as in its paper


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


def to_nearest(embedding: Floats, bought: Indices) -> Floats:
    """Cosine distance of every pool row to the nearest bought row, 0 to 2. embedding (n, d), prepared; -> (n,)."""
    parts = [(embedding[start : start + BLOCK] @ embedding[bought].T).max(axis=1) for start in range(0, len(embedding), BLOCK)]
    return np.clip(1 - np.concatenate(parts).astype(np.float64), 0, 2)


def nearest_distance(embedding: Floats, bought: Indices) -> float:
    """Mean over the pool of the cosine distance to the nearest bought row, 0 to 2: smaller is better covered. embedding (n, d), prepared."""
    return float(to_nearest(embedding, bought).mean())


def coverage_radius(embedding: Floats, bought: Indices) -> float:
    """Cosine distance of the worst covered pool row to its nearest bought row, 0 to 2: what k-center makes small (Gonzalez 1985;
    Sener & Savarese 2018, arXiv 1708.00489). embedding (n, d), prepared. One outlier decides it: read it beside the mean."""
    return float(to_nearest(embedding, bought).max())


def near_duplicate_share(embedding: Floats, bought: Indices) -> float:
    """Share of bought rows with another bought row of cosine similarity NEAR or more. embedding (n, d), prepared.

    Where the embedding sees the words (TF-IDF), long prompts made from one template count as near duplicates of each other.
    """
    points = embedding[bought]
    return sum(int((_to_others(points, start).max(axis=1) >= NEAR).sum()) for start in range(0, len(points), BLOCK)) / len(points)


def neighbour_distance(embedding: Floats, bought: Indices) -> float:
    """Mean cosine distance of a bought row to the nearest other bought one, 0 to 2: larger is more spread out; NaN for a single row.
    embedding (n, d), prepared."""
    points, nearest = embedding[bought], []
    if len(points) == 1:
        return math.nan
    for start in range(0, len(points), BLOCK):
        nearest.append(1 - _to_others(points, start).max(axis=1))
    return float(np.clip(np.concatenate(nearest).astype(np.float64), 0, 2).mean())


def _to_others(points: Floats, start: int) -> Floats:
    """Cosine of a block of rows with all rows, -1 with themselves."""
    alike = points[start : start + BLOCK] @ points.T
    alike[np.arange(len(alike)), start + np.arange(len(alike))] = -1
    return alike


def spectrum(embedding: Floats, bought: Indices) -> Floats:
    """Eigenvalues of the cosine kernel K = X X' of the bought rows, without zeros that it must have. -> (min(b, d),) float64."""
    points = embedding[bought].astype(np.float64)
    # X X' and X' X have the same eigenvalues but for zeros: take the smaller.
    kernel = points @ points.T if len(points) <= points.shape[1] else points.T @ points
    return np.clip(np.linalg.eigvalsh(kernel), 0, None)


def vendi(embedding: Floats, bought: Indices) -> float:
    """Vendi score (Friedman & Dieng 2023, arXiv 2210.02410): the effective number of different rows, 1 to len(bought).

    exp of the entropy of the eigenvalues of K / n, K the cosine kernel of the bought rows. embedding (n, d), prepared.
    """
    return _vendi(spectrum(embedding, bought), len(bought))


def _vendi(eigenvalues: Floats, size: int) -> float:
    shares = eigenvalues / size
    shares = shares[shares > 1e-12]
    return float(np.exp(-(shares @ np.log(shares))))


def log_determinant(embedding: Floats, bought: Indices) -> float:
    """log det(K + RIDGE I) per bought row, K their cosine kernel: the log-volume that the rows span, from about log RIDGE = -3
    (copies of one row) to log(1 + RIDGE) = 0.05 (all at right angles). embedding (n, d), prepared.

    The volume is what determinantal point processes make likely (Kulesza & Taskar 2012, arXiv 1207.6083); the ridge makes it
    finite for copies and for more rows than dimensions.
    """
    return _log_determinant(spectrum(embedding, bought), len(bought))


def _log_determinant(eigenvalues: Floats, size: int) -> float:
    return float((np.log(eigenvalues + RIDGE).sum() + (size - len(eigenvalues)) * math.log(RIDGE)) / size)


def density(embedding: Floats, rows: Indices) -> Floats:
    """How crowded the pool is around these rows: 1 / mean cosine distance to the NEIGHBOURS nearest other pool rows, at most
    1 / RIDGE. embedding (n, d), prepared; rows (r,) -> (r,)."""
    rows, k = np.asarray(rows, dtype=np.int64), min(NEIGHBOURS, len(embedding) - 1)
    if not k:
        return np.ones(len(rows))
    means = []
    for start in range(0, len(rows), BLOCK // 4):
        part = rows[start : start + BLOCK // 4]
        alike = embedding[part] @ embedding.T
        alike[np.arange(len(part)), part] = -2  # itself is not a neighbour
        nearest = np.partition(alike, len(embedding) - k, axis=1)[:, -k:]
        means.append(1 - nearest.mean(axis=1, dtype=np.float64))
    return 1 / np.maximum(np.concatenate(means), RIDGE)


def novelsum(embedding: Floats, bought: Indices, crowding: Floats | None = None) -> float:
    """NovelSum (Yang et al. 2025, arXiv 2502.17184): how far bought rows are from each other, near ones and crowded regions
    counting most. embedding (n, d), prepared; crowding (b,), the `density` of the bought rows; 0 for a single row.

    Of each row i: sum over the others j of w_ij density_j^0.5 (1 - cos_ij), w_ij = 1 / (rank of j by distance from i, 1
    for the nearest other row). Where we differ: means in place of both sums, so that it does not grow with the number of rows; density in
    the pool, bounded.
    """
    points = embedding[bought]
    if len(points) == 1:
        return 0.0
    pull = np.sqrt(density(embedding, bought) if crowding is None else crowding)
    weights = 1 / np.arange(1, len(points))
    weights /= weights.sum()
    total = 0.0
    for start in range(0, len(points), BLOCK // 4):
        far = np.clip(1 - points[start : start + BLOCK // 4] @ points.T, 0, 2)
        far[np.arange(len(far)), start + np.arange(len(far))] = -1  # itself comes first, and is left out
        order = np.argsort(far, axis=1)[:, 1:]
        total += float(((np.take_along_axis(far, order, axis=1) * pull[order]) @ weights).sum())
    return total / len(points)


def jaccard(a: Collection[str], b: Collection[str]) -> float:
    """Overlap of two sets of ids: common ones / all of them. NaN if both are empty."""
    a, b = set(a), set(b)
    return len(a & b) / len(a | b) if a or b else math.nan


def panel(embedding: Floats, groups: npt.NDArray[np.str_], bought_rows: Indices, crowding: Floats | None = None) -> dict[str, float]:
    """All diversity measures of the bought rows. embedding (n, d), prepared; groups (n,); bought_rows (b,), distinct; crowding
    (b,), their `density`, where it is known."""
    bought = np.asarray(bought_rows, dtype=np.int64)
    if not len(bought):
        raise DataError("the diversity of nothing is undefined: measure after the first batch")
    kinds = len(np.unique(groups))
    entropy, distances = group_entropy(groups, bought), to_nearest(embedding, bought)
    return {
        "group_coverage": group_coverage(groups, bought),
        "group_entropy": entropy,
        "group_entropy_share": entropy / math.log(kinds) if kinds > 1 else math.nan,  # 1 where all groups are bought alike
        "nearest_distance": float(distances.mean()),
        "coverage_radius": float(distances.max()),
        "novelsum": novelsum(embedding, bought, crowding),
    } | among(embedding, bought)


def among(embedding: Floats, bought: Indices) -> dict[str, float]:
    """The measures that need the bought rows alone, not the pool around them. embedding (n, d), prepared."""
    eigenvalues = spectrum(embedding, bought)
    return {
        "neighbour_distance": neighbour_distance(embedding, bought),
        "near_duplicates": near_duplicate_share(embedding, bought),
        "vendi": _vendi(eigenvalues, len(bought)),
        "log_determinant": _log_determinant(eigenvalues, len(bought)),
    }


def random_band(
    embedding: Floats, groups: npt.NDArray[np.str_], size: int, draws: int, rng: np.random.Generator
) -> dict[str, tuple[float, float, float]]:
    """What `panel` says of random sets of this size: measure -> (mean, 2.5 percentile, 97.5 percentile) over the draws."""
    if not 1 <= size <= len(embedding) or draws < 1:
        raise DataError(f"cannot draw {draws} random sets of {size} rows from a pool of {len(embedding)}")
    sets = [rng.choice(len(embedding), size, replace=False) for _ in range(draws)]
    rows = np.unique(np.concatenate(sets))  # a row that several sets drew has one density
    crowding = density(embedding, rows)
    panels = [panel(embedding, groups, drawn, crowding[np.searchsorted(rows, drawn)]) for drawn in sets]
    band = {}
    for name in panels[0]:
        values = np.array([found[name] for found in panels])
        low, high = np.percentile(values, [2.5, 97.5])
        band[name] = (float(values.mean()), float(low), float(high))
    return band


def _ungrouped(groups: npt.NDArray[np.str_]) -> bool:
    return not (groups != "").any()
