"""Scoring a random subset in each round: what is scored, what may be bought, and the agreement that is written down."""

import numpy as np
import pandas as pd
import pytest

from outlay import results, seeds, subset
from outlay.report import choices, write_report
from outlay.store import Store
from outlay.study import run_study
from outlay.types import Selection, Signals, View


@pytest.fixture(scope="module")
def run(toy_study, tmp_path_factory):
    config = toy_study(strategies=["random", "mean_entropy", "facility_location"], rounds=[4], starts=["warm_all"], scored_share=0.25, reference_curve=False)
    return run_study(config, tmp_path_factory.mktemp("subset") / "run", quiet=True)


def rounds(run, strategy):
    entry = next(e for e in Store(run).read("study.json", dict)["campaigns"].values() if e["strategy"] == strategy and e["rounds"] == 4)
    return entry["folders"]


def test_from_round_2_on_a_quarter_is_scored_and_the_batch_comes_from_it(run):
    store = Store(run)
    ids = sorted_ids(run)
    for number, folder in enumerate(rounds(run, "mean_entropy"), 1):
        values = store.read(f"{folder}/signals.parquet", Signals).columns["mean_entropy"]
        scored = np.flatnonzero(np.isfinite(values))
        left = 90 - 2 * (number - 1)
        assert len(scored) == (90 if number == 1 else -(-left // 4))
        assert {ids.index(name) for name in store.read(f"{folder}/selection.json", Selection).ids} <= set(scored)
        assert (run / folder / "agreement.json").exists() == (number > 1)


def sorted_ids(run):
    from outlay.config import StudyConfig
    from outlay.workbench import Workbench

    study = Store(run).read("study.json", dict)
    bench = Workbench(Store(run), study, StudyConfig.model_validate(study["config"]))
    return bench.pool().take(bench.rows(0)).ids


def test_only_what_was_scored_is_paid_for(run):
    ledger = pd.read_parquet(run / "ledger.parquet")
    mine = ledger[ledger["campaign"].str.startswith("mean_entropy-m4") & (ledger["phase"] == "score")].set_index("round")["prompt_tokens"]
    assert (mine[[2, 3, 4]] < 0.4 * mine[1]).all() and (mine > 0).all()


@pytest.mark.parametrize("strategy", ["random", "facility_location"])
def test_what_needs_no_trained_model_is_chosen_from_all(run, strategy):
    folders = rounds(run, strategy)
    assert len(folders) == 4 and not any((run / folder / "agreement.json").exists() for folder in folders)


def test_the_subset_does_not_depend_on_the_order_of_the_pool_and_changes_from_round_to_round():
    ids = [f"p{i}" for i in range(80)]
    rows = np.arange(3, 80)
    drawn = subset.candidates(ids, rows, 0.2, least=1, seed=5, number=2)
    turned = subset.candidates(ids[::-1], np.sort(79 - rows), 0.2, least=1, seed=5, number=2)
    assert {ids[r] for r in drawn} == {ids[::-1][r] for r in turned} and len(drawn) == 16
    assert set(drawn) != set(subset.candidates(ids, rows, 0.2, least=1, seed=5, number=3))
    assert len(subset.candidates(ids, rows, 0.01, least=7, seed=5, number=2)) == 7, "enough for the batch"


def test_agreement_counts_common_picks_and_ranks_among_all():
    entropy = np.arange(10, dtype=np.float32)
    whole = View(Signals({"mean_entropy": entropy}), np.arange(10), np.empty(0, dtype=np.int64), np.zeros(10, dtype="<U1"), np.zeros(10))
    part = View(whole.signals, np.array([0, 5, 9]), whole.labeled, whole.groups, whole.lottery)
    found = subset.agreement("mean_entropy", whole, part, 2, [seeds.generator(0, "x") for _ in range(2)])
    assert found == {"scored": 3, "unlabeled": 10, "overlap": 0.5, "rank": pytest.approx(0.8), "best_rank": pytest.approx(0.95)}


def test_agreement_is_a_table_of_the_run(run):
    table = choices.agreement(results.results(run), results.agreements(run), 8)
    assert table["strategy"].unique() == ["mean_entropy"] and table["round"].tolist() == [2, 3, 4]
    assert table["overlap"].between(0, 1).all() and (table["rank"] <= table["best_rank"]).all()


@pytest.mark.slow
def test_the_report_shows_the_agreement(run):
    assert "What a subset costs" in write_report(run).read_text()


@pytest.mark.parametrize("strategy", ["facility_location", "k_center", "k_means"])
def test_with_live_embeddings_coverage_is_of_what_was_scored_and_bought(toy_study, tmp_path, strategy):
    run = run_study(toy_study(strategies=[strategy], rounds=[2], scored_share=0.5, embedding="live", reference_curve=False), tmp_path / "run", quiet=True)
    entry = next(e for e in Store(run).read("study.json", dict)["campaigns"].values() if e["rounds"] == 2)
    first, second = (Store(run).read(f"{folder}/selection.json", Selection).ids for folder in entry["folders"])
    scored = np.isfinite(Store(run).read(f"{entry['folders'][1]}/signals.parquet", Signals).columns["embedding"]).all(axis=1)
    assert scored.sum() == 4 + -(-86 // 2)  # the four that were bought, and half of the others
    assert set(first).isdisjoint(second) and {sorted_ids(run).index(name) for name in second} <= set(np.flatnonzero(scored))
