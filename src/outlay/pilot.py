"""The smallest difference between two cells that a study of so many seeds is likely to find, from a pilot's seeds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from .errors import ConfigError
from .measure import contrasts

LEVEL, POWER = 0.05, 0.8


def spread(pilot: Path) -> tuple[float, int, int]:
    """Of a pilot's first benchmark: the standard deviation over seeds of a campaign's final accuracy minus random's (the first strategy's
    where there is no random) at the same budget, pooled over cells; their number, and that of its seeds."""
    import pandas as pd

    path = pilot / "results.parquet"
    if not path.exists():
        raise ConfigError(f"--pilot {pilot}: there is no results.parquet in it; a pilot is the run directory of a finished study")
    table = pd.read_parquet(path)
    table = table[(table["benchmark"] == table["benchmark"].iloc[0]) & ~table["reference"] & (table["round"] == table["rounds_run"])].drop_duplicates("campaign")
    table = table.assign(cell=table["campaign"].str.replace(r"-s\d+$", "", regex=True))
    wide = table.pivot_table(index="seed", columns="cell", values="accuracy")
    budgets = table.drop_duplicates("cell").set_index("cell")[["strategy", "budget"]]
    reference = "random" if "random" in set(table["strategy"]) else table["strategy"].iloc[0]
    variances = []
    for cell, fact in budgets.iterrows():
        beside = budgets.index[(budgets["strategy"] == reference) & (budgets["budget"] == fact["budget"])]
        differences = (wide[cell] - wide[beside[0]]).dropna() if len(beside) and fact["strategy"] != reference else []
        if len(differences) > 1:
            variances.append(float(np.var(differences, ddof=1)))
    if not variances:
        raise ConfigError(f"--pilot {pilot}: it has no two strategies with two seeds in common, so nothing says how seeds differ; add seeds or strategies to it")
    return math.sqrt(float(np.mean(variances))), len(variances), len(wide)


def detectable(seeds: int, *, pilot: Path | None = None, sd: float | None = None) -> str:
    """One line: the smallest detectable difference with its source, "unknown" without one."""
    what = "smallest difference in accuracy that this study could detect"
    if pilot is None and sd is None:
        return f"{what}: unknown; give --pilot RUN or --sd"
    source = "as given"
    if pilot is not None:
        sd, cells, known = spread(pilot)
        source = f"from {cells} cells of {known} seeds in {pilot}"
    if seeds < 2:
        return f"{what}: none; one seed has no spread"
    return f"{what}: {100 * contrasts.detectable(sd, seeds, alpha=LEVEL, power=POWER):.1f} points (paired t test over {seeds} seeds, level {LEVEL:g}, power {POWER:g}; standard deviation of a difference {100 * sd:.1f} points, {source})"
