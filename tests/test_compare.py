"""Two runs side by side: differences against the results tables, what is paired and what is not, what is refused."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from outlay import config as configs
from outlay.errors import ConfigError
from outlay.measure.stats import unpaired_difference
from outlay.report.compare import compare
from outlay.study import run_study

TOY = Path(__file__).parent.parent / "configs" / "toy.yaml"
SMALL = ["pool.size=120", "pool_per_seed=90", "random_sets=3", "budgets=[8]", "rounds=[1,2]", "starts=[cold]", "strategies=[random,mean_entropy]", "seeds=2", "reference_curve=false"]


def study(root, *overrides):
    return run_study(configs.load(TOY, [*SMALL, *overrides]), root, quiet=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same study, of which the second trains for less, has one more seed and no two rounds."""
    folder = tmp_path_factory.mktemp("pair")
    return study(folder / "long"), study(folder / "short", "trainer={use: toy, epochs: 1, learning_rate: 0.1}", "seeds=3", "rounds=[1]")


@pytest.fixture(scope="module")
def compared(pair):
    return compare(*pair, pair[0].parent / "compared")


def test_a_difference_is_taken_seed_by_seed_where_pool_and_items_are_shared(pair, compared):
    found = pd.read_csv(compared.parent / "accuracy.csv").set_index("strategy")
    a, b = (pd.read_parquet(root / "results.parquet").query("strategy == 'mean_entropy' and rounds_run == 1 and round == 1").drop_duplicates("campaign").set_index("seed")["accuracy"] for root in pair)
    assert len(a) == 2 and len(b) == 3 and len(found) == 2  # two rounds are in one run only
    row = found.loc["mean_entropy"]
    assert row["difference"] == pytest.approx((b.loc[[0, 1]] - a).mean()) and row["seeds"] == 2 and row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["accuracy_b"] == pytest.approx(b.mean()) and row["interval"] == "paired by seed, over seeds and items"


def test_the_page_names_what_differs_and_what_is_left_out_and_runs_no_script(compared):
    page = compared.read_text(encoding="utf-8")
    differs = pd.read_csv(compared.parent / "config.csv").set_index("key")
    assert differs.loc["trainer.epochs", "b"] == "1" and "pool.size" not in differs.index and "random_sets" not in differs.index
    assert differs.loc["rounds"].tolist() == ["also 2", "nothing more"]
    assert "Only in long, and so not compared: mean_entropy m=2" in page
    assert "<script" not in page and "script-src 'none'" in page and not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert {"accuracy-held_out.svg", "accuracy-held_out.png", "difference-held_out.svg", "cost.csv"} <= {path.name for path in compared.parent.iterdir()}


def test_costs_stand_beside_their_ratio(pair, compared):
    row = pd.read_csv(compared.parent / "cost.csv").set_index("strategy").loc["random"]
    assert row["flops_ratio"] == pytest.approx(row["flops_b"] / row["flops_a"]) and row["usd_a"] > 0


def test_other_pools_are_not_paired_and_other_items_not_subtracted(pair, tmp_path):
    other = study(tmp_path / "pool", "pool.size=130")
    compare(pair[0], other, tmp_path / "out")
    row = pd.read_csv(tmp_path / "out/accuracy.csv").iloc[0]
    assert row["interval"] == "not paired (other pools), over seeds"
    a, b = (pd.read_parquet(root / "results.parquet").query("strategy == 'random' and rounds_run == 1 and round == 1").drop_duplicates("campaign")["accuracy"] for root in (pair[0], other))
    assert row["difference_low"] == pytest.approx(unpaired_difference(b, a).low)
    items = study(tmp_path / "items", "evaluators={held_out: {use: toy, source: {use: toy, size: 50, split: test}}}")
    page = compare(pair[0], items, tmp_path / "again").read_text(encoding="utf-8")
    assert pd.read_csv(tmp_path / "again/accuracy.csv")["difference"].isna().all() and "no difference has an interval (none: other test items)" in page


def test_what_shares_nothing_is_refused_in_one_line(pair, tmp_path):
    a, b = pair
    with pytest.raises(ConfigError, match="the same run"):
        compare(a, b.parent / "long", tmp_path / "out")
    for source, change, says in ((a, {"budgets": [4]}, "no campaign in common.*budgets"), (a, {"evaluators": {"other": {"use": "toy", "source": {"use": "toy", "size": 40, "split": "test"}}}}, "no benchmark in common.*held_out.*other")):
        root = study(tmp_path / f"run{len(says)}", *(f"{key}={value}" for key, value in change.items()))
        with pytest.raises(ConfigError, match=says) as refused:
            compare(source, root, tmp_path / "out")
        assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="is a run directory"):
        compare(a, b, shutil.copytree(b, tmp_path / "b"))


def test_a_comparison_changes_neither_run_and_gives_the_same_bytes(pair, tmp_path):
    before = {path: path.stat().st_mtime_ns for root in pair for path in root.rglob("*")}
    first, second = (compare(*pair, tmp_path / name) for name in ("one", "two"))
    assert {path: path.stat().st_mtime_ns for root in pair for path in root.rglob("*")} == before
    for path in first.parent.iterdir():
        assert path.read_bytes() == (second.parent / path.name).read_bytes()
