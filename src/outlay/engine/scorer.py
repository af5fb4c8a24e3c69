"""What the model says of every prompt of a pool."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ..errors import ConfigError, near
from ..measure import flops
from ..measure.bleu import bleu_variance
from ..registry import register
from ..types import Cost, Model, Pool, Signals
from .load import arch, load
from .runtime import Backend, Runtime
from .vllm_backend import GIVES

DECODED = frozenset({"mean_entropy", "max_entropy", "sum_logprob", "mean_logprob", "mean_margin", "min_margin", "gradient"})  # of the greedy response
SAMPLED = frozenset({"bleu_variance"})  # of sampled ones


@register("scorer", "llm")
@dataclass(frozen=True, kw_only=True)
class LLMScorer:
    """The model answers each prompt greedily; its own uncertainty about those tokens, and an embedding of the prompt, in one pass.

    Entropy, log-probability and margin (log p1 - log p2) are in nats, over the whole vocabulary, at every generated token
    including the end token; mean, max, min and sum are over the tokens of one response. runtime: see Runtime. max_new_tokens:
    where responses are cut off. layer, pooling, normalise: the embedding, see EmbeddingSpec.

    gradient: what that response would change in the LM head, sketched to gradient_width numbers, see gradient.py. bleu_variance: how
    much `samples` responses drawn at this temperature differ (0 to 1, see measure/bleu.py); a pass of its own, which no other signal pays.

    backend: "vllm" lets vLLM decode. It gives log-probability and margin; the embedding then is a second pass over the prompts, ours.
    """

    runtime: Runtime = field(default_factory=Runtime)
    max_new_tokens: int = 32
    layer: int = -1
    pooling: Literal["mean", "last"] = "mean"
    normalise: bool = True
    gradient_width: int = 512
    samples: int = 5
    temperature: float = 1.0
    backend: Backend = "torch"

    def __post_init__(self) -> None:
        for name, least in {"max_new_tokens": 1, "gradient_width": 2, "samples": 2}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"scorer 'llm', option '{name}' = {getattr(self, name)}: it must be at least {least}")
        if not self.temperature > 0:
            raise ConfigError(f"scorer 'llm', option 'temperature' = {self.temperature}: it must be above 0; at 0 all samples would be the greedy response")

    @property
    def provides(self) -> frozenset[str]:
        """The signals that can be asked for."""
        return (GIVES if self.backend == "vllm" else DECODED | SAMPLED) | {"embedding"}

    def __call__(self, model: Model, pool: Pool, needs: frozenset[str], *, seed: int = 0) -> Signals:
        """The columns `needs`; always prompt_tokens and response_tokens (int32; 0 where nothing was decoded greedily), and for
        bleu_variance sampled_tokens, (n, samples). `seed` is that of the sampled responses. Raises ConfigError for an unknown signal,
        DataError naming the prompt for one that is not a number."""
        self._check(needs)
        from .generate import EmbeddingSpec, generate
        from .render import format_of, prompts
        from .sample import sample

        with self.runtime.active():
            loaded = load(model, self.runtime)
            start = time.perf_counter()
            form = format_of(loaded, self.runtime.template)
            room = self.max_new_tokens if needs & DECODED else 0
            rendered = prompts(loaded, form, pool.ids, pool.texts, room=self.max_new_tokens if needs & (DECODED | SAMPLED) else 0)
            spec = EmbeddingSpec(layer=self.layer, pooling=self.pooling, normalise=self.normalise) if "embedding" in needs else None
            lengths = np.array([len(p.ids) for p in rendered], dtype=np.int32)
            columns: dict[str, np.ndarray] = {"prompt_tokens": lengths, "response_tokens": np.zeros_like(lengths)}
            how = {"stops": form.stops, "minibatch": self.runtime.minibatch}
            if needs - SAMPLED:
                width = self.gradient_width if "gradient" in needs else 0
                out = generate(loaded, rendered, max_new_tokens=room, embedding=spec, gradient=width, backend=self.backend, **how)
                columns["response_tokens"] = out.response_tokens
                columns |= {name: values for name, values in out.signals.items() if name in needs}
                if out.embedding is not None:
                    columns["embedding"] = out.embedding
            if needs & SAMPLED:
                said = sample(loaded, rendered, max_new_tokens=self.max_new_tokens, samples=self.samples, temperature=self.temperature, seed=seed, **how)
                columns["sampled_tokens"] = said.tokens
                columns["bleu_variance"] = np.array([bleu_variance(texts) for texts in said.texts], dtype=np.float32)
            widths = {"embedding": loaded.arch.width, "gradient": self.gradient_width}
            for name in needs - columns.keys():  # an empty pool
                columns[name] = np.zeros((0, widths[name]) if name in widths else 0, dtype=np.float32)
            cost = replace(self.bill(model, columns, needs), seconds=time.perf_counter() - start)
        return Signals(columns, live=frozenset(columns), cost=cost)

    def bill(self, model: Model, counts: Mapping[str, np.ndarray], needs: frozenset[str]) -> Cost:
        """Tokens and FLOPs of scoring only these rows for only these signals, whatever the passes that scored them did besides.
        counts: prompt_tokens, response_tokens (n,), and for bleu_variance sampled_tokens (n, samples)."""
        self._check(needs)
        sizes, lengths = arch(model.base), np.asarray(counts["prompt_tokens"])
        greedy, cost = np.asarray(counts["response_tokens"]) if needs & DECODED else np.zeros_like(lengths), Cost()
        if needs - SAMPLED:
            cost += Cost(flops=flops.scoring(sizes, lengths, greedy), prompt_tokens=int(lengths.sum()), generated_tokens=int(greedy.sum()))
        if self.backend == "vllm" and "embedding" in needs and needs & DECODED:
            cost += Cost(flops=flops.scoring(sizes, lengths, np.zeros_like(lengths)), prompt_tokens=int(lengths.sum()))
        if "gradient" in needs:
            cost += Cost(flops=flops.sketching(sizes, int(greedy.sum()), self.gradient_width))
        if needs & SAMPLED:
            drawn = np.asarray(counts["sampled_tokens"])
            cost += Cost(flops=flops.sampling(sizes, lengths, drawn), prompt_tokens=int(lengths.sum()), generated_tokens=int(drawn.sum()))
        return cost

    def _check(self, needs: Iterable[str]) -> None:
        for name in sorted(needs):
            if name not in self.provides and name in DECODED | SAMPLED:
                raise ConfigError(f"scorer 'llm' with backend 'vllm' gives no signal '{name}': vLLM returns no more than the likeliest tokens' log-probabilities. It gives {', '.join(sorted(self.provides))}; ask for one of these, or use backend: torch")
            if name not in self.provides:
                raise ConfigError(f"scorer 'llm' gives no signal '{name}'; {near(name, self.provides)}")
