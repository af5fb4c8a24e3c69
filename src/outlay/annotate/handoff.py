"""The folder of a round's hand-off: requests.jsonl goes out, annotations.jsonl is what came back and passed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..oracles import handoff as files
from ..store import Store
from ..types import Annotation
from .record import Answer
from .verdict import Verdict, examine

folder, folders, requests, collected = files.folder, files.folders, files.requests, files.collected


def taken(folder: Path) -> bool:
    """Whether the campaign has taken this round's annotations: then they stay as they are."""
    run = folder.parents[1]
    return any(True for pattern in (f"{folder.name}/batch.json", f"*/{folder.name}/batch.json", f"*/*/{folder.name}/batch.json") for _ in run.glob(pattern))


def collect(folder: Path, answers: Sequence[Answer], *, k: int = 1, earlier: Sequence[Annotation] = (), dry_run: bool = False) -> Verdict:
    """Examine the answers and, if nothing stands against them, add them to annotations.jsonl: all of them or none, also when killed.
    `earlier` are the annotations of earlier rounds: a tool's export may hold them again. One process at a time; another one waits."""
    with Store(folder).lock(".lock", wait=60.0):
        verdict = examine(answers, requests(folder), [*earlier, *collected(folder)], k=k)
        if not dry_run:
            keep(folder, verdict)
    return verdict


def keep(folder: Path, verdict: Verdict) -> None:
    """Add what was accepted to annotations.jsonl. For the holder of the folder's lock."""
    if verdict.accepted:
        path = folder / "annotations.jsonl"
        files.write(path, [*files.lines(path), *verdict.lines()])


def withdraw(folder: Path, prompt_id: str, annotator: str) -> bool:
    """Take one annotation out of annotations.jsonl again; -> whether it was there. Nothing is taken out of a round that the campaign has taken."""
    with Store(folder).lock(".lock", wait=60.0):
        path = folder / "annotations.jsonl"
        lines = files.lines(path)
        kept = [line for line in lines if (line["prompt_id"], line["annotator"]) != (prompt_id, annotator)]
        if len(kept) == len(lines) or taken(folder):
            return False
        files.write(path, kept)
    return True
