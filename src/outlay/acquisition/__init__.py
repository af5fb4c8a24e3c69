"""Acquisition strategies: which k prompts to buy next. One small file per family; each strategy is a pure function.

`select` is the only caller: it checks what goes in and what comes out, so that a strategy only ranks or picks.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import registry
from ..coverage.pairs import BLOCK
from ..coverage.similarity import GRAIN, SLAB, unit
from ..errors import ConfigError, DataError, OutlayError
from ..types import Floats, Indices, Signals, View
from . import baseline, coverage, generation, hybrid, preference, tasks, uncertainty

__all__ = ["Picked", "SignalError", "baseline", "coverage", "generation", "hybrid", "neighbourhood", "preference", "require_divisible", "scores_of", "select", "tasks", "uncertainty"]


class SignalError(DataError):
    """A signal that a strategy needs is not a number. `row` is the pool row, so that the caller can name the prompt."""

    def __init__(self, signal: str, row: int, value: float):
        super().__init__(f"signal '{signal}' is {value} in row {row}: score this prompt again or take it out of the pool")
        self.signal, self.row, self.value = signal, row, value


@dataclass(frozen=True, slots=True)
class Picked:
    """What a strategy chose, most wanted first (both (k,)). `scores` is what it maximised (None where it has no number). Coverage
    strategies say how good the whole choice is: see ranking.reached."""

    rows: Indices
    scores: Floats | None = None
    objective: float | None = None
    bound: float | None = None


def select(spec: str | Mapping[str, Any], view: View, k: int, rng: np.random.Generator) -> Picked:
    """Buy k unlabeled rows with the strategy of this spec, which sees its declared signals only.

    Rows that are neither unlabeled nor labeled, and were not measured by the current model (a share of the pool was scored), are no part of the
    pool for a strategy that compares all rows. Where the view has costs, what is maximised is the score divided by them: return on investment
    (Settles, Craven & Friedland 2008, NIPS workshop on cost-sensitive learning); the scores of the record are divided, too.

    Raises ConfigError for a view with costs and a strategy whose score cannot be divided, and SignalError for NaN or infinity in a declared signal (of unlabeled rows, and of those it reads of labeled rows too, all).
    """
    name, _ = registry.parse(spec)
    part = registry.build("strategy", spec)
    options = getattr(part, "keywords", {})  # as build checked and converted them
    card = registry.card("strategy", name)
    if not 1 <= k <= len(view.unlabeled):
        raise DataError(f"cannot buy {k} prompts: {len(view.unlabeled)} are unlabeled; choose a budget between 1 and the size of the pool")
    kept = _measured(view, card)
    if len(kept) < len(view.lottery):
        try:
            picked = select(spec, view.within(kept), k, rng)
        except SignalError as bad:
            raise SignalError(bad.signal, int(kept[bad.row]), bad.value) from None
        return replace(picked, rows=kept[picked.rows])
    seen = _declared(view, card) if view.costs is None else _divided(_declared(view, card), card)
    rows = _checked(part(seen, k, rng), seen, k, name)
    return Picked(rows, scores_of(card, seen, rows, options), *seen.memory.pop("reached", (None, None)))


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Where k picks lie among what was bought before each of them, and among the pool.

    `nearest`, `similarity`: (k,) the most similar row of those labeled and the earlier picks (-1 and NaN where there is none), and its
    cosine; `represents`: (k,) pool rows, itself included, whose most similar bought row is this pick; `examples`: up to three of
    them, itself left out, most similar first.
    """

    nearest: Indices
    similarity: Floats
    represents: Indices
    examples: tuple[Indices, ...]


def neighbourhood(embedding: Floats, picks: Indices, labeled: Indices) -> Neighbourhood:
    """Evidence for a choice: it is the same for every strategy and costs none of them anything. embedding (n, d); picks (k,).

    Of equally similar rows the one bought earlier counts, so a duplicate of a bought row represents nobody new.
    """
    points, centres = unit(embedding), np.concatenate([labeled, picks]).astype(np.int64)
    best, owner = np.full(len(points), -np.inf, dtype=np.float32), np.zeros(len(points), dtype=np.int64)
    nearest, similarity = np.full(len(picks), -1, dtype=np.int64), np.full(len(picks), np.nan)
    for start in range(0, len(points), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(points)))
        # As in facility location: without rounding, equal rows would not be equally similar.
        alike = np.rint(points[rows] @ points[centres].T / GRAIN) * GRAIN
        owner[rows] = alike.argmax(axis=1)
        best[rows] = alike.max(axis=1)
    for start in range(0, len(picks), BLOCK):
        own = np.arange(start, min(start + BLOCK, len(picks)))
        alike = np.rint(points[picks[own]] @ points[centres].T / GRAIN) * GRAIN
        alike[np.arange(len(centres)) >= len(labeled) + own[:, None]] = -np.inf  # itself, and what is bought after it
        found = alike.argmax(axis=1)
        known = np.isfinite(alike.max(axis=1))
        nearest[own[known]] = centres[found[known]]
        similarity[own[known]] = np.clip(alike.max(axis=1)[known], -1, 1)
    order = np.lexsort((-best, owner))  # by bought row, most similar first; ties by row
    cuts = np.searchsorted(owner[order], np.arange(len(labeled), len(centres) + 1))
    examples = []
    for pick, low, high in zip(picks, cuts[:-1], cuts[1:], strict=True):
        head = order[low : min(high, low + 4)]
        examples.append(head[head != pick][:3])
    return Neighbourhood(nearest, similarity, np.diff(cuts), tuple(examples))


def _measured(view: View, card: registry.Card) -> Indices:
    """The rows that a strategy's choice is about: all, but those that it cannot pick and of which a live signal that it compares is NaN."""
    known = np.ones(len(view.lottery), dtype=bool)
    for name in card.of_labeled & view.signals.live & view.signals.columns.keys():
        column = view.signals.columns[name]
        known &= ~np.isnan(column.reshape(len(column), -1)).any(axis=1)
    known[view.unlabeled] = known[view.labeled] = True
    return np.flatnonzero(known)


def _declared(view: View, card: registry.Card) -> View:
    """The view with nothing but what the card declares, read-only and free of NaN."""
    columns = {}
    for name in sorted(card.needs):
        if name not in view.signals.columns:
            raise ConfigError(f"strategy '{card.name}' needs the signal '{name}'; the scorer gave: {', '.join(sorted(view.signals.columns)) or 'none'}")
        column = view.signals.columns[name].view()
        column.flags.writeable = False
        # Coverage looks at labeled rows too; a ranking does not, and a labeled row may be unmeasured.
        rows = np.arange(len(column)) if name in card.of_labeled else view.unlabeled
        slabs = (column[at : at + SLAB] for at in range(0, len(column), SLAB))
        bad = ~np.concatenate([np.isfinite(slab.reshape(len(slab), -1)).all(axis=1) for slab in slabs])[rows]
        if bad.any():
            row = int(rows[bad][0])
            raise SignalError(name, row, float(next(v for v in np.atleast_1d(column[row]) if not np.isfinite(v))))
        columns[name] = column
    base = {name: column.view() for name, column in view.base.items() if name in card.needs}
    for column in base.values():
        column.flags.writeable = False
    groups = view.groups if card.reads_groups else np.zeros(len(view.groups), dtype="<U1")
    return replace(view, signals=Signals(columns, view.signals.live & card.needs, view.signals.cost), groups=groups, base=base)


def require_divisible(card: registry.Card) -> None:
    """ConfigError if the score of this strategy cannot be divided by what a prompt costs."""
    if not card.divisible:
        able = ", ".join(c.name for c in registry.cards("strategy") if c.divisible)
        raise ConfigError(f"the score of strategy '{card.name}' is no worth of each prompt by itself, so it cannot be divided by a cost (per_cost: true); those that can be: {able}")


def _divided(view: View, card: registry.Card) -> View:
    """The view with each signal divided by the cost of its prompt, so that a score proportional to them is per cost; without the costs."""
    require_divisible(card)
    bad = ~((view.costs[view.unlabeled] > 0) & np.isfinite(view.costs[view.unlabeled]))
    if bad.any():
        row = int(view.unlabeled[bad][0])
        raise DataError(f"the predicted cost of row {row} is {view.costs[row]}; score per cost needs costs above 0")
    columns = {name: values / view.costs.astype(values.dtype) for name, values in view.signals.columns.items()}
    return replace(view, signals=replace(view.signals, columns=columns), costs=None)


def _checked(picks: Any, view: View, k: int, name: str) -> Indices:
    rows = np.asarray(picks)
    if rows.shape != (k,) or rows.dtype.kind not in "iu":
        raise OutlayError(f"strategy '{name}' returned {rows.dtype} of shape {rows.shape} instead of {k} row numbers; run outlay.testing.check_strategy on it")
    wrong = np.setdiff1d(rows, view.unlabeled)
    if len(wrong) or len(np.unique(rows)) < k:
        what = f"row {wrong[0]}, which is not unlabeled" if len(wrong) else "the same row twice"
        raise OutlayError(f"strategy '{name}' chose {what}; it must return rows out of view.unlabeled: run outlay.testing.check_strategy on it")
    return rows.astype(np.int64)


def scores_of(card: registry.Card, view: View, rows: Indices, options: Mapping[str, Any]) -> Floats | None:
    """card.score at the picks: a signal ("-name" where the lowest is wanted) or a function, which gets those of the strategy's options that it has."""
    if card.score is None:
        return None
    if callable(card.score):
        known = inspect.signature(card.score).parameters
        return np.asarray(card.score(view, rows, **{key: value for key, value in options.items() if key in known}), dtype=np.float64)
    values = view.signals.columns[card.score.removeprefix("-")][rows].astype(np.float64)
    return -values if card.score.startswith("-") else values
