"""The contract of an acquisition strategy, for other people's repositories:

    from outlay.testing import check_strategy

    def test_my_strategy():
        check_strategy("my_strategy")
"""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import registry, seeds
from .acquisition import scores_of
from .types import PROMPT_SIGNALS, Indices, Signals, Strategy, View

N, LABELED, DIMENSIONS, GROUPS = 48, 9, 6, 5  # the pool of the check
SIZES = (1, 7, N - LABELED)


@dataclass(frozen=True, slots=True)
class _Case:
    """The strategy, and what it declares."""

    name: str
    choose: Strategy
    needs: frozenset[str]
    of_labeled: frozenset[str]
    nested: bool
    reads_groups: bool
    divisible: registry.Card | None = None  # where it declares that


def check_strategy(
    strategy: str | Mapping[str, Any] | Strategy,
    *,
    needs: Iterable[str] | None = None,
    of_labeled: Iterable[str] = (),
    nested: bool = False,
    reads_groups: bool = False,
) -> None:
    """AssertionError if the strategy breaks the contract. `strategy`: a spec such as "mmr(trade_off=0.3)", or a function.

    A function that is not registered needs `needs` (and says `of_labeled`, `nested`, `reads_groups`); its paper is then not asked for.
    Signals are made up: "embedding" is a table of (n, d) unit rows, "gradient" one of any rows, "words" one of (n, t) numbers of words,
    every other one a column of (n,) numbers. What is not declared of labeled prompts is NaN there, as in a study.
    """
    case = _case(strategy, needs, of_labeled, nested, reads_groups)
    _is_documented(case)
    _reads_declared_signals_only(case)
    _leaves_its_input_alone(case)
    _repeats_itself(case)
    _chooses_the_same_without_memory(case)
    _reads_groups_only_if_declared(case)
    _returns_k_distinct_unlabeled_rows(case)
    _works_with_nothing_labeled(case)
    _leaves_global_generators_alone(case)
    _ignores_the_order_of_the_pool(case)
    _does_not_choose_equal_prompts_by_position(case)
    _is_nested_if_declared(case)
    _is_divisible_if_declared(case)


def _case(strategy: str | Mapping[str, Any] | Strategy, needs: Iterable[str] | None, of_labeled: Iterable[str], nested: bool, reads_groups: bool) -> _Case:
    if not callable(strategy):
        card = registry.card("strategy", registry.parse(strategy)[0])
        assert card.source, f"{card.name}: name the paper in @strategy(source=...)"
        return _Case(card.name, registry.build("strategy", strategy), card.needs, card.of_labeled, card.nested, card.reads_groups, card if card.divisible else None)
    if needs is None:
        cards = [card for card in registry.cards("strategy") if card.part is strategy]
        assert cards, f"{strategy} is not registered: say which signals it reads, check_strategy(..., needs=[...])"
        return _case(cards[0].name, None, of_labeled, nested, reads_groups)
    reads = frozenset(needs)
    return _Case(getattr(strategy, "__name__", repr(strategy)), strategy, reads, (PROMPT_SIGNALS & reads) | frozenset(of_labeled), nested, reads_groups)


# -- the pool of the check -------------------------------------------------------------------------------------------------


class _Declared(dict):
    """Columns that object when asked for one that is not there."""

    def __missing__(self, name: str) -> np.ndarray:
        raise AssertionError(f"it reads the signal '{name}' without declaring it: add it to needs")


def _view(case: _Case, *, labeled: int = LABELED, alike: bool = False, seed: int = 0) -> View:
    """A pool with duplicates among its rows; `alike` makes every row the same. The lottery is that of campaign `seed`."""
    rng = seeds.generator(0, "testing")
    columns = {}
    for name in sorted(case.needs):
        values = _made_up(name, rng)
        values[N // 2 :: 3] = values[N // 2]
        columns[name] = np.repeat(values[:1], N, axis=0) if alike else values
    groups = np.array([f"group {g}" for g in rng.integers(1 if alike else GROUPS, size=N)])
    order = rng.permutation(N)
    for name in case.needs - case.of_labeled:
        columns[name][order[:labeled]] = np.nan
    lottery = seeds.lottery(seed, [f"prompt {row}" for row in range(N)])
    return View(Signals(_Declared(columns)), np.sort(order[labeled:]), np.sort(order[:labeled]), groups, lottery)


def _made_up(name: str, rng: np.random.Generator) -> np.ndarray:
    """A signal of N prompts."""
    if name == "words":
        return np.sort(rng.integers(-4, 12, size=(N, DIMENSIONS), dtype=np.int32).clip(-1))[:, ::-1].copy()  # -1 after the last word
    if name not in ("embedding", "gradient"):
        return rng.random(N, dtype=np.float32)
    values = rng.standard_normal((N, DIMENSIONS)).astype(np.float32)
    return values if name == "gradient" else values / np.linalg.norm(values, axis=1, keepdims=True)


def _arrays(view: View) -> dict[str, np.ndarray]:
    named = {"unlabeled": view.unlabeled, "labeled": view.labeled, "groups": view.groups, "lottery": view.lottery}
    return named | {f"signal '{name}'": column for name, column in view.signals.columns.items()}


def _freeze(view: View) -> View:
    for array in _arrays(view).values():
        array.flags.writeable = False
    return view


def _permute(view: View, order: Indices) -> View:
    """The same prompts in another order: new row i is old row order[i]."""
    place = np.argsort(order)
    columns = _Declared({name: column[order] for name, column in view.signals.columns.items()})
    return View(Signals(columns), np.sort(place[view.unlabeled]), np.sort(place[view.labeled]), view.groups[order], view.lottery[order])


def _choose(case: _Case, view: View, k: int, seed: int = 0) -> Indices:
    try:
        return np.asarray(case.choose(_freeze(view), k, seeds.generator(seed, "testing", "choose")))
    except ValueError as bad:
        if "read-only" in str(bad):
            raise AssertionError(f"{case.name}: it changes its input ({bad}): copy the array first") from bad
        raise
    except AssertionError as bad:
        raise AssertionError(f"{case.name}: {bad}") from bad


def _check_picks(case: _Case, view: View, k: int, when: str = "") -> None:
    picks = _choose(case, view, k)
    assert picks.shape == (k,) and picks.dtype.kind in "iu", f"{case.name}: it must return {k} row numbers{when}, got {picks.dtype} of shape {picks.shape}"
    strangers = np.setdiff1d(picks, view.unlabeled)
    assert not len(strangers), f"{case.name}: row {strangers[0]} is not unlabeled (k = {k}{when}); return rows of the pool out of view.unlabeled, not places in it"
    assert len(np.unique(picks)) == k, f"{case.name}: it chose the same row twice (k = {k}{when}): {picks.tolist()}"


# -- the clauses -----------------------------------------------------------------------------------------------------------


def _is_documented(case: _Case) -> None:
    part = getattr(case.choose, "func", case.choose)  # behind functools.partial
    assert (inspect.getdoc(part) or "").strip(), f"{case.name}: write a docstring; its first sentence is shown by `outlay list strategies`"


def _leaves_its_input_alone(case: _Case) -> None:
    view, before = _view(case), _view(case)
    case.choose(view, 7, seeds.generator(0, "testing", "choose"))  # not frozen, so that we see what it would change
    for (name, now), then in zip(_arrays(view).items(), _arrays(before).values(), strict=True):
        assert np.array_equal(now, then, equal_nan=now.dtype.kind == "f"), f"{case.name}: it changes its input, {name}: copy the array first"


def _reads_declared_signals_only(case: _Case) -> None:
    _choose(case, _view(case), 7)  # _Declared objects


def _reads_groups_only_if_declared(case: _Case) -> None:
    if case.reads_groups:
        return
    view = _view(case)
    other = replace(view, groups=np.roll(view.groups, 1))
    same = np.array_equal(_choose(case, view, 7), _choose(case, other, 7))
    assert same, f"{case.name}: its choice depends on view.groups: declare reads_groups=True"


def _returns_k_distinct_unlabeled_rows(case: _Case) -> None:
    for k in SIZES:
        _check_picks(case, _view(case), k)


def _works_with_nothing_labeled(case: _Case) -> None:
    try:
        _check_picks(case, _view(case, labeled=0), 7, " with nothing labeled")
    except Exception as bad:
        raise AssertionError(f"{case.name}: it must work with nothing labeled: {bad}") from bad


def _repeats_itself(case: _Case) -> None:
    first, second = (_choose(case, _view(case), 7) for _ in range(2))
    assert np.array_equal(first, second), f"{case.name}: the same seed gives another choice: draw from the generator that it is given, and keep no state"


def _chooses_the_same_without_memory(case: _Case) -> None:
    memory: dict[Any, Any] = {}
    _choose(case, replace(_view(case, labeled=LABELED - 7), memory=memory), 7)
    after, afresh = (_choose(case, replace(_view(case), memory=kept), 7) for kept in (memory, {}))
    assert np.array_equal(after, afresh), f"{case.name}: what it kept in view.memory changes its choice; an interrupted campaign, whose memory is empty, would choose otherwise"


def _leaves_global_generators_alone(case: _Case) -> None:
    before = _global_states()
    _choose(case, _view(case), 7)
    for name, state in _global_states().items():
        assert name not in before or state == before[name], f"{case.name}: it touches the global generator of {name}: draw from the generator that it is given"


def _global_states() -> dict[str, Any]:
    """The whole state of each global generator, not just a draw from it."""
    kind, keys, *rest = np.random.get_state()
    states: dict[str, Any] = {"numpy": (kind, keys.tobytes(), *rest), "random": random.getstate()}
    if torch := sys.modules.get("torch"):
        states["torch"] = torch.get_rng_state().numpy().tobytes()
    return states


def _ignores_the_order_of_the_pool(case: _Case) -> None:
    view = _view(case)
    expected = _choose(case, view, 7)
    for turn in range(3):
        order = seeds.generator(turn, "testing", "order").permutation(N)
        found = order[_choose(case, _permute(view, order), 7)]
        assert np.array_equal(found, expected), (
            f"{case.name}: another order of the pool gives another choice: sort rows by view.lottery before drawing or computing, and break ties by it"
        )


def _does_not_choose_equal_prompts_by_position(case: _Case) -> None:
    sets = {tuple(sorted(_choose(case, _view(case, alike=True, seed=seed), 7, seed).tolist())) for seed in range(6)}
    assert len(sets) > 1, f"{case.name}: among equal prompts it chooses the same rows in every campaign: break ties by view.lottery, argsort takes the head of the file"


def _is_nested_if_declared(case: _Case) -> None:
    if not case.nested:
        return
    longest = _choose(case, _view(case), SIZES[-1])
    for k in SIZES[:-1]:
        assert np.array_equal(_choose(case, _view(case), k), longest[:k]), f"{case.name}: it is declared nested, but its first {k} picks depend on k"


def _is_divisible_if_declared(case: _Case) -> None:
    if case.divisible is None:
        return
    view, costs = _view(case), seeds.generator(1, "testing").uniform(1, 9, N)
    columns = {name: values / costs for name, values in view.signals.columns.items()}
    picks = _choose(case, replace(view, signals=Signals(_Declared(columns))), len(view.unlabeled))
    per_cost = scores_of(case.divisible, view, picks, getattr(case.choose, "keywords", {})) / costs[picks]
    assert (np.diff(per_cost) <= 1e-6).all(), f"{case.name}: it is declared divisible, but with every signal divided by a cost it does not buy the highest scores per cost first"
