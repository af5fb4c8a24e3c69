"""The answer on the page: sentences, two figures and five tables from the tables of answer.py."""

from __future__ import annotations

import math
import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..config import StudyConfig
from . import words
from .figures import GREY, INK, _axes, _drawn, _key
from .grids import Grid

POOLED = "all live strategies"
MOST_NAMED = 8  # contenders in a sentence
TESTS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
KEPT = ("vendi_tfidf", "vendi_model", "group_coverage")  # measures of the diagram, the first that is there
MEASURES = words.MEASURES | {"vendi_tfidf": "Vendi score, TF-IDF"}


def headline(numbers: dict[str, pd.DataFrame], config: StudyConfig) -> list[str]:
    """The answer in two sentences; it may be that we cannot tell."""
    primary = numbers["contrasts"].query("kind == 'primary'")
    said = []
    if primary.empty:
        said.append("This study cannot say whether retraining more often helps: it has no strategy whose choice depends on the model in several numbers of rounds.")
    elif primary["seeds"].iloc[0] == 1:
        each = words.listed([f"{100 * row['effect']:+.1f} on {row['benchmark']}" for _, row in primary.iterrows()])
        said.append(f"With one seed this is a demonstration and no inference: each doubling of the rounds changed accuracy by {each} (percentage points, mean of the live strategies).")
    else:
        verdicts = []
        for _, row in primary.iterrows():
            verdict = "helped" if row["effect_low"] > 0 else "hurt" if row["effect_high"] < 0 else "made no difference that this study could see"
            verdicts.append(f"on {row['benchmark']} retraining more often {verdict}: {words.percent(row, 'effect', sign=True)} points of accuracy for each doubling of the rounds")
        live, seeds = numbers["slopes"]["strategy"].nunique(), int(primary["seeds"].iloc[0])
        who = f"{live} live {'strategy' if live == 1 else 'strategies'}, {words.count(seeds, 'seed')}; 95 % intervals over seeds and items"
        said.append(f"O{'; o'.join(v[1:] for v in verdicts)} ({who}).")
    for _, row in numbers["advice"].iloc[:1].iterrows():
        arm = f"{row['strategy']} in {words.count(int(row['rounds']), 'round')}"
        if row["advice"].startswith("cannot tell"):
            more = f"; about {int(row['more_seeds']):,} more seeds would tell it from the runner-up" if row["more_seeds"] else ""
            chance = "" if len(config.seeds) == 1 else f", with a probability of {row['probability']:.2f} of being the best"
            said.append(f"Which campaign is best we cannot tell: at these prices {arm} has the highest expected net value on {row['benchmark']}{chance}{more}.")
            field = row["contenders"].split("; ")
            if chance and 1 < len(field) <= MOST_NAMED:
                said.append(f"One of {words.listed(field)} is the best with a probability of 95 %.")
        else:
            said.append(f"At these prices, on {row['benchmark']}: {row['advice']} (the best with a probability of {row['probability']:.2f}).")
        if row["over_random_low"] > 0:
            said.append(f"What is clear: it is worth {words.usd(row['over_random'])} [{words.usd(row['over_random_low'])}, {words.usd(row['over_random_high'])}] more than random in one round, a little flattered as the highest of all.")
    return said


@_drawn
def slopes(numbers: dict[str, pd.DataFrame], note: str) -> Figure:
    """Accuracy per doubling of the rounds: the primary contrast, and each live strategy, with intervals, on each test."""
    alone, primary = numbers["slopes"], numbers["contrasts"].query("kind == 'primary'")
    names = [POOLED, *alone["strategy"].unique()]
    figure, axes = _axes("Gain per doubling of the rounds", note, (4.8, 1.5 + 0.34 * len(names)))
    benches = list(primary["benchmark"])
    for i, bench in enumerate(benches):
        rows = [primary[primary["benchmark"] == bench].iloc[0], *(row for _, row in alone[alone["benchmark"] == bench].iterrows())]
        mean = 100 * np.array([row["effect"] for row in rows])
        reach = np.nan_to_num(100 * np.array([[row["effect"] - row["effect_low"], row["effect_high"] - row["effect"]] for row in rows])).T
        y = np.arange(len(rows)) + 0.22 * (i - (len(benches) - 1) / 2)
        axes.errorbar(mean, y, xerr=reach, fmt="os^D"[i % 4], color=TESTS[i % len(TESTS)], markersize=4, capsize=2, elinewidth=1, label=bench)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.axhspan(-0.5, 0.5, color="#efefef", zorder=0)
    axes.set_yticks(np.arange(len(names)), [textwrap.fill(name.replace('_', ' '), 20) for name in names], fontsize=7.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("percentage points")
    _key(axes)
    return figure


@_drawn
def diagram(numbers: dict[str, pd.DataFrame], bench: str, measure: str, note: str) -> Figure:
    """Rounds -> diversity -> accuracy with the paths' numbers."""
    found = _paths(numbers, bench, measure)
    figure, axes = _axes(f"Rounds, diversity and accuracy on {bench}", note, (4.8, 3.0))
    axes.set_axis_off()
    axes.set(xlim=(0, 10), ylim=(0, 6))
    boxes = {"rounds, doubled": (1.4, 1.1), textwrap.fill(MEASURES.get(measure, measure), 16): (5, 4.9), "accuracy": (8.6, 1.1)}
    for text, (x, y) in boxes.items():
        axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox={"boxstyle": "round,pad=0.5", "facecolor": "#f2f2f2", "edgecolor": GREY})
    for start, end in (((1.9, 1.8), (4.0, 4.2)), ((6.0, 4.2), (8.1, 1.8)), ((2.9, 1.1), (7.6, 1.1))):
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1.4})
    axes.text(2.4, 3.2, f"a = {_number(found.loc['a'], 1, 2)}", ha="right", fontsize=8)
    axes.text(7.5, 3.2, f"b = {_number(found.loc['b'], 100, 2)}\npoints per unit", ha="left", fontsize=8)
    axes.text(5.2, 0.75, f"direct = {_number(found.loc['direct'], 100, 2)} points", ha="center", va="top", fontsize=8)
    axes.text(5, 2.0, f"through diversity, a × b:\n{_number(found.loc['indirect'], 100, 2)} points", ha="center", fontsize=8.5, fontweight="bold", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    return figure


def _paths(numbers: dict[str, pd.DataFrame], bench: str, measure: str) -> pd.DataFrame:
    table = numbers["mediation"]
    return table[(table["benchmark"] == bench) & (table["measure"] == measure) & (table["scope"] == "live strategies")].set_index("path")


def diagrams(numbers: dict[str, pd.DataFrame], config: StudyConfig) -> list[tuple[str, str]]:
    """(benchmark, measure) of the diagrams that can be drawn."""
    return [(bench, measure) for bench in config.evaluators for measure in KEPT[:1] if len(_paths(numbers, bench, measure))]


def _number(row: pd.Series, scale: float, digits: int) -> str:
    return words.between(row["value"], row["value_low"], row["value_high"], scale=scale, digits=digits, sign=True)


def point(row: pd.Series, name: str) -> str:
    """What a point of the front says."""
    days = "" if pd.isna(row["days"]) else f", {row['days']:g} days"
    return f"{name}: accuracy {words.percent(row)} %, {words.si(row['flops'], 'FLOPs')}, {words.usd(row['usd'])}{days}; on the front with probability {row['on_front']:.2f}"


def grids(numbers: dict[str, pd.DataFrame], varying: list[str]) -> dict[str, Grid]:
    """The tables of the section, in words."""

    def key(row: pd.Series) -> list[str]:
        return [row["strategy"], str(row["rounds"]), *(str(row[name]) for name in varying)]

    def p(value: float) -> str:
        return "–" if pd.isna(value) else f"{value:.3f}"

    keys = ["strategy", "m", *varying]
    contrasts = [
        [row["kind"], row["contrast"], row["benchmark"], words.percent(row, "effect", sign=True), p(row["p"]), p(row["p_holm"]), p(row["p_signs"]), p(row["smallest_p"]), _or_unknown(100 * row["detectable"]), str(row["seeds"]), str(row["items"])]
        for _, row in numbers["contrasts"].iterrows()
    ]
    paths = [
        [row["benchmark"], MEASURES.get(row["measure"], row["measure"].replace("_", " ")), row["path"], _number(row, 1 if row["path"] == "a" else 100, 2), str(row["seeds"])]
        for _, row in numbers["mediation"].query("scope == 'live strategies'").iterrows()
    ]
    apart = [
        [row["kind"], row["benchmark"], *key(row), words.between(row["vendi_tfidf"], row["vendi_tfidf_low"], row["vendi_tfidf_high"], sign=True), words.percent(row, "effect", sign=True), str(row["seeds"])]
        for _, row in numbers["apart"].iterrows()
    ]
    efficiency = [
        [row["benchmark"], *key(row), f"{row['labels']:,.0f}", _needed(row), "–" if math.isinf(row["saved"]) else f"{row['saved']:+,.0f}", "–" if math.isinf(row["saved"]) else words.usd(row["saved_usd"]), f"{100 * row['censored']:.0f}", str(row["seeds"])]
        for _, row in numbers["efficiency"].iterrows()
    ]
    front = [
        [row["benchmark"], *key(row), words.percent(row), words.si(row["flops"]), words.usd(row["usd"]), "unknown" if pd.isna(row["days"]) else f"{row['days']:g}", f"{row['on_front']:.2f}", f"{row['best']:.2f}", str(row["seeds"])]
        for _, row in numbers["front"].iterrows()
    ]
    advice = [
        [row["benchmark"], row["advice"], *key(row), f"{row['probability']:.2f}", words.usd(row["margin"]), words.usd(row["worth_of_a_point"]), row["priced_by"]]
        for _, row in numbers["advice"].iterrows()
    ]
    margins = [
        [row["benchmark"], *key(row), words.percent(row, "gain", sign=True), _dollars(row["extra_usd"]), _times(row, "per_dollar", 100), _labels(row["labels"]), _times(row, "per_label", 100), words.percent(row, "ahead", sign=True), _price(row["break_even"]), row["better"], str(row["seeds"])]
        for _, row in numbers["margins"].iterrows()
    ]
    power = [
        [row["kind"], row["contrast"], row["benchmark"], *(_or_unknown(100 * row[name]) for name in ("sd", "detectable", "with_twice", "with_four_times")), str(row["seeds"]), row["source"]]
        for _, row in numbers["power"].iterrows()
    ]
    likelihood = [
        [row["benchmark"], row["kind"], row["strategy"], str(row["rounds"] or ""), f"{row['nll']:.3f}", "–" if row["kind"] == "itself" else words.between(row["effect"], row["effect_low"], row["effect_high"], digits=3, sign=True), str(row["seeds"]), str(row["items"])]
        for _, row in numbers["likelihood"].iterrows()
    ]
    return {
        "likelihood": Grid("likelihood", "Negative log-likelihood of the test's own responses, nats a token: lower is better", ["benchmark", "kind", "strategy", "m", "NLL", "change", "seeds", "items"], likelihood),
        "margins": Grid("margins", "More rounds against more labels: accuracy in percentage points, the money in dollars", ["benchmark", *keys, "gain over one round", "extra cost", "points per extra dollar", "labels for that money", "points per label", "rounds minus labels", "labels better below, per annotation", "better", "seeds"], margins),
        "power": Grid("power", "The smallest true difference that so many seeds find four times out of five, in percentage points", ["kind", "contrast", "benchmark", "standard deviation over seeds", "detectable now", "with twice the seeds", "four times", "seeds", "source"], power),
        "contrasts": Grid("contrasts", "The declared contrasts, in percentage points of accuracy", ["kind", "contrast", "benchmark", "effect", "p", "p, Holm", "p, sign flips", "their smallest p", "detectable", "seeds", "items"], contrasts),
        "mediation": Grid("mediation", "Rounds, diversity and accuracy, live strategies together: a in units of the measure per doubling, b in points per unit, the others in points per doubling", ["benchmark", "measure", "path", "value", "seeds"], paths),
        "apart": Grid("apart", "Diversity without retraining, and retraining without choosing, minus random from the base", ["kind", "benchmark", *keys, "Vendi, TF-IDF", "accuracy, points", "seeds"], apart),
        "efficiency": Grid("efficiency", "Annotations that random needs for the same accuracy", ["benchmark", *keys, "bought", "random needs", "saved", "in dollars", "beyond the curve, % of draws", "seeds"], efficiency),
        "front": Grid("front", "Accuracy and cost: the probability that no other campaign is both as good and cheaper in FLOPs, and that it is worth most", ["benchmark", *keys, "accuracy, %", "FLOPs", "cost", "days", "on the front", "worth most", "seeds"], front),
        "advice": Grid("advice", "What to do at these prices", ["benchmark", "advice", *keys, "probability", "ahead of the next", "a point is worth", "priced by"], advice),
    }  # fmt: skip


def _or_unknown(value: float) -> str:
    return "unknown" if pd.isna(value) else f"{value:.1f}"


def _needed(row: pd.Series) -> str:
    def one(value: float) -> str:
        return f">{row['labels']:,.0f}" if math.isinf(value) else f"{value:,.0f}"

    return one(row["needed"]) if pd.isna(row["needed_low"]) else f"{one(row['needed'])} [{one(row['needed_low'])}, {one(row['needed_high'])}]"


def _times(row: pd.Series, name: str, scale: float) -> str:
    """With three digits or more, whatever its size."""
    mean, low, high = (scale * row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if pd.isna(mean):
        return "–"
    said = [f"{v:+,.0f}" if abs(v) >= 100 else f"{v:+.3g}" for v in (mean, low, high)]
    return said[0] if pd.isna(low) else f"{said[0]} [{said[1]}, {said[2]}]"


def _dollars(value: float) -> str:
    """Cents, and below one cent two digits."""
    return words.usd(value) if abs(value) >= 0.01 or value == 0 else f"${value:.2g}"


def _labels(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:,.1f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def _price(value: float) -> str:
    return "unknown" if pd.isna(value) else "any price" if math.isinf(value) else "no price" if value == 0 else _dollars(value)
