"""Contrasts between campaigns whose seeds and test items are crossed: every seed's models answered the same items.

A contrast is a table (s seeds, n items): for each seed and item a difference, or any other linear combination, of what several
campaigns scored there. Its mean over the table is the effect. Both seeds and items are draws, so both make it uncertain: an interval over
seeds alone says nothing of other items, one over items alone nothing of other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..errors import DataError
from ..types import Floats
from .stats import Interval

LEAST_SEEDS = 6  # for a p-value: with five, the exact test cannot go below 0.0625
EXACT_UP_TO = 14  # seeds whose 2^s sign flips are all tried


@dataclass(frozen=True, slots=True)
class Effect:
    """A mean with its confidence interval, in the unit of the table; NaN limits with one seed. se: standard error; freedom: of the t
    quantile; seed_share: the seeds' part of the variance; p: two-sided, of no difference over seeds and items, NaN under six seeds."""

    mean: float
    low: float
    high: float
    se: float
    freedom: float
    seed_share: float
    p: float
    seeds: int
    items: int


def crossed(table: npt.ArrayLike, level: float = 0.95) -> Effect:
    """The mean of a (s, n) table and its interval over seeds and items.

    Variance by two-way clustering (Cameron, Gelbach & Miller 2011): that of the seeds' means plus that of the items' means minus that of
    what is left, which both contain (never below the first two's larger one); t quantile with Satterthwaite's degrees of freedom. The
    crossed (pigeonhole) bootstrap of Owen 2007 estimates the same variance with the third part counted three times, see `draws`.
    """
    table = _checked(table)
    seeds, items = table.shape
    mean = float(table.mean())
    if seeds == 1 or items == 1:
        return Effect(mean, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, seeds, items)
    by_seed, by_item, rest = _parts(table)
    variance = max(by_seed + by_item - rest, by_seed, by_item)
    if variance == 0:
        return Effect(mean, mean, mean, 0.0, math.inf, math.nan, math.nan, seeds, items)
    freedom = max(variance**2 / (by_seed**2 / (seeds - 1) + by_item**2 / (items - 1)), 1.0)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
    p = 2 * float(stats.t.sf(abs(mean) / math.sqrt(variance), freedom)) if seeds >= LEAST_SEEDS else math.nan
    return Effect(mean, mean - half, mean + half, math.sqrt(variance), freedom, by_seed / (by_seed + by_item), p, seeds, items)


def _parts(table: Floats) -> tuple[float, float, float]:
    """Variances of the mean: of seeds, of items, of what is left."""
    seeds, items = table.shape
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    rest = table - rows[:, None] - columns + table.mean()
    left = float((rest**2).sum()) / ((seeds - 1) * (items - 1)) / (seeds * items)
    return float(rows.var(ddof=1)) / seeds, float(columns.var(ddof=1)) / items, left


def single(a: npt.ArrayLike, b: npt.ArrayLike, a_parts: npt.ArrayLike, b_parts: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Accuracy of model a minus that of model b on the same (n,) items, where each was trained on one draw of labels; with an interval over
    items and draws. a, b: (n,) right or not; a_parts, b_parts: (g, n) the same of models trained on g disjoint parts of each draw.

    The items' variance is that of matched proportions, with half an item more in each cell (Agresti & Min 2005), so that it is never zero.
    The draws' is what the models of the parts differ by beyond the items, taken for that of the whole draw: too large where
    accuracy scatters less with more labels, so the interval is rather too wide. t quantile with Satterthwaite's degrees of freedom.
    """
    a, b = (np.asarray(right, dtype=np.float64) for right in (a, b))
    tables = [_checked(parts) for parts in (a_parts, b_parts)]
    groups, n = tables[0].shape
    if min(groups, n) < 2 or tables[1].shape != (groups, n) or not a.shape == b.shape == (n,):
        raise DataError(f"two models and at least two parts of each on the same items, at least two: got shapes {a.shape}, {b.shape}, {tables[0].shape}, {tables[1].shape}")
    only_a, only_b = float((a * (1 - b)).sum()), float((b * (1 - a)).sum())
    of_items = (only_a + only_b + 1 - (only_a - only_b) ** 2 / (n + 2)) / (n + 2) ** 2
    parts = [_parts(table) for table in tables]
    whole = [groups * by_draw for by_draw, _, _ in parts]
    variance = of_items + max(sum(groups * (by_draw - rest) for by_draw, _, rest in parts), 0.0)
    freedom = max(variance**2 / (of_items**2 / (n - 1) + sum(value**2 for value in whole) / (groups - 1)), 1.0)
    half, mean = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance), (only_a - only_b) / n
    return Interval(mean, max(mean - half, -1.0), min(mean + half, 1.0), n)


def draws(tables: npt.ArrayLike, count: int, rng: np.random.Generator) -> Floats:
    """The crossed bootstrap: means of (a, s, n) tables that share seeds and items, redrawn together. -> (count, a).

    Seeds and items are drawn with replacement, items once for all seeds. With few seeds a bootstrap is too narrow, so each draw's
    distance from the mean is stretched: the seeds' part by sqrt(s / (s - 1)) and by the tails of Student's t with s - 1 degrees of freedom.
    """
    tables = np.asarray(tables, dtype=np.float64)
    _, seeds, items = tables.shape
    mean = tables.mean(axis=(1, 2))
    if seeds == 1:
        picked = rng.multinomial(items, np.full(items, 1 / items), size=count) / items
        return picked @ tables[:, 0].T
    chosen = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count) / seeds
    picked = rng.multinomial(items, np.full(items, 1 / items), size=count) / items
    of_seeds = chosen @ tables.mean(axis=2).T - mean  # (count, a)
    of_items = picked @ tables.mean(axis=1).T - mean
    tails = np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, size=(count, 1))) * math.sqrt(seeds / (seeds - 1))
    return mean + of_seeds * tails + of_items


def sign_flips(values: npt.ArrayLike) -> tuple[float, float]:
    """Two-sided p-value of the mean of paired differences, one a seed, and the smallest that so many seeds can give.

    It speaks of other seeds on these very items: where items differ it rejects far too often about other items (see `crossed`). Exact up to 14 seeds: under the null hypothesis each difference is as likely with the other sign. (NaN, smallest) under six seeds.
    """
    values = np.asarray(values, dtype=np.float64)
    seeds = len(values)
    smallest = 2.0 / 2**seeds if seeds <= EXACT_UP_TO else 2e-4  # of 9,999 draws and the one that was seen
    if seeds < LEAST_SEEDS:
        return math.nan, smallest
    if not values.any():
        return 1.0, smallest
    resamples = 2**seeds if seeds <= EXACT_UP_TO else 9999
    found = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=resamples, rng=np.random.default_rng(0), vectorized=True)
    return float(found.pvalue), smallest


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the p-values that are numbers; NaN stays."""
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p, dtype=np.float64)
    known, out = np.isfinite(p), np.full(len(p), np.nan)
    if known.any():
        out[known] = multipletests(p[known], method="holm")[1]
    return out.tolist()


def slope_weights(rounds: Sequence[int]) -> Floats:
    """Weights of the accuracies at these m whose sum is the least-squares slope on log2(m): per doubling of the rounds. (k,)."""
    x = np.log2(np.asarray(rounds, dtype=np.float64))
    if len(set(rounds)) < 2:
        raise DataError(f"a slope needs at least two numbers of rounds, got {list(rounds)}")
    return (x - x.mean()) / ((x - x.mean()) ** 2).sum()


def detectable(sd: float, seeds: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true mean difference that a paired t test over so many seeds finds with this power, in the unit of `sd` (the standard
    deviation of the seeds' differences). NaN with one seed."""
    from statsmodels.stats.power import TTestPower

    if seeds < 2 or not math.isfinite(sd):
        return math.nan
    # The upper tail alone: that a difference is found with the wrong sign is out of the question here, and where the wrong tail counts, too,
    # statsmodels meets NaN at some numbers of seeds and gives an array.
    return sd * float(TTestPower().solve_power(nobs=seeds, alpha=alpha / 2, power=power, alternative="larger"))


def seeds_needed(difference: float, sd: float, *, alpha: float = 0.05, power: float = 0.8, most: int = 10_000) -> int:
    """Seeds after which a difference of this size would be found with this power; `most` if more."""
    for seeds in _growing(most):
        if detectable(sd, seeds, alpha=alpha, power=power) <= abs(difference):
            return seeds
    return most


def _growing(most: int) -> list[int]:
    few = list(range(2, min(most, 60) + 1))
    return few + [int(n) for n in np.unique(np.geomspace(61, most, 60).astype(int)) if n > 60]


def _checked(table: npt.ArrayLike) -> Floats:
    table = np.asarray(table, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise DataError(f"a contrast is a table (seeds, items), got shape {table.shape}")
    if not np.isfinite(table).all():
        raise DataError(f"{np.isnan(table).sum()} of {table.size} numbers of a contrast are NaN; leave out seeds that did not finish")
    return table
