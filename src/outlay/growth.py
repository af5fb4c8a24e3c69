"""A pool that grows while a campaign runs: new prompts go behind those that were there, and rounds that have begun keep to theirs.

The first pool stays in shared/; each addition writes the whole pool (and its gold answers) anew beside it. additions.json, written last, says which
one counts: until then nothing has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .store import Store
from .types import Signals

if TYPE_CHECKING:
    from .campaign import Desk

RECORD = "additions.json"


@dataclass(frozen=True, slots=True)
class Addition:
    """`prompts` new ones behind the `before` that the pool had; rounds from `round` on may buy them. `at`: when (UTC). `fingerprint`: of the
    whole pool with them."""

    at: str
    round: int
    before: int
    prompts: int
    fingerprint: str


def additions(root: Path) -> list[Addition]:
    """What was added to the pool of this run, in order."""
    return [Addition(**row) for row in Store(root).read(RECORD, dict)["additions"]] if (root / RECORD).exists() else []


def record(root: Path, more: Addition) -> None:
    """Let an addition count whose files are there."""
    Store(root).write(RECORD, {"additions": [asdict(a) for a in (*additions(root), more)]})


def file(root: Path, name: str, number: int | None = None) -> Path:
    """Where the "pool" or the "vault" lies after so many additions; without a number, after all."""
    number = len(additions(root)) if number is None else number
    return root / (f"shared/added/{name}-{number:03d}.parquet" if number else f"shared/{name}.parquet")


def start(grown: Sequence[Addition], prompts: int) -> int:
    """Prompts that the pool had at the start, of those that it has."""
    return grown[0].before if grown else prompts


def shards(grown: Sequence[Addition], prompts: int, size: int) -> list[range]:
    """Rows of each shard, at most `size`. No shard reaches over an addition, so those that are there stay as they are."""
    cuts = [0, *(a.before for a in grown), prompts]
    return [range(at, min(at + size, high)) for low, high in pairwise(cuts) for at in range(low, high, size)]


def reach(grown: Sequence[Addition], prompts: int, number: int) -> int:
    """How many of the `prompts` that a campaign may buy from (new ones last) were there for round `number`."""
    return prompts - sum(a.prompts for a in grown if a.round > number)


def within(desk: Desk, number: int) -> Desk:
    """The desk as round `number` sees it: without what was added for later rounds."""
    n = reach(desk.grown, len(desk.pool), number)
    if n == len(desk.pool):
        return desk

    def base_signals(needs: frozenset[str]) -> Signals:
        whole = desk.base_signals(needs)
        return replace(whole, columns={name: column[:n] for name, column in whole.columns.items()})

    return replace(desk, pool=desk.pool.take(np.arange(n)), base_signals=base_signals, embedding=desk.embedding[:n])
