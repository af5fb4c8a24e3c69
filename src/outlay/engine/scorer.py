"""What the model says of every prompt of a pool."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import ConfigError, near
from ..measure import flops
from ..measure.bleu import bleu_variance
from ..pairing import pair_of
from ..registry import register
from ..types import Cost, Model, Pairs, Pool, Prompt, Signals
from .load import Loaded, arch, load
from .runtime import Backend, Runtime
from .vllm_backend import GIVES

if TYPE_CHECKING:
    from .render import Format, Rendered
    from .sample import Sampled

DECODED = frozenset({"mean_entropy", "max_entropy", "sum_logprob", "mean_logprob", "mean_margin", "min_margin", "gradient"})  # of the greedy response
SAMPLED = frozenset({"bleu_variance", "sample_entropy", "reward_gap"})  # of sampled ones


@register("scorer", "llm")
@dataclass(frozen=True, kw_only=True)
class LLMScorer:
    """The model answers each prompt greedily; its own uncertainty about those tokens, and an embedding of the prompt, in one pass.

    Entropy, log-probability and margin (log p1 - log p2) are in nats, over the whole vocabulary, at every generated token
    including the end token; mean, max, min and sum are over the tokens of one response. runtime: see Runtime. max_new_tokens:
    where responses are cut off. layer, pooling, normalise: the embedding, see EmbeddingSpec.

    gradient: what that response would change in the LM head, sketched to gradient_width numbers, see gradient.py. bleu_variance: how
    much `samples` responses drawn at this temperature differ (0 to 1, see measure/bleu.py); a pass of its own, which only the next two share.
    sample_entropy: their mean negative log-probability (nats), an estimate of the entropy of the model's answer to the prompt. reward_gap: by how
    many nats the implicit rewards of the two that would be shown as drafts (see outlay.pairing) lie apart, before the trainer's beta multiplies
    all of them; 0 for the untouched base, and where there are no two.

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
        """The columns `needs`; always prompt_tokens and response_tokens (int32; 0 where nothing was decoded greedily), and where responses
        were sampled sampled_tokens, (n, samples). `seed` is that of the sampled responses. Raises ConfigError for an unknown signal,
        DataError naming the prompt for one that is not a number."""
        self._check(needs)
        from .generate import EmbeddingSpec, generate
        from .render import format_of, prompts
        from .reward import reading

        with self.runtime.active():
            loaded = load(model, self.runtime)
            start = time.perf_counter()
            form = format_of(loaded, self.runtime.template)
            room = self.max_new_tokens if needs & DECODED else 0
            rendered = prompts(loaded, form, pool.ids, pool.texts, room=self.max_new_tokens if needs & (DECODED | SAMPLED) else 0)
            spec = EmbeddingSpec(layer=self.layer, pooling=self.pooling, normalise=self.normalise) if "embedding" in needs else None
            lengths = np.array([len(p.ids) for p in rendered], dtype=np.int32)
            columns: dict[str, np.ndarray] = {"prompt_tokens": lengths, "response_tokens": np.zeros_like(lengths)}
            how, read = {"stops": form.stops, "minibatch": self.runtime.minibatch}, np.zeros((0, 2), dtype=np.int64)
            if needs - SAMPLED:
                width = self.gradient_width if "gradient" in needs else 0
                out = generate(loaded, rendered, max_new_tokens=room, embedding=spec, gradient=width, backend=self.backend, **how)
                columns["response_tokens"] = out.response_tokens
                columns |= {name: values for name, values in out.signals.items() if name in needs}
                if out.embedding is not None:
                    columns["embedding"] = out.embedding
            if _drawn(model, needs):
                said = self._sample(loaded, rendered, form, seed, logprobs="sample_entropy" in needs)
                columns["sampled_tokens"] = said.tokens
                if "bleu_variance" in needs:
                    columns["bleu_variance"] = np.array([bleu_variance(texts) for texts in said.texts], dtype=np.float32)
                if "sample_entropy" in needs:
                    columns["sample_entropy"] = -said.logprobs.mean(axis=1).astype(np.float32)
            if "reward_gap" in needs:
                columns["reward_gap"] = np.zeros(len(lengths), dtype=np.float32)
                if model.weights:
                    columns["reward_gap"], read = self._gaps(model, loaded, form, pool, said)
            widths = {"embedding": loaded.arch.width, "gradient": self.gradient_width}
            for name in needs - columns.keys():  # an empty pool
                columns[name] = np.zeros((0, widths[name]) if name in widths else 0, dtype=np.float32)
            cost = self.bill(model, columns, needs) + Cost(flops=reading(loaded.arch, read), prompt_tokens=2 * int(read[:, 0].sum()))
            cost = replace(cost, seconds=time.perf_counter() - start)
        return Signals(columns, live=frozenset(columns), cost=cost)

    def pairs(self, model: Model, prompts: Sequence[Prompt], *, seed: int) -> Pairs:
        """Two drafts of each prompt, out of the same `samples` responses that a call with this seed draws (see outlay.pairing.pair_of)."""
        from .render import format_of
        from .render import prompts as rendered

        with self.runtime.active():
            loaded = load(model, self.runtime)
            start = time.perf_counter()
            form = format_of(loaded, self.runtime.template)
            asked = rendered(loaded, form, [p.id for p in prompts], [p.text for p in prompts], room=self.max_new_tokens)
            said = self._sample(loaded, asked, form, seed)
            places = [pair_of(texts, ended) for texts, ended in zip(said.texts, said.ended, strict=True)]
            lengths = [len(p.ids) for p in asked]
            cost = Cost(flops=flops.sampling(loaded.arch, lengths, said.tokens), prompt_tokens=sum(lengths), generated_tokens=int(said.tokens.sum()))
            cost = replace(cost, seconds=time.perf_counter() - start)
        drafts = {p.id: (texts[two[0]].strip(), texts[two[1]].strip()) for p, texts, two in zip(prompts, said.texts, places, strict=True) if two}
        return Pairs(drafts, tuple(p.id for p in prompts if p.id not in drafts), cost)

    def _sample(self, loaded: Loaded, asked: Sequence[Rendered], form: Format, seed: int, *, logprobs: bool = False) -> Sampled:
        from .sample import sample

        how = {"samples": self.samples, "temperature": self.temperature, "seed": seed, "logprobs": logprobs}
        return sample(loaded, asked, stops=form.stops, max_new_tokens=self.max_new_tokens, minibatch=self.runtime.minibatch, **how)

    def _gaps(self, model: Model, loaded: Loaded, form: Format, pool: Pool, said: Sampled) -> tuple[np.ndarray, np.ndarray]:
        """(n,) reward gaps, and (2 x prompts with two drafts, 2) the tokens that were read for them."""
        from .reward import log_ratios

        places = [pair_of(texts, ended) for texts, ended in zip(said.texts, said.ended, strict=True)]
        rows = [row for row, two in enumerate(places) if two]
        ids, texts = pool.ids, pool.texts
        responses = [said.texts[row][place].strip() for row in rows for place in places[row]]
        found = log_ratios(model, loaded, form, self.runtime, [ids[row] for row in rows for _ in range(2)], [texts[row] for row in rows for _ in range(2)], responses)
        gaps = np.zeros(len(places), dtype=np.float32)
        gaps[rows] = np.abs(found.nats[::2] - found.nats[1::2])
        return gaps, found.tokens

    def bill(self, model: Model, counts: Mapping[str, np.ndarray], needs: frozenset[str]) -> Cost:
        """Tokens and FLOPs of scoring only these rows for only these signals, whatever the passes that scored them did besides, and but
        for the two readings of each draft that a trained model's reward_gap takes. counts: prompt_tokens, response_tokens (n,), and where
        responses are sampled sampled_tokens (n, samples)."""
        self._check(needs)
        sizes, lengths = arch(model.base), np.asarray(counts["prompt_tokens"])
        greedy, cost = np.asarray(counts["response_tokens"]) if needs & DECODED else np.zeros_like(lengths), Cost()
        if needs - SAMPLED:
            cost += Cost(flops=flops.scoring(sizes, lengths, greedy), prompt_tokens=int(lengths.sum()), generated_tokens=int(greedy.sum()))
        if self.backend == "vllm" and "embedding" in needs and needs & DECODED:
            cost += Cost(flops=flops.scoring(sizes, lengths, np.zeros_like(lengths)), prompt_tokens=int(lengths.sum()))
        if "gradient" in needs:
            cost += Cost(flops=flops.sketching(sizes, int(greedy.sum()), self.gradient_width))
        if _drawn(model, needs):
            drawn = np.asarray(counts["sampled_tokens"])
            cost += Cost(flops=flops.sampling(sizes, lengths, drawn), prompt_tokens=int(lengths.sum()), generated_tokens=int(drawn.sum()))
        return cost

    def _check(self, needs: Iterable[str]) -> None:
        for name in sorted(needs):
            if name not in self.provides and name in DECODED | SAMPLED:
                raise ConfigError(f"scorer 'llm' with backend 'vllm' gives no signal '{name}': vLLM returns no more than the likeliest tokens' log-probabilities. It gives {', '.join(sorted(self.provides))}; ask for one of these, or use backend: torch")
            if name not in self.provides:
                raise ConfigError(f"scorer 'llm' gives no signal '{name}'; {near(name, self.provides)}")


def _drawn(model: Model, needs: frozenset[str]) -> frozenset[str]:
    """The signals for which responses are sampled: the untouched base is its own reference, so its reward gaps are 0 without."""
    return needs & SAMPLED if model.weights else needs & SAMPLED - {"reward_gap"}
