"""What more money would have bought, and how small a difference so many seeds can see: tables from the campaigns and the contrasts. Pure."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ..config import StudyConfig
from ..measure import contrasts, value
from . import tables
from .answer import Arms, Correct, arms, curve

MARGINS = [
    "benchmark", *tables.ARM, "gain", "gain_low", "gain_high", "extra_usd", "per_dollar", "per_dollar_low", "per_dollar_high", "labels",
    "per_label", "per_label_low", "per_label_high", "ahead", "ahead_low", "ahead_high", "break_even", "better", "seeds",
]  # fmt: skip
POWER = ["kind", "contrast", "benchmark", "sd", "seeds", "detectable", "with_twice", "with_four_times", "source"]


def margins(results: pd.DataFrame, correct: Correct, config: StudyConfig) -> pd.DataFrame:
    """More rounds against more labels, one row per benchmark and arm with several rounds, accuracies as fractions.

    gain: accuracy minus that of one round of the same strategy; extra_usd: what its device time costs more; per_dollar: one over the other,
    the cost at its mean; labels: annotations that extra_usd would pay for; per_label: slope of random's curve at its end; ahead: gain minus
    what these labels would bring, seed by seed; break_even: the price of an annotation in dollars below which labels are the better buy (inf
    where more rounds brought nothing, 0 where labels bring nothing); better: "rounds", "labels" or "cannot tell". Intervals are over seeds and
    items, that of per_label over seeds; `ahead` takes the items of the slope as given. NaN where there is no curve or one seed.
    """
    here, rows = arms(results, config), []
    for bench in config.evaluators:
        found = curve(results, bench)
        slopes = {} if found is None else dict(zip(found[1], value.end_slopes(found[0], found[2]).tolist(), strict=True))
        for keys, part in tables.arms(here.rows[here.rows["benchmark"] == bench]):
            if keys["rounds"] > 1 and 1 in here.found[keys["strategy"]]:
                rows += _margin(keys, part, here, correct, bench, slopes, config.prices.per_annotation)
    return pd.DataFrame(rows, columns=MARGINS)


def _margin(keys: dict, part: pd.DataFrame, here: Arms, correct: Correct, bench: str, slopes: dict[int, float], price: float) -> list[dict]:
    once, more = here.found[keys["strategy"]][1], dict(zip(part["seed"], part["campaign"], strict=True))
    common = sorted(once.keys() & more.keys())
    if not common:
        return []
    scores = np.stack([correct[more[seed], bench] - correct[once[seed], bench] for seed in common])
    usd = here.rows.drop_duplicates("campaign").set_index("campaign")["usd"]
    extra = float(np.mean([usd[more[seed]] - usd[once[seed]] for seed in common]))
    gain = contrasts.crossed(scores)
    row = {"benchmark": bench} | keys | {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high, "extra_usd": extra, "seeds": len(common)}
    row |= {f"per_dollar{end}": v / extra if extra > 0 else math.nan for end, v in (("", gain.mean), ("_low", gain.low), ("_high", gain.high))}
    row |= {"labels": extra / price if price > 0 else math.nan, "break_even": math.nan, "better": "cannot tell"}
    row |= tables.named("per_label", tables.NOTHING) | tables.named("ahead", tables.NOTHING)
    if slopes.keys() >= set(common):
        by_seed = np.array([slopes[seed] for seed in common])
        row |= tables.named("per_label", tables.mean(by_seed))
        row["break_even"] = _break_even(extra, float(by_seed.mean()), gain.mean)
        if price > 0:
            ahead = contrasts.crossed(scores - row["labels"] * by_seed[:, None])
            row |= {"ahead": ahead.mean, "ahead_low": ahead.low, "ahead_high": ahead.high}
            row["better"] = "rounds" if ahead.low > 0 else "labels" if ahead.high < 0 else "cannot tell"
    return [row]


def _break_even(extra: float, slope: float, gain: float) -> float:
    """The price of an annotation at which the extra dollars buy the same accuracy as labels and as rounds."""
    if slope <= 0:
        return 0.0 if gain > 0 else math.nan  # neither brings anything
    return max(extra, 0.0) * slope / gain if gain > 0 else math.inf


def power(declared: pd.DataFrame) -> pd.DataFrame:
    """The smallest true difference that a paired t test over seeds finds four times out of five at level 0.05, for every declared
    contrast (`answer.answer`), with this many seeds, twice and four times as many. NaN with one seed."""
    rows = []
    for _, row in declared.iterrows():
        seeds = int(row["seeds"])
        numbers = {name: contrasts.detectable(row["sd"], seeds * times) if seeds > 1 else math.nan for name, times in (("with_twice", 2), ("with_four_times", 4))}
        source = f"scatter of this study's {seeds} seeds" if seeds > 1 else "unknown: one seed has no scatter"
        rows.append({name: row[name] for name in ("kind", "contrast", "benchmark", "sd", "seeds", "detectable")} | numbers | {"source": source})
    return pd.DataFrame(rows, columns=POWER)
