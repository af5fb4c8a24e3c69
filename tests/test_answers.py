"""What a response says: the published accuracies, traps, and properties that hold for any text."""

import csv
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.evaluators.answers import extract, lenient, options_in, score

# -- the published numbers ---------------------------------------------------------------------------------------------------


def published(data):
    with open(data / "replays/published.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_stored_predictions_get_every_published_count(outlay_data):
    rows = published(outlay_data)
    assert len(rows) == 38
    for row in rows:
        with gzip.open(outlay_data / f"replays/{row['mode']}/{row['task']}.jsonl.gz", "rt", encoding="utf-8") as file:
            said = [json.loads(line) for line in file]
        got = sum(score(r["prediction"], r["target"], cot=row["mode"] == "cot", question=r["question"]).correct for r in said)
        assert (row["task"], row["mode"], len(said), got) == (row["task"], row["mode"], int(row["n"]), int(row["correct"]))


# -- traps -------------------------------------------------------------------------------------------------------------------

OPTIONS = "Which one?\nOptions:\n(A) I, Robot\n(B) A dog\n(C) 12/14/1937"

# response, target, strict, lenient; after reasoning
TRAPS = {
    "official": ("Up. So the answer is (A).", "(A)", True, True),
    "no final full stop": ("So the answer is (A)", "(A)", True, True),
    "two final full stops": ("So the answer is Yes..", "Yes", False, True),
    "blanks before the full stop": ("So the answer is Yes .", "Yes", True, True),
    "capital The answer is": ("The answer is (A).", "(A)", False, True),
    "marker without a blank after it": ("the answer is: (A).", "(A)", False, True),
    "answer colon": ("Answer: (A)", "(A)", False, True),
    "bold answer colon": ("**Answer:** (A)", "(A)", False, True),
    "answer on the next line": ("The final answer is:\n\n(A)", "(A)", False, True),
    "bold": ("So the answer is **(A)**.", "(A)", False, True),
    "no brackets": ("So the answer is A.", "(A)", False, True),
    "small letter": ("So the answer is (a).", "(A)", False, True),
    "letter and text": ("So the answer is (B) A dog.", "(B)", False, True),
    "letter, bracket, text": ("So the answer is B) A dog.", "(B)", False, True),
    "option's text": ("So the answer is a dog.", "(B)", False, True),
    "an article is no option": ("So the answer is A cat.", "(A)", False, False),
    "a title that begins with a letter": ("So the answer is I, Robot.", "(A)", False, True),
    "two options": ("So the answer is (A) and (B).", "(A)", False, False),
    "two options, second one asked": ("So the answer is (A) or (B).", "(B)", False, False),
    "denied option": ("So the answer is not (A).", "(A)", False, False),
    "a letter that is no option": ("So the answer is (R).", "(R)", True, True),
    "invalid is not valid": ("So the answer is invalid.", "valid", False, False),
    "valid is not invalid": ("So the answer is valid.", "invalid", False, False),
    "not valid": ("So the answer is not valid.", "valid", False, False),
    "case": ("So the answer is yes.", "Yes", False, True),
    "yes and no": ("So the answer is yes and no.", "yes", False, False),
    "reason after a comma": ("So the answer is No, because it rained.", "No", False, True),
    "text after the answer on its line": ("So the answer is Yes. We are done.", "Yes", False, True),
    "text after the answer on the next line": ("So the answer is Yes.\nWe are done.", "Yes", True, True),
    "several markers": ("First the answer is No. But then the answer is Yes.", "Yes", True, True),
    "several markers, the first one right": ("First the answer is Yes. But then the answer is No.", "Yes", False, False),
    "no marker": ("Yes.", "Yes", False, False),
    "word answer alone": ("I have no answer Yes", "Yes", False, False),
    "the answer isn't": ("The answer isn't Yes", "Yes", False, False),
    "empty": ("", "Yes", False, False),
    "nothing after the marker": ("So the answer is ", "Yes", False, False),
    "only a full stop": ("So the answer is .", "Yes", False, False),
    "negative": ("So the answer is -12.", "-12", True, True),
    "sign lost": ("So the answer is 12.", "-12", False, False),
    "sign added": ("So the answer is -12.", "12", False, False),
    "typographic minus": ("So the answer is −12.", "-12", False, True),
    "thousands": ("So the answer is 1,234.", "1234", False, True),
    "decimals of zero": ("So the answer is 12.0.", "12", False, True),
    "other decimals": ("So the answer is 12.5.", "12", False, False),
    "unit": ("So the answer is 12 apples.", "12", False, True),
    "a sum is no number": ("So the answer is 12 - 24 = -12.", "12", False, False),
    "number in a longer number": ("So the answer is 123.", "12", False, False),
    "brackets": ("So the answer is ] ) }.", "] ) }", True, True),
    "brackets without blanks": ("So the answer is ])}.", "] ) }", False, True),
    "brackets in another order": ("So the answer is ) ] }.", "] ) }", False, False),
    "too many brackets": ("So the answer is ] ) } }.", "] ) }", False, False),
    "a pair of brackets is not unwrapped": ("So the answer is ).", "( )", False, False),
    "word list": ("So the answer is costume counterpart oven.", "costume counterpart oven", True, True),
    "word list with commas": ("So the answer is costume, counterpart, oven.", "costume counterpart oven", False, True),
    "word list in another order": ("So the answer is counterpart costume oven.", "costume counterpart oven", False, False),
    "part of a word list": ("So the answer is costume, counterpart.", "costume counterpart oven", False, False),
    "quotes": ('So the answer is "Yes".', "Yes", False, True),
    "Windows line end": ("So the answer is Yes.\r\nDone.", "Yes", True, True),
    "line separator is no line end": ("So the answer is Yes.\u2028Done.", "Yes", False, True),
    "comma in a title": ("So the answer is Monsters, Inc.", "Monsters, Inc", True, True),
}  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_trap(trap):
    response, target, strictly, leniently = TRAPS[trap]
    got = score(response, target, cot=True, question=OPTIONS if target != "(R)" else "")
    assert (got.correct, got.lenient) == (strictly, leniently), got


@pytest.mark.parametrize(
    ("response", "target", "strictly", "leniently"),
    [
        (" (A)", "(A)", True, True),
        (" (A)\n\nQ: What else?\nA: (B)", "(A)", True, True),
        ("\n(A)", "(A)", False, True),
        ("The answer is (A).", "(A)", False, True),
        ("", "(A)", False, False),
        ("(A) and (B)", "(A)", False, False),
        ("invalid", "valid", False, False),
        ("Yes.", "Yes", True, True),
    ],
)
def test_trap_where_no_reasoning_was_asked_for(response, target, strictly, leniently):
    got = score(response, target, cot=False)
    assert (got.correct, got.lenient) == (strictly, leniently), got


def test_unparsed_is_no_marker_or_nothing_after_it():
    assert [score(r, "x", cot=True).parsed for r in ("", "No idea.", "the answer is .", "the answer is y")] == [False, False, False, True]
    assert extract("No idea.", cot=True) is None
    assert extract("the answer is .", cot=True) == ""


def test_options_are_lines_of_their_own():
    assert options_in(OPTIONS) == {"A": "I, Robot", "B": "A dog", "C": "12/14/1937"}
    assert options_in("Is (A) right, or (B)?\n- Yes\n- No") == {}
    assert options_in("(A) \n(B)x") == {"A": "", "B": "x"}


# -- properties ----------------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SAID = st.one_of(TEXT, st.lists(st.sampled_from(["(A)", "(B)", "A", "b.", " ", "and", "Yes", "no", "valid", "invalid", "-12", "12", "=", "**", ",", ".", "\n", "answer: ", "the answer is "]), max_size=8).map("".join))
LABELS = [[f"({letter})" for letter in "ABCDEFGHIJKLMNOPQR"], ["Yes", "No"], ["True", "False"], ["valid", "invalid"], [str(n) for n in range(-13, 14)], ["] )", ") ]", "]", ")"]]


@given(SAID, st.sampled_from([t for labels in LABELS for t in labels]), st.booleans())
def test_whatever_is_strictly_right_is_leniently_right(response, target, cot):
    got = score(response, target, cot=cot)
    assert got.lenient or not got.correct
    assert got.parsed or not got.correct


@given(SAID, st.sampled_from(LABELS), st.booleans())
def test_no_response_is_right_for_two_targets(response, labels, cot):
    assert sum(lenient(response, target, cot=cot) for target in labels) <= 1
    assert sum(score(response, target, cot=cot).correct for target in labels) <= 1


@given(TEXT, st.sampled_from([t for labels in LABELS for t in labels]), TEXT)
def test_reasoning_before_and_lines_after_change_nothing(before, target, after):
    assert score(f"{before}So the answer is {target}.\n{after.replace('answer', '')}", target, cot=True).correct


@given(SAID)
def test_the_answer_is_one_line_without_outer_blanks(response):
    for cot in (True, False):
        answer = extract(response, cot=cot) or ""
        assert "\n" not in answer
        assert answer == answer.strip()


@given(st.lists(st.sampled_from("()[]{}<>"), min_size=1, max_size=9), st.lists(st.sampled_from("()[]{}<>"), min_size=1, max_size=9))
def test_bracket_sequences_are_equal_only_if_every_bracket_is(ours, theirs):
    assert lenient(f"the answer is {''.join(ours)}", " ".join(theirs), cot=True) == (ours == theirs)
