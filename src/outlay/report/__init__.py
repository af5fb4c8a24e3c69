"""Run directory -> one offline HTML page, with every figure as PNG and every table as CSV beside it. Read-only but for report/."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .. import grid, pools, registry
from .. import results as runs
from ..config import StudyConfig
from ..store import Store, write_atomic
from . import choices, tables, words

__all__ = ["write_report"]
MOST_ROWS = 1500  # of the table to browse; its CSV has all
MOST_LINES = 6  # in a figure of learning curves; with more, each strategy has a figure of its own


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure on the page. `image` is a data URI."""

    name: str
    caption: str
    image: str


@dataclass(frozen=True, slots=True)
class Grid:
    """A table on the page: words in cells; the CSV of the same name has the numbers."""

    name: str
    caption: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Run:
    """What the report reads."""

    study: dict
    config: StudyConfig
    results: pd.DataFrame
    ledger: pd.DataFrame
    bought: pd.DataFrame
    scores: pd.DataFrame
    groups: pd.Series  # of the whole pool


def read(root: Path) -> Run:
    study = Store(root).read("study.json", dict)
    results, ledger = (pd.read_parquet(root / f"{name}.parquet") for name in ("results", "ledger"))
    groups = pools.read(root / "shared/pool.parquet").column("group").to_pandas()
    return Run(study, StudyConfig.model_validate(study["config"]), results, ledger, runs.bought(root), runs.scores(root), groups)


def write_report(root: Path) -> Path:
    """Make the report of a finished run again; -> its index.html. The same run gives the same bytes."""
    import yaml

    run = read(root)
    out = root / "report"
    out.mkdir(exist_ok=True)
    for old in [*out.glob("*.png"), *out.glob("*.csv")]:  # a grown run may have other figures
        old.unlink()
    numbers = _numbers(run)
    for name, table in numbers.items():
        write_atomic(out / f"{name}.csv", table.to_csv(index=False, lineterminator="\n").encode())
    config = yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    write_atomic(out / "study.yaml", config.encode())
    page = _environment().get_template("page.html.jinja").render(
        run=run,
        config=run.config,
        config_text=config,
        findings=words.findings(numbers["base"], numbers["summary"], numbers["differences"]) + words.alarms(numbers["selection"]),
        figures=_figures(run, numbers, out),
        grids=_grids(run, numbers),
        collapsed=_collapsed(run, numbers["summary"]),
        strategies=_strategies(run),
        seeds=int(numbers["summary"]["seeds"].max()),
        more_seeds=_more_seeds(run.config.seeds),
        share=run.config.pool_per_seed or run.study["pool"]["prompts"],
        budget=max(run.config.budgets),
        chance=grid.chance_overlap,
        campaigns=run.results.loc[~run.results["reference"], "campaign"].nunique(),
        references=run.results.loc[run.results["reference"], "campaign"].nunique(),
        measured=numbers["paid"].set_index("phase"),
        words=words,
    )
    write_atomic(out / "index.html", page.encode())
    return out / "index.html"


def _environment():
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(loader=PackageLoader("outlay", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # The page allows this one script by its hash: whatever a prompt or a response holds, nothing else runs.
    made.filters["digest"] = lambda script: "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return made


def _numbers(run: Run) -> dict[str, pd.DataFrame]:
    """File name -> table with all its digits."""
    budget = max(run.config.budgets)
    return {
        "summary": tables.summary(run.results),
        "differences": tables.differences(run.results),
        "base": tables.base(run.results),
        "learning_curves": tables.learning(tables.runs(run.results)),
        "random_curve": tables.random_curve(run.results),
        "costs": tables.costs(run.results, run.ledger),
        "paid": tables.paid(run.ledger),
        "unparsed": tables.unparsed(run.results),
        "variety": tables.variety(run.results),
        "batches": tables.batches(run.results),
        "overlap": choices.overlaps(run.results, run.bought, run.scores, budget),
        "seeds": choices.across_seeds(run.results, run.bought, run.scores, budget),
        "selection": choices.selection(run.results, runs.changes(run.scores, run.bought), budget),
        "bought": choices.shares(run.results, run.bought, budget, run.groups),
        "purchases": choices.purchases(run.results, run.bought, budget),
    }


def _figures(run: Run, numbers: dict[str, pd.DataFrame], out: Path) -> dict[str, list[Shown]]:
    """Section of the page -> its figures, which are also written as PNG."""
    from . import figures

    style, budget = figures.styles(run.config.strategies), max(run.config.budgets)
    pairs, budgets = tables.settings(run.results), run.config.budgets
    shown: dict[str, list[Shown]] = {"curves": [], "rounds": [], "diversity": [], "cost": [], "bought": [], "overlap": []}
    seeds = int(numbers["summary"]["seeds"].max())
    over_seeds = f"{words.count(seeds, 'seed')}; 95 % t interval over seeds" if seeds > 1 else "1 seed"

    def add(section: str, name: str, caption: str, figure: object) -> None:
        svg, png = figures.render(figure)
        write_atomic(out / f"{name}.png", png)
        shown[section].append(Shown(name, caption, "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()))

    for pair in pairs:
        where = words.setting_name(pair, len(pairs) > 1)
        tail = "".join(f"-{part}" for part in pair) if where else ""
        summary = tables.within(numbers["summary"], pair, budget)
        for bench, part in summary.groupby("benchmark", sort=False):
            n = f"n = {over_seeds}, {part['items'].iloc[0]} items" + ("" if seeds > 1 else "; 95 % Wilson interval over items")
            curves, random = (t[t["benchmark"] == bench] for t in (numbers["learning_curves"], numbers["random_curve"]))
            start = numbers["base"].set_index("benchmark").loc[bench]
            at_budget = tables.within(curves, pair, budget)
            crowded = at_budget[["strategy", "rounds"]].drop_duplicates().shape[0] > MOST_LINES
            for strategy, lines in at_budget.groupby("strategy" if crowded else lambda _: "", sort=False):
                whose = f" of {strategy}" if crowded else ""
                caption = f"Accuracy on {bench} against annotations bought{whose}, up to {budget}{where}. Grey: random, trained from the base on everything bought. At 0: the base model, with an interval over items."
                name = f"learning_curve-{bench}{tail}" + (f"-{_file(strategy)}" if crowded else "")
                title = f"{bench}: {strategy or 'learning curves'}{where}"
                add("curves", name, caption, figures.learning_curves(lines, random, start, style, title, n))
            if len(budgets) > 1:
                ends = tables.within(numbers["summary"], pair)
                ends = ends[ends["benchmark"] == bench]
                caption = f"Accuracy on {bench} at the end of campaigns with different budgets{where}."
                add("curves", f"budgets-{bench}{tail}", caption, figures.learning_curves(ends, random, start, style, f"{bench}: final accuracy by budget{where}", n))
            caption = f"Accuracy on {bench} after {budget} annotations, bought in m rounds{where}. Dotted: more rounds are the same run as one."
            add("rounds", f"accuracy_by_rounds-{bench}{tail}", caption, figures.accuracy_by_rounds(part, style, f"{bench}: accuracy by rounds{where}", n))
            gains = tables.within(numbers["differences"], pair, budget)
            gains = gains[(gains["against"] == "one round") & (gains["measure"] == bench)]
            if len(gains):
                caption = f"Accuracy on {bench} with m rounds minus accuracy with one round of the same strategy, same seeds{where}. An interval that includes zero: we cannot tell."
                n = f"n = {over_seeds}, paired by seed" if seeds > 1 else "n = 1 seed: no interval"
                add("rounds", f"gain_over_one_round-{bench}{tail}", caption, figures.gain_over_one_round(gains, style, f"{bench}: gain over one round{where}", n))
        first = summary[summary["benchmark"] == summary["benchmark"].iloc[0]]
        for measure in tables.DIVERSITY:
            if first[measure].notna().any():
                label = words.MEASURES[measure]
                caption = f"{label[0].upper() + label[1:]}, of the {budget} prompts bought in m rounds{where}; grey: the middle 95 % of {run.config.random_sets} random sets of that size per seed."
                figure = figures.diversity_by_rounds(first, measure, style, f"{label}{where}", f"n = {over_seeds}, sets of {budget} prompts", label)
                add("diversity", f"diversity-{measure}{tail}", caption, figure)
    costs = numbers["costs"]
    costs = costs[costs["budget"] == budget]
    for quantity, unit, label in (("flops", "", "FLOPs"), ("seconds", "s", "device seconds")):
        caption = f"{label[0].upper() + label[1:]} of one campaign as if it had run alone, by phase; measurement left out."
        add("cost", f"cost-{quantity}", caption, figures.cost(costs, tables.arm_names(costs), quantity, unit, f"Cost of a campaign: {label}", f"n = {over_seeds}{', of the total' if seeds > 1 else ''}"))
    for strategy, part in numbers["bought"].groupby("strategy", sort=False):
        if strategy != "pool":
            m, of_pool = int(part["rounds"].iloc[0]), numbers["bought"][numbers["bought"]["strategy"] == "pool"]
            caption = f"Groups that {strategy} bought in each round (m = {m}), beside the pool; intervals over seeds are in bought.csv."
            n = f"mean over {seeds} seeds; intervals in bought.csv" if seeds > 1 else "n = 1 seed"
            add("bought", f"bought-{_file(strategy)}", caption, figures.bought_by_round(pd.concat([of_pool, part]), f"{strategy}: groups bought, m={m}", n))
    n = f"n = {over_seeds} (±)" if seeds > 1 else "n = 1 seed"
    add("overlap", "overlap", "Jaccard overlap of the prompts that two campaigns bought with the same seed: 1 is the same set, 0 nothing in common.", figures.agreement(numbers["overlap"], "jaccard", "Overlap of what was bought", n))
    scored = numbers["overlap"].loc[(numbers["overlap"]["a"] == numbers["overlap"]["b"]) & numbers["overlap"]["correlation"].notna(), "a"]
    if len(scored) > 1:
        ranks = numbers["overlap"][numbers["overlap"]["a"].isin(scored) & numbers["overlap"]["b"].isin(scored)]
        caption = "Rank correlation of the scores by which two campaigns chose their last batch, over the prompts that both could still buy, same seed; of strategies that score every prompt."
        add("overlap", "rank_correlation", caption, figures.agreement(ranks, "correlation", "Agreement of scores", n))
    return shown


def _grids(run: Run, numbers: dict[str, pd.DataFrame]) -> dict[str, Grid]:
    """The tables of the page, in words."""
    more, summary, base = tables.varying(run.results), numbers["summary"], numbers["base"]
    keys = ["strategy", "m", *more]

    def key(row: pd.Series) -> list[str]:
        return [row["strategy"], words.rounds(row) if "same_as" in row else str(row["rounds"]), *(str(row[name]) for name in more)]

    accuracy = [[row["benchmark"], tables.BASE, "", *[""] * len(more), words.percent(row), "", "", str(row["items"]), row["interval"]] for _, row in base.iterrows()]
    for _, row in summary.iterrows():
        cells = [words.percent(row), words.percent(row, "difference", sign=True), str(row["seeds"]), str(row["items"]), row["interval"]]
        accuracy.append([row["benchmark"], *key(row), *cells])
    benches = list(base["benchmark"])
    accuracy.sort(key=lambda cells: benches.index(cells[0]))
    first = summary[summary["benchmark"] == summary["benchmark"].iloc[0]]
    diverse, cost = [], []
    for _, row in first.iterrows():
        cells = []
        for measure in tables.DIVERSITY:
            scale, digits = (100, 0) if measure == "group_coverage" else (1, 2)
            for name in (measure, f"{measure}_random"):
                cells.append(words.between(row[name], row[f"{name}_low"], row[f"{name}_high"], scale=scale, digits=digits))
        diverse.append([*key(row), *cells, str(row["seeds"])])
        cost.append([*key(row), words.si(row["flops"]), words.seconds(row["seconds"]), words.usd(row["usd"]), str(row["seeds"])])
    paid = [
        [row["phase"], f"{row['labels']:,}", words.si(row["flops"]), words.seconds(row["seconds"]), words.usd(row["usd"]), *(words.si(row[f"{t}_tokens"]) for t in ("prompt", "generated", "trained"))]
        for _, row in numbers["paid"].iterrows()
    ]
    failed = [
        [row["benchmark"], row["strategy"], *("" if pd.isna(row[k]) else str(row[k]) for k in ("rounds", *more)), f"{row['answers']:,}", f"{row['unparsed']:,}", f"{row['cut_off']:,}"]
        for _, row in numbers["unparsed"].iterrows()
    ]
    failed.sort(key=lambda cells: benches.index(cells[0]))

    def dashed(value: float, digits: int = 2) -> str:
        return "–" if pd.isna(value) else f"{value:.{digits}f}"

    def between(row: pd.Series, name: str, scale: float = 1, digits: int = 2) -> str:
        return words.between(row[name], row[f"{name}_low"], row[f"{name}_high"], scale=scale, digits=digits)

    answers = [f"{measure}_responses{end}" for measure in ("vendi", "near_duplicates") for end in ("", "_difference")]
    sides = answers + [f"{measure}_{side}" for measure in tables.VARIETY for side in ("prompts", "prompts_random", "responses", "responses_difference")]
    varied = [[*key(row), *(between(row, name) for name in sides), str(row["seeds"])] for _, row in numbers["variety"].iterrows()]
    batches = []
    for _, row in _longest(numbers["batches"]).iterrows():
        cells = [between(row, f"batch_vendi_{space}{end}") for space in runs.EMBEDDINGS for end in ("", "_random")]
        batches.append([*key(row), str(row["round"]), *cells, between(row, "batch_vendi_responses"), str(row["seeds"])])
    chosen = []
    moves = _longest(numbers["selection"])
    for _, row in moves.dropna(how="all", subset=["correlation", *runs.LENGTHS]).iterrows():
        cells = [between(row, "correlation"), between(row, "kept", 100, 0), dashed(100 * row["chance"], 0), between(row, "prompt_length"), between(row, "response_length")]
        chosen.append([*key(row), str(row["round"]), *cells, "all prompts" if row["all"] else "picks", str(row["seeds"])])
    apart = [[*key(row), str(row["pairs"]), dashed(row["jaccard"]), dashed(row["correlation"])] for _, row in numbers["seeds"].iterrows()]
    spaces = [name for measure in ("Vendi, model", "Vendi, TF-IDF", "groups, %") for name in (measure, "random sets")]
    return {
        "summary": Grid("summary", "Final accuracy in percent, and its difference to random in percentage points", ["benchmark", *keys, "accuracy, %", "minus random", "seeds", "items", "interval"], accuracy),
        "diversity": Grid("summary", "Diversity of what was bought, beside random sets of the same size", [*keys, *spaces, "seeds"], diverse),
        "cost": Grid("costs", "Cost of one campaign as if it had run alone, mean over seeds", [*keys, "FLOPs", "device time", "cost", "seeds"], cost),
        "paid": Grid("paid", "What the whole study consumed, shared work counted once", ["phase", "annotations", "FLOPs", "device time", "cost", "prompt tokens", "generated tokens", "trained tokens"], paid),
        "unparsed": Grid("unparsed", "Answers that could not be read, and answers cut off at the token limit, summed over seeds", ["benchmark", "strategy", "m", *more, "answers", "unparsed", "cut off"], failed),
        "variety": Grid("variety", "How varied responses are, and words at equal numbers of words", [*keys, *(f"{w}{e}" for w in ("Vendi, responses", "near duplicates, responses") for e in ("", " minus random’s")), *(f"{w}, {s}" for w in ("distinct-1", "distinct-2", "compression") for s in ("prompts", "random sets", "responses", "responses minus random’s")), "seeds"], varied),
        "batches": Grid("batches", "Vendi score of each round’s batch alone, in the campaigns with the most rounds", [*keys, "round", *spaces[:4], "responses", "seeds"], batches),
        "selection": Grid("selection", "How the choice changes from round to round, and how far a score ranks by length, in the campaigns with the most rounds", [*keys, "round", "correlation with the round before", "still its choice, %", "by chance, %", "with prompt length", "with response length", "over", "seeds"], chosen),
        "seeds": Grid("seeds", "How much two seeds of one campaign agree", [*keys, "pairs of seeds", "overlap", "correlation of scores"], apart),
        "purchases": _purchases(numbers["purchases"]),
    }  # fmt: skip


def _purchases(bought: pd.DataFrame) -> Grid:
    """The table to browse: of every batch the most wanted prompts, as many as leave the page small."""
    most = int(bought["rank"].max())
    while (bought["rank"] <= most).sum() > MOST_ROWS:
        most -= 1
    shown = bought[bought["rank"] <= most]
    rows = []
    for _, row in shown.iterrows():
        score, similarity = ("–" if pd.isna(value) else f"{value:{form}}" for value, form in ((row["score"], ".4g"), (row["similarity"], ".2f")))
        rows.append(
            [row["campaign"], str(row["round"]), str(row["rank"]), row["group"] or "–", _cut(row["text"], 300), score, _cut(row["nearest_text"], 120) or "–", similarity, str(row["represents"])]
        )
    part = "" if len(shown) == len(bought) else f"the first {most} of every batch, "
    caption = f"{words.count(len(shown), 'purchase')} of the campaigns with the most rounds, {part}seed {bought['seed'].iloc[0]}"
    return Grid("purchases", caption, ["campaign", "round", "rank", "group", "prompt", "score", "nearest bought before", "similarity", "represents"], rows)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _longest(table: pd.DataFrame) -> pd.DataFrame:
    """Of each strategy the arms with the most rounds; the CSV has all."""
    return table[table["rounds"] == table.groupby("strategy")["rounds"].transform("max")]


def _collapsed(run: Run, summary: pd.DataFrame) -> list[str]:
    """Which numbers of rounds of which strategy are one run."""
    same = summary[(summary["same_as"] != "")].drop_duplicates(["strategy", "same_as"])
    return [f"{row['strategy']}: m = {words.listed(row['same_as'].split(','))}" for _, row in same.iterrows()]


def _strategies(run: Run) -> list[dict[str, str]]:
    """What the registry knows of the strategies compared."""
    found = []
    for spec in run.config.strategies:
        card = registry.card("strategy", registry.parse(spec)[0])
        marks = [mark for mark, on in (("nested", card.nested), ("reads groups", card.reads_groups)) if on]
        found.append({"spec": spec, "summary": card.summary, "needs": ", ".join(sorted(card.needs)) or "nothing", "marks": ", ".join(marks), "source": card.source})
    return found


def _more_seeds(seeds: list[int]) -> str:
    """An override that doubles the seeds and keeps those that ran."""
    return f"seeds={2 * len(seeds)}" if seeds == list(range(len(seeds))) else f"seeds=[{','.join(map(str, [*seeds, max(seeds) + 1]))}]"


def _file(name: str) -> str:
    """A file name from a strategy's spec."""
    import re

    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-")
