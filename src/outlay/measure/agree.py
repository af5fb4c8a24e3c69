"""Where several annotators answered one prompt: how far they agree, and which answer is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from ..errors import ConfigError, near
from ..types import Annotation
from .bleu import sentence_bleu
from .text import tokens


def words(annotation: Annotation) -> str:
    """What is compared: the preferred or written text, without regard to white space."""
    return " ".join((annotation.chosen if annotation.kind == "preference" else annotation.response).split())


def _by_prompt(annotations: Sequence[Annotation]) -> dict[str, list[Annotation]]:
    found: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        found.setdefault(annotation.prompt_id, []).append(annotation)
    return found


@dataclass(frozen=True, slots=True)
class Agreement:
    """`prompts` that two or more answered; `alike`: the mean share of pairs of annotators with the same answer, prompts weighing the same.
    Of preferences `beyond_chance` is 2 * alike - 1 (S of Bennett, Alpert & Goldstein 1954: which draft is first means nothing, so both
    are equally likely by chance); of responses `similarity` is the mean sentence BLEU of pairs, 0 to 1. None where there is none."""

    prompts: int
    alike: float | None = None
    beyond_chance: float | None = None
    similarity: float | None = None

    def text(self) -> str:
        """One line."""
        if self.alike is None:
            return "no prompt has two answers, so agreement is not known"
        tail = f"S = {self.beyond_chance:.2f}" if self.beyond_chance is not None else f"mean BLEU {self.similarity:.2f}"
        return f"{self.prompts} prompts with two answers or more: {self.alike:.0%} of the pairs of annotators agree ({tail})"


def agreement(annotations: Sequence[Annotation]) -> Agreement:
    """How far annotators agree on the prompts that several of them answered. Skips are left out."""
    several = [group for group in _by_prompt([a for a in annotations if a.kind != "skip"]).values() if len(group) > 1]
    if not several:
        return Agreement(0)
    alike = fmean(fmean(words(a) == words(b) for a, b in combinations(group, 2)) for group in several)
    if all(a.kind == "preference" for group in several for a in group):
        return Agreement(len(several), alike, beyond_chance=2 * alike - 1)
    return Agreement(len(several), alike, similarity=fmean(fmean(_similar(a, b) for a, b in combinations(group, 2)) for group in several))


def _similar(a: Annotation, b: Annotation) -> float:
    one, other = tokens(words(a)), tokens(words(b))
    return (sentence_bleu(one, other) + sentence_bleu(other, one)) / 2


def _majority(group: list[Annotation]) -> list[Annotation]:
    votes = Counter(map(words, group))
    return [max(group, key=lambda a: votes[words(a)])]  # the earliest of those with most votes


def _central(group: list[Annotation]) -> list[Annotation]:
    return [max(group, key=lambda a: sum(_similar(a, b) for b in group))]


RULES: dict[str, Callable[[list[Annotation]], list[Annotation]]] = {
    "first": lambda group: group[:1],
    "majority": _majority,
    "central": _central,
    "unanimous": lambda group: group[:1] if len(set(map(words, group))) == 1 else [],
    "all": lambda group: group,
}


def settle(annotations: Sequence[Annotation], rule: str) -> tuple[Annotation, ...]:
    """The annotations that are trained on, prompts in order of their first answer. Rules: `first` answer; `majority` (the answer that most
    gave, white space apart; the earliest of equals); `central` (the response most like the others, by BLEU); `unanimous` (prompts on
    which annotators differ are dropped); `all` (each is an example). Skips are dropped where somebody answered, else the first is kept.
    ConfigError for an unknown rule."""
    if rule not in RULES:
        raise ConfigError(f"unknown rule '{rule}' for disagreement; {near(rule, RULES)}")
    settled: list[Annotation] = []
    for group in _by_prompt(annotations).values():
        answered = [a for a in group if a.kind != "skip"]
        settled += RULES[rule](answered) if answered else group[:1]
    return tuple(settled)
