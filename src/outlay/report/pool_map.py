"""One seed's share of the pool as a map, and what its campaigns bought there: what the page's script draws and lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import seeds
from ..config import StudyConfig
from ..store import Store
from ..types import Floats
from ..workbench import EMBEDDINGS, Workbench
from . import words

MOST_POINTS = 3000  # prompts on the map, if more were not bought; a larger pool shows a random sample of the others
MOST_ROWS = 6000  # of the table to browse; its CSV has all
LETTERS = 600_000  # of prompts, together: each is cut at as many as leave the page small
GRID = 999  # coordinates are whole numbers from 0 to this on the longer side
NAMES = {"tfidf": "TF-IDF, which no strategy sees", "model": "the base model’s embedding"}


@dataclass(frozen=True, slots=True)
class PoolMap:
    """The prompts shown. table: id, group, text and for each embedding x_NAME, y_NAME (whole numbers); explained: share of an embedding's
    variance that the two directions hold; seed; size: prompts in this seed's share of the pool."""

    table: pd.DataFrame
    explained: dict[str, float]
    seed: int
    size: int


def read(root: Path, study: dict, config: StudyConfig, bought: Iterable[str], seed: int) -> PoolMap:
    """The map of a run. `bought`: ids that have to be on it."""
    bench = Workbench(Store(root), study, config)
    pool = bench.pool().take(bench.rows(seed))
    must = np.unique(pool.rows_of(bought))
    others = np.setdiff1d(np.arange(len(pool)), must)
    ticket = seeds.lottery(seed, [pool.ids[row] for row in others], "map")
    rows = np.sort(np.concatenate([must, others[np.argsort(ticket, kind="stable")[: max(MOST_POINTS - len(must), 0)]]]))
    prompts = list(pool.at(rows))
    columns: dict[str, Any] = {"id": [p.id for p in prompts], "group": [p.group for p in prompts], "text": [p.text for p in prompts]}
    explained = {}
    for name in EMBEDDINGS:
        points, explained[name] = project(bench.spaces(seed)[name][rows])
        columns[f"x_{name}"], columns[f"y_{name}"] = points.T
    return PoolMap(pd.DataFrame(columns), explained, seed, len(pool))


def project(points: Floats) -> tuple[np.ndarray, float]:
    """The first two principal components as whole numbers in 0..GRID, one scale for both, and the share of the variance that they hold.
    (n, d) -> (n, 2). Deterministic: scikit-learn fixes the signs."""
    from sklearn.decomposition import PCA

    flat = np.zeros((len(points), 2))
    count = min(2, *np.shape(points))
    with np.errstate(invalid="ignore", divide="ignore"):  # points that are all alike have no variance to share
        found = PCA(count, svd_solver="full")
        flat[:, :count] = found.fit_transform(np.asarray(points, dtype=np.float64))
        explained = float(np.nan_to_num(found.explained_variance_ratio_.sum()))
    flat -= flat.min(axis=0)
    return np.rint(flat * (GRID / (flat.max() or 1.0))).astype(np.int64), explained


def payload(found: PoolMap, campaigns: pd.DataFrame, bought: pd.DataFrame, purchases: pd.DataFrame, *, first: str, colours: dict[int, list[str]]) -> dict[str, Any]:
    """What the script reads: texts once, everything else as numbers of them.

    campaigns: campaign, name, rounds of this seed, in the order of the list; bought: of `results.bought`; purchases: of
    `choices.purchases`, whose rows become the table to browse; first: the campaign shown at first; colours: a list for each number of rounds.
    """
    table = found.table
    at = {key: row for row, key in enumerate(table["id"])}
    groups = list(dict.fromkeys(table["group"]))
    limit = max(60, min(300, LETTERS // max(len(table), 1)))
    names = list(campaigns["name"])
    rounds = {key: [at[i] for i in part["id"]] for key, part in bought[bought["campaign"].isin(campaigns["campaign"])].groupby(["campaign", "round"])}
    most = int(purchases["rank"].max())
    while (purchases["rank"] <= most).sum() > MOST_ROWS:
        most -= 1
    shown = purchases[purchases["rank"] <= most]
    return {
        "texts": [words.cut(text, limit) for text in table["text"]],
        "groups": groups,
        "group": table["group"].map(groups.index).tolist(),
        "spaces": [{"name": NAMES[name], "x": table[f"x_{name}"].tolist(), "y": table[f"y_{name}"].tolist()} for name in found.explained],
        "colours": {str(m): list(given) for m, given in colours.items()},
        "campaigns": [{"name": row["name"], "rounds": [rounds.get((row["campaign"], number), []) for number in range(1, row["rounds"] + 1)]} for _, row in campaigns.iterrows()],
        "first": list(campaigns["campaign"]).index(first),
        "browse": [_row(row, names, at) for row in shown.to_dict("records")],
        "head": most if len(shown) < len(purchases) else 0,
    }


def _row(row: dict[str, Any], names: list[str], at: dict[str, int]) -> list[int | str]:
    """campaign, round, rank, prompt, score, nearest bought before, similarity, represents; -1 and "" where there is none."""
    score, similarity = ("" if pd.isna(value) else f"{value:{form}}" for value, form in ((row["score"], ".4g"), (row["similarity"], ".2f")))
    return [names.index(row["campaign"]), row["round"], row["rank"], at[row["id"]], score, at.get(row["nearest"], -1), similarity, row["represents"]]
