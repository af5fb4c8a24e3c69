"""Variety of words: by hand, and what it must not depend on."""

import math
import random

import pytest

from outlay.errors import DataError
from outlay.measure import text

WORDS = [f"w{i}" for i in range(400)]


def sentences(n, length, seed=0, words=WORDS):
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=length)) for _ in range(n)]


def test_tokens_are_words_and_signs():
    assert text.tokens("Don't add 3.5!") == ["don", "'", "t", "add", "3", ".", "5", "!"]


def test_distinct_by_hand():
    pieces = [["a", "b", "a"], ["a", "b"]]
    assert text.distinct(pieces, 1) == 2 / 5
    assert text.distinct(pieces, 2) == 2 / 5  # ab, ba: no pair reaches from one text into the next
    assert text.distinct(pieces, 3) == 1 / 5 and text.distinct([["a"]], 2) == 0 and math.isnan(text.distinct([], 1))


def test_shorten_takes_exactly_the_tokens_whole_texts_first():
    texts = sentences(20, 7)
    pieces = text.shorten(texts, 50)
    assert sum(map(len, pieces)) == 50 and [len(p) for p in pieces] == [7] * 7 + [1]
    assert all(any(text.tokens(t)[: len(p)] == p for t in texts) for p in pieces)
    assert text.shorten(texts, 140) and text.shorten([], 0) == []


def test_the_order_of_the_list_does_not_matter():
    texts = sentences(30, 6)
    shuffled = random.Random(1).sample(texts, len(texts))
    assert text.panel(texts, 60) == text.panel(shuffled, 60)


def test_more_of_the_same_language_is_not_called_less_diverse():
    few, many = sentences(40, 10, seed=1), sentences(400, 10, seed=2)
    assert text.panel(many)["distinct_1"] < 0.5 * text.panel(few)["distinct_1"]  # the trap
    found = text.compare({"few": few, "many": many})
    assert found["few"]["tokens"] == found["many"]["tokens"] == 400
    assert found["many"]["distinct_1"] == pytest.approx(found["few"]["distinct_1"], abs=0.06)


def test_planted_repetition_shows_in_every_measure():
    varied, canned = sentences(100, 12, seed=3), [f"the answer to your question is {i % 7}" for i in range(200)]
    found = text.compare({"varied": varied, "canned": canned})
    assert found["canned"]["distinct_1"] < found["varied"]["distinct_1"] and found["canned"]["distinct_2"] < found["varied"]["distinct_2"]
    assert found["canned"]["compression_ratio"] > 3 * found["varied"]["compression_ratio"]


def test_copies_raise_the_compression_ratio():
    texts = sentences(60, 10)
    assert text.panel(texts + texts)["compression_ratio"] > 1.5 * text.panel(texts)["compression_ratio"]


def test_texts_without_words():
    found = text.compare({"none": ["", " "], "some": ["a b"]})
    assert found["none"]["tokens"] == found["some"]["tokens"] == 0 and math.isnan(found["some"]["distinct_1"])
    with pytest.raises(DataError, match="1 texts have 2 tokens together, 3 are asked for"):
        text.panel(["a b"], 3)
