"""Contrasts, mediation and value on data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from outlay.errors import DataError
from outlay.measure import contrasts, mediation, value
from outlay.seeds import generator


def crossed_table(rng, seeds, items, of_seed, of_item):
    return 0.1 + of_seed * rng.normal(size=(seeds, 1)) + of_item * rng.normal(size=(1, items)) + rng.normal(size=(seeds, items))


@pytest.mark.parametrize("of_seed, of_item", [(0.3, 0.0), (0.0, 0.8), (0.1, 0.5)])
def test_crossed_intervals_cover_from_ten_seeds_on(of_seed, of_item):
    rng = np.random.default_rng(0)
    found = [contrasts.crossed(crossed_table(rng, 10, 80, of_seed, of_item)) for _ in range(600)]
    assert 0.92 <= np.mean([f.low <= 0.1 <= f.high for f in found]) <= 0.98  # 0.95, give or take three standard errors


def test_an_interval_over_seeds_alone_misses_the_items_and_the_crossed_one_does_not():
    rng = np.random.default_rng(1)
    alone = crossed = 0
    for _ in range(300):
        table = crossed_table(rng, 10, 80, 0.02, 1.0)
        means, whole = table.mean(axis=1), contrasts.crossed(table)
        half = stats.t.ppf(0.975, 9) * means.std(ddof=1) / math.sqrt(10)
        alone += abs(means.mean() - 0.1) <= half
        crossed += whole.low <= 0.1 <= whole.high
    assert alone < 240 and crossed > 275


def test_without_item_effects_it_is_the_t_interval_over_seeds():
    means = np.random.default_rng(2).normal(size=12)
    found = contrasts.crossed(np.repeat(means[:, None], 50, axis=1))
    half = stats.t.ppf(0.975, 11) * means.std(ddof=1) / math.sqrt(12)
    assert found.low == pytest.approx(means.mean() - half) and found.freedom == pytest.approx(11)


def test_one_seed_has_no_interval_and_a_constant_table_no_width():
    assert math.isnan(contrasts.crossed(np.ones((1, 9))).low)
    assert contrasts.crossed(np.full((3, 9), 0.5)).high == 0.5


def test_nan_and_other_shapes_are_refused():
    with pytest.raises(DataError, match="NaN"):
        contrasts.crossed([[0.0, math.nan]])
    with pytest.raises(DataError, match="shape"):
        contrasts.crossed([0.0, 1.0])


def test_the_bootstrap_moves_arms_that_share_seeds_and_items_together():
    rng = np.random.default_rng(3)
    one = crossed_table(rng, 6, 100, 0.5, 0.5)
    drawn = contrasts.draws(np.stack([one, one + 0.2]), 500, rng)
    np.testing.assert_allclose(drawn[:, 1] - drawn[:, 0], 0.2, atol=1e-12)
    assert drawn[:, 0].std() > 0.05


def test_sign_flips_count_all_signs_exactly():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    p, smallest = contrasts.sign_flips(values)
    assert p == smallest == 2 / 64
    values[0] = -1.0  # as extreme: all the same sign, and this one flipped, both ways
    assert contrasts.sign_flips(values)[0] == 4 / 64


def test_under_six_seeds_there_is_no_p_value():
    p, smallest = contrasts.sign_flips(np.ones(5))
    assert math.isnan(p) and smallest == 0.0625


def test_holm_leaves_unknown_p_values_out_of_the_count():
    np.testing.assert_allclose(contrasts.holm([0.01, math.nan, 0.04]), [0.02, math.nan, 0.04])


def test_slope_weights_are_those_of_least_squares():
    accuracy = np.array([0.5, 0.52, 0.57, 0.58])
    assert contrasts.slope_weights([1, 2, 4, 8]) @ accuracy == pytest.approx(np.polyfit([0, 1, 2, 3], accuracy, 1)[0])
    with pytest.raises(DataError, match="two numbers of rounds"):
        contrasts.slope_weights([4])


def test_seeds_are_counted_where_a_search_for_the_effect_finds_none():
    """statsmodels' own search for the effect, and its power, fail at some of these numbers."""
    assert contrasts.seeds_needed(0.001, 0.02) == pytest.approx(0.02**2 * 2.8016**2 / 0.001**2, rel=0.1)  # the normal approximation, on a coarse grid
    assert contrasts.seeds_needed(10.0, 1.0) == 3
    effects = [contrasts.detectable(1.0, n) for n in (2, 3, 5, 60, 61, 500, 2_000, 10_000)]
    assert effects == sorted(effects, reverse=True) and effects[0] == pytest.approx(11.55, abs=0.01) and effects[-1] == pytest.approx(0.028018, abs=1e-5)


def test_what_is_detectable_is_found_four_times_out_of_five():
    rng = np.random.default_rng(4)
    effect = contrasts.detectable(1.0, 8)
    found = stats.ttest_1samp(rng.normal(effect, 1.0, size=(4000, 8)), 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.02)
    assert contrasts.detectable(1.0, contrasts.seeds_needed(effect, 1.0)) <= effect


def planted(rng, seeds, noise=0.3):
    rounds, strategy = np.tile([1, 2, 4, 8], 3 * seeds), np.tile(np.repeat(np.arange(3), 4), seeds)
    seed = np.repeat(np.arange(seeds), 12)
    unit = strategy + 3 * seed
    shift = rng.normal(size=3 * seeds)
    mediator = shift[unit] + 0.5 * np.log2(rounds) + noise * rng.normal(size=len(rounds))
    outcome = 2 * shift[unit] - 0.1 * np.log2(rounds) + 0.8 * mediator + noise * rng.normal(size=len(rounds))
    return rounds, mediator, outcome, unit, seed


def test_mediation_finds_what_was_planted_whatever_the_units_levels():
    found = mediation.mediation(*planted(np.random.default_rng(5), 200), rng=np.random.default_rng(0))
    for name, true in {"a": 0.5, "b": 0.8, "direct": -0.1, "indirect": 0.4, "total": 0.3}.items():
        assert found[name].value == pytest.approx(true, abs=0.03) and found[name].low < true < found[name].high


@pytest.mark.slow
def test_mediation_agrees_with_statsmodels():
    import pandas as pd
    import statsmodels.api as sm
    from statsmodels.stats.mediation import Mediation

    rounds, mediator, outcome, unit, seed = planted(np.random.default_rng(6), 12)
    ours = mediation.mediation(rounds, mediator, outcome, unit, seed, rng=np.random.default_rng(0))
    table = pd.DataFrame({"x": np.log2(rounds), "m": mediator, "y": outcome})
    table -= table.groupby(unit).transform("mean")  # the units' intercepts, taken out beforehand
    theirs = Mediation(sm.OLS.from_formula("y ~ x + m", table), sm.OLS.from_formula("m ~ x", table), "x", mediator="m")
    np.random.seed(0)  # it draws from numpy's global generator
    summary = theirs.fit(n_rep=100).summary()["Estimate"]
    assert ours["indirect"].value == pytest.approx(summary["ACME (average)"], abs=0.03)
    assert ours["direct"].value == pytest.approx(summary["ADE (average)"], abs=0.03)
    assert ours["total"].value == pytest.approx(summary["Total effect"], abs=0.05)


def test_a_mediator_that_never_varies_is_refused():
    rounds, mediator, outcome, unit, seed = planted(np.random.default_rng(7), 3)
    with pytest.raises(DataError, match="vary within"):
        mediation.mediation(rounds, np.zeros_like(mediator), outcome, unit, seed, rng=np.random.default_rng(0))


def test_labels_needed_reads_the_curve_between_its_points_and_censors_beyond_it():
    labels, curve = [0, 10, 20], np.array([[0.0, 0.5, 0.6]] * 4)
    found = value.labels_needed(labels, curve, [0.55] * 4, rng=np.random.default_rng(0))
    assert found.labels == pytest.approx(15) and found.low == found.high == pytest.approx(15) and found.censored == 0
    beyond = value.labels_needed(labels, curve, [0.7] * 4, rng=np.random.default_rng(0))
    assert math.isinf(beyond.labels) and beyond.censored == 1


def test_a_curve_that_dips_is_read_as_if_it_never_fell():
    found = value.labels_needed([0, 10, 20, 30], [[0.0, 0.6, 0.4, 0.7]], [0.5], rng=np.random.default_rng(0))
    assert 0 < found.labels <= 10  # 0.6 and 0.4 are one step of 0.5


def test_the_front_keeps_what_no_other_beats_in_both():
    assert value.on_front([0.5, 0.6, 0.55, 0.6], [1, 2, 3, 2]).tolist() == [True, True, False, True]


def test_the_recommendation_weighs_accuracy_against_its_price():
    accuracy = np.array([[0.60, 0.62]] * 10)
    assert value.recommend(accuracy, [100, 101], worth=100).best == 1  # two points are worth two dollars
    assert value.recommend(accuracy, [100, 103], worth=100).best == 0


def test_contenders_are_the_fewest_that_hold_the_probability_and_the_lead_over_another_is_in_dollars():
    accuracy = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.4, 0.5, 0.1], [0.9, 0.5, 0.1]])
    choice = value.recommend(accuracy, [0, 0, 0], worth=10)
    assert choice.contenders(0.75) == [0] and choice.contenders(0.76) == [0, 1] and choice.contenders(1.0) == [0, 1]
    mean, low, high = choice.over(2)
    assert mean == pytest.approx(6.75) and low <= mean <= high and choice.over(choice.best) == (0, 0, 0)


def test_a_point_is_priced_at_what_random_pays_for_it_at_the_end_of_its_curve():
    rate = value.exchange_rate([0, 50, 100, 150], [[0.0, 0.4, 0.5, 0.6]], 2.0, points=3)
    assert rate / 100 == pytest.approx(2.0 * 50 / 10)  # fifty annotations buy ten points
    assert math.isinf(value.exchange_rate([0, 50], [[0.5, 0.4]], 1.0))


# -- two models, each of one draw of labels ----------------------------------------------------------------------------------


def drawing(rng, spread, items=300, parts=4):
    """A function that gives (1 + parts, items) right or not, by models whose accuracies scatter by `spread` from draw to draw, on the same items each time."""
    hard = rng.random(items)
    return lambda: np.array([hard < 0.7 + spread * rng.standard_normal() + 0.15 * rng.standard_normal(items) for _ in range(1 + parts)])


def test_two_draws_of_the_same_kind_are_not_taken_for_different_however_many_items_there_are():
    rng, apart, by_items_alone = generator(0, "test", "single"), [], []
    for _ in range(300):
        draw = drawing(rng, spread=0.05)
        a, b = draw(), draw()
        found = contrasts.single(a[0], b[0], a[1:], b[1:])
        apart.append(found.low > 0 or found.high < 0)
        d = a[0].astype(float) - b[0]
        by_items_alone.append(abs(d.mean()) > 1.96 * d.std(ddof=1) / np.sqrt(len(d)))
    assert np.mean(apart) <= 0.07
    assert np.mean(by_items_alone) > 0.25


def test_a_difference_that_is_large_beside_the_draws_is_seen():
    rng = generator(1, "test", "single")
    draw = drawing(rng, spread=0.01)
    a, b = draw(), draw() & (rng.random(300) < 0.7)
    found = contrasts.single(a[0], b[0], a[1:], b[1:])
    assert found.low > 0 and found.mean == pytest.approx(a[0].mean() - b[0].mean())


def test_two_items_do_not_make_a_verdict():
    right, wrong = np.ones((5, 2)), np.zeros((5, 2))
    found = contrasts.single(right[0], wrong[0], right[1:], wrong[1:])
    assert found.mean == 1 and found.low < 0


def test_arms_that_answered_other_items_are_refused():
    with pytest.raises(DataError, match=r"on the same items, at least two: got shapes \(3,\), \(4,\)"):
        contrasts.single(np.ones(3), np.ones(4), np.ones((2, 3)), np.ones((2, 4)))
