"""Two finished runs side by side: what differs in their configs, the accuracy and cost of the campaigns that both have. Read-only but for `out`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import results as runs
from ..config import StudyConfig
from ..errors import ConfigError
from ..measure import contrasts
from ..measure.stats import Interval, unpaired_difference
from ..store import Store, write_atomic
from ..types import Evaluation
from . import page, tables, words
from .grids import Grid

__all__ = ["compare"]
COSTS = ("flops", "seconds", "usd")
ACCURACY = [
    "benchmark", *tables.ARM, "accuracy_a", "accuracy_a_low", "accuracy_a_high", "seeds_a", "accuracy_b", "accuracy_b_low", "accuracy_b_high", "seeds_b",
    "difference", "difference_low", "difference_high", "seeds", "items", "interval",
]  # fmt: skip
COST = [*tables.ARM, *(f"{name}{end}" for name in COSTS for end in ("_a", "_b", "_ratio"))]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs. last: its campaigns' last rounds; items: benchmark -> fingerprint of the test's items."""

    name: str
    study: dict
    config: StudyConfig
    last: pd.DataFrame
    items: dict[str, str]
    root: Path


def read(root: Path) -> Side:
    store = Store(root)
    study = store.read("study.json", dict)
    config = StudyConfig.model_validate(study["config"])
    if not (root / "results.parquet").exists():
        raise ConfigError(f"{root} has no results.parquet; run `outlay report {root}` first")
    last = tables.finals(tables.runs(pd.read_parquet(root / "results.parquet")))
    items = {name: store.read(f"shared/base/evaluation-{name}.parquet", Evaluation).items for name in config.evaluators}
    return Side(root.name, study, config, last, items, root)


def compare(a: Path, b: Path, out: Path) -> Path:
    """Write the comparison of the runs a and b into the folder `out`; -> its index.html. ConfigError where they share no campaign (budget,
    strategy, schedule, start and m) with a benchmark of the same name, or are one and the same."""
    if a.resolve() == b.resolve():
        raise ConfigError(f"{a} and {b} are the same run; give two")
    left, right = read(a), read(b)
    accuracy = _accuracy(left, right)
    numbers = {"config": _configs(left, right), "accuracy": accuracy, "cost": _cost(left, right)}
    if (out / "study.json").exists():
        raise ConfigError(f"--out {out} is a run directory; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    page.write_tables(out, numbers)
    made = page.render(
        "compare.html.jinja", script="", a=left, b=right, findings=_findings(accuracy), figures=_figures(accuracy, out), grids=_grids(numbers), words=words,
        missing={side.name: _only(side, other) for side, other in ((left, right), (right, left))},
    )  # fmt: skip
    write_atomic(out / "index.html", made.encode())
    return out / "index.html"


def _keys(side: Side) -> dict[tuple, pd.DataFrame]:
    """(benchmark, arm) -> the last rounds of its campaigns."""
    return {(keys.pop("benchmark"), *keys.values()): part for keys, part in tables.arms(side.last, "benchmark")}


def _arms(side: Side) -> dict[tuple, pd.DataFrame]:
    """The same without benchmarks: costs do not depend on them."""
    return {key[1:]: part for key, part in _keys(side).items()}


def _only(side: Side, other: Side) -> list[str]:
    """The campaigns of one run that the other lacks."""
    theirs = _arms(other)
    return [f"{strategy} m={m} ({budget} annotations, {schedule} schedule, {start} start)" for budget, strategy, schedule, start, m in _arms(side) if (budget, strategy, schedule, start, m) not in theirs]


def _accuracy(a: Side, b: Side) -> pd.DataFrame:
    """One row per benchmark and arm of both runs; differences are b minus a, as fractions."""
    mine, theirs = _keys(a), _keys(b)
    both = [key for key in mine if key in theirs]
    if not both:
        benches = [", ".join(side.config.evaluators) for side in (a, b)]
        if not set(a.config.evaluators) & set(b.config.evaluators):
            raise ConfigError(f"{a.root} and {b.root} have no benchmark in common (the one has {benches[0]}, the other {benches[1]}), so there is nothing to compare")
        raise ConfigError(
            f"{a.root} and {b.root} have no campaign in common: none has the same strategy, budget, schedule, start and rounds "
            f"(strategies {', '.join(a.config.strategies)}, budgets {a.config.budgets} and rounds {a.config.rounds} against {', '.join(b.config.strategies)}, {b.config.budgets} and {b.config.rounds})"
        )
    scores = [runs.per_item(side.root, "correct")[0] for side in (a, b)]
    rows = []
    for key in both:
        bench = key[0]
        row: dict[str, Any] = dict(zip(["benchmark", *tables.ARM], key, strict=True))
        for end, part in (("_a", mine[key]), ("_b", theirs[key])):
            row |= tables.named(f"accuracy{end}", tables.mean(part["accuracy"])) | {f"seeds{end}": len(part)}
        found, row["items"], row["interval"] = _difference(a, b, bench, mine[key], theirs[key], scores)
        rows.append(row | tables.named("difference", found) | {"seeds": found.n})
    return pd.DataFrame(rows, columns=ACCURACY)


def _difference(a: Side, b: Side, bench: str, mine: pd.DataFrame, theirs: pd.DataFrame, scores: list) -> tuple[Interval, int, str]:
    """(b minus a, items, by which interval): seed by seed where both runs bought from the same pool and answered the same items."""
    items = int(mine["n_items"].iloc[0])
    if a.items[bench] != b.items[bench]:
        return tables.NOTHING, items, "none: other test items"
    by_seed = [dict(zip(part["seed"], part["campaign"], strict=True)) for part in (mine, theirs)]
    common = sorted(by_seed[0].keys() & by_seed[1].keys())
    same_pool = a.study["pool"]["fingerprint"] == b.study["pool"]["fingerprint"] and a.config.pool_per_seed == b.config.pool_per_seed
    if same_pool and common:
        table = np.stack([scores[1][by_seed[1][seed], bench] - scores[0][by_seed[0][seed], bench] for seed in common])
        found = contrasts.crossed(table)
        return Interval(found.mean, found.low, found.high, len(common)), items, "paired by seed, over seeds and items" if len(common) > 1 else "none: one seed in common"
    why = "no seed in common" if same_pool else "other pools"
    return unpaired_difference(theirs["accuracy"], mine["accuracy"]), items, f"not paired ({why}), over seeds"


def _cost(a: Side, b: Side) -> pd.DataFrame:
    """One row per arm of both runs: means over seeds of what a campaign costs as if it had run alone, and b's over a's."""
    rows = []
    theirs = _arms(b)
    for key, part in _arms(a).items():
        if key in theirs:
            row: dict[str, Any] = dict(zip(tables.ARM, key, strict=True))
            for name in COSTS:
                one, other = float(part[name].mean()), float(theirs[key][name].mean())
                row |= {f"{name}_a": one, f"{name}_b": other, f"{name}_ratio": other / one if one else math.nan}
            rows.append(row)
    return pd.DataFrame(rows, columns=COST)


def _configs(a: Side, b: Side) -> pd.DataFrame:
    """One row per key whose value differs. Of lists, what the other one lacks."""
    flat = [_flat(side.config.model_dump(mode="json")) | {"the pool's fingerprint": side.study["pool"]["fingerprint"], "outlay": side.study["outlay"]} | {f"version of {k}": v for k, v in side.study["versions"].items()} for side in (a, b)]
    for side, values in zip((a, b), flat, strict=True):
        values |= {f"items of {name}": fingerprint for name, fingerprint in side.items.items()}
    rows = []
    for key in dict.fromkeys([*flat[0], *flat[1]]):
        one, other = (values.get(key, "–") for values in flat)
        if one != other:
            rows.append({"key": key, "a": _said(one, other), "b": _said(other, one)})
    return pd.DataFrame(rows, columns=["key", "a", "b"])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def _said(value: Any, other: Any) -> str:
    if isinstance(value, list) and isinstance(other, list):
        alone = [str(v) for v in value if v not in other]
        return f"also {', '.join(alone)}" if alone else "nothing more" if len(value) < len(other) else ", ".join(map(str, value))
    return str(value)


def _findings(accuracy: pd.DataFrame) -> list[str]:
    """What can be said of each benchmark."""
    said = []
    for bench, part in accuracy.groupby("benchmark", sort=False):
        known = part.dropna(subset=["difference_low"])
        if known.empty:
            why = words.listed(list(part["interval"].unique()))
            said.append(f"On {bench} no difference has an interval ({why}).")
            continue
        higher, lower = (known["difference_low"] > 0).sum(), (known["difference_high"] < 0).sum()
        said.append(
            f"On {bench}, of {words.count(len(known), 'campaign')} in both runs B is higher in {higher}, lower in {lower}; of the other {len(known) - higher - lower} we cannot tell. "
            "These are 95 % intervals, not corrected for their number: of 20 with no true difference, about one excludes zero."
        )
    return said


def _names(part: pd.DataFrame) -> list[str]:
    names = tables.arm_names(part)
    return list(names if part["budget"].nunique() == 1 else names + ", " + part["budget"].astype(str))


def _figures(accuracy: pd.DataFrame, out: Path) -> page.Gallery:
    from . import figures

    gallery = page.Gallery(out)
    for bench, part in accuracy.groupby("benchmark", sort=False):
        seeds = f"{words.count(int(part['seeds_a'].max()), 'seed')} and {words.count(int(part['seeds_b'].max()), 'seed')}"
        bars = [("A", "accuracy_a"), ("B", "accuracy_b")]
        file = page.file_name(bench)
        gallery.add("accuracy", f"accuracy-{file}", f"Accuracy on {bench} of the campaigns that both runs have.", figures.beside(part, _names(part), bars, f"{bench}: accuracy", f"n = {seeds}; 95 % t intervals over seeds", share=True))
        known = part.dropna(subset=["difference"])
        if len(known):
            note = f"n = {words.count(int(known['seeds'].max()), 'seed')}; {known['interval'].iloc[0]}"
            gallery.add("accuracy", f"difference-{file}", f"Accuracy on {bench}: B minus A, in percentage points, with 95 % intervals.", figures.beside(known, _names(known), [("B minus A", "difference")], f"{bench}: B minus A", note, share=False))
    return gallery


def _grids(numbers: dict[str, pd.DataFrame]) -> dict[str, Grid]:
    def key(row: pd.Series) -> list[str]:
        return [row["strategy"], str(row["rounds"]), str(row["budget"]), row["schedule"], row["start"]]

    keys = ["strategy", "m", "budget", "schedule", "start"]
    accuracy = [
        [row["benchmark"], *key(row), words.percent(row, "accuracy_a"), words.percent(row, "accuracy_b"), words.percent(row, "difference", sign=True), row["interval"], str(row["seeds_a"]), str(row["seeds_b"]), str(row["items"])]
        for _, row in numbers["accuracy"].iterrows()
    ]
    cost = [
        [*key(row), *(cell for name, say in (("flops", words.si), ("seconds", words.seconds), ("usd", words.usd)) for cell in (say(row[f"{name}_a"]), say(row[f"{name}_b"]), _ratio(row[f"{name}_ratio"])))]
        for _, row in numbers["cost"].iterrows()
    ]
    return {
        "config": Grid("config", "What differs in config, data and versions", ["key", "A", "B"], numbers["config"].to_numpy().tolist(), ("key", "A", "B")),
        "accuracy": Grid("accuracy", "Final accuracy in percent; differences in percentage points", ["benchmark", *keys, "A, %", "B, %", "B minus A", "interval of the difference", "seeds of A", "seeds of B", "items"], accuracy),
        "cost": Grid("cost", "Cost of one campaign as if it had run alone, mean over seeds", [*keys, *(f"{name}{end}" for name in ("FLOPs", "device time", "cost") for end in (", A", ", B", ", B / A"))], cost),
    }


def _ratio(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
