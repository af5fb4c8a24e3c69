"""Measure the learning curve of the shipped tiny model (configs/tiny_curve.yaml) and write it into its model card.

python scripts/tiny_curve.py [--out RUN]
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pandas as pd

from outlay import config, measure
from outlay.measure import stats
from outlay.study import run_study

CARD = Path(measure.__file__).parents[1] / "models" / "tiny" / "README.md"
NAMES = {"like_pool": "distributed like the pool", "balanced": "balanced over skills"}


def table(results: pd.DataFrame) -> str:
    """Markdown: annotations x test, mean accuracy over seeds with its 95 % t interval."""
    seeds = results["seed"].nunique()
    lines = ["| annotations | " + " | ".join(f"accuracy, test {NAMES[b]}" for b in NAMES) + " |", "|---|" + "---|" * len(NAMES)]
    base = results[results["round"] == 0].drop_duplicates("benchmark").set_index("benchmark")["accuracy"]
    lines.append("| 0 (the base) | " + " | ".join(f"{base[b]:.3f}" for b in NAMES) + " |")
    final = results[results["round"] == 1]
    for budget, rows in final.groupby("budget"):
        cells = []
        for bench in NAMES:
            interval = stats.t_interval(rows.loc[rows["benchmark"] == bench, "accuracy"])
            cells.append(f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})")
        lines.append(f"| {budget} | " + " | ".join(cells) + " |")
    items = int(final["n_items"].iloc[0])
    return "\n".join(lines) + f"\n\nMean over {seeds} seeds (each with its own pool of prompts and training randomness) and 95 % t interval; {items} test items each."


def main() -> None:
    """Run the study (it resumes) and put its table between the card's markers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny_curve"))
    root = run_study(config.load(Path("configs/tiny_curve.yaml")), parser.parse_args().out)
    text = table(pd.read_parquet(root / "results.parquet"))
    card = CARD.read_text(encoding="utf-8")
    new, count = re.subn(r"<!-- curve -->.*?<!-- /curve -->", lambda _: f"<!-- curve -->\n{text}\n<!-- /curve -->", card, flags=re.S)
    if count != 1:
        raise SystemExit(f"{CARD} must have one pair of markers <!-- curve --> ... <!-- /curve -->, found {count}")
    CARD.write_text(new, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
