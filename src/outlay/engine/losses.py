"""Cross-entropy of given responses: what training lowers and evaluation reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .hf import head_reads
from .load import Loaded
from .render import Rendered
from .statistics import check_finite

if TYPE_CHECKING:
    import torch

# Logits that response_nll keeps at once (256 MiB in float32).
MOST_LOGITS = 1 << 26


def response_nll(loaded: Loaded, pairs: Sequence[Rendered], *, minibatch: int) -> dict[str, np.ndarray]:
    """Negative log-likelihood of given responses with their end token -> "nll" (mean per token, nats), "nll_sum", "response_tokens"; (n,)."""
    import torch

    total = np.empty(len(pairs), dtype=np.float64)
    counts = np.array([len(p.ids) - p.answer for p in pairs], dtype=np.int32)
    for rows in _minibatches(pairs, minibatch, most_answers=max(1, MOST_LOGITS // loaded.arch.vocabulary)):
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
    with head_reads(model, lambda hidden: hidden[owner, position][None]):
        logits = model(input_ids=ids.to(device), use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none"), owner


def _minibatches(pairs: Sequence[Rendered], size: int, *, most_answers: int) -> Iterator[list[int]]:
    """Row numbers, longest texts first, with at most `size` rows and (where there are several) `most_answers` response tokens."""
    batch: list[int] = []
    answers = 0
    for row in longest_first(pairs):
        more = len(pairs[row].ids) - pairs[row].answer
        if batch and (len(batch) == size or answers + more > most_answers):
            yield batch
            batch, answers = [], 0
        batch.append(row)
        answers += more
    if batch:
        yield batch


def longest_first(prompts: Sequence[Rendered]) -> list[int]:
    """Row numbers. Equal lengths go by their tokens, so minibatches do not depend on the order of the rows."""
    return sorted(range(len(prompts)), key=lambda row: (-len(prompts[row].ids), prompts[row].ids, row))
