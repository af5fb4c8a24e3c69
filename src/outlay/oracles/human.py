"""People: requests are written to the run's hand-off folder, and the campaign waits until the answers are there.

A round's hand-off is a folder `round-001` with requests.jsonl (what is asked) and annotations.jsonl (every judgement that came back, one a
line: who, when, in how many seconds). `round-000` asks for the dev set. The files are the interface: a page, a tool or a script fills them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import AwaitingAnnotations, ConfigError, DataError
from ..registry import register
from ..store import write_atomic
from ..types import Annotation, Batch, Cost, Request
from .settle import rule, settled

FIELDS = tuple(f.name for f in fields(Annotation))


def folder_of(handoff: Path, number: int) -> Path:
    """The folder of a round's hand-off; number 0 is the dev set's."""
    return handoff / f"round-{number:03d}"


def requests_of(folder: Path) -> list[dict[str, Any]]:
    """What was asked, in the order of the file; empty before the hand-off."""
    return _lines(folder / "requests.jsonl")


def judgements_of(folder: Path) -> list[dict[str, Any]]:
    """Every judgement that came back, in the order in which it came."""
    return _lines(folder / "annotations.jsonl")


def annotation_of(line: dict[str, Any]) -> Annotation:
    """The record of a line of annotations.jsonl (its `at` and `reason` are left out)."""
    return Annotation(**{name: line[name] for name in FIELDS if name in line})


def missing(folder: Path, per_item: int) -> dict[str, int]:
    """Prompt id -> judgements that are still to come, for the prompts that lack any."""
    have: dict[str, int] = {}
    for line in judgements_of(folder):
        have[line["prompt_id"]] = have.get(line["prompt_id"], 0) + 1
    left = {line["id"]: per_item - have.get(line["id"], 0) for line in requests_of(folder)}
    return {key: count for key, count in left.items() if count > 0}


def record(handoff: Path, lines: Iterable[dict[str, Any]]) -> int:
    """Add judgements (fields of Annotation, `at`, `reason`) to the hand-offs that asked for them; -> how many are new.

    A judgement that is there already (same prompt, annotator and content) is left out, so that an import can be repeated. DataError for
    a prompt that no round asked for; then nothing is written.
    """
    home = {line["id"]: folder for folder in sorted(handoff.glob("round-*")) for line in requests_of(folder)}
    new: dict[Path, list[dict[str, Any]]] = {}
    seen = {folder: {_content(line) for line in judgements_of(folder)} for folder in set(home.values())}
    for line in lines:
        if line["prompt_id"] not in home:
            raise DataError(f"prompt '{line['prompt_id']}' was never asked in {handoff}; take it out of the import")
        where = home[line["prompt_id"]]
        if _content(line) not in seen[where]:
            seen[where].add(_content(line))
            new.setdefault(where, []).append(line)
    for where, added in new.items():
        _write(where / "annotations.jsonl", [*judgements_of(where), *added])
    return sum(map(len, new.values()))


@register("oracle", "human")
@dataclass(frozen=True, kw_only=True)
class Human:
    """People, who answer when they can: writes what is asked to the hand-off folder, and waits until every prompt has `per_item` judgements."""

    handoff: Path
    per_item: int = 1
    settle: str = "majority"

    def __post_init__(self) -> None:
        rule(self.settle)
        if self.per_item < 1:
            raise ConfigError(f"oracle 'human', option 'per_item' = {self.per_item}: it must be at least 1")

    def __call__(self, requests: Sequence[Request]) -> Batch:
        """One annotation a request, settled by the rule `settle`; every judgement that is no skip is paid. AwaitingAnnotations until all are there."""
        folder = folder_of(self.handoff, requests[0].round)
        asked = requests_of(folder)
        known = {line["id"] for line in asked}
        if fresh := [self._line(r) for r in requests if r.prompt.id not in known]:
            _write(folder / "requests.jsonl", [*asked, *fresh])
        wanted = {r.prompt.id: [] for r in requests}
        for line in judgements_of(folder):
            if line["prompt_id"] in wanted:
                wanted[line["prompt_id"]].append(annotation_of(line))
        left = sum(max(0, self.per_item - len(found)) for found in wanted.values())
        if left:
            what = "the dev set" if not requests[0].round else f"round {requests[0].round}"
            raise AwaitingAnnotations(f"{what} waits for {left} of {self.per_item * len(requests)} judgements; they are asked for in {folder / 'requests.jsonl'}")
        everything = [a for found in wanted.values() for a in found]
        cost = Cost(labels=sum(a.kind != "skip" for a in everything), usd=sum(a.usd for a in everything))
        return Batch(tuple(settled(found, self.settle) for found in wanted.values()), cost)

    def _line(self, request: Request) -> dict[str, Any]:
        prompt = request.prompt
        return {
            "id": prompt.id, "prompt": prompt.text, "group": prompt.group, "drafts": list(request.drafts), "round": request.round, "kind": "response",
            "why": dict(request.why), "annotators": self.per_item,
        }  # fmt: skip


def _content(line: dict[str, Any]) -> tuple:
    return tuple(line.get(name) or "" for name in ("prompt_id", "annotator", "kind", "response", "chosen", "rejected"))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except ValueError as bad:
        raise DataError(f"{path} is damaged ({bad}); restore it: it holds what annotators were asked or answered") from None


def _write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
