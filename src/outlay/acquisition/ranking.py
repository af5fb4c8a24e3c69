"""Ranking without favouring the head of the file."""

from __future__ import annotations

import numpy as np

from ..types import Floats, Indices, View


def highest(view: View, scores: Floats, k: int) -> Indices:
    """The k unlabeled rows with the highest scores, highest first; ties by the lottery. scores (m,), aligned with view.unlabeled."""
    return view.unlabeled[np.lexsort((view.lottery[view.unlabeled], -scores))[:k]]


def by_lottery(view: View) -> Indices:
    """All unlabeled rows in the order of the lottery: an order that does not depend on the order of the pool. -> (m,)."""
    return view.unlabeled[np.argsort(view.lottery[view.unlabeled], kind="stable")]
