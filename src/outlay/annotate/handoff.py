"""The folder of a round's hand-off: requests.jsonl goes out, annotations.jsonl is what came back and passed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..pools.files import jsonl
from ..store import Store, write_atomic
from ..types import Annotation
from .record import Answer
from .verdict import Verdict, examine

FIELDS = tuple(field.name for field in fields(Annotation))


def folder(run: Path, number: int) -> Path:
    """Where round `number` is handed over."""
    return run / "handoff" / f"round-{number:03d}"


def latest(run: Path) -> Path:
    """The folder of the last round that was handed over. DataError if there is none yet."""
    found = sorted(path.parent for path in (run / "handoff").glob("round-*/requests.jsonl"))
    if not found:
        raise DataError(f"{run} has no requests yet (no handoff/round-001/requests.jsonl in it); run `outlay campaign next` first")
    return found[-1]


def requests(folder: Path) -> list[dict[str, Any]]:
    """What is asked in this round."""
    return [{name: value for name, value in row.items() if name} for row in jsonl(folder / "requests.jsonl")]


def collected(folder: Path) -> list[Annotation]:
    """What came back so far, in order of arrival."""
    path = folder / "annotations.jsonl"
    if not path.exists():
        return []
    try:
        return [Annotation(**{name: row[name] for name in FIELDS}) for row in jsonl(path)]
    except KeyError as missing:
        raise DataError(f"{path} is damaged (a line without {missing}); restore it: it holds what annotators wrote") from None


def collect(folder: Path, answers: Sequence[Answer], *, k: int = 1, earlier: Sequence[Annotation] = (), dry_run: bool = False) -> Verdict:
    """Examine the answers and, if nothing stands against them, add them to annotations.jsonl: all of them or none, also when killed.
    `earlier` are the annotations of earlier rounds: a tool's export may hold them again. One process at a time; another one waits."""
    with Store(folder).lock(".lock", wait=60.0):
        verdict = examine(answers, requests(folder), [*earlier, *collected(folder)], k=k)
        if verdict.ok and verdict.accepted and not dry_run:
            path = folder / "annotations.jsonl"
            before = path.read_bytes() if path.exists() else b""
            write_atomic(path, before + "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in verdict.lines()).encode())
    return verdict
