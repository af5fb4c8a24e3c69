"""People and a machine together: the machine answers a share of each batch, and people check some of what it answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import registry, seeds
from ..errors import ConfigError
from ..types import Annotation, Batch, Cost, Request
from . import handoff
from .human import Human

FILE = "machine.jsonl"  # beside the requests to people, a line for every prompt: what the machine answered, and whether people check it


@registry.register("oracle", "mixed")
@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A machine (`machine`: another oracle, such as llm) answers a random `share` of the prompts of each round, people the rest and the dev
    set. People also answer a random share `probe` of the machine's prompts, without seeing its answer: that measures it, and theirs is
    kept. A probe is paid twice; the campaign sets `quota`, so many probes are in its budget.
    """

    run: Path
    vault: Path
    journal: Path
    machine: str | dict[str, Any]
    share: float = 0.5
    probe: float = 0.1
    quota: int = 0

    def __post_init__(self) -> None:
        for name in ("share", "probe"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"oracle 'mixed', option '{name}' = {getattr(self, name):g}: it must be a share between 0 and 1")
        self._part()

    def __call__(self, requests: Sequence[Request]) -> Batch:
        """One annotation a request. The machine is asked first; AwaitingAnnotations until people have answered, too."""
        folder = handoff.folder(self.run, requests[0].round)
        shared = {line["prompt_id"]: line for line in handoff.lines(folder / FILE)}
        if requests[0].round and (fresh := [r for r in requests if r.prompt.id not in shared]):
            shared |= self._share_out(fresh, folder, again=bool(shared))
        machine = {r.prompt.id: handoff.annotation(shared[r.prompt.id]) for r in requests if "probe" in shared.get(r.prompt.id, {})}
        checked = {key for key in machine if shared[key]["probe"]}
        mine = [replace(r, drafts=()) if r.prompt.id in checked else r for r in requests if r.prompt.id not in machine or r.prompt.id in checked]
        people = Human(run=self.run)(mine) if mine else Batch(())
        given = {a.prompt_id: a for a in people.annotations if a.kind != "skip" or a.prompt_id not in machine}
        cost = Cost(labels=sum(a.kind != "skip" for a in machine.values()), usd=sum(a.usd for a in machine.values()))
        return Batch(tuple((machine | given)[r.prompt.id] for r in requests), people.cost + cost)

    def _share_out(self, requests: Sequence[Request], folder: Path, *, again: bool) -> dict[str, dict[str, Any]]:
        """Draw who is asked, let the machine answer its share, and draw the probes: all of it on the disk before people are asked. What is
        asked again has no probes."""
        order = np.argsort(seeds.lottery(0, [r.prompt.id for r in requests], "machine"), kind="stable")
        count = int(self.share * len(requests))
        chosen, rest = [requests[i] for i in order[:count]], [requests[i] for i in order[count:]]
        used = sum(line.get("probe", False) for where in (self.run / "handoff").glob("round-*") for line in handoff.lines(where / FILE))
        probes = 0 if again else min(int(self.probe * len(chosen)), self.quota - used)
        answers = self._part()(chosen).annotations if chosen else ()
        lines = [asdict(a) | {"probe": i < probes} for i, a in enumerate(answers)]
        lines += [{"prompt_id": r.prompt.id} for r in rest]
        handoff.write(folder / FILE, [*handoff.lines(folder / FILE), *lines])
        return {line["prompt_id"]: line for line in lines}

    def _part(self) -> Any:
        name = registry.parse(self.machine)[0]
        if "run" in (takes := registry.card("oracle", name).options):
            raise ConfigError(f"oracle 'mixed': '{name}' waits for people, and is no machine; name llm, noisy or replay")
        return registry.build("oracle", self.machine, **{key: getattr(self, key) for key in ("vault", "journal") if key in takes})


def answered(folder: Path) -> list[Annotation]:
    """What the machine answered in this hand-off."""
    return [handoff.annotation(line) for line in handoff.lines(folder / FILE) if "probe" in line]


def probes(folders: Sequence[Path]) -> list[tuple[Annotation, list[Annotation]]]:
    """What the machine answered on the probes of these hand-offs, and what people answered to the same prompts."""
    found = []
    for folder in folders:
        by_people: dict[str, list[Annotation]] = {}
        for a in handoff.collected(folder):
            if a.kind == "response":
                by_people.setdefault(a.prompt_id, []).append(a)
        found += [(handoff.annotation(line), by_people[line["prompt_id"]]) for line in handoff.lines(folder / FILE) if line.get("probe") and line["prompt_id"] in by_people]
    return found
