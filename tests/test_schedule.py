"""Schedules spend exactly the budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.errors import ConfigError
from outlay.schedule import SCHEDULES, batches


@st.composite
def plans(draw):
    budget = draw(st.integers(1, 3000))
    return draw(st.sampled_from(sorted(SCHEDULES))), budget, draw(st.integers(1, min(budget, 1500)))


@given(plans())
def test_named_schedules_spend_the_whole_budget_in_rounds_of_at_least_one(plan):
    name, budget, rounds = plan
    sizes = batches(name, budget, rounds)
    assert len(sizes) == rounds
    assert sum(sizes) == budget
    assert min(sizes) >= 1
    assert all(type(size) is int for size in sizes)


@given(st.integers(1, 500), st.integers(1, 100))
def test_even_batches_differ_by_one_at_most_and_the_larger_ones_come_first(budget, rounds):
    if rounds <= budget:
        sizes = batches("even", budget, rounds)
        assert max(sizes) - min(sizes) <= 1
        assert list(sizes) == sorted(sizes, reverse=True)


def test_geometric_batches_about_double():
    sizes = np.array(batches("geometric", 310, 5))
    assert np.all(np.abs(sizes[1:] / sizes[:-1] - 2) < 0.25)


def test_geometric_does_not_overflow_in_two_thousand_rounds():
    sizes = batches("geometric", 5000, 2000)
    assert sum(sizes) == 5000
    assert sizes[0] == 1
    assert sizes[-1] > 1000


def test_front_loaded_spends_half_at_first():
    assert batches("front_loaded", 64, 5) == (32, 8, 8, 8, 8)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_one_round_takes_everything(name):
    assert batches(name, 37, 1) == (37,)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_as_many_rounds_as_annotations_buy_one_by_one(name):
    assert batches(name, 6, 6) == (1,) * 6


def test_an_explicit_schedule_is_taken_as_it_is():
    assert batches((1, 5, 2), 8, 3) == (1, 5, 2)


@pytest.mark.parametrize(
    ("schedule", "budget", "rounds", "says"),
    [
        ((4, 4), 8, 3, "3 positive batch sizes that sum to 8"),
        ((4, 5), 8, 2, "2 positive batch sizes that sum to 8"),
        ((9, -1), 8, 2, "2 positive batch sizes that sum to 8"),
        ((8, 0), 8, 2, "2 positive batch sizes that sum to 8"),
        ("even", 3, 4, "use at most 3 rounds"),
        ("even", 0, 1, "must be at least 1"),
        ("even", 3, 0, "must be at least 1"),
        ("geometrc", 3, 1, "did you mean 'geometric'"),
    ],
)
def test_an_impossible_schedule_is_refused(schedule, budget, rounds, says):
    with pytest.raises(ConfigError, match=says):
        batches(schedule, budget, rounds)
