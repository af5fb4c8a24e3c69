"""May these answers be kept? All or nothing, with a readable verdict. Pure: nothing is read or written here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..measure.agree import Agreement, agreement, settle
from ..types import Annotation
from .record import Answer

__all__ = ["Agreement", "Verdict", "agreement", "examine", "settle"]
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the answers. `accepted` (none if there is a problem) are new; `sources` are the answers behind them, with time and
    reason; `repeated` were there already; `waiting` requests lack an answer still, of `requests`."""

    read: int
    accepted: tuple[Annotation, ...]
    sources: tuple[Answer, ...]
    problems: tuple[str, ...]
    repeated: int
    waiting: int
    requests: int

    @property
    def ok(self) -> bool:
        """Nothing stands against keeping `accepted`."""
        return not self.problems

    def lines(self) -> list[dict[str, Any]]:
        """The accepted annotations as lines of annotations.jsonl."""
        return [asdict(annotation) | {"at": source.at, "reason": source.reason} for annotation, source in zip(self.accepted, self.sources, strict=True)]

    def text(self) -> str:
        """For people: what would be, or was, kept; or why nothing was."""
        if self.problems:
            return "\n".join([f"nothing is kept of {_count(self.read, 'answer')}:", *(f"- {problem}" for problem in self.problems), "mend this and import again"])
        skips = sum(a.kind == "skip" for a in self.accepted)
        parts = [f"{len(self.accepted)} new" + (f" ({_count(skips, 'skip')} among them)" if skips else "")]
        if self.repeated:
            parts.append(f"{self.repeated} there already (no change)")
        return f"{_count(self.read, 'answer')}: {', '.join(parts)}; {self.waiting} of {_count(self.requests, 'request')} still to be answered"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def same_text(one: str, other: str) -> bool:
    """Equal but for line ends and white space around it, which tools change."""
    return one == other or _bare(one) == _bare(other)


def _bare(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def examine(answers: Sequence[Answer], requests: Sequence[Mapping[str, Any]], already: Sequence[Annotation], *, k: int) -> Verdict:
    """Check answers against the requests (lines of requests.jsonl) and against the annotations that are there `already`. A request takes
    answers of as many annotators as it says, else `k`; a skip is one of them. The same answers again change nothing; one problem, and
    none is accepted."""
    asked = {request["id"]: request for request in requests}
    there = {(a.prompt_id, a.annotator): a for a in already}
    taken = Counter(a.prompt_id for a in already)
    problems: dict[str, list[str]] = {}
    seen: dict[tuple[str, str], Annotation] = {}
    accepted: list[tuple[Annotation, Answer]] = []
    repeated = 0
    for answer in answers:
        request = asked.get(answer.id)
        annotation = _annotation(answer, request)
        who = f"'{answer.id}'" + (f" by {answer.annotator}" if answer.annotator else "")
        before = there.get((answer.id, answer.annotator))
        if before is not None and _same(before, annotation):
            repeated += 1
            continue
        twice = seen.get((answer.id, answer.annotator))
        if before is not None:
            wrong = "another answer is there already"
        elif request is None:
            wrong = "unknown id, never asked here"
        elif twice is not None:
            name = "" if answer.annotator else "; if annotators differ, name them"
            wrong = f"the same answer twice{name}" if _same(twice, annotation) else f"two answers that differ{name}"
        else:
            wrong = _wrong(answer, request)
        seen.setdefault((answer.id, answer.annotator), annotation)
        if not wrong:
            taken[answer.id] += 1
            if taken[answer.id] > request.get("annotators", k):
                wrong = f"more answers than the {request.get('annotators', k)} asked for"
        if wrong:
            problems.setdefault(wrong, []).append(who)
        accepted.append((annotation, answer))
    kept = [] if problems else accepted
    done = Counter([a.prompt_id for a in already] + [a.prompt_id for a, _ in kept])
    return Verdict(
        read=len(answers),
        accepted=tuple(annotation for annotation, _ in kept),
        sources=tuple(answer for _, answer in kept),
        problems=tuple(f"{wrong}: {', '.join(ids[:SHOWN])}{f' and {len(ids) - SHOWN} more' if len(ids) > SHOWN else ''}" for wrong, ids in problems.items()),
        repeated=repeated,
        waiting=sum(done[key] < request.get("annotators", k) for key, request in asked.items()),
        requests=len(asked),
    )


def _annotation(answer: Answer, request: Mapping[str, Any] | None) -> Annotation:
    """The answer as it will be kept: a chosen draft in the words of the request, which a tool may have trimmed."""
    texts = {"response": answer.response, "chosen": answer.chosen, "rejected": answer.rejected}
    if answer.kind == "preference" and request is not None:
        texts |= {name: next((d for d in request["drafts"] if same_text(d, texts[name])), texts[name]) for name in ("chosen", "rejected")}
    number = request["round"] if request is not None else answer.round or 0
    return Annotation(answer.id, answer.kind, annotator=answer.annotator, round=number, seconds=answer.seconds, **texts)


def _same(one: Annotation, other: Annotation) -> bool:
    return one.kind == other.kind and all(same_text(getattr(one, name), getattr(other, name)) for name in ("response", "chosen", "rejected"))


def _wrong(answer: Answer, request: Mapping[str, Any]) -> str:
    """What is wrong with this answer to this request; empty if nothing is."""
    if answer.round is not None and answer.round != request["round"]:
        return f"wrong round: an answer of round {answer.round} to a request of round {request['round']}"
    if answer.prompt is not None and not same_text(answer.prompt, request["prompt"]):
        return "the prompt's text was changed"
    if not 0 <= answer.seconds < math.inf:
        return "the time taken is not a number of seconds"
    if any("\ud800" <= c <= "\udfff" for name in ("response", "chosen", "rejected", "annotator", "reason") for c in getattr(answer, name)):
        return "half of a surrogate pair, which is no character (bad encoding)"
    if answer.kind == "skip":
        return ""
    if answer.kind != request["kind"]:
        return f"a {answer.kind} where a {request['kind']} was asked"
    if answer.kind == "response":
        return "" if answer.response.strip() else "empty response"
    if not answer.chosen.strip() and not answer.rejected.strip():
        return "no response was chosen"
    drafts = [_bare(draft) for draft in request["drafts"]]
    given = [_bare(answer.chosen), _bare(answer.rejected)]
    return "" if sorted(given) == sorted(drafts) else "the chosen and rejected responses are not the two that were offered"
