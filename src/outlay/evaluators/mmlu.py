"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): 57 subjects, as letters or as cloze."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ConfigError, DataError
from ..pools.hub import HubPool
from .items import Benchmark, Item, chosen_tasks, draw

LETTERS = ("A", "B", "C", "D")
HUB = "cais/mmlu"
HEADER = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]
# Below this, letters are near chance for most models while cloze is not (Gu et al. 2024, arXiv 2406.08446).
SMALL = 2_000_000_000
SUBJECTS = tuple(
    """abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
    college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics econometrics
    electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology high_school_chemistry
    high_school_computer_science high_school_european_history high_school_geography high_school_government_and_politics
    high_school_macroeconomics high_school_mathematics high_school_microeconomics high_school_physics high_school_psychology
    high_school_statistics high_school_us_history high_school_world_history human_aging human_sexuality international_law
    jurisprudence logical_fallacies machine_learning management marketing medical_genetics miscellaneous moral_disputes
    moral_scenarios nutrition philosophy prehistory professional_accounting professional_law professional_medicine
    professional_psychology public_relations security_studies sociology us_foreign_policy virology world_religions""".split()
)


@dataclass(frozen=True, slots=True)
class Question:
    """A row of a subject's file. `answer`: 0 to 3."""

    text: str
    choices: tuple[str, str, str, str]
    answer: int


def mmlu(
    *, style: Literal["letter", "cloze"], folder: Path | None = None, tasks: Sequence[str] = (), max_items: int | None = None, shots: int = 5, seed: int = 0
) -> Benchmark:
    """The test questions of MMLU. style "letter": the choices are in the prompt and the likelihoods of " A" to " D" are compared;
    "cloze": each choice's text is scored as the answer, per character. folder: dev/SUBJECT_dev.csv and test/SUBJECT_test.csv; without
    one $OUTLAY_DATA/mmlu is taken, then the hub. max_items: of each subject, drawn by hash(seed, row). shots: of the dev questions.

    Raises DataError for data that is missing or malformed, ConfigError for an unknown subject or too many shots.
    """
    subjects = chosen_tasks("MMLU", tasks, SUBJECTS)
    if max_items is not None and max_items < 1:
        raise ConfigError(f"MMLU: max_items = {max_items}; it must be at least 1, or null for all")
    read, where = reader(folder, subjects)
    items = {}
    for subject in subjects:
        dev, test = read(subject, "dev"), read(subject, "test")
        if not 0 <= shots <= len(dev):
            raise ConfigError(f"MMLU: shots = {shots}, and subject {subject} has {len(dev)} dev questions; choose 0 to {len(dev)}")
        items[subject] = [_item(subject, row, test[row], dev[:shots], style) for row in draw(subject, len(test), max_items, seed)]
    note = f"MMLU from {where}, {style} format, {shots} worked examples"
    return Benchmark("mmlu", items, "chosen", per_character=style == "cloze", notes=(note,))


def style_for(parameters: int) -> tuple[Literal["letter", "cloze"], str]:
    """The format for a model of this size, and why. parameters: without embeddings."""
    size = f"{parameters / 1e9:.2g} billion parameters without embeddings"
    if parameters < SMALL:
        return "cloze", f"cloze format, because the model has {size}: models below {SMALL / 1e9:.0f} billion mostly answer letters by chance (format: letter is the other one)"
    return "letter", f"letter format, because the model has {size}, {SMALL / 1e9:.0f} billion or more (format: cloze is the other one)"


def _item(subject: str, row: int, asked: Question, dev: Sequence[Question], style: str) -> Item:
    ask = _lettered if style == "letter" else _bare
    head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n" if style == "letter" else ""
    shown = [f"{ask(q)} {LETTERS[q.answer] if style == 'letter' else q.choices[q.answer]}\n\n" for q in dev]
    choices = tuple(f" {letter}" for letter in LETTERS) if style == "letter" else tuple(f" {text}" for text in asked.choices)
    return Item(f"{subject}/{row}", subject, head + "".join(shown) + ask(asked), LETTERS[asked.answer], _lettered(asked), choices, LETTERS)


def _lettered(q: Question) -> str:
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, q.choices, strict=True)]
    return "\n".join([q.text, *lines, "Answer:"])


def _bare(q: Question) -> str:
    return f"Question: {q.text}\nAnswer:"


def reader(folder: Path | None, subjects: Sequence[str]) -> tuple[Callable[[str, str], list[Question]], str]:
    """(a function of subject and split, "dev" or "test", that reads its questions; where from). folder: as for mmlu()."""
    if folder is None and os.environ.get("OUTLAY_DATA"):
        at_hand = Path(os.environ["OUTLAY_DATA"]) / "mmlu"
        folder = at_hand if at_hand.is_dir() else None
    if folder is None:
        return _read_hub, "the hub"
    if not folder.is_dir():
        raise DataError(f"MMLU folder {folder} does not exist; it must hold dev/SUBJECT_dev.csv and test/SUBJECT_test.csv (https://people.eecs.berkeley.edu/~hendrycks/data.tar has them)")
    files = {(s, split): folder / split / f"{s}_{split}.csv" for s in subjects for split in ("dev", "test")}
    missing = [str(f.relative_to(folder)) for f in files.values() if not f.is_file()]
    if missing:
        raise DataError(f"MMLU folder {folder} lacks {len(missing)} of {len(files)} files: {', '.join(missing)}; copy it again, or name only the subjects that are there in `tasks`")
    return lambda subject, split: read_csv(files[subject, split]), str(folder)


def read_csv(file: Path) -> list[Question]:
    """The questions of a file: with a header and answers 0 to 3 (the hub's export), or without one and A to D (the authors' files).
    DataError names file and row, counted from 1 without the header."""
    try:
        with open(file, encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream, strict=True))
    except (UnicodeDecodeError, csv.Error) as bad:
        raise DataError(f"{file} is not a CSV file in UTF-8: {bad}; copy it again") from None
    if rows and rows[0] == HEADER:
        rows = rows[1:]
    if not rows:
        raise DataError(f"{file} holds no questions; copy it again")
    return [_question(row, f"{file}, row {number}") for number, row in enumerate(rows, 1)]


def _question(row: Sequence[str], where: str) -> Question:
    if len(row) != 6:
        raise DataError(f"{where}: {len(row)} fields where 6 are expected (question, four choices, answer); check the quoting")
    text, *choices, answer = row
    names = dict(zip(("0", "1", "2", "3", *LETTERS), (0, 1, 2, 3) * 2, strict=True))
    if answer.strip() not in names:
        raise DataError(f"{where}: the answer is {answer[:40]!r} where 0 to 3 or A to D is expected")
    if not text.strip() or not all(choice.strip() for choice in choices):
        raise DataError(f"{where}: the question or a choice is empty")
    return Question(text, (choices[0], choices[1], choices[2], choices[3]), names[answer.strip()])


def _read_hub(subject: str, split: str) -> list[Question]:
    try:
        data = HubPool(name=HUB, config=subject, split=split).load()
        rows = [[q, *choices, str(answer)] for q, choices, answer in zip(data["question"], data["choices"], data["answer"], strict=True)]
    except (DataError, ConfigError, KeyError) as bad:
        raise DataError(f"MMLU is not at hand: no folder was given and the hub gave none ({str(bad).split(';')[0]}); download https://people.eecs.berkeley.edu/~hendrycks/data.tar and set mmlu_dir (in a study: folder) to what it unpacks to") from None
    return [_question(row, f"{HUB}, {subject}, {split}, row {number}") for number, row in enumerate(rows, 1)]
