"""A smaller model scores the pool in the target's place (Coleman et al. 2020, arXiv 1906.11829): on what the two agree, and what is paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from . import registry, seeds
from .acquisition import SignalError, select
from .errors import DataError
from .types import POOL_SIGNALS, Floats, Indices, Model, Signals, Trainer, View

SAMPLE = 256  # prompts that the target scores too, in each round
PICKS = 16  # from a sample, where the batch's share of it is less: with fewer an overlap is mostly chance


@dataclass(frozen=True, slots=True)
class Proxy:
    """`base` and, from round 2 on, what `trainer` makes of it give the signals that strategies read. `embedding` (n, d) is that of the
    target's base, with which the proxy's is compared."""

    base: Model
    trainer: Trainer
    embedding: Floats


def space_path(shard: int) -> str:
    """Where the embedding of a shard by the target's base lies: diversity is measured in it."""
    return f"shared/space/shard-{shard:05d}.parquet"


def pays_for_every_training(proxy: str | Proxy | None, start: str) -> bool:
    """Whether a campaign needs the target of each round: to score without a proxy, and to go on from with a warm start. Else only the
    last one is needed, and those before are trained to be measured."""
    return proxy is None or start != "cold"


def sample(ids: Sequence[str], scored: Indices, *, seed: int, number: int) -> Indices:
    """At most SAMPLE of these rows: those with the smallest hash(seed, round, id). In the order of the pool."""
    drawn = seeds.lottery(seed, [ids[row] for row in scored], "proxy", number)
    return np.sort(scored[np.argsort(drawn, kind="stable")[:SAMPLE]])


def agreement(strategy: str, view: View, target: Signals, embedding: Floats, rows: Indices, k: int, ids: Sequence[str], rng: Sequence[np.random.Generator]) -> dict:
    """What the strategy picks from a sample by the proxy's signals (those of `view`) beside what it picks by the target's.

    target: the signals that the strategy reads, measured on `rows` and on what it reads of labeled prompts; embedding: that of the target's base; k: size
    of the batch; rng: two equal generators. sample, scored: prompts compared, and prompts that the proxy scored. picks: of the sample as many
    as the batch is of the scored ones, at least PICKS. overlap: their share in common; chance: that of two random picks. correlation: Spearman's, of each
    signal (None where it is more than a number a prompt, or all are equal). cost: of the target's pass.
    """
    card = registry.card("strategy", registry.parse(strategy)[0])
    picks = max(min(k, PICKS), round(k * len(rows) / len(view.unlabeled)))
    kept = np.sort(np.concatenate([rows, view.labeled]))

    def part(columns: Mapping[str, np.ndarray], base: Mapping[str, Floats]) -> View:
        return replace(view, signals=Signals(columns, view.signals.live), unlabeled=rows, base=base).within(kept)

    views = part(view.signals.columns, view.base), part(target.columns, dict.fromkeys(view.base, embedding))
    try:
        mine, theirs = (select(strategy, seen, picks, one) for seen, one in zip(views, rng, strict=True))
    except SignalError as bad:
        raise DataError(f"prompt '{ids[kept[bad.row]]}': {bad}") from None
    return {
        "sample": len(rows),
        "scored": len(view.unlabeled),
        "picks": picks,
        "overlap": len(np.intersect1d(mine.rows, theirs.rows)) / picks,
        "chance": picks / len(rows),
        "correlation": {name: _spearman(view.signals.columns[name][rows], target.columns[name][rows]) for name in sorted(card.needs - POOL_SIGNALS)},
        "cost": asdict(target.cost),
    }


def _spearman(a: Floats, b: Floats) -> float | None:
    if a.ndim > 1:
        return None
    import pandas as pd

    from .measure.dynamics import rank_correlation

    table = pd.DataFrame({"id": np.tile(np.arange(len(a)), 2), "model": np.repeat(["proxy", "target"], len(a)), "score": np.concatenate([a, b])})
    found = float(rank_correlation(table, "model").loc["proxy", "target"])
    return None if np.isnan(found) else found
