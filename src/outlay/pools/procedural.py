"""Pools that are generated: the skills world of the shipped tiny model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..registry import register

if TYPE_CHECKING:
    import pyarrow as pa


def _table(rows: list[tuple[str, str, str, str]]) -> pa.Table:
    import pyarrow as pa

    columns = zip(*rows, strict=True)
    return pa.table({name: pa.array(values, pa.string()) for name, values in zip(("id", "text", "group", "response"), columns, strict=True)})


@register("pool", "skills")
@dataclass(frozen=True, kw_only=True)
class Skills:
    """English instructions for about 24 small skills, the world of the shipped tiny model (pools/skills.py).

    `mixture`: "zipf" (shares 1/rank) or "balanced". `split`: "pool" or "test"; the two never share a text.
    """

    size: int = 3000
    mixture: Literal["zipf", "balanced"] = "zipf"
    split: Literal["pool", "test"] = "pool"
    seed: int = 0

    def __call__(self) -> pa.Table:
        """-> table id, text, group, response."""
        from . import skills

        if self.split == "pool":
            return _table(skills.pool_rows(self.size, self.mixture, self.seed))
        return _table(skills.test_rows("pool" if self.mixture == "zipf" else "balanced", self.size, self.seed))
