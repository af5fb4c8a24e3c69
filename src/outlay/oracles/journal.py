"""The journal of what was paid for: a line is on the disk before its answer is used, so that a killed campaign never buys it twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import DataError


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines so far. A last line that a kill cut in half was never used: it is removed. DataError if the rest is damaged."""
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        os.truncate(path, len(whole))
    try:
        found = [json.loads(line) for line in whole.decode().split("\n")[:-1]]
    except ValueError as bad:
        raise damaged(path, bad) from None
    for row in found:
        if not isinstance(row, dict) or "id" not in row:
            raise damaged(path, "a line without an id")
    return found


def damaged(path: Path, what: object) -> DataError:
    """The error of a journal that cannot be read."""
    return DataError(f"{path} is damaged ({what}); it lists what was bought: restore it, or delete the campaign's folder and run again")


def append(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Add lines, and return when they are on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())
