"""Facility location round after round against a fresh start."""

import numpy as np
import pytest

from outlay.coverage import facility, scale
from outlay.coverage.rounds import Rounds
from outlay.errors import DataError

NOBODY = np.empty(0, dtype=np.int64)


def clustered(n=1500, d=48, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, d)) + 0.6
    return (centres[np.minimum(rng.geometric(0.25, n) - 1, 11)] + 0.5 * rng.standard_normal((n, d))).astype(np.float32)


def drifted(points, amount, seed=1):
    return points + amount * np.random.default_rng(seed).standard_normal(points.shape).astype(np.float32)


@pytest.mark.parametrize("kernel", ["cosine", "rbf"])
def test_three_rounds_with_one_state_are_three_fresh_starts(kernel):
    points, left, bought = clustered(), np.random.default_rng(0).permutation(1500), NOBODY
    rounds = Rounds(points, kernel=kernel, width=0.3)
    for k in (40, 30, 80):
        kept = rounds.next(k, candidates=left, chosen=bought)
        fresh = facility.cover(points, k, candidates=left, chosen=bought, kernel=kernel, width=0.3, mode="two_stage")
        assert np.array_equal(kept.picks, fresh.picks)
        np.testing.assert_allclose([kept.objective, kept.bound], [fresh.objective, fresh.bound], rtol=1e-6)
        bought, left = np.concatenate([bought, kept.picks]), left[~np.isin(left, kept.picks)]


def test_a_round_smaller_than_the_head_leaves_the_rest_of_the_head_to_the_next(monkeypatch):
    monkeypatch.setattr(scale, "HEAD_AT_LEAST", 20)
    points, order = clustered(), np.arange(1500)
    rounds = Rounds(points)
    first = rounds.next(7, candidates=order, chosen=NOBODY)
    second = rounds.next(30, candidates=order[~np.isin(order, first.picks)], chosen=first.picks)
    one = facility.cover(points, 37, candidates=order, chosen=NOBODY, mode="two_stage")
    assert np.array_equal(np.concatenate([first.picks, second.picks]), one.picks)


def test_unchanged_embeddings_change_nothing():
    points = clustered()
    rounds, other = Rounds(points), Rounds(points)
    assert other.update(points.copy()) == 1
    a, b = (r.next(50, candidates=np.arange(9, 1500), chosen=np.arange(9)) for r in (rounds, other))
    assert (a.picks == b.picks).mean() > 0.95 and a.objective == pytest.approx(b.objective, rel=1e-6)  # inner products are summed in another order


@pytest.mark.parametrize("amount", [0.05, 0.2])
def test_old_pairs_scored_again_buy_as_much_as_new_ones(amount):
    points, bought = clustered(), np.arange(0, 1500, 30)
    left, changed = np.setdiff1d(np.arange(1500), bought), drifted(points, amount)
    rounds = Rounds(points)
    assert 0.8 < rounds.update(changed) == rounds.recall < 1
    gain = [
        facility.gains_in_order(changed, found.picks, chosen=bought).sum()
        for found in (rounds.next(150, candidates=left, chosen=bought), facility.cover(changed, 150, candidates=left, chosen=bought, mode="two_stage"))
    ]
    assert gain[0] >= 0.998 * gain[1]


def test_other_prompts_under_the_same_numbers_are_noticed_and_pairs_made_anew():
    points = clustered()
    mixed = points[np.random.default_rng(3).permutation(1500)]
    rounds = Rounds(points)
    assert rounds.update(mixed) < 0.5
    kept = rounds.next(60, candidates=np.arange(1500), chosen=NOBODY)
    fresh = facility.cover(mixed, 60, candidates=np.arange(1500), chosen=NOBODY, mode="two_stage")
    assert np.array_equal(kept.picks, fresh.picks)


def test_a_pool_of_another_size_is_refused():
    rounds = Rounds(clustered(200))
    with pytest.raises(DataError, match="199 rows, the old ones 200"):
        rounds.update(clustered(199))
    with pytest.raises(DataError, match="cannot choose 3 rows of 2"):
        rounds.next(3, candidates=np.arange(2), chosen=NOBODY)
