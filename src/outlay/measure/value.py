"""What accuracy costs: annotations that random would need for it, the front of accuracy and cost, and which campaign is worth most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..types import Floats


@dataclass(frozen=True, slots=True)
class Needed:
    """Annotations that random needs for the same accuracy, with a 95 % interval. inf: more than were bought, of which `censored` is the
    share of the bootstrap draws."""

    labels: float
    low: float
    high: float
    censored: float


def labels_needed(labels: npt.ArrayLike, curve: npt.ArrayLike, target: npt.ArrayLike, *, count: int = 500, rng: np.random.Generator) -> Needed:
    """labels: (k,) rising; curve: (s, k) random's accuracy at them, by seed; target: (s,) the other campaign's accuracy, same seeds.

    The mean curve, made monotone (isotonic regression), is read between its points; seeds are redrawn together, and each draw's distance
    from the means is stretched as in `contrasts.draws`, since few seeds are too narrow. Items are not redrawn. A target above the curve's
    end is censored: ">B".
    """
    labels, curve, target = (np.asarray(v, dtype=np.float64) for v in (labels, curve, target))
    seeds = len(target)
    if curve.shape != (seeds, len(labels)) or len(labels) < 2:
        raise DataError(f"random's curve must be (seeds, labels) = ({seeds}, {len(labels)}) with two numbers of labels at least, got {curve.shape}")
    found = _reach(labels, curve.mean(axis=0), float(target.mean()))
    if seeds < 3:
        return Needed(found, math.nan, math.nan, float(math.isinf(found)))
    both = np.column_stack([curve, target])
    drawn = both[rng.integers(seeds, size=(count, seeds))].mean(axis=1) - both.mean(axis=0)
    drawn = both.mean(axis=0) + drawn * np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, size=(count, 1)) * seeds / (seeds - 1))
    each = np.array([_reach(labels, row[:-1], float(row[-1])) for row in drawn])
    low, high = np.quantile(each, (0.025, 0.975), method="closest_observation")
    return Needed(found, float(low), float(high), float(np.isinf(each).mean()))


def _reach(labels: Floats, curve: Floats, target: float) -> float:
    from scipy.optimize import isotonic_regression

    curve = isotonic_regression(curve).x
    if target > curve[-1]:
        return math.inf
    at = int(np.searchsorted(curve, target))  # the first point that is not below it
    if at == 0:
        return float(labels[0])
    share = (target - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(labels[at - 1] + share * (labels[at] - labels[at - 1]))


def on_front(accuracy: npt.ArrayLike, cost: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which arms no other one beats: none is as accurate for less, or more accurate for no more. accuracy (..., a), cost (a,) -> (..., a)."""
    accuracy, cost = np.asarray(accuracy, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    more = accuracy[..., None, :] >= accuracy[..., :, None]
    less = cost[None, :] <= cost[:, None]
    strictly = (accuracy[..., None, :] > accuracy[..., :, None]) | (cost[None, :] < cost[:, None])
    return ~(more & less & strictly).any(axis=-1)


@dataclass(frozen=True, slots=True)
class Choice:
    """The arm of highest expected net value. probability: that it is the best of all; margin: over the runner-up, in dollars; net: (count, a)
    the draws of net value."""

    best: int
    runner_up: int
    probability: float
    margin: float
    expected: Floats
    probabilities: Floats
    net: Floats

    def contenders(self, share: float = 0.95) -> list[int]:
        """The fewest arms of which one is the best with at least this probability, likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")
        return order[: int(np.searchsorted(np.cumsum(self.probabilities[order]), share - 1e-9)) + 1].tolist()

    def over(self, other: int) -> tuple[float, float, float]:
        """Dollars of net value of the best arm minus another's, and their 95 % interval. The best was picked as the highest of all, so
        this flatters it a little."""
        gap = self.net[:, self.best] - self.net[:, other]
        return float(gap.mean()), *(float(v) for v in np.quantile(gap, (0.025, 0.975)))


def recommend(accuracy: npt.ArrayLike, costs: npt.ArrayLike, worth: float) -> Choice:
    """accuracy (count, a): draws of each arm's accuracy (see contrasts.draws); costs (a,) in dollars; worth: dollars that an accuracy of 1
    is worth more than one of 0. Net value = worth * accuracy - costs."""
    accuracy, costs = np.asarray(accuracy, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    net = worth * accuracy - costs
    expected = net.mean(axis=0)
    order = np.argsort(-expected, kind="stable")
    share = np.bincount(net.argmax(axis=1), minlength=net.shape[1]) / len(net)
    best, second = int(order[0]), int(order[1]) if len(order) > 1 else int(order[0])
    return Choice(best, second, float(share[best]), float(expected[best] - expected[second]), expected, share, net)


def end_slopes(labels: Sequence[float], curve: npt.ArrayLike, *, points: int = 4) -> Floats:
    """Accuracy that one more annotation brings at the end of random's curve, by seed: least squares over its last `points`. labels (k,);
    curve (s, k) -> (s,). Zeros where there is one point."""
    curve = np.asarray(curve, dtype=np.float64)
    x = np.asarray(labels, dtype=np.float64)[-points:]
    return np.polyfit(x, curve[:, -points:].T, 1)[0] if len(x) > 1 else np.zeros(len(curve))


def exchange_rate(labels: Sequence[float], curve: npt.ArrayLike, per_annotation: float, *, points: int = 4) -> float:
    """Dollars that random pays for accuracy at its end: price of an annotation over the slope of its mean curve (`end_slopes`). inf where
    that does not rise: no money buys more there."""
    slope = float(end_slopes(labels, curve, points=points).mean())
    return per_annotation / slope if slope > 0 else math.inf
