"""Stored responses, scored again without a model."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..evaluators.answers import score

ENDINGS = (".jsonl.gz", ".jsonl")


def rescore(path: Path, *, cot: bool) -> dict[str, list[dict[str, Any]]]:
    """Task -> scored items, of a JSONL file (optionally .gz) or of all such files in a folder.

    A line has `response` or `prediction`, and `target`; `task` or else the file's name is its task, `question` (if it is there)
    gives the texts of its options, and `cut_off` and `too_long` are kept. Raises DataError naming file and line.
    """
    files = sorted(p for p in path.iterdir() if p.name.endswith(ENDINGS)) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(f"{path} is no JSONL file (.jsonl or .jsonl.gz) and no folder with such files; give what an evaluation wrote, or lines with response and target")
    found: dict[str, list[dict[str, Any]]] = {}
    runs: dict[str, Path] = {}
    for file in files:
        name = next((file.name.removesuffix(ending) for ending in ENDINGS if file.name.endswith(ending)), file.stem)
        for where, row in _lines(file):
            response = row.get("response", row.get("prediction"))
            if not isinstance(response, str) or not isinstance(row.get("target"), str):
                raise DataError(f"{where}: the texts response (or prediction) and target are expected, found {', '.join(row) or 'nothing'}")
            runs.setdefault(str(row.get("run", "")), file)
            got = score(response, row["target"], cot=cot, question=str(row.get("question", "")))
            flags = {"cut_off": bool(row.get("cut_off")), "too_long": bool(row.get("too_long"))}
            facts = {"answer": got.answer, "parsed": got.parsed, "correct": got.correct, "lenient": got.lenient}
            found.setdefault(str(row.get("task", name)), []).append(row | facts | flags)
    if len(runs) > 1:
        raise DataError(f"{path} holds results of {len(runs)} evaluations (e.g. {' and '.join(f.name for f in list(runs.values())[:2])}); give one file, or a folder with one evaluation")
    if not found:
        raise DataError(f"{path} holds no responses")
    return dict(sorted(found.items()))


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of each line that is not blank."""
    opener = gzip.open if file.suffix == ".gz" else open
    number = 0
    try:
        with opener(file, "rt", encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"{file}, line {number}: a {type(row).__name__} where a JSON object is expected")
                yield f"{file}, line {number}", row
    except (json.JSONDecodeError, UnicodeDecodeError, EOFError, zlib.error, OSError) as bad:
        raise DataError(f"{file}, line {number}: not readable JSON lines ({' '.join(str(bad).split())}); mend or remove it") from None
