"""A simulated expert who says which of two drafts is better, by a stored gold answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .. import seeds
from ..errors import ConfigError, DataError
from ..measure.nearness import nearness
from ..registry import register
from ..types import Annotation, Batch, Cost, Request
from .replay import Replay


@register("oracle", "judge")
@dataclass(frozen=True, kw_only=True)
class Judge:
    """Prefers the draft that is nearer to the gold answer; every gold answer that is looked at is logged in the campaign's journal.

    A draft that is the gold answer, blanks apart, is nearer than any that is not; of others, the one whose characters are more like it (see
    outlay.measure.nearness). Equally near ones: by a coin that seed and prompt fix. noise: share of the prompts on which the worse one is preferred, fixed by seed and prompt too.
    """

    judgements: ClassVar[tuple[str, ...]] = ("preferences",)

    vault: Path
    journal: Path
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise ConfigError(f"oracle 'judge', option 'noise' = {self.noise:g}: it must be a share between 0 and 1")

    def __call__(self, requests: Sequence[Request]) -> Batch:
        """One preference a request. DataError for a prompt without a gold answer, or without two drafts."""
        for request in requests:
            if len(request.drafts) != 2:
                raise DataError(f"prompt '{request.prompt.id}' has {len(request.drafts)} drafts, and oracle 'judge' compares two; set judgements: preferences")
        gold = Replay(vault=self.vault, journal=self.journal)(requests).annotations
        return Batch(tuple(self._judge(request, answer.response) for request, answer in zip(requests, gold, strict=True)), Cost(labels=len(requests)))

    def _judge(self, request: Request, gold: str) -> Annotation:
        key, (one, other) = request.prompt.id, request.drafts
        ahead = nearness(one, gold) - nearness(other, gold) or seeds.generator(self.seed, "tie", key).random() - 0.5
        if (ahead < 0) != (seeds.generator(self.seed, "flip", key).random() < self.noise):
            one, other = other, one
        return Annotation(key, "preference", chosen=one, rejected=other, annotator="judge")
