"""Pairs of drafts whose better one is known: does a model that learned from preferences order them so?"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import seeds
from ..engine.runtime import Runtime
from ..engine.scorer import LLMScorer
from ..errors import DataError
from ..measure.nearness import nearness
from ..registry import register
from ..store import fingerprint
from ..types import Cost, Evaluation, Model, Prompt
from .heldout import read_items


@register("evaluator", "draft_order")
@dataclass(frozen=True, kw_only=True)
class DraftOrder:
    """Share of the held-out items of which the implicit reward is higher for the draft that is nearer to the gold response (see outlay.measure.nearness).

    Two drafts of each item are sampled from the untouched base, the same ones for every model trained from it; items without two different
    drafts, or with two that are equally near, are left out. The base gives both the same reward: for it a coin decides, so it is right on about half.
    benchmark: the name in the results. items: a parquet file with the string columns id, text, group, response. runtime: see Runtime.
    max_new_tokens, samples, temperature: as in the scorer.
    """

    benchmark: str
    items: Path
    runtime: Runtime = field(default_factory=Runtime)
    max_new_tokens: int = 32
    samples: int = 5
    temperature: float = 1.0

    def __call__(self, model: Model, *, seed: int = 0) -> Evaluation:
        """Columns, (n_items,): id, group, correct, margin (nats: log-ratio of the nearer draft minus that of the other). `seed` is not used."""
        from ..engine.load import arch, load
        from ..engine.render import format_of
        from ..engine.reward import log_ratios, reading

        start = time.perf_counter()
        known, drafting = _known(self, model.base)
        ids, groups = ([getattr(p, name) for p, _, _ in known] for name in ("id", "group"))
        margin, cost = np.zeros(len(known)), drafting
        if model.weights:
            with self.runtime.active():
                loaded = load(model, self.runtime)
                texts, sides = [p.text for p, _, _ in known for _ in range(2)], [d for _, near, far in known for d in (near, far)]
                found = log_ratios(model, loaded, format_of(loaded, self.runtime.template), self.runtime, [i for i in ids for _ in range(2)], texts, sides)
            margin = found.nats[::2] - found.nats[1::2]
            cost += Cost(flops=reading(arch(model.base), found.tokens), prompt_tokens=2 * int(found.tokens[:, 0].sum()))
        coin = seeds.lottery(0, ids, "draft_order") < 0.5
        columns = {"id": np.array(ids, dtype=np.str_), "group": np.array(groups, dtype=np.str_), "correct": np.where(margin == 0, coin, margin > 0), "margin": margin}
        return Evaluation(self.benchmark, fingerprint([[p.id, near, far] for p, near, far in known]), columns, replace(cost, seconds=time.perf_counter() - start))


@lru_cache(maxsize=4)
def _known(test: DraftOrder, base: str) -> tuple[list[tuple[Prompt, str, str]], Cost]:
    """(item, nearer draft, other draft) of the items of which that is known, and what drafting cost. All models of a base have the same ones."""
    items = read_items(test.items, test.benchmark)
    prompts = [Prompt(*row) for row in zip(items["id"], items["text"], items["group"], strict=True)]
    scorer = LLMScorer(runtime=test.runtime, max_new_tokens=test.max_new_tokens, samples=test.samples, temperature=test.temperature)
    drawn = scorer.pairs(Model(base), prompts, seed=0)
    known = []
    for prompt, gold in zip(prompts, items["response"], strict=True):
        near, far = sorted(drawn.drafts.get(prompt.id, ("", "")), key=lambda draft: -nearness(draft, gold))
        if nearness(near, gold) > nearness(far, gold):
            known.append((prompt, near, far))
    if not known:
        raise DataError(f"benchmark '{test.benchmark}': none of {len(prompts)} items has two drafts of which one is nearer to the gold response; raise samples or temperature")
    return known, drawn.cost
