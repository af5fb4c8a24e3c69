"""Imports are all or nothing, and the same answers again change nothing."""

import json
import threading
from dataclasses import replace

import pytest

from outlay.annotate import handoff
from outlay.annotate.formats import Answer
from outlay.annotate.verdict import agreement, examine, settle
from outlay.errors import ConfigError, DataError
from outlay.types import Annotation


def request(key, kind="response", drafts=(), annotators=1, number=2):
    return {"id": key, "prompt": f"Prompt {key}?", "group": "", "drafts": list(drafts), "round": number, "kind": kind, "why": {}, "annotators": annotators}


ASKED = [request("a"), request("b"), request("c", "preference", ["one ", "two"]), request("d", annotators=2)]


def good(key="a", response="fine", **changes):
    return Answer(key, prompt=f"Prompt {key}?", response=response, round=2, **changes)


def test_what_passes_is_accepted_with_the_requests_round_and_drafts():
    chosen = Answer("c", kind="preference", chosen="two\r\n", rejected="one", annotator="ann", seconds=3.0, at="2026-01-01")
    verdict = examine([good(annotator="ann"), chosen], ASKED, [], k=1)
    assert verdict.ok and [a.round for a in verdict.accepted] == [2, 2]
    assert verdict.accepted[1] == Annotation("c", "preference", chosen="two", rejected="one ", annotator="ann", round=2, seconds=3.0)
    assert verdict.lines()[1]["at"] == "2026-01-01" and "2 new; 2 of 4 requests still to be answered" in verdict.text()


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([good("zz")], "unknown id, never asked here: 'zz'"),
        ([good(), good()], "the same answer twice"),
        ([good(), good(response="other")], "two answers that differ; if annotators differ, name them"),
        ([good(response=" \n")], "empty response"),
        ([replace(good(), round=1)], "wrong round: an answer of round 1"),
        ([replace(good(), prompt="Prompt A?")], "the prompt's text was changed"),
        ([good(response="\ud800")], "bad encoding"),
        ([good(seconds=float("nan"))], "not a number of seconds"),
        ([Answer("a", kind="preference", chosen="x", rejected="y")], "a preference where a response was asked"),
        ([Answer("c", kind="preference", chosen="one ", rejected="three")], "not the two that were offered"),
        ([Answer("c", kind="preference", chosen="two", rejected="two")], "not the two that were offered"),
        ([Answer("c", kind="preference")], "no response was chosen"),
        ([good(annotator="ann"), good(annotator="ben")], "more answers than the 1 asked for: 'a' by ben"),
    ],
)
def test_one_bad_answer_and_none_of_the_good_ones_is_accepted(answers, says):
    verdict = examine([good("b"), *answers], ASKED, [], k=1)
    assert not verdict.ok and verdict.accepted == () and verdict.lines() == []
    assert says in verdict.text() and "nothing is kept" in verdict.text() and len(verdict.problems) == 1


def test_the_same_answers_again_are_no_change_and_another_answer_is_a_conflict():
    first = examine([good(annotator="ann"), good("d", annotator="ann")], ASKED, [], k=1)
    again = examine([good(annotator="ann", response="fine\r\n", seconds=9.0), good("d", annotator="ann")], ASKED, first.accepted, k=1)
    assert again.ok and again.accepted == () and again.repeated == 2 and "2 there already (no change)" in again.text()
    other = examine([good(annotator="ann", response="better")], ASKED, first.accepted, k=1)
    assert other.problems == ("another answer is there already: 'a' by ann",)


def test_an_export_that_still_holds_an_earlier_rounds_answers_is_no_conflict():
    earlier = [Annotation("old", response="x", annotator="ann", round=1)]
    verdict = examine([Answer("old", response="x", annotator="ann", round=1), good(annotator="ann")], ASKED, earlier, k=1)
    assert verdict.ok and [a.prompt_id for a in verdict.accepted] == ["a"] and verdict.repeated == 1


def test_k_annotators_answer_one_request_and_a_skip_is_one_of_them():
    skip = Answer("d", kind="skip", reason="unclear", annotator="ann")
    verdict = examine([skip, good("d", annotator="ben")], ASKED, [], k=1)
    assert verdict.ok and verdict.waiting == 3 and "1 skip among them" in verdict.text() and verdict.lines()[0]["reason"] == "unclear"
    assert examine([good("d", annotator="cy")], ASKED, verdict.accepted, k=1).problems == ("more answers than the 2 asked for: 'd' by cy",)


# -- the folder ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    folder = handoff.folder(tmp_path, 2)
    folder.mkdir(parents=True)
    (folder / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ASKED))
    return folder


def test_what_is_collected_is_read_back_and_a_dry_run_or_a_refusal_writes_nothing(folder):
    assert handoff.folders(folder.parents[1]) == [folder]
    assert handoff.collect(folder, [good(response="a\u2028ü")], dry_run=True).ok and handoff.collected(folder) == []
    handoff.collect(folder, [good(response="a\u2028ü")])
    before = (folder / "annotations.jsonl").read_bytes()
    assert not handoff.collect(folder, [good("b"), good("zz")]).ok and (folder / "annotations.jsonl").read_bytes() == before
    assert [a.response for a in handoff.collected(folder)] == ["a\u2028ü"]


def test_two_importers_at_once_lose_nothing(folder):
    jobs = [threading.Thread(target=handoff.collect, args=(folder, [good(key, annotator=who)])) for key, who in (("a", "x"), ("b", "x"), ("d", "x"), ("d", "y"))]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sorted((a.prompt_id, a.annotator) for a in handoff.collected(folder)) == [("a", "x"), ("b", "x"), ("d", "x"), ("d", "y")]


def test_a_run_without_requests_says_what_to_do_first(tmp_path):
    with pytest.raises(DataError, match="run `outlay campaign next` first"):
        handoff.folders(tmp_path)


# -- agreement -------------------------------------------------------------------------------------------------------------


def said(key, response, who, kind="response"):
    return Annotation(key, kind, response=response if kind == "response" else "", chosen=response if kind == "preference" else "", annotator=who)


GROUP = [said("a", "the cat sat", "x"), said("b", "alone", "x"), said("a", "the dog sat", "y"), said("a", "the  cat sat\n", "z"), said("b", "", "y", "skip")]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("first", ["the cat sat", "alone"]),
        ("majority", ["the cat sat", "alone"]),
        ("central", ["the cat sat", "alone"]),
        ("unanimous", ["alone"]),
        ("all", ["the cat sat", "the dog sat", "the  cat sat\n", "alone"]),
    ],
)
def test_a_rule_settles_a_disagreement(rule, kept):
    assert [a.response for a in settle(GROUP, rule)] == kept


def test_majority_does_not_follow_the_first_where_more_say_otherwise():
    assert settle([said("a", "no", "x"), said("a", "yes", "y"), said("a", "yes ", "z")], "majority")[0].response == "yes"


def test_a_prompt_that_all_skipped_stays_a_skip_and_an_unknown_rule_is_named():
    assert [a.kind for a in settle([said("a", "", "x", "skip"), said("a", "", "y", "skip")], "majority")] == ["skip"]
    with pytest.raises(ConfigError, match="did you mean 'majority'"):
        settle(GROUP, "majorty")


def test_agreement_is_the_share_of_pairs_and_none_where_nobody_overlaps():
    found = agreement(GROUP)
    assert (found.prompts, found.alike) == (1, pytest.approx(1 / 3)) and 1 / 3 < found.similarity < 1
    votes = [said(key, text, who, "preference") for key, texts in (("a", "XX"), ("b", "XY"), ("c", "YY"), ("d", "YY")) for text, who in zip(texts, "xy", strict=True)]
    assert agreement(votes).beyond_chance == pytest.approx(0.5) and "75%" in agreement(votes).text()
    assert agreement([said("a", "x", "y")]).alike is None
