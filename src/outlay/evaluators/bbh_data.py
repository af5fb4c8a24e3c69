"""Where BIG-Bench Hard lies: a checkout, the hub, or the exemplars that the lm-eval wheel ships. Read, checked, never changed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, DataError
from ..pools.hub import HubPool
from .answers import extract

TASKS = (
    "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages", "formal_fallacies",
    "geometric_shapes", "hyperbaton", "logical_deduction_five_objects", "logical_deduction_seven_objects",
    "logical_deduction_three_objects", "movie_recommendation", "multistep_arithmetic_two", "navigate", "object_counting",
    "penguins_in_a_table", "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks",
    "sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects", "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects", "web_of_lies", "word_sorting",
)  # fmt: skip
HUB = "SaylorTwift/bbh"  # inputs and targets; it has no chain-of-thought prompts
CHECKOUT = "https://github.com/suzgunmirac/BIG-Bench-Hard"
WHEEL = "pip install --no-deps lm-eval==0.4.13"
THINK = "\nA: Let's think step by step."
NEXT = "\n\nQ: "


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A worked example of a prompt file. `reasoning` is all that follows "step by step.", the blank or line break included."""

    question: str
    reasoning: str

    @property
    def answer(self) -> str:
        return extract(self.reasoning, cot=True) or ""


@dataclass(frozen=True, slots=True)
class Task:
    """`rows`: (input, target) in the order of the file. `description` and `exemplars` are those of its prompt file."""

    rows: tuple[tuple[str, str], ...]
    description: str
    exemplars: tuple[Exemplar, ...]


def read_folder(folder: Path, tasks: Sequence[str]) -> dict[str, Task]:
    """These tasks from a checkout of BIG-Bench-Hard (bbh/*.json and cot-prompts/*.txt), or from either of these two folders of it;
    a folder of prompts alone takes the items from the hub. Raises DataError naming what is missing, or file and row of what is
    malformed."""
    if not folder.is_dir():
        raise DataError(f"BBH folder {folder} does not exist; git clone {CHECKOUT} and give the folder it makes")
    root = next((f for f in (folder, folder.parent) if (f / "bbh").is_dir() and (f / "cot-prompts").is_dir()), None)
    if root is None:
        if not any(folder.glob("*.txt")):
            raise DataError(f"{folder} is not a checkout of BIG-Bench-Hard (no bbh/*.json and cot-prompts/*.txt) nor its cot-prompts folder; git clone {CHECKOUT} and give the folder it makes")
        prompts = _files(folder, ".txt", tasks)
        rows = {task: read_hub(task) for task in tasks}
    else:
        items, prompts = _files(root / "bbh", ".json", tasks), _files(root / "cot-prompts", ".txt", tasks)
        rows = {task: _rows(items[task]) for task in tasks}
    return {task: Task(rows[task], *_prompt(prompts[task])) for task in tasks}


def _files(folder: Path, ending: str, tasks: Sequence[str]) -> dict[str, Path]:
    files = {task: folder / f"{task}{ending}" for task in tasks}
    missing = [task for task, file in files.items() if not file.is_file()]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of {len(tasks)} tasks: {', '.join(f'{t}{ending}' for t in missing)}; git clone {CHECKOUT} again, or name only those that are there in `tasks`")
    return files


def _rows(file: Path) -> tuple[tuple[str, str], ...]:
    try:
        examples = json.loads(file.read_text(encoding="utf-8"))["examples"]
        if not isinstance(examples, list) or not examples:
            raise ValueError("it has no examples")
    except (ValueError, KeyError, TypeError) as bad:
        raise DataError(f"{file} is not a BBH task file ({type(bad).__name__}: {bad}); it must be a JSON object with a list `examples`") from None
    for number, row in enumerate(examples):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) and row[key].strip() for key in ("input", "target")):
            raise DataError(f"{file}, example {number}: {str(row)[:80]!r} is not an object with the texts `input` and `target`; mend it or download the file again")
    return tuple((row["input"], row["target"]) for row in examples)


def _prompt(file: Path) -> tuple[str, tuple[Exemplar, ...]]:
    """Description and exemplars of a prompt file: a canary line, a line "-----", then the body."""
    _, line, body = file.read_text(encoding="utf-8").partition("\n-----\n")
    description, *examples = body.split(NEXT)
    parts = [example.partition(THINK) for example in examples]
    if not line or not examples or not all(think for _, think, _ in parts):
        raise DataError(f"{file} is not a BBH prompt file (a canary line, a line of five dashes, a description, examples with \"Let's think step by step.\"); download it again")
    exemplars = tuple(Exemplar(question, reasoning) for question, _, reasoning in parts)
    for number, exemplar in enumerate(exemplars, 1):
        if not exemplar.answer:
            raise DataError(f"{file}, worked example {number}: it does not say \"the answer is ...\"; download the file again")
    return description, exemplars


def read_hub(task: str) -> tuple[tuple[str, str], ...]:
    """The items of one task from the Hugging Face hub. DataError says why not, and what to download instead."""
    try:
        data = HubPool(name=HUB, config=task, split="test").load()
        return tuple(zip(data["input"], data["target"], strict=True))
    except (DataError, ConfigError, KeyError) as bad:
        raise DataError(f"BBH is not at hand: no folder was given and the hub gave none ({str(bad).split(';')[0]}); git clone {CHECKOUT} and set bbh_dir (in a study: folder) to it") from None


def wheel_exemplars(tasks: Sequence[str]) -> dict[str, tuple[str, tuple[Exemplar, ...]]] | None:
    """Description and exemplars of each task as the installed lm-eval ships them (found, not imported); None if it is not there.

    They are the official prompt files' but for sports_understanding, whose reasoning goes on after a blank there, not on a new line.
    """
    import yaml

    package = importlib.util.find_spec("lm_eval")
    folder = Path(package.submodule_search_locations[0]) / "tasks/bbh/cot_fewshot" if package and package.submodule_search_locations else None
    if folder is None or not all((folder / f"{task}.yaml").is_file() for task in tasks):
        return None
    found = {}
    for task in tasks:
        raw = yaml.safe_load((folder / f"{task}.yaml").read_text(encoding="utf-8"))
        gap = " " if task == "sports_understanding" else "\n"
        samples = raw["fewshot_config"]["samples"]
        found[task] = raw["description"].rstrip("\n"), tuple(Exemplar(s["input"], gap + s["target"]) for s in samples)
    return found
