"""Diversity numbers against their definitions, and what they must not depend on."""

import math
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.errors import DataError
from outlay.measure import diversity
from outlay.measure.embed import hashed, tfidf


def cloud(n=60, d=5, seed=0):
    return diversity.prepare(np.random.default_rng(seed).standard_normal((n, d)))


def test_group_numbers_by_hand():
    groups = np.array(["a", "a", "b", "b", "c", "d"])
    found = diversity.panel(cloud(6), groups, np.array([0, 1, 2, 4]))
    assert found["group_coverage"] == 0.75
    assert found["group_entropy"] == pytest.approx(-(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)))
    assert found["group_entropy_share"] == pytest.approx(found["group_entropy"] / math.log(4))


def test_group_entropy_share_is_one_exactly_when_all_groups_are_bought_alike():
    groups = np.repeat(["a", "b", "c"], 4)
    assert diversity.panel(cloud(12), groups, np.array([0, 4, 8]))["group_entropy_share"] == pytest.approx(1)
    assert diversity.panel(cloud(12), groups, np.array([0, 1, 2]))["group_entropy_share"] == 0


def test_a_pool_without_groups_has_no_group_numbers_but_has_the_others():
    found = diversity.panel(cloud(8), np.array([""] * 8), np.array([1, 2]))
    assert [name for name, value in found.items() if math.isnan(value)] == ["group_coverage", "group_entropy", "group_entropy_share"]


def test_nearest_distance_by_brute_force_and_in_blocks(monkeypatch):
    points, bought = cloud(), np.array([3, 50, 17])
    expected = np.mean([min(1 - points[i] @ points[j] for j in bought) for i in range(len(points))])
    assert diversity.nearest_distance(points, bought) == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(diversity, "BLOCK", 7)
    assert diversity.nearest_distance(points, bought) == pytest.approx(expected, abs=1e-6)
    assert diversity.nearest_distance(points, np.arange(60)) == pytest.approx(0, abs=1e-6)


def test_vendi_counts_different_rows_not_rows():
    axes = np.eye(4, dtype=np.float32)
    assert diversity.vendi(axes, np.array([0, 1, 2, 3])) == pytest.approx(4)
    assert diversity.vendi(axes[[0, 0, 0]], np.array([0, 1, 2])) == pytest.approx(1)
    assert diversity.vendi(axes[[0, 0, 1, 1]], np.arange(4)) == pytest.approx(2)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 25), st.integers(1, 8), st.integers(0, 10**6))
def test_vendi_is_the_definition_whichever_kernel_is_smaller(n, d, seed):
    points = np.random.default_rng(seed).standard_normal((n, d))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    values = np.clip(np.linalg.eigvalsh(points @ points.T / n), 1e-300, None)
    found = diversity.vendi(points, np.arange(n))
    assert found == pytest.approx(np.exp(-(values * np.log(values)).sum()), rel=1e-6)
    assert 1 - 1e-9 <= found <= min(n, d) + 1e-9
    assert diversity.vendi(np.vstack([points, points]), np.arange(2 * n)) == pytest.approx(found, rel=1e-6)  # copies add nothing


def test_prepare_takes_off_the_common_mean_that_hides_differences():
    points = np.array([10.0, 0, 0]) + np.random.default_rng(0).standard_normal((200, 3)) * 0.01
    ready = diversity.prepare(points)
    np.testing.assert_allclose(np.linalg.norm(ready, axis=1), 1, atol=1e-6)
    assert diversity.vendi(ready, np.arange(200)) > 2.5 and ready.dtype == np.float32


def test_rows_equal_to_the_mean_are_alike_and_unlike_all_others():
    ready = diversity.prepare(np.array([[1.0, 0], [-1, 0], [0, 0], [0, 0], [0, 2], [0, -2]]))
    kernel = ready @ ready.T
    assert kernel[2].tolist() == [0, 0, 1, 1, 0, 0] and np.allclose(np.diag(kernel), 1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_equal_rows_are_one_effective_row_not_rounding_noise(value):
    ready = diversity.prepare(np.full((7, 3), value, dtype=np.float32))
    assert diversity.vendi(ready, np.arange(7)) == pytest.approx(1) and diversity.nearest_distance(ready, np.array([0])) == pytest.approx(0)


def test_prepare_refuses_nan():
    with pytest.raises(DataError, match="1 NaN"):
        diversity.prepare(np.array([[1.0, np.nan], [0, 1]]))


def test_jaccard():
    assert diversity.jaccard(["a", "b"], ["b", "c"]) == pytest.approx(1 / 3)
    assert diversity.jaccard({"a"}, ("a", "a")) == 1 and diversity.jaccard(["a"], []) == 0 and math.isnan(diversity.jaccard([], []))


def test_the_panel_does_not_depend_on_the_order_of_what_was_bought():
    points, groups, bought = cloud(), np.array(list("abcde") * 12), np.random.default_rng(1).permutation(60)[:13]
    assert diversity.panel(points, groups, bought) == pytest.approx(diversity.panel(points, groups, np.sort(bought)))


def test_the_band_holds_random_sets_of_its_size_and_not_a_clump():
    points, groups = cloud(200, 6), np.array([f"g{i}" for i in np.random.default_rng(0).integers(0, 10, 200)])
    band = diversity.random_band(points, groups, 12, 400, np.random.default_rng(0))
    rng = np.random.default_rng(5)
    sets = [diversity.panel(points, groups, rng.choice(200, 12, replace=False)) for _ in range(300)]
    for name in ("nearest_distance", "vendi", "group_entropy"):
        mean, low, high = band[name]
        assert low < mean < high
        assert 0.9 < np.mean([low <= found[name] <= high for found in sets]) < 0.99
    clump = np.argsort(-(points @ points[0]))[:12]
    assert diversity.panel(points, groups, clump)["vendi"] < band["vendi"][1]
    assert diversity.panel(points, groups, clump)["nearest_distance"] > band["nearest_distance"][2]


def test_the_band_is_a_function_of_its_generator_and_the_whole_pool_has_no_spread():
    points, groups = cloud(), np.array(["a", "b"] * 30)
    a, b = (diversity.random_band(points, groups, 5, 20, np.random.default_rng(3)) for _ in range(2))
    assert a == b
    mean, low, high = diversity.random_band(points, groups, 60, 5, np.random.default_rng(3))["vendi"]
    assert low == pytest.approx(mean) == high


def test_impossible_sets_are_refused():
    with pytest.raises(DataError, match="diversity of nothing"):
        diversity.panel(cloud(), np.array(["a"] * 60), np.array([], dtype=int))
    with pytest.raises(DataError, match="61 rows from a pool of 60"):
        diversity.random_band(cloud(), np.array(["a"] * 60), 61, 5, np.random.default_rng(0))


TOPICS = ("translate the sentence into french", "count the letters of the word", "sort these numbers from low to high", "write a rhyme about the sea")


@pytest.mark.parametrize("repeats", [1, 8])
def test_tfidf_puts_like_prompts_together_whether_short_or_long(repeats):
    rng = np.random.default_rng(0)
    filler = ["".join(rng.choice(list(string.ascii_lowercase), 6)) for _ in range(200)]
    texts = [f"{TOPICS[i % 4]} " * repeats + " ".join(rng.choice(filler, repeats)) for i in range(80)]
    ready = tfidf(texts, dimensions=16)
    kernel, same = ready @ ready.T, np.arange(80)[:, None] % 4 == np.arange(80) % 4
    assert kernel[same & ~np.eye(80, dtype=bool)].mean() > kernel[~same].mean() + 0.7
    np.testing.assert_allclose(np.linalg.norm(ready, axis=1), 1, atol=1e-5)


def test_tfidf_is_deterministic_and_leaves_the_global_generator_alone():
    texts = [f"{topic} {i}" for i in range(20) for topic in TOPICS]
    before = np.random.get_state()[1].copy()
    a = tfidf(texts)
    np.random.default_rng().random()
    assert np.array_equal(a, tfidf(texts)) and np.array_equal(before, np.random.get_state()[1])


def test_tfidf_of_tiny_and_of_equal_pools():
    assert tfidf(["one prompt"]).shape[0] == 1 and tfidf(["a", "b"]).shape[0] == 2
    assert diversity.vendi(tfidf(["the same"] * 5), np.arange(5)) == pytest.approx(1)
    with pytest.raises(DataError, match="none of the 2 prompts"):
        tfidf(["", " "])


def brute_novelsum(points, bought):
    """The definition, row by row."""
    total = 0.0
    for i in bought:
        others = sorted((j for j in bought if j != i), key=lambda j: 1 - points[i] @ points[j])
        weights = [1 / rank for rank in range(1, len(others) + 1)]
        for weight, j in zip(weights, others, strict=True):
            around = sorted(1 - points[j] @ points[o] for o in range(len(points)) if o != j)[:10]
            total += weight / sum(weights) * (1 / max(np.mean(around), 0.05)) ** 0.5 * (1 - points[i] @ points[j])
    return total / len(bought)


def test_the_new_measures_by_brute_force_and_in_blocks(monkeypatch):
    points, bought = cloud(80, 4), np.random.default_rng(2).permutation(80)[:23]
    kernel = points[bought].astype(float) @ points[bought].astype(float).T
    expected = {
        "coverage_radius": max(min(1 - points[i] @ points[j] for j in bought) for i in range(80)),
        "near_duplicates": np.mean([any(points[i] @ points[j] >= 0.95 for j in bought if j != i) for i in bought]),
        "log_determinant": np.linalg.slogdet(kernel + 0.05 * np.eye(23))[1] / 23,
        "novelsum": brute_novelsum(points.astype(float), bought),
    }
    assert 0 < expected["near_duplicates"] < 1
    for block in (4096, 8):
        monkeypatch.setattr(diversity, "BLOCK", block)
        found = diversity.panel(points, np.array(["a"] * 80), bought)
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_log_determinant_between_copies_and_right_angles():
    axes = np.eye(3, dtype=np.float32)
    assert diversity.log_determinant(axes, np.arange(3)) == pytest.approx(math.log(1.05))
    assert diversity.log_determinant(axes[[0] * 500], np.arange(500)) == pytest.approx(math.log(0.05), abs=0.05)


def test_copies_are_near_duplicates_and_take_diversity_away():
    axes = diversity.prepare(np.vstack([np.eye(12), -np.eye(12)]))
    copied = np.vstack([axes, axes[:6]])
    clean, planted = np.arange(12), np.array([*range(6), *range(24, 30)])
    assert diversity.near_duplicate_share(copied, clean) == 0 and diversity.near_duplicate_share(copied, planted) == 1
    for measure in (diversity.vendi, diversity.log_determinant, diversity.novelsum):
        assert measure(copied, planted) < measure(copied, clean)


def test_one_row_is_no_near_duplicate_of_itself_and_has_no_novelty_and_no_neighbour():
    assert diversity.near_duplicate_share(cloud(), np.array([3])) == 0 and diversity.novelsum(cloud(), np.array([3])) == 0
    one = diversity.panel(diversity.prepare(np.ones((1, 3))), np.array(["a"]), np.array([0]))
    assert [name for name, value in one.items() if not math.isfinite(value)] == ["group_entropy_share", "neighbour_distance"]


def test_neighbour_distance_by_brute_force_in_blocks_and_of_copies(monkeypatch):
    points, bought = cloud(), np.array([3, 50, 17, 8])
    expected = np.mean([min(1 - points[i] @ points[j] for j in bought if j != i) for i in bought])
    monkeypatch.setattr(diversity, "BLOCK", 3)
    assert diversity.neighbour_distance(points, bought) == pytest.approx(expected, abs=1e-6)
    assert diversity.neighbour_distance(np.vstack([points, points]), np.array([3, 63, 8, 68])) == pytest.approx(0, abs=1e-6)


def test_the_panel_is_made_of_the_named_measures():
    assert set(diversity.panel(cloud(), np.array(["a", "b"] * 30), np.arange(9))) == {*diversity.OF_GROUPS, *diversity.MEASURES}


def test_a_response_is_embedded_alike_whatever_else_was_bought():
    texts = ["Paris", "the answer is 42", "no", ""]
    alone, among = hashed(texts[1:2]), hashed([*texts, "something else"])
    np.testing.assert_array_equal(alone[0], among[1])
    np.testing.assert_allclose(np.linalg.norm(among, axis=1), 1, atol=1e-6)


def test_equal_responses_are_copies_and_unlike_ones_are_nearly_at_right_angles():
    points = hashed(["yes", "yes", "a rather long sentence about rivers", "1234567"])
    kernel = points @ points.T
    assert kernel[0, 1] == pytest.approx(1) and np.abs(kernel[np.triu_indices(4, 1)][1:]).max() < 0.2
    assert diversity.near_duplicate_share(points, np.arange(4)) == 0.5


def test_novelsum_of_random_rows_is_above_a_clump():
    points = cloud(400, 6, seed=3)
    rng = np.random.default_rng(0)
    clump = np.argsort(-(points @ points[0]))[:30]
    assert diversity.novelsum(points, clump) < min(diversity.novelsum(points, rng.choice(400, 30, replace=False)) for _ in range(20))


def test_the_same_rows_count_more_in_novelsum_where_the_pool_is_crowded():
    axes = np.eye(4, dtype=np.float32)
    assert diversity.novelsum(np.tile(axes, (30, 1)), np.arange(4)) > diversity.novelsum(axes, np.arange(4)) == pytest.approx(1)


def test_density_is_bounded_where_the_pool_is_copies():
    found = diversity.density(np.tile(np.eye(2, dtype=np.float32), (20, 1)), np.array([0, 1]))
    assert found == pytest.approx([20, 20])


def test_the_band_measures_what_the_panel_measures():
    points, groups = cloud(), np.array(["a", "b"] * 30)
    panel = diversity.panel(points, groups, np.arange(60))
    band = diversity.random_band(points, groups, 60, 3, np.random.default_rng(0))
    assert band.keys() == panel.keys()
    assert {name: mean for name, (mean, _, _) in band.items()} == pytest.approx(panel, rel=1e-4, abs=1e-5)


def test_the_measures_do_not_depend_on_the_order_of_the_pool():
    points, bought, order = cloud(), np.arange(0, 60, 5), np.random.default_rng(4).permutation(60)
    where = np.argsort(order)
    groups = np.array(["a", "b", "c"] * 20)
    assert diversity.panel(points[order], groups[order], where[bought]) == pytest.approx(diversity.panel(points, groups, bought), rel=1e-4)
