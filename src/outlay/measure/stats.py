"""Intervals. Seeds are the replicates: compare seed by seed, and print the interval and the number of seeds beside every mean."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..errors import DataError


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean of n values with its confidence interval, in the unit of the values. NaN limits where n is too small to say."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent values, e.g. one accuracy per seed. (n,)."""
    values = _finite(values, level)
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(a_by_seed: Mapping[int, float], b_by_seed: Mapping[int, float], level: float = 0.95) -> Interval:
    """t interval of a - b over the seeds that both have. Seeds share pool and test items, so pairing removes their variance."""
    seeds = sorted(a_by_seed.keys() & b_by_seed.keys())
    if not seeds:
        raise DataError(f"no seed in common: {sorted(a_by_seed)} and {sorted(b_by_seed)}; run both with the same seeds")
    return t_interval([a_by_seed[seed] - b_by_seed[seed] for seed in seeds], level)


def unpaired_difference(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Welch's t interval of mean(a) - mean(b), (n,) and (m,) independent values; n of the result: the smaller number. NaN limits where one
    of them has a single value."""
    a, b = _finite(a, level), _finite(b, level)
    mean, n = float(a.mean() - b.mean()), min(len(a), len(b))
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of values that are all alike, whose interval is a point
        found = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    return Interval(mean, float(found.low), float(found.high), n)


def accuracy_interval(correct: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Wilson 1927 interval of one accuracy over its items (0 or 1 each). (n_items,). It covers the draw of test items, not of seeds."""
    from statsmodels.stats.proportion import proportion_confint

    correct = _finite(correct, level)
    if not np.isin(correct, (0, 1)).all():
        raise DataError("an item is correct (1) or not (0); use t_interval for graded values")
    low, high = proportion_confint(int(correct.sum()), len(correct), alpha=1 - level, method="wilson")
    return Interval(float(correct.mean()), float(low), float(high), len(correct))


def _finite(values: npt.ArrayLike, level: float) -> npt.NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise DataError(f"an interval needs a list of at least one value, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise DataError(f"value {int(np.flatnonzero(~np.isfinite(values))[0])} of {len(values)} is not a number; leave out runs that did not finish")
    if not 0 < level < 1:
        raise DataError(f"a confidence level lies between 0 and 1, got {level}")
    return values
