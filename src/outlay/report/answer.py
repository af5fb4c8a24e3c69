"""The answer: declared contrasts, mediation, what the gains cost, a recommendation. Tables from results and the items' scores; pure.

The one primary contrast of a study is the slope of accuracy on log2(m), averaged over the live strategies (whose signals change with the
model), on each test. Secondary: of the first five live strategies, the most rounds against one, and against random; Holm-corrected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .. import seeds
from ..config import Prices, StudyConfig
from ..errors import DataError
from ..grid import live
from ..measure import contrasts, mediation, value
from ..types import Floats
from . import tables

Correct = Mapping[tuple[str, str], np.ndarray]
MOST_SECONDARY = 10
MEDIATORS = ("vendi_model", "vendi_tfidf", "novelsum_model", "novelsum_tfidf", "coverage_radius_model", "coverage_radius_tfidf", "group_coverage")
DRAWS = 2000
SURE = 0.8  # a recommendation that is the best with less than this probability is called open
EFFECT = ["effect", "effect_low", "effect_high", "seeds", "items", "seed_share", "sd", "detectable", "p", "p_signs", "smallest_p"]
CONTRASTS = ["kind", "contrast", "benchmark", *EFFECT, "p_holm"]
MEDIATION = ["benchmark", "scope", "measure", "path", "value", "value_low", "value_high", "seeds"]
APART = ["kind", "benchmark", *tables.ARM, "effect", "effect_low", "effect_high", "vendi_tfidf", "vendi_tfidf_low", "vendi_tfidf_high", "seeds"]
EFFICIENCY = ["benchmark", *tables.ARM, "labels", "needed", "needed_low", "needed_high", "censored", "saved", "saved_usd", "seeds"]
FRONT = ["benchmark", *tables.ARM, "accuracy", "accuracy_low", "accuracy_high", "flops", "usd", "days", "on_front", "net", "best", "seeds"]
ADVICE = ["benchmark", "advice", *tables.ARM, "probability", "margin", "more_seeds", "contenders", "over_random", "over_random_low", "over_random_high", "worth_of_a_point", "priced_by"]


@dataclass(frozen=True, slots=True)
class Arms:
    """The finished campaigns of one budget and setting: strategy -> m -> seed -> campaign; `rows`: their last rounds."""

    rows: pd.DataFrame
    found: dict[str, dict[int, dict[int, str]]]
    live: list[str]


def arms(results: pd.DataFrame, config: StudyConfig) -> Arms:
    """Those of the largest budget, in the study's first setting of schedule and start."""
    budget = max(config.budgets)
    last = tables.within(tables.finals(tables.runs(results)), tables.settings(results)[0], budget)
    first = last[last["benchmark"] == last["benchmark"].iloc[0]]
    found: dict[str, dict[int, dict[int, str]]] = {}
    for _, row in first.iterrows():
        found.setdefault(row["strategy"], {}).setdefault(row["rounds"], {})[row["seed"]] = row["campaign"]
    return Arms(last, found, [s for s in found if live(s, config) and len(found[s]) > 1])


def answer(results: pd.DataFrame, correct: Correct, config: StudyConfig) -> dict[str, pd.DataFrame]:
    """Name -> table: contrasts, slopes, mediation, apart, efficiency, front, advice."""
    here = arms(results, config)
    front, advice = _front(here, correct, results, config)
    return {
        "contrasts": _contrasts(here, correct, config),
        "slopes": _slopes(here, correct, config),
        "mediation": _mediation(here, config),
        "apart": _apart(here, correct, results, config),
        "efficiency": _efficiency(here, results, config),
        "front": front,
        "advice": advice,
    }


def weighted(here: Arms, correct: Correct, bench: str, weights: Mapping[tuple[str, int], float]) -> Floats | None:
    """The weighted sum of campaigns, seed by seed and item by item, (s, n); None where no seed has them all."""
    campaigns = {key: here.found.get(key[0], {}).get(key[1], {}) for key in weights}
    common = sorted(set.intersection(*(set(by_seed) for by_seed in campaigns.values()))) if campaigns else []
    if not common:
        return None
    return np.stack([sum(w * correct[campaigns[key][seed], bench] for key, w in weights.items()) for seed in common])


def _effect(table: Floats) -> dict[str, float]:
    found = contrasts.crossed(table)
    by_seed = table.mean(axis=1)
    sd = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else math.nan
    p, smallest = contrasts.sign_flips(by_seed)
    numbers = (found.mean, found.low, found.high, found.seeds, found.items, found.seed_share, sd, contrasts.detectable(sd, found.seeds), found.p, p, smallest)
    return dict(zip(EFFECT, numbers, strict=True))


def slope(strategies: list[str], here: Arms) -> dict[tuple[str, int], float]:
    """Weights of the mean slope of these strategies, each over the numbers of rounds that it ran."""
    weights = {}
    for strategy in strategies:
        rounds = sorted(here.found[strategy])
        weights |= {(strategy, m): float(w) / len(strategies) for m, w in zip(rounds, contrasts.slope_weights(rounds), strict=True)}
    return weights


def _contrasts(here: Arms, correct: Correct, config: StudyConfig) -> pd.DataFrame:
    rows = []
    benches = list(config.evaluators)
    if here.live:
        for bench in benches:
            table = weighted(here, correct, bench, slope(here.live, here))
            if table is not None:
                rows.append({"kind": "primary", "contrast": "accuracy per doubling of the rounds, live strategies", "benchmark": bench} | _effect(table))
    second = []
    for strategy in here.live[: MOST_SECONDARY // 2]:
        most = max(here.found[strategy])
        for other, label in (((strategy, 1), "one round"), (("random", 1), "random")):
            table = weighted(here, correct, benches[0], {(strategy, most): 1.0, other: -1.0})
            if table is not None and other != (strategy, most):
                second.append({"kind": "secondary", "contrast": f"{strategy} m={most} minus {label}", "benchmark": benches[0]} | _effect(table))
    for row, p in zip(second, contrasts.holm([row["p"] for row in second]), strict=True):
        row["p_holm"] = p
    return pd.DataFrame(rows + second, columns=CONTRASTS)


def _slopes(here: Arms, correct: Correct, config: StudyConfig) -> pd.DataFrame:
    """The slope of every live strategy alone: intervals only."""
    rows = []
    for bench in config.evaluators:
        for strategy in here.live:
            table = weighted(here, correct, bench, slope([strategy], here))
            if table is not None:
                rows.append({"benchmark": bench, "strategy": strategy} | _effect(table))
    return pd.DataFrame(rows, columns=["benchmark", "strategy", *EFFECT])


def _mediation(here: Arms, config: StudyConfig) -> pd.DataFrame:
    """Of the live strategies together and of each alone, for every measure of diversity that varies."""
    rows = []
    mine = here.rows[here.rows["strategy"].isin(here.live)]
    scopes = {"live strategies": mine} | ({s: mine[mine["strategy"] == s] for s in here.live} if len(here.live) > 1 else {})
    for bench in config.evaluators:
        for scope, part in scopes.items():
            part = part[part["benchmark"] == bench]
            for measure in MEDIATORS:
                if part.empty or not np.isfinite(part[measure]).all():
                    continue
                try:
                    found = mediation.mediation(part["rounds"], part[measure], part["accuracy"], part["strategy"] + " " + part["seed"].astype(str), part["seed"], rng=seeds.generator(0, "mediation"))
                except DataError:
                    continue  # this measure does not vary with the rounds here
                for path, at in found.items():
                    rows.append({"benchmark": bench, "scope": scope, "measure": measure, "path": path, "value": at.value, "value_low": at.low, "value_high": at.high, "seeds": part["seed"].nunique()})
    return pd.DataFrame(rows, columns=MEDIATION)


def _apart(here: Arms, correct: Correct, results: pd.DataFrame, config: StudyConfig) -> pd.DataFrame:
    """What can be told apart by experiment, against random from the base: arms that change diversity without retraining, and arms that
    retrain without choosing by the model (random from a warm start)."""
    budget, rows = max(config.budgets), []
    last = tables.finals(tables.runs(results))
    last = last[last["budget"] == budget]
    once = {row["seed"]: row for _, row in last[(last["strategy"] == "random") & (last["rounds"] == 1)].drop_duplicates("seed").iterrows()}
    for keys, part in tables.arms(last, "benchmark"):
        bench = keys.pop("benchmark")
        if keys["strategy"] == "random" and keys["rounds"] > 1:
            kind = "retrains, does not choose"
        elif keys["strategy"] != "random" and keys["rounds"] == 1 and not live(keys["strategy"], config):
            kind = "chooses for diversity, does not retrain"
        else:
            continue
        part = part[part["seed"].isin(once)]
        if part.empty:
            continue
        found = contrasts.crossed(np.stack([correct[row["campaign"], bench] - correct[once[row["seed"]]["campaign"], bench] for _, row in part.iterrows()]))
        spread = tables.mean(row["vendi_tfidf"] - once[row["seed"]]["vendi_tfidf"] for _, row in part.iterrows())
        rows.append({"kind": kind, "benchmark": bench} | keys | {"effect": found.mean, "effect_low": found.low, "effect_high": found.high} | tables.named("vendi_tfidf", spread) | {"seeds": len(part)})
    return pd.DataFrame(rows, columns=APART)


def curve(results: pd.DataFrame, bench: str) -> tuple[Floats, list[int], Floats] | None:
    """Random's nested curve with the base model at 0: (labels (k,), seeds, accuracy (s, k)); None with fewer than two points."""
    cold = tables.cold_random(results)
    wide = cold[cold["benchmark"] == bench].pivot_table(index="seed", columns="labels_spent", values="accuracy").dropna()
    if wide.empty:
        return None
    base = results[(results["round"] == 0) & (results["benchmark"] == bench)]["accuracy"].iloc[0]
    return np.array([0, *wide.columns], dtype=np.float64), list(wide.index), np.column_stack([np.full(len(wide), base), wide.to_numpy()])


def _efficiency(here: Arms, results: pd.DataFrame, config: StudyConfig) -> pd.DataFrame:
    rows = []
    for bench in config.evaluators:
        found = curve(results, bench)
        if found is None:
            continue
        labels, who, accuracy = found
        for keys, part in tables.arms(here.rows[here.rows["benchmark"] == bench]):
            by_seed = dict(zip(part["seed"], part["accuracy"], strict=True))
            common = [i for i, seed in enumerate(who) if seed in by_seed]
            if keys["strategy"] == "random" or not common:
                continue
            spent = float(part["labels_spent"].mean())
            need = value.labels_needed(labels, accuracy[common], [by_seed[who[i]] for i in common], rng=seeds.generator(0, "efficiency"))
            saved = need.labels - spent
            numbers = {"labels": spent, "needed": need.labels, "needed_low": need.low, "needed_high": need.high, "censored": need.censored, "saved": saved, "saved_usd": saved * config.prices.per_annotation}
            rows.append({"benchmark": bench} | keys | numbers | {"seeds": len(common)})
    return pd.DataFrame(rows, columns=EFFICIENCY)


def _front(here: Arms, correct: Correct, results: pd.DataFrame, config: StudyConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy against FLOPs and dollars: how probably is an arm on the front, and which is worth most."""
    rows, advice, prices = [], [], config.prices
    for bench in config.evaluators:
        cells = [(keys, part) for keys, part in tables.arms(here.rows[here.rows["benchmark"] == bench])]
        common = sorted(set.intersection(*(set(part["seed"]) for _, part in cells)))
        if not common:
            continue
        scores = np.stack([np.stack([correct[part.set_index("seed").loc[seed, "campaign"], bench] for seed in common]) for _, part in cells])
        drawn = contrasts.draws(scores, DRAWS, seeds.generator(0, "front", bench))
        flops, usd = (np.array([part[name].mean() for _, part in cells]) for name in ("flops", "usd"))
        days = np.array([keys["rounds"] * (math.nan if prices.days_per_round is None else prices.days_per_round) for keys, _ in cells])
        worth, by = _worth(prices, curve(results, bench))
        choice = value.recommend(drawn, usd + np.nan_to_num(days) * prices.per_day_of_delay, worth)
        front = value.on_front(drawn, flops).mean(axis=0)
        for i, (keys, _) in enumerate(cells):
            found = contrasts.crossed(scores[i])
            rows.append({"benchmark": bench} | keys | {"accuracy": found.mean, "accuracy_low": found.low, "accuracy_high": found.high, "flops": flops[i], "usd": usd[i], "days": days[i], "on_front": front[i], "net": choice.expected[i], "best": choice.probabilities[i], "seeds": len(common)})
        advice.append(_advice(choice, cells, scores, bench, len(common), worth, by))
    return pd.DataFrame(rows, columns=FRONT), pd.DataFrame(advice, columns=ADVICE)


def _worth(prices: Prices, curve: tuple[Floats, list[int], Floats] | None) -> tuple[float, str]:
    """Dollars of an accuracy of 1, and by what they were set."""
    if prices.per_point is not None:
        return 100 * prices.per_point, "prices.per_point"
    if curve is not None:
        rate = value.exchange_rate(curve[0].tolist(), curve[2], prices.per_annotation)
        if 0 < rate < math.inf:
            return rate, "what random pays for a point in annotations"
    return 1e6, "accuracy alone: random's curve does not rise at its end, so no price can be read from it"


def _advice(choice: value.Choice, cells: list, scores: Floats, bench: str, count: int, worth: float, by: str) -> dict:
    best, other = cells[choice.best][0], scores[choice.runner_up]
    more = 0
    if count == 1:
        advice = "cannot tell: one seed"
    elif choice.probability < SURE:
        gap = (scores[choice.best] - other).mean(axis=1)
        # What has to be told apart is the difference in value: in accuracy, the margin over its worth.
        more = max(contrasts.seeds_needed(choice.margin / worth, float(gap.std(ddof=1))) - count, 1) if choice.margin > 0 and gap.std() > 0 else 0
        advice = f"cannot tell: about {more} more seeds" if more else "cannot tell"
    elif best["strategy"] == "random":
        advice = "use random"
    elif best["rounds"] == 1:
        advice = "one round is enough"
    else:
        advice = f"{best['strategy']} in {best['rounds']} rounds"
    names = list(tables.arm_names(pd.DataFrame([keys for keys, _ in cells])))
    chance = next((i for i, (keys, _) in enumerate(cells) if keys["strategy"] == "random" and keys["rounds"] == 1 and keys["budget"] == best["budget"]), None)
    over = dict(zip(("over_random", "over_random_low", "over_random_high"), (math.nan,) * 3 if chance is None or count == 1 else choice.over(chance), strict=True))
    facts = {"probability": choice.probability, "margin": choice.margin, "more_seeds": more, "contenders": "; ".join(names[i] for i in choice.contenders())}
    return {"benchmark": bench, "advice": advice} | best | facts | over | {"worth_of_a_point": worth / 100, "priced_by": by}
