"""What a judgement takes, in minutes or dollars, predicted from lengths: an assumption that gives way to what was recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..errors import DataError
from ..types import Floats
from .stats import Interval

PRIOR = 5  # answers that the assumption counts as; it says that single answers scatter by 100 % around what is predicted
SLOPE = 4.0  # penalty on slopes, for all answers together: a doubling of the cost with one standard deviation of a length needs evidence
FAR = 10.0  # times the median: above, somebody has left the desk


@dataclass(frozen=True, slots=True)
class Fit:
    """cost = assumed cost * exp(constant + slopes @ z), z = (log(1 + length) - centre) / scale. `scatter`: standard deviation of single
    costs around it, as a share of it; `answers`: how many it was learned from."""

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    slopes: tuple[float, ...]
    constant: float = 0.0
    scatter: float = 1.0
    answers: int = 0

    def costs(self, lengths: Floats, assumed: Floats) -> Floats:
        """Predicted cost of each judgement. lengths (n, f), assumed (n,) -> (n,)."""
        return assumed * np.exp(self.constant + self._z(lengths) @ np.array(self.slopes))

    def total(self, lengths: Floats, assumed: Floats, level: float = 0.95) -> Interval:
        """What these judgements take together. The interval joins the scatter of single judgements and what is not known of their level and
        of the slopes; it is one of the logarithm, with Student's t, since costs are positive."""
        costs = self.costs(lengths, assumed)
        whole = float(costs.sum())
        if not whole:
            return Interval(0.0, 0.0, 0.0, self.answers)
        known = PRIOR + self.answers
        lean = costs @ self._z(lengths) / whole  # how far these are from the pool's middle
        spread = self.scatter * math.sqrt(float(costs @ costs) / whole**2 + 1 / known + float(lean @ lean) / (SLOPE + self.answers))
        factor = math.exp(float(stats.t.ppf((1 + level) / 2, known - 1)) * spread)
        return Interval(whole, whole / factor, whole * factor, self.answers)

    def _z(self, lengths: Floats) -> Floats:
        return (np.log1p(lengths) - np.array(self.centre)) / np.array(self.scale)


def assumption(lengths: npt.ArrayLike) -> Fit:
    """The fit before anything was recorded: costs are what is assumed. lengths (n, f): of the whole pool."""
    logs = np.log1p(np.asarray(lengths, dtype=np.float64))
    spread = logs.std(axis=0)
    return Fit(tuple(map(float, logs.mean(axis=0))), tuple(float(s) if s > 1e-9 else 1.0 for s in spread), (0.0,) * logs.shape[1])


def learn(fit: Fit, lengths: npt.ArrayLike, costs: npt.ArrayLike, assumed: npt.ArrayLike) -> Fit:
    """What was recorded, and the assumption. lengths (n, f); costs, assumed (n,): what each judgement took, above 0, and was assumed to.

    A Poisson regression of the cost with a logarithmic link and the assumption as its offset: whatever the distribution, it is right for the mean if
    the form is (quasi-likelihood), so sums come out right for skewed times, where a fit of logarithms or medians is too low (Manning &
    Mullahy 2001, J. Health Economics 20). Shrunken: the assumption counts as PRIOR answers, and slopes are penalised. Robust: a cost above FAR times
    the median (both in units of what is predicted: first by the assumption, then by the fit) counts as that.
    """
    from sklearn.linear_model import PoissonRegressor

    x, y, base = (np.asarray(values, dtype=np.float64) for values in (lengths, costs, assumed))
    if not len(y):
        return fit
    if not (np.isfinite(y).all() and (y > 0).all()):
        raise DataError(f"a recorded cost must be above 0, got {float(np.min(y)):g}; leave out what was not recorded")
    z = np.vstack([fit._z(x), np.zeros((PRIOR, x.shape[1]))])
    weights = np.concatenate([base, np.full(PRIOR, base.mean())])
    found = fit
    for _ in range(2):
        off = y / found.costs(x, base)
        kept = np.minimum(off, FAR * np.median(off)) * found.costs(x, base)
        model = PoissonRegressor(alpha=SLOPE / len(z), solver="newton-cholesky").fit(z, np.concatenate([kept / base, np.ones(PRIOR)]), sample_weight=weights)
        found = replace(fit, slopes=tuple(map(float, model.coef_)), constant=float(model.intercept_), answers=len(y))
    off = kept / found.costs(x, base) - 1
    return replace(found, scatter=math.sqrt((PRIOR + float(off @ off)) / (PRIOR + len(y))))
