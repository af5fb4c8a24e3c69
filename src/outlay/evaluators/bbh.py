"""BIG-Bench Hard (Suzgun et al. 2022, arXiv 2210.09261): items, and prompts equal to the official ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..errors import ConfigError, DataError
from .answers import options_in
from .bbh_data import CHECKOUT, NEXT, TASKS, THINK, WHEEL, Exemplar, Task, read_folder, read_hub, wheel_exemplars
from .items import Benchmark, Item, chosen_tasks, draw

# Variants that the paper counts as one task each: 27 files, 23 tasks.
FAMILIES = ("logical_deduction", "tracking_shuffled_objects")
Smoke = Literal["never", "fallback", "only"]


def bbh(
    *, folder: Path | None = None, tasks: Sequence[str] = (), max_items: int | None = None, cot: bool = True, shots: int | None = None, seed: int = 0, smoke: Smoke = "never"
) -> Benchmark:
    """The items of BBH. folder: a checkout of BIG-Bench-Hard, or its cot-prompts folder; without one $OUTLAY_DATA/bbh is taken, then
    the hub (with the prompts of the lm-eval wheel). max_items: of each task, drawn by hash(seed, row). cot: with reasoning, else
    answer-only. shots: worked examples, the first ones of the prompt file (default: all three).

    smoke: the exemplars themselves as questions, each asked with the two others of its task, "fallback" where nothing else is at
    hand. Raises DataError for data that is missing or malformed, ConfigError for an unknown task or too many shots.
    """
    wanted = chosen_tasks("BBH", tasks, TASKS)
    if max_items is not None and max_items < 1:
        raise ConfigError(f"BBH: max_items = {max_items}; it must be at least 1, or null for all")
    found, note, is_smoke = _source(folder, wanted, smoke)
    items, flaws = {}, {}
    for name, task in found.items():
        faults = flaws_of(task.rows)
        items[name] = []
        for row in draw(name, len(task.rows), max_items, seed):
            question, target = task.rows[row]
            examples = [e for e in task.exemplars if e.question != question] if is_smoke else list(task.exemplars)
            prompt = render(task.description, _first(name, examples, shots), question, cot=cot)
            items[name].append(Item(f"{name}/{row}", name, prompt, target, question))
            if row in faults:
                flaws[f"{name}/{row}"] = faults[row]
    if not is_smoke:
        note += f" ({sum(len(task.rows) for task in found.values()):,} items)"
    return Benchmark("bbh", items, "reasoned" if cot else "direct", alike=not is_smoke, notes=(note,), flaws=flaws)


def render(description: str, examples: Sequence[Exemplar], question: str, *, cot: bool) -> str:
    """The prompt as it is sent: description, worked examples, the question. With reasoning and all examples it is the official one,
    character by character."""
    shown = [f"{NEXT}{e.question}{THINK}{e.reasoning}" if cot else f"{NEXT}{e.question}\nA: {e.answer}" for e in examples]
    return description + "".join(shown) + NEXT + question + (THINK if cot else "\nA:")


def flaws_of(rows: Sequence[tuple[str, str]]) -> dict[int, str]:
    """Row -> why no answer to it can be right for sure: the target is no option, options are missing or equal, or the same input
    has another target elsewhere."""
    lettered = sum(bool(options_in(question)) for question, _ in rows) > len(rows) / 2
    targets: dict[str, set[str]] = {}
    for question, target in rows:
        targets.setdefault(question, set()).add(target)
    found = {}
    for row, (question, target) in enumerate(rows):
        options = options_in(question)
        why = []
        if lettered and target not in {f"({letter})" for letter in options}:
            why.append(f"the target {target!r} is none of its options")
        if lettered and len(options) < 2:
            why.append(f"it has {len(options)} of its options")
        if len(set(options.values())) < len(options):
            why.append("two options have the same text")
        if len(targets[question]) > 1:
            why.append("the same question occurs with another target")
        if why:
            found[row] = "; ".join(why)
    return found


def _first(task: str, examples: Sequence[Exemplar], shots: int | None) -> Sequence[Exemplar]:
    if shots is not None and not 0 <= shots <= len(examples):
        raise ConfigError(f"BBH: shots = {shots}, and task {task} has {len(examples)} worked examples; choose 0 to {len(examples)}")
    return examples[:shots]


def _source(folder: Path | None, tasks: Sequence[str], smoke: Smoke) -> tuple[dict[str, Task], str, bool]:
    """(tasks, a line that says where they are from, whether it is the smoke set)."""
    if folder is None and os.environ.get("OUTLAY_DATA"):
        at_hand = Path(os.environ["OUTLAY_DATA"]) / "bbh"
        folder = at_hand if at_hand.is_dir() else None
    if smoke != "only":
        if folder is not None:
            return read_folder(folder, tasks), f"BBH from {folder}", False
        try:
            return _hub(tasks), "BBH from the hub, prompts from the lm-eval wheel", False
        except DataError:
            if smoke == "never":
                raise
    prompts = wheel_exemplars(tasks)
    if prompts is None:
        raise DataError(f"neither BBH nor its smoke set is at hand; git clone {CHECKOUT} and set bbh_dir to it, or for the smoke set: {WHEEL}")
    found = {task: Task(tuple((e.question, e.answer) for e in exemplars), description, exemplars) for task, (description, exemplars) in prompts.items()}
    size = sum(len(task.rows) for task in found.values())
    return found, f"a smoke set, not BBH: the {size} worked examples of its prompts as questions, each after the others of its task", True


def _hub(tasks: Sequence[str]) -> dict[str, Task]:
    rows = {task: read_hub(task) for task in tasks}
    prompts = wheel_exemplars(tasks)
    if prompts is None:
        raise DataError(f"the hub has the questions of BBH but not its prompts; get them with: {WHEEL}, or git clone {CHECKOUT} and set bbh_dir to it")
    return {task: Task(rows[task], *prompts[task]) for task in tasks}
