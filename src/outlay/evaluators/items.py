"""The items of a benchmark: what is asked, and what would be right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import ConfigError, near
from ..seeds import lottery


@dataclass(frozen=True, slots=True)
class Item:
    """`id`: "task/row", the row as in the benchmark's file. `prompt`: all that the model reads. `target`: what would be right, as the
    strict rule compares it. `question`: the last question of the prompt alone.

    `choices`: the texts whose likelihood is compared, where nothing is generated; `target` is then one of `labels`, which name them.
    """

    id: str
    task: str
    prompt: str
    target: str
    question: str
    choices: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Items by task. `answers`: "reasoned" (after a marker), "direct" (the whole response), or "chosen" (the likeliest choice,
    per character where `per_character`). `alike`: the prompts of a task share a long beginning. `notes`: what a reader of the numbers must know, one line each. `flaws`: item id -> why it
    cannot be scored right, or is doubtful."""

    name: str
    tasks: dict[str, list[Item]]
    answers: str
    per_character: bool = False
    alike: bool = True
    notes: tuple[str, ...] = ()
    flaws: Mapping[str, str] = field(default_factory=dict)

    @property
    def items(self) -> list[Item]:
        return [item for items in self.tasks.values() for item in items]

    @property
    def fingerprint(self) -> str:
        """Hash of ids, prompts, targets and choices in order."""
        digest = hashlib.sha256()
        for item in self.items:
            for value in (item.id, item.prompt, item.target, *item.choices):
                raw = value.encode()
                digest.update(len(raw).to_bytes(8, "big") + raw)
        return digest.hexdigest()[:16]


def draw(task: str, rows: int, most: int | None, seed: int) -> list[int]:
    """At most `most` row numbers of a task in their order, drawn by hash: a larger `most` keeps those that a smaller one has."""
    if most is None or most >= rows:
        return list(range(rows))
    numbers = lottery(seed, [f"{task}/{row}" for row in range(rows)], "items")
    return sorted(sorted(range(rows), key=numbers.__getitem__)[:most])


def chosen_tasks(kind: str, wanted: Sequence[str], known: Iterable[str]) -> list[str]:
    """The wanted tasks in the benchmark's order; all where none is named. ConfigError names an unknown one."""
    known = list(known)
    for task in wanted:
        if task not in known:
            raise ConfigError(f"{kind} has no task '{task}'; {near(task, known)}")
    return [task for task in known if not wanted or task in wanted]
