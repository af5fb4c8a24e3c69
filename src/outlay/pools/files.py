"""A pool from one file: JSONL, CSV, TSV or Parquet with one prompt a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import DataError, near
from ..registry import register

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")


def text_id(text: str) -> str:
    """An id made from the prompt itself, for data that has none."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def as_text(value: Any, name: str) -> str:
    """A text or whole number as text. ValueError, with what there is instead."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError(f"field '{name}' is {shown(value)}, a text is expected")
    text = str(value)
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError(f"field '{name}' has half of a surrogate pair, which is no character; remove it")
    return text


def first_exchange(turns: Any) -> tuple[str, str]:
    """First question and its answer out of a list of {"role", "content"}; later turns are left out. ValueError if there is none.

    System turns before the question are put in front of it, with an empty line between: the answer was written under them.
    """
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns):
        raise ValueError(f"a list of turns with role and content is expected, got {shown(turns)}")
    roles = [turn["role"] for turn in turns]
    start = next((i for i, role in enumerate(roles) if role != "system"), len(roles))
    if roles[start : start + 2] != ["user", "assistant"]:
        raise ValueError(f"the first turns are {', '.join(map(str, roles[: start + 2])) or 'none'} where user, assistant are expected")
    parts = [as_text(turn["content"], "content") for turn in turns[: start + 2]]
    return "\n\n".join(part for part in parts[:-1] if part.strip()), parts[-1]


def shown(value: Any) -> str:
    """The value for an error message, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, each with its line number under "". DataError names a line that is none."""
    rows = []
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as bad:
                raise DataError(f"{path}, line {number}: not JSON ({bad.msg} at column {bad.colno}); every line must be one JSON object") from None
            except (ValueError, RecursionError) as bad:  # a number of thousands of digits; brackets thousands deep
                raise DataError(f"{path}, line {number}: not JSON that can be read ({bad})") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: a {type(row).__name__} where a JSON object is expected")
            rows.append(row | {"": number})
    return rows


def separated(path: Path, separator: str) -> list[dict[str, Any]]:
    """The rows of a CSV or TSV file with a header, each with its line number under "". DataError names a malformed line."""
    import csv

    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=separator, strict=True)
        rows = []
        try:
            names = reader.fieldnames or ()
            if len(set(names)) < len(names):
                raise DataError(f"{path}, line 1: a column occurs twice in {', '.join(names)}; rename one")
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(f"{path}, line {reader.line_num}: the number of fields differs from the header ({len(names)}); check the quoting")
                rows.append(row | {"": reader.line_num})
        except csv.Error as bad:
            raise DataError(f"{path}, line {reader.line_num + 1}: {bad}; check the quoting") from None  # the row begins after the last whole one
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as bad:  # OSError: a damaged page
        raise DataError(f"{path} is not a readable Parquet file: {str(bad).splitlines()[0]}") from None
    return [row | {"": number} for number, row in enumerate(table.to_pylist(), 1)]


READERS = {".jsonl": jsonl, ".csv": lambda p: separated(p, ","), ".tsv": lambda p: separated(p, "\t"), ".parquet": _parquet}


@register("pool", "file")
@dataclass(frozen=True, kw_only=True)
class FilePool:
    """One prompt a row, from a JSONL, CSV, TSV or Parquet file with the columns `text`, `response`, `group` and `id`.

    `group` and `id` may be None: no groups; ids from the text. `response` may be None for a pool that people will answer.
    `messages` names a column of chat turns to take instead of `text` and `response`: the first question and its answer.
    """

    path: Path
    text: str = "prompt"
    response: str | None = "response"
    group: str | None = None
    id: str | None = None
    messages: str | None = None

    def __call__(self) -> pa.Table:
        """-> table id, text, group, response. DataError names the file and line of a malformed row."""
        import pyarrow as pa

        if not self.path.is_file():
            raise DataError(f"pool file {self.path} does not exist; check the path in the config")
        if self.path.suffix not in READERS:
            raise DataError(f"pool file {self.path}: unknown ending '{self.path.suffix}'; use one of {', '.join(READERS)}")
        try:
            rows = READERS[self.path.suffix](self.path)
        except UnicodeDecodeError as bad:
            raise DataError(f"{self.path}: byte {bad.start} is not UTF-8; save the file as UTF-8") from None
        out: dict[str, list[str]] = {"id": [], "text": [], "group": [], "response": []}
        for row in rows:
            if self.messages:
                text, response = self._read(row, self.messages, lambda turns, _: first_exchange(turns))
            else:
                text, response = self._field(row, self.text), self._field(row, self.response) if self.response else ""
            out["text"].append(text)
            out["response"].append(response)
            out["group"].append(self._field(row, self.group) if self.group else "")
            out["id"].append(self._field(row, self.id) if self.id else text_id(text))
        return pa.table({name: pa.array(values, pa.string()) for name, values in out.items()})

    def _field(self, row: dict[str, Any], name: str) -> str:
        return self._read(row, name, as_text)

    def _read(self, row: dict[str, Any], name: str, take: Callable[[Any, str], T]) -> T:
        """A field as `take` reads it. DataError names the line, and the columns found if there is no such one."""
        if name not in row:
            found = [k for k in row if k]
            hint = "set messages='messages'" if "messages" in found and not self.messages else near(name, found)
            raise DataError(f"{self.path}, line {row['']}: no field '{name}' (found: {', '.join(found)}); {hint}")
        try:
            return take(row[name], name)
        except ValueError as bad:
            raise DataError(f"{self.path}, line {row['']}: {bad}") from None
