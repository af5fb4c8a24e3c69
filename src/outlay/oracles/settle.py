"""Several judgements of one prompt -> the one that is trained on, by a named rule; and how far annotators agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

from ..errors import ConfigError, near
from ..types import Annotation


def plain(response: str) -> str:
    """A response with its blanks collapsed: two that differ in nothing else are the same."""
    return " ".join(response.split())


def first(responses: Sequence[str]) -> str:
    """The one that came first."""
    return responses[0]


def majority(responses: Sequence[str]) -> str:
    """The one that most annotators gave; of equally frequent ones, that which came first."""
    counts = Counter(map(plain, responses))
    return max(responses, key=lambda response: counts[plain(response)])  # max keeps the first of equals


RULES: dict[str, Callable[[Sequence[str]], str]] = {"majority": majority, "first": first}


def rule(name: str) -> Callable[[Sequence[str]], str]:
    """The rule of that name; a ConfigError names the near match."""
    if name not in RULES:
        raise ConfigError(f"unknown rule '{name}' to settle disagreement; {near(name, RULES)}")
    return RULES[name]


def settled(judgements: Sequence[Annotation], name: str) -> Annotation:
    """One annotation out of all judgements of a prompt, in the order in which they came: a skip only if all skipped. It names everybody
    who answered, and adds up their seconds and pay."""
    rule(name)
    answers = [a for a in judgements if a.kind != "skip"] or list(judgements)
    paid = {"seconds": sum(a.seconds for a in judgements), "usd": sum(a.usd for a in judgements)}
    who = ", ".join(dict.fromkeys(a.annotator for a in answers if a.annotator))
    one = answers[0]
    response = rule(name)([a.response for a in answers]) if one.kind == "response" else one.response
    return Annotation(one.prompt_id, one.kind, response, one.chosen, one.rejected, who, one.round, **paid)


def agreement(judgements: Sequence[Annotation]) -> tuple[int, float]:
    """(prompts with two or more responses, mean over them of the share of pairs of annotators who gave the same one). NaN without such prompts."""
    by_prompt: dict[str, list[str]] = {}
    for a in judgements:
        if a.kind == "response":
            by_prompt.setdefault(a.prompt_id, []).append(plain(a.response))
    shares = []
    for responses in by_prompt.values():
        pairs = list(combinations(responses, 2))
        if pairs:
            shares.append(sum(a == b for a, b in pairs) / len(pairs))
    return len(shares), sum(shares) / len(shares) if shares else float("nan")
