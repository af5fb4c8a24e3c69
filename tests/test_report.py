"""The report: its numbers against the results table, each run once, one offline page, the same bytes."""

import base64
import hashlib
import json
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
from outlay.report import figures, pool_map, scatter, summary, tables, words, worth, write_report
from outlay.store import Store
from outlay.study import run_study
from outlay.types import Signals

pytestmark = pytest.mark.xdist_group("report")  # one worker makes the runs and pages that they share

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


def data_of(page):
    """What the page's script reads."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert "<" not in found
    return json.loads(found)


def no_network(page):
    data_of(page)  # not a script: a browser runs none of it
    page = re.sub(r'<script type="application/json" id="data">.*?</script>', "", page, flags=re.S)
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


@pytest.mark.slow
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
    assert {"budgets-one.png", "learning_curve-two.png"} <= names and page.count("<img ") + page.count('class="stage front"') == len(names)


def test_markup_in_a_prompt_is_text(plain):
    page = (plain / "report/index.html").read_text(encoding="utf-8")
    no_network(page)
    assert "<script>alert(0)" in "".join(data_of(page)["texts"]) and "a &lt;i&gt;note&lt;/i&gt;" in page


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


@pytest.mark.slow
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


# -- the map of the pool, and the table to browse ----------------------------------------------------------------------------


def test_the_map_shows_what_each_round_bought_and_the_table_lists_it(run, page):
    data, bought, table = data_of(page), runs.bought(run), pd.read_csv(run / "report/pool_map.csv")
    assert len(table) == len(data["texts"]) == 90 and [c["name"] for c in data["campaigns"]].count("mean_entropy m=2 warm_all") == 1
    first = bought[bought["campaign"].str.startswith("mean_entropy-m2") & bought["campaign"].str.contains("warm_all") & bought["campaign"].str.endswith("-s0")]
    mine = next(c for c in data["campaigns"] if c["name"] == "mean_entropy m=2 warm_all")
    assert [[table["id"][row] for row in rows] for rows in mine["rounds"]] == [list(first.loc[first["round"] == n, "id"]) for n in (1, 2)]
    listed = [[data["campaigns"][c]["name"], r, k, table["id"][row]] for c, r, k, row, *_ in data["browse"]]
    assert listed == pd.read_csv(run / "report/purchases.csv")[["campaign", "round", "rank", "id"]].to_numpy().tolist()
    for space in data["spaces"]:
        assert min(space["x"]) == min(space["y"]) == 0 and max(*space["x"], *space["y"]) == pool_map.GRID and len(space["x"]) == 90


def test_a_pool_beyond_the_maps_limit_keeps_what_was_bought(run, page, monkeypatch):
    monkeypatch.setattr(pool_map, "MOST_POINTS", 30)
    study = Store(run).read("study.json", dict)
    asked, table = configs.StudyConfig.model_validate(study["config"]), pd.read_csv(run / "report/pool_map.csv")
    must = list(table["id"][::9])
    found = pool_map.read(run, study, asked, must, 0)
    assert len(found.table) == 30 and set(must) <= set(found.table["id"]) <= set(table["id"]) and found.size == 90


def test_a_projection_keeps_distances_that_two_directions_can_hold_and_survives_points_that_are_all_alike():
    rng = np.random.default_rng(0)
    plane, axes = rng.normal(size=(40, 2)), np.linalg.qr(rng.normal(size=(8, 2)))[0]
    found, explained = pool_map.project(plane @ axes.T)
    near, far = (np.linalg.norm(p[:, None] - p[None], axis=-1)[np.triu_indices(40, 1)] for p in (found, plane))
    assert np.corrcoef(near, far)[0, 1] > 0.9999 and explained == pytest.approx(1)
    same, none = pool_map.project(np.ones((5, 3)))
    assert (same == 0).all() and none == 0
    assert pool_map.project(np.arange(4.0)[:, None])[0].tolist() == [[0, 0], [333, 0], [666, 0], [999, 0]]


def test_the_pages_data_stays_small_and_takes_the_head_of_every_batch(monkeypatch):
    monkeypatch.setattr(pool_map, "MOST_ROWS", 1500)
    ids = [f"p{i}" for i in range(4000)]
    table = pd.DataFrame({"id": ids, "group": "g", "text": "x" * 900, "x_tfidf": 0, "y_tfidf": 0})
    rows = [(f"c{c}", r, k, ids[(800 * c + 400 * r + k) % 4000]) for c in range(3) for r in (1, 2) for k in range(1, 401)]
    bought = pd.DataFrame(rows, columns=["campaign", "round", "rank", "id"]).assign(score=1.0, nearest="", similarity=0.5, represents=1)
    campaigns = pd.DataFrame({"campaign": ["c0", "c1", "c2"], "name": ["c0", "c1", "c2"], "rounds": 2})
    data = pool_map.payload(pool_map.PoolMap(table, {"tfidf": 0.1}, 0, 4000), campaigns, bought, bought, first="c1", colours={2: ["#000", "#111"]})
    assert len(data["browse"]) == 1500 and data["head"] == 250 == max(row[2] for row in data["browse"]) and data["first"] == 1
    assert sum(map(len, data["texts"])) <= pool_map.LETTERS and len(data["texts"]) == 4000


# -- figures and tables ------------------------------------------------------------------------------------------------------


def test_every_figure_is_there_as_svg_and_png_and_every_table_as_csv(run, page):
    names = {kind: {path.stem for path in (run / "report").glob(f"*.{kind}")} for kind in ("svg", "png", "csv")}
    shown = set(re.findall(r'<figure id="([^"]+)"', page))
    assert names["svg"] == names["png"] == shown and len(shown) > 8
    assert set(re.findall(r"\(numbers: (\w+)\.csv\)", page)) <= names["csv"] and page.count("<table") == page.count(".csv)</caption>")


def test_a_slim_figure_keeps_its_texts_and_the_names_of_its_points():
    figure = figures._axes("0.123456", "n = 1")[0]
    (point,) = figure.axes[0].plot([1 / 3], [2 / 3], marker="o")
    point.set_gid("spot-0")
    svg = figures.render(figure)[0]
    assert ">0.123456</text>" in svg and svg.count('id="spot-0"') == 1 and "\n" not in svg.strip()
    assert not re.search(r'\b[dxy]="[^"]*\.\d{3}', svg) and 'id="axes_1"' not in svg
    assert 'aria-label="a &lt;b&gt;"' in scatter.inline(svg, "spot", ["a <b>"])
    with pytest.raises(ValueError, match="spot-1"):
        scatter.inline(svg, "spot", ["a", "b"])


def test_every_campaign_of_the_front_is_a_point_that_says_its_numbers(run, page):
    front = pd.read_csv(run / "report/front.csv")
    labels = re.findall(r'<g class="point" role="img" tabindex="(-1|0)" aria-label="([^"]*)">', page)
    assert len(labels) == len(front) and [tab for tab, _ in labels].count("0") == 1
    row = front.sort_values("flops").iloc[0]
    assert labels[0][1].startswith(f"{row['strategy']} m={row['rounds']}: accuracy {100 * row['accuracy']:.1f} [{100 * row['accuracy_low']:.1f}, ")


# -- rounds against labels, and power ----------------------------------------------------------------------------------------


def test_at_the_break_even_price_labels_and_rounds_bring_the_same(run, page):
    study = Store(run).read("study.json", dict)
    asked, results, correct = configs.StudyConfig.model_validate(study["config"]), pd.read_parquet(run / "results.parquet"), runs.per_item(run, "correct")[0]
    # A curve that rises by a hundredth an annotation, and rounds that cost a dollar more each.
    cold = tables.cold_random(results).index
    results.loc[cold, "accuracy"] = 0.01 * results.loc[cold, "labels_spent"]
    results.loc[results["round"] == 0, "accuracy"] = 0.0
    results["usd"] = results["labels_spent"] + results["rounds_run"].astype(float)
    name = results.loc[(results["strategy"] == "mean_entropy") & (results["rounds_run"] == 2) & (results["start"] == "cold") & (results["seed"] == 0), "campaign"].iloc[0]
    once = results.loc[(results["strategy"] == "mean_entropy") & (results["rounds_run"] == 1) & (results["seed"] == 0), "campaign"].iloc[0]
    for seed in (0, 1):  # twenty points more, in every seed
        mine, other = (key.replace("-s0", f"-s{seed}") for key in (name, once))
        correct[mine, "held_out"] = (np.arange(200) < 120).astype(float)
        correct[other, "held_out"] = (np.arange(200) < 80).astype(float)
    table = worth.margins(results, correct, asked)
    row = table[table["strategy"] == "mean_entropy"].iloc[0]
    assert (row["gain"], row["extra_usd"], row["labels"]) == pytest.approx((0.2, 1.0, 1.0)) and row["per_dollar"] == pytest.approx(0.2)
    assert row["per_label"] == pytest.approx(0.01) and row["ahead"] == pytest.approx(0.19) and row["break_even"] == pytest.approx(0.05)
    prices = asked.prices.model_copy(update={"per_annotation": 0.05})
    again = worth.margins(results, correct, asked.model_copy(update={"prices": prices}))
    assert again[again["strategy"] == "mean_entropy"].iloc[0]["ahead"] == pytest.approx(0, abs=1e-12)


def test_one_seed_cannot_tell_rounds_from_labels_nor_its_power(plain, run, page):
    assert (pd.read_csv(plain / "report/margins.csv")["better"] == "cannot tell").all()
    power = pd.read_csv(run / "report/power.csv").query("sd > 0")
    assert len(power) and (power["with_four_times"] < power["with_twice"]).all() and (power["with_twice"] < power["detectable"]).all()
    assert worth.power(pd.read_csv(run / "report/contrasts.csv").assign(seeds=1, sd=np.nan))["source"].str.startswith("unknown").all()
