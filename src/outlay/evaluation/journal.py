"""The result file of a task: JSON lines, one an item, appended as items are done and never lost on a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..errors import DataError, OutlayError, RunConflict
from ..evaluators.ask import Answered
from ..evaluators.items import Item
from ..store import write_atomic

FIELDS = ("response", "answer", "parsed", "correct", "lenient", "cut_off", "too_long", "prompt_tokens", "tokens")


def row_of(answered: Answered, run: str) -> dict[str, Any]:
    """The line of an item. `run` hashes the settings it was made with."""
    item = answered.item
    facts = {"id": item.id, "task": item.task, "run": run, "prompt": item.prompt, "question": item.question, "target": item.target}
    facts |= {name: getattr(answered, name) for name in FIELDS}
    return facts | ({"logprobs": list(answered.logprobs)} if answered.logprobs else {}) | ({"note": answered.note} if answered.note else {})


class Journal:
    """The results of one task, in the file `path`. `rows`: what it holds, by item id."""

    def __init__(self, path: Path, run: str, items: Sequence[Item]) -> None:
        """Reads what is there. A half-written last line is left out, and dropped from the file when the next one is appended.
        RunConflict names a file of other settings or other data, DataError the line of one that is damaged."""
        self.path, self.run, self.items = path, run, {item.id: item for item in items}
        self.rows: dict[str, dict[str, Any]] = {}
        self._file: TextIO | None = None
        self._whole = 0  # bytes of whole lines
        if path.exists():
            self._read()

    @property
    def left(self) -> list[Item]:
        """Items without a result."""
        return [item for name, item in self.items.items() if name not in self.rows]

    @property
    def done(self) -> list[dict[str, Any]]:
        """The results of our items, in their order."""
        return [self.rows[name] for name in self.items if name in self.rows]

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
        except OSError as bad:
            raise OutlayError(f"cannot read {self.path}: {bad.strerror}; check its permissions or choose another folder with --out") from None
        self._whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[: self._whole].split(b"\n")[:-1], 1):
            try:
                row = json.loads(line)
                name, run = row["id"], row["run"]
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{self.path}, line {number} is not a result; move the file away, or choose another folder with --out") from None
            if run != self.run:
                raise RunConflict(f"{self.path} holds results of other settings (run {run}, ours is {self.run}); choose another folder with --out, or move it away")
            item = self.items.get(name)
            if item is not None and (row["prompt"], row["target"]) != (item.prompt, item.target):
                raise RunConflict(f"{self.path}, line {number}: item {name} was another question then; the data has changed: choose another folder with --out, or move the file away")
            self.rows[name] = row

    def add(self, answered: Answered) -> None:
        """Append a result; it is in the file when this returns."""
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self.path.exists():
                    os.truncate(self.path, self._whole)
                self._file = open(self.path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115  (closed by close())
            row = row_of(answered, self.run)
            self._file.write(_line(row))
            self._file.flush()
        except OSError as bad:
            raise OutlayError(f"cannot write {self.path}: {bad.strerror}; free some space or choose another folder with --out; the same command goes on from here") from None
        self.rows[answered.item.id] = row

    def close(self) -> None:
        """Once every item is there: put the lines into the order of the items (those of a larger MAX_EXAMPLES last)."""
        if self._file is not None:
            self._file.close()
            self._file = None
            if not self.left:
                ordered = self.done + [row for name, row in self.rows.items() if name not in self.items]
                write_atomic(self.path, "".join(map(_line, ordered)).encode())


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
