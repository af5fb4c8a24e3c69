"""Replay: stored gold answers in the place of experts. Only this file opens the vault, and every reveal is logged.

The log is the journal of what was paid for: a line is written before the answer is used, and an answer that is in the journal
is taken from there. So a killed campaign never buys the same answer twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..registry import register
from ..types import Annotation, Batch, Cost, Request


def read_journal(path: Path) -> dict[str, str]:
    """Prompt id -> answer bought so far. A last line that a kill cut in half was never used: it is removed."""
    if not path.exists():
        return {}
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        os.truncate(path, len(whole))
    try:
        rows = [json.loads(line) for line in whole.decode().split("\n")[:-1]]
        return {row["id"]: row["response"] for row in rows}
    except (ValueError, LookupError, TypeError) as bad:
        raise DataError(f"{path} is damaged ({bad}); it lists what was bought: restore it, or delete the campaign's folder and run again") from None


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
            self.journal.parent.mkdir(parents=True, exist_ok=True)
            with open(self.journal, "ab") as file:
                file.write("".join(json.dumps({"id": key, "response": answers[key]}, ensure_ascii=False) + "\n" for key in wanted).encode())
                file.flush()
                os.fsync(file.fileno())
            bought |= {key: answers[key] for key in wanted}
        return Batch(tuple(Annotation(r.prompt.id, response=bought[r.prompt.id], annotator="gold") for r in requests), Cost(labels=len(requests)))
