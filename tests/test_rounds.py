"""Facility location round after round against a fresh start."""

import numpy as np
import pytest

from outlay.coverage import facility, scale
from outlay.coverage import rounds as module
from outlay.coverage.rounds import LEAST, start
from outlay.coverage.similarity import unit
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
    rounds = start(points, kernel=kernel, width=0.3)
    for k in (40, 30, 80):
        kept = rounds.next(k, candidates=left, chosen=bought)
        fresh = facility.cover(points, k, candidates=left, chosen=bought, kernel=kernel, width=0.3, mode="two_stage")
        assert np.array_equal(kept.picks, fresh.picks)
        np.testing.assert_allclose([kept.objective, kept.bound], [fresh.objective, fresh.bound], rtol=1e-6)
        bought, left = np.concatenate([bought, kept.picks]), left[~np.isin(left, kept.picks)]


def test_a_round_smaller_than_the_head_leaves_the_rest_of_the_head_to_the_next(monkeypatch):
    monkeypatch.setattr(scale, "HEAD_AT_LEAST", 20)
    points, order = clustered(), np.arange(1500)
    rounds = start(points)
    first = rounds.next(7, candidates=order, chosen=NOBODY)
    second = rounds.next(30, candidates=order[~np.isin(order, first.picks)], chosen=first.picks)
    one = facility.cover(points, 37, candidates=order, chosen=NOBODY, mode="two_stage")
    assert np.array_equal(np.concatenate([first.picks, second.picks]), one.picks)


def test_unchanged_embeddings_change_nothing():
    rounds = start(clustered())
    assert rounds.moved(clustered(), chosen=np.arange(9)) is rounds and rounds.recall == 1


def test_embeddings_that_are_only_longer_are_no_change_but_for_the_order_of_sums():
    points, left, bought = clustered(), np.arange(9, 1500), np.arange(9)
    rounds = start(points, labeled=bought)
    moved = rounds.moved(3 * points, chosen=bought)
    a, b = (r.next(50, candidates=left, chosen=bought) for r in (rounds, moved))
    assert moved.recall == pytest.approx(1, abs=1e-4) and moved.recall <= 1 and a.objective == pytest.approx(b.objective, rel=1e-5)


@pytest.mark.parametrize("amount", [0.05, 0.2])
@pytest.mark.parametrize("kernel", ["cosine", "rbf"])
def test_old_pairs_scored_again_or_made_anew_buy_as_much_as_a_fresh_start(amount, kernel):
    points, changed, everyone = clustered(), drifted(clustered(), amount), np.arange(1500)
    rounds = start(points, kernel=kernel, width=0.3)
    bought = rounds.next(50, candidates=everyone, chosen=NOBODY).picks
    moved = rounds.moved(changed, chosen=bought)
    assert 0 < moved.recall <= 1 and moved.remade == (moved.recall < LEAST)
    options = {"candidates": np.setdiff1d(everyone, bought), "chosen": bought}
    found = moved.next(150, **options), facility.cover(changed, 150, **options, kernel=kernel, width=0.3, mode="two_stage")
    gains = [facility.gains_in_order(changed, f.picks, chosen=bought, kernel=kernel, width=0.3).sum() for f in found]
    assert gains[0] >= 0.998 * gains[1]


def test_recall_is_that_of_all_pairs_that_can_still_add_something(monkeypatch):
    monkeypatch.setattr(module, "PAIRS", 0)  # lists hold what can matter now, and nothing else
    points, changed, bought = clustered(200), drifted(clustered(200), 0.4), np.arange(0, 200, 20)
    rounds = start(points, labeled=bought)  # 200 rows: all are looked at
    before, after = (np.rint(unit(x) @ unit(x).T * 2**20) for x in (points, changed))
    floor = np.maximum(after[:, rounds._floor].max(axis=1), 0)
    held = before > np.maximum(before[:, rounds._floor].max(axis=1), 0)[:, None]
    adds = np.maximum(after - floor[:, None], 0)
    assert rounds.moved(changed, chosen=bought).recall == pytest.approx((adds * held).sum() / adds.sum(), rel=1e-4)


def test_other_prompts_under_the_same_numbers_are_noticed_and_pairs_made_anew():
    points = clustered()
    mixed = points[np.random.default_rng(3).permutation(1500)]
    moved = start(points).moved(mixed, chosen=NOBODY)
    assert moved.recall < 0.5 and moved.remade
    kept = moved.next(60, candidates=np.arange(1500), chosen=NOBODY)
    fresh = facility.cover(mixed, 60, candidates=np.arange(1500), chosen=NOBODY, mode="two_stage")
    assert np.array_equal(kept.picks, fresh.picks)


@pytest.mark.parametrize("why", ["others were bought", "fewer others than the head", "the head out of its order", "a pick was skipped"])
def test_a_head_that_is_not_bought_is_not_taken_as_given(why):
    points, order = clustered(), np.arange(1500)
    rounds = start(points)
    first = rounds.next(40, candidates=order, chosen=NOBODY).picks
    bought = {"others were bought": order[3::30], "fewer others than the head": order[3:11], "the head out of its order": first[4:8], "a pick was skipped": first[1:]}[why]
    left = np.setdiff1d(order, np.append(bought, first[0]))
    for k in (5, 30):
        kept = rounds.next(k, candidates=left, chosen=bought)
        fresh = facility.cover(points, k, candidates=left, chosen=bought, mode="two_stage")
        assert np.array_equal(kept.picks, fresh.picks) and np.array_equal(kept.gains, fresh.gains) and kept.objective == fresh.objective


def test_embeddings_that_change_in_place_are_noticed():
    points, everyone = clustered(), np.arange(1500)
    rounds = start(points)
    points[:] = points[::-1].copy()
    moved = rounds.moved(points, chosen=NOBODY)
    assert moved is not rounds
    assert np.array_equal(moved.next(60, candidates=everyone, chosen=NOBODY).picks, start(points).next(60, candidates=everyone, chosen=NOBODY).picks)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"chosen": [3, 200]}, "chosen rows: row 200 does not exist"),
        ({"chosen": [-1]}, "chosen rows: row -1 does not exist"),
        ({"candidates": [10**6, 1, 2]}, "candidates: row 1000000 does not exist"),
        ({"chosen": np.ones(3, dtype=bool)}, r"mask of chosen rows has shape \(3,\)"),
        ({"chosen": [0.5]}, "row numbers or a mask, got float64"),
    ],
)
def test_rows_that_do_not_exist_are_refused(given, says):
    rounds, fine = start(clustered(200)), {"candidates": np.arange(9, 200), "chosen": np.arange(9)}
    for call in (lambda: rounds.next(2, **(fine | given)), lambda: facility.cover(clustered(200), 2, **(fine | given))):
        with pytest.raises(DataError, match=says):
            call()
    mask = np.arange(200) < 9
    assert np.array_equal(rounds.next(9, candidates=~mask, chosen=mask).picks, rounds.next(9, **fine).picks)


def test_a_round_within_the_head_has_its_true_value_and_a_bound_above_the_best(monkeypatch):
    monkeypatch.setattr(scale, "HEAD_AT_LEAST", 20)
    points, order = clustered(), np.arange(1500)
    kept = start(points).next(7, candidates=order, chosen=NOBODY)
    exact = facility.cover(points, 7, candidates=order, chosen=NOBODY, mode="exact")
    value = facility.gains_in_order(points, kept.picks, chosen=NOBODY).sum()
    assert kept.objective == pytest.approx(value) and exact.objective <= kept.bound


def test_a_pool_of_another_size_is_refused():
    rounds = start(clustered(200))
    with pytest.raises(DataError, match="199 rows, the old ones 200"):
        rounds.moved(clustered(199), chosen=NOBODY)
    with pytest.raises(DataError, match="cannot choose 3 rows of 2"):
        rounds.next(3, candidates=np.arange(2), chosen=NOBODY)
