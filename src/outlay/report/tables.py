"""The report's numbers: results, ledger and purchases -> tidy tables with intervals. Pure.

An arm is what ran: budget x strategy x schedule x start x rounds. Cells that are the same run (more rounds change nothing; one
round is the same with every start and schedule) are one arm, so no run counts twice. Means and intervals are over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..measure import dynamics
from ..measure.stats import Interval, accuracy_interval, paired_difference, t_interval
from ..results import LENGTHS, WORDS, overlap

ARM = ["budget", "strategy", "schedule", "start", "rounds"]
ANY = "any"  # the schedule and the start of a single round
DIVERSITY = ("vendi_model", "vendi_tfidf", "group_coverage")
VARIETY = WORDS[1:]  # of words; the first is at how many tokens
COSTS = ("flops", "seconds", "usd")
PHASES = ("score", "annotate", "train")
BASE = "base model"
NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def runs(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of every campaign that was asked for, each campaign once, with the keys of its arm. `same_as` lists the other
    numbers of rounds that are the same run."""
    asked = results[~results["reference"]]
    more = asked[asked["rounds"] > asked["rounds_run"]].groupby("campaign")["rounds"].agg(lambda m: ",".join(map(str, sorted(set(m)))))
    once = asked.drop_duplicates(["campaign", "round", "benchmark"])
    single = once["rounds_run"] == 1
    return once.assign(
        rounds=once["rounds_run"],
        schedule=once["schedule"].mask(single, ANY),
        start=once["start"].mask(single, ANY),
        same_as=once["campaign"].map(more).fillna(""),
    )


def finals(runs: pd.DataFrame) -> pd.DataFrame:
    """The last round of every campaign."""
    return runs[runs["round"] == runs["rounds"]]


def varying(results: pd.DataFrame) -> list[str]:
    """Which of budget, schedule and start have several values in the grid: only these need a column."""
    asked = results[~results["reference"]]
    return [name for name in ("budget", "schedule", "start") if asked[name].nunique() > 1]


def settings(results: pd.DataFrame) -> list[tuple[str, str]]:
    """The (schedule, start) pairs under which several rounds ran, in grid order; a figure shows one of them. [(ANY, ANY)] where
    there is one round only."""
    asked = results[~results["reference"] & (results["rounds"] > 1)]
    several = asked.groupby(["schedule", "start"], sort=False)["rounds_run"].max()
    return list(several[several > 1].index) or [(ANY, ANY)]


def within(table: pd.DataFrame, setting: tuple[str, str], budget: int | None = None) -> pd.DataFrame:
    """The arms that belong to a figure of this setting: its own, and those of one round, which belong to all. With a start
    other than cold, no number of rounds is the same run as one round."""
    schedule, start = setting
    mine = table[(table["rounds"] == 1) | ((table["schedule"] == schedule) & (table["start"] == start))]
    if budget is not None:
        mine = mine[mine["budget"] == budget]
    if "same_as" in mine and start not in (ANY, "cold"):
        mine = mine.assign(same_as="")
    return mine


def _arms(table: pd.DataFrame, *more: str) -> Iterable[tuple[dict, pd.DataFrame]]:
    """Groups by arm and more keys, in grid order."""
    keys = [*ARM, *more]
    for values, part in table.groupby(keys, sort=False):
        yield dict(zip(keys, values, strict=True)), part


def _mean(values: Iterable[float]) -> Interval:
    values = np.asarray(list(values), dtype=np.float64)
    return t_interval(values) if len(values) and np.isfinite(values).all() else NOTHING


def _accuracy(part: pd.DataFrame) -> tuple[Interval, str]:
    """t interval over seeds; over the test items where there is one seed, or where seeds cannot differ (the base model)."""
    if len(part) > 1 and (part["round"] > 0).all():
        return t_interval(part["accuracy"]), "t over seeds"
    mean, items = float(part["accuracy"].iloc[0]), int(part["n_items"].iloc[0])
    right = mean * items
    if abs(right - round(right)) > 1e-6:  # graded items have no Wilson interval
        return Interval(mean, math.nan, math.nan, items), "none"
    return accuracy_interval(np.repeat([1, 0], [round(right), items - round(right)])), "Wilson over items"


def _named(name: str, found: Interval) -> dict[str, float]:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _point(part: pd.DataFrame) -> dict:
    found, method = _accuracy(part)
    counts = {"seeds": part["seed"].nunique(), "items": int(part["n_items"].iloc[0])}
    return {"labels": float(part["labels_spent"].mean())} | _named("accuracy", found) | {"interval": method} | counts


def base(results: pd.DataFrame) -> pd.DataFrame:
    """The untouched base model: one row per benchmark."""
    rows = results[results["round"] == 0].drop_duplicates("benchmark")
    return pd.DataFrame([{"benchmark": name, "strategy": BASE} | _point(part) for name, part in rows.groupby("benchmark", sort=False)])


def learning(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy after every round: one row per arm, benchmark and round."""
    rows = [keys | _point(part) for keys, part in _arms(runs, "benchmark", "round")]
    return pd.DataFrame(rows)


def cold_random(results: pd.DataFrame) -> pd.DataFrame:
    """Random's nested prefixes after training from the base: one row per number of annotations, benchmark and seed. Empty
    without random and without the reference curve."""
    mine = results[(results["strategy"] == "random") & (results["rounds_run"] == 1) & (results["round"] == 1)]
    return mine.drop_duplicates(["campaign", "benchmark"])


def random_curve(results: pd.DataFrame) -> pd.DataFrame:
    """Random's reference learning curve: one row per number of annotations and benchmark, the base model at 0."""
    rows = [{"benchmark": name} | _point(part) for (name, _), part in cold_random(results).groupby(["benchmark", "budget"])]
    start = base(results).drop(columns="strategy").to_dict("records") if rows else []
    columns = ["benchmark", "labels", "accuracy", "accuracy_low", "accuracy_high", "interval", "seeds", "items"]
    return pd.DataFrame(start + rows, columns=columns).sort_values(["benchmark", "labels"], kind="stable")


def _like(table: pd.DataFrame, keys: dict) -> pd.DataFrame:
    """The rows of one arm."""
    return table[np.logical_and.reduce([table[name] == keys[name] for name in ARM])]


def _random_for(keys: dict, results: pd.DataFrame, last: pd.DataFrame) -> pd.DataFrame:
    """Random with the same annotations: from a warm start its own arm, if it ran; else its reference point."""
    same = _like(last, keys | {"strategy": "random"})
    cold = cold_random(results)
    return same if len(same) else cold[cold["budget"] == keys["budget"]]


def differences(results: pd.DataFrame) -> pd.DataFrame:
    """Paired by seed, one row per arm and measure: `against` random (accuracy), the mean of random sets of the same size
    (diversity) and one round of the same strategy (both). NaN limits with one seed."""
    last = finals(runs(results))
    first = last["benchmark"].iloc[0]
    rows = []

    def add(against: str, measure: str, keys: dict, found: Interval) -> None:
        if found.n:
            rows.append({"against": against, "measure": measure} | keys | _named("difference", found) | {"seeds": found.n})

    for keys, part in _arms(last, "benchmark"):
        bench = keys.pop("benchmark")
        if keys["strategy"] != "random":
            add("random", bench, keys, _paired(part, _random_for(keys, results, last), bench, "accuracy"))
            for measure in DIVERSITY:
                if bench == first:  # diversity does not depend on the benchmark
                    add("random sets", measure, keys, _mean(part[measure] - part[f"{measure}_random"]))
        if keys["rounds"] > 1:
            once = _like(last, keys | {"rounds": 1, "schedule": ANY, "start": ANY})
            for measure in ("accuracy", *DIVERSITY):
                if measure == "accuracy" or bench == first:
                    add("one round", bench if measure == "accuracy" else measure, keys, _paired(part, once, bench, measure))
    return pd.DataFrame(rows, columns=["against", "measure", *ARM, "difference", "difference_low", "difference_high", "seeds"])


def _paired(a: pd.DataFrame, b: pd.DataFrame, bench: str, column: str) -> Interval:
    b = b[b["benchmark"] == bench]
    mine, theirs = (dict(zip(t["seed"], t[column], strict=True)) for t in (a, b))
    if not mine.keys() & theirs.keys() or not np.isfinite([*mine.values(), *theirs.values()]).all():
        return NOTHING
    return paired_difference(mine, theirs)


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and benchmark after the last round: accuracy, its paired difference to random, diversity of what was
    bought beside random sets of the same size, and the cost of the campaign as if it had run alone, measurement left out."""
    gains = differences(results)
    gains = gains[gains["against"] == "random"]
    rows = []
    for keys, part in _arms(finals(runs(results)), "benchmark"):
        row = keys | {"same_as": part["same_as"].iloc[0]} | _point(part)
        gain = _like(gains[gains["measure"] == keys["benchmark"]], keys)
        row |= {name: gain[name].iloc[0] if len(gain) else math.nan for name in ("difference", "difference_low", "difference_high")}
        for measure in DIVERSITY:
            row |= _named(measure, _mean(part[measure]))
            row |= {f"{measure}_random{end}": float(part[f"{measure}_random{end}"].mean()) for end in ("", "_low", "_high")}
        for quantity in COSTS:
            row |= _named(quantity, _mean(part[quantity]))
        rows.append(row)
    return pd.DataFrame(rows)


def costs(results: pd.DataFrame, ledger: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and phase (and their total): mean over seeds of what a campaign costs as if it had run alone."""
    ran = runs(results).drop_duplicates("campaign")[["campaign", "seed", *ARM]]
    spent = ledger[ledger["phase"].isin(PHASES)].groupby(["campaign", "phase"])[list(COSTS)].sum()
    rows = []
    for keys, part in _arms(ran):
        mine = spent[spent.index.get_level_values("campaign").isin(part["campaign"])].unstack("campaign", fill_value=0)
        for phase in (*PHASES, "total"):
            row = keys | {"phase": phase, "seeds": len(part)}
            for quantity in COSTS:
                by_campaign = mine[quantity].sum() if phase == "total" else mine[quantity].reindex(index=PHASES, fill_value=0).loc[phase]
                row |= _named(quantity, _mean(by_campaign))
            rows.append(row)
    return pd.DataFrame(rows)


def paid(ledger: pd.DataFrame) -> pd.DataFrame:
    """What the study really consumed, by phase: shared work counted once."""
    really = ledger[ledger["paid"]]
    table = really.groupby("phase")[["labels", "flops", "seconds", "usd", "prompt_tokens", "generated_tokens", "trained_tokens"]].sum()
    table = table.reindex([phase for phase in (*PHASES, "dev", "measure") if phase in table.index])
    table.loc["total"] = table.sum()
    return table.reset_index().astype({"labels": "int64"})


def unparsed(results: pd.DataFrame) -> pd.DataFrame:
    """Answers without a readable result, and answers cut off at the token limit, summed over seeds: the base and every arm."""
    rows = []
    first = results[results["round"] == 0].drop_duplicates("benchmark")
    untouched = [({"strategy": BASE, "benchmark": name}, part) for name, part in first.groupby("benchmark", sort=False)]
    for keys, part in [*untouched, *_arms(finals(runs(results)), "benchmark")]:
        counts = {"answers": int(part["n_items"].sum()), "unparsed": int(part["unparsed"].sum()), "cut_off": int(part["cut_off"].sum())}
        rows.append(keys | counts)
    return pd.DataFrame(rows).astype({"rounds": "Int64", "budget": "Int64"})


def variety(results: pd.DataFrame) -> pd.DataFrame:
    """How varied the words of what was bought are, one row per arm: of prompts beside random sets, of responses also minus those that
    random's campaign bought with the same seed (NaN where it was not measured at as many tokens)."""
    last = finals(runs(results))
    bench = last["benchmark"].iloc[0]  # what was bought does not depend on the benchmark
    rows = []
    for keys, part in _arms(last[last["benchmark"] == bench]):
        row = keys | {"seeds": len(part)}
        other = _random_for(keys, results, last)
        mine, theirs = (t[t["benchmark"] == bench].set_index("seed")["tokens_responses"] for t in (part, other))
        same = keys["strategy"] != "random" and (mine - theirs).dropna().eq(0).all()
        for measure in VARIETY:
            row |= _named(f"{measure}_prompts", _mean(part[f"{measure}_prompts"])) | _named(f"{measure}_responses", _mean(part[f"{measure}_responses"]))
            row |= {f"{measure}_prompts_random{end}": float(part[f"{measure}_prompts_random{end}"].mean()) for end in ("", "_low", "_high")}
            row |= _named(f"{measure}_responses_difference", _paired(part, other, bench, f"{measure}_responses") if same else NOTHING)
        rows.append(row)
    return pd.DataFrame(rows)


def overlaps(results: pd.DataFrame, bought: pd.DataFrame, scores: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Two arms of this budget with the same seed, one row per pair in grid order: Jaccard overlap of what they bought, and rank
    correlation of the scores by which they chose their last batch, over the prompts that both could buy then."""
    ran = runs(results).drop_duplicates("campaign")
    ran = ran[ran["budget"] == budget]
    names = arm_names(ran)
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _, part in ran.groupby("seed"):
        matrix = overlap(bought[bought["campaign"].isin(part["campaign"])])
        ranks = dynamics.rank_correlation(_last(scores, part), "campaign").reindex(index=part["campaign"], columns=part["campaign"])
        arm = dict(zip(part["campaign"], names[part.index], strict=True))
        for a in arm:
            for b in arm:
                pairs.setdefault((arm[a], arm[b]), []).append((matrix.loc[a, b], ranks.loc[a, b]))
    rows = []
    for (a, b), found in pairs.items():
        jaccard, correlation = zip(*found, strict=True)
        rows.append({"a": a, "b": b} | _named("jaccard", _mean(jaccard)) | _named("correlation", _mean(correlation)) | {"seeds": len(found)})
    return pd.DataFrame(rows)


def _last(scores: pd.DataFrame, campaigns: pd.DataFrame) -> pd.DataFrame:
    """The scores of all prompts in the last round of these campaigns."""
    rounds = scores["campaign"].map(campaigns.set_index("campaign")["rounds"])
    return scores[(scores["round"] == rounds) & scores["all"].astype(bool)]


def across_seeds(results: pd.DataFrame, bought: pd.DataFrame, scores: pd.DataFrame, budget: int) -> pd.DataFrame:
    """How much two seeds of an arm agree, mean over the pairs of seeds: overlap of what they bought and rank correlation of their last
    scores, over the prompts that both could buy. Pairs are not independent, so there is no interval. Empty with one seed."""
    ran = runs(results).drop_duplicates("campaign")
    rows = []
    for keys, part in _arms(ran[ran["budget"] == budget]):
        upper = np.triu_indices(len(part), 1)
        if len(upper[0]):
            jaccard = overlap(bought[bought["campaign"].isin(part["campaign"])]).to_numpy()[upper]
            ranks = dynamics.rank_correlation(_last(scores, part), "campaign").reindex(index=part["campaign"], columns=part["campaign"]).to_numpy(float)[upper]
            rows.append(keys | {"pairs": len(jaccard), "jaccard": jaccard.mean(), "correlation": ranks.mean()})
    return pd.DataFrame(rows, columns=[*ARM, "pairs", "jaccard", "correlation"])


def selection(results: pd.DataFrame, changes: pd.DataFrame, budget: int) -> pd.DataFrame:
    """`results.changes`, one row per arm and round: means over seeds."""
    ran = runs(results).drop_duplicates("campaign")[["campaign", "seed", *ARM]]
    rows = []
    for keys, part in _arms(ran[ran["budget"] == budget].merge(changes, on="campaign"), "round"):
        row = keys | {"all": bool(part["all"].iloc[0]), "seeds": len(part), "chance": float(part["chance"].mean())}
        for name in ("correlation", "kept", *LENGTHS):
            row |= _named(name, _mean(part[name]))
        rows.append(row)
    names = [f"{name}{end}" for name in ("correlation", "kept", *LENGTHS) for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*ARM, "round", "all", "seeds", "chance", *names])


def arm_names(table: pd.DataFrame) -> pd.Series:
    """A readable name of each row's arm within one budget; schedule and start are named where they vary."""
    name = table["strategy"] + " m=" + table["rounds"].astype(str)
    for column in ("schedule", "start"):
        if table.loc[table[column] != ANY, column].nunique() > 1:
            name += np.where(table[column] == ANY, "", " " + table[column].astype(str))
    return name


def most_rounds(runs: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Of each strategy, the campaigns with the most rounds at this budget (the first such arm in grid order)."""
    mine = runs[runs["budget"] == budget].drop_duplicates("campaign")
    kept = []
    for _, part in mine.groupby("strategy", sort=False):
        kept.append(_like(part, part[part["rounds"] == part["rounds"].max()].iloc[0]))
    return pd.concat(kept)


def shares(results: pd.DataFrame, bought: pd.DataFrame, budget: int, groups: pd.Series) -> pd.DataFrame:
    """Which groups each round of a strategy's longest campaign bought from: mean share of the batch over seeds, with interval.
    `groups` are the pool's; its shares stand as strategy "pool". The largest groups, in pool and purchases together, come
    first. Empty where the pool has no groups."""
    columns = ["strategy", "rounds", "round", "group", "share", "share_low", "share_high", "bought", "seeds"]
    if not (groups != "").any():
        return pd.DataFrame(columns=columns)
    longest = most_rounds(runs(results), budget)
    of_bought = bought.loc[bought["campaign"].isin(longest["campaign"]), "group"].value_counts(normalize=True)
    of_pool = groups.value_counts(normalize=True).sort_index(kind="stable")
    of_pool = of_pool.loc[(of_pool + of_bought.reindex(of_pool.index, fill_value=0)).sort_values(ascending=False, kind="stable").index]
    rows = [{"strategy": "pool", "rounds": 0, "round": 0, "group": g, "share": s, "bought": 0, "seeds": 0} for g, s in of_pool.items()]
    for strategy, part in longest.groupby("strategy", sort=False):
        mine = bought[bought["campaign"].isin(part["campaign"])]
        for number, batch in mine.groupby("round"):
            table = batch.groupby("campaign")["group"].value_counts(normalize=True).unstack(fill_value=0.0).reindex(columns=of_pool.index, fill_value=0.0)
            size = len(batch) / batch["campaign"].nunique()
            for group in of_pool.index:
                keys = {"strategy": strategy, "rounds": int(part["rounds"].iloc[0]), "round": number, "group": group}
                rows.append(keys | _named("share", _mean(table[group])) | {"bought": size, "seeds": len(table)})
    return pd.DataFrame(rows, columns=columns)


def purchases(results: pd.DataFrame, bought: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Every prompt that each strategy's longest campaign bought, first seed, most wanted first; the nearest one bought before also as text."""
    longest = most_rounds(runs(results), budget)
    first = longest[longest["seed"] == longest["seed"].min()]
    names = dict(zip(first["campaign"], arm_names(first), strict=True))
    mine = bought[bought["campaign"].isin(list(names))]
    mine = mine.assign(seed=first["seed"].iloc[0], place=mine["campaign"].map({name: i for i, name in enumerate(names)}))
    mine = mine.sort_values(["place", "round", "rank"]).reset_index(drop=True)
    texts = bought.drop_duplicates("id").set_index("id")["text"]
    mine = mine.assign(campaign=mine["campaign"].map(names), nearest_text=mine["nearest"].map(texts).fillna(""))
    return mine[["campaign", "seed", "round", "rank", "id", "group", "text", "score", "nearest", "nearest_text", "similarity", "represents", "examples"]]
