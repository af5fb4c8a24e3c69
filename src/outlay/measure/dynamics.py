"""Does a choice change: from round to round, strategy to strategy, seed to seed, m to m? And is a score only a length?

Tables are long: a column `id`, one or more columns that say whose choice it is (round, strategy, seed, rounds), and a value.
Seeds draw their own share of the pool, so between seeds an overlap below 1 is no disagreement where the shares differ.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import DataError
from .diversity import jaccard

ALARM = 0.5  # a rank correlation beyond this explains a quarter of a score's ranks by length


def overlap(table: pd.DataFrame, by: str | Sequence[str]) -> pd.DataFrame:
    """Jaccard overlap of the ids of every two groups. -> groups x groups.

    For `outlay.results.bought`, by="campaign", by="round" or by=["strategy", "seed"]. The rounds of one campaign never share an
    id; between campaigns or m, keep the rows up to a round, or of the last one.
    """
    sets = {name: set(part["id"]) for name, part in _groups(table, by)}
    return _square({a: {b: jaccard(sets[a], sets[b]) for b in sets} for a in sets}, by)


def rank_correlation(table: pd.DataFrame, by: str | Sequence[str], value: str = "score", method: Literal["spearman", "kendall"] = "spearman") -> pd.DataFrame:
    """Rank correlation of `value` between every two groups, on the ids that both have. -> groups x groups.

    NaN where they have fewer than three ids in common, or where all values of one are equal. Rows without a value are left out.
    """
    columns = {}
    for name, part in _groups(table, by):
        if part["id"].duplicated().any():
            raise DataError(f"id '{part['id'][part['id'].duplicated()].iloc[0]}' occurs twice in group {name}; say in `by` what tells its rows apart")
        columns[name] = part.set_index("id")[value].dropna()
    return _square({a: {b: _ranks(columns[a], columns[b], method) for b in columns} for a in columns}, by)


@dataclass(frozen=True, slots=True)
class Change:
    """`kept`: share of a batch that the earlier ranking would have taken too; `chance`: that share for a random batch; `k`: its size.

    (kept - chance) / (1 - chance) is 1 where scoring again changed nothing, 0 where the earlier ranking says nothing.
    """

    kept: float
    chance: float
    k: int


def change(scores: Mapping[str, float] | pd.Series, taken: Collection[str], batch: Collection[str]) -> Change:
    """How much of round r + 1's `batch` round r's model would have taken next, had it not been trained again.

    `scores`: id -> round r's score of all that was unlabeled then, highest wanted most; `taken`: the batch of round r. Of ids
    that tie at the edge, each counts by its chance to get a place. For strategies that pick one by one, run the strategy of
    round r for both batches' size and give minus the position as the score.
    """
    taken, batch = set(taken), set(batch)
    scores = pd.Series(scores, dtype=float).dropna()
    rest = scores[~scores.index.isin(taken)].sort_values(ascending=False)
    missing = batch - set(rest.index)
    if not batch or missing:
        raise DataError(f"the next batch has {len(batch)} ids, {len(missing)} of them without a score of the round before or taken in it, e.g. {sorted(missing)[:1]}")
    edge = rest.iloc[len(batch) - 1]
    sure, tied = rest.index[rest > edge], rest.index[rest == edge]
    kept = len(batch & set(sure)) + len(batch & set(tied)) * (len(batch) - len(sure)) / len(tied)
    return Change(kept / len(batch), len(batch) / len(rest), len(batch))


def length_correlation(scores: pd.DataFrame, lengths: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlation of every score with every length. Both (n, columns), rows aligned by their index. -> scores x lengths.

    Rows where either is NaN (not measured) are left out; NaN where fewer than three are left or all values are equal.
    """
    return pd.DataFrame({b: {a: _ranks(scores[a].dropna(), lengths[b].dropna(), "spearman") for a in scores} for b in lengths})


def length_alarm(correlations: pd.DataFrame, limit: float = ALARM) -> list[str]:
    """A sentence for every score that mostly ranks by length: |rho| above `limit` in `length_correlation`."""
    return [
        f"{score} mostly ranks by {length}: rank correlation {rho:+.2f}, beyond {limit:.2f}; what it buys may be {'long' if rho > 0 else 'short'} rather than informative"
        for score, row in correlations.iterrows()
        for length, rho in row.items()
        if abs(rho) > limit
    ]


def _groups(table: pd.DataFrame, by: str | Sequence[str]):
    return table.groupby(by if isinstance(by, str) else list(by), sort=True)


def _ranks(a: pd.Series, b: pd.Series, method: str) -> float:
    both = pd.concat([a, b], axis=1, join="inner").to_numpy(dtype=float)
    if len(both) < 3 or (both == both[0]).all(axis=0).any():
        return math.nan
    found = stats.kendalltau(*both.T) if method == "kendall" else stats.spearmanr(*both.T)
    return float(np.clip(found.statistic, -1, 1))


def _square(cells: dict, by: str | Sequence[str]) -> pd.DataFrame:
    names = list(cells)
    index = pd.Index(names, name=by) if isinstance(by, str) else pd.MultiIndex.from_tuples(names, names=list(by))
    return pd.DataFrame([[cells[a][b] for b in names] for a in names], index=index, columns=index)
