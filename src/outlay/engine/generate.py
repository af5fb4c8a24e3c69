"""Greedy decoding in minibatches, with what the model says of itself reduced token by token; and the NLL of given responses.

n prompts, b rows in a minibatch, t tokens, d hidden width, v vocabulary. All statistics are in nats, in float32, over the whole
vocabulary of the model; sums over tokens are kept in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import DataError
from ..types import Floats
from .load import Loaded
from .render import Rendered

if TYPE_CHECKING:
    import torch

    from .gradient import Sketches

# Logits that response_nll keeps at once (256 MiB in float32).
MOST_LOGITS = 1 << 26


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingSpec:
    """Which vector stands for a prompt. layer: index into Hugging Face's `hidden_states` (-1: the last, after the final norm).
    pooling: "mean" over the tokens of the user's text, or "last": the position from which the response is generated.
    normalise: to length 1."""

    layer: int = -1
    pooling: Literal["mean", "last"] = "mean"
    normalise: bool = True


@dataclass(frozen=True, slots=True)
class Generated:
    """Rows are in the order of the prompts. `tokens`: the response without its end token. `stopped`: it ended by itself.
    `signals`: (n,) float32 each, and gradient (n, s), over the generated tokens including the end token; empty without decoding. `embedding`: (n, d)."""

    tokens: list[list[int]]
    stopped: np.ndarray
    response_tokens: np.ndarray
    signals: dict[str, Floats]
    embedding: Floats | None


def generate(
    loaded: Loaded,
    prompts: Sequence[Rendered],
    *,
    stops: frozenset[int],
    max_new_tokens: int,
    minibatch: int,
    embedding: EmbeddingSpec | None = None,
    gradient: int = 0,
) -> Generated:
    """Respond to each prompt with at most `max_new_tokens` tokens (0: only embed). gradient: the width of the signal of that name
    (see gradient.py), 0 for none. Raises DataError where a number is not finite."""
    import torch

    from .gradient import Sketches

    n = len(prompts)
    tokens: list[list[int]] = [[] for _ in range(n)]
    stopped, counts = np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int32)
    signals: dict[str, Floats] = {}
    vectors = None
    for rows in minibatches(prompts, minibatch):
        with torch.inference_mode():
            state, vector = prefill(loaded, [prompts[row] for row in rows], embedding, decode=max_new_tokens > 0)
            if vector is not None:
                vectors = np.empty((n, vector.shape[1]), dtype=np.float32) if vectors is None else vectors
                vectors[rows] = vector.cpu().numpy()
            if max_new_tokens > 0:
                tally, sketches = _Tally(len(rows)), Sketches(len(rows), gradient) if gradient else None
                decode(loaded, *state, stops, max_new_tokens, partial(_greedy, tally, sketches))
                for row, ids in zip(rows, tally.tokens, strict=True):
                    stopped[row] = ids[-1] in stops
                    counts[row] = len(ids)
                    tokens[row] = ids[:-1] if stopped[row] else ids
                found = tally.signals() | ({"gradient": sketches.values()} if sketches else {})
                for name, values in found.items():
                    signals.setdefault(name, np.empty((n, *values.shape[1:]), dtype=np.float32))[rows] = values
    for name, values in [*signals.items(), ("embedding", vectors)]:
        check_finite(name, values, prompts)
    return Generated(tokens, stopped, counts, signals, vectors)


def check_finite(name: str, values: Floats | None, prompts: Sequence[Rendered]) -> None:
    """Raises DataError naming the first prompt with NaN or infinity. values: (n,) or (n, d)."""
    if values is None or np.isfinite(values).all():
        return
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    raise DataError(f"{name} of prompt '{prompts[bad[0]].id}' is not a finite number ({len(bad)} prompts); the weights may have diverged (lower the learning rate) or need dtype: float32")


def response_nll(loaded: Loaded, pairs: Sequence[Rendered], *, minibatch: int) -> dict[str, np.ndarray]:
    """Negative log-likelihood of given responses with their end token -> "nll" (mean per token, nats), "nll_sum", "response_tokens"; (n,)."""
    import torch

    total = np.empty(len(pairs), dtype=np.float64)
    counts = np.array([len(p.ids) - p.answer for p in pairs], dtype=np.int32)
    for rows in minibatches(pairs, minibatch, most_answers=max(1, MOST_LOGITS // loaded.arch.vocabulary)):
        with torch.inference_mode():
            losses, owner = token_losses(loaded.model, [pairs[row] for row in rows])
            total[rows] = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, owner.cpu(), losses.double().cpu()).numpy()
    check_finite("the NLL of the response", total, pairs)
    return {"nll": (total / np.maximum(counts, 1)).astype(np.float32), "nll_sum": total.astype(np.float32), "response_tokens": counts}


def token_losses(model, pairs: Sequence[Rendered]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy (nats) of every response token, end token included, and the row it belongs to: two (total,) tensors, row by row.

    Prompts and padding get no loss: the LM head is applied only at the positions that predict response tokens.
    """
    import torch

    device = next(model.parameters()).device
    longest = max(len(p.ids) for p in pairs)
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    predicting = torch.zeros(len(pairs), longest, dtype=torch.bool)
    for i, pair in enumerate(pairs):
        ids[i, : len(pair.ids)] = torch.tensor(pair.ids)
        predicting[i, pair.answer - 1 : len(pair.ids) - 1] = True
    owner, position = predicting.nonzero(as_tuple=True)
    targets = ids[owner, position + 1].to(device)
    # Padding is on the right and attention is causal: no real token can see it, so no mask is needed.
    with _head_reads(model, lambda hidden: hidden[owner, position][None]):
        logits = model(input_ids=ids.to(device), use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none"), owner


def minibatches(prompts: Sequence[Rendered], size: int, *, most_answers: int | None = None) -> Iterator[list[int]]:
    """Row numbers, longest texts first. Equal lengths go by their tokens, so minibatches do not depend on the order of the rows."""
    order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row].ids), prompts[row].ids, row))
    batch: list[int] = []
    answers = 0
    for row in order:
        more = len(prompts[row].ids) - prompts[row].answer
        if batch and (len(batch) == size or (most_answers is not None and answers + more > most_answers)):
            yield batch
            batch, answers = [], 0
        batch.append(row)
        answers += more
    if batch:
        yield batch


@contextmanager
def _head_reads(model, choose: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within the block the LM head gets only `choose(hidden)` of the hidden states (b, t, d) after the final norm.

    A hook, because scaling and soft-capping of the logits, which differ between families, then stay in the model's own code.
    """
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (choose(inputs[0]),))
    try:
        yield
    finally:
        handle.remove()


def prefill(loaded: Loaded, prompts: Sequence[Rendered], spec: EmbeddingSpec | None, *, decode: bool):
    """Read left-padded prompts -> ((hidden state (b, d) and logits (b, v) at the last position, mask (b, t), cache), embedding (b, d) or None)."""
    import torch
    from transformers import DynamicCache

    longest = max(len(p.ids) for p in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    users = torch.zeros(len(prompts), longest)
    for i, prompt in enumerate(prompts):
        pad = longest - len(prompt.ids)
        ids[i, pad:] = torch.tensor(prompt.ids)
        mask[i, pad:] = 1
        users[i, pad + prompt.user[0] : pad + prompt.user[1]] = 1
    device = loaded.model.device
    ids, mask, users = ids.to(device), mask.to(device), users.to(device)
    cache = DynamicCache(config=loaded.model.config) if decode else None
    seen = []

    def last_position(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(hidden)
        return hidden[:, -1:] if decode else hidden[:, :0]

    deeper = spec is not None and spec.layer != -1
    with _head_reads(loaded.model, last_position):
        out = loaded.model(
            input_ids=ids, attention_mask=mask, position_ids=_positions(mask), past_key_values=cache, use_cache=decode, output_hidden_states=deeper
        )
    vector = None
    if spec is not None:
        hidden = (out.hidden_states[spec.layer] if deeper else seen[0]).float()
        vector = hidden[:, -1] if spec.pooling == "last" else torch.einsum("btd,bt->bd", hidden, users) / users.sum(1, keepdim=True)
        if spec.normalise:
            vector = torch.nn.functional.normalize(vector, dim=1)
    return (seen[0][:, -1].clone(), out.logits[:, -1] if decode else None, mask, cache), vector  # a view would keep all positions


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """Positions count real tokens only, so that padding on the left shifts nothing. (b, t) -> (b, t)."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def decode(
    loaded: Loaded, hidden: torch.Tensor, logits: torch.Tensor, mask: torch.Tensor, cache, stops: frozenset[int], max_new_tokens: int,
    choose: Callable[[np.ndarray, torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:  # fmt: skip
    """Go on from what `prefill` returned. At every step `choose` gets the rows (b,) that have not ended, what the LM head read there
    (b, d) and the logits (b, v), and returns the next tokens (b,). Rows that have ended leave the minibatch."""
    import torch

    def read(states: torch.Tensor) -> torch.Tensor:
        nonlocal hidden
        hidden = states[:, -1]
        return states

    alive = np.arange(len(logits))
    ends = torch.tensor(sorted(stops), device=logits.device)
    with _head_reads(loaded.model, read):
        for step in range(max_new_tokens):
            token = choose(alive, hidden, logits)
            going = ~torch.isin(token, ends)
            if step + 1 == max_new_tokens or not going.any():
                break
            if not going.all():
                keep = going.nonzero(as_tuple=True)[0]
                cache.batch_select_indices(keep)
                token, mask, alive = token[keep], mask[keep], alive[keep.cpu().numpy()]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = loaded.model(
                input_ids=token[:, None], attention_mask=mask, position_ids=mask.sum(1, keepdim=True) - 1, past_key_values=cache, use_cache=True
            ).logits[:, -1]


def _greedy(tally: _Tally, sketches: Sketches | None, rows: np.ndarray, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The likeliest tokens, noted down."""
    token, statistics = token_statistics(logits)
    tally.add(rows, token.cpu().numpy(), statistics.double().cpu().numpy())
    if sketches is not None:
        sketches.add(rows, token, hidden, logits)
    return token


def token_statistics(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(b, v) -> the likeliest token (b,), and (b, 3): entropy, its log-probability, log p1 - log p2 (nats).

    Entropy as log Z - sum(e^(x-m) (x-m)) / Z: the usual log Z - sum(p x) cancels and loses three digits.
    """
    import torch

    top, token = logits.float().max(dim=1)
    x = logits.float() - top[:, None]
    e = x.exp()
    z = e.sum(1)
    entropy = z.log() - torch.einsum("bv,bv->b", e, x) / z
    second = x.scatter(1, token[:, None], -torch.inf).amax(1)
    return token, torch.stack([entropy, -z.log(), -second], dim=1)


class _Tally:
    """Running sums and extremes of token statistics for the rows of one minibatch."""

    def __init__(self, rows: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.sums = np.zeros((rows, 3))
        self.most_entropy = np.full(rows, -np.inf)
        self.least_margin = np.full(rows, np.inf)

    def add(self, rows: np.ndarray, tokens: np.ndarray, statistics: np.ndarray) -> None:
        """One more token for these rows; statistics: (rows, 3) as from token_statistics."""
        for row, token in zip(rows, tokens.tolist(), strict=True):
            self.tokens[row].append(token)
        self.sums[rows] += statistics
        self.most_entropy[rows] = np.maximum(self.most_entropy[rows], statistics[:, 0])
        self.least_margin[rows] = np.minimum(self.least_margin[rows], statistics[:, 2])

    def signals(self) -> dict[str, Floats]:
        means = self.sums / np.array([len(t) for t in self.tokens])[:, None]
        return {
            "mean_entropy": means[:, 0], "max_entropy": self.most_entropy,
            "sum_logprob": self.sums[:, 1], "mean_logprob": means[:, 1],
            "mean_margin": means[:, 2], "min_margin": self.least_margin,
        }  # fmt: skip
