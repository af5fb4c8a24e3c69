"""How accurate a model is on the pool, from a random slice of each batch: what a strategy chose says nothing of the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .stats import Interval


@dataclass(frozen=True, slots=True)
class Audit:
    """Accuracy of one model, as fractions with 95 % intervals. `left`: on what was left of the pool when the batch was drawn. `whole`: on
    the pool as it was then, what was bought of it included: prompts that were added to it before count, later ones do not. `share_left`: how
    much of that was left; `effective`: independent items that the slice is worth."""

    left: Interval
    whole: Interval
    share_left: float
    effective: float


def audit(slice_correct: npt.ArrayLike, before_correct: npt.ArrayLike, left: int, level: float = 0.95) -> Audit:
    """slice_correct: (a,) whether the model was right on each item of the random slice, before it was trained on it; before_correct: (l,) the
    same of everything bought in earlier rounds, each item by the model of its own round, before that one was trained on it;
    left: prompts that were left of the pool when the slice was drawn, the slice included.

    The slice is a simple random sample without replacement of what is left, so its mean is unbiased there, whatever the strategy took away
    before (Cochran 1977, Sampling Techniques, ch. 2; interval: Wilson 1927 with the finite population correction in the number of
    items). For the whole pool, the two parts are weighted by their sizes: the strategy takes the hard prompts out, and without these weights the
    rest looks better than the pool (Farquhar, Gal & Rainforth 2021, arXiv 2101.11665, on the same bias of active learning). The part that
    was bought counts with the scores of earlier models (prequential, Dawid 1984): where models improve, `whole` is too low by at most the
    bought share of the pool.
    """
    sample, earlier = np.asarray(slice_correct, dtype=np.float64), np.asarray(before_correct, dtype=np.float64)
    if not len(sample):
        raise DataError("the random slice is empty: there is nothing to estimate from")
    if len(sample) > left:
        raise DataError(f"a slice of {len(sample)} cannot be drawn from {left} prompts")
    effective = len(sample) * (left - 1) / (left - len(sample)) if left > len(sample) else math.inf
    here = _wilson(float(sample.mean()), effective, len(sample), level)
    n = left + len(earlier)
    shift, share = float(earlier.sum()) / n, left / n
    whole = Interval(*(shift + share * value for value in (here.mean, here.low, here.high)), here.n)
    return Audit(here, whole, share, effective)


def running(audits: Sequence[Audit], level: float = 0.95) -> Interval:
    """The audits of all rounds together: accuracy on the pool, averaged over the rounds' models with the sizes of their slices as weights. More
    items than the last slice has, so a narrower interval; below the last model's accuracy where models improve."""
    weights = np.array([a.left.n for a in audits], dtype=np.float64)
    mean = float(np.average([a.whole.mean for a in audits], weights=weights))
    effective = float(sum(a.effective for a in audits))
    return _wilson(mean, effective, int(weights.sum()), level)


def _wilson(mean: float, effective: float, n: int, level: float) -> Interval:
    if math.isinf(effective):
        return Interval(mean, mean, mean, n)
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(mean * effective, effective, alpha=1 - level, method="wilson")
    return Interval(mean, float(low), float(high), n)
