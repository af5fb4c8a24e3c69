"""Any decoder-only Hugging Face model through its own forward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from .load import Loaded
from .network import EmbeddingSpec, Step
from .render import Rendered

if TYPE_CHECKING:
    import torch


class HFNetwork:
    """Left-padded minibatches through the model's own forward. Rows that have ended leave; new ones enter when all have."""

    refills = False

    def __init__(self, loaded: Loaded, prefix: Sequence[int], spec: EmbeddingSpec | None, *, decode: bool) -> None:
        import torch

        self.model, self.spec, self.decode = loaded.model, spec, decode
        self.prefix = None
        self.prefix_hidden = torch.zeros(0, loaded.arch.width, device=self.model.device)
        self.length = 0
        if prefix and _windowless(self.model):
            self.length = len(prefix)
            self.prefix = self._cache()
            ids = torch.tensor([list(prefix)], device=self.model.device)
            _, hidden, layer = self._forward(ids, torch.ones_like(ids), self.prefix, last_only=True)
            self.prefix_hidden = (hidden if layer is None else layer)[0]

    def admit(self, prompts: Sequence[Rendered]) -> Step:
        """Read these prompts; they become the rows."""
        import torch

        tails = [p.ids[self.length :] for p in prompts]
        longest = max(map(len, tails))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros(len(prompts), self.length + longest, dtype=torch.long)
        mask[:, : self.length] = 1
        for i, tail in enumerate(tails):
            pad = longest - len(tail)
            ids[i, pad:] = torch.tensor(tail)
            mask[i, self.length + pad :] = 1
        device = self.model.device
        self.mask = mask.to(device)
        self.cache = None
        if self.prefix is not None:
            self.cache = copy.deepcopy(self.prefix)
            self.cache.batch_repeat_interleave(len(prompts))
        elif self.decode:
            self.cache = self._cache()
        logits, hidden, layer = self._forward(ids.to(device), self.mask, self.cache, last_only=True)
        vectors = None
        if self.spec is not None:
            deep = hidden if layer is None else layer
            vectors = torch.stack([self.spec.pool(prompt, deep[i, -len(tail) :], self.prefix_hidden) for i, (prompt, tail) in enumerate(zip(prompts, tails, strict=True))])
        return Step(hidden[:, -1], logits, vectors)

    def step(self, tokens: np.ndarray) -> Step:
        """Read one more token of each row. (b,)"""
        import torch

        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        logits, hidden, _ = self._forward(torch.as_tensor(tokens, device=self.mask.device)[:, None], self.mask, self.cache, last_only=True)
        return Step(hidden[:, -1], logits)

    def keep(self, going: np.ndarray) -> np.ndarray:
        """Only these rows go on: (b,) bool -> their numbers in the new order."""
        import torch

        rows = np.flatnonzero(going)
        if len(rows):
            index = torch.as_tensor(rows, device=self.mask.device)
            self.cache.batch_select_indices(index)
            self.mask = self.mask[index]
        return rows

    def extend(self, owners: Sequence[int], tails: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        """For each tail, read after the prompt in row owners[i], the logits at its positions (t, v). The rows stay as they are."""
        import torch

        longest = max(map(len, tails))
        device = self.mask.device
        index = torch.tensor(owners, device=device)
        ids = torch.zeros(len(tails), longest, dtype=torch.long)
        real = torch.zeros_like(ids)
        for i, tail in enumerate(tails):
            ids[i, : len(tail)] = torch.tensor(tail)
            real[i, : len(tail)] = 1
        cache = copy.deepcopy(self.cache)
        cache.batch_select_indices(index)
        logits, _, _ = self._forward(ids.to(device), torch.cat([self.mask[index], real.to(device)], dim=1), cache, last_only=False)
        for i, tail in enumerate(tails):
            yield logits[i, : len(tail)]

    def _cache(self):
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache, *, last_only: bool):
        """ids (b, t), mask over the cache and them -> logits (b, v) or (b, t, v), hidden (b, t, d), and the embedding's layer where that is another."""
        seen = []

        def choose(hidden: torch.Tensor) -> torch.Tensor:
            seen.append(hidden)
            return hidden[:, -1:] if last_only else hidden

        deeper = self.spec is not None and self.spec.layer != -1
        # Positions count real tokens only, so that padding shifts nothing.
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with head_reads(self.model, choose):
            out = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=cache is not None, output_hidden_states=deeper)
        return (out.logits[:, -1] if last_only else out.logits), seen[0], out.hidden_states[self.spec.layer] if deeper else None


@contextmanager
def head_reads(model, choose: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within the block the LM head gets only `choose(hidden)` of the hidden states (b, t, d) after the final norm.

    A hook, because scaling and soft-capping of the logits, which differ between families, then stay in the model's own code.
    """
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (choose(inputs[0]),))
    try:
        yield
    finally:
        handle.remove()


def _windowless(model) -> bool:
    """Whether every layer caches all positions. Where one does not, padding between prefix and prompt would shorten its window, and
    a recurrent state cannot be shared over rows of different lengths."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache(config=model.config)
    return all(type(layer) is DynamicLayer for layer in cache.layers)
