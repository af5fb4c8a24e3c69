"""What was bought, and how choices agree and change: purchases and scores -> tidy tables with intervals. Pure."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..measure import dynamics
from ..results import LENGTHS, overlap
from .tables import ARM, arm_names, arms, like, mean, named, runs


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
        rows.append({"a": a, "b": b} | named("jaccard", mean(jaccard)) | named("correlation", mean(correlation)) | {"seeds": len(found)})
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
    for keys, part in arms(ran[ran["budget"] == budget]):
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
    for keys, part in arms(ran[ran["budget"] == budget].merge(changes, on="campaign"), "round"):
        row = keys | {"all": bool(part["all"].iloc[0]), "seeds": len(part), "chance": float(part["chance"].mean())}
        for name in ("correlation", "kept", *LENGTHS):
            row |= named(name, mean(part[name]))
        rows.append(row)
    names = [f"{name}{end}" for name in ("correlation", "kept", *LENGTHS) for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*ARM, "round", "all", "seeds", "chance", *names])


def agreement(results: pd.DataFrame, found: pd.DataFrame, budget: int) -> pd.DataFrame:
    """`results.agreements`, one row per arm and round: means over seeds, with intervals."""
    ran = runs(results).drop_duplicates("campaign")[["campaign", "seed", *ARM]]
    rows = []
    for keys, part in arms(ran[ran["budget"] == budget].merge(found, on="campaign"), "round"):
        row = keys | {name: float(part[name].mean()) for name in ("scored", "unlabeled")} | {"seeds": len(part)}
        for name in ("overlap", "rank", "best_rank"):
            row |= named(name, mean(part[name].astype(float)))
        rows.append(row)
    names = [f"{name}{end}" for name in ("overlap", "rank", "best_rank") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*ARM, "round", "scored", "unlabeled", "seeds", *names])


def proxies(results: pd.DataFrame, found: pd.DataFrame, budget: int) -> pd.DataFrame:
    """`results.proxies`, one row per arm, round and signal: means over seeds, with intervals."""
    ran = runs(results).drop_duplicates("campaign")[["campaign", "seed", *ARM]]
    rows = []
    for keys, part in arms(ran[ran["budget"] == budget].merge(found, on="campaign"), "round", "signal"):
        row = keys | {name: float(part[name].mean()) for name in ("sample", "scored", "picks", "chance")} | {"seeds": len(part)}
        rows.append(row | named("overlap", mean(part["overlap"])) | named("correlation", mean(part["correlation"].astype(float))))
    names = [f"{name}{end}" for name in ("overlap", "correlation") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*ARM, "round", "signal", "sample", "scored", "picks", "chance", "seeds", *names])


def most_rounds(runs: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Of each strategy, the campaigns with the most rounds at this budget (the first such arm in grid order)."""
    mine = runs[runs["budget"] == budget].drop_duplicates("campaign")
    kept = []
    for _, part in mine.groupby("strategy", sort=False):
        kept.append(like(part, part[part["rounds"] == part["rounds"].max()].iloc[0]))
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
                rows.append(keys | named("share", mean(table[group])) | {"bought": size, "seeds": len(table)})
    return pd.DataFrame(rows, columns=columns)


def first_seed(results: pd.DataFrame, budget: int) -> pd.DataFrame:
    """The campaigns of this budget with the first seed: campaign, its name, seed and the keys of its arm, in grid order."""
    ran = runs(results).drop_duplicates("campaign")
    mine = ran[(ran["budget"] == budget) & (ran["seed"] == ran.loc[ran["budget"] == budget, "seed"].min())]
    return mine.assign(name=arm_names(mine))[["campaign", "name", "seed", *ARM]]


def purchases(results: pd.DataFrame, bought: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Every prompt that each strategy's longest campaign bought, first seed, most wanted first; the nearest one bought before also as text."""
    first = most_rounds(first_seed(results, budget), budget)
    names = dict(zip(first["campaign"], first["name"], strict=True))
    mine = bought[bought["campaign"].isin(list(names))]
    mine = mine.assign(seed=first["seed"].iloc[0], place=mine["campaign"].map({name: i for i, name in enumerate(names)}))
    mine = mine.sort_values(["place", "round", "rank"]).reset_index(drop=True)
    texts = bought.drop_duplicates("id").set_index("id")["text"]
    mine = mine.assign(campaign=mine["campaign"].map(names), nearest_text=mine["nearest"].map(texts).fillna(""))
    return mine[["campaign", "seed", "round", "rank", "id", "group", "text", "score", "nearest", "nearest_text", "similarity", "represents", "examples"]]
