"""Ranking without favouring the head of the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Interval

from ..types import Floats, Indices, View

Share = Annotated[float, Interval(ge=0, le=1)]  # the type of an option between 0 and 1


def highest(view: View, scores: Floats, k: int) -> Indices:
    """The k unlabeled rows with the highest scores, highest first; ties by the lottery. scores (m,), aligned with view.unlabeled."""
    return view.unlabeled[np.lexsort((view.lottery[view.unlabeled], -scores))[:k]]


def by_lottery(view: View) -> Indices:
    """All unlabeled rows in the order of the lottery: an order that does not depend on the order of the pool. -> (m,)."""
    return view.unlabeled[np.argsort(view.lottery[view.unlabeled], kind="stable")]


@dataclass(frozen=True, slots=True)
class Line:
    """The whole pool in the order of the lottery: `rows` (n,), and the places in it of the unlabeled and the labeled ones, ascending.

    Whoever computes on `rows` breaks ties by taking the first, and rounds alike in any order of the pool.
    """

    rows: Indices
    unlabeled: Indices
    labeled: Indices


def reached(view: View, objective: float, bound: float) -> None:
    """Note how good a choice is: what it reached, and what no choice of as many exceeds (or, of a distance, undercuts). It is kept
    beside the choice and decides nothing."""
    view.memory["reached"] = (float(objective), float(bound))


def line_up(view: View) -> Line:
    """The pool in the order of the lottery."""
    rows = np.argsort(view.lottery, kind="stable")
    place = np.empty_like(rows)
    place[rows] = np.arange(len(rows))
    return Line(rows, np.sort(place[view.unlabeled]), np.sort(place[view.labeled]))
