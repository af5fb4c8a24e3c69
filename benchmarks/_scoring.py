"""Scoring prompts with the engine and with what people would use instead, from the same model in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from outlay.engine.generate import generate
from outlay.engine.load import Loaded
from outlay.engine.network import EmbeddingSpec, common_prefix
from outlay.engine.render import Rendered
from outlay.measure import flops

SIGNALS = ("mean_entropy", "max_entropy", "sum_logprob", "mean_logprob", "mean_margin", "min_margin")


@dataclass
class Said:
    """What an arm says of each prompt: tokens without the end token, signals, embedding."""

    tokens: list[list[int]]
    signals: dict[str, np.ndarray] = field(default_factory=dict)
    embedding: np.ndarray | None = None


@dataclass(frozen=True)
class Job:
    """Score `rows` with at most `new` new tokens and, if asked, an embedding. ours, theirs: minibatches."""

    loaded: Loaded
    rows: list[Rendered]
    stops: frozenset[int]
    new: int
    ours: int
    theirs: int
    embedding: bool = True

    def outlay(self) -> Said:
        spec = EmbeddingSpec(normalise=False) if self.embedding else None
        out = generate(self.loaded, self.rows, stops=self.stops, max_new_tokens=self.new, minibatch=self.ours, embedding=spec)
        return Said(out.tokens, out.signals, out.embedding)

    def hf(self) -> Said:
        """generate() on left-padded minibatches of neighbouring lengths, statistics of the steps' logits, and a second forward for the embedding."""
        model, n = self.loaded.model, len(self.rows)
        said = Said([[] for _ in range(n)], {name: np.zeros(n) for name in SIGNALS}, np.zeros((n, self.loaded.arch.width)))
        order = sorted(range(n), key=lambda i: -len(self.rows[i].ids))
        for at in range(0, n, self.theirs):
            part = order[at : at + self.theirs]
            longest = max(len(self.rows[i].ids) for i in part)
            ids = torch.zeros(len(part), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for k, i in enumerate(part):
                ids[k, longest - len(self.rows[i].ids) :] = torch.tensor(self.rows[i].ids)
                mask[k, longest - len(self.rows[i].ids) :] = 1
            ids, mask = ids.to(model.device), mask.to(model.device)
            out = model.generate(
                ids, attention_mask=mask, max_new_tokens=self.new, do_sample=False, eos_token_id=sorted(self.stops), pad_token_id=0, output_scores=True, return_dict_in_generate=True
            )
            with torch.inference_mode():
                steps = []
                for scores in out.scores:
                    logp = scores.log_softmax(-1)
                    top = logp.topk(2).values
                    steps.append(torch.stack([-(logp.exp() * logp).sum(-1), top[:, 0], top[:, 0] - top[:, 1]], dim=1))
                numbers = torch.stack(steps, dim=1).cpu().numpy()
                hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                pads = [longest - len(self.rows[i].ids) for i in part]
                vectors = [hidden[k, pad + self.rows[i].user[0] : pad + self.rows[i].user[1]].float().mean(0) for k, (i, pad) in enumerate(zip(part, pads, strict=True))]
                said.embedding[part] = torch.stack(vectors).cpu().numpy()
            answers = out.sequences[:, longest:].tolist()
            for k, i in enumerate(part):
                end = next((j for j, token in enumerate(answers[k]) if token in self.stops), None)
                count = len(answers[k]) if end is None else end + 1
                said.tokens[i] = answers[k][:end]
                entropy, logp, margin = numbers[k, :count].T
                values = (entropy.mean(), entropy.max(), logp.sum(), logp.mean(), margin.mean(), margin.min())
                for name, value in zip(SIGNALS, values, strict=True):
                    said.signals[name][i] = value
        return said

    def generate_batch(self) -> Said:
        """transformers' continuous batching with the chosen tokens' log-probabilities."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        config = GenerationConfig(max_new_tokens=self.new, do_sample=False, eos_token_id=sorted(self.stops), pad_token_id=0)
        batching = ContinuousBatchingConfig(return_logprobs=True, page_size=32, num_blocks=512, max_batch_tokens=1024, max_requests_per_batch=self.theirs)
        found = self.loaded.model.generate_batch([list(r.ids) for r in self.rows], generation_config=config, continuous_batching_config=batching, warmup=False)
        answers = sorted(found.values(), key=lambda o: int(o.request_id.rsplit("_", 1)[1]))
        said = Said([], {"sum_logprob": np.zeros(len(answers))})
        for i, answer in enumerate(answers):
            new = list(answer.generated_tokens)
            said.signals["sum_logprob"][i] = sum(answer.logprobs)
            said.tokens.append(new[:-1] if new and new[-1] in self.stops else new)
        return said

    def vllm(self) -> Said:
        """Decoded by vLLM, through our backend."""
        out = generate(self.loaded, self.rows, stops=self.stops, max_new_tokens=self.new, minibatch=self.theirs, backend="vllm")
        return Said(out.tokens, out.signals)

    def tokens(self, said: Said) -> tuple[int, int]:
        """Tokens of the prompts, and generated ones with end tokens."""
        return sum(len(r.ids) for r in self.rows), sum(min(len(t) + 1, self.new) for t in said.tokens)

    def flops(self, said: Said) -> int:
        """Of our arm, a shared beginning counted once."""
        counts = [min(len(t) + 1, self.new) for t in said.tokens]
        once = (len(self.rows) - 1) * flops.forward(self.loaded.arch, [len(common_prefix(self.rows))], 0)
        return flops.scoring(self.loaded.arch, [len(r.ids) for r in self.rows], counts) - once


def compare(ours: Said, theirs: Said) -> tuple[list[int], float]:
    """Rows with other tokens, and the greatest difference of the other rows in a signal or embedding."""
    same = np.array([a == b for a, b in zip(ours.tokens, theirs.tokens, strict=True)])
    far = [np.abs(ours.signals[name] - values)[same].max(initial=0) for name, values in theirs.signals.items()]
    if ours.embedding is not None and theirs.embedding is not None:
        far.append(np.abs(ours.embedding - theirs.embedding)[same].max(initial=0))
    return np.flatnonzero(~same).tolist(), float(max(far))


def matmul_peak(size: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32, clock, tries: int = 12) -> float:
    """FLOP/s of the best of several products of square matrices. clock: seconds, after the device is done."""
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(tries):
        start = clock()
        torch.mm(a, b)
        seconds.append(clock() - start)
    return 2 * size**3 / min(seconds)
