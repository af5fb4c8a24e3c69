"""The closing tables in the terminal."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from . import tables, words

WIDTH = 120
BENCHMARKS_A_TABLE = 2


def show(root: Path) -> None:
    """Print what a finished run found: accuracy and its difference to random; then diversity and cost."""
    from rich.console import Console
    from rich.table import Table

    results = pd.read_parquet(root / "results.parquet")
    summary, base = tables.summary(results), tables.base(results)
    console = Console(width=None if Console().is_terminal else WIDTH)
    keys = ["strategy", "m", *tables.varying(results)]
    seeds = int(summary["seeds"].max())
    benches = list(summary["benchmark"].unique())
    for begin in range(0, len(benches), BENCHMARKS_A_TABLE):
        shown = benches[begin : begin + BENCHMARKS_A_TABLE]
        grid = Table(title=f"Accuracy, % ({_means(summary)})", title_justify="left", title_style="bold")
        for key in keys:
            grid.add_column(key)
        for bench in shown:
            items = summary.loc[summary["benchmark"] == bench, "items"].iloc[0]
            grid.add_column(f"{bench}\n{items} items", justify="right")
            grid.add_column("minus random\npaired, points", justify="right")
        rows = [base[base["benchmark"] == bench].iloc[0] for bench in shown]
        grid.add_row(tables.BASE, *[""] * (len(keys) - 1), *(cell for row in rows for cell in (words.percent(row), "")))
        for arm in _arms(summary):
            cells = []
            for bench in shown:
                row = arm[arm["benchmark"] == bench].iloc[0]
                cells += [words.percent(row), words.percent(row, "difference", sign=True)]
            grid.add_row(*_keys(arm.iloc[0], keys), *cells)
        console.print(grid)
    title = f"What was bought, and what a campaign cost (mean over {words.count(seeds, 'seed')}; in brackets: random sets of the same size)"
    grid = Table(title=title, title_justify="left", title_style="bold")
    for key in keys:
        grid.add_column(key)
    for name in ("Vendi score\nmodel", "Vendi score\nTF-IDF", "groups\ncovered", "FLOPs", "device\ntime", "cost"):
        grid.add_column(name, justify="right")
    for arm in _arms(summary):
        row = arm.iloc[0]
        cells = [_beside(row, "vendi_model"), _beside(row, "vendi_tfidf"), _beside(row, "group_coverage")]
        grid.add_row(*_keys(row, keys), *cells, words.si(row["flops"]), words.seconds(row["seconds"]), words.usd(row["usd"]))
    console.print(grid)
    same = summary[summary["same_as"] != ""]
    if len(same):
        console.print('m "1 (=...)": from a cold start those numbers of rounds are the same run as one; it was run and counted once.', style="dim")
    console.print("Cost: one campaign as if it had run alone; tests on benchmark items are measurement and left out.", style="dim")


def _means(summary: pd.DataFrame) -> str:
    seeds = int(summary["seeds"].max())
    if seeds == 1:
        return "1 seed: 95 % Wilson intervals over items; differences have none - a demonstration, no inference"
    return f"mean over {seeds} seeds [95 % t interval]; base: [95 % Wilson interval over items]"


def _arms(summary: pd.DataFrame) -> list[pd.DataFrame]:
    return [part for _, part in summary.groupby(tables.ARM, sort=False)]


def _keys(row: pd.Series, keys: list[str]) -> list[str]:
    return [words.rounds(row) if key == "m" else str(row[key]) for key in keys]


def _beside(row: pd.Series, measure: str) -> str:
    """The measure, and random's in brackets."""
    if pd.isna(row[measure]):
        return "–"
    if measure == "group_coverage":
        return f"{100 * row[measure]:.0f} % ({100 * row[measure + '_random']:.0f})"
    return f"{row[measure]:.1f} ({row[measure + '_random']:.1f})"
