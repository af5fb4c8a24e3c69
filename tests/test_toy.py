"""The toy world is honest: disjoint tests, a model that learns, costs that add up, folders that are whole."""

import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from outlay import registry, seeds, toy
from outlay.acquisition import select
from outlay.errors import DataError
from outlay.types import Annotation, Cost, Model, Pool, View

BASE = Model("toy")
EVERYTHING = toy.ToyScorer().provides


@pytest.fixture(scope="module")
def tests(tmp_path_factory):
    """A balanced test file."""
    path = tmp_path_factory.mktemp("toy") / "test.parquet"
    pq.write_table(toy.ToyPool(size=300, split="test", mixture="balanced")(), path)
    return path


def world(seed=0, size=300):
    table = toy.ToyPool(size=size, seed=seed)()
    return Pool("toy", table.select(["id", "text", "group"])), table.column("response").to_pylist()


def lesson(pool, gold, rows):
    prompts = pool.at(rows)
    return prompts, [Annotation(p.id, response=gold[row]) for p, row in zip(prompts, rows, strict=True)]


def campaign(strategy, budget, rounds, tests, out, seed=0):
    """Accuracy after spending the budget, cold starts."""
    pool, gold = world(seed)
    needs, model, labeled = registry.card("strategy", strategy).needs, BASE, np.array([], dtype=np.int64)
    for number in range(rounds):
        signals = toy.ToyScorer()(model, pool, needs, seed=seed)
        view = View(signals, np.setdiff1d(np.arange(len(pool)), labeled), labeled, pool.groups, seeds.lottery(seed, pool.ids))
        labeled = np.concatenate([labeled, select(strategy, view, budget // rounds, seeds.generator(seed, strategy, number)).rows])
        model = toy.ToyTrainer()(BASE, *lesson(pool, gold, labeled), out, seed=seed)
    return toy.ToyEvaluator(benchmark="b", items=tests)(model, seed=seed).columns["correct"].mean()


def test_no_test_text_is_in_any_pool_and_ids_follow_texts():
    held = [toy.ToyPool(size=300, split="test", seed=s, mixture=m)() for s in (0, 1) for m in ("zipf", "balanced")]
    open_ = [toy.ToyPool(size=900, seed=s)() for s in (0, 1)]
    by_id = {}
    for table in held + open_:
        assert len(set(table.column("text").to_pylist())) == table.num_rows
        for key, text in zip(table.column("id").to_pylist(), table.column("text").to_pylist(), strict=True):
            assert by_id.setdefault(key, text) == text
    tests = {t for table in held for t in table.column("text").to_pylist()}
    assert not tests & {t for table in open_ for t in table.column("text").to_pylist()}


def test_the_pool_is_skewed_the_balanced_test_is_not_and_seeds_differ():
    shares = [np.unique(toy.ToyPool(size=600, mixture=m)().column("group").to_pylist(), return_counts=True)[1] for m in ("zipf", "balanced")]
    assert shares[0].max() > 6 * shares[0].min() and shares[1].max() < 3 * shares[1].min()
    assert toy.ToyPool(size=50)().equals(toy.ToyPool(size=50)()) and not toy.ToyPool(size=50, seed=1)().equals(toy.ToyPool(size=50)())
    with pytest.raises(DataError, match="too few texts"):
        toy.ToyPool(size=10**6)()


def test_more_labels_help_and_uncertainty_needs_fewer(tests, tmp_path):
    def mean(*args):
        return np.mean([campaign(*args, tests, tmp_path / "m", seed) for seed in range(4)])

    base = toy.ToyEvaluator(benchmark="b", items=tests)(BASE, seed=0).columns["correct"].mean()
    assert base + 0.03 < mean("random", 24, 1) < mean("random", 96, 1) - 0.03
    assert mean("min_margin", 48, 4) > mean("random", 48, 1) + 0.03


def test_the_base_half_knows_the_world(tests):
    found = toy.ToyEvaluator(benchmark="b", items=tests)(BASE, seed=0).columns
    known = np.isin(found["group"], toy.KNOWN)
    assert found["correct"][known].mean() > 0.7 > 0.5 > found["correct"][~known].mean()
    assert found["nll"][known].mean() < found["nll"][~known].mean()


def test_signals_are_finite_float32_and_agree_with_each_other():
    pool, _ = world()
    signals = toy.ToyScorer()(BASE, pool, EVERYTHING, seed=0)
    c = signals.columns
    assert set(c) == EVERYTHING | {"prompt_tokens", "response_tokens", "sampled_tokens"} and signals.live == EVERYTHING - {"embedding"}
    assert all(np.isfinite(v).all() and len(v) == len(pool) for v in c.values())
    assert all(c[name].dtype == np.float32 for name in EVERYTHING)
    np.testing.assert_allclose(np.linalg.norm(c["embedding"], axis=1), 1, atol=1e-5)
    assert (c["mean_entropy"] >= 0).all() and c["mean_entropy"].max() <= np.log(len(toy.RESPONSES)) + 1e-6
    assert (c["max_entropy"] >= c["mean_entropy"]).all() and (c["mean_margin"] >= c["min_margin"]).all() and (c["sum_logprob"] <= c["mean_logprob"]).all()
    with pytest.raises(DataError, match="no signal 'surprise'"):
        toy.ToyScorer()(BASE, pool, frozenset({"surprise"}), seed=0)


def test_live_signals_follow_the_model_and_the_embedding_does_not(tmp_path):
    pool, gold = world()
    rows = np.arange(40)
    model = toy.ToyTrainer()(BASE, *lesson(pool, gold, rows), tmp_path / "m", seed=0)
    before, after = (toy.ToyScorer()(m, pool, EVERYTHING, seed=0).columns for m in (BASE, model))
    assert after["mean_entropy"][rows].mean() < before["mean_entropy"][rows].mean()
    assert np.array_equal(before["embedding"], after["embedding"])


def test_signals_of_a_prompt_do_not_depend_on_the_rest_of_the_pool():
    pool, _ = world()
    rows = np.array([5, 17, 200])
    part, whole = (toy.ToyScorer()(BASE, p, EVERYTHING, seed=0).columns for p in (pool.take(rows), pool))
    for name in EVERYTHING:
        np.testing.assert_allclose(part[name], whole[name][rows], atol=1e-6)


def test_the_bill_is_the_cost_of_scoring_and_adds_up_over_prompts():
    pool, _ = world()
    scorer = toy.ToyScorer()
    for needs in (frozenset(), frozenset({"embedding"}), frozenset({"min_margin"}), frozenset({"bleu_variance"}), EVERYTHING):
        signals = scorer(BASE, pool, needs, seed=0)
        counts = {name: signals.columns[name] for name in ("prompt_tokens", "response_tokens", "sampled_tokens") if name in signals.columns}
        assert signals.cost == scorer.bill(BASE, counts, needs)
        half = [scorer.bill(BASE, {name: c[s] for name, c in counts.items()}, needs) for s in (slice(0, 100), slice(100, None))]
        assert replace(sum(half, Cost()), seconds=signals.cost.seconds) == signals.cost
    made = [scorer(BASE, pool, needs, seed=0).cost.generated_tokens for needs in map(frozenset, ({"embedding"}, {"min_margin"}, {"bleu_variance"}, EVERYTHING))]
    assert made == [0, 300, 1500, 1800]
    assert scorer.bill(BASE, {"prompt_tokens": [4], "response_tokens": [1]}, frozenset()) == Cost()  # random pays nothing


def test_the_gradient_is_that_of_the_softmax_for_its_own_answer():
    """Against autograd: inner products of d(-log p_y)/dW, with the embedding's projection in place of the features."""
    torch = pytest.importorskip("torch")
    pool, _ = world()
    part = pool.take(np.arange(0, 300, 30))
    found = toy.ToyScorer()(BASE, part, frozenset({"gradient"}), seed=0).columns["gradient"]
    features = toy.featurise(part.texts)
    for row, gradient in zip(features, found, strict=True):
        weights = torch.tensor(toy.load(BASE).copy(), requires_grad=True)
        logits = torch.tensor(row) @ weights
        torch.nn.functional.cross_entropy(logits[None], logits.argmax()[None]).backward()
        np.testing.assert_allclose(gradient.reshape(4, -1), weights.grad.numpy().T @ toy._projection(), atol=1e-5)


def test_training_depends_on_the_set_and_the_seed_but_not_on_the_order(tmp_path):
    pool, gold = world()
    rows = np.arange(30)

    def weights(order, seed, name):
        model = toy.ToyTrainer()(BASE, *lesson(pool, gold, order), tmp_path / name, seed=seed)
        assert model.weights == str(tmp_path / name) and model.kind == "full"
        return (tmp_path / name / "weights.npy").read_bytes()

    assert weights(rows, 1, "a") == weights(rows[::-1], 1, "b") != weights(rows, 2, "c")


def test_warm_starts_go_on_from_the_start_and_leave_it_alone(tmp_path):
    pool, gold = world()
    first = toy.ToyTrainer()(BASE, *lesson(pool, gold, np.arange(20)), tmp_path / "first", seed=0)
    before = (tmp_path / "first" / "weights.npy").read_bytes()
    more = lesson(pool, gold, np.arange(20, 40))
    warm = toy.ToyTrainer()(first, *more, tmp_path / "warm", seed=0)
    cold = toy.ToyTrainer()(BASE, *more, tmp_path / "cold", seed=0)
    assert not np.array_equal(toy.load(warm), toy.load(cold)) and (tmp_path / "first" / "weights.npy").read_bytes() == before
    entropy = [toy.ToyScorer()(m, pool.take(np.arange(20)), frozenset({"mean_entropy"}), seed=0).columns["mean_entropy"].mean() for m in (warm, cold)]
    assert entropy[0] < entropy[1]  # it remembers


def test_updates_and_tokens_are_counted(tmp_path):
    pool, gold = world()
    model = toy.ToyTrainer(epochs=3, minibatch=8)(BASE, *lesson(pool, gold, np.arange(20)), tmp_path / "m", seed=0)
    assert model.updates == 3 * 3 and model.cost.trained_tokens == 3 * sum(len(p.text.split()) for p in pool.at(np.arange(20))) and model.cost.flops > 0


def test_a_failed_write_leaves_no_half_model_and_a_second_training_replaces_the_first(tmp_path, monkeypatch):
    pool, gold = world()
    data, out = lesson(pool, gold, np.arange(8)), tmp_path / "m"
    toy.ToyTrainer()(BASE, *data, out, seed=0)
    before = (out / "weights.npy").read_bytes()
    with monkeypatch.context() as broken, pytest.raises(OSError, match="disk full"):
        broken.setattr(toy.json, "dumps", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        toy.ToyTrainer()(BASE, *data, out, seed=1)
    assert (out / "weights.npy").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m"]
    toy.ToyTrainer()(BASE, *data, out, seed=1)
    assert (out / "weights.npy").read_bytes() != before


def test_annotations_that_cannot_be_learned_from_fail_loudly(tmp_path):
    pool, gold = world()
    prompts, annotations = lesson(pool, gold, np.arange(3))
    train = toy.ToyTrainer()
    with pytest.raises(DataError, match="nothing to train on"):
        train(BASE, [], [], tmp_path / "m", seed=0)
    with pytest.raises(DataError, match="paired with"):
        train(BASE, prompts[::-1], annotations, tmp_path / "m", seed=0)
    with pytest.raises(DataError, match=f"'up' to prompt {prompts[1].id}"):
        train(BASE, prompts, [annotations[0], replace(annotations[1], response="up"), annotations[2]], tmp_path / "m", seed=0)
    with pytest.raises(DataError, match="no readable toy model"):
        toy.ToyScorer()(Model("toy", weights=str(tmp_path / "nowhere")), pool, frozenset({"min_margin"}), seed=0)
    assert not (tmp_path / "m").exists()


def test_evaluation_columns_are_aligned_and_the_fingerprint_follows_the_items(tests, tmp_path):
    found = toy.ToyEvaluator(benchmark="b", items=tests)(BASE, seed=0)
    table = pq.read_table(tests)
    assert set(found.columns) == {"id", "correct", "parsed", "cut_off", "nll", "nll_sum", "response_tokens", "group", "response"}
    assert found.columns["id"].tolist() == table.column("id").to_pylist()
    assert np.array_equal(found.columns["correct"], found.columns["response"] == np.array(table.column("response").to_pylist()))
    pq.write_table(table.slice(1), tmp_path / "less.parquet")
    assert toy.ToyEvaluator(benchmark="b", items=tmp_path / "less.parquet")(BASE, seed=0).items != found.items
    with pytest.raises(DataError, match="no test file"):
        toy.ToyEvaluator(benchmark="b", items=tmp_path / "none.parquet")(BASE, seed=0)


def test_the_parts_are_in_the_registry(tests):
    assert registry.build("pool", "toy(size=10, split='test')") == toy.ToyPool(size=10, split="test")
    assert registry.build("evaluator", {"use": "toy", "items": str(tests)}, benchmark="b") == toy.ToyEvaluator(benchmark="b", items=tests)


def test_a_campaign_of_two_rounds_takes_milliseconds(tests, tmp_path):
    campaign("min_margin", 32, 2, tests, tmp_path / "m")  # warm the caches
    start = time.process_time()
    campaign("min_margin", 32, 2, tests, tmp_path / "m")
    assert time.process_time() - start < 0.2  # about 30 ms; the bound is for crowded machines
