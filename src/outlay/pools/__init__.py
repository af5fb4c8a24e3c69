"""Pools: where prompts (and, for replay, their gold answers) come from.

A pool part is a frozen dataclass whose call gives a table with the string columns id, text, group, response. `split_gold`
takes the answers off: the pool goes on, the answers go into the vault.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from ..types import Pool
from . import files, flan, gym, hub, procedural  # noqa: F401  (registers the parts)

if TYPE_CHECKING:
    import pyarrow as pa


def check(name: str, table: pa.Table) -> pa.Table:
    """The table, if every row has a prompt and ids are unique; else a DataError that names the row."""
    ids, texts = table.column("id").to_pylist(), table.column("text").to_pylist()
    seen: dict[str, int] = {}
    for row, (key, text) in enumerate(zip(ids, texts, strict=True)):
        if not text.strip():
            raise DataError(f"{name}: the prompt of row {row + 1} (id '{key}') is empty; give it a text or remove the row")
        if key in seen:
            raise DataError(f"{name}: rows {seen[key] + 1} and {row + 1} have the same id '{key}'; ids must be unique")
        seen[key] = row
    if not ids:
        raise DataError(f"{name}: there is no prompt in it")
    return table


def repeated(table: pa.Table) -> int:
    """How many rows repeat the text of an earlier row."""
    return table.num_rows - len(set(table.column("text").to_pylist()))


def pool_of(name: str, table: pa.Table) -> Pool:
    """The pool without the answers."""
    return Pool(name, table.select(["id", "text", "group"]))


def vault_of(table: pa.Table) -> pa.Table:
    """The answers alone, keyed by prompt id."""
    return table.select(["id", "response"])


def require_disjoint(pool: pa.Table, test: pa.Table, name: str) -> None:
    """DataError if a test prompt is also in the pool: accuracy on it would be memory."""
    shared = set(pool.column("text").to_pylist()) & set(test.column("text").to_pylist())
    if shared:
        raise DataError(f"evaluator '{name}': {len(shared)} of its {test.num_rows} prompts are in the pool too, e.g. {min(shared)[:60]!r}; use a disjoint split")


def read(path: Path) -> pa.Table:
    """A table that the run directory holds."""
    import pyarrow.parquet as pq

    return pq.read_table(path)
