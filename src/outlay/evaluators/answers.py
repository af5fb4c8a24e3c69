"""What a response says its answer is, and whether that is right. Pure functions; no benchmark's data and no model is known here.

Strict is the rule that gives every published accuracy of code-davinci-002 on BIG-Bench Hard (Suzgun et al. 2022, arXiv
2210.09261): the text after the last "the answer is " (the whole response where no reasoning was asked for), of that the first
line, without outer blanks and one final full stop, character by character the target. Lenient is ours, and is reported beside
it: it also takes other spellings of the same answer, and never another answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MARKER = "the answer is "
# "The answer is: X", "**Final answer:** X", "Answer is X"; never the word alone.
LOOSE_MARKER = re.compile(r"\banswer[*_`]*(?:\s+is\b[*_`]*\s*:?|\s*:)[*_`]*", re.IGNORECASE)
LETTER = re.compile(r"\(([A-Z])\)")
OPTION_LINE = re.compile(r"^\(([A-Z])\)[ \t]*(.*?)[ \t]*$", re.MULTILINE)
NUMBER = re.compile(r"[-+]?\$?(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d+))?")
CLAUSE = re.compile(r"[,;:!?.](?:\s|$)")
BRACKETS = "()[]{}<>"
WRAPPERS = (("(", ")"), ("[", "]"), ("{", "}"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"))


@dataclass(frozen=True, slots=True)
class Score:
    """`answer`: what the strict rule reads, None where the response names no answer. `parsed`: it reads something.
    `correct`: strict. `lenient`: true wherever `correct` is."""

    answer: str | None
    parsed: bool
    correct: bool
    lenient: bool


def score(response: str, target: str, *, cot: bool, question: str = "") -> Score:
    """Score a response. cot: reasoning was asked for, so the answer stands after a marker. question: its lettered options, if it
    has any, let the lenient rule take an option's text for its letter."""
    answer = extract(response, cot=cot)
    correct = answer == target
    return Score(answer, bool(answer), correct, correct or lenient(response, target, cot=cot, options=options_in(question)))


def extract(response: str, *, cot: bool) -> str | None:
    """The answer by the strict rule; None where reasoning was asked for and the marker is missing."""
    if cot:
        _, marker, response = response.rpartition(MARKER)
        if not marker:
            return None
    return response.split("\n", 1)[0].strip().removesuffix(".").strip()


def options_in(question: str) -> dict[str, str]:
    """Lettered options that stand on lines of their own: letter -> text. A letter that occurs twice keeps its first text."""
    found: dict[str, str] = {}
    for letter, text in OPTION_LINE.findall(question):
        found.setdefault(letter, text)
    return found


def lenient(response: str, target: str, *, cot: bool, options: Mapping[str, str] | None = None) -> bool:
    """Whether the response names the target in any spelling: another case, bold, wrapped in brackets or quotes, "Answer: X",
    an option's letter or its text, commas in lists and numbers, no blanks between brackets, words after a comma or full stop.

    A response is read as one answer at most: one that names two options names none.
    """
    said = _said(response, cot=cot)
    if not said:
        return False
    if LETTER.fullmatch(target):
        return _letter(said, options or {}) == target[1]
    if _number(target) is not None:
        return _number(said) == _number(target)
    if set(target) <= set(BRACKETS + " "):
        return re.sub(r"[\s,\"'“”]", "", said).removesuffix(".") == target.replace(" ", "")
    return _words(target) == _words(said) or _words(target) == _words(CLAUSE.split(said, maxsplit=1)[0])


def _said(response: str, *, cot: bool) -> str:
    """What follows the last marker, up to the end of that line (or the next one, where it is empty); without bold."""
    markers = list(LOOSE_MARKER.finditer(response))
    if markers:
        response = response[markers[-1].end() :]
    elif cot:
        return ""
    line = next((line for line in response.split("\n") if line.strip(" \t\r*_`")), "")
    return re.sub(r"[*`]+|(?<!\w)_+|_+(?!\w)", "", line).replace("−", "-").strip()


def _letter(said: str, options: Mapping[str, str]) -> str | None:
    """The one option that is named: by its text, by "(A)" at the beginning, or by "A" or "A." at the beginning."""
    same = {letter for letter, text in options.items() if text and _words(text) == _words(said)}
    if len(same) == 1:
        return same.pop()
    known = set(options) or set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    said = re.sub(r"^(?:option|choice)\s+", "", said, flags=re.IGNORECASE)
    named = set(LETTER.findall(said.upper())) & known
    if len(named) > 1:
        return None
    first = re.match(r"(?:\(([A-Z])\)|([A-Z])(?:$|[.,:;)](?:\s|$)))", said, flags=re.IGNORECASE)
    letter = (first[1] or first[2]).upper() if first else ""
    return letter if letter in known and named <= {letter} else None


def _number(text: str) -> tuple[bool, int, str] | None:
    """The number that a text is, with a unit after it at most: (negative, integer, decimals). None for two numbers, or a sum."""
    text = _unwrapped(re.split(r"[,;:]\s", text, maxsplit=1)[0])
    found = NUMBER.match(text)
    if not found or not re.fullmatch(r"(?:[\s%°€$][^\d=]*)?", text[found.end() :]):
        return None
    return found[0].startswith("-"), int(found[1].replace(",", "")), (found[2] or "").rstrip("0")


def _words(text: str) -> list[str]:
    """Words in order, without case, outer punctuation and the commas between them."""
    return _unwrapped(text).casefold().replace(",", " ").split()


def _unwrapped(text: str) -> str:
    """Without a final full stop and without brackets or quotes around the whole."""
    text = text.strip().rstrip(".!").strip()
    for left, right in WRAPPERS:
        if len(text) > 2 and text.startswith(left) and text.endswith(right) and left not in text[1:-1] and right not in text[1:-1]:
            return text[1:-1].strip().rstrip(".!").strip()
    return text
