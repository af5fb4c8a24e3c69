"""Files that annotation tools read, and what they hand back. Every record carries Outlay's id, on which imports match, whatever the
tool renumbered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, near
from ..pools.files import jsonl, separated
from ..store import dumps, write_atomic
from . import labelstudio, plain, tools
from .record import ID, Answer

__all__ = ["FORMATS", "Answer", "answers", "detect", "read", "write"]


@dataclass(frozen=True)
class Format:
    """How a tool's records look: `record` makes one of a request (None: the whole file is a table), `answers` reads one back."""

    ending: str
    record: Callable[[Mapping[str, Any]], dict[str, Any]] | None
    answers: Callable[[dict[str, Any]], list[Answer]]


FORMATS = {
    "label-studio": Format(".json", labelstudio.task, labelstudio.answers),
    "argilla": Format(".json", tools.argilla_record, tools.argilla_answers),
    "prodigy": Format(".jsonl", tools.prodigy_task, tools.prodigy_answers),
    "doccano": Format(".jsonl", tools.doccano_row, tools.doccano_answers),
    "csv": Format(".csv", None, plain.cell_answers),
    "jsonl": Format(".jsonl", plain.row_of, plain.answers),
}


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"unknown format '{name}'; {near(name, FORMATS)}")
    return FORMATS[name]


def write(requests: Sequence[Mapping[str, Any]], path: Path, format: str) -> list[Path]:
    """Requests (lines of a hand-off's requests.jsonl) as a file of that tool; -> the files written, for Label Studio with the labelling
    config (.xml) beside. ConfigError for an unknown format, DataError where kinds are mixed or a pair lacks its two responses."""
    shape = _format(format)
    kinds = {request["kind"] for request in requests}
    if len(kinds) != 1:
        raise DataError(f"the requests are of {len(kinds)} kinds ({', '.join(sorted(kinds)) or 'there is none'}); a file holds requests of one kind")
    for request in requests:
        if request["kind"] == "preference" and len(request["drafts"]) != 2:
            raise DataError(f"request '{request['id']}' is to compare two responses and has {len(request['drafts'])}")
    if shape.record is None:
        write_atomic(path, plain.table(requests).encode("utf-8-sig"))  # with the mark that spreadsheets need to see UTF-8
        return [path]
    records = [shape.record(request) for request in requests]
    write_atomic(path, dumps(records) if shape.ending == ".json" else "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode())
    if format != "label-studio":
        return [path]
    config = path.with_suffix(".xml")
    write_atomic(config, labelstudio.CONFIG[kinds.pop()].encode())
    return [path, config]


def read(path: Path, format: str | None = None, *, annotator: str = "") -> list[Answer]:
    """The answers in a file that a tool exported, in its order; records that nobody answered are left out. `format` is found from the
    content when it is not named; `annotator` is who answered where the file does not say. DataError names the record that is malformed."""
    if format is not None:
        _format(format)
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path")
    try:
        rows = _rows(path, format)
    except UnicodeDecodeError as bad:
        raise DataError(f"{path}: byte {bad.start} is not UTF-8; save the file as UTF-8") from None
    if not rows:
        raise DataError(f"{path}: there is no record in it")
    where = f"{path}, {'line' if path.suffix != '.json' else 'record'}"
    found = answers(rows, format or detect(path, rows[0]), where)
    return [answer if answer.annotator else replace(answer, annotator=annotator) for answer in found]


def answers(rows: Sequence[dict[str, Any]], format: str, where: str) -> list[Answer]:
    """The answers in records of that format. DataError names the malformed one: `where`, and the number that it has under ""."""
    found: list[Answer] = []
    for place, row in enumerate(rows, 1):
        try:
            found += _format(format).answers({name: value for name, value in row.items() if name})
        except ValueError as bad:
            raise DataError(f"{where} {row.get('', place)}: {bad}") from None
    return found


def detect(path: Path, row: dict[str, Any]) -> str:
    """The format of a file whose first record this is. DataError if it is none that we know."""
    if path.suffix in (".csv", ".tsv"):
        return "csv"
    has = row.keys()
    for name, is_it in (
        ("label-studio", "data" in has or (ID in has and {"annotation_id", "lead_time"} & has)),
        ("argilla", "fields" in has),
        ("prodigy", {"answer", "_task_hash", "_input_hash"} & has),
        ("doccano", {"text", "data"} & has and {"label", "labels"} & has),
        ("jsonl", {"completion", "response", "chosen", "choice", "kind"} & has),
    ):
        if is_it:
            return name
    raise DataError(f"{path}: its format cannot be told from the fields {', '.join(sorted(has - {''})[:12])}; name it: {', '.join(FORMATS)}")


def _rows(path: Path, format: str | None) -> list[dict[str, Any]]:
    """The records, each with its number under "". A JSON file is a list of objects, or one object a line."""
    if format == "csv" or (format is None and path.suffix in (".csv", ".tsv")):
        return separated(path, _separator(path))
    with open(path, encoding="utf-8-sig") as file:
        start = file.read(1)
        while start and start.isspace():
            start = file.read(1)
    if start != "[":
        return jsonl(path)
    whole = path.read_text(encoding="utf-8-sig")
    try:
        rows = json.loads(whole)
    except (ValueError, RecursionError) as bad:
        raise DataError(f"{path}: not JSON ({bad}); was it cut off?") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, record {number}: a {type(row).__name__} where a JSON object is expected")
    return [row | {"": number} for number, row in enumerate(rows, 1)]


def _separator(path: Path) -> str:
    """What stands between the columns: some spreadsheets save with semicolons or tabs."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = file.readline()
    return max(",;\t", key=header.count)
