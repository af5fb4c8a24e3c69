"""Quotas over the groups (tasks) of the pool. Without groups, every prompt is of one task, and these buy what `random` buys."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..registry import strategy
from ..types import Floats, Indices, View
from .ranking import by_lottery

SOURCE = "Arabelly et al. 2025, arXiv 2507.21482"


@strategy(source=f"{SOURCE} (task diversity)", nested=True, reads_groups=True)
def task_uniform(view: View, k: int, rng: np.random.Generator) -> Indices:
    """As many prompts of every task as of any other, counting what is already bought; within a task at random.

    A task that runs out leaves its places to the others, in equal parts. The paper buys one batch.
    """
    names, task = np.unique(view.groups[by_lottery(view)], return_inverse=True)
    return _share_out(view, k, names, task, np.ones(len(names)))


@strategy(needs=("mean_logprob",), source=f"{SOURCE} (weighted task diversity)", nested=True, reads_groups=True)
def task_inverse_confidence(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Prompts of every task in proportion to 1 / the model's confidence in it, counting what is already bought; within a task at random.

    Confidence in a prompt is the geometric mean probability (0 to 1) of the tokens of the model's own response, and in a task the mean
    over its unlabeled prompts. A task that runs out leaves its places to the others, in proportion. Places are rounded by Webster's
    method, which gives each task its next place in turn, so that a larger batch contains the smaller one.
    """
    rows = by_lottery(view)
    names, task = np.unique(view.groups[rows], return_inverse=True)
    confidence = np.bincount(task, np.exp(view.signals.columns["mean_logprob"][rows].astype(np.float64))) / np.bincount(task)
    return _share_out(view, k, names, task, np.exp(-np.round(np.log(confidence), 9)))  # the rounding of sums decides no tie


def _share_out(view: View, k: int, names: np.ndarray, task: Indices, weights: Floats) -> Indices:
    """Of each task as many as its weight says, of all that is bought by then. task (m,): number in `names` of each row by_lottery."""
    rows, bought = by_lottery(view), Counter(view.groups[view.labeled].tolist())
    before = np.array([bought[name] for name in names.tolist()])
    by_task = np.argsort(task, kind="stable")
    turn = np.empty(len(task))
    turn[by_task] = np.arange(len(task)) - np.searchsorted(task[by_task], np.arange(len(names)))[task[by_task]]  # 0, 1, ... within its task
    when = (before[task] + turn + 0.5) / weights[task]
    # Of two tasks with the same turn the larger has the lower number in the lottery, but not in its low digits.
    digits = np.modf(view.lottery[rows] * 2**24)[0]
    return rows[np.lexsort((digits, when))[:k]]
