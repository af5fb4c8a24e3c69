"""The acquisition strategies on numpy arrays, without a pool or a campaign: `outlay.select`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import registry
from ..coverage import facility, spread
from ..coverage.parallel import Progress
from ..coverage.similarity import check, unit
from ..errors import ConfigError, DataError
from ..types import Floats, Indices, Signals, View

FACILITY = ("facility_location", "uncertainty_weighted_facility_location")


@dataclass(frozen=True, slots=True)
class Selected:
    """What was chosen, most wanted first, and how good that is.

    `rows`: (k,) row numbers. `scores`: (k,) what the strategy maximised, None where it has no number. `owner`: (n,) the place in `rows`
    of the pick that represents each row best, -1 where a labeled row does or nobody; `similarity`: (n,) how well (of k_center 1 - d^2 / 2, the cosine). `objective` and `bound`: for facility location
    the summed similarity of every row to its most similar chosen or labeled one, and what no choice of k rows exceeds (see
    coverage.facility.Cover for what "cells" says); for k_center the largest distance of a row to its nearest one, which no choice of k
    rows makes smaller than `bound`; None for strategies that have no such number. `mode`: how facility location was computed.
    """

    rows: Indices
    scores: Floats | None = None
    objective: float | None = None
    bound: float | None = None
    owner: Indices | None = None
    similarity: Floats | None = None
    mode: str | None = None

    @property
    def represents(self) -> Indices | None:
        """How many rows each pick represents best. -> (k,)."""
        return None if self.owner is None else np.bincount(self.owner[self.owner >= 0], minlength=len(self.rows))

    def examples(self, most: int = 3) -> list[Indices] | None:
        """Up to so many rows that each pick represents, itself left out, best represented first."""
        if self.owner is None or self.similarity is None:
            return None
        order = np.lexsort((-self.similarity, self.owner))
        cuts = np.searchsorted(self.owner[order], np.arange(len(self.rows) + 1))
        heads = (order[low : min(high, low + most + 1)] for low, high in pairwise(cuts))
        return [head[head != row][:most] for head, row in zip(heads, self.rows, strict=True)]


def select(
    embeddings: Floats,
    k: int,
    *,
    strategy: str | Mapping[str, Any] = "facility_location",
    labeled: npt.ArrayLike = (),
    rng: np.random.Generator | int = 0,
    weights: Floats | None = None,
    signals: Mapping[str, Floats] | None = None,
    groups: npt.ArrayLike | None = None,
    similarity: facility.Similarity | None = None,
    mode: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Selected:
    """Choose k rows of `embeddings` (n, d; float16, float32 or float64, may be memory-mapped) that are not labeled.

    strategy: a spec such as "facility_location(kernel='rbf')", "k_center", "k_means_pp", or any other registered strategy, whose other
    signals (n,) are in `signals` and groups (n,) in `groups`. labeled: row numbers, or a mask (n,). rng: a generator or a seed; it decides ties and draws.
    For facility location: `weights` (n,), how much each row counts; `similarity`, a function of an array of inner products of unit rows, in
    the place of a kernel; `mode` exact, two_stage or cells (see coverage.facility.cover). threads never change the answer.
    progress(what, done, total) is called now and then while facility location works.

    Raises DataError for numbers that are not finite (the row is named), a shape that does not fit, or k above what is unlabeled.
    """
    embeddings = np.asarray(embeddings) if not isinstance(embeddings, np.ndarray) else embeddings
    check(embeddings)
    n, rng = len(embeddings), np.random.default_rng(rng)
    bought = np.unique(facility.row_numbers(labeled, n, "labeled rows"))
    left = np.setdiff1d(np.arange(n), bought)
    if not len(left):
        raise DataError(f"all {n} rows are labeled: nothing is left to choose")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(left):
        raise DataError(f"cannot choose {k!r} rows: {len(left)} of {n} are not labeled; choose a whole number k between 1 and {len(left)}")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be 1 or more, got {threads}")
    name, _ = registry.parse(strategy)
    options = dict(getattr(registry.build("strategy", strategy), "keywords", {}))  # as it checked and converted them
    if name in FACILITY:
        if name == FACILITY[1] and weights is None:
            weights = _column(signals, "mean_entropy", n)
        if weights is not None:
            weights = _weights(weights, bought, n)
        if similarity is not None:
            options["kernel"] = similarity
        found = facility.cover(embeddings, k, candidates=rng.permutation(left), chosen=bought, weights=weights, mode=mode, threads=threads, progress=progress, **options)
        return Selected(found.picks, found.gains, found.objective, found.bound, found.owner, found.similarity, found.mode)
    if weights is not None or similarity is not None or mode != "auto":
        raise ConfigError(f"weights, similarity and mode are for facility_location; strategy '{name}' has no use for them")
    if name == "k_center":
        return _k_center(embeddings, k, rng.permutation(left), bought, threads)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads, user_api="blas"):  # what has no other way to be told how many
        return _registered(strategy, embeddings, k, left, bought, rng, signals, groups)


def _k_center(embeddings: Floats, k: int, left: Indices, bought: Indices, threads: int | None) -> Selected:
    points = unit(embeddings, np.concatenate([left, bought]))
    found = spread.farthest_first(points, k, candidates=np.arange(len(left)), chosen=np.arange(len(left), len(points)), threads=threads)
    owner, similarity = np.full(len(points), -1, dtype=np.int64), np.ones(len(points))
    owner[left], similarity[left] = found.owner, 1 - found.away**2 / 2
    radius = float(found.away.max())
    # Two of k + 1 rows that lie at least the radius apart, and from what is labeled, have the same nearest row in any choice of k.
    return Selected(left[found.picks], np.minimum(found.distances, 2), radius, radius / 2, owner, similarity)


def _registered(strategy: str | Mapping[str, Any], embeddings: Floats, k: int, left: Indices, bought: Indices, rng: np.random.Generator, signals: Mapping[str, Floats] | None, groups: npt.ArrayLike | None) -> Selected:
    from . import select as buy

    columns = {name: _column(signals, name, len(embeddings)) for name in signals or {}}
    labels = np.zeros(len(embeddings), dtype="<U1") if groups is None else np.asarray(groups, dtype=np.str_)
    if labels.shape != (len(embeddings),):
        raise DataError(f"groups have shape {labels.shape}, the embeddings have {len(embeddings)} rows; give one group a row")
    view = View(Signals(columns | {"embedding": embeddings}), left, bought, labels, rng.random(len(embeddings)))
    picked = buy(strategy, view, k, rng)
    return Selected(picked.rows, picked.scores, picked.objective, picked.bound)


def _column(signals: Mapping[str, Floats] | None, name: str, n: int) -> Floats:
    if signals is None or name not in signals:
        raise ConfigError(f"the strategy needs the signal '{name}': give it as signals={{'{name}': array of {n} numbers}}")
    values = np.asarray(signals[name])
    if values.shape[:1] != (n,):
        raise DataError(f"signal '{name}' has shape {values.shape}, the embeddings have {n} rows")
    return values


def _weights(weights: Floats, bought: Indices, n: int) -> Floats:
    """As floats; labeled rows may be unmeasured, since they are represented already."""
    weights = np.array(weights, dtype=np.float64)
    if weights.shape != (n,):
        raise DataError(f"weights have shape {weights.shape}, the embeddings have {n} rows")
    weights[bought] = np.where(np.isfinite(weights[bought]), weights[bought], 0)
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        raise DataError(f"the weight of row {bad.argmax()} is {weights[bad.argmax()]}; weights are finite and not negative")
    return weights
