"""People: requests are written to the run's hand-off folder, and the campaign waits until the answers are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ..errors import AwaitingAnnotations, ConfigError, near
from ..measure.agree import settle
from ..registry import register
from ..types import Annotation, Batch, Cost, Request
from . import handoff

RULES = ("majority", "first", "central")  # those that leave one annotation of every prompt that was paid for

def check(part: str, rule: str, per_item: int) -> None:
    """ConfigError for a rule that does not leave one annotation a prompt, or a number of judgements below 1."""
    if rule not in RULES:
        raise ConfigError(f"oracle '{part}' cannot settle disagreement by '{rule}'; {near(rule, RULES)}")
    if per_item < 1:
        raise ConfigError(f"oracle '{part}', option 'per_item' = {per_item}: it must be at least 1")


def settled(judgements: Mapping[str, Sequence[Annotation]], rule: str) -> Batch:
    """Prompt id -> all its judgements, in order of arrival -> one annotation a prompt, which names everybody who answered and adds up their
    seconds and pay; a skip where everybody skipped. Every judgement that is no skip is paid."""
    made, everything = [], [a for found in judgements.values() for a in found]
    for found in judgements.values():
        answered = [a for a in found if a.kind != "skip"]
        (one,) = settle(found, rule)
        who = ", ".join(dict.fromkeys(a.annotator for a in answered or found if a.annotator))
        made.append(replace(one, annotator=who, seconds=sum(a.seconds for a in found), usd=sum(a.usd for a in found)))
    return Batch(tuple(made), Cost(labels=sum(a.kind != "skip" for a in everything), usd=sum(a.usd for a in everything)))


@register("oracle", "human")
@dataclass(frozen=True, kw_only=True)
class Human:
    """People, who answer when they can: writes what is asked into the folder `run`, and waits until every prompt has `per_item` judgements.

    settle: the rule for their disagreement: majority, first or central (see outlay.measure.agree.settle).
    """

    judgements: ClassVar[tuple[str, ...]] = ("responses", "preferences")

    run: Path
    per_item: int = 1
    settle: str = "majority"

    def __post_init__(self) -> None:
        check("human", self.settle, self.per_item)

    def __call__(self, requests: Sequence[Request]) -> Batch:
        """One annotation a request, as `settled` makes it. AwaitingAnnotations until all judgements are there."""
        folder = handoff.folder(self.run, requests[0].round)
        asked = handoff.requests(folder)
        known = {line["id"] for line in asked}
        if fresh := [self._line(r) for r in requests if r.prompt.id not in known]:
            handoff.write(folder / "requests.jsonl", [*asked, *fresh])
        wanted: dict[str, list[Annotation]] = {r.prompt.id: [] for r in requests}
        for annotation in handoff.collected(folder):
            if annotation.prompt_id in wanted:
                wanted[annotation.prompt_id].append(annotation)
        if left := sum(max(0, self.per_item - len(found)) for found in wanted.values()):
            what = f"round {requests[0].round}" if requests[0].round else "the dev set"
            raise AwaitingAnnotations(f"{what} waits for {left} of {self.per_item * len(requests)} judgements; they are asked for in {folder / 'requests.jsonl'}")
        return settled(wanted, self.settle)

    def _line(self, request: Request) -> dict[str, Any]:
        prompt = request.prompt
        return {
            "id": prompt.id, "prompt": prompt.text, "group": prompt.group, "drafts": list(request.drafts), "round": request.round, "kind": request.kind,
            "why": dict(request.why), "annotators": self.per_item,
        }  # fmt: skip
