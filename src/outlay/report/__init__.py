"""Run directory -> one offline HTML page, with every figure as SVG and PNG and every table as CSV beside it. Read-only but for report/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .. import grid, pools, registry
from .. import results as runs
from ..config import StudyConfig
from ..store import Store, write_atomic
from . import answer, choices, grids, likelihood, page, pool_map, tables, words, worth

__all__ = ["write_report"]
MOST_LINES = 6  # in a figure of learning curves; with more, each strategy has a figure of its own


@dataclass(frozen=True, slots=True)
class Run:
    """What the report reads."""

    study: dict
    config: StudyConfig
    results: pd.DataFrame
    ledger: pd.DataFrame
    bought: pd.DataFrame
    scores: pd.DataFrame
    agreements: pd.DataFrame
    proxies: pd.DataFrame
    groups: pd.Series  # of the whole pool
    correct: answer.Correct
    nll: answer.Correct
    shown: pool_map.PoolMap


def read(root: Path) -> Run:
    study = Store(root).read("study.json", dict)
    config = StudyConfig.model_validate(study["config"])
    results, ledger = (pd.read_parquet(root / f"{name}.parquet") for name in ("results", "ledger"))
    groups = pools.read(root / "shared/pool.parquet").column("group").to_pandas()
    bought, first = runs.bought(root), choices.first_seed(results, max(config.budgets))
    shown = pool_map.read(root, study, config, bought.loc[bought["campaign"].isin(first["campaign"]), "id"], int(first["seed"].iloc[0]))
    return Run(study, config, results, ledger, bought, runs.scores(root), runs.agreements(root), runs.proxies(root), groups, *runs.per_item(root, "correct", "nll"), shown)


def write_report(root: Path) -> Path:
    """Make the report of a finished run again; -> its index.html. The same run gives the same bytes."""
    import yaml

    from . import answer_page

    run = read(root)
    out = root / "report"
    out.mkdir(exist_ok=True)
    for old in (path for kind in ("png", "svg", "csv") for path in out.glob(f"*.{kind}")):  # a grown run may have other figures
        old.unlink()
    numbers = _numbers(run)
    page.write_tables(out, numbers)
    data = _payload(run, numbers)
    config = yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    write_atomic(out / "study.yaml", config.encode())
    made = page.render(
        "page.html.jinja",
        script=page.script(),
        run=run,
        config=run.config,
        config_text=config,
        findings=words.findings(numbers["base"], numbers["summary"], numbers["differences"]) + words.alarms(numbers["selection"]),
        figures=_figures(run, numbers, out),
        headline=answer_page.headline(numbers, run.config),
        grids=grids.grids(run.results, numbers) | answer_page.grids(numbers, tables.varying(run.results)),
        data=page.embedded(data),
        head=data["head"],
        collapsed=_collapsed(run, numbers["summary"]),
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
    write_atomic(out / "index.html", made.encode())
    return out / "index.html"


def _numbers(run: Run) -> dict[str, pd.DataFrame]:
    """File name -> table with all its digits."""
    budget, found = max(run.config.budgets), answer.answer(run.results, run.correct, run.config)
    return found | {
        "likelihood": likelihood.likelihood(answer.arms(run.results, run.config), run.nll, run.config),
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
        "agreement": choices.agreement(run.results, run.agreements, budget),
        "proxy": choices.proxies(run.results, run.proxies, budget),
        "bought": choices.shares(run.results, run.bought, budget, run.groups),
        "purchases": choices.purchases(run.results, run.bought, budget),
        "pool_map": run.shown.table.drop(columns="text"),
        "margins": worth.margins(run.results, run.correct, run.config),
        "power": worth.power(found["contrasts"]),
        "strategies": _strategies(run),
    }


def _payload(run: Run, numbers: dict[str, pd.DataFrame]) -> dict:
    """What the page's script reads."""
    from . import scatter

    first = choices.first_seed(run.results, max(run.config.budgets))
    colours = {m: scatter.round_colours(m) for m in sorted(first["rounds"].unique().tolist())}
    return pool_map.payload(run.shown, first, run.bought, numbers["purchases"], first=_on_the_map(run, first)["campaign"], colours=colours)


def _on_the_map(run: Run, first: pd.DataFrame) -> pd.Series:
    """The campaign that the map shows at first: the one with the most rounds of the first strategy that looks at the trained model, of
    the first other strategy where there is none."""
    longest = choices.most_rounds(first, max(run.config.budgets))
    live = longest[[grid.live(name, run.config) for name in longest["strategy"]]]
    others = longest[longest["strategy"] != "random"]
    return next(part for part in (live, others, longest) if len(part)).iloc[0]


def _figures(run: Run, numbers: dict[str, pd.DataFrame], out: Path) -> page.Gallery:
    """The figures of the page, which are also written as SVG and PNG."""
    from . import answer_page, figures, scatter

    style, budget = figures.styles(run.config.strategies), max(run.config.budgets)
    pairs, budgets = tables.settings(run.results), run.config.budgets
    gallery = page.Gallery(out)
    add = gallery.add
    seeds = int(numbers["summary"]["seeds"].max())
    over_seeds = f"{words.count(seeds, 'seed')}; 95 % t interval over seeds" if seeds > 1 else "1 seed"

    if len(numbers["slopes"]):
        both = f"{words.count(seeds, 'seed')}; 95 % intervals over seeds and items" if seeds > 1 else "1 seed"
        add("answer", "slopes", "The slope of accuracy on log2(m): the declared contrast on top, then every live strategy alone. Right of zero, retraining more often helped.", answer_page.slopes(numbers, both))
    for bench, measure in answer_page.diagrams(numbers, run.config):
        caption = f"How a doubling of the rounds acts on {bench}: through the diversity of what was bought, and otherwise. Exploratory."
        add("mediation", f"mediation-{bench}", caption, answer_page.diagram(numbers, bench, measure, over_seeds.replace("t interval", "bootstrap interval")))
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
                name = f"learning_curve-{bench}{tail}" + (f"-{page.file_name(strategy)}" if crowded else "")
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
            add("bought", f"bought-{page.file_name(strategy)}", caption, figures.bought_by_round(pd.concat([of_pool, part]), f"{strategy}: groups bought, m={m}", n))
    n = f"n = {over_seeds} (±)" if seeds > 1 else "n = 1 seed"
    add("overlap", "overlap", "Jaccard overlap of the prompts that two campaigns bought with the same seed: 1 is the same set, 0 nothing in common.", figures.agreement(numbers["overlap"], "jaccard", "Overlap of what was bought", n))
    scored = numbers["overlap"].loc[(numbers["overlap"]["a"] == numbers["overlap"]["b"]) & numbers["overlap"]["correlation"].notna(), "a"]
    if len(scored) > 1:
        ranks = numbers["overlap"][numbers["overlap"]["a"].isin(scored) & numbers["overlap"]["b"].isin(scored)]
        caption = "Rank correlation of the scores by which two campaigns chose their last batch, over the prompts that both could still buy, same seed; of strategies that score every prompt."
        add("overlap", "rank_correlation", caption, figures.agreement(ranks, "correlation", "Agreement of scores", n))
    for i, (bench, part) in enumerate(numbers["front"].groupby("benchmark", sort=False)):
        part = part.sort_values("flops", kind="stable")
        names = tables.arm_names(part)
        caption = f"Accuracy on {bench} against FLOPs, a campaign a point, larger with more rounds; whiskers over seeds and items. Point at one, or go through them with Tab and the arrow keys."
        figure = scatter.front(part, style, f"front{i}", f"{bench}: accuracy and cost", f"n = {words.count(int(part['seeds'].iloc[0]), 'seed')}; 95 % intervals over seeds and items")
        add("front", f"front-{page.file_name(bench)}", caption, figure, (f"front{i}", [answer_page.point(row, name) for (_, row), name in zip(part.iterrows(), names, strict=True)]))
    campaign, table = _on_the_map(run, choices.first_seed(run.results, budget)), run.shown.table
    at = dict(zip(table["id"], table.index, strict=True))
    mine = [[at[i] for i in ids] for _, ids in run.bought[run.bought["campaign"] == campaign["campaign"]].groupby("round")["id"]]
    figure = scatter.pool_map(table["x_model"], table["y_model"], mine, f"{campaign['name']}: where it bought", f"seed {run.shown.seed}, the base model's embedding; n = {len(table):,} prompts")
    add("map", "pool_map", f"The prompts that {campaign['name']} bought in each round, on a map of the pool.", figure)
    return gallery


def _collapsed(run: Run, summary: pd.DataFrame) -> list[str]:
    """Which numbers of rounds of which strategy are one run."""
    same = summary[(summary["same_as"] != "")].drop_duplicates(["strategy", "same_as"])
    return [f"{row['strategy']}: m = {words.listed(row['same_as'].split(','))}" for _, row in same.iterrows()]


def _strategies(run: Run) -> pd.DataFrame:
    """What the registry knows of the strategies compared."""
    found = []
    for spec in run.config.strategies:
        card = registry.card("strategy", registry.parse(spec)[0])
        marks = [mark for mark, on in (("nested", card.nested), ("reads groups", card.reads_groups)) if on]
        found.append({"strategy": spec, "what it does": card.summary, "signals": ", ".join(sorted(card.needs)) or "nothing", "marks": ", ".join(marks), "source": card.source})
    return pd.DataFrame(found)


def _more_seeds(seeds: list[int]) -> str:
    """An override that doubles the seeds and keeps those that ran."""
    return f"seeds={2 * len(seeds)}" if seeds == list(range(len(seeds))) else f"seeds=[{','.join(map(str, [*seeds, max(seeds) + 1]))}]"
