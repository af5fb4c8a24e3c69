"""What more annotations are expected to bring, from the accuracies of a campaign's rounds on its dev set."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..errors import DataError
from .stats import Interval

POINTS = 3  # trained rounds that a forecast needs


def gain(labels: npt.ArrayLike, correct: npt.ArrayLike, more: int, *, rng: np.random.Generator, count: int = 500, level: float = 0.95) -> Interval | None:
    """Accuracy that `more` annotations are expected to add to the last round's (a fraction, with its interval); None with fewer than
    three trained rounds. labels: (p,) annotations behind each round's model, rising and above 0; correct: (p, n_items) 0 or 1.

    A line through accuracy against the logarithm of the annotations, by least squares: each doubling brings the same, the local form of
    the power laws of learning curves (e.g. Hestness et al. 2017, arXiv 1712.00409). The interval joins the scatter of the rounds around the
    line (Student's t, p - 2 degrees of freedom: with three rounds it is wide) and the draw of the dev items (redrawn `count` times for all
    rounds together). Scatter that items cause is in both, so it errs on the wide side.
    """
    x, table = np.log(np.asarray(labels, dtype=np.float64)), np.asarray(correct, dtype=np.float64)
    if table.ndim != 2 or len(x) != len(table) or not table.shape[1]:
        raise DataError(f"{len(x)} numbers of annotations need as many rows of dev results, got shape {table.shape}")
    if not np.isfinite(x).all() or (np.diff(x) <= 0).any():
        raise DataError(f"annotations must be positive and rise from round to round, got {list(np.asarray(labels))}")
    if len(x) < POINTS:
        return None
    step = math.log(math.exp(x[-1]) + more) - x[-1]
    centred = x - x.mean()
    spread = float(centred @ centred)
    accuracy = table.mean(axis=1)
    slope = float(centred @ accuracy) / spread
    rest = accuracy - accuracy.mean() - slope * centred
    scatter = math.sqrt(float(rest @ rest) / (len(x) - 2) / spread) * step
    per_item = centred @ table / spread * step  # each item's part of the gain: its mean is the forecast
    drawn = per_item[rng.integers(table.shape[1], size=(count, table.shape[1]))].mean(axis=1)
    half = math.hypot(float(stats.t.ppf((1 + level) / 2, len(x) - 2)) * scatter, float(stats.norm.ppf((1 + level) / 2)) * float(drawn.std()))
    return Interval(slope * step, slope * step - half, slope * step + half, len(x))
