"""Selection at scale against plain greedy by brute force, and `outlay.select` on arrays. The limits are lowered so that small pools take the long way."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outlay
from outlay.coverage import cells, facility, pairs, scale, spread, spread_at_scale
from outlay.coverage.similarity import GRAIN, kernel, unit
from outlay.errors import ConfigError, DataError

NOBODY = np.empty(0, dtype=np.int64)
MODES = ("exact", "two_stage", "cells")


@pytest.fixture
def long_way(monkeypatch):
    """Every pool is large: no table of all pairs, blocks of a few rows, a head that is soon over."""
    monkeypatch.setattr(facility, "EXACT_UP_TO", 0)
    monkeypatch.setattr(pairs, "BLOCK", 5)
    monkeypatch.setattr(scale, "PAIRS", 40)
    monkeypatch.setattr(scale, "HEAD_AT_LEAST", 2)
    monkeypatch.setattr(spread, "SMALL", 0)
    monkeypatch.setattr(spread_at_scale, "FEWEST", 4)


def clustered(n, d=24, seed=0):
    """Clusters of unequal size, near-duplicates, a common direction."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, d)) + 0.6
    points = centres[np.minimum(rng.geometric(0.25, n) - 1, 11)] + 0.5 * rng.standard_normal((n, d))
    again = rng.random(n) < 0.15
    points[again] = points[rng.integers(0, n, again.sum())] + 0.01 * rng.standard_normal((again.sum(), d))
    return points.astype(np.float32)


def plain_greedy(s, candidates, labeled, k, weights=None):
    """Picks and gains by the definition, ties to the first candidate. s: whole levels of similarity."""
    weights = np.ones(len(s), dtype=np.int64) if weights is None else weights
    best, left, picks, gains = np.maximum(s[labeled].max(axis=0, initial=0), 0), list(candidates), [], []
    for _ in range(k):
        gain = [int(np.maximum(s[row] - best, 0) @ weights) for row in left]
        at = int(np.argmax(gain))
        gains.append(gain[at])
        picks.append(left.pop(at))
        best = np.maximum(best, s[picks[-1]])
    remaining = sorted((int(np.maximum(s[row] - best, 0) @ weights) for row in left), reverse=True)
    return picks, gains, int(best @ weights), sum(remaining[:k]), best


def whole(points, name="cosine", width=0.3):
    return facility.make_kernel(points, name, width).levels(slice(None), slice(None)).astype(np.int64)


@st.composite
def problems(draw):
    """Small pools with duplicates, zero vectors, opposite and equal rows; any rows labeled; k up to all that is left."""
    n, d = draw(st.integers(1, 18)), draw(st.integers(1, 4))
    entries = st.sampled_from([0.0, 0.0, 1.0, -1.0, 0.5, 0.3])
    points = np.array(draw(st.lists(st.lists(entries, min_size=d, max_size=d), min_size=n, max_size=n)), dtype=np.float32)
    labeled = np.array(sorted(draw(st.sets(st.integers(0, n - 1), max_size=n - 1))), dtype=np.int64)
    candidates = np.array(draw(st.permutations(sorted(set(range(n)) - set(labeled.tolist())))), dtype=np.int64)
    weights = np.array(draw(st.lists(st.sampled_from([0.0, 1.0, 1.0, 0.25]), min_size=n, max_size=n)))
    return points, candidates, labeled, draw(st.integers(1, len(candidates))), weights


# -- facility location -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["cosine", "rbf"])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_mode_is_plain_greedy_in_small_pools(long_way, monkeypatch, mode, name, weighted):
    monkeypatch.setattr(pairs, "BLOCK", 5)

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(problems())
    def check(problem):
        points, candidates, labeled, k, weights = problem
        s = whole(points, name)
        levels = facility._levels(weights, len(points))[0] if weighted else None
        picks, gains, total, left, best = plain_greedy(s, candidates, labeled, k, levels)
        found = facility.cover(points, k, candidates=candidates, chosen=labeled, kernel=name, width=0.3, mode=mode, weights=weights if weighted else None)
        unit_of_gain = facility._levels(weights if weighted else None, len(points))[1]
        everything = len(points) if levels is None else int(levels.sum())
        assert found.picks.tolist() == picks
        assert (found.gains * unit_of_gain).tolist() == gains
        assert found.objective * unit_of_gain == total
        assert found.bound * unit_of_gain == max(total, min(total + left, everything << 20))
        counted = np.ones(len(points), dtype=bool) if levels is None else levels > 0
        assert np.array_equal((found.similarity / GRAIN)[counted], best[counted])
        assert not found.similarity[~counted].any() and (found.owner[~counted] == -1).all()

    check()


@pytest.mark.parametrize("mode", MODES)
def test_gains_fall_and_fewer_picks_are_the_first_of_more(long_way, mode):
    points = clustered(300)
    more = facility.cover(points, 90, candidates=np.arange(300), chosen=np.arange(3), mode=mode)
    fewer = facility.cover(points, 20, candidates=np.arange(300), chosen=np.arange(3), mode=mode)
    assert np.array_equal(more.picks[:20], fewer.picks)
    if mode == "exact":  # elsewhere the head is chosen on a sample
        assert (np.diff(more.gains) <= 0).all()
    assert more.objective > fewer.objective and more.objective <= more.bound < fewer.bound * 2


@pytest.mark.parametrize("mode", ["exact", "two_stage"])
def test_two_rounds_pick_what_one_would(long_way, mode):
    points, order = clustered(300), np.random.default_rng(5).permutation(300)
    one = facility.cover(points, 60, candidates=order, chosen=NOBODY, mode=mode)
    first = facility.cover(points, 25, candidates=order, chosen=NOBODY, mode=mode)
    left = order[~np.isin(order, first.picks)]
    second = facility.cover(points, 35, candidates=left, chosen=first.picks, mode=mode)
    assert np.array_equal(one.picks, np.concatenate([first.picks, second.picks]))
    assert second.objective == pytest.approx(one.objective, abs=300 * float(GRAIN))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [2000])
def test_two_threads_pick_what_one_does(mode, n, monkeypatch):
    monkeypatch.setattr(facility, "EXACT_UP_TO", 0)
    monkeypatch.setattr(cells, "SMALL", 0)
    points = clustered(n, 48)
    one, two = (facility.cover(points, 200, candidates=np.arange(n), chosen=np.arange(5), mode=mode, threads=t) for t in (1, 2))
    for field in ("picks", "gains", "owner", "similarity"):
        assert np.array_equal(getattr(one, field), getattr(two, field))
    assert one.bound == two.bound


@pytest.mark.parametrize(("mode", "least"), [("two_stage", 0.998), ("cells", 0.996)])
def test_approximate_modes_come_close_to_greedy_in_value(mode, least):
    points = clustered(4000, 64)
    value = {}
    for name in ("exact", mode):
        found = facility.cover(points, 400, candidates=np.arange(4000), chosen=NOBODY, mode=name)
        value[name] = facility.gains_in_order(points, found.picks, chosen=NOBODY).sum()
        assert found.objective <= value[name] * (1 + 1e-6)  # matrix products of other shapes round some similarities to the next level
    assert value[mode] >= least * value["exact"]


def test_the_sparse_way_picks_what_the_table_picks_in_real_dimensions(monkeypatch):
    points, order = clustered(1500, 64), np.random.default_rng(1).permutation(1500)
    table = facility.cover(points, 150, candidates=order[10:], chosen=order[:10])
    monkeypatch.setattr(facility, "EXACT_UP_TO", 0)
    monkeypatch.setattr(scale, "PAIRS", 200_000)
    lists = facility.cover(points, 150, candidates=order[10:], chosen=order[:10], mode="exact")
    assert (table.picks == lists.picks).mean() > 0.98  # a matrix product in other blocks may round a level the other way
    assert lists.objective == pytest.approx(table.objective, rel=1e-6)
    assert lists.bound == pytest.approx(table.bound, rel=1e-6)


def test_head_bounds_are_never_below_a_gain():
    points = unit(clustered(400, 16))
    for weights in (np.ones(400, dtype=np.int64), np.random.default_rng(0).integers(0, 4096, 400)):
        job = scale.Job(kernel(points), np.arange(400), weights, map)
        for picks in (NOBODY, np.arange(7), np.arange(7, 60)):
            job.buy(picks)
            assert (job._ceilings() >= job.gains(np.arange(400))).all()


def test_a_row_of_the_sample_does_not_count_for_itself_as_often_as_for_others(monkeypatch):
    """A hundred lone rows lie in the sample; each would look as good as a cluster."""
    monkeypatch.setattr(facility, "EXACT_UP_TO", 0)
    monkeypatch.setattr(scale, "SAMPLE", (100, 8192))
    monkeypatch.setattr(scale, "HEAD_AT_LEAST", 6)
    rng = np.random.default_rng(0)
    lone = rng.standard_normal((600, 400))
    heaps = np.repeat(rng.standard_normal((6, 400)), 100, axis=0) + 0.05 * rng.standard_normal((600, 400))
    found = facility.cover(np.concatenate([lone, heaps]), 6, candidates=np.arange(1200), chosen=NOBODY, mode="two_stage")
    assert len(set((found.picks - 600) // 100)) == 6 and found.picks.min() >= 600


@pytest.mark.parametrize("mode", ["two_stage", "cells"])
def test_equal_rows_by_the_thousand_cost_no_table(mode):
    found = facility.cover(np.ones((30_000, 3), dtype=np.float32), 5, candidates=np.arange(30_000)[::-1], chosen=NOBODY, mode=mode)
    assert len(set(found.picks.tolist())) == 5 and found.gains.tolist() == [30_000, 0, 0, 0, 0]
    assert found.represents.tolist() == [30_000, 0, 0, 0, 0]


def test_a_similarity_of_ones_own_is_a_function_of_the_inner_product(long_way):
    points = clustered(80, 6)
    for mode in MODES:
        own = outlay.select(points, 9, similarity=lambda inner: np.exp((inner - 1) / 0.2), mode=mode)
        s = np.rint(np.exp((unit(points) @ unit(points).T - 1) / np.float32(0.2)) * 2**20).astype(np.int64)
        assert own.objective * 2**20 == pytest.approx(plain_greedy(s, np.arange(80), NOBODY, 9)[2], rel=1e-5)
    with pytest.raises(ConfigError, match="between -1 and 1"):
        outlay.select(points, 9, similarity=lambda inner: 5 * inner)


def test_cells_cut_up_heaps_and_leave_no_row_out(monkeypatch):
    monkeypatch.setattr(cells, "SMALL", 0)
    points = np.concatenate([np.ones((3000, 4)), np.random.default_rng(0).standard_normal((1000, 4))]).astype(np.float32)
    found = cells.cut(points, np.random.default_rng(0), map)
    assert np.array_equal(np.sort(found.rows), np.arange(4000)) and found.cuts[0] == 0 and found.cuts[-1] == 4000
    assert (np.diff(found.cuts) > 0).all() and np.diff(found.cuts).max() <= cells.LARGEST * 4000 / int(cells.CELLS * np.sqrt(4000)) + 1
    assert {(cell, cell) for cell in range(len(found.cuts) - 1)} <= set(found.near)
    assert found.further and not set(found.near) & set(found.further) and all(a <= b for a, b in found.near + found.further)


def test_blocks_are_worth_it_where_the_sample_has_a_pair_above_the_coverage_of_either(monkeypatch):
    monkeypatch.setattr(pairs, "EVERY", 1)  # the sample is the whole block
    monkeypatch.setattr(pairs, "MOST", 100)
    similar, cuts = kernel(clustered(300)), np.arange(0, 301, 20)
    levels = similar.levels(slice(None), slice(None))
    nearest = np.where(np.eye(300, dtype=bool), 0, levels).max(axis=1) + 2  # better covered than it can be by others, however products round: above it lies nothing for the row itself
    cover = np.where(np.arange(300) < 160, nearest, nearest * 0.9).astype(np.int32)
    visits = [(a, b) for a, b in pairs.all_blocks(cuts) if a < b]
    least = np.minimum(cover[:, None], cover)
    expected = [(a, b) for a, b in visits if (levels > least)[cuts[a] : cuts[a + 1], cuts[b] : cuts[b + 1]].any()]
    assert pairs.worth(similar, cover, cuts, visits, map) == expected and 0 < len(expected) < len(visits)


# -- farthest first and D^2 ------------------------------------------------------------------------------------------------


def test_farthest_first_in_blocks_is_farthest_first(long_way):
    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(problems())
    def check(problem):
        points, candidates, labeled, k, _ = problem
        found = spread.farthest_first(points, k, candidates=candidates, chosen=labeled)
        grain = spread.GRAIN * max(float((points**2).sum(axis=1).max()), 1e-30)
        levels = np.rint(((points[:, None].astype(np.float64) - points[None]) ** 2).sum(axis=2) / grain).astype(np.int64)
        nearest = levels[labeled].min(axis=0, initial=2**40)[candidates]
        for pick, distance in zip(found.picks, found.distances, strict=True):
            at = int(nearest.argmax())
            assert pick == candidates[at]
            assert distance == (np.inf if nearest[at] == 2**40 else pytest.approx(np.sqrt(nearest[at] * grain), abs=1e-2))
            nearest = np.minimum(nearest, levels[candidates[at]][candidates])
            nearest[np.isin(candidates, found.picks[: list(found.picks).index(pick) + 1])] = -1

    check()


def test_farthest_first_of_many_agrees_with_one_pick_at_a_time(monkeypatch):
    points = unit(clustered(1500, 48))
    order = np.random.default_rng(2).permutation(1500)
    slow = spread.farthest_first(points, 300, candidates=order[9:], chosen=order[:9])
    monkeypatch.setattr(spread, "SMALL", 0)
    fast = [spread.farthest_first(points, 300, candidates=order[9:], chosen=order[:9], threads=t) for t in (1, 2)]
    assert (fast[0].picks == slow.picks).mean() > 0.98
    np.testing.assert_allclose(np.sort(fast[0].distances), np.sort(slow.distances), atol=2e-3)
    assert np.array_equal(fast[0].picks, fast[1].picks)


@pytest.mark.slow
def test_lazy_d2_draws_have_the_probabilities_of_the_definition(monkeypatch):
    """Three draws, so that the second and the third are made from distances of before."""
    monkeypatch.setattr(spread, "SMALL", 0)
    points = np.array([[0.0], [1.0], [3.0], [4.0], [4.5]], dtype=np.float32)
    rng, draws, counts = np.random.default_rng(0), 2000, {}
    for _ in range(draws):
        picks = tuple(spread.d2_sample(points, 3, candidates=np.arange(1, 5), chosen=np.array([0]), rng=rng).tolist())
        counts[picks] = counts.get(picks, 0) + 1
    chi, kinds = 0.0, 0
    for a in range(1, 5):
        for b in set(range(1, 5)) - {a}:
            for c in set(range(1, 5)) - {a, b}:
                p, chosen = 1.0, [0]
                for pick in (a, b, c):
                    square = ((points[:, 0, None] - points[chosen, 0]) ** 2).min(axis=1)
                    p *= square[pick] / square.sum()
                    chosen.append(pick)
                chi += (counts.get((a, b, c), 0) - p * draws) ** 2 / (p * draws)
                kinds += 1
    assert kinds == 24 and chi < 49.7  # 23 degrees of freedom, 99.9 percent


def test_lazy_d2_takes_every_different_row_before_a_duplicate_and_the_same_seed_draws_the_same(monkeypatch):
    monkeypatch.setattr(spread, "SMALL", 0)
    points = np.repeat(unit(clustered(6, 5)), 40, axis=0)
    for seed in range(10):
        one, again = (spread.d2_sample(points, 239, candidates=np.arange(1, 240), chosen=np.array([0]), rng=np.random.default_rng(seed), threads=t) for t in (1, 2))
        assert len(set(one[:5] // 40) | {0}) == 6 and len(set(one)) == 239
        assert np.array_equal(one, again)


@pytest.mark.parametrize("small", [0, 4096])
def test_the_nearest_of_the_chosen_rows_by_brute_force(small, monkeypatch):
    monkeypatch.setattr(spread, "SMALL", small)
    points, candidates, labeled = clustered(300, 5), np.arange(299, 19, -1), np.arange(20)
    found = spread.farthest_first(points, 70, candidates=candidates, chosen=labeled)
    centres = np.concatenate([found.picks, labeled])
    gaps = np.linalg.norm(points[candidates][:, None].astype(np.float64) - points[centres][None], axis=2)
    np.testing.assert_allclose(found.away, gaps.min(axis=1), atol=5e-3)
    near = np.where(found.owner < 0, gaps[:, 70:].min(axis=1), gaps[np.arange(280), found.owner])
    np.testing.assert_allclose(near, gaps.min(axis=1), atol=5e-3)
    assert np.array_equal(found.owner[299 - found.picks], np.arange(70))  # a pick is its own, duplicates or not


# -- outlay.select ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["facility_location", "facility_location(kernel='rbf')", "k_center", "k_means_pp", "k_means", "random", "idds"])
def test_any_strategy_works_on_arrays_and_gives_k_unlabeled_rows(spec):
    points = clustered(60, 6)
    for k in (1, 7, 50):
        found = outlay.select(points, k, strategy=spec, labeled=np.arange(10), rng=3)
        assert len(set(found.rows.tolist())) == k and found.rows.min() >= 10
        assert np.array_equal(found.rows, outlay.select(points, k, strategy=spec, labeled=np.arange(60) < 10, rng=3).rows)


def test_evidence_of_facility_location_bounds_the_optimum_from_above():
    import itertools

    for seed in range(8):
        points = clustered(11, 3, seed)
        s = np.maximum(unit(points) @ unit(points).T, 0)
        found = outlay.select(points, 3, labeled=[0])
        best = max(s[[0, *rows]].max(axis=0).sum() for rows in itertools.combinations(range(1, 11), 3))
        assert found.objective == pytest.approx(s[[0, *found.rows]].max(axis=0).sum(), abs=1e-4)
        assert found.objective <= best + 1e-4 and found.bound >= best - 1e-4
        assert found.bound <= found.objective / (1 - 1 / np.e) + s.sum()  # and says something


def test_the_bound_of_cells_is_near_that_of_all_pairs():
    points = clustered(3000, 32)
    exact, rough = (outlay.select(points, 300, mode=mode) for mode in ("exact", "cells"))
    assert rough.bound == pytest.approx(exact.bound, rel=0.005) and rough.objective <= exact.objective * 1.001


@pytest.mark.parametrize("looks", [1, 4])
def test_the_bound_of_cells_counts_the_gains_that_its_lists_miss(monkeypatch, looks):
    monkeypatch.setattr(cells, "LOOKS", ((looks, looks),) * 3)
    points = clustered(3000, 32)
    found = facility.cover(points, 300, candidates=np.arange(3000), chosen=np.empty(0, np.int64), mode="cells")
    s = unit(points) @ unit(points).T
    gains = np.maximum(np.delete(s, found.picks, axis=0) - found.similarity, 0).sum(axis=1)
    assert found.bound - found.objective == pytest.approx(np.sort(gains)[-300:].sum(), rel=0.15)


@pytest.mark.parametrize("looks", [1, 12])
@pytest.mark.parametrize("k", [1, 3, 12, 60])
def test_the_bound_of_cells_holds_for_few_picks_and_says_something(monkeypatch, k, looks):
    monkeypatch.setattr(cells, "LOOKS", ((looks, looks),) * 3)
    points = clustered(3000, 32)
    exact, rough = (outlay.select(points, k, mode=mode) for mode in ("exact", "cells"))
    assert exact.objective <= rough.bound <= min(3000, 1.35 * exact.bound)


@pytest.mark.parametrize("mode", MODES)
def test_no_bound_is_above_a_pool_that_is_represented_perfectly(mode):
    found = outlay.select(clustered(800), 4, mode=mode, weights=np.linspace(0, 1, 800))
    assert found.objective <= found.bound <= np.linspace(0, 1, 800).sum() + 1e-3


def test_evidence_of_k_center_bounds_the_radius_from_below():
    import itertools

    for seed in range(8):
        points = unit(clustered(10, 3, seed))
        gaps = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)
        found = outlay.select(points, 3, strategy="k_center", labeled=[2], rng=seed)
        best = min(gaps[[2, *rows]].min(axis=0).max() for rows in itertools.combinations(set(range(10)) - {2}, 3))
        assert found.bound <= best + 1e-5 and found.objective >= best - 1e-3
        assert found.objective == pytest.approx(gaps[[2, *found.rows]].min(axis=0).max(), abs=1e-3)


@pytest.mark.parametrize("spec", ["facility_location", "k_center"])
def test_each_row_is_represented_by_the_pick_most_similar_to_it(spec):
    points = unit(clustered(200, 8))
    found = outlay.select(points, 12, strategy=spec, labeled=[5, 9], rng=1)
    s = np.rint(points @ points[[5, 9, *found.rows]].T * 2**20)
    mine = found.owner >= 0
    assert found.represents.sum() == mine.sum() < 200
    np.testing.assert_allclose(s[np.flatnonzero(mine), found.owner[mine] + 2], s[mine].max(axis=1), atol=3)
    for pick, rows in zip(range(12), found.examples(), strict=True):
        assert found.rows[pick] not in rows and (found.owner[rows] == pick).all() and (np.diff(found.similarity[rows]) <= 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spec", ["facility_location", "k_center", "k_means_pp"])
def test_a_number_that_is_none_is_refused_and_the_row_named(bad, spec):
    points = clustered(5000, 4)
    points[4321, 2] = bad
    with pytest.raises(DataError, match=f"row 4321.* {bad}"):
        outlay.select(points, 5, strategy=spec)


@pytest.mark.parametrize("length", [1e30, 1e18, 1e-18, 1e-37])
def test_rows_of_any_length_are_chosen_alike(length):
    points = clustered(60, 8)
    mixed = points.copy()
    mixed[7] *= np.float32(length)
    whole = outlay.select(points, 9), outlay.select(mixed, 9), outlay.select(points.astype(np.float64) * length * 1e-5, 9)
    assert all(np.array_equal(found.rows, whole[0].rows) and found.objective == pytest.approx(whole[0].objective, rel=1e-6) for found in whole)
    np.testing.assert_allclose(unit(mixed)[7], unit(points)[7], rtol=1e-6)


def test_numbers_that_float32_does_not_hold_are_refused_and_the_row_named():
    points = clustered(30, 4).astype(np.float64)
    points[12] *= 1e300
    with pytest.raises(DataError, match=r"row 12 has a value that is .*more than float32 holds"):
        outlay.select(points, 3)


@pytest.mark.parametrize("rare", [1e-2, 1e-5, 1e-9])
def test_light_rows_count_beside_a_heavy_one(rare):
    points, weights = clustered(300), np.full(300, rare)
    weights[5] = 1
    found = outlay.select(points, 30, weights=weights)
    alike = np.maximum(unit(points) @ unit(points)[found.rows].T, 0).max(axis=1)
    assert found.objective == pytest.approx(np.maximum(np.rint(weights * 2**20), 1) @ alike / 2**20, rel=1e-4) and (found.owner >= 0).all()
    assert found.bound >= found.objective and found.bound == pytest.approx(found.objective, rel=0.35)


def test_a_row_without_weight_is_represented_by_nobody():
    found = outlay.select(np.array([[1, 0], [0, 1]], dtype=np.float32).repeat(3, 0), 1, weights=np.array([1, 1, 1, 0, 0, 0]))
    assert found.similarity.tolist() == [1, 1, 1, 0, 0, 0] and found.owner.tolist() == [0, 0, 0, -1, -1, -1]


@pytest.mark.parametrize("seed", range(12))
def test_rows_that_differ_in_length_only_represent_each_other_under_rbf(seed):
    row = np.random.default_rng(seed).standard_normal(1 + seed).astype(np.float32)
    found = outlay.select(np.outer(np.linspace(1, 3, 20), row).astype(np.float32), 1, strategy="facility_location(kernel='rbf')")
    assert found.objective == pytest.approx(20) and (found.owner == 0).all()


@pytest.mark.parametrize("away", [1e-3, 1e-4, 1e-5])
def test_rbf_tells_rows_apart_that_lie_close_together(away):
    rng = np.random.default_rng(0)
    points = (rng.standard_normal(20) + away * rng.standard_normal((300, 20))).astype(np.float32)
    found = outlay.select(points, 5, strategy="facility_location(kernel='rbf')")
    rows = points.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    squared = ((rows[:, None] - rows) ** 2).sum(axis=-1)
    assert found.objective == pytest.approx(np.exp(-squared[:, found.rows].min(axis=1) / (0.1 * squared.mean())).sum(), rel=0.05)


@pytest.mark.parametrize("spec", ["facility_location", "k_center", "k_means_pp", "k_means"])
def test_the_answer_does_not_depend_on_threads(spec):
    points = np.random.default_rng(0).standard_normal((4300, 130)).astype(np.float32)
    one, two = (outlay.select(points, 20, strategy=spec, threads=threads) for threads in (1, 2))
    assert np.array_equal(one.rows, two.rows) and (one.objective, one.bound) == (two.objective, two.bound)


def test_half_precision_strides_and_read_only_memory_maps_are_taken_as_they_are(tmp_path):
    points = clustered(400, 8).astype(np.float16)
    np.save(tmp_path / "e.npy", points)
    wide = np.zeros((400, 16), dtype=np.float32)
    wide[:, ::2] = points
    expected = outlay.select(points.astype(np.float32), 40).rows
    for other in (points, np.load(tmp_path / "e.npy", mmap_mode="r"), wide[:, ::2], np.asfortranarray(points), points.astype(np.float64)):
        before = other.copy()
        assert np.array_equal(outlay.select(other, 40).rows, expected)
        assert np.array_equal(before, other)


def test_what_does_not_fit_is_refused_with_the_numbers():
    points = clustered(20, 4)
    for arguments, says in (
        ({"k": 21}, "20 of 20 are not labeled"),
        ({"k": 0}, "between 1 and 20"),
        ({"k": 2.5}, "cannot choose 2.5 rows"),
        ({"k": 1, "labeled": np.arange(20)}, "all 20 rows are labeled"),
        ({"k": 2, "strategy": "task_uniform", "groups": ["a"] * 19}, r"groups have shape \(19,\)"),
        ({"k": 19, "labeled": [1, 1, 2]}, "18 of 20"),
        ({"k": 2, "labeled": [20]}, "row 20 does not exist"),
        ({"k": 2, "labeled": np.ones(3, dtype=bool)}, r"shape \(3,\)"),
        ({"k": 2, "weights": np.full(20, -1.0)}, "weight of row 0 is -1"),
        ({"k": 2, "weights": np.ones(3)}, r"shape \(3,\)"),
    ):
        with pytest.raises(DataError, match=says):
            outlay.select(points, **arguments)
    for arguments, says in (
        ({"strategy": "k_centre"}, "did you mean 'k_center'"),
        ({"mode": "cell"}, "did you mean 'cells'"),
        ({"threads": 0}, "threads must be 1 or more"),
        ({"similarity": lambda inner: 1.0}, "an array of the same shape"),
        ({"strategy": "facility_location(kernel='rbf', width=1e-50)"}, "at least 0.0001"),
        ({"strategy": "random", "mode": "exact"}, "no use"),
        ({"strategy": "mean_entropy"}, "mean_entropy"),
        ({"strategy": "uncertainty_weighted_facility_location"}, "needs the signal 'mean_entropy'"),
    ):
        with pytest.raises(ConfigError, match=says):
            outlay.select(points, 2, **arguments)
    with pytest.raises(DataError, match=r"int64 of shape \(20, 4\)"):
        outlay.select(points.astype(np.int64), 2)


def test_weights_and_the_strategy_that_brings_them_are_one():
    points, entropy = clustered(200, 8), np.random.default_rng(0).random(200)
    a = outlay.select(points, 20, weights=entropy, rng=1)
    b = outlay.select(points, 20, strategy="uncertainty_weighted_facility_location", signals={"mean_entropy": entropy}, rng=1)
    assert np.array_equal(a.rows, b.rows) and not np.array_equal(a.rows, outlay.select(points, 20, rng=1).rows)


def test_importing_outlay_and_choosing_from_a_small_pool_loads_no_compiler():
    code = "import sys, numpy as np, outlay; outlay.select(np.eye(50, dtype=np.float32), 5); print({'numba', 'torch'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert said.stdout.strip() == "set()"


# -- other libraries as oracles --------------------------------------------------------------------------------------------


def test_submodlib_agrees_on_facility_location(monkeypatch):
    submodlib = pytest.importorskip("submodlib", reason="expected: submodlib is a peer of the benchmark, not a dependency")
    monkeypatch.setattr(facility, "EXACT_UP_TO", 0)
    points = unit(clustered(500, 24))
    s = np.maximum(points @ points.T, 0)
    theirs = submodlib.FacilityLocationFunction(n=500, mode="dense", sijs=s, separate_rep=False).maximize(50, optimizer="LazyGreedy", show_progress=False)
    ours = facility.cover(points, 50, candidates=np.arange(500), chosen=NOBODY, mode="exact")
    assert ours.objective == pytest.approx(s[[row for row, _ in theirs]].max(axis=0).sum(), rel=1e-6)
    assert (ours.picks == [row for row, _ in theirs]).mean() > 0.9


def test_skmatter_agrees_on_farthest_first(monkeypatch):
    selection = pytest.importorskip("skmatter.sample_selection", reason="expected: skmatter is a peer of the benchmark, not a dependency")
    monkeypatch.setattr(spread, "SMALL", 0)
    points = unit(clustered(500, 24))
    theirs = selection.FPS(n_to_select=50, initialize=0).fit(points).selected_idx_
    ours = spread.farthest_first(points, 50, candidates=np.arange(500), chosen=NOBODY)
    assert np.array_equal(ours.picks, theirs)
