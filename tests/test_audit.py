"""What is said of a pool that is not labelled: it must be right on average, whatever the strategy took out."""

import numpy as np
import pytest

from outlay.errors import DataError
from outlay.measure import audit, forecast
from outlay.seeds import generator


def campaign(rng, n=400, rounds=3, chosen=60, size=8):
    """A strategy that takes the prompts on which the models are wrong; models improve. -> truths and estimates of the last round's model."""
    hard, bought = rng.random(n), np.zeros(n, dtype=bool)
    before = []
    for number in range(rounds):
        right = rng.random(n) > hard * (1 - 0.1 * number)
        left = np.flatnonzero(~bought)
        sample = rng.choice(left, size, replace=False)
        picks = [row for row in left[np.argsort(-hard[left])] if row not in set(sample)][:chosen]
        found = audit.audit(right[sample], np.array(before), len(left))
        truth, seen = right[left].mean(), right[[*picks, *sample]].mean()
        whole = (np.sum(before) + right[left].sum()) / n
        before += list(right[[*picks, *sample]])
        bought[[*picks, *sample]] = True
    return truth, whole, found, seen


def test_the_random_slice_is_unbiased_where_what_was_bought_is_not():
    rng = generator(0, "test", "audit")
    runs = [campaign(rng) for _ in range(150)]
    error = np.array([found.left.mean - truth for truth, _, found, _ in runs])
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(len(error))
    assert np.mean([seen - truth for truth, _, _, seen in runs]) < -0.1  # the mean over everything bought, as a peer would print it
    whole = np.array([found.whole.mean - whole for _, whole, found, _ in runs])
    assert abs(whole.mean()) < 3 * whole.std() / np.sqrt(len(whole))
    # Without the weights the rest would be taken for the pool.
    assert np.mean([found.left.mean - whole for _, whole, found, _ in runs]) > 0.05


def test_the_interval_of_a_small_slice_covers():
    rng = generator(1, "test", "audit")
    inside = [found.left.low <= truth <= found.left.high for truth, _, found, _ in (campaign(rng, rounds=1) for _ in range(400))]
    assert 0.9 <= np.mean(inside) <= 0.99


def test_a_slice_that_is_all_there_is_has_no_error():
    found = audit.audit([1, 0, 1, 1], [], 4)
    assert (found.left.low, found.left.mean, found.left.high) == (0.75, 0.75, 0.75)


def test_a_slice_larger_than_what_is_left_is_refused():
    with pytest.raises(DataError, match="slice of 3 cannot be drawn from 2"):
        audit.audit([1, 1, 0], [], 2)


def test_all_rounds_together_are_surer_than_the_last_one():
    rounds = [audit.audit([1, 0, 1, 0, 1, 1], np.ones(20 * number), 500 - 20 * number) for number in range(4)]
    together = audit.running(rounds)
    assert together.high - together.low < rounds[-1].whole.high - rounds[-1].whole.low
    assert together.n == 24


# -- forecast --------------------------------------------------------------------------------------------------------------


def curve(labels, rng, items=200):
    """Dev results of models of which each doubling knows 10 % more of the items."""
    level = rng.random(items)
    return np.array([level < 0.2 + 0.1 * np.log2(n / 25) for n in labels])


def test_two_rounds_are_too_few_for_a_forecast():
    assert forecast.gain([25, 50], np.ones((2, 10)), 50, rng=generator(0, "test")) is None


def test_a_forecast_of_a_steady_curve_says_what_a_doubling_brings_and_covers_it():
    rng = generator(0, "test", "forecast")
    found = [forecast.gain([25, 50, 100, 200], curve([25, 50, 100, 200], rng), 200, rng=rng) for _ in range(60)]
    assert np.mean([f.mean for f in found]) == pytest.approx(0.1, abs=0.01)
    assert np.mean([f.low <= 0.1 <= f.high for f in found]) >= 0.93


def test_three_rounds_of_noisy_trainings_still_cover_what_a_doubling_brings():
    """One degree of freedom: an interval from the items alone would miss half of the time."""
    rng = generator(2, "test", "forecast")
    inside = []
    for _ in range(200):
        level = rng.random(60)
        table = np.array([level < 0.3 + 0.1 * np.log2(n / 30) + rng.normal(0, 0.05) for n in (30, 60, 120)])
        found = forecast.gain([30, 60, 120], table, 120, rng=rng, count=50)
        inside.append(found.low <= 0.1 <= found.high)
    assert np.mean(inside) >= 0.93


def test_annotations_that_do_not_rise_are_refused():
    with pytest.raises(DataError, match="rise"):
        forecast.gain([10, 10, 20], np.ones((3, 5)), 50, rng=generator(0, "t"))
