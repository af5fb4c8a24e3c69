"""Annotators who err: stored gold answers, some replaced by wrong ones. For simulated campaigns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from .. import seeds
from ..errors import ConfigError, DataError
from ..registry import register
from ..types import Annotation, Batch, Request
from .human import check, settled
from .replay import Replay


@register("oracle", "noisy")
@dataclass(frozen=True, kw_only=True)
class Noisy:
    """Several annotators of unlike quality: the gold answer, or with each one's rate of errors the gold answer of another prompt.

    errors: annotator -> share of wrong answers. skips: share of the prompts that everybody skips. per_item: how many of the annotators
    judge a prompt, drawn for each prompt anew. settle: the rule for their disagreement. The same seed errs on the same prompts.
    seconds: what a judgement takes on average, with `per_100_characters` more for 100 characters of the prompt; single ones scatter around
    it (lognormal, `spread` the standard deviation of the logarithm). 0: no time is taken.
    """

    vault: Path
    journal: Path
    errors: dict[str, float] = field(default_factory=lambda: {"annotator": 0.1})
    skips: float = 0.0
    per_item: int = 1
    settle: str = "majority"
    seed: int = 0
    seconds: float = 0.0
    per_100_characters: float = 0.0
    spread: float = 0.5

    def __post_init__(self) -> None:
        check("noisy", self.settle, self.per_item)
        for name, rate in {**self.errors, "skips": self.skips}.items():
            if not 0 <= rate <= 1:
                raise ConfigError(f"oracle 'noisy': the rate of '{name}' is {rate:g}; it must be a share between 0 and 1")
        if self.per_item > len(self.errors):
            raise ConfigError(f"oracle 'noisy': {self.per_item} judgements a prompt need as many annotators, and 'errors' names {len(self.errors)}")

    def __call__(self, requests: Sequence[Request]) -> Batch:
        """One settled annotation a request; every judgement that is no skip is paid."""
        gold = {a.prompt_id: a.response for a in Replay(vault=self.vault, journal=self.journal)(requests).annotations}
        length = {r.prompt.id: len(r.prompt.text) for r in requests}
        judgements = {key: [self._timed(self._judge(name, key, answer), length[key]) for name in self._on_duty(key)] for key, answer in gold.items()}
        return settled(judgements, self.settle)

    def _on_duty(self, key: str) -> list[str]:
        names = sorted(self.errors)
        return [names[i] for i in seeds.generator(self.seed, "on duty", key).permutation(len(names))[: self.per_item]]

    def _timed(self, a: Annotation, characters: int) -> Annotation:
        mean = self.seconds + self.per_100_characters * characters / 100
        if not mean:
            return a
        drawn = seeds.generator(self.seed, "seconds", a.annotator, a.prompt_id).standard_normal()
        return replace(a, seconds=round(mean * math.exp(self.spread * drawn - self.spread**2 / 2), 3))

    def _judge(self, name: str, key: str, answer: str) -> Annotation:
        if seeds.generator(self.seed, "skip", key).random() < self.skips:
            return Annotation(key, "skip", annotator=name)
        rng = seeds.generator(self.seed, "error", name, key)
        return Annotation(key, response=self._wrong(answer, rng) if rng.random() < self.errors[name] else answer, annotator=name)

    def _wrong(self, answer: str, rng: np.random.Generator) -> str:
        others = [other for other in _answers(self.vault) if other != answer]
        if not others:
            raise DataError("oracle 'noisy': all gold answers of the pool are the same, so there is no wrong one; use oracle replay")
        return others[int(rng.integers(len(others)))]


@cache
def _answers(vault: Path) -> list[str]:
    """The different gold answers of the vault, sorted."""
    import pyarrow.parquet as pq

    return sorted({answer for answer in pq.read_table(vault, columns=["response"]).column("response").to_pylist() if answer.strip()})
