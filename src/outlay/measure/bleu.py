"""How much do several responses to one prompt differ? BLEU between them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import permutations

from .text import tokens

ORDERS = 4


def sentence_bleu(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    """BLEU (Papineni et al. 2002) of one tokenized text against one reference, 0 to 1.

    The geometric mean of the clipped n-gram precisions for n = 1..4, as far as the hypothesis has n-grams, times the brevity penalty.
    Precisions above n = 1 have one added to both counts (Lin & Och 2004), so that a text is not 0 for want of a common 4-gram: from four
    tokens on this is sacrebleu's sentence score with add-k smoothing. Two empty texts: 1; one of them: 0.
    """
    if not hypothesis or not reference:
        return float(not hypothesis and not reference)
    logs = []
    for n in range(1, min(ORDERS, len(hypothesis)) + 1):
        found, wanted = _grams(hypothesis, n), _grams(reference, n)
        common, total, more = (found & wanted).total(), found.total(), int(n > 1)
        if not common + more:
            return 0.0
        logs.append(math.log((common + more) / (total + more)))
    return math.exp(sum(logs) / len(logs) + min(0.0, 1 - len(reference) / len(hypothesis)))


def bleu_variance(texts: Sequence[str]) -> float:
    """Mean of (1 - BLEU)^2 over all ordered pairs of these texts, 0 (all alike) to 1: BLEUVar of Xiao, Gomez & Gal 2020 (arXiv
    2006.08344), which adds up the pairs. Tokens are those of text.tokens, in lower case."""
    pieces = [tokens(text) for text in texts]
    pairs = list(permutations(pieces, 2))
    return sum((1 - sentence_bleu(a, b)) ** 2 for a, b in pairs if a != b) / len(pairs)


def _grams(piece: Sequence[str], n: int) -> Counter:
    return Counter(zip(*(piece[i:] for i in range(n)), strict=False))
