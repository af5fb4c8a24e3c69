"""A budget and a number of rounds -> how many annotations each round buys."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import ConfigError, near


def _apportion(budget: int, weights: np.ndarray) -> tuple[int, ...]:
    """Whole numbers >= 1 that sum to the budget, proportional to the weights (largest remainder, earlier rounds first in ties)."""
    spare = budget - len(weights)
    shares = spare * weights / weights.sum()
    sizes = np.floor(shares).astype(int)
    order = np.argsort(-(shares - sizes), kind="stable")
    sizes[order[: spare - sizes.sum()]] += 1
    return tuple(int(s) + 1 for s in sizes)


def even(budget: int, rounds: int) -> tuple[int, ...]:
    """Equal batches; the first ones are larger by one where it does not divide."""
    return _apportion(budget, np.ones(rounds))


def geometric(budget: int, rounds: int) -> tuple[int, ...]:
    """Each batch about twice the one before."""
    return _apportion(budget, 2.0 ** np.arange(1 - rounds, 1))


def front_loaded(budget: int, rounds: int) -> tuple[int, ...]:
    """Half of the budget in the first round, the rest evenly."""
    if rounds == 1:
        return (budget,)
    first = min((budget + 1) // 2, budget - rounds + 1)
    return (first, *even(budget - first, rounds - 1))


SCHEDULES: dict[str, Callable[[int, int], tuple[int, ...]]] = {"even": even, "geometric": geometric, "front_loaded": front_loaded}


def batches(schedule: str | tuple[int, ...], budget: int, rounds: int) -> tuple[int, ...]:
    """Batch sizes of the named schedule; an explicit list of sizes must have `rounds` entries that sum to the budget."""
    if budget < 1 or rounds < 1:
        raise ConfigError(f"budget {budget} and rounds {rounds} must be at least 1")
    if rounds > budget:
        raise ConfigError(f"{rounds} rounds cannot share a budget of {budget} annotations; use at most {budget} rounds")
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise ConfigError(f"unknown schedule '{schedule}'; {near(schedule, SCHEDULES)}, or a list of batch sizes")
        return SCHEDULES[schedule](budget, rounds)
    if len(schedule) != rounds or sum(schedule) != budget or min(schedule) < 1:
        raise ConfigError(f"the explicit schedule {list(schedule)} must have {rounds} positive batch sizes that sum to {budget}")
    return tuple(schedule)
