"""What `select` guarantees, and that each family ranks by what it says."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from outlay import registry, seeds
from outlay.acquisition import SignalError, select
from outlay.errors import ConfigError, DataError, OutlayError
from outlay.types import Signals, View

N = 30


def make_view(columns=None, labeled=(), seed=0):
    labeled = np.array(sorted(labeled), dtype=np.int64)
    lottery = seeds.lottery(seed, [f"p{i}" for i in range(N)])
    return View(Signals(columns or {}), np.setdiff1d(np.arange(N), labeled), labeled, np.array(["g"] * N), lottery)


def rng():
    return np.random.default_rng(0)


@pytest.fixture
def strategy(monkeypatch):
    """Register a strategy for one test."""

    def enter(part, **facts):
        registry.cards("strategy")
        monkeypatch.setitem(registry._REGISTRY.cards, ("strategy", part.__name__), registry.Card("strategy", part.__name__, part, source="test", **facts))

    return enter


def test_random_batches_of_two_rounds_are_one_batch_of_their_sum():
    whole = select("random", make_view(), 12, rng()).rows
    first = select("random", make_view(), 5, rng()).rows
    second = select("random", make_view(labeled=first), 7, np.random.default_rng(99)).rows
    assert np.array_equal(whole, np.concatenate([first, second]))


def test_random_gives_every_prompt_the_same_chance():
    counts = np.zeros(N)
    for seed in range(2000):
        counts[select("random", make_view(seed=seed), 6, rng()).rows] += 1
    expected = 2000 * 6 / N  # chi-squared with 29 degrees of freedom, 99.9 percent: 58.3 (sampling without replacement only lowers it)
    assert ((counts - expected) ** 2 / expected).sum() < 58.3


def test_entropy_takes_the_most_uncertain_and_margin_the_smallest_margin():
    values = np.random.default_rng(1).permutation(N).astype(np.float32)
    entropy = select("mean_entropy", make_view({"mean_entropy": values}), 4, rng())
    margin = select("min_margin", make_view({"min_margin": values}), 4, rng())
    assert values[entropy.rows].tolist() == [29, 28, 27, 26] and entropy.scores.tolist() == [29, 28, 27, 26]
    assert values[margin.rows].tolist() == [0, 1, 2, 3]
    assert margin.scores.tolist() == [0, -1, -2, -3]  # in the direction that is maximised
    assert select("random", make_view(), 1, rng()).scores is None


def test_scores_are_those_of_the_picks_with_labeled_rows_in_between():
    values = np.arange(N, dtype=np.float32)
    picked = select("mean_entropy", make_view({"mean_entropy": values}, labeled=[3, 29, 28, 0]), 3, rng())
    assert picked.rows.tolist() == [27, 26, 25] and picked.scores.tolist() == [27, 26, 25]


@pytest.mark.parametrize("spec", ["mean_entropy", "least_confidence", "least_confidence(per_token=True)"])
def test_with_costs_the_score_per_cost_is_maximised_and_recorded(spec):
    draw, costs = rng(), np.random.default_rng(1).uniform(1, 20, N)
    columns = {"mean_entropy": draw.random(N), "sum_logprob": -9 * draw.random(N), "mean_logprob": -draw.random(N)}
    view = make_view(columns, labeled=range(5))
    plain = select(spec, view, 25, rng())
    divided = select(spec, replace(view, costs=costs), 25, rng())
    worth = dict(zip(plain.rows, plain.scores, strict=True))
    np.testing.assert_allclose(divided.scores, [worth[row] / costs[row] for row in divided.rows])
    assert (np.diff(divided.scores) <= 0).all() and divided.rows.tolist() != plain.rows.tolist()
    np.testing.assert_array_equal(select(spec, replace(view, costs=np.full(N, 3.0)), 25, rng()).rows, plain.rows)


def test_a_score_that_cannot_be_divided_and_a_cost_of_nothing_are_refused():
    view = make_view({"min_margin": rng().random(N), "mean_entropy": rng().random(N)}, labeled=[0])
    with pytest.raises(ConfigError, match=r"'min_margin' is no worth of each prompt by itself.* mean_entropy"):
        select("min_margin", replace(view, costs=np.ones(N)), 3, rng())
    with pytest.raises(DataError, match=r"the predicted cost of row 4 is 0\.0"):
        select("mean_entropy", replace(view, costs=np.where(np.arange(N) == 4, 0.0, 1.0)), 3, rng())


def test_coverage_scores_use_the_options_of_the_spec():
    embedding = np.random.default_rng(0).standard_normal((N, 5)).astype(np.float32)
    cosine = select("facility_location", make_view({"embedding": embedding}, labeled=[1]), 8, rng())
    rbf = select("facility_location(kernel='rbf', width=0.2)", make_view({"embedding": embedding}, labeled=[1]), 8, rng())
    for picked in (cosine, rbf):  # marginal gains of one greedy run never rise; with the other kernel's options they would
        assert (np.diff(picked.scores) <= 1e-4).all()
    assert not np.allclose(cosine.scores, rbf.scores)



def test_coverage_buys_from_every_cluster_before_it_buys_twice_from_one():
    centres = np.eye(5, dtype=np.float32)[np.repeat(np.arange(5), 6)]
    embedding = centres + 0.02 * np.random.default_rng(0).standard_normal((N, 5)).astype(np.float32)
    clusters = select("facility_location", make_view({"embedding": embedding}), 5, rng()).rows // 6
    assert sorted(clusters) == [0, 1, 2, 3, 4]
    rest = select("facility_location", make_view({"embedding": embedding}, labeled=[0, 7]), 3, rng()).rows // 6
    assert sorted(rest) == [2, 3, 4]  # what is bought already counts


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_numbers_stop_the_run_and_name_the_row(bad):
    values = np.ones(N, dtype=np.float32)
    values[[11, 17]] = bad
    with pytest.raises(SignalError, match=r"'mean_entropy' is (nan|inf) in row 11") as failure:
        select("mean_entropy", make_view({"mean_entropy": values}), 2, rng())
    assert failure.value.row == 11


def test_nan_on_a_labeled_row_is_fine_for_a_ranking_but_not_for_coverage():
    values, embedding = np.ones(N, dtype=np.float32), np.ones((N, 2), dtype=np.float32)
    values[4], embedding[4, 1] = np.nan, np.nan
    assert 4 not in select("mean_entropy", make_view({"mean_entropy": values}, labeled=[4]), 29, rng()).rows
    with pytest.raises(SignalError, match="row 4"):
        select("facility_location", make_view({"embedding": embedding}, labeled=[4]), 2, rng())


@pytest.mark.parametrize("strategy", ["facility_location", "k_center", "k_means"])
def test_rows_that_the_model_did_not_read_are_no_part_of_the_pool_for_coverage(strategy):
    whole = make_view({"embedding": np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32)}, labeled=[3])
    whole = replace(whole, signals=replace(whole.signals, live=frozenset({"embedding"})))
    kept = np.setdiff1d(np.arange(len(whole.lottery)), [0, 5, 7])
    points = whole.signals.columns["embedding"].copy()
    points[[0, 5, 7]] = np.nan
    part = replace(whole, signals=replace(whole.signals, columns=whole.signals.columns | {"embedding": points}), unlabeled=np.setdiff1d(kept, [3]))
    alone = select(strategy, replace(whole, unlabeled=part.unlabeled).within(kept), 4, np.random.default_rng(0))
    assert select(strategy, part, 4, np.random.default_rng(0)).rows.tolist() == kept[alone.rows].tolist()
    with pytest.raises(SignalError, match="in row 5"):
        select(strategy, replace(part, unlabeled=np.append(part.unlabeled, 5)), 4, np.random.default_rng(0))


def test_nan_in_a_signal_that_the_strategy_does_not_read_is_fine():
    values = np.full(N, np.nan, dtype=np.float32)
    assert len(select("random", make_view({"mean_entropy": values}), 3, rng()).rows) == 3


@pytest.mark.parametrize("k", [0, 28])
def test_an_impossible_k_is_refused(k):
    with pytest.raises(DataError, match="27 are unlabeled"):
        select("random", make_view(labeled=[1, 2, 3]), k, rng())


def test_a_missing_signal_names_what_the_scorer_gave():
    with pytest.raises(ConfigError, match="needs the signal 'min_margin'; the scorer gave: mean_entropy"):
        select("min_margin", make_view({"mean_entropy": np.ones(N)}), 2, rng())


def test_a_strategy_sees_declared_signals_and_groups_only(strategy):
    seen = []

    def nosy(view, k, rng):
        seen.append((set(view.signals.columns), set(view.groups)))
        assert not view.signals.columns["a"].flags.writeable
        return view.unlabeled[:k]

    columns = {"a": np.ones(N), "b": np.ones(N)}
    strategy(nosy, needs=frozenset({"a"}))
    select("nosy", make_view(columns), 2, rng())
    strategy(nosy, needs=frozenset({"a"}), reads_groups=True)
    select("nosy", make_view(columns), 2, rng())
    assert seen == [({"a"}, {""}), ({"a"}, {"g"})]
    assert columns["a"].flags.writeable  # the caller's array is left as it was


@pytest.mark.parametrize(
    ("answer", "message"),
    [([0, 1], "returned int64 of shape"), ([0, 1, 1], "same row twice"), ([0, 1, 5], "row 5, which is not unlabeled"), ([0.0, 1.0, 2.0], "float64")],
)
def test_a_wrong_answer_of_a_strategy_is_not_bought(strategy, answer, message):
    def wrong(view, k, rng):
        return answer

    strategy(wrong)
    with pytest.raises(OutlayError, match=message):
        select("wrong", make_view(labeled=[5]), 3, rng())


def test_importing_the_pure_parts_imports_no_torch_and_registers_the_strategies():
    code = (
        "import sys, outlay.acquisition, outlay.measure.diversity, outlay.measure.embed, outlay.measure.stats, outlay.toy, outlay.testing\n"
        "assert not {'torch', 'sklearn', 'statsmodels', 'transformers'} & set(sys.modules)\n"
        "from outlay import registry\n"
        "assert {'random', 'mean_entropy', 'min_margin', 'facility_location'} <= {c.name for c in registry.cards('strategy')}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
