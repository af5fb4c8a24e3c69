"""The round loop: what a comparison of strategies rests on."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from outlay import campaign as campaigns
from outlay import grid, registry, results
from outlay.campaign import Campaign
from outlay.config import StudyConfig
from outlay.coverage import facility
from outlay.coverage import rounds as facility_rounds
from outlay.errors import ConfigError, DataError
from outlay.oracles.replay import Replay, read_journal
from outlay.seeds import generator
from outlay.store import Store
from outlay.toy import ToyScorer, ToyTrainer
from outlay.types import Batch, Cost, Model, Selection, Signals
from outlay.workbench import Workbench


@pytest.fixture(scope="module")
def bench(toy_run):
    """The finished run's workbench: its pool, signals, vault and tests."""
    study = Store(toy_run).read("study.json", dict)
    return Workbench(Store(toy_run), study, StudyConfig.model_validate(study["config"]))


@pytest.fixture
def run(bench, tmp_path):
    """run(campaign, name, **parts of the desk) -> its rounds, in a folder of its own below tmp_path / name."""

    def go(campaign, name="alone", **parts):
        desk = bench.desk(campaign, [f"r{n}" for n in range(1, campaign.rounds + 1)], campaign.rounds)
        root = tmp_path / name
        oracle = Replay(vault=bench.store.root / "shared/vault.parquet", journal=root / "reveals.jsonl")
        desk = replace(desk, **({"store": Store(root), "oracle": oracle, "shared": frozenset(), "shard": 1000} | parts))
        return list(campaigns.run(campaign, desk))

    go.root = tmp_path
    return go


@pytest.fixture
def scratch(monkeypatch):
    """What a test registers is forgotten after it."""
    registry.cards("strategy")
    monkeypatch.setattr(registry, "_REGISTRY", registry._Registry(dict(registry._REGISTRY.cards), set(registry._REGISTRY.loaded)))


def chosen(folder: Path, number: int) -> list[str]:
    return list(Store(folder).read(f"r{number}/selection.json", Selection).ids)


@dataclass(frozen=True)
class SpyTrainer:
    """The toy trainer; remembers what it was started from and trained on."""

    calls: list = field(default_factory=list)

    def __call__(self, start, prompts, annotations, out, *, seed):
        self.calls.append((start.weights and Path(start.weights).parent.name, [p.id for p in prompts], seed))
        return ToyTrainer(epochs=2)(start, prompts, annotations, out, seed=seed)


# -- cold, warm_all, warm_new ----------------------------------------------------------------------------------------------


def test_from_a_cold_start_the_same_bought_set_gives_the_same_model_whatever_strategy_and_rounds(run, scratch):
    @registry.strategy(source="none")
    def backwards(view, k, rng):
        """The same set as random's first 8, bought in the opposite order."""
        head = np.argsort(view.lottery, kind="stable")[:8]
        return np.array([row for row in head[::-1] if row in view.unlabeled][:k])

    plans = [Campaign("random", 1, 8), Campaign("random", 4, 8), Campaign("random", 2, 8, schedule=(1, 7)), Campaign("backwards", 3, 8)]
    digests = {run(plan, str(i))[-1].model.digest for i, plan in enumerate(plans)}
    assert len(digests) == 1
    assert chosen(run.root / "0", 1) != chosen(run.root / "3", 1)  # not the same by the same way


def test_another_bought_set_or_seed_gives_another_model(run):
    digests = {run(plan, str(i))[-1].model.digest for i, plan in enumerate([Campaign("random", 1, 8), Campaign("random", 1, 9), Campaign("mean_entropy", 1, 8)])}
    assert len(digests) == 3


def test_a_cold_start_trains_from_the_base_on_everything_bought(run):
    spy = SpyTrainer()
    run(Campaign("random", 3, 9), trainer=spy)
    bought = [chosen(run.root / "alone", n) for n in (1, 2, 3)]
    assert [(start, set(ids)) for start, ids, _ in spy.calls] == [(None, set(chain(*bought[:n]))) for n in (1, 2, 3)]


def test_warm_all_goes_on_from_the_last_weights_on_everything(run):
    spy = SpyTrainer()
    run(Campaign("random", 3, 9, start="warm_all"), trainer=spy)
    bought = [chosen(run.root / "alone", n) for n in (1, 2, 3)]
    assert [(start, set(ids)) for start, ids, _ in spy.calls] == [(start, set(chain(*bought[:n]))) for n, start in ((1, None), (2, "r1"), (3, "r2"))]


def test_warm_new_goes_on_from_the_last_weights_on_the_new_batch_only(run):
    spy = SpyTrainer()
    run(Campaign("random", 3, 9, start="warm_new"), trainer=spy)
    assert [(start, set(ids)) for start, ids, _ in spy.calls] == [(start, set(chosen(run.root / "alone", n))) for n, start in ((1, None), (2, "r1"), (3, "r2"))]


def test_training_data_are_in_one_order_and_the_seed_knows_neither_strategy_nor_round(run):
    spies = [SpyTrainer(), SpyTrainer()]
    run(Campaign("random", 3, 9), "a", trainer=spies[0])
    run(Campaign("mean_entropy", 2, 8), "b", trainer=spies[1])
    calls = spies[0].calls + spies[1].calls
    assert all(ids == sorted(ids) for _, ids, _ in calls)
    assert len({seed for _, _, seed in calls}) == 1


def test_updates_behind_a_warm_model_count_all_rounds(run):
    warm = run(Campaign("random", 2, 16, start="warm_new"), trainer=ToyTrainer(epochs=3, minibatch=4))
    cold = run(Campaign("random", 2, 16), "cold", trainer=ToyTrainer(epochs=3, minibatch=4))
    assert [r.model.updates for r in warm] == [6, 12]
    assert [r.model.updates for r in cold] == [6, 12]


# -- what is chosen --------------------------------------------------------------------------------------------------------


def test_what_random_buys_is_nested_over_batches_rounds_and_budgets(run):
    plans = [Campaign("random", 1, 16), Campaign("random", 4, 16), Campaign("random", 3, 10, schedule=(1, 2, 7)), Campaign("random", 2, 12, start="warm_all")]
    orders = []
    for i, plan in enumerate(plans):
        run(plan, str(i))
        orders.append([name for n in range(1, plan.rounds + 1) for name in chosen(run.root / str(i), n)])
    assert all(order == orders[0][: len(order)] for order in orders)


@pytest.mark.parametrize("strategy", ["random", "facility_location"])
def test_cells_whose_rounds_change_nothing_are_run_once_and_running_them_by_hand_buys_the_same(run, toy_run, strategy):
    table = results.results(toy_run).query(f"strategy == '{strategy}' and start == 'cold' and budget == 16 and not reference")
    assert set(table["rounds"]) == {1, 2}
    assert set(table["rounds_run"]) == {1}
    assert table["campaign"].nunique() == 1
    run(Campaign(strategy, 2, 16))
    bought = results.bought(toy_run).query(f"campaign == '{table['campaign'].iloc[0]}'")["id"].tolist()
    assert chosen(run.root / "alone", 1) + chosen(run.root / "alone", 2) == bought


def test_live_signals_do_not_collapse(toy_study):
    config = toy_study(strategies=["facility_location", "mean_entropy"])
    cells = [cell for cell in grid.asked(config) if cell.rounds == 2]
    frozen = {(c.strategy, c.start): grid.runs_as(c, config).rounds for c in cells}
    assert frozen == {("facility_location", "cold"): 1, ("facility_location", "warm_all"): 2, ("mean_entropy", "cold"): 2, ("mean_entropy", "warm_all"): 2}
    live = toy_study(strategies=["facility_location"], embedding="live")
    assert {grid.runs_as(c, live).rounds for c in grid.asked(live) if c.rounds == 2} == {2}


def test_no_prompt_is_bought_twice_and_exactly_the_budget_is_spent(run):
    rounds = run(Campaign("mean_entropy", 4, 13))
    bought = [name for n in range(1, 5) for name in chosen(run.root / "alone", n)]
    assert len(set(bought)) == len(bought) == 13
    assert [r.labels_spent for r in rounds] == [4, 7, 10, 13]
    assert list(read_journal(run.root / "alone/reveals.jsonl")) == bought


def test_ids_of_options_that_read_alike_are_different():
    specs = ["x", "x()", "x(a=1)", "x(a=-1)", "x(a='1')", "x(a=1.0)", "x-a-1", "x(" + "a" * 300 + "=1)", "x(" + "a" * 301 + "=1)"]
    ids = {Campaign(spec, 1, 8).id for spec in specs}
    assert len(ids) == len(specs)
    assert all(len(name) < 200 and "/" not in name for name in ids)


# -- skips -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Skipper:
    """Skips its first requests; remembers what it was asked."""

    skips: int
    asked: list = field(default_factory=list)

    def __call__(self, requests):
        from outlay.types import Annotation

        left = self.skips - sum(map(len, self.asked))
        self.asked.append([r.prompt.id for r in requests])
        made = [Annotation(r.prompt.id, "skip") if i < left else Annotation(r.prompt.id, response="north") for i, r in enumerate(requests)]
        return Batch(tuple(made), Cost(labels=sum(a.kind != "skip" for a in made)))


def test_skipped_prompts_leave_the_pool_their_places_are_asked_again_once_and_then_carried_into_the_next_round(run):
    oracle, spy = Skipper(6), SpyTrainer()
    rounds = run(Campaign("random", 3, 12), oracle=oracle, trainer=spy)
    assert [len(asked) for asked in oracle.asked] == [4, 4, 4 + 2, 4]
    assert len(set(chain(*oracle.asked))) == 18
    assert [r.labels_spent for r in rounds] == [2, 8, 12]
    skipped = {*oracle.asked[0], *oracle.asked[1][:2]}
    assert not any(skipped & set(ids) for _, ids, _ in spy.calls)


def test_a_random_slice_of_a_batch_is_the_same_whatever_the_strategy(run):
    slices = {}
    for strategy in ("mean_entropy", "facility_location"):
        run(Campaign(strategy, 1, 20), name=strategy, audit=0.2)
        found = Store(run.root / strategy).read("r1/selection.json", Selection)
        slices[strategy] = found.ids[-found.audit :]
        assert len(set(found.ids)) == 20
        assert [s is None for s in found.scores] == [False] * 16 + [True] * 4
    assert slices["mean_entropy"] == slices["facility_location"]
    assert len(slices["mean_entropy"]) == 4


def test_a_second_reading_of_a_run_with_skips_asks_nobody(run):
    first = run(Campaign("mean_entropy", 3, 12), oracle=Skipper(3))
    again = run(Campaign("mean_entropy", 3, 12), oracle=lambda requests: pytest.fail("asked again"))
    assert [(r.number, r.labels_spent, r.model, r.cost) for r in again] == [(r.number, r.labels_spent, r.model, r.cost) for r in first]


# -- signals ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpyScorer:
    """The toy scorer; remembers (trained model?, ids, needs) and can say NaN of a prompt."""

    poison: str = ""
    calls: list = field(default_factory=list)
    provides = ToyScorer().provides

    def __call__(self, model, pool, needs, *, seed):
        self.calls.append((model.weights is not None, pool.ids, needs))
        found = ToyScorer()(model, pool, needs, seed=seed)
        columns = {name: values.copy() for name, values in found.columns.items()}
        if self.poison in pool.ids:
            columns["mean_entropy"][pool.ids.index(self.poison)] = np.nan
        return replace(found, columns=columns)


def test_only_what_is_declared_is_scored_and_only_on_unlabeled_rows(run, bench):
    scorer = SpyScorer()
    run(Campaign("mean_entropy", 3, 9), scorer=scorer)
    assert [(trained, needs) for trained, _, needs in scorer.calls] == [(True, {"mean_entropy"})] * 2  # the base was scored for all
    for n, (_, ids, _) in enumerate(scorer.calls, 1):
        assert not set(ids) & {name for i in range(1, n + 1) for name in chosen(run.root / "alone", i)}
        assert len(ids) == 90 - 3 * n


def test_random_pays_for_no_signal(run):
    scorer = SpyScorer()
    rounds = run(Campaign("random", 2, 8, start="warm_all"), scorer=scorer)
    assert scorer.calls == []
    assert all(r.cost.prompt_tokens == r.cost.generated_tokens == 0 for r in rounds)
    assert not list((run.root / "alone").rglob("signals*"))


def test_live_signals_are_unmeasured_on_labeled_rows_and_these_never_reach_a_strategy(run, scratch):
    seen = []

    @registry.strategy(needs=("mean_entropy", "embedding"), source="none")
    def watcher(view, k, rng):
        seen.append((view.score("mean_entropy").copy(), view.signals.columns["mean_entropy"][view.labeled].copy(), view.signals.columns["embedding"].copy()))
        return view.unlabeled[np.argsort(-view.score("mean_entropy"))[:k]]

    run(Campaign("watcher", 3, 9), frozen=frozenset())
    for n, (score, labeled, embedding) in enumerate(seen):
        assert len(score) == 90 - 3 * n
        assert np.isfinite(score).all()
        assert np.isfinite(embedding).all()  # coverage looks at labeled rows too
        assert np.isnan(labeled).all()
        assert len(labeled) == 3 * n


@pytest.mark.parametrize("start", ["cold", "warm_all"])
def test_a_signal_that_is_not_a_number_stops_the_run_and_names_the_prompt(run, bench, start):
    run(Campaign("mean_entropy", 1, 3), "probe")
    bought = chosen(run.root / "probe", 1)
    poison = next(name for name in bench.pool().take(bench.rows(0)).ids if name not in bought)
    with pytest.raises(DataError, match=rf"prompt '{poison}': signal 'mean_entropy' is nan"):
        run(Campaign("mean_entropy", 3, 9, start=start), scorer=SpyScorer(poison))


def test_a_live_signal_comes_from_the_current_model_and_a_frozen_one_from_the_base(run, bench, scratch):
    seen = []

    @registry.strategy(needs=("mean_entropy", "embedding"), source="none")
    def watcher(view, k, rng):
        seen.append((view.signals.live, view.signals.columns["embedding"].copy(), view.signals.columns["mean_entropy"].copy()))
        return view.unlabeled[:k]

    run(Campaign("watcher", 2, 20))
    assert seen[1][0] == {"mean_entropy"}
    assert np.array_equal(seen[0][1], seen[1][1])
    assert not np.allclose(seen[0][2][20:], seen[1][2][20:], equal_nan=True)


@dataclass(frozen=True)
class MovingScorer:
    """The toy scorer whose embeddings move with the model, as a language model's do."""

    amount: float

    def __call__(self, model, pool, needs, *, seed):
        found = ToyScorer()(model, pool, needs, seed=seed)
        if model.weights and "embedding" in needs:
            for row, name in enumerate(pool.ids):
                found.columns["embedding"][row] += self.amount * generator(0, model.digest, name).standard_normal(found.columns["embedding"].shape[1])
        return found


@pytest.mark.parametrize("frozen, amount, built", [({"embedding"}, 0.1, 1), ((), 0.005, 1), ((), 1.0, 3)])
def test_rounds_of_facility_location_go_on_from_the_first_and_choose_the_same_after_an_interruption(run, monkeypatch, frozen, amount, built):
    monkeypatch.setattr(facility, "EXACT_UP_TO", 50)  # of 90 prompts
    calls, start = [], facility_rounds.start
    monkeypatch.setattr(facility_rounds, "start", lambda *a, **k: calls.append(1) or start(*a, **k))
    plan, parts = Campaign("facility_location", 3, 36, start="warm_all"), {"scorer": MovingScorer(amount), "frozen": frozenset(frozen)}
    run(plan, **parts)
    assert len(calls) == built  # for all rounds, or, where embeddings moved far, for each
    folder = run.root / "alone"
    whole = chosen(folder, 3)
    (folder / "r3/selection.json").unlink()
    run(plan, **parts)
    assert chosen(folder, 3) == whole


@pytest.mark.parametrize("strategy", ["facility_location", "k_center"])
def test_what_a_coverage_choice_reached_and_could_have_reached_is_kept_beside_it(run, strategy):
    run(Campaign(strategy, 2, 24, start="warm_all"))
    kept = [Store(run.root / "alone").read(f"r{number}/selection.json", Selection) for number in (1, 2)]
    better = 1 if strategy == "facility_location" else -1  # a sum of similarities; a radius
    assert all(better * (found.bound - found.objective) >= 0 for found in kept)
    assert better * (kept[1].objective - kept[0].objective) > 0  # what is labeled counts
    run(Campaign("random", 1, 8), name="other")
    assert Store(run.root / "other").read("r1/selection.json", Selection).objective is None


def test_words_come_from_the_texts_of_the_whole_pool_cost_nothing_and_never_change(run, bench, scratch):
    seen = []

    @registry.strategy(needs=("words",), source="none")
    def reader(view, k, rng):
        seen.append(view.signals.columns["words"].copy())
        return view.unlabeled[:k]

    scorer = SpyScorer()
    rounds = run(Campaign("reader", 2, 8, start="warm_all"), scorer=scorer)
    texts = bench.pool().take(bench.rows(0)).texts
    vocabulary = sorted({word for text in texts for word in text.split()})
    assert [[vocabulary[n] for n in row if n >= 0] for row in seen[0]] == [text.split() for text in texts]
    assert np.array_equal(*seen)
    assert scorer.calls == [] and all(r.cost.prompt_tokens == 0 for r in rounds)


def test_a_response_is_scored_for_labeled_rows_only_if_the_strategy_says_so_and_then_it_is_paid(run, scratch):
    seen = []

    @registry.strategy(needs=("mean_entropy",), of_labeled=("mean_entropy",), source="none")
    def looker(view, k, rng):
        seen.append(view.signals.columns["mean_entropy"][view.labeled].copy())
        return view.unlabeled[:k]

    scorer = SpyScorer()
    rounds = run(Campaign("looker", 2, 8), scorer=scorer)
    assert np.isfinite(seen[1]).all() and len(seen[1]) == 4
    assert [(len(ids), needs) for _, ids, needs in scorer.calls] == [(86, {"mean_entropy"}), (4, {"mean_entropy"})]
    assert rounds[1].cost.generated_tokens == 90


def test_a_strategy_cannot_read_of_labeled_rows_what_it_does_not_need(scratch):
    with pytest.raises(ConfigError, match="'mean_entropy' in of_labeled"):
        registry.strategy(needs=("min_margin",), of_labeled=("mean_entropy",), source="none")(lambda view, k, rng: None)


# -- weights ---------------------------------------------------------------------------------------------------------------


def weights(folder: Path) -> list[str]:
    return sorted(p.parent.name for p in folder.glob("*/model"))


@pytest.mark.parametrize(("keep", "left"), [("last", ["r3"]), ("all", ["r1", "r2", "r3"])])
@pytest.mark.parametrize("start", ["cold", "warm_all"])
def test_earlier_weights_are_deleted_unless_they_are_to_be_kept(run, keep, left, start):
    run(Campaign("mean_entropy", 3, 9, start=start), keep_models=keep)
    assert weights(run.root / "alone") == left
    assert not [p for p in (run.root / "alone").rglob(".*") if p.suffix != ".lock"]


def test_weights_that_another_campaign_branches_from_are_kept(run):
    run(Campaign("mean_entropy", 3, 9), shared=frozenset({"r1"}))
    assert weights(run.root / "alone") == ["r1", "r3"]


@pytest.mark.parametrize("gone", [["r3"], ["r2", "r3"]])
@pytest.mark.parametrize("start", ["cold", "warm_all"])
def test_a_later_branch_trains_deleted_weights_again_to_the_same_digest(run, gone, start):
    """The later stages are deleted: their models, scores and evaluations need weights that were not kept."""
    first = run(Campaign("mean_entropy", 3, 9, start=start))
    for folder in gone:
        for file in (run.root / "alone" / folder).glob("*.*"):
            file.unlink()
    again = run(Campaign("mean_entropy", 3, 9, start=start))
    assert [r.model for r in again] == [r.model for r in first]
    alone = run(Campaign("mean_entropy", 3, 9, start=start), "fresh")
    assert [r.model for r in again] == [r.model for r in alone]


@pytest.mark.slow
def test_two_branches_that_need_the_same_deleted_weights_at_once_train_them_once(run):
    @dataclass(frozen=True)
    class Slow:
        calls: list = field(default_factory=list)

        def __call__(self, start, prompts, annotations, out, *, seed):
            self.calls.append(out.parent.parent.name)
            out.mkdir(parents=True)
            time.sleep(0.3)  # a folder without weights is there meanwhile
            return ToyTrainer(epochs=2)(start, prompts, annotations, out, seed=seed)

    plans = [Campaign("random", 2, 4 + size, schedule=(4, size), start="warm_all") for size in (2, 3, 5)]
    run(plans[0], trainer=Slow())
    assert weights(run.root / "alone") == ["r2"]
    slow = Slow()
    with ThreadPoolExecutor(2) as threads:
        branches = [threads.submit(run, plan, trainer=slow, folders=["r1", f"branch-{i}"], shared=frozenset({"r1"})) for i, plan in enumerate(plans[1:])]
        found = [branch.result()[-1].model.digest for branch in branches]
    assert sorted(slow.calls) == ["branch-0", "branch-1", "r1"]
    assert found == [run(plan, f"fresh-{i}", trainer=Slow())[-1].model.digest for i, plan in enumerate(plans[1:])]


def test_weights_that_come_out_different_stop_the_run_every_time(run):
    run(Campaign("mean_entropy", 2, 8, start="warm_all"))
    (run.root / "alone/r2/model.json").unlink()
    for _ in range(2):  # the wrong weights must not be taken for the right ones the next time
        with pytest.raises(DataError, match="weights trained again differ from those recorded"):
            run(Campaign("mean_entropy", 2, 8, start="warm_all"), trainer=ToyTrainer(epochs=5))


def test_a_training_that_was_killed_leaves_nothing_that_is_taken_for_weights(run):
    @dataclass(frozen=True)
    class Killed:
        def __call__(self, start, prompts, annotations, out, *, seed):
            out.mkdir(parents=True)
            (out / "weights.npy").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Campaign("random", 1, 8), trainer=Killed())
    assert weights(run.root / "alone") == []
    assert run(Campaign("random", 1, 8))[-1].model == run(Campaign("random", 1, 8), "fresh")[-1].model
    assert not list((run.root / "alone").rglob(".training"))


def test_a_deletion_that_was_killed_leaves_no_half_folder_under_the_name(run, monkeypatch):
    real = campaigns.shutil.rmtree

    def killed(path, *args, **kwargs):
        if Path(path).exists():
            next(Path(path).iterdir()).unlink()
            raise KeyboardInterrupt
        real(path, *args, **kwargs)

    run(Campaign("random", 2, 8), keep_models="all")
    monkeypatch.setattr(campaigns.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        run(Campaign("random", 2, 8))
    assert weights(run.root / "alone") == ["r2"]
    monkeypatch.undo()
    run(Campaign("random", 2, 8))
    assert sorted(p.name for p in (run.root / "alone/r1").iterdir()) == sorted(p.name for p in (run.root / "alone/r2").iterdir() if p.name != "model")


def test_a_stored_model_has_a_path_relative_to_the_run(run):
    model = run(Campaign("random", 1, 8))[-1].model
    assert model.weights == "r1/model"
    assert str(run.root) not in "".join(p.read_text() for p in (run.root / "alone").rglob("*.json"))


def test_a_run_directory_can_be_moved(run):
    run(Campaign("mean_entropy", 2, 8, start="warm_all"), "here")
    (run.root / "here").rename(run.root / "there")
    (run.root / "there/r2/evaluation-held_out.parquet").unlink()
    assert run(Campaign("mean_entropy", 2, 8, start="warm_all"), "there")[-1].model == run(Campaign("mean_entropy", 2, 8, start="warm_all"), "alone")[-1].model


# -- costs -----------------------------------------------------------------------------------------------------------------

COSTS = ["usd", "seconds", "flops", "prompt_tokens", "generated_tokens", "trained_tokens"]


def test_what_each_campaign_would_have_cost_alone_is_the_sum_of_its_stages_without_measurement(toy_run):
    table, ledger = results.results(toy_run), results.ledger(toy_run)
    runs = table[~table["reference"]].drop_duplicates(["campaign", "round"])
    for name, rows in runs.groupby("campaign"):
        stages = ledger[(ledger["campaign"] == name) & (ledger["phase"] != "measure")]
        for _, row in rows.iterrows():
            total = stages[stages["round"] <= row["round"]][COSTS].sum()
            np.testing.assert_allclose(row[COSTS].astype(float), total.astype(float), rtol=1e-12, err_msg=f"{name} round {row['round']}")
            assert row["labels_spent"] == stages[stages["round"] <= row["round"]]["labels"].sum()


def test_the_cost_of_a_round_is_that_of_its_stages(run):
    rounds = run(Campaign("mean_entropy", 2, 8))
    for r in rounds:
        store = Store(run.root / "alone")
        parts = [store.read(f"r{r.number}/signals.parquet", Signals).cost, store.read(f"r{r.number}/batch.json", Batch).cost, store.read(f"r{r.number}/model.json", Model).cost]
        assert r.cost == parts[0] + parts[1] + parts[2]
        assert parts[0].flops > 0
        assert parts[1].labels == 4
        assert parts[2].flops > 0


def test_evaluation_on_test_items_is_measurement(toy_run):
    ledger = results.ledger(toy_run)
    tests = ledger[ledger["stage"].str.contains("evaluation")]
    assert set(tests["phase"]) == {"measure"}
    assert (tests["flops"] > 0).all()
    assert tests["labels"].sum() == 0


def test_the_reference_curve_is_measurement(toy_run):
    study = Store(toy_run).read("study.json", dict)
    marked = {name for name, entry in study["campaigns"].items() if entry["reference"]}
    assert marked
    ledger = results.ledger(toy_run)
    assert set(ledger[ledger["campaign"].isin(marked)]["phase"]) == {"measure"}


def test_every_stage_is_paid_once(toy_run):
    study, ledger = Store(toy_run).read("study.json", dict), results.ledger(toy_run)
    rows = ledger[ledger["campaign"] != ""].copy()
    rows["folder"] = [study["campaigns"][c]["folders"][n - 1] for c, n in zip(rows["campaign"], rows["round"], strict=True)]
    paid = rows.groupby(["folder", "stage"])["paid"].sum()
    shared_pass = (paid.index.get_level_values("stage") == "signals") & np.array([study_folder.endswith("round-001") for study_folder, _ in paid.index])
    assert set(paid[~shared_pass]) == {1}
    assert set(paid[shared_pass]) == {0}  # the pass over the whole pool is paid on its own row
    assert ledger[(ledger["campaign"] == "") & (ledger["phase"] == "score")]["paid"].all()


def test_the_share_of_the_base_pass_is_priced_as_if_scored_alone(bench):
    """Fewer signals cost less than the pass that computed all of them; half of the pool half."""
    everything = bench.signals_for(0, frozenset({"embedding", "mean_entropy"})).cost
    entropy, embedding = (bench.signals_for(0, frozenset({need})).cost for need in ("mean_entropy", "embedding"))
    assert 0 < entropy.flops < everything.flops
    assert entropy.flops + embedding.flops == everything.flops  # in the toy world: nothing is shared between the two
    assert embedding.generated_tokens == 0
    assert entropy.generated_tokens == 90
    assert entropy.seconds / everything.seconds == pytest.approx(entropy.flops / everything.flops)
    alone = ToyScorer()(bench.base, bench.pool().take(bench.rows(0)), frozenset({"mean_entropy"}), seed=0).cost
    assert (entropy.flops, entropy.prompt_tokens, entropy.generated_tokens) == (alone.flops, alone.prompt_tokens, alone.generated_tokens)


def test_only_who_needs_samples_pays_for_them(toy_study, tmp_path):
    from outlay.study import run_study

    root = run_study(toy_study(strategies=["bleuvar", "mean_entropy", "te_delfy", "delfy"], rounds=[1, 2], starts=["cold"]), tmp_path / "run", quiet=True)
    ledger = results.ledger(root)
    table = ledger[(ledger["stage"] == "signals") & (ledger["campaign"] != "")]
    made = {(name.split("-")[0], number): set(part["generated_tokens"]) for (name, number), part in table.groupby(["campaign", "round"])}
    assert {name for name, _ in made} == {"bleuvar", "mean_entropy", "te_delfy"}  # the words of delfy are free
    assert made["bleuvar", 1] == {5 * 90} and made["bleuvar", 2] == {5 * 86}
    assert made["mean_entropy", 1] == made["te_delfy", 1] == {90}


def test_a_label_costs_its_price_and_a_device_hour_its_own(toy_run):
    config = StudyConfig.model_validate(Store(toy_run).read("study.json", dict)["config"])
    table = results.results(toy_run)
    expected = table["labels_spent"] * config.prices.per_annotation + table["seconds"] / 3600 * config.prices.per_device_hour
    pd.testing.assert_series_equal(table["usd"], expected, check_names=False, rtol=1e-12)
