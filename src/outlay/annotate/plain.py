"""Spreadsheets and plain JSONL: one request a row, with empty columns to fill in, in the words of TRL's data formats."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .record import ID, ROUND, SIDES, Answer, identity, preferred, seconds, text, whole

# What a spreadsheet would take for a formula (OWASP, CSV injection), also after blanks or in full width, or behind our own mark.
FORMULA = re.compile(r"'*(\s*[=+\-@＝＋－＠]|[\t\r\n])")


def neutral(cell: str) -> str:
    """The cell as text to a spreadsheet: one ' before what would be a formula. `restored` takes it off again, exactly."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def restored(cell: str) -> str:
    """The cell without the mark of `neutral`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def row_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """A JSONL row in TRL's prompt-completion or preference format, with nulls to fill in."""
    row = {ID: request["id"], ROUND: request["round"], "prompt": request["prompt"], "group": request["group"]}
    if request["kind"] == "preference":
        return row | dict(zip(SIDES, request["drafts"], strict=True)) | {"chosen": None, "rejected": None, "skip_reason": None, "annotator": None, "seconds": None}
    return row | {"draft": "".join(request["drafts"][:1]), "completion": None, "skip_reason": None, "annotator": None, "seconds": None}


def table(requests: Sequence[Mapping[str, Any]]) -> str:
    """The requests as CSV, safe to open in a spreadsheet. A preference is the word first or second in the column `choice`."""
    sink = io.StringIO()
    pair = any(request["kind"] == "preference" for request in requests)
    columns = [ID, ROUND, "prompt", "group", *(SIDES if pair else ("draft",)), "choice" if pair else "response", "skip_reason", "annotator", "seconds"]
    writer = csv.DictWriter(sink, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    for request in requests:
        writer.writerow({name: neutral(str(value)) for name, value in row_of(request).items() if value is not None})
    return sink.getvalue()


def cell_answers(row: dict[str, Any]) -> list[Answer]:
    """The answer in a row of a spreadsheet, where an empty cell is no answer."""
    return answers({name: restored(cell) for name, cell in row.items() if isinstance(cell, str) and cell})


def answers(row: dict[str, Any]) -> list[Answer]:
    """The answer in a row: `completion` (or `response`), or `chosen` and `rejected`, or `choice`, or a skip; none if all are null."""
    key, reason, choice = identity(row, "prompt_id", "id"), text(row, "skip_reason", "reason"), text(row, "choice")
    common = {"prompt": text(row, "prompt"), "annotator": text(row, "annotator") or "", "seconds": seconds(row, "seconds"), "round": whole(row, ROUND if ROUND in row else "round"), "at": text(row, "at") or ""}
    kind = text(row, "kind")
    if kind == "skip" or (reason and not kind):
        return [Answer(key, kind="skip", reason=reason or "", **common)]
    chosen, rejected, response = text(row, "chosen"), text(row, "rejected"), text(row, "completion", "response")
    if kind != "response" and (chosen is not None or rejected is not None):
        return [Answer(key, kind="preference", chosen=chosen or "", rejected=rejected or "", **common)]
    if choice:
        return [Answer(key, **preferred(choice.strip().lower(), row), **common)]
    return [Answer(key, response=response, **common)] if response is not None else []
