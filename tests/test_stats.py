"""Intervals cover what they say, and agree with the libraries."""

import math

import numpy as np
import pytest
from scipy import stats as reference
from statsmodels.stats.proportion import proportion_confint

from outlay.errors import DataError
from outlay.measure.stats import accuracy_interval, paired_difference, t_interval, unpaired_difference


def share_within(nominal, hits):
    """Whether a share of hits is the nominal one but for chance (four standard errors)."""
    return abs(np.mean(hits) - nominal) < 4 * math.sqrt(nominal * (1 - nominal) / len(hits))


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_t_interval_covers_the_mean_as_often_as_it_says_even_for_two_seeds(n, level):
    sets = np.random.default_rng(n).normal(0.6, 0.03, (1500, n))
    found = [t_interval(values, level) for values in sets]
    assert share_within(level, [i.low <= 0.6 <= i.high for i in found])


def test_paired_difference_covers_and_is_narrow_where_seeds_share_their_luck():
    rng = np.random.default_rng(0)
    hits, narrower = [], []
    for _ in range(1500):
        luck = rng.normal(0.6, 0.1, 6)
        a, b = luck + 0.02 + rng.normal(0, 0.01, 6), luck + rng.normal(0, 0.01, 6)
        paired = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
        unpaired = reference.ttest_ind(a, b).confidence_interval()
        hits.append(paired.low <= 0.02 <= paired.high)
        narrower.append(paired.high - paired.low < unpaired.high - unpaired.low)
    assert share_within(0.95, hits) and np.mean(narrower) > 0.99


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_accuracy_interval_covers_near_the_edges_too(p):
    found = [accuracy_interval(np.arange(100) < right) for right in range(101)]
    covers = np.array([i.low <= p <= i.high for i in found])
    exact = reference.binom.pmf(np.arange(101), 100, p) @ covers
    assert 0.93 < exact < 0.97  # a count is discrete, so Wilson's coverage is only about 95 percent
    simulated = covers[np.random.default_rng(1).binomial(100, p, 1500)]
    assert share_within(exact, simulated)


@pytest.mark.parametrize("values", [[0.5, 0.6], [0.51, 0.55, 0.47, 0.62, 0.58]])
def test_t_interval_is_that_of_scipy(values):
    low, high = reference.ttest_1samp(values, 0).confidence_interval(0.9)
    found = t_interval(values, 0.9)
    assert (found.low, found.high, found.mean, found.n) == (pytest.approx(low), pytest.approx(high), pytest.approx(np.mean(values)), len(values))


def test_paired_difference_is_that_of_scipy_and_matches_seeds_not_places():
    a, b = {3: 0.7, 1: 0.5, 2: 0.65}, {1: 0.45, 2: 0.66, 3: 0.61, 9: 0.1}
    found = paired_difference(a, b)
    low, high = reference.ttest_rel([0.5, 0.65, 0.7], [0.45, 0.66, 0.61]).confidence_interval(0.95)
    assert (found.low, found.high, found.n) == (pytest.approx(low), pytest.approx(high), 3)


def test_unpaired_difference_is_welchs_and_survives_values_that_do_not_vary():
    a, b = [0.5, 0.62, 0.58, 0.41], [0.2, 0.33, 0.25]
    found, known = unpaired_difference(a, b), reference.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high, found.n) == (pytest.approx(known.low), pytest.approx(known.high), 3)
    assert unpaired_difference([0.5, 0.5], [0.25, 0.25]).low == 0.25 and math.isnan(unpaired_difference([0.5], b).low)


@pytest.mark.parametrize("right", [0, 1, 37, 99, 100])
def test_accuracy_interval_is_wilson_and_stays_between_0_and_1(right):
    found = accuracy_interval(np.arange(100) < right, 0.9)
    low, high = proportion_confint(right, 100, alpha=0.1, method="wilson")
    assert (found.low, found.high, found.mean, found.n) == (pytest.approx(low), pytest.approx(high), right / 100, 100)
    assert 0 <= found.low <= found.mean <= found.high <= 1 and found.high > found.low


def test_one_seed_has_a_mean_but_no_interval():
    found = t_interval([0.4])
    assert (found.mean, found.n) == (0.4, 1) and math.isnan(found.low) and math.isnan(found.high)


def test_equal_values_give_a_point_not_nan():
    found = t_interval([0.25, 0.25, 0.25])
    assert (found.low, found.mean, found.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("values", [[], [[0.1]], [0.1, math.nan], [math.inf]])
def test_bad_values_are_refused_not_repaired(values):
    with pytest.raises(DataError):
        t_interval(values)


def test_wrong_requests_are_refused():
    with pytest.raises(DataError, match="no seed in common"):
        paired_difference({1: 0.5}, {2: 0.5})
    with pytest.raises(DataError, match="correct"):
        accuracy_interval([0.5, 1])
    with pytest.raises(DataError, match="between 0 and 1"):
        t_interval([0.5, 0.6], 95)
