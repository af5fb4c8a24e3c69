"""What the model says of every prompt of a pool."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from ..errors import ConfigError, near
from ..measure import flops
from ..registry import register
from ..types import Cost, Model, Pool, Signals
from .load import arch, load
from .runtime import Runtime

DECODED = frozenset({"mean_entropy", "max_entropy", "sum_logprob", "mean_logprob", "mean_margin", "min_margin"})


@register("scorer", "llm")
@dataclass(frozen=True, kw_only=True)
class LLMScorer:
    """The model answers each prompt greedily; its own uncertainty about those tokens, and an embedding of the prompt, in one pass.

    Entropy, log-probability and margin (log p1 - log p2) are in nats, over the whole vocabulary, at every generated token
    including the end token; mean, max, min and sum are over the tokens of one response. runtime: see Runtime. max_new_tokens:
    where responses are cut off. layer, pooling, normalise: the embedding, see EmbeddingSpec.
    """

    provides: ClassVar[frozenset[str]] = DECODED | {"embedding"}

    runtime: Runtime = field(default_factory=Runtime)
    max_new_tokens: int = 32
    layer: int = -1
    pooling: Literal["mean", "last"] = "mean"
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"scorer 'llm', option 'max_new_tokens' = {self.max_new_tokens}: it must be at least 1")

    def __call__(self, model: Model, pool: Pool, needs: frozenset[str], *, seed: int = 0) -> Signals:
        """The columns `needs`, and always prompt_tokens and response_tokens (int32; 0 where nothing was decoded). `seed` is not used:
        decoding is greedy. Raises ConfigError for an unknown signal, DataError naming the prompt for one that is not a number."""
        self._check(needs)
        from .generate import EmbeddingSpec, generate
        from .render import format_of, prompts

        with self.runtime.active():
            loaded = load(model, self.runtime)
            start = time.perf_counter()
            form = format_of(loaded, self.runtime.template)
            room = self.max_new_tokens if needs & DECODED else 0
            rendered = prompts(loaded, form, pool.ids, pool.texts, room=room)
            spec = EmbeddingSpec(layer=self.layer, pooling=self.pooling, normalise=self.normalise) if "embedding" in needs else None
            lengths = np.array([len(p.ids) for p in rendered], dtype=np.int32)
            columns: dict[str, np.ndarray] = {"prompt_tokens": lengths, "response_tokens": np.zeros_like(lengths)}
            if needs:
                out = generate(loaded, rendered, stops=form.stops, max_new_tokens=room, minibatch=self.runtime.minibatch, embedding=spec)
                columns["response_tokens"] = out.response_tokens
                columns |= {name: values for name, values in out.signals.items() if name in needs}
                if spec is not None:
                    columns["embedding"] = out.embedding if out.embedding is not None else np.zeros((0, loaded.arch.width), dtype=np.float32)
            for name in needs - columns.keys():
                columns[name] = np.zeros(0, dtype=np.float32)  # an empty pool
            read = int(lengths.sum()) if needs else 0
            cost = Cost(
                seconds=time.perf_counter() - start,
                flops=self.price(model, lengths, columns["response_tokens"], needs),
                prompt_tokens=read,
                generated_tokens=int(columns["response_tokens"].sum()),
            )
        return Signals(columns, live=frozenset(columns), cost=cost)

    def price(self, model: Model, prompt_tokens: Iterable[int], response_tokens: Iterable[int], needs: frozenset[str]) -> int:
        """FLOPs of scoring only these rows for only these signals, whatever the pass that scored them did besides."""
        self._check(needs)
        if not needs:
            return 0
        prompt_tokens = np.asarray(prompt_tokens)
        decoded = np.asarray(response_tokens) if needs & DECODED else np.zeros(len(prompt_tokens), dtype=np.int64)
        return flops.scoring(arch(model.base), prompt_tokens, decoded)

    def _check(self, needs: Iterable[str]) -> None:
        for name in sorted(needs):
            if name not in self.provides:
                raise ConfigError(f"scorer 'llm' gives no signal '{name}'; {near(name, self.provides)}")
