"""Strategies made for translation and summarization."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from ..registry import strategy
from ..types import Floats, Indices, View
from .ranking import Share, highest, line_up

JUDGED = ("hallucination_semantic", "hallucination_discourse", "hallucination_content")
Decay = Annotated[float, Ge(0)]


@strategy(needs=("bleu_variance",), score="bleu_variance", source="Xiao, Gomez & Gal 2020, arXiv 2006.08344 (BLEUVar)", nested=True, divisible=True)
def bleuvar(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Prompts to which several sampled responses differ most: mean (1 - BLEU)^2 over their pairs, 0 to 1.

    The paper samples by dropout at test time, which says what the weights do not know. LLMs are tuned and run without dropout, so here
    tokens are drawn from the model's distribution: what is measured is how spread out that is. The scorer's samples and temperature
    say how; each sample costs a decoding pass.
    """
    return highest(view, view.score("bleu_variance"), k)


def word_value(view: View, picks: Indices, *, labeled_decay: Decay = 1.0, batch_decay: Decay = 1.0) -> Floats:
    """The delfy score of each pick. -> (k,)."""
    return _delfy(view, labeled_decay, batch_decay)[picks]


# Not nested: a round's decay within the batch counts all better prompts, bought or not; the next round's counts what was bought.
@strategy(needs=("words",), score=word_value, source="Zhao et al. 2020, Findings of EMNLP (delfy)")
def delfy(view: View, k: int, rng: np.random.Generator, *, labeled_decay: Decay = 1.0, batch_decay: Decay = 1.0) -> Indices:
    """Prompts whose words are frequent in what is for sale, and rare in what is bought and in better prompts (decay logarithm frequency).

    Mean over the words w of F(w) exp(-labeled_decay * count of w in the bought prompts) exp(-batch_decay * count of w in the prompts
    for sale whose score without this last factor is higher); F(w) is log(1 + count of w for sale), in shares of the sum over all words.
    Of equally good prompts the lottery decides which one counts as better. No model is asked. Words are whole and in lower case, the first
    512 of a prompt, without punctuation, which the authors' program leaves out of the sum as well.
    """
    return highest(view, _delfy(view, labeled_decay, batch_decay)[view.unlabeled], k)


def _delfy(view: View, labeled_decay: float, batch_decay: float) -> Floats:
    """(n,); NaN where the prompt is not for sale."""
    line = line_up(view)
    words = view.signals.columns["words"][line.rows]
    free, size = words[line.unlabeled], int(words.max(initial=-1)) + 1

    def counts(table: Indices) -> Floats:
        return np.bincount(table[table >= 0], minlength=size).astype(np.float64)

    frequency = np.log1p(counts(free))
    worth = frequency / max(frequency.sum(), 1) * np.exp(-labeled_decay * counts(words[line.labeled]))
    there = free >= 0
    length = np.maximum(there.sum(axis=1), 1)
    first = np.where(there, worth[free] if size else 0, 0).sum(axis=1) / length
    better = np.argsort(-np.round(first, 12), kind="stable")  # ties by lottery; the rounding of sums decides none
    decayed = np.where(there, worth[free] * np.exp(-batch_decay * _seen_before(free[better])[np.argsort(better)]) if size else 0, 0)
    scores = np.full(len(words), np.nan)
    scores[line.rows[line.unlabeled]] = np.round(decayed.sum(axis=1) / length, 12)
    return scores


def _seen_before(words: Indices) -> Indices:
    """How often does each word occur in the rows above its own? (m, t) -> (m, t)."""
    m, t = words.shape
    flat, row = words.ravel(), np.repeat(np.arange(m), t)
    order = np.argsort(flat, kind="stable")  # by word, then by row
    flat, row = flat[order], row[order]
    place = np.arange(m * t)
    new_word = np.r_[True, flat[1:] != flat[:-1]][: m * t]
    new_row = new_word | np.r_[True, row[1:] != row[:-1]][: m * t]
    # Rows above have the places from the word's first one up to the first one of this row.
    before = np.maximum.accumulate(np.where(new_row, place, 0)) - np.maximum.accumulate(np.where(new_word, place, 0))
    found = np.empty(m * t, dtype=np.int64)
    found[order] = before
    return found.reshape(m, t)


def summed_ranks(view: View, picks: Indices, *, labeled_decay: Decay = 1.0, batch_decay: Decay = 1.0) -> Floats:
    """Minus the sum of the two ranks of each pick. -> (k,)."""
    return -_ranks(view, labeled_decay, batch_decay)[picks]


@strategy(needs=("mean_entropy", "words"), score=summed_ranks, source="Zhao et al. 2020, Findings of EMNLP (TE-delfy)")
def te_delfy(view: View, k: int, rng: np.random.Generator, *, labeled_decay: Decay = 1.0, batch_decay: Decay = 1.0) -> Indices:
    """Prompts of high mean token entropy (nats) whose words are worth having: lowest sum of the ranks by both.

    The words' worth is that of `delfy`, with its options. Equal values share the mean of their ranks.
    """
    return highest(view, -_ranks(view, labeled_decay, batch_decay)[view.unlabeled], k)


def _ranks(view: View, labeled_decay: float, batch_decay: float) -> Floats:
    """(n,), from 2, the best; NaN where the prompt is not for sale."""
    from scipy.stats import rankdata

    ranks = np.full(len(view.lottery), np.nan)
    worth = _delfy(view, labeled_decay, batch_decay)[view.unlabeled]
    ranks[view.unlabeled] = rankdata(-view.score("mean_entropy")) + rankdata(-worth)
    return ranks


def hallucination(view: View, picks: Indices, *, weight: Share = 0.33, semantic: Decay = 1.0, discourse: Decay = 1.0, content: Decay = 1.0) -> Floats:
    """The HADAS score of each pick when it was chosen. -> (k,)."""
    return _hadas(view, len(picks), weight, (semantic, discourse, content))[1]


@strategy(needs=JUDGED, of_labeled=JUDGED, score=hallucination, source="Xia et al. 2024, arXiv 2404.01588 (HADAS)", nested=True)
def hadas(
    view: View, k: int, rng: np.random.Generator, *, weight: Share = 0.33, semantic: Decay = 1.0, discourse: Decay = 1.0, content: Decay = 1.0
) -> Indices:
    """Prompts whose response hallucinates much, and otherwise than the responses to what is bought.

    Highest (1 - weight) * (weighted mean of three hallucination scores, 0 to 1) + weight * (mean divergence from the bought prompts;
    0 without any), one at a time: a pick counts as bought for the next. The scores say how wrong a response is in its semantic frame, its
    discourse, and in content that cannot be verified; `semantic`, `discourse` and `content` weigh them. The divergence is that of Jensen and
    Shannon (bits, 0 to 1) between the three scores as shares of their sum. The paper's judges are other models (of entailment, of
    coherence, of similarity to the document), and no signal of the answering model itself stands in for them: the scorer `llm` gives none
    of the three signals, a scorer of your own must. Those of the toy world are made up of its model's uncertainty.
    """
    return _hadas(view, k, weight, (semantic, discourse, content))[0]


def _hadas(view: View, k: int, weight: float, parts: tuple[float, float, float]) -> tuple[Indices, Floats]:
    line = line_up(view)
    scores = np.column_stack([view.signals.columns[name] for name in JUDGED])[line.rows].astype(np.float64)
    free = scores[line.unlabeled]
    much = free @ np.array(parts) / max(sum(parts), 1e-12)
    shares, apart = _shares(free), np.zeros(len(free))
    for other in _shares(scores[line.labeled]):
        apart += _divergence(shares, other)
    picks, values = np.empty(k, dtype=np.int64), np.empty(k)
    for turn in range(k):
        value = np.round((1 - weight) * much + weight * apart / max(len(line.labeled) + turn, 1), 9)  # the rounding of sums decides no tie
        value[picks[:turn]] = -np.inf
        pick = picks[turn] = value.argmax()
        values[turn] = value[pick]
        apart += _divergence(shares, shares[pick])
    return line.rows[line.unlabeled[picks]], values


def _shares(scores: Floats) -> Floats:
    """Rows that add up to 1; alike where there is nothing to share. (n, 3) -> (n, 3)."""
    total = scores.sum(axis=1, keepdims=True)
    return np.divide(scores, total, out=np.full_like(scores, 1 / 3), where=total > 0)


def _divergence(shares: Floats, other: Floats) -> Floats:
    """Jensen-Shannon divergence in bits of each row from the other distribution. (n, 3), (3,) -> (n,)."""
    from scipy.special import rel_entr

    middle = (shares + other) / 2
    return (rel_entr(shares, middle) + rel_entr(other, middle)).sum(axis=1) / (2 * np.log(2))
