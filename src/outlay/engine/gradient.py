"""The gradient of the LM head for the model's own response, sketched while the response is decoded.

With logits W h, p their softmax and y the token that the model chose, the loss -log p_y has the gradient (p - onehot(y)) h' with
respect to W: v x d numbers for each token (v vocabulary, d hidden width). BADGE (Ash et al. 2020, arXiv 1906.03671) takes that
matrix as the embedding of an input whose label the model itself gives. Here it is summed over the tokens of a response: then it is
the gradient of the response's negative log-likelihood, and every token weighs the same, as in our training loss; a long unsure
response has a long gradient. A weight that is tied to the input embedding counts as head only, and where a family scales or caps its
logits, that factor is left out.

TensorSketch (Pham & Pagh 2013): count sketches of p - onehot(y) and of h, of width s each, convolved. It is linear in the matrix, so
tokens add up, and it keeps inner products: E <S a, S b> = <a, b>, with a standard deviation of at most sqrt(11 / s) |a| |b| (Avron,
Nguyen & Woodruff 2014; about sqrt(2 / s) as a rule). Buckets are dealt out by a permutation instead of a hash function, so all have the
same size, and sums need no atomic additions, whose order varies on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .. import seeds
from ..types import Floats

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class CountSketch:
    """A random linear map (size,) -> (width,): every coordinate is added to one bucket with a random sign. Both (width * slots,):
    `source`, the coordinate in each place of a bucket, and `sign`, 0 in the places that are left over."""

    source: torch.Tensor
    sign: torch.Tensor
    width: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(b, size) -> (b, width)."""
        return (x[:, self.source] * self.sign).view(len(x), -1, self.width).sum(1)


@lru_cache(maxsize=4)
def count_sketch(part: str, size: int, width: int, device: torch.device) -> CountSketch:
    """Fixed by (part, size, width), the same in every round and on every machine."""
    import torch

    rng = seeds.generator(0, "gradient", part, size, width)
    places = rng.permutation(-(-size // width) * width)
    sign = np.where(places < size, rng.choice(np.array([-1, 1], dtype=np.float32), len(places)), np.float32(0))
    return CountSketch(torch.from_numpy(np.minimum(places, size - 1)).to(device), torch.from_numpy(sign).to(device), width)


class Sketches:
    """The growing sketches of the rows of one minibatch."""

    def __init__(self, rows: int, width: int) -> None:
        self.width = width
        self._rows = rows
        self._spectrum: torch.Tensor | None = None  # convolutions add up before the inverse transform

    def add(self, rows: np.ndarray, token: torch.Tensor, hidden: torch.Tensor, logits: torch.Tensor) -> None:
        """One more token for these rows. token (b,), hidden (b, d): what the LM head read, logits (b, v)."""
        import torch

        error = logits.float().softmax(dim=1)
        error[torch.arange(len(token), device=token.device), token] -= 1
        parts = (("token", error), ("state", hidden.float()))
        left, right = (torch.fft.rfft(count_sketch(name, x.shape[1], self.width, x.device)(x)) for name, x in parts)
        if self._spectrum is None:
            self._spectrum = left.new_zeros(self._rows, left.shape[1])
        self._spectrum.index_add_(0, torch.from_numpy(rows).to(left.device), left * right)  # each row once: the order is no matter

    def values(self) -> Floats:
        """(rows, width) float32."""
        import torch

        assert self._spectrum is not None
        return torch.fft.irfft(self._spectrum, n=self.width).cpu().numpy()
