"""BLEU between two texts, BLEU variance over several, and prompts as numbers of words."""

import numpy as np
import pytest

from outlay.measure.bleu import bleu_variance, sentence_bleu
from outlay.measure.words import MOST, word_numbers

# The candidates and a reference of Papineni et al. 2002; values of sacrebleu 2 (smooth_method="add-k", smooth_value=1, tokenize="none").
REFERENCE = "it is a guide to action that ensures that the military will forever heed party commands"
KNOWN = [
    ("the the the the the the the", "the cat is on the mat", 0.1920561263749893),
    ("it is a guide to action which ensures that the military always obeys the commands of the party", REFERENCE, 0.4550870437563328),
    ("it is to insure the troops forever hearing the activity guidebook that party direct", REFERENCE, 0.12680745097494608),
    ("the cat is on the mat", "the cat", 0.2730120862709067),
]


@pytest.mark.parametrize(("hypothesis", "reference", "expected"), KNOWN)
def test_bleu_of_published_examples(hypothesis, reference, expected):
    assert sentence_bleu(hypothesis.split(), reference.split()) == pytest.approx(expected, abs=1e-12)


def test_clipped_precision_and_brevity_of_short_texts():
    assert sentence_bleu(["a", "b"], ["a", "c"]) == pytest.approx((1 / 2 * 1 / 2) ** (1 / 2))  # no 3-gram to count
    assert sentence_bleu(["the", "cat"], "the cat is on the mat".split()) == pytest.approx(np.exp(-2))
    assert sentence_bleu(["7"], ["8"]) == 0 and sentence_bleu(["7"], ["7"]) == 1
    assert (sentence_bleu([], []), sentence_bleu(["a"], []), sentence_bleu([], ["a"])) == (1, 0, 0)


def test_bleu_variance_counts_ordered_pairs():
    """BLEU is not symmetric: a short text in a long one is punished for brevity, the long one for its precision."""
    texts = ["the cat is on the mat", "The cat", "the cat"]
    long_short, short_long = 0.2730120862709067, np.exp(-2)
    assert bleu_variance(texts) == pytest.approx((2 * (1 - long_short) ** 2 + 2 * (1 - short_long) ** 2 + 0 + 0) / 6)


def test_bleu_variance_is_0_for_one_answer_and_1_for_answers_without_a_common_word():
    assert bleu_variance(["yes"] * 4) == 0
    assert bleu_variance(["north", "east", "south"]) == 1
    assert bleu_variance(["", ""]) == 0 and bleu_variance(["", "word"]) == 1


def test_words_are_numbered_by_their_spelling_not_by_their_place():
    table = word_numbers(["The cat, the dog!", "dog", "", "..."])
    assert table.dtype == np.int32 and table.tolist() == [[2, 0, 2, 1], [1, -1, -1, -1], [-1] * 4, [-1] * 4]
    np.testing.assert_array_equal(word_numbers(["", "...", "dog", "The cat, the dog!"]), table[[2, 3, 1, 0]])


def test_words_beyond_the_limit_are_left_out_and_no_text_gives_no_word():
    assert word_numbers(["a " * (MOST + 5), "b"]).shape == (2, MOST)
    assert word_numbers(["", "?"]).shape == (2, 0) and word_numbers([]).shape == (0, 0)
