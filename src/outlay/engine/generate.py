"""Greedy decoding of many prompts, with what the model says of itself reduced token by token, and an embedding from the same pass.

n prompts, b rows in a minibatch, t tokens, d hidden width, v vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ConfigError
from ..types import Floats
from .load import Loaded
from .losses import longest_first
from .network import EmbeddingSpec, open_network
from .render import Rendered
from .runtime import Backend
from .statistics import Tally, check_finite
from .stops import Until

# New prompts are read when 1 / REFILL of the minibatch is free: together they make larger matrix products.
REFILL = 4
# row, tokens, stopped
OnFinish = Callable[[int, list[int], bool], None]


@dataclass(frozen=True, slots=True)
class Generated:
    """Rows are in the order of the prompts.

    `tokens`: the response without its end token. `texts`: it as text, special tokens left out. `stopped`: it ended by itself, at an end
    token or a string of `until`. `response_tokens`: all tokens that were generated, and `signals` ((n,) float32 each; empty without
    decoding; gradient: (n, width)) are over all of these: the end token, and the tokens of the string that ended the response, belong to them, because
    the model chose to end there. `embedding`: (n, d).
    """

    tokens: list[list[int]]
    texts: list[str]
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
    until: Sequence[str] = (),
    on_finish: OnFinish | None = None,
    backend: Backend = "torch",
) -> Generated:
    """Respond to each prompt with at most `max_new_tokens` tokens (0: only embed).

    A beginning that all prompts share is read once. gradient: the width of the signal of that name (see gradient.py), 0 for none. until: a response ends before the first of these strings in its text; its
    tokens are then the fewest that hold that text (the last one may hold the beginning of the string too, so cut texts, not
    tokens). on_finish: called with (row, tokens, stopped) as each response ends, in any order; not called when nothing is decoded.
    backend: "vllm" lets vLLM decode, see vllm_backend.py for what it gives; the embedding comes from a pass of ours. Raises ConfigError for an empty string in `until`, DataError where a number is not finite.
    """
    import torch

    if isinstance(until, str) or "" in until:
        raise ConfigError(f"until = {until!r}: it must be a list of strings, none of them empty")
    end = Until(loaded, tuple(until))
    if backend == "vllm" and max_new_tokens:
        from .vllm_backend import respond

        assert not gradient, "vLLM gives no hidden states"
        out = respond(loaded, prompts, stops=stops, max_new_tokens=max_new_tokens, minibatch=minibatch, until=end, on_finish=on_finish)
        return out if embedding is None else replace(out, embedding=generate(loaded, prompts, stops=stops, max_new_tokens=0, minibatch=minibatch, embedding=embedding).embedding)
    n = len(prompts)
    tokens: list[list[int]] = [[] for _ in range(n)]
    texts = [""] * n
    stopped, counts = np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int32)
    vectors: Floats | None = None
    tally = Tally(n, gradient)

    def choose(rows: np.ndarray, hidden: torch.Tensor, logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The next token of each row, and which rows go on; the others are finished."""
        chosen = tally.read(rows, hidden, logits)
        going = np.ones(len(rows), dtype=bool)
        for i, row in enumerate(rows):
            ending = end.ended(tally.tokens[row], stops, max_new_tokens)
            if ending is None:
                continue
            going[i] = False
            tokens[row], texts[row], stopped[row], counts[row] = ending.tokens, ending.text, ending.stopped, len(tally.tokens[row])
            if on_finish is not None:
                on_finish(int(row), tokens[row], bool(stopped[row]))
        return chosen, going

    queue = deque(longest_first(prompts))
    rows, chosen = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    with torch.inference_mode():
        network = open_network(loaded, prompts, embedding, minibatch=minibatch, room=max_new_tokens, decode=max_new_tokens > 0)
        while queue or len(rows):
            free = minibatch - len(rows)
            if queue and (not len(rows) or (network.refills and free * REFILL >= minibatch)):
                new = np.array([queue.popleft() for _ in range(min(free, len(queue)))])
                step = network.admit([prompts[row] for row in new])
                if step.vectors is not None:
                    vectors = np.empty((n, step.vectors.shape[1]), dtype=np.float32) if vectors is None else vectors
                    vectors[new] = step.vectors.cpu().numpy()
                if max_new_tokens == 0:
                    continue
                first, starting = choose(new, step.hidden, step.logits)
                going = np.concatenate([np.ones(len(rows), dtype=bool), starting])
                rows, chosen = np.concatenate([rows, new]), np.concatenate([chosen, first])
            else:
                step = network.step(chosen)
                chosen, going = choose(rows, step.hidden, step.logits)
            if not going.all():
                kept = network.keep(going)
                rows, chosen = rows[kept], chosen[kept]
    signals = tally.signals() if n and max_new_tokens else {}
    for name, values in [*signals.items(), ("embedding", vectors)]:
        check_finite(name, values, prompts)
    return Generated(tokens, texts, stopped, counts, signals, vectors)
