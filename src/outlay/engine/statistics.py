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


class Tally:
    """The greedy tokens of n rows, and running sums and extremes of their statistics."""

    def __init__(self, n: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(n)]
        self.sums = np.zeros((n, 3))
        self.most_entropy = np.full(n, -np.inf)
        self.least_margin = np.full(n, np.inf)

    def read(self, rows: np.ndarray, hidden: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
        """One more token for each of these rows, from the hidden states after the final norm (b, d) and the logits (b, v) -> (b,).

        The one place where decoding looks at a step: a signal that needs more than the three statistics is computed here.
        """
        token, statistics = token_statistics(logits)
        tokens, numbers = token.cpu().numpy(), statistics.double().cpu().numpy()
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            self.tokens[row].append(token)
        self.sums[rows] += numbers
        self.most_entropy[rows] = np.maximum(self.most_entropy[rows], numbers[:, 0])
        self.least_margin[rows] = np.minimum(self.least_margin[rows], numbers[:, 2])
        return tokens

    def signals(self) -> dict[str, Floats]:
        """Signal -> (n,) float32; every row must have a token."""
        means = self.sums / np.array([len(t) for t in self.tokens])[:, None]
        columns = {
            "mean_entropy": means[:, 0], "max_entropy": self.most_entropy,
            "sum_logprob": self.sums[:, 1], "mean_logprob": means[:, 1],
            "mean_margin": means[:, 2], "min_margin": self.least_margin,
        }  # fmt: skip
        return {name: values.astype(np.float32) for name, values in columns.items()}


def check_finite(name: str, values: Floats | None, prompts: Sequence[Rendered]) -> None:
    """Raises DataError naming the first prompt with NaN or infinity. values: (n,) or (n, d)."""
    if values is None or np.isfinite(values).all():
        return
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    raise DataError(f"{name} of prompt '{prompts[bad[0]].id}' is not a finite number ({len(bad)} prompts); the weights may have diverged (lower the learning rate) or need dtype: float32")
