"""An answer as a tool hands it back, and the careful reading of its fields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from ..pools.files import as_text, shown

ID, ROUND = "outlay_id", "outlay_round"
SIDES = ("first", "second")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request, not yet checked against it. `prompt` and `round` are None where the tool does not carry them;
    `seconds` is the time that the annotator took, 0 where unknown; `at` is when, as the tool wrote it."""

    id: str
    prompt: str | None = None
    kind: Literal["response", "preference", "skip"] = "response"
    response: str = ""
    chosen: str = ""
    rejected: str = ""
    annotator: str = ""
    seconds: float = 0.0
    round: int | None = None
    reason: str = ""
    at: str = ""


def part(row: dict[str, Any], name: str, kind: type) -> Any:
    """The field, if it is of this kind; an empty one of the kind where it is missing or null. ValueError otherwise."""
    value = row.get(name)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ValueError(f"field '{name}' is {shown(value)}, a {kind.__name__} is expected")
    return value


def text(row: dict[str, Any], *names: str) -> str | None:
    """The first of these fields that is there and not null, as text; None if there is none. ValueError for anything but a text, a whole
    number, or the one turn of a conversation."""
    for name in names:
        value = row.get(name)
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and "role" in value[0]:
            value = value[0].get("content")
        if value is not None:
            return as_text(value, name)
    return None


def seconds(row: dict[str, Any], name: str) -> float:
    """A duration; 0 where it is missing. ValueError for a negative or endless one."""
    value = row.get(name)
    if value is None or value == "":
        return 0.0
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"field '{name}' is {shown(value)}, a number of seconds is expected")
    return number


def whole(row: dict[str, Any], name: str) -> int | None:
    """A round; None where it is missing."""
    value = row.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"field '{name}' is {shown(value)}, the number of a round is expected")


def identity(row: dict[str, Any], *also: str) -> str:
    """Outlay's id. ValueError if it is missing: then there is nothing to match the record on."""
    found = text(row, ID, *also)
    if not found:
        raise ValueError(f"there is no field '{ID}', which every exported record carries; keep it through the tool")
    return found


def one(texts: list[str], what: str) -> str:
    """The only text; empty if there is none. ValueError if there are several."""
    if len(texts) > 1:
        raise ValueError(f"{len(texts)} texts where one {what} is expected")
    return texts[0] if texts else ""


def preferred(choice: str, row: dict[str, Any]) -> dict[str, str]:
    """`chosen` and `rejected` of a choice between the record's `first` and `second`; both empty if nothing was chosen."""
    if not choice:
        return {"kind": "preference"}
    if choice not in SIDES:
        raise ValueError(f"the choice is {shown(choice)}; first or second is expected")
    other = SIDES[1 - SIDES.index(choice)]
    if row.get(choice) is None or row.get(other) is None:
        raise ValueError(f"the fields '{SIDES[0]}' and '{SIDES[1]}', which hold the two responses, are not both there")
    return {"kind": "preference", "chosen": as_text(row[choice], choice), "rejected": as_text(row[other], other)}
