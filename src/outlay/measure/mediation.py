"""Do more rounds make a better model *through* the diversity of what they buy? Linear mediation (Baron & Kenny 1986), seeds as clusters.

diversity = a log2(m) + unit, accuracy = c' log2(m) + b diversity + unit, where a unit is one strategy and seed: only differences within it
count. indirect = a b, direct = c', total = a b + c' (equal to the slope without the mediator). Exploratory: diversity is not
randomised, so b also holds whatever else moves with it. From a cold restart rounds act through the bought set alone; "direct" then means
properties of that set which this measure of diversity misses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..errors import DataError
from ..types import Floats

PATHS = ("a", "b", "direct", "indirect", "total")


@dataclass(frozen=True, slots=True)
class Path:
    """One coefficient with its 95 % interval over seeds; NaN limits under three seeds."""

    value: float
    low: float
    high: float


def mediation(rounds: npt.ArrayLike, mediator: npt.ArrayLike, outcome: npt.ArrayLike, units: npt.ArrayLike, seeds: npt.ArrayLike, *, count: int = 2000, rng: np.random.Generator) -> dict[str, Path]:
    """a, b, direct, indirect, total. All arguments (k,): one row per strategy, seed and m. `units` says which rows share an intercept;
    `seeds` are redrawn whole, with all their units.

    The interval is the mean -+ t(s - 1) standard deviations of the bootstrap, stretched by sqrt(s / (s - 1)): with few seeds, percentiles
    are too narrow. Raises DataError where the rounds or the mediator do not vary within any unit.
    """
    x = np.log2(np.asarray(rounds, dtype=np.float64))
    m, y = (np.asarray(v, dtype=np.float64) for v in (mediator, outcome))
    if not np.isfinite(np.concatenate([m, y])).all():
        raise DataError("mediation needs numbers: leave out rows where diversity or accuracy is NaN")
    x, m, y = (_within(v, np.asarray(units)) for v in (x, m, y))
    products = np.stack([x * x, x * m, x * y, m * m, m * y])  # all that the coefficients depend on
    names, at = np.unique(np.asarray(seeds), return_inverse=True)
    by_seed = np.stack([np.bincount(at, weights=row, minlength=len(names)) for row in products])  # (5, s)
    found = _coefficients(by_seed.sum(axis=1)[:, None])[:, 0]
    if not np.isfinite(found).all():
        raise DataError("mediation needs rounds and a mediator that vary within a strategy and seed")
    s = len(names)
    if s < 3:
        return {name: Path(float(v), math.nan, math.nan) for name, v in zip(PATHS, found, strict=True)}
    weights = rng.multinomial(s, np.full(s, 1 / s), size=count).T  # (s, count)
    redrawn = _coefficients(by_seed @ weights)
    redrawn = redrawn[:, np.isfinite(redrawn).all(axis=0)]
    half = float(stats.t.ppf(0.975, s - 1)) * redrawn.std(axis=1, ddof=1) * math.sqrt(s / (s - 1))
    return {name: Path(float(v), float(v - h), float(v + h)) for name, v, h in zip(PATHS, found, half, strict=True)}


def _within(values: Floats, units: np.ndarray) -> Floats:
    """Minus the mean of its unit."""
    _, at = np.unique(units, return_inverse=True)
    return values - (np.bincount(at, weights=values) / np.bincount(at))[at]


def _coefficients(sums: Floats) -> Floats:
    """(5, k) sums of xx, xm, xy, mm, my -> (5, k) in the order of PATHS."""
    xx, xm, xy, mm, my = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        a, total = xm / xx, xy / xx
        left = mm - xm**2 / xx  # of the mediator, what the rounds do not explain
        b = np.where(left > 1e-12 * np.maximum(mm, 1e-300), (my - xm * xy / xx) / left, np.nan)
    return np.stack([a, b, total - a * b, a * b, total])
