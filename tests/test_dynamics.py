"""Choices that change, and scores that are lengths: by hand and planted."""

import math

import numpy as np
import pandas as pd
import pytest

from outlay.errors import DataError
from outlay.measure import dynamics


def long(**choices):
    return pd.DataFrame([{"who": who, "id": name, "score": score} for who, scores in choices.items() for name, score in scores.items()])


def test_overlap_by_hand_and_whatever_the_order():
    table = long(a={"x": 1, "y": 2}, b={"y": 1, "z": 2}, c={"q": 1})
    found = dynamics.overlap(table, "who")
    assert found.loc["a", "b"] == found.loc["b", "a"] == pytest.approx(1 / 3)
    assert found.loc["a", "a"] == 1 and found.loc["a", "c"] == 0
    pd.testing.assert_frame_equal(found, dynamics.overlap(table.sample(frac=1, random_state=0), "who"))
    pd.testing.assert_frame_equal(found, dynamics.overlap(pd.concat([table, table]), "who"))


def test_overlap_between_strategies_and_seeds():
    table = pd.DataFrame({"strategy": ["r", "r", "u", "u"], "seed": [0, 1, 0, 1], "id": ["a", "b", "a", "c"]})
    found = dynamics.overlap(table, ["strategy", "seed"])
    assert found.index.names == ["strategy", "seed"] and found.loc[("r", 0), ("u", 0)] == 1 and found.loc[("r", 1), ("u", 1)] == 0


def test_rank_correlation_uses_common_ids_only():
    table = long(a={"p": 1, "q": 2, "r": 3, "s": 9, "only": 0}, b={"s": 90, "r": 30, "q": 20, "p": 10, "other": -5}, c={"p": 3, "q": 2, "r": 1})
    for method in ("spearman", "kendall"):
        found = dynamics.rank_correlation(table, "who", method=method)
        assert found.loc["a", "b"] == pytest.approx(1) and found.loc["a", "c"] == pytest.approx(-1)


def test_rank_correlation_by_hand():
    table = long(a={"p": 1, "q": 2, "r": 3, "s": 4}, b={"p": 1, "q": 3, "r": 2, "s": 4})
    assert dynamics.rank_correlation(table, "who").loc["a", "b"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert dynamics.rank_correlation(table, "who", method="kendall").loc["a", "b"] == pytest.approx(4 / 6)


def test_too_few_common_ids_or_one_value_have_no_correlation():
    table = long(a={"p": 1, "q": 2, "r": 3}, b={"p": 1, "q": 2}, c={"p": 5, "q": 5, "r": 5}, d={"p": 1, "q": 2, "r": math.nan})
    found = dynamics.rank_correlation(table, "who")
    assert found.loc["a"].drop("a").isna().all() and math.isnan(found.loc["c", "c"])


def test_an_id_that_occurs_twice_in_a_group_is_an_error():
    with pytest.raises(DataError, match="id 'p' occurs twice in group a"):
        dynamics.rank_correlation(pd.concat([long(a={"p": 1})] * 2), "who")


SCORES = {"a": 9, "b": 8, "c": 7, "d": 6, "e": 5, "f": 4}


def test_change_compares_with_the_next_places_of_the_old_ranking():
    assert dynamics.change(SCORES, ["a", "b"], ["c", "d"]) == dynamics.Change(1, 0.5, 2)
    assert dynamics.change(SCORES, ["a", "b"], ["d", "f"]) == dynamics.Change(0.5, 0.5, 2)
    assert dynamics.change(SCORES, ["a", "b"], ["e", "f"]).kept == 0


def test_ties_at_the_edge_count_by_their_chance_in_any_order():
    tied = {"a": 9, "b": 5, "c": 5, "d": 5, "e": 1}
    for order in (list(tied), list(reversed(tied))):
        scores = {name: tied[name] for name in order}
        assert dynamics.change(scores, [], ["a", "b"]).kept == pytest.approx((1 + 1 / 3) / 2)
        assert dynamics.change(scores, [], ["a", "e"]).kept == pytest.approx(1 / 2)


def test_a_random_batch_keeps_what_chance_keeps():
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(200)]
    kept = [dynamics.change(dict(zip(names, rng.random(200), strict=True)), names[:20], rng.choice(names[20:], 40, replace=False)).kept for _ in range(200)]
    assert np.mean(kept) == pytest.approx(40 / 180, abs=0.02)


def test_a_batch_that_was_not_on_offer_is_refused():
    for batch in (["a"], ["nobody"], []):
        with pytest.raises(DataError, match="the next batch has"):
            dynamics.change(SCORES, ["a"], batch)


def test_the_length_alarm_rings_for_the_planted_score_alone():
    rng = np.random.default_rng(1)
    lengths = pd.DataFrame({"prompt_tokens": rng.integers(5, 90, 300), "response_tokens": rng.integers(1, 9, 300)})
    scores = pd.DataFrame({"long": np.exp(lengths.prompt_tokens / 30) + rng.normal(0, 0.3, 300), "short": -lengths.response_tokens + rng.random(300), "free": rng.random(300)})
    found = dynamics.length_correlation(scores, lengths)
    assert found.loc["long", "prompt_tokens"] > 0.9 and found.loc["short", "response_tokens"] < -0.9 and abs(found.loc["free"]).max() < 0.2
    alarms = dynamics.length_alarm(found)
    assert len(alarms) == 2 and "long mostly ranks by prompt_tokens" in alarms[0] and "short rather" in alarms[1]


def test_rows_that_were_not_measured_and_constant_lengths_ring_no_alarm():
    lengths = pd.DataFrame({"prompt_tokens": [1, 2, 3, 4, 5], "response_tokens": [7] * 5})
    scores = pd.DataFrame({"s": [5, 4, 3, np.nan, np.nan]})
    found = dynamics.length_correlation(scores, lengths)
    assert found.loc["s", "prompt_tokens"] == pytest.approx(-1) and math.isnan(found.loc["s", "response_tokens"])
    assert len(dynamics.length_alarm(found)) == 1 and dynamics.length_alarm(found * math.nan) == []
