"""Every registered strategy keeps the contract, and each clause of the contract can fail."""

import random

import numpy as np
import pytest

from outlay import registry
from outlay.coverage import facility
from outlay.testing import check_strategy

VARIANTS = [
    "facility_location(kernel='rbf')",
    "least_confidence(per_token=True)",
    "idds(weight=1.0)",
    "idds(weight=0.0)",
    "huds(weight=1.0, strata=3)",
    "delfy(labeled_decay=0.0, batch_decay=3.0)",
    "te_delfy(batch_decay=0.0)",
    "hadas(weight=1.0)",
    "hadas(weight=0.0, content=0.0)",
    "uncertainty_filtered_facility_location(factor=1.5)",
]


@pytest.mark.parametrize("spec", [card.name for card in registry.cards("strategy")] + VARIANTS)
def test_registered_strategy_keeps_the_contract(spec):
    check_strategy(spec)


@pytest.mark.slow
def test_facility_location_over_rounds_keeps_the_contract(monkeypatch):
    monkeypatch.setattr(facility, "EXACT_UP_TO", 10)
    check_strategy("facility_location")
    check_strategy("facility_location(kernel='rbf')")


def honest(view, k, rng):
    """Lowest lottery numbers first."""
    return view.unlabeled[np.argsort(view.lottery[view.unlabeled])[:k]]


def undocumented(view, k, rng):
    return honest(view, k, rng)


def changes_a_signal(view, k, rng):
    """Sorts a signal in place."""
    view.signals.columns["s"].sort()
    return honest(view, k, rng)


def changes_and_restores_flags(view, k, rng):
    """Writes into the lottery although it is read-only."""
    view.lottery.flags.writeable = True
    view.lottery[:] = 0.5
    return honest(view, k, rng)


def reads_more(view, k, rng):
    """Reads a signal that it did not declare."""
    return view.unlabeled[np.argsort(view.score("other"))[:k]]


def reads_groups(view, k, rng):
    """Orders by group name."""
    return view.unlabeled[np.lexsort((view.lottery[view.unlabeled], view.groups[view.unlabeled]))[:k]]


def places_not_rows(view, k, rng):
    """Returns places among the unlabeled rows."""
    return np.argsort(view.lottery[view.unlabeled])[:k]


def too_few(view, k, rng):
    """Never returns more than 20."""
    return honest(view, min(k, 20), rng)


def twice(view, k, rng):
    """Chooses its first row twice."""
    picks = honest(view, k, rng)
    picks[-1] = picks[0]
    return picks


def needs_a_labeled_row(view, k, rng):
    """Looks at the first labeled row."""
    return honest(view, k, rng) if view.labeled[0] >= 0 else view.labeled


def system_entropy(view, k, rng):
    """Draws from a generator of its own."""
    return view.unlabeled[np.random.default_rng().permutation(len(view.unlabeled))[:k]]


def remembers(view, k, rng):
    """Goes on behind what it chose before."""
    start = view.memory.setdefault("start", len(view.memory))
    view.memory["start"] = start + k
    return np.roll(honest(view, len(view.unlabeled), rng), -start)[:k]


def touches_numpy(view, k, rng):
    """Draws from numpy's global generator."""
    np.random.random()
    return honest(view, k, rng)


def touches_python(view, k, rng):
    """Draws from Python's global generator."""
    random.random()
    return honest(view, k, rng)


def touches_torch(view, k, rng):
    """Draws from torch's global generator."""
    import torch

    torch.rand(1)
    return honest(view, k, rng)


def draws_over_positions(view, k, rng):
    """Draws places in the file."""
    return view.unlabeled[rng.permutation(len(view.unlabeled))[:k]]


def head_of_the_file(view, k, rng):
    """Ranks by lottery where there is something to rank, else takes the head of the file."""
    scores = view.score("s")
    return view.unlabeled[:k] if np.ptp(scores) == 0 else honest(view, k, rng)


def reversed_order(view, k, rng):
    """Most wanted last."""
    return honest(view, k, rng)[::-1]


BROKEN = [
    (undocumented, "docstring"),
    (changes_a_signal, "changes its input"),
    (changes_and_restores_flags, "changes its input, lottery"),
    (reads_more, "reads the signal 'other'"),
    (reads_groups, "reads_groups=True"),
    (places_not_rows, "is not unlabeled"),
    (too_few, "must return 39 row numbers"),
    (twice, "same row twice"),
    (needs_a_labeled_row, "nothing labeled"),
    (system_entropy, "the same seed gives another choice"),
    (remembers, "view.memory changes its choice"),
    (touches_numpy, "global generator of numpy"),
    (touches_python, "global generator of random"),
    (touches_torch, "global generator of torch"),
    (draws_over_positions, "another order of the pool"),
    (head_of_the_file, "among equal prompts"),
    (reversed_order, "declared nested"),
]


@pytest.mark.parametrize(("strategy", "message"), BROKEN, ids=lambda v: getattr(v, "__name__", ""))
def test_each_clause_can_fail(strategy, message):
    if strategy is touches_torch:
        pytest.importorskip("torch")
    with pytest.raises(AssertionError, match=message) as failure:
        check_strategy(strategy, needs=["s"], nested=True)
    assert strategy.__name__ in str(failure.value)


def test_an_honest_function_passes_unregistered():
    check_strategy(honest, needs=[], nested=True)
    check_strategy(reads_groups, needs=[], nested=True, reads_groups=True)


def test_an_unregistered_function_must_say_what_it_needs():
    with pytest.raises(AssertionError, match=r"needs=\[\.\.\.\]"):
        check_strategy(honest)


def test_a_registered_strategy_without_a_paper_fails(monkeypatch):
    monkeypatch.setitem(registry._REGISTRY.cards, ("strategy", "honest"), registry.Card("strategy", "honest", honest))
    with pytest.raises(AssertionError, match="name the paper"):
        check_strategy("honest")


def test_the_check_itself_leaves_global_generators_alone():
    before = random.getstate(), np.random.get_state()[1].copy()
    check_strategy(honest, needs=["embedding"])
    assert random.getstate() == before[0] and np.array_equal(np.random.get_state()[1], before[1])
