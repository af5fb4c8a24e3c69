"""Facility location against plain greedy by brute force."""

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outlay.coverage import facility
from outlay.coverage.similarity import GRAIN
from outlay.errors import ConfigError


def similarity(points, kernel, width):
    """All pairs, straight from the definition, in float64, in whole grains."""
    points = points.astype(np.float64)
    length = np.linalg.norm(points, axis=1, keepdims=True)
    points = points / np.where(length > 0, length, 1)
    if kernel == "cosine":
        s = points @ points.T
    else:
        squares = ((points[:, None] - points[None]) ** 2).sum(axis=2)
        s = np.exp(-squares / (width * squares.mean())) if squares.mean() > 1e-9 else np.ones_like(squares)
    return s


def value(s, chosen):
    """f of the chosen rows."""
    return np.maximum(s[list(chosen)].max(axis=0, initial=0), 0).sum() if len(chosen) else 0.0


def assert_greedy(s, found, candidates, labeled, tolerance):
    """Every pick has the largest gain of all that are left, by brute force, and the reported gain is that gain."""
    chosen, left = list(labeled), list(candidates)
    for pick, gain in zip(found.picks, found.gains, strict=True):
        gains = {row: value(s, [*chosen, row]) - value(s, chosen) for row in left}
        assert gains[pick] >= max(gains.values()) - tolerance
        assert gain == pytest.approx(gains[pick], abs=tolerance)
        chosen.append(pick)
        left.remove(pick)


@st.composite
def problems(draw):
    """Small pools with duplicates, zero vectors and equal rows; any rows labeled; k up to all that is left."""
    n, d = draw(st.integers(1, 14)), draw(st.integers(1, 4))
    entries = st.sampled_from([0.0, 0.0, 1.0, -1.0, 0.5, 0.3])
    points = np.array(draw(st.lists(st.lists(entries, min_size=d, max_size=d), min_size=n, max_size=n)), dtype=np.float32)
    labeled = np.array(sorted(draw(st.sets(st.integers(0, n - 1), max_size=n - 1))), dtype=np.int64)
    candidates = np.array(draw(st.permutations(sorted(set(range(n)) - set(labeled.tolist())))), dtype=np.int64)
    k = draw(st.integers(1, len(candidates)))
    return points, candidates, labeled, k


EQUAL = (np.ones((5, 2), dtype=np.float32), np.array([3, 0, 4, 1, 2]), np.array([], dtype=np.int64), 5)
ZERO = (np.zeros((4, 2), dtype=np.float32), np.array([2, 0, 1]), np.array([3]), 3)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problems(), st.sampled_from(["cosine", "rbf"]))
@example(EQUAL, "cosine")
@example(EQUAL, "rbf")
@example(ZERO, "cosine")
@example(ZERO, "rbf")
def test_lazy_greedy_is_plain_greedy(problem, kernel):
    points, candidates, labeled, k = problem
    found = facility.cover(points, k, candidates=candidates, chosen=labeled, kernel=kernel, width=0.3)
    assert len(set(found.picks.tolist())) == k and set(found.picks) <= set(candidates)
    assert (np.diff(found.gains) <= 0).all() and (found.gains >= 0).all()
    assert_greedy(similarity(points, kernel, 0.3), found, candidates, labeled, tolerance=len(points) * 4e-6)
    again = facility.gains_in_order(points, found.picks, chosen=labeled, kernel=kernel, width=0.3)
    np.testing.assert_allclose(again, found.gains, atol=len(points) * 4e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems(), st.randoms(use_true_random=False))
def test_permuting_the_pool_permutes_the_answer(problem, rnd):
    points, candidates, labeled, k = problem
    order = np.array(rnd.sample(range(len(points)), len(points)))
    place = np.argsort(order)
    found = facility.cover(points, k, candidates=candidates, chosen=labeled)
    moved = facility.cover(points[order], k, candidates=place[candidates], chosen=place[labeled])
    assert np.array_equal(order[moved.picks], found.picks) and np.array_equal(moved.gains, found.gains)


@pytest.mark.parametrize("kernel", ["cosine", "rbf"])
def test_lazy_and_plain_greedy_agree_to_the_last_bit_in_real_dimensions(kernel):
    rng = np.random.default_rng(3)
    points = rng.standard_normal((120, 16)).astype(np.float32)
    points[60:80] = points[:20]
    candidates, labeled = rng.permutation(np.arange(10, 120)), np.arange(10)
    found = facility.cover(points, 40, candidates=candidates, chosen=labeled, kernel=kernel)
    s = facility.make_kernel(points, kernel, 0.1).levels(slice(None), slice(None)) * float(GRAIN)
    best, left, picks = np.maximum(s[labeled].max(axis=0), 0), list(candidates), []
    for _ in range(40):
        gains = [np.maximum(s[row] - best, 0).sum() for row in left]
        picks.append(left.pop(int(np.argmax(gains))))  # the first of equals
        best = np.maximum(best, s[picks[-1]])
    assert found.picks.tolist() == picks


def test_a_duplicate_of_a_labeled_row_is_bought_last():
    points = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]]
    found = facility.cover(points, 4, candidates=np.array([4, 1, 2, 3]), chosen=np.array([0]))
    assert found.picks[-1] == 4 and found.gains[-1] == 0


def test_ties_go_to_the_first_candidate_not_to_the_first_row():
    points = np.ones((6, 3), dtype=np.float32)
    assert facility.cover(points, 3, candidates=np.array([5, 2, 4, 0, 1, 3]), chosen=np.array([], dtype=int)).picks.tolist() == [5, 2, 4]


def test_length_of_a_row_does_not_matter():
    points = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    scaled = points * 2.0 ** np.random.default_rng(1).integers(-3, 4, (30, 1)).astype(np.float32)
    a, b = (facility.cover(x, 10, candidates=np.arange(30), chosen=np.array([], dtype=int)) for x in (points, scaled))
    assert np.array_equal(a.picks, b.picks)


def test_blocks_do_not_change_the_answer(monkeypatch):
    points = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    labeled, candidates = np.arange(12), np.arange(12, 50)
    whole = facility.cover(points, 15, candidates=candidates, chosen=labeled)
    monkeypatch.setattr(facility, "BLOCK", 7)
    parts = facility.cover(points, 15, candidates=candidates, chosen=labeled)
    assert np.array_equal(whole.picks, parts.picks)


def test_unknown_kernel_names_the_near_match():
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        facility.cover(np.eye(2), 1, candidates=np.arange(2), chosen=np.array([], dtype=int), kernel="cosin")
    with pytest.raises(ConfigError, match=r"at least 0\.0001"):
        facility.cover(np.eye(2), 1, candidates=np.arange(2), chosen=np.array([], dtype=int), kernel="rbf", width=0)


def test_a_thousand_prompts_take_well_under_a_second():
    points = np.random.default_rng(0).standard_normal((1000, 64)).astype(np.float32)
    start = time.process_time()
    facility.cover(points, 128, candidates=np.arange(1000), chosen=np.array([], dtype=int))
    assert time.process_time() - start < 1
