"""The skills pool: rows of a procedural world that a shipped model of two million parameters half knows.

A row is (id, text, group, answer): an English instruction, the skill it asks for and the one right answer. The texts
that pre-trained the model come from the same cases in other words; see `skills_world`. A hash of the text puts every
instruction on the pool side or on the test side, so no pool, of whatever size and seed, holds a test item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError, near
from ..seeds import generator
from .skills_world import NAMES, QUESTIONS, SKILLS, STATEMENTS, Skill

TEST_SHARE = 0.25  # of all instructions
QUESTION_DOCUMENTS = 0.43  # of the pre-training documents; questions are shorter, so a quarter of the characters
MAX_STATEMENTS = 4  # in one pre-training document


class Row(NamedTuple):
    id: str
    text: str
    group: str
    answer: str


def pool_rows(size: int = 4000, mixture: str = "zipf", seed: int = 0) -> list[Row]:
    """`size` different instructions of the pool side. Shares: 1/rank of the skill ("zipf") or equal ("balanced")."""
    return _draw("pool", size, mixture, seed)


def test_rows(kind: str = "pool", size: int = 480, seed: int = 0) -> list[Row]:
    """`size` different instructions of the test side: distributed like the Zipf pool ("pool") or "balanced"."""
    if kind not in ("pool", "balanced"):
        raise ConfigError(f"unknown kind of test '{kind}': {near(kind, ('pool', 'balanced'))}")
    return _draw("test", size, "zipf" if kind == "pool" else "balanced", seed)


test_rows.__test__ = False  # a name that pytest would collect


def pretraining_documents(seed: int, n: int) -> Iterator[str]:
    """`n` short texts: statements about every skill, and questions with answers about every third skill."""
    rng = generator(seed, "skills", "pretraining")
    asked = [skill for skill in SKILLS if skill.asked]
    for _ in range(n):
        if rng.random() < QUESTION_DOCUMENTS:
            yield conversation(*_say(rng, _pick(rng, asked), QUESTIONS))
        else:
            skill = _pick(rng, SKILLS)
            statements = rng.integers(1, MAX_STATEMENTS + 1)
            yield " ".join(_say(rng, skill, STATEMENTS)[0] for _ in range(statements))


def conversation(question: str, answer: str) -> str:
    """A question with its answer, as the chat template of the shipped tokenizer writes it (without special tokens)."""
    return f"Q: {question}\nA: {answer}"


def counts(size: int, mixture: str) -> list[int]:
    """Rows per skill, in the order of `SKILLS`."""
    return shares(size, len(SKILLS), mixture)


def shares(size: int, kinds: int, mixture: str) -> list[int]:
    """Rows of each kind that add up to `size`: largest remainders of 1/rank ("zipf") or equal ("balanced") shares."""
    if mixture not in ("zipf", "balanced"):
        raise ConfigError(f"unknown mixture '{mixture}': {near(mixture, ('zipf', 'balanced'))}")
    weights = 1 / np.arange(1, kinds + 1) if mixture == "zipf" else np.ones(kinds)
    exact = size * weights / weights.sum()
    rows = np.floor(exact).astype(int)
    rows[np.argsort(rows - exact, kind="stable")[: size - rows.sum()]] += 1
    return rows.tolist()


def _draw(side: str, size: int, mixture: str, seed: int) -> list[Row]:
    rng = generator(seed, "skills", side, mixture)
    rows: list[Row] = []
    for wanted, skill, found in zip(counts(size, mixture), SKILLS, instructions()[side], strict=True):
        if wanted > len(found):
            raise ConfigError(
                f"{size} {mixture} rows need {wanted} {side} instructions of the skill {skill.name!r}, "
                f"but it has {len(found)}: ask for fewer rows"
            )
        rows += [found[i] for i in rng.choice(len(found), wanted, replace=False)]
    return [rows[i] for i in rng.permutation(len(rows))]


@cache
def instructions() -> dict[str, tuple[tuple[Row, ...], ...]]:
    """Every instruction of the world: side ("pool", "test") -> one tuple of rows per skill."""
    sides: dict[str, list[tuple[Row, ...]]] = {"pool": [], "test": []}
    for skill in SKILLS:
        split: dict[str, list[Row]] = {"pool": [], "test": []}
        for template in skill.instructions:
            for arguments, answer in skill.cases:
                text = template.format(*arguments)
                digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
                side = "test" if int.from_bytes(digest, "big") < TEST_SHARE * 2**64 else "pool"
                # The id says the text and nothing else: equal in every pool that holds the row.
                name = hashlib.blake2b(text.encode(), digest_size=6, person=b"skills-id").hexdigest()
                split[side].append(Row(f"skills-{name}", text, skill.name, answer))
        for side, rows in split.items():
            sides[side].append(tuple(rows))
    return {side: tuple(skills) for side, skills in sides.items()}


def _say(rng: np.random.Generator, skill: Skill, frames: tuple[str, ...]) -> tuple[str, str]:
    """A case of the skill in one of its phrases, in one of the frames. -> (sentence, answer)"""
    arguments, answer = _pick(rng, skill.cases)
    phrase = _pick(rng, skill.phrases).format(*arguments)
    return _pick(rng, frames).format(p=phrase, a=answer, name=_pick(rng, NAMES)), answer


def _pick(rng: np.random.Generator, items):
    return items[rng.integers(len(items))]
