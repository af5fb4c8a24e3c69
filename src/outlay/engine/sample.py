"""Several sampled responses to each prompt: the same tokens in any minibatch, any order of the pool, any company."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import seeds
from .load import Loaded
from .losses import longest_first
from .network import open_network
from .render import Rendered

if TYPE_CHECKING:
    import torch

CACHED = 1 << 16  # numbers of noise made at once on a CPU, so that they stay in its cache


@dataclass(frozen=True, slots=True)
class Sampled:
    """Rows are in the order of the prompts. `texts`: of each prompt its responses. `tokens`: (n, samples) how many tokens each has,
    its end token included. `ended`: (n, samples) whether it ended by itself. `logprobs`: (n, samples) its log-probability (nats) under the
    distribution it was drawn from, temperature included; 0 where it was not asked for."""

    texts: list[list[str]]
    tokens: np.ndarray
    ended: np.ndarray
    logprobs: np.ndarray


def sample(
    loaded: Loaded, prompts: Sequence[Rendered], *, stops: frozenset[int], max_new_tokens: int, minibatch: int, samples: int, temperature: float, seed: int, logprobs: bool = False
) -> Sampled:
    """`samples` responses to each prompt, from the whole distribution at this temperature. The prompt is read once for all of them.

    Token t of sample i wins a race whose noise (seed, prompt id, i, t) fix alone, see `draw`.
    """
    import torch

    if not prompts:
        return Sampled([], *(np.zeros((0, samples), dtype=kind) for kind in (np.int32, bool, np.float64)))
    texts: list[list[str]] = [[] for _ in prompts]
    counts, ended, total = (np.zeros((len(prompts), samples), dtype=kind) for kind in (np.int32, bool, np.float64))
    order, size = longest_first(prompts), max(1, minibatch // samples)
    with torch.inference_mode():
        network = open_network(loaded, prompts, None, minibatch=size * samples, room=max_new_tokens, copies=samples)
        for some in (order[at : at + size] for at in range(0, len(order), size)):
            keys = np.stack([seeds.generator(seed, "sample", prompts[row].id, i).integers(1 << 63, size=max_new_tokens) for row in some for i in range(samples)])
            logits = network.admit([prompts[row] for row in some]).logits.repeat_interleave(samples, dim=0)
            network.repeat(samples)
            said: list[list[int]] = [[] for _ in keys]
            alive, likely = np.arange(len(said)), np.zeros(len(said))
            for step in range(max_new_tokens):
                drawn = draw(logits, torch.from_numpy(keys[alive, step]).to(logits.device), temperature).cpu().numpy()
                if logprobs:
                    likely[alive] += (logits.double() / temperature).log_softmax(dim=1).cpu().numpy()[np.arange(len(alive)), drawn]
                for row, token in zip(alive, drawn.tolist(), strict=True):
                    said[row].append(token)
                going = np.array([token not in stops and step + 1 < max_new_tokens for token in drawn.tolist()])
                kept = network.keep(going)
                if not len(kept):
                    break
                alive = alive[kept]
                logits = network.step(drawn[kept]).logits
            answers = [tokens[:-1] if tokens[-1] in stops else tokens for tokens in said]
            spoken = loaded.tokenizer.batch_decode(answers, skip_special_tokens=True)
            for place, row in enumerate(some):
                own = slice(place * samples, (place + 1) * samples)
                texts[row], counts[row] = spoken[own], [len(tokens) for tokens in said[own]]
                ended[row], total[row] = [tokens[-1] in stops for tokens in said[own]], likely[own]
    return Sampled(texts, counts, ended, total)


def draw(logits: torch.Tensor, keys: torch.Tensor, temperature: float) -> torch.Tensor:
    """Tokens by the Gumbel-max trick in float64: the highest of logit / temperature + noise, so none of probability 0. (b, v), (b,) -> (b,).

    Logits that differ by rounding, as those of another minibatch or device do, give another token about as often as the probabilities
    differ. The inverse of the cumulative distribution would do so at every border between two of the vocabulary's tokens.
    """
    import torch

    rows = max(1, CACHED // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    parts = zip(logits.split(rows), keys.split(rows), strict=True)
    return torch.cat([noise(key, part.shape[1]).add_(part.double().div_(temperature)).argmax(dim=1) for part, key in parts])


def noise(keys: torch.Tensor, width: int) -> torch.Tensor:
    """Gumbel noise of each key, the same integers on every device: SplitMix64 (Steele et al. 2014) of key and column. (b,) -> (b, width)."""
    import torch

    state = keys[:, None] + torch.arange(1, width + 1, device=keys.device) * (0x9E3779B97F4A7C15 - (1 << 64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)), (31, 1)):
        state ^= (state >> shift).bitwise_and_((1 << 64 - shift) - 1)  # integers are signed: the mask makes it a shift that fills with zeros
        state *= factor
    return state.bitwise_right_shift_(12).bitwise_and_((1 << 52) - 1).double().add_(0.5).mul_(2.0**-52).log_().neg_().log_().neg_()
