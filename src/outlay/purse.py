"""A round that spends minutes or money: as many prompts as its share is predicted to pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .types import Annotation, Floats, Indices, Selection

TRIES = 6  # choices by interpolation; by bisection from there on


@dataclass(frozen=True, slots=True)
class Purse:
    """What a round may spend, all in one unit. `share`: its part of what is left; `limit`: all that is left; `costs`: (n,) what each prompt of
    the pool is predicted to cost, with all its judgements; `spent`: what answers have cost, as predicted where it is not recorded. `per_cost`:
    whether the strategy's score is divided by these costs."""

    share: float
    limit: float
    costs: Floats
    spent: Callable[[Sequence[Annotation]], float]
    per_cost: bool = False


def guess(purse: Purse, rows: Indices) -> int:
    """How many prompts of these rows the share pays if they are average ones: at least one, and none if no row is within what is left."""
    if not len(rows) or purse.costs[rows].min() > purse.limit:
        return 0
    return max(1, min(len(rows), int(purse.share / purse.costs[rows].mean())))


def batch(purse: Purse, first: int, most: int, choose: Callable[[int], Selection], rows_of: Callable[[Sequence[str]], Indices]) -> Selection | None:
    """A choice that the share is predicted to pay, of as many prompts as `choose(k)` can take, at most `most`; `first` is tried first. Where
    the share does not pay one prompt, but what is left does, it is one; None where that does not either."""
    fits, over, best, k, tries = 0, most + 1, None, min(first, most), 0
    while over - fits > 1:
        found = choose(k)
        cost = float(purse.costs[rows_of(found.ids)].sum())
        if cost <= purse.share or (k == 1 and cost <= purse.limit):
            fits, best = k, found
        else:
            over = k
        tries += 1
        aim = int(k * purse.share / cost) if tries < TRIES else (fits + over) // 2
        k = min(max(aim, fits + 1), over - 1)
    return best


def affordable(purse: Purse | None, strategy: str, choose: Callable[[int], Selection], k: int, most: int, rows_of: Callable[[Sequence[str]], Indices]) -> Selection:
    """The choice of a round: of k without a purse; with one `batch`, empty where that is None."""
    return choose(k) if purse is None else batch(purse, k, most, choose, rows_of) or Selection(strategy, ())
