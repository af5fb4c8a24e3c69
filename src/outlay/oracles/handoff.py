"""The files of a round's hand-off: requests.jsonl goes out, annotations.jsonl is every judgement that came back and passed.

They are the interface between the campaign and whoever asks people: the annotation page, a tool's export, a script. `round-000` asks for
the dev set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..pools.files import jsonl
from ..store import write_atomic
from ..types import Annotation

FIELDS = tuple(field.name for field in fields(Annotation))


def folder(run: Path, number: int) -> Path:
    """Where round `number` is handed over."""
    return run / "handoff" / f"round-{number:03d}"


def folders(run: Path) -> list[Path]:
    """The folders of all rounds that were handed over, in order. DataError if there is none yet."""
    found = sorted(path.parent for path in (run / "handoff").glob("round-*/requests.jsonl"))
    if not found:
        raise DataError(f"{run} has no requests yet (no handoff/round-001/requests.jsonl in it); run `outlay campaign next` first")
    return found


def requests(folder: Path) -> list[dict[str, Any]]:
    """What is asked in this round."""
    return lines(folder / "requests.jsonl")


def collected(folder: Path) -> list[Annotation]:
    """What came back so far, in order of arrival."""
    path = folder / "annotations.jsonl"
    try:
        return [annotation(row) for row in lines(path)]
    except KeyError as missing:
        raise DataError(f"{path} is damaged (a line without {missing}); restore it: it holds what annotators wrote") from None


def annotation(line: dict[str, Any]) -> Annotation:
    """The record in a line, without what else the line says of it."""
    return Annotation(**{name: line[name] for name in FIELDS})


def waiting(folder: Path) -> dict[str, int]:
    """Prompt id -> judgements that it still lacks, for prompts that lack any."""
    have: dict[str, int] = {}
    for annotation in collected(folder):
        have[annotation.prompt_id] = have.get(annotation.prompt_id, 0) + 1
    left = {request["id"]: request["annotators"] - have.get(request["id"], 0) for request in requests(folder)}
    return {key: count for key, count in left.items() if count > 0}


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of one of the two files; none where it is not there."""
    return [{name: value for name, value in row.items() if name} for row in jsonl(path)] if path.exists() else []


def write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Put the file in the place of what was there, whole or not at all."""
    write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
