"""The second outcome: negative log-likelihood of the test's own responses, nats a token, for tests on which few answers are right. Lower is
better. The same contrasts as of accuracy; intervals only."""

from __future__ import annotations

import pandas as pd

from ..config import StudyConfig
from ..measure import contrasts
from . import answer

COLUMNS = ["benchmark", "kind", "strategy", "rounds", "nll", "effect", "effect_low", "effect_high", "seeds", "items"]


def likelihood(here: answer.Arms, nll: answer.Correct, config: StudyConfig) -> pd.DataFrame:
    """Change per doubling of the rounds, of the live strategies together and of each alone; then every strategy and m against random in one round.
    Empty where the evaluators give no likelihood."""
    rows = []

    def add(bench: str, kind: str, strategy: str, rounds: int, weights: dict[tuple[str, int], float], level: dict[tuple[str, int], float]) -> None:
        table, plain = answer.weighted(here, nll, bench, weights), answer.weighted(here, nll, bench, level)
        if table is not None and plain is not None:
            found = contrasts.crossed(table)
            rows.append(dict(zip(COLUMNS, (bench, kind, strategy, rounds, plain.mean(), found.mean, found.low, found.high, found.seeds, found.items), strict=True)))

    for bench in config.evaluators:
        if not any(key[1] == bench for key in nll):
            continue
        for scope in ([here.live] if here.live else []) + ([[s] for s in here.live] if len(here.live) > 1 else []):
            slope = answer.slope(scope, here)
            add(bench, "per doubling of the rounds", "live strategies" if scope is here.live else scope[0], 0, slope, dict.fromkeys(slope, 1 / len(slope)))
        for strategy, by_rounds in here.found.items():
            for m in sorted(by_rounds):
                if strategy != "random":
                    add(bench, "minus random", strategy, m, {(strategy, m): 1.0, ("random", 1): -1.0}, {(strategy, m): 1.0})
        add(bench, "itself", "random", 1, {("random", 1): 1.0}, {("random", 1): 1.0})
    return pd.DataFrame(rows, columns=COLUMNS)
