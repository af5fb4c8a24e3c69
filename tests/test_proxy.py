"""A smaller model scores the pool in the target's place: what it learns, what is bought, what is paid, and how far the two agree."""

import json
import shutil
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from outlay import campaign as campaigns
from outlay import caps, progress, proxy, results, seeds, shards, study
from outlay.campaign import Campaign
from outlay.config import StudyConfig
from outlay.errors import ConfigError, DataError, RunConflict
from outlay.oracles.replay import Replay
from outlay.report import choices, write_report
from outlay.store import Store
from outlay.study import run_study
from outlay.toy import ToyScorer, ToyTrainer
from outlay.types import Cost, Selection, Signals, View
from outlay.workbench import Workbench

from . import stopping

COSTS = ["seconds", "flops", "prompt_tokens", "generated_tokens", "trained_tokens"]


def study_of(toy_study, **changes):
    values = {"proxy": "toy-small", "strategies": ["mean_entropy", "facility_location"], "rounds": [3], "starts": ["cold", "warm_all"], "budgets": [12], "reference_curve": False}
    return toy_study(**values | changes)


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and not p.name.endswith(".lock")}


@pytest.fixture(scope="module")
def run(toy_study, tmp_path_factory):
    """A finished study with a proxy. Read only."""
    return run_study(study_of(toy_study), tmp_path_factory.mktemp("proxy") / "run", quiet=True)


@pytest.fixture
def copied(run, tmp_path):
    """A finished run to change."""
    return Path(shutil.copytree(run, tmp_path / "copied"))


# -- what the two models do ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spy:
    """Toy scorer and trainer; remember who did what."""

    scored: list = field(default_factory=list)
    trained: list = field(default_factory=list)

    def score(self, model, pool, needs, *, seed):
        self.scored.append((model.base, model.weights is not None, pool.ids))
        return ToyScorer()(model, pool, needs, seed=seed)

    def train(self, start, prompts, annotations, out, *, seed):
        self.trained.append((start.base, start.weights and Path(start.weights).parent.name, [p.id for p in prompts]))
        return ToyTrainer(epochs=2)(start, prompts, annotations, out, seed=seed)


@pytest.fixture
def go(run, tmp_path):
    """go(campaign, **parts of the desk) -> (its rounds, what was bought in each, the spy), in a folder of its own: tmp_path / "alone"."""
    record = Store(run).read("study.json", dict)
    bench = Workbench(Store(run), record, StudyConfig.model_validate(record["config"]))

    def run_it(campaign, **parts):
        spy, home = Spy(), Store(tmp_path / "alone")
        desk = bench.desk(campaign, [f"r{n}" for n in range(1, campaign.rounds + 1)], campaign.rounds)
        oracle = Replay(vault=run / "shared/vault.parquet", journal=home.root / "reveals.jsonl")
        mine = {"store": home, "oracle": oracle, "shared": frozenset(), "shard": 1000, "scorer": spy.score, "trainer": spy.train, "proxy": replace(desk.proxy, trainer=spy.train)}
        rounds = list(campaigns.run(campaign, replace(desk, **mine | parts)))
        bought = [list(home.read(f"r{r.number}/selection.json", Selection).ids) for r in rounds]
        return rounds, bought, spy

    return run_it


@pytest.mark.parametrize(("start", "begins"), [("cold", [None, None]), ("warm_all", [None, "r2"]), ("warm_new", [None, "r2"])])
def test_the_proxy_learns_exactly_what_was_bought_before_and_begins_as_start_says(go, start, begins):
    _, bought, spy = go(Campaign("mean_entropy", 3, 12, start=start))
    lessons = bought[:2] if start == "warm_new" else [bought[0], bought[0] + bought[1]]
    mine = [(begin, ids) for base, begin, ids in spy.trained if base == "toy-small"]
    assert mine == [(begin, sorted(lesson)) for begin, lesson in zip(begins, lessons, strict=True)]
    assert sum(base == "toy" for base, _, _ in spy.trained) == 3


def test_the_trained_proxy_scores_all_that_is_left_and_the_target_a_sample_of_it(go, monkeypatch):
    monkeypatch.setattr(proxy, "SAMPLE", 20)
    _, bought, spy = go(Campaign("mean_entropy", 3, 12))
    by_proxy, by_target = ([(trained, ids) for base, trained, ids in spy.scored if base == name] for name in ("toy-small", "toy"))
    assert [(trained, len(ids)) for trained, ids in by_proxy] == [(True, 86), (True, 82)]
    assert [(trained, len(ids)) for trained, ids in by_target] == [(False, 20), (True, 20), (True, 20)]
    gone = [set(chain(*bought[:n])) for n in range(3)]
    assert not any(before & set(ids) for before, (_, ids) in zip(gone, by_target, strict=True))
    assert by_target[1][1] != by_target[2][1]


@pytest.mark.parametrize("strategy", ["random", "facility_location"])
def test_no_proxy_is_trained_for_a_strategy_that_would_not_read_it(go, strategy):
    _, _, spy = go(Campaign(strategy, 2, 8, start="warm_all"))
    assert [base for base, _, _ in spy.trained] == ["toy", "toy"] and spy.scored == []


def bought(root: Path) -> pd.DataFrame:
    return results.bought(root)[["campaign", "round", "rank", "id", "score"]]


def test_what_is_bought_is_what_a_study_of_the_proxy_alone_would_buy(run, toy_study, tmp_path):
    alone = run_study(study_of(toy_study, model="toy-small", proxy=None), tmp_path / "run", quiet=True)
    pd.testing.assert_frame_equal(bought(run), bought(alone))


@pytest.mark.slow
def test_live_embeddings_and_gradients_are_the_proxys(toy_study, tmp_path):
    changes = {"strategies": ["facility_location", "badge"], "embedding": "live"}
    roots = [run_study(study_of(toy_study, **changes, **more), tmp_path / name, quiet=True) for name, more in (("with", {}), ("alone", {"model": "toy-small", "proxy": None}))]
    pd.testing.assert_frame_equal(*map(bought, roots))


def test_what_is_trained_and_measured_is_the_target(toy_run, toy_study, tmp_path):
    """Random buys the same with and without a proxy: so it gets the same accuracies and diversity."""
    root = run_study(toy_study(strategies=["random"], budgets=[8, 16], proxy="toy-small", reference_curve=False), tmp_path / "run", quiet=True)
    found, expected = results.results(root), results.results(toy_run).query("strategy == 'random' and not reference")
    pd.testing.assert_frame_equal(found, expected.reset_index(drop=True))
    assert not (root / "shared/signals-0").exists(), "a proxy whose signals nobody reads does not read the pool"


def test_a_model_that_only_has_another_name_agrees_in_everything(toy_study, tmp_path):
    root = run_study(study_of(toy_study, strategies=["mean_entropy", "uncertainty_filtered_facility_location"], rounds=[2], starts=["cold"], proxy="toy-too"), tmp_path / "run", quiet=True)
    found = results.proxies(root)
    assert (found["overlap"] == 1).all() and found.loc[found["signal"] == "mean_entropy", "correlation"].to_numpy() == pytest.approx(1)
    assert set(found["signal"]) == {"mean_entropy", "embedding"} and found.loc[found["signal"] == "embedding", "correlation"].isna().all()


# -- the agreement ---------------------------------------------------------------------------------------------------------


def view_of(values: list[float], unlabeled: list[int]) -> View:
    n = len(values)
    return View(Signals({"mean_entropy": np.array(values, dtype=np.float32)}), np.array(unlabeled), np.empty(0, dtype=np.int64), np.zeros(n, dtype="<U1"), np.zeros(n))


def compared(mine: list[float], theirs: list[float], rows: list[int], k: int) -> dict:
    target = Signals({"mean_entropy": np.array(theirs, dtype=np.float32)}, cost=Cost(flops=7))
    ids = [f"p{i}" for i in range(len(mine))]
    return proxy.agreement("mean_entropy", view_of(mine, list(range(len(mine)))), target, np.zeros((len(mine), 2)), np.array(rows), k, ids, [seeds.generator(0, "x") for _ in range(2)])


def test_agreement_is_of_the_sample_alone():
    """Outside of the sample the proxy would choose others, and the target has no numbers."""
    mine, theirs = [1, 2, 3, 4, 5, 6, 90, 99], [2, 1, 3, 5, 4, 6, np.nan, np.nan]
    found = compared(mine, theirs, [0, 1, 2, 3, 4, 5], 2)
    assert found == {"sample": 6, "scored": 8, "picks": 2, "overlap": 0.5, "chance": 1 / 3, "correlation": {"mean_entropy": pytest.approx(1 - 6 * 4 / 210)}, "cost": {**found["cost"], "flops": 7}}


def test_from_a_sample_as_large_a_share_is_picked_as_the_batch_is_and_not_too_few():
    n = 1000
    values = list(range(n))
    picks = [compared(values, values, list(range(0, n, step)), k)["picks"] for step, k in ((10, 500), (10, 30), (10, 7), (1, 30))]
    assert picks == [50, proxy.PICKS, 7, 30]


def test_signals_that_are_all_equal_have_no_correlation():
    assert compared([1, 1, 1, 1], [1, 2, 3, 4], [0, 1, 2, 3], 1)["correlation"] == {"mean_entropy": None}


def test_a_target_that_says_nan_names_the_prompt():
    with pytest.raises(DataError, match="prompt 'p5': signal 'mean_entropy' is nan"):
        compared([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, np.nan], [1, 3, 5], 1)


def test_the_sample_does_not_depend_on_the_order_of_the_pool_and_changes_from_round_to_round():
    ids = [f"p{i}" for i in range(900)]
    rows = np.arange(5, 900)
    drawn, turned = proxy.sample(ids, rows, seed=3, number=2), proxy.sample(ids[::-1], np.sort(899 - rows), seed=3, number=2)
    assert {ids[r] for r in drawn} == {ids[::-1][r] for r in turned} and len(drawn) == proxy.SAMPLE
    assert set(drawn) != set(proxy.sample(ids, rows, seed=3, number=3))


def test_agreement_is_a_table_of_the_run(run):
    table = choices.proxies(results.results(run), results.proxies(run), 12)
    mine = table[(table["strategy"] == "mean_entropy") & (table["start"] == "cold")]
    assert mine["round"].tolist() == [1, 2, 3] and mine["sample"].tolist() == [90, 86, 82]
    assert mine["overlap"].between(0, 1).all() and mine["correlation"].between(-1, 1).all() and (mine["correlation"] < 1).any()


@pytest.mark.slow
def test_the_report_shows_the_agreement(copied):
    assert "What the proxy costs" in write_report(copied).read_text()


# -- what it costs ---------------------------------------------------------------------------------------------------------


def test_from_a_cold_start_only_the_last_training_of_the_target_is_charged(run):
    table = results.ledger(run)
    for start, phases in (("cold", ["measure", "measure", "train"]), ("warm_all", ["train"] * 3)):
        mine = table[table["campaign"] == f"mean_entropy-m3-even-{start}-b12-s0"].set_index("stage")
        assert mine.loc["model", "phase"].tolist() == phases
        assert mine.loc["proxy-model", "phase"].tolist() == ["train"] * 2 and set(mine.loc["proxy-agreement", "phase"]) == {"measure"}
    assert set(table.loc[table["stage"].str.startswith("shared/space"), "phase"]) == {"measure"}


def test_a_campaign_costs_what_its_stages_cost_without_measurement(run):
    table, ledger = results.results(run), results.ledger(run)
    for name, rows in table.groupby("campaign"):
        stages = ledger[(ledger["campaign"] == name) & (ledger["phase"] != "measure")]
        last = rows[rows["round"] == rows["round"].max()].iloc[0]
        np.testing.assert_allclose(last[COSTS].astype(float), stages[COSTS].sum().astype(float), rtol=1e-12, err_msg=name)


def test_each_round_is_charged_as_if_the_campaign_had_ended_there(run, toy_study, tmp_path):
    short = results.results(run_study(study_of(toy_study, strategies=["mean_entropy"], rounds=[2], starts=["cold"], budgets=[8]), tmp_path / "run", quiet=True))
    long = results.results(run).query("strategy == 'mean_entropy' and start == 'cold'")
    for number in (1, 2):
        a, b = (table.set_index("round").loc[number, COSTS] for table in (short, long))
        pd.testing.assert_series_equal(a, b)


def test_the_meter_reads_what_the_ledger_says_was_paid(run):
    table, found = results.ledger(run), caps.Meter(Store(run)).spent()
    for name in COSTS:
        assert getattr(found, name) == pytest.approx(table.loc[table["paid"], name].sum(), rel=1e-12), name


def test_progress_counts_stages_that_will_be_there_each_once(run):
    marks = progress.stage_files(Store(run).read("study.json", dict))
    assert len(set(marks)) == len(marks) and all((run / mark).exists() for mark in marks)
    assert {"shared/space/shard-00002.parquet", "campaigns/mean_entropy-m3-even-cold-b12-s0/round-003/proxy-model.json"} <= set(marks)


# -- stages ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 4, 9, 17, 26])
def test_a_study_with_a_proxy_stopped_before_any_write_ends_in_the_same_bytes(run, toy_study, tmp_path, monkeypatch, after):
    stops = 0
    while True:
        try:
            with stopping.after(after if stops < 4 else 10**9, monkeypatch, study, results, shards):
                run_study(study_of(toy_study), tmp_path / "run", quiet=True)
            break
        except stopping.Stop:
            stops += 1
    assert stops and files(tmp_path / "run") == files(run)


@pytest.mark.parametrize("trial", [pytest.param(n, marks=[] if n == 0 else pytest.mark.slow) for n in range(4)])
def test_lost_stages_and_weights_are_made_again_to_the_same_bytes(copied, run, toy_study, trial):
    rng = np.random.default_rng(trial)
    lost = [name for name in files(run) if name.startswith("campaigns/") and name.endswith((".json", ".parquet")) and Path(name).parent.name not in ("model", "proxy")]
    for name in rng.choice(lost, size=len(lost) // 3, replace=False):
        (copied / name).unlink()
    for folder in [*copied.glob("campaigns/*/*/model"), *copied.glob("campaigns/*/*/proxy")]:
        if rng.random() < 0.5:
            shutil.rmtree(folder)
    run_study(study_of(toy_study), copied, quiet=True)
    found, expected = files(copied), files(run)
    stages = [name for name in expected if "/proxy/" not in name and "/model/" not in name]  # weights that nothing asks for again stay away
    assert [name for name in stages if found.get(name) != expected[name]] == []


def test_a_training_of_the_proxy_that_was_killed_is_not_taken_for_weights(go, tmp_path):
    @dataclass(frozen=True)
    class Killed:
        def __call__(self, start, prompts, annotations, out, *, seed):
            out.mkdir(parents=True)
            (out / "weights.npy").write_bytes(b"half")
            raise KeyboardInterrupt

    plan = Campaign("mean_entropy", 2, 8)
    with pytest.raises(KeyboardInterrupt):
        go(plan, proxy=proxy.Proxy(campaigns.Model("toy-small"), Killed(), np.zeros((90, 2))))
    assert not (tmp_path / "alone/r2/proxy").exists()
    go(plan)
    assert (tmp_path / "alone/r2/proxy-model.json").exists() and not list((tmp_path / "alone").rglob(".training*"))


def test_earlier_proxies_are_deleted_as_the_target_is(go, tmp_path):
    """r2's too, unless another campaign branches off there."""
    for shared, left in (({"r2"}, ["r2", "r3"]), ((), ["r3"])):  # what is there of the first run is read again by the second
        go(Campaign("mean_entropy", 3, 12, start="warm_all"), shared=frozenset(shared))
        assert sorted(p.parent.name for p in (tmp_path / "alone").glob("*/proxy")) == left


@pytest.mark.slow
def test_a_grown_study_branches_off_to_what_it_would_have_been_at_once(toy_study, tmp_path):
    """The longer campaign goes on from two rounds of the shorter one, whose proxies were deleted."""
    small, big = ({"strategies": ["mean_entropy"], "starts": ["warm_all"], "rounds": m, "budgets": b} for m, b in (([2], [8]), ([2, 3], [8, 12])))
    for asked, name in ((small, "grown"), (big, "grown"), (big, "once")):
        run_study(study_of(toy_study, **asked), tmp_path / name, quiet=True)
    shared = json.loads((tmp_path / "grown/study.json").read_text())["shared_folders"]
    assert "campaigns/mean_entropy-m2-even-warm_all-b8-s0/round-002" in shared
    tables = [results.results(tmp_path / name).sort_values(["strategy", "budget", "rounds", "round"]).reset_index(drop=True) for name in ("grown", "once")]
    pd.testing.assert_frame_equal(*(table.drop(columns=["seconds", "usd"]) for table in tables))


# -- what is refused, and what stays ---------------------------------------------------------------------------------------


def test_another_proxy_is_another_study(copied, toy_study):
    with pytest.raises(RunConflict, match="proxy was 'toy-small', is 'toy-other'"):
        run_study(study_of(toy_study, proxy="toy-other"), copied, quiet=True)
    with pytest.raises(RunConflict, match="proxy was 'toy-small', is None"):
        run_study(study_of(toy_study, proxy=None), copied, quiet=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"proxy": "toy"}, "proxy 'toy' is the model itself"),
        pytest.param({"proxy": "tiny", "model": "tiny", "scorer": "llm", "trainer": "sft"}, "proxy 'tiny' is the model itself", marks=pytest.mark.slow),
        ({"proxy": "/no/such/folder", "model": "tiny", "scorer": "llm", "trainer": "sft"}, "proxy: model folder /no/such/folder does not exist"),
        ({"proxy": "toy-small", "proxy_trainer": {"use": "toy", "epoch": 1}}, "trainer 'toy' has no option 'epoch'"),
        ({"proxy": None, "proxy_trainer": "toy"}, "proxy_trainer has no effect without a proxy"),
    ],
)
def test_a_proxy_that_cannot_serve_is_refused_before_anything_is_read(toy_study, changes, said):
    with pytest.raises(ConfigError, match=said):
        study.check(study_of(toy_study, **changes))


def test_a_run_from_before_there_were_proxies_goes_on_without_a_new_stage(toy_study, tmp_path):
    config = toy_study(strategies=["mean_entropy"], rounds=[2], starts=["cold"], reference_curve=False)
    root = run_study(config, tmp_path / "run", quiet=True)
    record = json.loads((root / "study.json").read_text())
    del record["config"]["proxy"], record["config"]["proxy_trainer"]
    (root / "study.json").write_text(json.dumps(record))
    before = {name: data for name, data in files(root).items() if name != "study.json"}
    run_study(config, root, quiet=True)
    assert {name: data for name, data in files(root).items() if name != "study.json"} == before
    assert "proxy" not in Store(root).read("study.json", dict) and not list(root.rglob("*proxy*")) and not (root / "shared/space").exists()
