"""Several sampled responses to each prompt: the same tokens in any minibatch, any order of the pool, any company."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import seeds
from .generate import decode, minibatches, prefill
from .load import Loaded
from .render import Rendered

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Sampled:
    """Rows are in the order of the prompts. `texts`: of each prompt its responses. `tokens`: (n, samples) how many tokens each has,
    its end token included."""

    texts: list[list[str]]
    tokens: np.ndarray


def sample(
    loaded: Loaded, prompts: Sequence[Rendered], *, stops: frozenset[int], max_new_tokens: int, minibatch: int, samples: int, temperature: float, seed: int
) -> Sampled:
    """`samples` responses to each prompt, from the whole distribution at this temperature. The prompt is read once for all of them.

    Token t of sample i is where the cumulative probability passes a uniform number that (seed, prompt id, i, t) fix alone.
    """
    import torch

    texts: list[list[str]] = [[] for _ in prompts]
    counts = np.zeros((len(prompts), samples), dtype=np.int32)
    for rows in minibatches(prompts, max(1, minibatch // samples)):
        uniform = np.stack([seeds.generator(seed, "sample", prompts[row].id, i).random(max_new_tokens) for row in rows for i in range(samples)])
        said: list[list[int]] = [[] for _ in uniform]

        def choose(alive: np.ndarray, hidden: torch.Tensor, logits: torch.Tensor, uniform=uniform, said=said) -> torch.Tensor:
            token = draw(logits, torch.from_numpy(np.array([uniform[row, len(said[row])] for row in alive])).to(logits.device), temperature)
            for row, number in zip(alive, token.tolist(), strict=True):
                said[row].append(number)
            return token

        with torch.inference_mode():
            (hidden, logits, mask, cache), _ = prefill(loaded, [prompts[row] for row in rows], None, decode=True)
            cache.batch_repeat_interleave(samples)
            again = (part.repeat_interleave(samples, dim=0) for part in (hidden, logits, mask))
            decode(loaded, *again, cache, stops, max_new_tokens, choose)
        answers = [tokens[:-1] if tokens[-1] in stops else tokens for tokens in said]
        spoken = loaded.tokenizer.batch_decode(answers, skip_special_tokens=True)
        for place, row in enumerate(rows):
            own = slice(place * samples, (place + 1) * samples)
            texts[row], counts[row] = spoken[own], [len(tokens) for tokens in said[own]]
    return Sampled(texts, counts)


def draw(logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> torch.Tensor:
    """Tokens by the inverse of the cumulative distribution, in float64: no token of probability 0. (b, v), (b,) in [0, 1) -> (b,)."""
    import torch

    total = (logits.double() / temperature).softmax(dim=1).cumsum(dim=1)
    found = torch.searchsorted(total, uniform.double()[:, None] * total[:, -1:], right=True)[:, 0]
    return found.clamp(max=logits.shape[1] - 1)
