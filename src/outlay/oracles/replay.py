"""Replay: stored gold answers in the place of experts. Only this file opens the vault, and every reveal is logged.

The log is the journal of what was paid for: a line is written before the answer is used, and an answer that is in the journal
is taken from there. So a killed campaign never buys the same answer twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..registry import register
from ..types import Annotation, Batch, Cost, Request
from . import journal


def read_journal(path: Path) -> dict[str, str]:
    """Prompt id -> answer bought so far."""
    try:
        return {row["id"]: row["response"] for row in journal.rows(path)}
    except KeyError as missing:
        raise journal.damaged(path, f"a line without {missing}") from None


@register("oracle", "replay")
@dataclass(frozen=True, kw_only=True)
class Replay:
    """Answers from the gold vault, one annotation each; every reveal is logged in the campaign's journal."""

    vault: Path
    journal: Path

    def __call__(self, requests: Sequence[Request]) -> Batch:
        """One response annotation a request. DataError for a prompt without a gold answer."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        bought = read_journal(self.journal)
        wanted = [r.prompt.id for r in requests if r.prompt.id not in bought]
        if wanted:
            gold = pq.read_table(self.vault, filters=pc.field("id").isin(wanted))
            answers = dict(zip(gold.column("id").to_pylist(), gold.column("response").to_pylist(), strict=True))
            for key in wanted:
                if not answers.get(key, "").strip():
                    raise DataError(f"prompt '{key}' has no gold answer in the vault; replay needs a response for every prompt of the pool")
            journal.append(self.journal, [{"id": key, "response": answers[key]} for key in wanted])
            bought |= {key: answers[key] for key in wanted}
        return Batch(tuple(Annotation(r.prompt.id, response=bought[r.prompt.id], annotator="gold") for r in requests), Cost(labels=len(requests)))
