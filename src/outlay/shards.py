"""A model scores prompts shard by shard, so that a kill loses one shard; the shards go when all signals are there."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .errors import DataError
from .store import fingerprint, write_atomic
from .types import Cost, Indices, Pool, Signals

FOLDER = ".scoring"


def scored(folder: Path, pool: Pool, rows: Indices, size: int, score: Callable[[Pool], Signals], *, key: str, each: Callable = map) -> list[tuple[Indices, Signals]]:
    """`score` of these rows, `size` at a time: [(rows, signals)] in their order.

    A shard that lies below `folder` is read. Its name is the hash of its prompts and of `key`, which must say all else that it
    depends on. `each` is map, or does so with several at once. One shard alone is not written.
    """
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    if len(parts) < 2:
        return [(part, score(pool.take(part))) for part in parts]

    def one(part: Indices) -> tuple[Indices, Signals]:
        prompts = pool.take(part)
        path = folder / FOLDER / f"{fingerprint([key, prompts.fingerprint])}.npz"
        if not path.exists():
            write_atomic(path, _packed(score(prompts)))
        return part, _unpacked(path)

    return list(each(one, parts))


def discard(folder: Path) -> None:
    """Delete the shards below `folder`."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _packed(signals: Signals) -> bytes:
    # Not a Signals file: its embeddings would stay behind among the shared arrays.
    sink = io.BytesIO()
    facts = json.dumps({"live": sorted(signals.live), "cost": asdict(signals.cost)})
    np.savez(sink, **{f"column {name}": values for name, values in signals.columns.items()}, facts=np.array(facts))
    return sink.getvalue()


def _unpacked(path: Path) -> Signals:
    try:
        with np.load(path, allow_pickle=False) as found:
            facts = json.loads(str(found["facts"]))
            columns = {name.removeprefix("column "): found[name] for name in found.files if name != "facts"}
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as bad:
        raise DataError(f"{path} is damaged ({type(bad).__name__}); delete it and run again to make it anew") from None
    return Signals(columns, frozenset(facts["live"]), Cost(**facts["cost"]))
