"""What a model says of itself at each token, reduced online to one number a response and signal. Nats, float32, whole vocabulary;
sums over tokens in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..types import Floats
from .render import Rendered

if TYPE_CHECKING:
    import torch


# Rows of logits that token_statistics works on at once on a CPU.
ROWS_IN_CACHE = 4


def token_statistics(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(b, v) -> the likeliest token (b,), and (b, 3): entropy, its log-probability, log p1 - log p2 (nats). Overwrites float32 logits.

    Entropy as log Z - sum(e^(x-m) (x-m)) / Z: the usual log Z - sum(p x) cancels and loses three digits.
    """
    import torch

    some = ROWS_IN_CACHE if logits.device.type == "cpu" else len(logits)
    tokens, found = [], []
    for x in logits.float().split(some):  # a few rows stay in the cache from the first pass over them to the last
        top, token = x.max(dim=1)
        chosen = token[:, None]
        x = x.sub_(top[:, None])
        second = x.scatter_(1, chosen, -torch.inf).amax(1)
        e = x.scatter_(1, chosen, 0.0).exp()
        z = e.sum(1)
        entropy = z.log() - torch.linalg.vecdot(e, x) / z
        tokens.append(token)
        found.append(torch.stack([entropy, -z.log(), -second], dim=1))
    return torch.cat(tokens), torch.cat(found)


class Tally:
    """The greedy tokens of n rows, and running sums and extremes of their statistics."""

    def __init__(self, n: int, gradient: int = 0) -> None:
        from .gradient import Sketches

        self.tokens: list[list[int]] = [[] for _ in range(n)]
        self.sums = np.zeros((n, 3))
        self.most_entropy = np.full(n, -np.inf)
        self.least_margin = np.full(n, np.inf)
        self.sketches = Sketches(n, gradient) if gradient else None

    def read(self, rows: np.ndarray, hidden: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
        """One more token for each of these rows, from the hidden states after the final norm (b, d) and the logits (b, v) -> (b,).

        The one place where decoding looks at a step: a signal that needs more than the three statistics is computed here.
        """
        import torch

        token, statistics = token_statistics(logits)
        if self.sketches is not None:
            self.sketches.add(rows, token, hidden, logits)  # the softmax of logits from which their greatest was taken is the same
        both = torch.cat([token[:, None].double(), statistics.double()], dim=1).cpu().numpy()  # one wait for the device
        tokens, numbers = both[:, 0].astype(np.int64), both[:, 1:]
        for row, said in zip(rows.tolist(), tokens.tolist(), strict=True):
            self.tokens[row].append(said)
        self.sums[rows] += numbers
        self.most_entropy[rows] = np.maximum(self.most_entropy[rows], numbers[:, 0])
        self.least_margin[rows] = np.minimum(self.least_margin[rows], numbers[:, 2])
        return tokens

    def signals(self) -> dict[str, Floats]:
        """Signal -> (n,) float32, gradient (n, width); every row must have a token."""
        means = self.sums / np.array([len(t) for t in self.tokens])[:, None]
        columns = {
            "mean_entropy": means[:, 0], "max_entropy": self.most_entropy,
            "sum_logprob": self.sums[:, 1], "mean_logprob": means[:, 1],
            "mean_margin": means[:, 2], "min_margin": self.least_margin,
        }  # fmt: skip
        found = {name: values.astype(np.float32) for name, values in columns.items()}
        return found if self.sketches is None else {**found, "gradient": self.sketches.values()}


def check_finite(name: str, values: Floats | None, prompts: Sequence[Rendered]) -> None:
    """Raises DataError naming the first prompt with NaN or infinity. values: (n,) or (n, d)."""
    if values is None or np.isfinite(values).all():
        return
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    raise DataError(f"{name} of prompt '{prompts[bad[0]].id}' is not a finite number ({len(bad)} prompts); the weights may have diverged (lower the learning rate) or need dtype: float32")
