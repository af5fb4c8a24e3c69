"""One invariant a strategy, against its definition computed the plain way."""

import itertools
import math
import time
from collections import Counter

import numpy as np
import pytest

from outlay import registry, seeds
from outlay.acquisition import SignalError, select
from outlay.coverage import clusters, facility, spread
from outlay.errors import ConfigError
from outlay.types import Signals, View

NOBODY = np.empty(0, dtype=np.int64)


def make_view(n, labeled=(), groups=None, seed=0, **columns):
    labeled = np.array(sorted(labeled), dtype=np.int64)
    lottery = seeds.lottery(seed, [f"p{i}" for i in range(n)])
    groups = np.array(["g"] * n if groups is None else groups)
    return View(Signals({name: np.asarray(values, dtype=np.int32 if name == "words" else np.float32) for name, values in columns.items()}), np.setdiff1d(np.arange(n), labeled), labeled, groups, lottery)


def buy(spec, view, k, seed=0):
    return select(spec, view, k, np.random.default_rng(seed))


def cloud(n, d=3, seed=0):
    points = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def gaps(points):
    return np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)


# -- every nested one ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [c.name for c in registry.cards("strategy") if c.nested and c.needs <= {"embedding"}])
@pytest.mark.parametrize("labeled", [(), (2, 9, 31)])
def test_two_rounds_buy_what_one_would_where_the_study_runs_only_one(name, labeled):
    """A study runs one round for all where signals are frozen and picks nested."""
    groups = [f"g{i}" for i in np.random.default_rng(2).integers(4, size=50)]
    whole = buy(name, make_view(50, labeled, groups, embedding=cloud(50)), 20).rows
    first = buy(name, make_view(50, labeled, groups, embedding=cloud(50)), 8).rows
    second = buy(name, make_view(50, [*labeled, *first], groups, embedding=cloud(50)), 12, seed=1).rows
    assert np.array_equal(whole, np.concatenate([first, second]))


# -- uncertainty -----------------------------------------------------------------------------------------------------------


def test_summed_and_per_token_confidence_differ_for_a_long_sure_and_a_short_unsure_response():
    view = make_view(3, sum_logprob=[-4.0, -2.0, -0.1], mean_logprob=[-0.1, -1.0, -0.05])  # 40 tokens, 2 tokens, 2 tokens
    whole, token = buy("least_confidence", view, 3), buy("least_confidence(per_token=True)", view, 3)
    assert whole.rows.tolist() == [0, 1, 2] and token.rows.tolist() == [1, 0, 2]
    np.testing.assert_allclose(whole.scores, [4, 2, 0.1], rtol=1e-6)
    np.testing.assert_allclose(token.scores, [1, 0.1, 0.05], rtol=1e-6)


def test_the_most_uncertain_by_each_signal():
    values = np.random.default_rng(0).permutation(30)
    assert values[buy("max_token_entropy", make_view(30, max_entropy=values), 3).rows].tolist() == [29, 28, 27]
    assert values[buy("mean_margin", make_view(30, mean_margin=values), 3).rows].tolist() == [0, 1, 2]


# -- k_center and D^2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labeled", [(), (0, 5, 6, 20)])
def test_k_center_is_farthest_first_by_brute_force(labeled):
    points = cloud(40, 4)
    picked, distance = buy("k_center", make_view(40, labeled, embedding=points), 15), gaps(points)
    chosen = list(labeled)
    for pick, score in zip(picked.rows, picked.scores, strict=True):
        if chosen:
            nearest = distance[:, chosen].min(axis=1)
            assert nearest[pick] == pytest.approx(nearest.max(), abs=1e-5) and score == pytest.approx(nearest[pick], abs=1e-3)
        else:
            assert score == 2
        chosen.append(pick)


@pytest.mark.parametrize("seed", range(20))
def test_k_center_radius_is_at_most_twice_the_smallest_possible(seed):
    points, k = cloud(11, 2 + seed % 3, seed), 1 + seed % 4
    labeled = list(range(seed % 3))
    view, distance = make_view(11, labeled, embedding=points, seed=seed), gaps(points)

    def radius(picks):
        return distance[:, [*labeled, *picks]].min(axis=1).max()

    best = min(radius(picks) for picks in itertools.combinations(view.unlabeled, k))
    assert radius(buy("k_center", view, k).rows) <= 2 * best + 1e-5


def test_duplicates_of_bought_prompts_are_bought_last_and_never_drawn_while_others_are_left():
    points = np.repeat(cloud(6, 5), 4, axis=0)  # 24 rows, 6 different ones
    for name in ("k_center", "k_means_pp"):
        for seed in range(20):
            rows = buy(name, make_view(24, [0], embedding=points, seed=seed), 23, seed).rows
            assert len(set(rows[:5] // 4) | {0}) == 6


def test_d2_draws_have_the_probabilities_of_the_definition():
    points = np.array([[0.0], [1.0], [3.0], [4.0]], dtype=np.float32)
    draws = 6000
    counts = np.zeros((4, 4))
    rng = np.random.default_rng(0)
    for _ in range(draws):
        first, second = spread.d2_sample(points, 2, candidates=np.array([1, 2, 3]), chosen=np.array([0]), rng=rng)
        counts[first, second] += 1
    expected = np.zeros((4, 4))
    for first, p in ((1, 1 / 26), (2, 9 / 26), (3, 16 / 26)):  # squared distances to row 0: 1, 9, 16
        square = np.minimum(points[:, 0] ** 2, (points[:, 0] - points[first, 0]) ** 2)
        expected[first] = p * square / square.sum() * draws
    possible = expected > 0
    assert (counts[~possible] == 0).all()
    # chi-squared with 5 degrees of freedom, 99.9 percent
    assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < 20.5


def test_d2_first_draw_is_uniform_with_nothing_bought():
    rng = np.random.default_rng(0)
    firsts = [spread.d2_sample(cloud(5), 1, candidates=np.arange(5), chosen=NOBODY, rng=rng)[0] for _ in range(3000)]
    expected = 600
    assert ((np.bincount(firsts, minlength=5) - expected) ** 2 / expected).sum() < 18.5  # 4 degrees of freedom, 99.9 percent


def test_spread_does_not_depend_on_the_scale_of_the_points():
    points = cloud(60, 4)
    a, b = (spread.farthest_first(points * scale, 20, candidates=np.arange(60), chosen=NOBODY) for scale in (1, 1e-3))
    assert np.array_equal(a.picks, b.picks)
    np.testing.assert_allclose(b.distances, a.distances * 1e-3, rtol=1e-2)


# -- k_means ---------------------------------------------------------------------------------------------------------------


def test_k_means_takes_the_middle_of_each_cluster_largest_first():
    centres, sizes = np.eye(4, dtype=np.float32), (9, 7, 5, 3)
    rng = np.random.default_rng(0)
    points, middles = [], []
    for centre, size in zip(centres, sizes, strict=True):
        noise = 0.05 * rng.standard_normal((size // 2, 4)).astype(np.float32)
        middles.append(sum(map(len, points)))
        points.append(np.concatenate([centre[None], centre + noise, centre - noise]))  # the first row of each is its centroid, almost
    points = np.concatenate(points)
    rows = buy("k_means", make_view(len(points), embedding=points), 4).rows
    assert rows.tolist() == middles


def test_each_representative_is_nearest_to_the_mean_of_the_rows_nearest_to_it():
    points = cloud(200, 3).astype(np.float64)
    picks = clusters.representatives(points.astype(np.float32), 12, np.random.default_rng(0))
    assert len(set(picks)) == 12
    inertia = (np.linalg.norm(points[:, None] - points[picks][None], axis=2) ** 2).min(axis=1).sum()
    rng = np.random.default_rng(1)
    others = [rng.choice(200, 12, replace=False) for _ in range(50)]
    assert inertia < min((np.linalg.norm(points[:, None] - points[o][None], axis=2) ** 2).min(axis=1).sum() for o in others)


def test_k_means_of_duplicates_buys_every_different_prompt_first():
    points = np.repeat(cloud(3, 5), [5, 4, 3], axis=0)
    rows = buy("k_means", make_view(12, embedding=points), 7).rows
    assert points[rows[:3]].tolist() == points[[0, 5, 9]].tolist() and len(set(rows)) == 7


# -- idds ------------------------------------------------------------------------------------------------------------------


def test_idds_by_hand():
    """Cosines: a.b = 0.8, a.c = 0.6, b.c = 0.96, d = -a: d.b = -0.8, d.c = -0.6. Labeled: d. Weight 0.5."""
    a, b, c, d = [1, 0], [0.8, 0.6], [0.6, 0.8], [-1, 0]
    picked = buy("idds(weight=0.5)", make_view(4, [3], embedding=[a, b, c, d]), 3)
    # 1: a .5 * (.8 + .6) / 2 + .5 * 1 = .85; b .5 * (.8 + .96) / 2 + .5 * .8 = .84; c .5 * (.6 + .96) / 2 + .5 * .6 = .69
    # 2, labeled d and a: b .5 * .96 - .5 * (-.8 + .8) / 2 = .48; c .5 * .96 - .5 * (-.6 + .6) / 2 = .48: a tie, by the lottery
    # 3, labeled d, a and b: c 0 - .5 * (-.6 + .6 + .96) / 3 = -.16, and the same for b if c was first
    assert picked.rows[0] == 0 and sorted(picked.rows[1:]) == [1, 2]
    np.testing.assert_allclose(picked.scores, [0.85, 0.48, -0.16], atol=1e-6)


def test_idds_prefers_the_dense_part_of_the_pool_and_leaves_the_bought_part():
    points = np.concatenate([np.tile([1.0, 0, 0], (8, 1)), np.tile([0, 1.0, 0], (5, 1)), [[0, 0, 1.0]]])
    assert buy("idds", make_view(14, embedding=points), 1).rows[0] < 8
    assert buy("idds(weight=0.3)", make_view(14, [0, 1], embedding=points), 1).rows[0] in range(8, 13)


def test_an_impossible_weight_is_refused():
    with pytest.raises(ConfigError, match=r"'weight' = 1\.5"):
        buy("idds(weight=1.5)", make_view(4, embedding=cloud(4)), 1)


# -- hybrid ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constant", [0.0, 0.37, 5.0])
def test_weights_that_are_all_alike_buy_what_plain_facility_location_buys(constant):
    points = cloud(60, 8)
    view = make_view(60, range(5), embedding=points, mean_entropy=np.full(60, constant))
    plain, weighted_ = buy("facility_location", view, 25), buy("uncertainty_weighted_facility_location", view, 25)
    assert np.array_equal(plain.rows, weighted_.rows)
    np.testing.assert_allclose(plain.scores, weighted_.scores, atol=1e-4)


@pytest.mark.parametrize("labeled", [(), (1, 4, 7)])
def test_weighted_facility_location_is_plain_greedy_by_brute_force(labeled):
    points, entropy = cloud(25, 3), np.random.default_rng(1).random(25).astype(np.float32)
    view = make_view(25, labeled, embedding=points, mean_entropy=entropy)
    picked = buy("uncertainty_weighted_facility_location", view, 8)
    similar = np.maximum(points.astype(np.float64) @ points.T, 0)
    weights = np.where(np.isin(np.arange(25), labeled), 0, entropy) / entropy[view.unlabeled].max()

    def value(chosen):
        return (weights * similar[list(chosen)].max(axis=0)).sum() if len(chosen) else 0.0

    chosen = list(labeled)
    for pick, score in zip(picked.rows, picked.scores, strict=True):
        gains = {row: value([*chosen, row]) - value(chosen) for row in view.unlabeled if row not in chosen}
        assert gains[pick] >= max(gains.values()) - 1e-4  # weights and similarities are rounded to 2^-20
        assert score == pytest.approx(gains[pick], abs=5e-3)
        chosen.append(pick)


def test_a_prompt_that_represents_uncertain_ones_is_bought_before_one_that_represents_more_certain_ones():
    points = np.eye(2, dtype=np.float32)[[0] * 6 + [1] * 3]
    sure = [0.1] * 6 + [0.5] * 3
    assert buy("uncertainty_weighted_facility_location", make_view(9, embedding=points, mean_entropy=sure), 1).rows[0] >= 6
    assert buy("facility_location", make_view(9, embedding=points), 1).rows[0] < 6


def test_weighted_gains_in_order_are_those_of_the_greedy():
    points, weights = cloud(80, 6), np.random.default_rng(0).random(80)
    found = facility.cover(points, 20, candidates=np.arange(10, 80), chosen=np.arange(10), weights=weights)
    assert np.array_equal(found.gains, facility.gains_in_order(points, found.picks, chosen=np.arange(10), weights=weights))
    assert (np.diff(found.gains) <= 0).all()


def test_the_filter_lets_only_uncertain_prompts_through_and_covers_those():
    points, entropy = cloud(60, 5), np.random.default_rng(0).permutation(60).astype(np.float32)
    view = make_view(60, range(50, 56), embedding=points, mean_entropy=entropy)
    picked = buy("uncertainty_filtered_facility_location(factor=3)", view, 6)
    hard = sorted(view.unlabeled, key=lambda row: -entropy[row])[:18]
    assert set(picked.rows) <= set(hard)
    rows = np.array([*hard, *range(50, 56)])
    alone = facility.cover(points[rows], 6, candidates=np.arange(18), chosen=np.arange(18, 24))
    np.testing.assert_allclose(picked.scores, alone.gains, atol=1e-4)  # two rows alone together tie, so not the rows themselves
    assert sorted(buy("uncertainty_filtered_facility_location(factor=1)", view, 6).rows) == sorted(hard[:6])


def test_badge_never_draws_a_prompt_that_the_model_is_sure_of_while_others_are_left():
    """A response of probability 1 has no gradient: such prompts are all alike."""
    gradients = np.concatenate([np.zeros((20, 6)), cloud(10, 6)])
    for seed in range(10):
        rows = buy("badge", make_view(30, gradient=gradients, seed=seed), 11, seed).rows
        assert (rows < 20).sum() == 1  # one of them stands for all


def test_badge_draws_in_proportion_to_the_squared_distance_of_the_gradients_not_of_their_directions():
    gradients, draws = np.eye(3) * [[0.5], [0.5], [0.1]], 4000
    counts = np.zeros((3, 3))
    for seed in range(draws):
        first, second = buy("badge", make_view(3, gradient=gradients), 2, seed).rows
        counts[first, second] += 1
    square = gaps(gradients) ** 2
    expected = draws / 3 * square / square.sum(axis=1, keepdims=True)
    possible = expected > 0
    assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < 20.5  # 5 degrees of freedom, 99.9 percent


def test_huds_by_hand():
    """Two strata of [0, 4] nats; the centroid of each is e0, so only one row in each differs from it."""
    nats = np.array([0.0, 0.5, 1.0, 3.0, 3.5, 4.0])
    points = np.array([[1, 0, 0], [0.6, 0.8, 0], [0.6, -0.8, 0], [1, 0, 0], [0.8, 0, 0.6], [0.8, 0, -0.6]])
    view = make_view(6, embedding=points, mean_logprob=-nats)
    picked = buy("huds(weight=0.5, strata=2)", view, 6)
    unlike = np.array([0, 0.4, 0.4, 0, 0.2, 0.2]) / 0.4
    expected = 0.5 * unlike + 0.5 * nats / 4
    assert picked.rows.tolist() == np.argsort(-expected).tolist()
    np.testing.assert_allclose(picked.scores, np.sort(expected)[::-1], atol=1e-5)
    assert buy("huds(weight=0.0)", view, 6).rows.tolist() == [5, 4, 3, 2, 1, 0]


def test_huds_strata_decide_what_is_unlike():
    """Row 3 is the odd one among the unsure; over the whole pool it is one of many."""
    nats = np.array([0.0, 0.1, 0.1, 4.0, 4.0, 4.0])
    points = np.eye(2, dtype=np.float32)[[0, 0, 0, 0, 1, 1]]
    view = make_view(6, embedding=points, mean_logprob=-nats)
    assert buy("huds(weight=1.0, strata=2)", view, 1).rows[0] == 3
    assert buy("huds(weight=1.0, strata=1)", view, 1).rows[0] in (4, 5)


# -- text generation -------------------------------------------------------------------------------------------------------


def test_bleuvar_buys_where_samples_differ_most():
    spread_ = np.random.default_rng(0).random(20)
    picked = buy("bleuvar", make_view(20, bleu_variance=spread_), 4)
    assert picked.rows.tolist() == np.argsort(-spread_)[:4].tolist()
    np.testing.assert_allclose(picked.scores, np.sort(spread_)[:-5:-1], rtol=1e-6)


def padded(*sentences):
    longest = max(map(len, sentences))
    return np.array([[*words, *[-1] * (longest - len(words))] for words in sentences], dtype=np.int32)


def plain_delfy(sentences, view, decay_labeled, decay_batch):
    """The definition, sentence by sentence and word by word. -> score by row."""
    count = lambda rows: Counter(w for row in rows for w in sentences[row])  # noqa: E731
    for_sale, bought = count(view.unlabeled), count(view.labeled)
    total = sum(math.log(1 + c) for c in for_sale.values())
    worth = {w: math.log(1 + c) / total * math.exp(-decay_labeled * bought[w]) for w, c in for_sale.items()}
    first = {row: sum(worth[w] for w in sentences[row]) / max(len(sentences[row]), 1) for row in view.unlabeled}
    scores = {}
    for row in view.unlabeled:
        better = count([o for o in view.unlabeled if (-round(first[o], 12), view.lottery[o]) < (-round(first[row], 12), view.lottery[row])])
        scores[row] = sum(worth[w] * math.exp(-decay_batch * better[w]) for w in sentences[row]) / max(len(sentences[row]), 1)
    return scores


@pytest.mark.parametrize("labeled", [(), (0, 3, 7, 19)])
@pytest.mark.parametrize("decays", [(1.0, 1.0), (0.1, 0.3), (0.0, 0.0)])
def test_delfy_by_brute_force(labeled, decays):
    rng = np.random.default_rng(1)
    sentences = [rng.geometric(0.15, size=rng.integers(0, 9)).tolist() for _ in range(40)]
    sentences[5] = sentences[6]  # a duplicate: one of the two counts as better, by the lottery
    view = make_view(40, labeled, words=padded(*sentences))
    expected = plain_delfy(sentences, view, *decays)
    picked = buy(f"delfy(labeled_decay={decays[0]}, batch_decay={decays[1]})", view, 12)
    np.testing.assert_allclose(picked.scores, sorted(expected.values(), reverse=True)[:12], atol=1e-11)
    np.testing.assert_allclose(picked.scores, [expected[row] for row in picked.rows], atol=1e-11)


def test_delfy_leaves_words_that_are_bought():
    view = make_view(5, [4], words=padded([1, 1], [1, 2], [3, 2], [3, 3], [1, 1, 1, 1]))
    assert buy("delfy", view, 1).rows[0] in (2, 3)


def test_delfy_of_two_equal_prompts_wants_one_of_them_last():
    rows = buy("delfy(batch_decay=9.0)", make_view(4, words=padded([1, 2, 3], [1, 2, 3], [4], [5])), 4).rows
    assert rows[-1] in (0, 1) and {*rows[:3]} > {2, 3}


def test_delfy_bears_prompts_without_a_word():
    assert len(buy("delfy", make_view(6, words=np.full((6, 0), -1, dtype=np.int32)), 3).rows) == 3
    picked = buy("delfy", make_view(3, words=padded([], [1], [])), 3)
    assert picked.rows[0] == 1 and picked.scores[1:].tolist() == [0, 0]


def test_te_delfy_adds_up_ranks_and_equal_values_share_theirs():
    entropy, words = [3.0, 1.0, 1.0, 2.0], padded([1], [2, 2], [3], [4, 4, 4])
    view = make_view(4, mean_entropy=entropy, words=words)
    delfy_score = plain_delfy([[1], [2, 2], [3], [4, 4, 4]], view, 1.0, 1.0)
    worth = [delfy_score[row] for row in range(4)]
    ranks = [1 + sum(e > x for e in entropy) + (sum(e == x for e in entropy) - 1) / 2 for x in entropy]
    ranks = [r + 1 + sum(w > x + 1e-12 for w in worth) + (sum(abs(w - x) < 1e-12 for w in worth) - 1) / 2 for r, x in zip(ranks, worth, strict=True)]
    picked = buy("te_delfy", view, 4)
    np.testing.assert_allclose(picked.scores, -np.sort(ranks))
    np.testing.assert_allclose(picked.scores, [-ranks[row] for row in picked.rows])


@pytest.mark.parametrize("labeled", [(), (2, 5)])
def test_hadas_by_brute_force(labeled):
    from scipy.spatial.distance import jensenshannon

    scores = np.random.default_rng(3).random((15, 3)).astype(np.float32)
    scores[4] = 0  # no hallucination at all
    columns = dict(zip(("hallucination_semantic", "hallucination_discourse", "hallucination_content"), scores.T, strict=True))
    picked = buy("hadas(weight=0.6, semantic=2.0)", make_view(15, labeled, **columns), 8)
    shares = np.where(scores.any(axis=1, keepdims=True), scores, 1.0)  # scipy divides by the sum
    chosen = list(labeled)
    for pick, value in zip(picked.rows, picked.scores, strict=True):
        found = {}
        for row in set(range(15)) - set(chosen):
            apart = np.mean([jensenshannon(shares[row], shares[other], base=2) ** 2 for other in chosen]) if chosen else 0
            found[row] = 0.4 * float(scores[row] @ [2, 1, 1]) / 4 + 0.6 * apart
        assert found[pick] == pytest.approx(max(found.values()), abs=1e-6) and value == pytest.approx(found[pick], abs=1e-6)
        chosen.append(pick)


def test_hadas_needs_the_scores_of_what_is_bought_and_names_the_row_without():
    columns = {f"hallucination_{part}": np.full(5, 0.5) for part in ("semantic", "discourse", "content")}
    columns["hallucination_content"][3] = np.nan
    with pytest.raises(SignalError, match="'hallucination_content' is nan in row 3"):
        buy("hadas", make_view(5, [3], **columns), 1)


# -- quotas ----------------------------------------------------------------------------------------------------------------

GROUPS = ["a"] * 40 + ["b"] * 20 + ["c"] * 3 + ["d"] * 37


def counts(rows):
    return {name: int((np.array(GROUPS)[rows] == name).sum()) for name in "abcd"}


def test_uniform_quotas_are_equal_and_a_task_that_runs_out_leaves_its_places_to_the_others():
    assert counts(buy("task_uniform", make_view(100, groups=GROUPS), 12).rows) == {"a": 3, "b": 3, "c": 3, "d": 3}
    assert counts(buy("task_uniform", make_view(100, groups=GROUPS), 30).rows) == {"a": 9, "b": 9, "c": 3, "d": 9}
    assert counts(buy("task_uniform", make_view(100, groups=GROUPS), 100).rows) == {"a": 40, "b": 20, "c": 3, "d": 37}


def test_uniform_quotas_count_what_is_already_bought():
    labeled = [0, 1, 2, 3, 4, 40, 41]  # five of a, two of b
    assert counts(buy("task_uniform", make_view(100, labeled, GROUPS), 9).rows) == {"a": 0, "b": 2, "c": 3, "d": 4}


def test_a_place_that_cannot_be_shared_goes_to_a_task_by_lottery():
    """Not to the largest one: c has 3 prompts, a has 40."""
    winners = np.zeros(4)
    for seed in range(400):
        winners += np.array(list(counts(buy("task_uniform", make_view(100, groups=GROUPS, seed=seed), 5).rows).values())) - 1
    assert winners.sum() == 400 and ((winners - 100) ** 2 / 100).sum() < 16.3  # 3 degrees of freedom, 99.9 percent


def test_within_a_task_every_prompt_has_the_same_chance():
    hits = np.zeros(100)
    for seed in range(1500):
        hits[buy("task_uniform", make_view(100, groups=GROUPS, seed=seed), 8).rows] += 1
    expected = 1500 * 2 / 20
    assert ((hits[40:60] - expected) ** 2 / expected).sum() < 43.8  # 19 degrees of freedom, 99.9 percent


def test_quotas_are_in_proportion_to_the_inverse_confidence():
    probability = {"a": 0.8, "b": 0.4, "c": 0.2, "d": 0.8}  # 1 / confidence: 1.25, 2.5, 5, 1.25
    logprob = np.log([probability[name] for name in GROUPS])
    view = make_view(100, groups=GROUPS, mean_logprob=logprob)
    assert counts(buy("task_inverse_confidence", view, 4).rows) == {"a": 0, "b": 1, "c": 2, "d": 1} or counts(
        buy("task_inverse_confidence", view, 4).rows
    ) == {"a": 1, "b": 1, "c": 2, "d": 0}
    assert counts(buy("task_inverse_confidence", view, 23).rows) == {"a": 5, "b": 10, "c": 3, "d": 5}  # c runs out; the rest 1 : 2 : 1
    for k in (1, 7, 50, 100):
        assert len(set(buy("task_inverse_confidence", view, k).rows)) == k


def test_confidence_of_a_task_is_the_mean_probability_not_the_mean_log_probability():
    groups = ["a"] * 10 + ["b"] * 10
    logprob = np.log([0.9, 0.1] * 5 + [0.5] * 10)  # both 0.5 on average; the geometric mean of a is 0.3
    rows = buy("task_inverse_confidence", make_view(20, groups=groups, mean_logprob=logprob), 10).rows
    assert (rows < 10).sum() == 5


def test_equal_confidence_and_no_groups_reduce_to_the_plainer_strategy():
    view = make_view(100, [3, 50], GROUPS, mean_logprob=np.full(100, -1.0))
    assert np.array_equal(buy("task_inverse_confidence", view, 30).rows, buy("task_uniform", view, 30).rows)
    alone = make_view(100, [3, 50], [""] * 100)
    assert np.array_equal(buy("task_uniform", alone, 30).rows, buy("random", alone, 30).rows)


# -- speed -----------------------------------------------------------------------------------------------------------------


def test_ten_thousand_prompts_take_seconds_not_minutes():
    points = cloud(10_000, 192)
    start = time.process_time()
    spread.farthest_first(points, 1000, candidates=np.arange(10_000), chosen=NOBODY)
    spread.d2_sample(points, 1000, candidates=np.arange(10_000), chosen=NOBODY, rng=np.random.default_rng(0))
    assert time.process_time() - start < 8  # 1.4 on one core of 2020
