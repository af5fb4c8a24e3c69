"""A study is its run directory: it can be interrupted anywhere, run by any executor and grown, and its tables stay the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from threadpoolctl import threadpool_info

from outlay import config as configs
from outlay import grid, study
from outlay.errors import ConfigError, RunConflict
from outlay.oracles.replay import read_journal
from outlay.results import SECONDS
from outlay.store import Store
from outlay.study import run_study
from outlay.toy import ToyEvaluator, ToyPool, ToyTrainer
from outlay.workbench import Task, Workbench, open_bench, perform

from . import stopping

TABLES = ("results.parquet", "ledger.parquet")


def files(root: Path) -> dict[str, bytes]:
    """Every file of a run but the locks."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and not p.name.endswith(".lock")}


def stages(root: Path) -> list[str]:
    return [name for name in files(root) if name.startswith(("campaigns/", "shared/")) and name.endswith((".json", ".parquet")) and "/model/" not in name]


def tables(root: Path) -> list[bytes]:
    return [(root / name).read_bytes() for name in TABLES]


def reveals(root: Path) -> dict[str, list[str]]:
    return {path.parent.name: [json.loads(line)["id"] for line in path.read_text().split("\n")[:-1]] for path in root.glob("campaigns/*/reveals.jsonl")}


@pytest.fixture(scope="module")
def whole(toy_study, tmp_path_factory):
    """The run directory of the small study, done in one go. Read only."""
    return run_study(toy_study(), tmp_path_factory.mktemp("whole") / "run", quiet=True)


@pytest.fixture
def copied(whole, tmp_path):
    """A finished run to change."""
    return Path(shutil.copytree(whole, tmp_path / "copied"))


def test_a_stage_uses_as_many_blas_threads_as_the_config_says_and_not_one_per_core(toy_study, tmp_path, monkeypatch):
    seen = []

    def measured(bench):
        seen.append({lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"})

    monkeypatch.setattr(Workbench, "do_tfidf", measured)
    for threads in (1, 2):
        study.set_up(toy_study(runtime={"threads": threads}), Store(tmp_path / f"run-{threads}"))
        perform(Task(str(tmp_path / f"run-{threads}"), "tfidf"))
    assert seen == [{1}, {2}]


def test_the_limit_reaches_a_blas_that_only_the_stage_would_load(toy_study, tmp_path):
    """In a new process, as in an executor's: SciPy's BLAS is another one than NumPy's."""
    study.set_up(toy_study(), Store(tmp_path / "run"))
    code = """
import sys
from outlay.workbench import Task, Workbench, perform

def measured(bench):
    import scipy.linalg
    from threadpoolctl import threadpool_info
    print({lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"})

Workbench.do_tfidf = measured
perform(Task(sys.argv[1], "tfidf"))
"""
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], env=os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "{1}"


# -- resume ----------------------------------------------------------------------------------------------------------------


def test_the_same_config_gives_the_same_bytes(whole, toy_study, tmp_path):
    again = run_study(toy_study(), tmp_path / "again", quiet=True)
    assert files(again) == files(whole)


def test_running_a_finished_study_again_changes_nothing(copied, toy_study):
    before = {p: p.stat().st_mtime_ns for p in copied.rglob("*") if p.is_file() and p.suffix in (".json", ".jsonl", ".npy")}
    bytes_before = files(copied)
    run_study(toy_study(), copied, quiet=True)
    assert files(copied) == bytes_before
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize("trial", range(6))
def test_lost_stage_files_are_made_again_to_the_same_bytes(copied, whole, toy_study, trial):
    rng = np.random.default_rng(trial)
    lost = [name for name in stages(copied) if not name.startswith(("shared/pool", "shared/vault", "shared/tests"))]
    for name in rng.choice(lost, size=rng.integers(1, len(lost)), replace=False):
        (copied / name).unlink()
    for folder in copied.glob("campaigns/*/*/model"):
        if rng.random() < 0.5:
            shutil.rmtree(folder)
    run_study(toy_study(), copied, quiet=True)
    assert tables(copied) == tables(whole)
    found, expected = files(copied), files(whole)
    assert [n for n in stages(whole) if found[n] != expected[n]] == []
    assert reveals(copied) == reveals(whole)


@pytest.mark.parametrize("after", [pytest.param(n, marks=[] if n in (0, 13, 55) else pytest.mark.slow) for n in (0, 1, 2, 3, 5, 8, 13, 21, 34, 45, 55)])
def test_a_study_stopped_before_any_write_ends_in_the_same_bytes(whole, toy_study, tmp_path, monkeypatch, after):
    """`after` files are written, then the program stops; and again after as many more, until it is done."""
    from outlay import results, shards

    for attempt in range(100):
        try:
            with stopping.after(after if attempt < 3 else 10**9, monkeypatch, study, results, shards):
                run_study(toy_study(), tmp_path / "run", quiet=True)
            break
        except stopping.Stop:
            continue
    assert attempt in (1, 2, 3)
    found, expected = files(tmp_path / "run"), files(whole)
    assert {n: found[n] for n in expected} == expected
    assert set(found) == set(expected)


def test_no_answer_is_bought_twice_when_a_study_is_stopped_after_a_reveal(whole, toy_study, tmp_path, monkeypatch):
    from outlay.oracles.replay import Replay

    real = Replay.__call__

    def stopped(self, requests):
        real(self, requests)
        raise stopping.Stop

    monkeypatch.setattr(Replay, "__call__", stopped)
    for _ in range(3):
        with pytest.raises(stopping.Stop):
            run_study(toy_study(), tmp_path / "run", quiet=True)
    monkeypatch.undo()
    run_study(toy_study(), tmp_path / "run", quiet=True)
    assert reveals(tmp_path / "run") == reveals(whole)


def test_a_pool_that_changed_before_the_study_started_is_taken_as_it_is_now(toy_study, tmp_path, monkeypatch):
    """A first attempt died between the pool's copy and study.json."""
    run = tmp_path / "run"
    run_study(toy_study(pool={"use": "toy", "size": 100}), run, quiet=True)
    shutil.rmtree(run / "campaigns")
    for name in ("study.json", *TABLES):
        (run / name).unlink()
    for path in (run / "shared").iterdir():
        if path.name not in ("pool.parquet", "vault.parquet", "tests"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run_study(toy_study(), run, quiet=True)
    assert pq.read_table(run / "shared/pool.parquet").num_rows == 120
    assert pq.read_table(run / "shared/vault.parquet").num_rows == 120


def test_temporary_files_of_killed_processes_are_swept(copied, toy_study):
    left = copied / "campaigns/x/round-001/.model.json.123.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    run_study(toy_study(), copied, quiet=True)
    assert not left.exists()


@pytest.mark.slow
def test_processes_give_the_bytes_of_serial(whole, toy_study, tmp_path):
    run = run_study(toy_study(executor="processes", workers=2), tmp_path / "run", quiet=True)
    assert tables(run) == tables(whole)
    found, expected = files(run), files(whole)
    assert set(found) == set(expected)
    assert {name for name in found if found[name] != expected[name]} == {"study.json"}  # which names the executor


# -- growing ---------------------------------------------------------------------------------------------------------------

BIG = {"strategies": ["random", "mean_entropy"], "rounds": [1, 2], "starts": ["cold", "warm_all"], "seeds": [0, 1], "budgets": [8, 12], "schedules": ["even"]}
MORE = {
    "seeds": ({"seeds": [0]}, {"seeds": [0, 1, 2]}),
    "strategies": ({"strategies": ["random"]}, {"strategies": ["random", "mean_entropy", "facility_location"]}),
    "rounds": ({"rounds": [2]}, {"rounds": [1, 2, 4]}),
    "starts": ({"starts": ["warm_all"]}, {"starts": ["cold", "warm_all", "warm_new"]}),
    "budgets": ({"budgets": [12]}, {"budgets": [8, 12, 16]}),
    "schedules": ({"schedules": ["geometric"]}, {"schedules": ["even", "geometric"]}),
}
TESTS = {
    "held_out": {"use": "toy", "source": {"use": "toy", "size": 40, "split": "test"}},
    "balanced": {"use": "toy", "source": {"use": "toy", "size": 30, "split": "test", "mixture": "balanced"}},
}


def same_results(grown: Path, at_once: Path) -> None:
    keys = ["strategy", "rounds", "schedule", "start", "seed", "budget", "round", "benchmark", "reference"]
    a, b = (pd.read_parquet(root / "results.parquet").sort_values(keys).reset_index(drop=True) for root in (grown, at_once))
    measured = [c for c in SECONDS if c in a]
    pd.testing.assert_frame_equal(a.drop(columns=measured), b.drop(columns=measured))
    pd.testing.assert_frame_equal(a[measured], b[measured], rtol=1e-9)
    keys = ["campaign", "round", "stage"]
    a, b = (pd.read_parquet(root / "ledger.parquet").query("campaign != ''").sort_values(keys).reset_index(drop=True) for root in (grown, at_once))
    pd.testing.assert_frame_equal(a.drop(columns=[*measured, "paid"]), b.drop(columns=[*measured, "paid"]))


@pytest.mark.parametrize("what", [pytest.param(what, marks=[] if what == "budgets" else pytest.mark.slow) for what in MORE])
def test_a_grown_study_has_the_tables_of_the_big_one_at_once(toy_study, tmp_path, what):
    small, more = MORE[what]
    base = BIG | {"seeds": [0]}
    run_study(toy_study(**base | small), tmp_path / "grown", quiet=True)
    before = reveals(tmp_path / "grown")
    run_study(toy_study(**base | more), tmp_path / "grown", quiet=True)
    run_study(toy_study(**base | more), tmp_path / "big", quiet=True)
    same_results(tmp_path / "grown", tmp_path / "big")
    after = reveals(tmp_path / "grown")
    assert {name: after[name] for name in before} == before


@pytest.mark.slow
def test_a_benchmark_can_be_added_although_earlier_weights_are_gone(toy_study, tmp_path):
    run_study(toy_study(evaluators={"held_out": TESTS["held_out"]}), tmp_path / "grown", quiet=True)
    run_study(toy_study(evaluators=TESTS), tmp_path / "grown", quiet=True)
    run_study(toy_study(evaluators=TESTS), tmp_path / "big", quiet=True)
    same_results(tmp_path / "grown", tmp_path / "big")


def test_a_smaller_grid_in_a_later_call_takes_nothing_away(copied, whole, toy_study):
    run_study(toy_study(strategies=["random"], rounds=[1]), copied, quiet=True)
    assert tables(copied) == tables(whole)


def test_explicit_schedules_are_resumed_without_touching_the_study_file(toy_study, tmp_path):
    config = toy_study(schedules=[[5, 3]], rounds=[2])
    run = run_study(config, tmp_path / "run", quiet=True)
    before = (run / "study.json").stat().st_mtime_ns
    run_study(config, run, quiet=True)
    assert (run / "study.json").stat().st_mtime_ns == before


def test_prices_may_change_and_only_dollars_do(copied, whole, toy_study):
    run_study(toy_study(prices={"per_annotation": 3.0, "per_device_hour": 7.0}), copied, quiet=True)
    dear, cheap = (pd.read_parquet(root / "results.parquet") for root in (copied, whole))
    pd.testing.assert_frame_equal(dear.drop(columns="usd"), cheap.drop(columns="usd"))
    np.testing.assert_allclose(dear["usd"], 3 * dear["labels_spent"] + 7 * dear["seconds"] / 3600, rtol=1e-12)
    assert stages(copied) == stages(whole)


# -- refusing --------------------------------------------------------------------------------------------------------------

DIFFERENT = {
    "trainer": ({"trainer": {"use": "toy", "epochs": 3}}, "trainer was .*2.* is .*3"),
    "pool": ({"pool": {"use": "toy", "size": 121}}, "pool was .*120.* is .*121"),
    "share": ({"pool_per_seed": 80}, "pool_per_seed was 90, is 80"),
    "evaluator": ({"evaluators": {"held_out": {"use": "toy", "source": {"use": "toy", "size": 41, "split": "test"}}}}, "evaluator 'held_out' was .*40.* is .*41"),
    "runtime": ({"runtime": {"minibatch": 8}}, "runtime was .* is "),
    "embedding": ({"embedding": "live"}, "embedding was 'frozen', is 'live'"),
    "name": ({"name": "other"}, "name was 'small', is 'other'"),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_another_study_is_refused_with_the_difference_and_nothing_is_changed(copied, whole, toy_study, what):
    change, says = DIFFERENT[what]
    with pytest.raises(RunConflict, match=says):
        run_study(toy_study(**change, seeds=[0, 1]), copied, quiet=True)
    assert files(copied) == files(whole)


@pytest.fixture
def from_files(toy_study, tmp_path):
    """A study whose pool and test are files, run once. -> (config, its run directory, the two files)"""
    paths = {}
    for split, size in (("pool", 60), ("test", 20)):
        paths[split] = tmp_path / f"{split}.jsonl"
        rows = ToyPool(size=size, split=split)().to_pylist()
        paths[split].write_text("".join(json.dumps({"prompt": r["text"], "response": r["response"]}) + "\n" for r in rows))
    test = {"use": "toy", "source": {"use": "file", "path": str(paths["test"])}}
    config = toy_study(pool={"use": "file", "path": str(paths["pool"])}, pool_per_seed=None, evaluators={"held_out": test}, strategies=["random"], starts=["cold"])
    return config, run_study(config, tmp_path / "run", quiet=True), paths


@pytest.mark.parametrize(
    ("split", "old", "new", "says"),
    [
        ("pool", '"prompt": "', '"prompt": "x ', "the pool has changed since"),
        ("pool", '"response": "north"', '"response": "south"', "the responses of the pool have changed since"),
        ("test", '"response": "north"', '"response": "south"', "the items of evaluator 'held_out' have changed since"),
    ],
)
def test_a_file_that_changed_under_its_name_is_refused_and_nothing_is_changed(from_files, split, old, new, says):
    config, run, paths = from_files
    before = files(run)
    text = paths[split].read_text()
    assert old in text
    paths[split].write_text(text.replace(old, new, 1))
    with pytest.raises(RunConflict, match=says):
        run_study(config, run, quiet=True)
    assert files(run) == before


def test_a_pool_without_groups_and_with_a_test_from_a_file_is_run(from_files):
    table = pd.read_parquet(from_files[1] / "results.parquet")
    assert table["group_coverage"].isna().all()
    assert table["nearest_distance_model"][table["round"] > 0].notna().all()


def test_a_second_process_on_a_run_directory_is_refused_with_the_pid(copied, whole, toy_study):
    code = "import sys, time; from pathlib import Path; from outlay.store import Store\nwith Store(Path(sys.argv[1])).lock('.lock'): print(flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(copied)], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(RunConflict, match=rf"pid {other.pid}\b"):
            run_study(toy_study(seeds=[0, 1]), copied, quiet=True)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert files(copied) == files(whole)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"budgets": [8, 91]}, "budget 91 is above the 90 prompts"),
        ({"pool_per_seed": 121}, "pool_per_seed 121 is more than the 120 prompts"),
        ({"rounds": [1, 9]}, "9 rounds cannot share a budget of 8"),
        ({"strategies": ["rndom"]}, "did you mean 'random'"),
        ({"strategies": ["facility_location(kernl='rbf')"]}, "no option 'kernl'"),
        ({"trainer": {"use": "toy", "epoch": 3}}, "did you mean 'epochs'"),
        ({"executor": "procs"}, "unknown executor 'procs'"),
        ({"schedules": [[4, 4]], "rounds": [1, 3]}, "no cell in the grid"),
        ({"schedules": [[4, 5]], "rounds": [2]}, "must have 2 positive batch sizes that sum to 8"),
        ({"evaluators": {"held_out": {"use": "toy"}}}, "evaluator 'held_out' needs the key 'source'"),
    ],
)
def test_a_study_that_cannot_be_run_is_refused_before_anything_is_written(toy_study, tmp_path, change, says):
    with pytest.raises(ConfigError, match=says):
        run_study(toy_study(**change), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run/study.json").exists()
    assert not (tmp_path / "run/shared").exists()


def test_a_run_directory_that_is_a_file_is_refused(toy_study, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match=r"run directory .* cannot be made"):
        run_study(toy_study(), tmp_path / "run", quiet=True)


# -- sharing ---------------------------------------------------------------------------------------------------------------


def test_shared_prefixes_are_computed_once_and_give_the_numbers_of_each_alone(toy_study, tmp_path, monkeypatch):
    """At budgets 8 and 16, m = 1 and 2: the round of 8 of (8,) and of (8, 8) is one."""
    plan = {"strategies": ["mean_entropy"], "starts": ["cold"], "rounds": [1, 2], "reference_curve": False}
    trained, tested = [], []
    real_train, real_test = ToyTrainer.__call__, ToyEvaluator.__call__
    monkeypatch.setattr(ToyTrainer, "__call__", lambda *a, **k: trained.append(1) or real_train(*a, **k))
    monkeypatch.setattr(ToyEvaluator, "__call__", lambda *a, **k: tested.append(1) or real_test(*a, **k))
    both = run_study(toy_study(**plan, budgets=[8, 16]), tmp_path / "both", quiet=True)
    assert len(trained) == 5  # (8,), (8, 8) share one; (4, 4); (16,)
    assert len(tested) == 6  # and the base
    assert len(list(both.glob("campaigns/*/round-*/model.json"))) == 5
    assert sum(map(len, reveals(both).values())) == 8 + 8 + 8 + 16
    table = pd.read_parquet(both / "results.parquet")
    for budget in (8, 16):
        alone = run_study(toy_study(**plan, budgets=[budget]), tmp_path / str(budget), quiet=True)
        pd.testing.assert_frame_equal(table[table["budget"] == budget].reset_index(drop=True), pd.read_parquet(alone / "results.parquet"))


def test_the_base_is_scored_once_for_all_seeds_strategies_and_budgets(toy_study, tmp_path, monkeypatch):
    from outlay.toy import ToyScorer

    scored = []
    real = ToyScorer.__call__
    monkeypatch.setattr(ToyScorer, "__call__", lambda self, model, pool, needs, **k: scored.append((model.weights, len(pool))) or real(self, model, pool, needs, **k))
    run_study(toy_study(strategies=["random", "mean_entropy", "facility_location"], rounds=[1], seeds=[0, 1, 2], budgets=[4, 8]), tmp_path / "run", quiet=True)
    assert sorted(scored) == [(None, 20), (None, 50), (None, 50)]  # the pool of 120 in shards of 50


def test_seeds_draw_different_pools_of_the_same_size_and_share_the_test(toy_study, tmp_path):
    run = run_study(toy_study(strategies=["random"], rounds=[1], seeds=4, starts=["cold"]), tmp_path / "run", quiet=True)
    bench = open_bench(str(run.resolve()), 0)
    shares = [set(bench.rows(seed).tolist()) for seed in range(4)]
    assert {len(share) for share in shares} == {90}
    assert len({frozenset(share) for share in shares}) == 4
    bought = reveals(run)
    ids = bench.pool().ids
    for seed in range(4):
        assert set(bought[f"random-m1-even-cold-b8-s{seed}"]) <= {ids[row] for row in shares[seed]}


def test_a_campaign_folder_tells_its_whole_story(whole):
    """Each campaign's journal holds exactly what its own rounds asked for."""
    entries = Store(whole).read("study.json", dict)["campaigns"]
    for name, entry in entries.items():
        own = [f for f in entry["folders"] if f.split("/")[1] == name]
        asked = [key for f in own for key in json.loads((whole / f / "selection.json").read_text())["ids"]]
        assert list(read_journal(whole / "campaigns" / name / "reveals.jsonl")) == asked


def test_nothing_in_a_run_names_the_folder_that_it_is_in(whole):
    assert [name for name, raw in files(whole).items() if str(whole.parent).encode() in raw] == []


def test_the_toy_config_of_the_repository_is_valid():
    config = configs.load(Path(__file__).parent.parent / "configs/toy.yaml")
    study.check(config)
    assert len(grid.asked(config)) == 3 * 3 * 2 * 3


def test_the_working_directory_does_not_matter(whole, toy_study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_study(toy_study(), Path("relative"), quiet=True)
    assert tables(run) == tables(whole)
    assert os.listdir(tmp_path) == ["relative"]


def test_a_study_without_a_test_is_refused(toy_study):
    with pytest.raises(ConfigError, match="evaluators: a study needs at least one test"):
        study.check(toy_study().model_copy(update={"evaluators": {}}))
