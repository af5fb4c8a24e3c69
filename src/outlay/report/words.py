"""Numbers and findings as text, generated from the tables. Intervals, never p-values; where an interval has zero, we cannot tell."""

from __future__ import annotations

import math

import pandas as pd

from ..measure import dynamics
from .tables import ANY, DIVERSITY, arm_names

MEASURES = {"vendi_model": "Vendi score, model embedding", "vendi_tfidf": "Vendi score, TF-IDF", "group_coverage": "groups covered"}
MOST_NAMED, LARGEST = 8, 4  # differences in a sentence that are all named; those that are, if there are more
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"))


def si(value: float, unit: str = "") -> str:
    """3.1e12 -> "3.1 T": two to three digits and an SI prefix."""
    if not math.isfinite(value) or value == 0:
        return "0" + (f" {unit}" if unit else "") if value == 0 else "?"
    scale, prefix = next(((s, p) for s, p in PREFIXES if abs(value) >= s), PREFIXES[-1])
    number = value / scale
    return f"{number:.{2 if abs(number) < 10 else 1 if abs(number) < 100 else 0}f} {prefix}{unit}".strip()


def seconds(value: float) -> str:
    """Plain seconds from 1 s on, with a prefix below."""
    return f"{value:,.1f} s" if value >= 1 else si(value, "s")


def usd(value: float) -> str:
    return f"${value:,.2f}"


def between(mean: float, low: float, high: float, *, scale: float = 1.0, digits: int = 1, sign: bool = False) -> str:
    """"84.0 [79.1, 88.9]"; the mean alone where there is no interval; "–" where there is no mean."""
    if math.isnan(mean):
        return "–"
    plus = "+" if sign else ""
    mid = f"{scale * mean:{plus}.{digits}f}"
    return mid if math.isnan(low) else f"{mid} [{scale * low:{plus}.{digits}f}, {scale * high:{plus}.{digits}f}]"


def percent(row: pd.Series, name: str = "accuracy", *, sign: bool = False) -> str:
    """A share with its interval, in percent."""
    return between(row[name], row[f"{name}_low"], row[f"{name}_high"], scale=100, sign=sign)


def count(number: int, noun: str) -> str:
    """"1 seed", "3 seeds"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def cut(text: str, most: int) -> str:
    """At most so many letters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def rounds(row: pd.Series) -> str:
    """"1 (=2,4)" where 2 and 4 rounds are the same run."""
    return f"{row['rounds']} (={row['same_as']})" if row["same_as"] else str(row["rounds"])


def listed(names: list[str]) -> str:
    """"a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""


def findings(base: pd.DataFrame, summary: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """What the numbers show at the largest budget, in sentences."""
    budget = summary["budget"].max()
    summary, differences = summary[summary["budget"] == budget], differences[differences["budget"] == budget]
    differences = differences.assign(name=arm_names(differences))
    seeds = int(summary["seeds"].max())
    said = [f"Every campaign bought {count(int(budget), 'annotation')}; numbers are means over {count(seeds, 'seed')} with 95 % intervals."]
    if seeds == 1:
        said[0] = f"Every campaign bought {count(int(budget), 'annotation')}, with one seed: a demonstration, no inference. Accuracies have 95 % Wilson intervals over the test items; differences have no interval, so which one is better we cannot tell."
    elif seeds < 5:
        said.append(f"With {seeds} seeds intervals are wide and lean on the assumption that seeds scatter like a normal distribution.")
    for bench, part in summary.groupby("benchmark", sort=False):
        start = base[base["benchmark"] == bench].iloc[0]
        best = part.loc[part["accuracy"].idxmax()]
        said.append(
            f"On {bench} ({count(start['items'], 'item')}) the untouched base model gets {percent(start)} % right (interval over items); "
            f"the highest mean is {percent(best)} %, of {arm_names(part)[best.name]}."
        )
        said += _compare(differences, "random", bench, seeds, "accuracy", "random with the same annotations")
        said += _compare(differences, "one round", bench, seeds, "accuracy", "one round of the same strategy")
    once = differences[differences["rounds"] == differences.groupby("strategy")["rounds"].transform("min")]
    for measure in DIVERSITY:
        said += _compare(once, "random sets", measure, seeds, MEASURES[measure], "random sets of the same size")
        said += _compare(differences, "one round", measure, seeds, MEASURES[measure], "one round of the same strategy")
    if seeds > 1 and (differences["difference_low"] * differences["difference_high"] > 0).any():
        said.append("These are many intervals: of 20 with no true difference behind them, about one excludes zero by chance.")
    return said


def alarms(selection: pd.DataFrame) -> list[str]:
    """A sentence for every strategy whose score mostly ranks by length, in the round where it does so most."""
    said = []
    for strategy, part in selection.groupby("strategy", sort=False):
        for column, label in (("prompt_length", "the length of the prompt"), ("response_length", "the length of the model's response")):
            if part[column].notna().any():
                worst = part.loc[part[column].abs().idxmax()]
                where = f"The score of {strategy} (m={worst['rounds']}, round {worst['round']}, {'all prompts' if worst['all'] else 'its picks'}, {count(worst['seeds'], 'seed')})"
                said += [f"{alarm}." for alarm in dynamics.length_alarm(pd.DataFrame({label: {where: worst[column]}}))]
    return said


def _compare(differences: pd.DataFrame, against: str, measure: str, seeds: int, what: str, other: str) -> list[str]:
    """One sentence about all the differences of a measure: which are clear, of which we cannot tell."""
    mine = differences[(differences["against"] == against) & (differences["measure"] == measure)]
    if mine.empty:
        return []
    scale, unit, digits = (1, "", 2) if measure.startswith("vendi") else (100, " points", 1)

    def each(part: pd.DataFrame) -> str:
        shown = part
        if len(part) > MOST_NAMED:
            shown = part.loc[part["difference"].abs().sort_values(ascending=False, kind="stable").index[:LARGEST]]
        more = [] if len(shown) == len(part) else [f"{len(part) - LARGEST} smaller ones (differences.csv)"]
        return listed([f"{row['name']} {_signed(row, scale, digits)}" for _, row in shown.iterrows()] + more)

    begin = f"{what[0].upper() + what[1:]} against {other}"
    if seeds == 1:
        return [f"{begin}{f' (in{unit})' if unit else ''}, one seed: {each(mine)}."]
    same = mine[(mine["difference"] == 0) & (mine["difference_low"] == mine["difference_high"])]
    higher, lower = mine[mine["difference_low"] > 0], mine[mine["difference_high"] < 0]
    unclear = mine.drop([*same.index, *higher.index, *lower.index])
    said = [f"{word}: {each(part)}" for word, part in (("higher", higher), ("lower", lower)) if len(part)]
    if len(unclear) == len(mine):
        said.append("we cannot tell, " + ("every interval includes" if len(mine) > 1 else "the interval includes") + f" zero: {each(unclear)}")
    elif len(unclear):
        said.append(f"we cannot tell (the interval includes zero): {each(unclear)}")
    if len(same):
        said.append("exactly the same in every seed: " + (listed(list(same["name"])) if len(same) < len(mine) else "all"))
    return [f"{begin}{f', in{unit}' if unit else ''} – {'; '.join(said)}."]


def _signed(row: pd.Series, scale: float, digits: int) -> str:
    return between(row["difference"], row["difference_low"], row["difference_high"], scale=scale, digits=digits, sign=True)


def setting_name(setting: tuple[str, str], several: bool) -> str:
    """What to add to a figure's title: the schedule and start that it shows, where there are others."""
    return f", {setting[0]} schedule, {setting[1]} start" if several and setting != (ANY, ANY) else ""
