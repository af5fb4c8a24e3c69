"""Per-item results -> one table: a row per task, and averages; in percent, with intervals."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluators.bbh import FAMILIES
from ..measure.stats import accuracy_interval
from ..store import dumps, write_atomic

COLUMNS = ("task", "n", "accuracy", "lenient", "unparsed", "cut_off", "too_long", "low", "high")
COUNTS = ("unparsed", "cut_off", "too_long")
Rows = Sequence[Mapping[str, Any]]


def table(results: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """Task -> its items (each with correct, lenient, parsed, cut_off, too_long) -> rows with COLUMNS.

    accuracy (strict), lenient, low and high are in percent; low and high are the 95 % Wilson interval of the strict accuracy over
    items. After the tasks: "macro" (mean of the tasks, without an interval), "macro_23" where BBH's seven tasks of two families are
    there (each family counts once, as in the paper), and "micro" (all items).
    """
    rows = [_row(task, items) for task, items in results.items() if items]
    everything = _row("micro", [item for items in results.values() for item in items])
    means = [_mean("macro", rows, everything)]
    families = [[r for r in rows if r["task"].startswith(f"{family}_")] for family in FAMILIES]
    if all(len(members) == 3 for members in families):
        others = [r for r in rows if not r["task"].startswith(FAMILIES)]
        means.append(_mean(f"macro_{len(others) + len(families)}", [*others, *(_mean("", members, everything) for members in families)], everything))
    return [*rows, *means, everything]


def _row(task: str, items: Rows) -> dict[str, Any]:
    interval = accuracy_interval([bool(item["correct"]) for item in items])
    share = {key: 100 * sum(bool(item[key]) for item in items) / len(items) for key in ("correct", "lenient")}
    return {
        "task": task, "n": len(items), "accuracy": share["correct"], "lenient": share["lenient"],
        "unparsed": sum(not i["parsed"] for i in items), "cut_off": sum(bool(i["cut_off"]) for i in items),
        "too_long": sum(bool(i["too_long"]) for i in items), "low": round(100 * interval.low, 9), "high": round(100 * interval.high, 9),
    }  # fmt: skip


def _mean(name: str, rows: Sequence[dict[str, Any]], everything: dict[str, Any]) -> dict[str, Any]:
    means = {key: sum(row[key] for row in rows) / len(rows) for key in ("accuracy", "lenient")}
    return {"task": name, "n": everything["n"], **means, **{key: everything[key] for key in COUNTS}, "low": None, "high": None}


def write(folder: Path, name: str, rows: Sequence[dict[str, Any]], facts: Mapping[str, Any]) -> list[Path]:
    """Write `summary_NAME.json` (the rows with `facts` beside them) and `summary_NAME.csv`; -> both paths."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if row[key] is None else row[key] for key in COLUMNS} for row in rows)
    paths = [folder / f"summary_{name}.json", folder / f"summary_{name}.csv"]
    for path, data in zip(paths, (dumps({**facts, "tasks": list(rows)}), sink.getvalue().encode()), strict=True):
        write_atomic(path, data)
    return paths


def show(rows: Sequence[dict[str, Any]]) -> str:
    """The table as text."""
    width = max(len(row["task"]) for row in rows)
    lines = [f"{'task':<{width}} {'n':>6} {'strict':>7} {'95 % interval':>15} {'lenient':>8} {'unparsed':>9} {'cut off':>8} {'too long':>9}"]
    for row in rows:
        interval = "" if row["low"] is None else f"{row['low']:.1f} to {row['high']:.1f}"
        lines.append(
            f"{row['task']:<{width}} {row['n']:>6} {row['accuracy']:>7.1f} {interval:>15} {row['lenient']:>8.1f} {row['unparsed']:>9} {row['cut_off']:>8} {row['too_long']:>9}"
        )
    return "\n".join(lines)
