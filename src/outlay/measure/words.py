"""Which words does a prompt have? As numbers, for strategies, which see no text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import Indices
from .text import tokens

MOST = 512  # words of a prompt that count: 2 KB each


def word_numbers(texts: Sequence[str]) -> Indices:
    """The words of each text in order, as numbers from 0 in the sorted vocabulary of all texts, -1 after the last. -> (n, t) int32,
    t the most words that a text has, at most MOST: what follows is left out. Lower case, without punctuation."""
    found = [[token for token in tokens(text) if token.isalnum() or len(token) > 1][:MOST] for text in texts]
    numbers = {word: number for number, word in enumerate(sorted({word for words in found for word in words}))}
    table = np.full((len(texts), max(map(len, found), default=0)), -1, dtype=np.int32)
    for row, words in enumerate(found):
        table[row, : len(words)] = [numbers[word] for word in words]
    return table
