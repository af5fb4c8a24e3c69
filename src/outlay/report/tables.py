"""The report's numbers: results and ledger -> tidy tables with intervals. Pure. What was bought is in choices.py.

An arm is what ran: budget x strategy x schedule x start x rounds. Cells that are the same run (more rounds change nothing; one
round is the same with every start and schedule) are one arm, so no run counts twice. Means and intervals are over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..measure.diversity import AMONG, MEASURES
from ..measure.stats import Interval, accuracy_interval, paired_difference, t_interval
from ..results import WORDS
from ..workbench import EMBEDDINGS

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


def arms(table: pd.DataFrame, *more: str) -> Iterable[tuple[dict, pd.DataFrame]]:
    """Groups by arm and more keys, in grid order."""
    keys = [*ARM, *more]
    for values, part in table.groupby(keys, sort=False):
        yield dict(zip(keys, values, strict=True)), part


def mean(values: Iterable[float]) -> Interval:
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


def named(name: str, found: Interval) -> dict[str, float]:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _point(part: pd.DataFrame) -> dict:
    found, method = _accuracy(part)
    counts = {"seeds": part["seed"].nunique(), "items": int(part["n_items"].iloc[0])}
    return {"labels": float(part["labels_spent"].mean())} | named("accuracy", found) | {"interval": method} | counts


def base(results: pd.DataFrame) -> pd.DataFrame:
    """The untouched base model: one row per benchmark."""
    rows = results[results["round"] == 0].drop_duplicates("benchmark")
    return pd.DataFrame([{"benchmark": name, "strategy": BASE} | _point(part) for name, part in rows.groupby("benchmark", sort=False)])


def learning(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy after every round: one row per arm, benchmark and round."""
    rows = [keys | _point(part) for keys, part in arms(runs, "benchmark", "round")]
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


def like(table: pd.DataFrame, keys: dict) -> pd.DataFrame:
    """The rows of one arm."""
    return table[np.logical_and.reduce([table[name] == keys[name] for name in ARM])]


def _random_for(keys: dict, results: pd.DataFrame, last: pd.DataFrame) -> pd.DataFrame:
    """Random with the same annotations: from a warm start its own arm, if it ran; else its reference point."""
    same = like(last, keys | {"strategy": "random"})
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
            rows.append({"against": against, "measure": measure} | keys | named("difference", found) | {"seeds": found.n})

    for keys, part in arms(last, "benchmark"):
        bench = keys.pop("benchmark")
        if keys["strategy"] != "random":
            add("random", bench, keys, _paired(part, _random_for(keys, results, last), bench, "accuracy"))
            for measure in DIVERSITY:
                if bench == first:  # diversity does not depend on the benchmark
                    add("random sets", measure, keys, mean(part[measure] - part[f"{measure}_random"]))
        if keys["rounds"] > 1:
            once = like(last, keys | {"rounds": 1, "schedule": ANY, "start": ANY})
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
    for keys, part in arms(finals(runs(results)), "benchmark"):
        row = keys | {"same_as": part["same_as"].iloc[0]} | _point(part)
        gain = like(gains[gains["measure"] == keys["benchmark"]], keys)
        row |= {name: gain[name].iloc[0] if len(gain) else math.nan for name in ("difference", "difference_low", "difference_high")}
        for measure in DIVERSITY:
            row |= named(measure, mean(part[measure]))
            row |= {f"{measure}_random{end}": float(part[f"{measure}_random{end}"].mean()) for end in ("", "_low", "_high")}
        for quantity in COSTS:
            row |= named(quantity, mean(part[quantity]))
        rows.append(row)
    return pd.DataFrame(rows)


def costs(results: pd.DataFrame, ledger: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and phase (and their total): mean over seeds of what a campaign costs as if it had run alone."""
    ran = runs(results).drop_duplicates("campaign")[["campaign", "seed", *ARM]]
    spent = ledger[ledger["phase"].isin(PHASES)].groupby(["campaign", "phase"])[list(COSTS)].sum()
    rows = []
    for keys, part in arms(ran):
        mine = spent[spent.index.get_level_values("campaign").isin(part["campaign"])].unstack("campaign", fill_value=0)
        for phase in (*PHASES, "total"):
            row = keys | {"phase": phase, "seeds": len(part)}
            for quantity in COSTS:
                by_campaign = mine[quantity].sum() if phase == "total" else mine[quantity].reindex(index=PHASES, fill_value=0).loc[phase]
                row |= named(quantity, mean(by_campaign))
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
    for keys, part in [*untouched, *arms(finals(runs(results)), "benchmark")]:
        counts = {"answers": int(part["n_items"].sum()), "unparsed": int(part["unparsed"].sum()), "cut_off": int(part["cut_off"].sum())}
        rows.append(keys | counts)
    return pd.DataFrame(rows).astype({"rounds": "Int64", "budget": "Int64"})


def variety(results: pd.DataFrame) -> pd.DataFrame:
    """How varied responses and words of what was bought are, one row per arm: words of prompts beside random sets, responses and their
    words minus those that random's campaign bought with the same seed (NaN where words were not measured at as many tokens)."""
    last = finals(runs(results))
    bench = last["benchmark"].iloc[0]  # what was bought does not depend on the benchmark
    rows = []
    for keys, part in arms(last[last["benchmark"] == bench]):
        row = keys | {"seeds": len(part)}
        other = _random_for(keys, results, last)
        mine, theirs = (t[t["benchmark"] == bench].set_index("seed")["tokens_responses"] for t in (part, other))
        same = keys["strategy"] != "random" and (mine - theirs).dropna().eq(0).all()
        for measure in AMONG:
            name = f"{measure}_responses"
            difference = NOTHING if keys["strategy"] == "random" else _paired(part, other, bench, name)
            row |= named(name, mean(part[name])) | named(f"{name}_difference", difference)
        for measure in VARIETY:
            row |= named(f"{measure}_prompts", mean(part[f"{measure}_prompts"])) | named(f"{measure}_responses", mean(part[f"{measure}_responses"]))
            row |= {f"{measure}_prompts_random{end}": float(part[f"{measure}_prompts_random{end}"].mean()) for end in ("", "_low", "_high")}
            row |= named(f"{measure}_responses_difference", _paired(part, other, bench, f"{measure}_responses") if same else NOTHING)
        rows.append(row)
    return pd.DataFrame(rows)


def batches(results: pd.DataFrame) -> pd.DataFrame:
    """How diverse each round's batch is on its own, one row per arm and round: prompts beside random sets of the size of the batch."""
    ran = runs(results)
    bench = ran["benchmark"].iloc[0]
    rows = []
    for keys, part in arms(ran[(ran["benchmark"] == bench) & (ran["round"] > 0)], "round"):
        row = keys | {"seeds": len(part)}
        for space in EMBEDDINGS:
            for measure in MEASURES:
                name = f"batch_{measure}_{space}"
                row |= named(name, mean(part[name])) | {f"{name}_random{end}": float(part[f"{name}_random{end}"].mean()) for end in ("", "_low", "_high")}
        for measure in AMONG:
            row |= named(f"batch_{measure}_responses", mean(part[f"batch_{measure}_responses"]))
        rows.append(row)
    return pd.DataFrame(rows)


def arm_names(table: pd.DataFrame) -> pd.Series:
    """A readable name of each row's arm within one budget; schedule and start are named where they vary."""
    name = table["strategy"] + " m=" + table["rounds"].astype(str)
    for column in ("schedule", "start"):
        if table.loc[table[column] != ANY, column].nunique() > 1:
            name += np.where(table[column] == ANY, "", " " + table[column].astype(str))
    return name
