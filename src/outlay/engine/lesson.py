"""Annotations -> examples to learn from: what all trainers have in common before they train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .. import seeds
from ..errors import DataError
from ..types import Annotation, Prompt
from .load import Loaded
from .render import Rendered, format_of, pairs


def examples(loaded: Loaded, template: str, prompts: Sequence[Prompt], annotations: Sequence[Annotation], *, most: int, trainer: str) -> list[Rendered]:
    """Aligned prompts with responses as the model reads them, by prompt id; skips are left out.

    Raises DataError naming the prompt whose response is empty, is a preference, or would be cut off at `most` tokens.
    """
    # By response too: k annotators may have answered the same prompt.
    ids, texts, responses = zip(*sorted((p.id, p.text, a.response) for p, a in given(prompts, annotations, "response", trainer)), strict=True)
    return pairs(loaded, format_of(loaded, template), ids, texts, responses, most=most)


def preferences(loaded: Loaded, template: str, prompts: Sequence[Prompt], annotations: Sequence[Annotation], *, most: int, trainer: str) -> tuple[list[Rendered], list[Rendered]]:
    """Aligned prompts with the chosen and with the rejected responses as the model reads them, by prompt id; skips are left out.

    Raises DataError naming the prompt that has a response in the place of a preference, or one of whose two is empty or would be cut off.
    """
    ids, texts, *sides = zip(*sorted((p.id, p.text, a.chosen, a.rejected) for p, a in given(prompts, annotations, "preference", trainer)), strict=True)
    chosen, rejected = (pairs(loaded, format_of(loaded, template), ids, texts, side, most=most) for side in sides)
    return chosen, rejected


def given(prompts: Sequence[Prompt], annotations: Sequence[Annotation], kind: str, trainer: str) -> list[tuple[Prompt, Annotation]]:
    """The aligned pairs without skips. Raises DataError for what is not aligned, for an annotation of another kind, and where nothing is left."""
    found = []
    for prompt, annotation in zip(prompts, annotations, strict=True):
        if prompt.id != annotation.prompt_id:
            raise DataError(f"prompt '{prompt.id}' was paired with the annotation of '{annotation.prompt_id}'; prompts and annotations must be aligned")
        if annotation.kind not in (kind, "skip"):
            raise DataError(f"prompt '{prompt.id}' has a {annotation.kind}, and trainer '{trainer}' learns from {kind}s; ask for {kind}s")
        if annotation.kind == kind:
            found.append((prompt, annotation))
    if not found:
        raise DataError(f"there is nothing to train on: {len(prompts)} annotations, none of them a {kind}")
    return found


def answers(batch: Sequence[Rendered]) -> int:
    """Response tokens, end tokens included: those that get a loss."""
    return sum(len(e.ids) - e.answer for e in batch)


def held_out(lesson: Sequence[Rendered], share: float, seed: int) -> tuple[list[Rendered], list[Rendered]]:
    """About this share of the prompts goes to a dev split, all answers to one prompt together -> (training, dev).

    By the prompt's hashed id alone: a prompt of the dev split stays in it when more are bought. Each side gets at least one prompt, the
    nearest to its share where it has none.
    Raises DataError if there is only one.
    """
    if not share:
        return list(lesson), []
    draw = {name: seeds.generator(seed, "dev", name).random() for name in {e.id for e in lesson}}
    if len(draw) < 2:
        raise DataError("a dev split needs answers to at least two prompts, and there is one; set dev_share: 0")
    ranked = sorted(draw, key=lambda name: (draw[name], name))
    chosen = {ranked[0]} | {name for name in ranked[1:-1] if draw[name] < share}
    return [e for e in lesson if e.id not in chosen], [e for e in lesson if e.id in chosen]


def minibatches(lengths: Sequence[int], size: int, *, epoch: int, seed: int, bucket: int = 1) -> Iterator[list[int]]:
    """Row numbers of an epoch's minibatches. bucket: of so many minibatches, examples of like length go together, and the order of the
    minibatches is drawn again."""
    rng = seeds.generator(seed, "order", epoch)
    order = rng.permutation(len(lengths)).tolist()
    if bucket > 1:
        span = bucket * size
        order = [row for at in range(0, len(order), span) for row in sorted(order[at : at + span], key=lambda row: -lengths[row])]
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    turns = rng.permutation(len(batches)) if bucket > 1 else range(len(batches))
    yield from (batches[turn] for turn in turns)
