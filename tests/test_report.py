"""The report: its numbers against the results table, each run once, one offline page, the same bytes."""

import base64
import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from outlay import config as configs
from outlay import results as runs
from outlay.report import summary, tables, words, write_report
from outlay.report.grids import MOST_ROWS, _purchases
from outlay.store import Store
from outlay.study import run_study
from outlay.types import Signals

TOY = Path(__file__).parent.parent / "configs" / "toy.yaml"


def study(root, *overrides):
    return run_study(configs.load(TOY, ["pool.size=120", "pool_per_seed=90", "random_sets=4", "budgets=[8]", *overrides]), root, quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two seeds; cold and warm; m = 1, 2."""
    return study(tmp_path_factory.mktemp("toy") / "run", "seeds=2", "rounds=[1,2]")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One seed, one strategy, two tests, two budgets; no groups; markup in the prompts; nothing to compare with."""
    folder = tmp_path_factory.mktemp("plain")
    rows = [f"<script>alert({i})</script> word{i} & <b>co</b>" for i in range(80)]
    source = {"use": "file", "text": "text"}
    for side, texts in (("pool", rows[:40]), ("one", rows[40:60]), ("two", rows[60:])):
        table = pa.table({"id": [f"{side}{i}" for i in range(len(texts))], "text": texts, "response": ["north", "east"] * (len(texts) // 2)})
        pq.write_table(table, folder / f"{side}.parquet")
    raw = {
        "name": "plain", "note": "a <i>note</i>", "pool": source | {"path": str(folder / "pool.parquet")}, "model": "toy", "scorer": "toy", "trainer": "toy",
        "evaluators": {name: {"use": "toy", "source": source | {"path": str(folder / f"{name}.parquet")}} for name in ("one", "two")},
        "strategies": ["mean_entropy"], "seeds": 1, "budgets": [4, 6], "random_sets": 4, "executor": "serial", "reference_curve": False,
    }  # fmt: skip
    root = run_study(configs.validate(raw), folder / "run", quiet=True)
    write_report(root)
    return root


@pytest.fixture(scope="module")
def page(run):
    return write_report(run).read_text(encoding="utf-8")


def no_network(page):
    assert not re.findall(r"""(?:src|href|action|data|poster|srcset)\s*=\s*["'](?!data:|#)[^"']*""", page)
    assert not re.search(r"@import|url\((?!#)|<script[^>]|<iframe|<object|<base", page) and page.count("<script>") == 1


def test_page_refers_to_nothing_outside_itself(page):
    no_network(page)
    assert page.count("<img ") == page.count("data:image/svg+xml") == len(re.findall(r'alt="[^"]{30,}"', page)) > 5
    assert len(page) < 6e6


def test_summary_equals_the_results_table(run, page):
    found = pd.read_csv(run / "report/summary.csv").set_index(["strategy", "rounds", "start"])
    last = pd.read_parquet(run / "results.parquet").query("round == rounds_run and not reference").drop_duplicates("campaign")
    mine = last.query("strategy == 'mean_entropy' and rounds_run == 2 and start == 'cold'").set_index("seed")
    random = last.query("strategy == 'random' and rounds_run == 1").set_index("seed")
    row = found.loc[("mean_entropy", 2, "cold")]
    assert row["accuracy"] == pytest.approx(mine["accuracy"].mean(), abs=1e-12)
    assert row["difference"] == pytest.approx((mine["accuracy"] - random["accuracy"]).mean(), abs=1e-12)
    half = 12.706204736 * mine["accuracy"].std() / 2**0.5  # t, 1 degree of freedom
    assert row["accuracy_high"] - row["accuracy"] == pytest.approx(half, rel=1e-6)
    assert row["vendi_tfidf"] == pytest.approx(mine["vendi_tfidf"].mean()) and row["flops"] == pytest.approx(mine["flops"].mean())


def test_a_warm_campaign_is_compared_with_random_of_that_start(run, page):
    found = pd.read_csv(run / "report/summary.csv").set_index(["strategy", "rounds", "start"])
    last = pd.read_parquet(run / "results.parquet").query("round == rounds_run and start == 'warm_all' and rounds_run == 2").set_index(["strategy", "seed"])["accuracy"]
    assert found.loc[("mean_entropy", 2, "warm_all"), "difference"] == pytest.approx((last["mean_entropy"] - last["random"]).mean(), abs=1e-12)


def test_a_run_of_several_cells_counts_once(run, page):
    found = pd.read_csv(run / "report/summary.csv")
    results = pd.read_parquet(run / "results.parquet")
    assert len(found) == results.loc[~results["reference"], "campaign"].nunique() / 2  # seeds
    assert (found["seeds"] == 2).all()
    assert found.loc[found["strategy"] == "random", "same_as"].fillna("").astype(str).str.removesuffix(".0").tolist() == ["2", ""]
    assert "1 (=2)" in page and "run and counted once" in page


def test_phases_add_up_to_the_campaigns_cost(run, page):
    costs = pd.read_csv(run / "report/costs.csv").set_index(["strategy", "rounds", "start", "phase"])["flops"]
    last = pd.read_parquet(run / "results.parquet").query("round == rounds_run and not reference").drop_duplicates("campaign")
    mine = last.query("strategy == 'mean_entropy' and rounds_run == 2 and start == 'cold'")["flops"].mean()
    assert costs.loc[("mean_entropy", 2, "cold", "total")] == pytest.approx(mine)
    assert sum(costs.loc[("mean_entropy", 2, "cold", phase)] for phase in ("score", "annotate", "train")) == pytest.approx(mine)


def test_paid_counts_shared_work_once(run, page):
    ledger = pd.read_parquet(run / "ledger.parquet")
    paid = pd.read_csv(run / "report/paid.csv").set_index("phase")
    assert paid.loc["total", "flops"] == ledger.loc[ledger["paid"], "flops"].sum() < ledger["flops"].sum()


def test_base_model_has_an_interval_over_items(run, page):
    base = pd.read_csv(run / "report/base.csv").iloc[0]
    assert base["interval"] == "Wilson over items" and base["accuracy_low"] < base["accuracy"] < base["accuracy_high"]


def test_same_run_gives_the_same_bytes(plain):
    before = {path.name: path.read_bytes() for path in (plain / "report").iterdir()}
    write_report(plain)
    assert {path.name: path.read_bytes() for path in (plain / "report").iterdir()} == before


def test_terminal_tables_fit_120_columns(run, capsys):
    summary.show(run)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    assert "1 (=2)" in shown and "minus random" in shown and "2 seeds" in shown


def test_one_seed_has_intervals_over_items_and_claims_no_difference(plain):
    page = (plain / "report/index.html").read_text(encoding="utf-8")
    assert "a demonstration, no inference" in page and "Wilson" in page
    found = pd.read_csv(plain / "report/summary.csv")
    assert (found["interval"] == "Wilson over items").all() and found["difference"].isna().all() and found["budget"].tolist() == [4, 4, 6, 6]
    names = {path.name for path in (plain / "report").glob("*.png")}
    assert {"budgets-one.png", "learning_curve-two.png"} <= names and page.count("<img ") == len(names)


def test_markup_in_a_prompt_is_text(plain):
    page = (plain / "report/index.html").read_text(encoding="utf-8")
    no_network(page)
    assert "&lt;script&gt;alert(" in page and "a &lt;i&gt;note&lt;/i&gt;" in page


def test_pool_without_groups(plain, capsys):
    page = (plain / "report/index.html").read_text(encoding="utf-8")
    summary.show(plain)
    assert "The pool has no groups" in page and not list((plain / "report").glob("bought-*.png"))
    assert "nan" not in re.split(r"\W+", (re.sub('base64,[^"]*', "", page) + capsys.readouterr().out).lower())


def test_each_schedule_is_a_figure_of_its_own_and_one_round_belongs_to_all(tmp_path):
    root = study(tmp_path / "run", "seeds=1", "rounds=[1,2]", "schedules=[even,geometric]", "strategies=[mean_entropy]", "starts=[cold]")
    results = pd.read_parquet(root / "results.parquet")
    found = tables.summary(results)
    assert tables.settings(results) == [("even", "cold"), ("geometric", "cold")]
    assert found["schedule"].tolist() == ["any", "even", "geometric"]
    assert tables.within(found, ("geometric", "cold"))["schedule"].tolist() == ["any", "geometric"]


def test_words_never_claim_what_an_interval_with_zero_does_not_show():
    row = {"against": "random", "measure": "b", "budget": 8, "strategy": "s", "schedule": "any", "start": "any", "rounds": 1, "difference": 0.1, "seeds": 3}
    base = pd.DataFrame([{"benchmark": "b", "items": 9, "accuracy": 0.1, "accuracy_low": 0.0, "accuracy_high": 0.2}])
    total = pd.DataFrame([row | {"benchmark": "b", "items": 9, "accuracy": 0.2, "accuracy_low": 0.1, "accuracy_high": 0.3}])
    unclear, higher = (" ".join(words.findings(base, total, pd.DataFrame([row | {"difference_low": low, "difference_high": 0.3}]))) for low in (-0.1, 0.05))
    assert "we cannot tell" in unclear and "higher" not in unclear
    assert "higher: s m=1 +10.0 [+5.0, +30.0]" in higher and "cannot tell" not in higher


@pytest.mark.parametrize(("value", "text"), [(3.1e12, "3.10 T"), (135168, "135 k"), (0, "0"), (25e-6, "25.0 µ"), (999, "999")])
def test_si_prefixes(value, text):
    assert words.si(value) == text


def test_tables_do_not_change_their_input(run):
    results = pd.read_parquet(run / "results.parquet")
    before = results.copy(deep=True)
    tables.summary(results)
    pd.testing.assert_frame_equal(results, before)


# -- how choices change, and the table to browse -----------------------------------------------------------------------------


def test_the_page_allows_its_own_script_and_no_other(page, plain):
    for html in (page, (plain / "report/index.html").read_text(encoding="utf-8")):
        allowed = re.findall(r"script-src '([^;\"]*)'", html)
        script = re.search(r"<script>(.*?)</script>", html, re.S)[1]
        assert allowed == ["sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()]


def test_kept_and_correlation_are_those_of_the_stored_scores(run, page):
    scores, bought = runs.scores(run), runs.bought(run)
    found = runs.changes(scores, bought)
    name = found.loc[found["round"] == 2, "campaign"].iloc[0]
    mine = scores[scores["campaign"] == name].set_index("id")
    first, second = (mine.loc[mine["round"] == n, "score"] for n in (1, 2))
    batch = [list(bought[(bought["campaign"] == name) & (bought["round"] == n)]["id"]) for n in (1, 2)]
    row = found[(found["campaign"] == name) & (found["round"] == 2)].iloc[0]
    assert row["correlation"] == pytest.approx(first.drop(batch[0]).corr(second, method="spearman"))
    assert set(second.nlargest(4).index) == set(batch[1])  # the score says what was bought
    assert row["chance"] == pytest.approx(4 / (90 - 4)) and 0 <= row["kept"] <= 1
    assert found.loc[found["round"] == 1, ["kept", "correlation"]].isna().all(axis=None)
    assert "Does the choice change" in page and "still its choice" in page


def test_scores_of_campaigns_that_start_alike_agree_and_a_strategy_agrees_with_itself(run, page):
    table = pd.read_csv(run / "report/overlap.csv").set_index(["a", "b"])
    assert table.loc[("mean_entropy m=1", "mean_entropy m=1"), "correlation"] == pytest.approx(1)
    assert table.loc[("random m=1", "random m=1"), "correlation"] != table.loc[("random m=1", "random m=1"), "correlation"]  # no score: NaN
    assert table["correlation"].dropna().between(-1, 1).all()
    assert (run / "report/rank_correlation.png").exists()
    across = pd.read_csv(run / "report/seeds.csv")
    assert (across["pairs"] == 1).all() and across["jaccard"].between(0, 1).all()


def test_a_score_that_ranks_by_length_rings_the_alarm_in_the_findings(plain, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(plain, root)
    assert "mostly ranks by" not in (root / "report/index.html").read_text(encoding="utf-8")
    store = Store(root)
    for path in sorted(root.glob("campaigns/mean_entropy*/round-001/signals.parquet")):
        signals = store.read(path.relative_to(root).as_posix(), Signals)
        ranks = np.argsort(np.argsort(signals.columns["mean_entropy"], kind="stable"))
        store.write(path.relative_to(root).as_posix(), replace(signals, columns=dict(signals.columns) | {"prompt_tokens": 100 - ranks}))
    page = write_report(root).read_text(encoding="utf-8")
    said = re.findall(r"The score of mean_entropy \(m=1, round 1, all prompts, 1 seed\) mostly ranks by the length of the prompt: rank correlation ([-+.0-9]+)", page)
    assert len(said) == 1 and float(said[0]) < -0.5


def test_the_words_of_the_same_purchases_do_not_differ(run):
    table = tables.variety(pd.read_parquet(run / "results.parquet"))
    random = table[table["strategy"] == "random"]
    assert random["distinct_2_responses_difference"].isna().all() and random["distinct_2_prompts_random"].notna().all()
    others = table[table["strategy"] != "random"]
    assert others["distinct_1_responses_difference"].notna().all()


def test_words_at_different_numbers_of_tokens_are_not_compared(run):
    results = pd.read_parquet(run / "results.parquet")
    planted = results.assign(tokens_responses=results["tokens_responses"].where(results["strategy"] == "random", 999))
    table = tables.variety(planted)
    assert table["distinct_1_responses_difference"].isna().all() and table["distinct_1_responses"].notna().all()


def test_every_purchase_of_the_first_seed_is_in_the_csv_and_names_what_was_bought_before(run, page):
    table = pd.read_csv(run / "report/purchases.csv")
    assert len(table) == 8 * table["campaign"].nunique() and set(table["seed"]) == {0}
    for _, part in table.groupby("campaign"):
        ids = part["id"].tolist()
        assert pd.isna(part["nearest"].iloc[0]) and all(near in ids[:place] for place, near in enumerate(part["nearest"]) if place)
        texts = part.set_index("id")["text"]
        assert part["nearest_text"].iloc[1:].tolist() == texts.loc[part["nearest"].iloc[1:]].tolist()
    assert page.count('<table id="browse">') == 1


def test_the_table_to_browse_stays_small_and_takes_the_head_of_every_batch():
    rows = [(f"c{c}", r, k) for c in range(3) for r in (1, 2) for k in range(1, 401)]
    table = pd.DataFrame(rows, columns=["campaign", "round", "rank"])
    table = table.assign(seed=0, group="g", text="x" * 900, score=1.0, nearest_text="y" * 900, similarity=0.5, represents=1)
    grid = _purchases(table)
    assert len(grid.rows) == MOST_ROWS == 1500 and max(int(row[2]) for row in grid.rows) == 250
    assert sum(len("".join(row)) for row in grid.rows) < 1e6 and "the first 250 of every batch" in grid.caption
