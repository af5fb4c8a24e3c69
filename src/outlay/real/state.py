"""Where a campaign stands, read off its run directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

import numpy as np

from .. import growth, seeds
from ..measure import agree, audit, effort, forecast
from ..measure.stats import Interval, accuracy_interval
from ..oracles import handoff
from ..oracles.mixed import answered, probes
from ..types import Annotation, Batch, Evaluation, Floats, Selection
from .setup import DEV, Live

AHEAD = 50  # prompts that the forecast looks ahead


@dataclass(frozen=True, slots=True)
class Stage:
    """The dev set (number 0) or a round. `asked` prompts were handed over; `waiting` of their judgements are still to come; `judgements`
    are those that came back, or what a simulated annotator gave. Of a round whose batch was taken: `bought` prompts, `sliced` of them
    in the random slice, `skipped` ones, `paid` judgements, of them `by_machine`, and the dollars that they brought along (an API's bill). `trained`: its model is there. `audit`: the model before this round on the
    pool; `chosen`, `slice_right`: whether it was right on each chosen prompt, and on each of the slice."""

    number: int
    asked: int
    waiting: int
    judgements: tuple[Annotation, ...]
    taken: bool
    bought: int = 0
    sliced: int = 0
    skipped: int = 0
    paid: int = 0
    by_machine: int = 0
    usd: float = 0.0
    trained: bool = False
    dev: Evaluation | None = None
    audit: audit.Audit | None = None
    chosen: tuple[float, ...] = ()
    slice_right: tuple[float, ...] = ()

    @property
    def dev_accuracy(self) -> Interval | None:
        return accuracy_interval(self.dev.columns["correct"]) if self.dev else None


@dataclass(frozen=True)
class State:
    """Every stage that was begun, the dev set first where one is bought; accuracy of the base on the dev set, where it is known."""

    live: Live
    stages: tuple[Stage, ...]
    base: Evaluation | None

    @property
    def rounds(self) -> list[Stage]:
        return [stage for stage in self.stages if stage.number]

    @property
    def open(self) -> list[Stage]:
        """Stages that wait for people."""
        return [stage for stage in self.stages if stage.waiting and not stage.taken]

    @property
    def paid(self) -> int:
        """Judgements paid so far, those of open hand-offs included."""
        return sum(stage.paid for stage in self.stages)

    @property
    def usd(self) -> float:
        """Dollars paid so far: people's judgements at the config's price, and what machines billed."""
        return self.live.config.prices.per_annotation * sum(s.paid - s.by_machine for s in self.stages) + sum(s.usd for s in self.stages)

    @property
    def finished(self) -> bool:
        """Whether the last round's model is there, or the money was spent before."""
        return self.live.ended

    @cached_property
    def fit(self) -> effort.Fit:
        """What judgements cost, from all answers so far; for budgets in minutes or dollars."""
        return self.live.ledger.fit(1 + max((stage.number for stage in self.stages), default=0))

    def asked(self, stage: Stage) -> list[str]:
        """Ids of the prompts that a stage handed over."""
        return [line["id"] for line in handoff.requests(handoff.folder(self.live.root, stage.number))]

    @property
    def running_audit(self) -> Interval | None:
        found = [stage.audit for stage in self.rounds if stage.audit]
        return audit.running(found) if len(found) > 1 else None

    @property
    def agreement(self) -> agree.Agreement:
        return agree.agreement([a for stage in self.stages for a in stage.judgements])

    @property
    def machine(self) -> Interval | None:
        """Share of the probes on which the machine gave the same answer as people (blanks apart); None where there is none."""
        pairs = probes([handoff.folder(self.live.root, stage.number) for stage in self.rounds])
        return accuracy_interval([any(agree.words(a) == agree.words(b) for b in people) for a, people in pairs]) if pairs else None

    @property
    def by_annotator(self) -> Counter[str]:
        return Counter(a.annotator or "(no name)" for stage in self.stages for a in stage.judgements if a.kind != "skip")

    @property
    def pace(self) -> float | None:
        """Median seconds of a judgement; None where no time was taken."""
        taken = [a.seconds for stage in self.stages for a in stage.judgements if a.seconds > 0]
        return median(taken) if taken else None

    def points(self) -> tuple[list[int], np.ndarray]:
        """(prompts behind each trained round's model, (rounds, items) whether it was right on each dev item)."""
        labels, rows, total = [], [], 0
        for stage in self.rounds:
            total += stage.bought
            if stage.trained and stage.dev is not None:
                labels.append(total)
                rows.append(np.asarray(stage.dev.columns["correct"], dtype=np.float64))
        return labels, np.array(rows)

    def forecast(self) -> Interval | None:
        """Dev accuracy that the next AHEAD prompts are expected to add; None where it is unknown."""
        labels, table = self.points()
        if len(labels) < forecast.POINTS:
            return None
        return forecast.gain(labels, table, AHEAD, rng=seeds.generator(self.live.campaign.seed, "forecast"))


def state_of(live: Live) -> State:
    """The state of a campaign. Nothing is written."""
    store = live.store
    base = "shared/base/evaluation-dev.parquet"
    evaluation = store.read(base, Evaluation) if (store.root / base).exists() else None
    return State(live, tuple(_stages(live)), evaluation)


def _stages(live: Live) -> Iterator[Stage]:
    if live.config.dev_items:
        yield _stage(live, 0, DEV)
    share, closed = len(live.bench.rows(live.campaign.seed)), 0
    earlier: list[Floats] = []
    for number, folder in enumerate(live.folders, 1):
        if not (live.root / folder / "selection.json").exists() or not live.store.read(f"{folder}/selection.json", Selection).ids:
            return
        left = growth.reach(live.bench.grown(), share, number) - closed
        yield _round(live, number, folder, left, np.concatenate([np.empty(0), *earlier]))
        if (live.root / folder / "batch.json").exists():
            closed += len(live.store.read(f"{folder}/batch.json", Batch).annotations)
        if (live.root / folder / "before.parquet").exists():
            earlier.append(_right(live.store.read(f"{folder}/before.parquet", Evaluation)))


def _stage(live: Live, number: int, path: str) -> Stage:
    """What the hand-off and the batch of a stage say."""
    where = handoff.folder(live.root, number)
    back = tuple(handoff.collected(where))
    machine = answered(where)
    by_machine = sum(a.kind != "skip" for a in machine)
    asked, waiting = len(handoff.requests(where)), sum(handoff.waiting(where).values())
    if not (live.root / path).exists():
        paid = sum(a.kind != "skip" for a in back) + by_machine
        return Stage(number, asked, waiting, back, taken=False, paid=paid, by_machine=by_machine, usd=sum(a.usd for a in [*back, *machine]))
    batch = live.store.read(path, Batch)
    got = [a for a in batch.annotations if a.kind != "skip"]
    skipped = len(batch.annotations) - len(got)
    seen = back or batch.annotations
    return Stage(number, len(batch.annotations), waiting, seen, taken=True, bought=len(got), skipped=skipped, paid=batch.cost.labels, by_machine=by_machine, usd=batch.cost.usd)


def _round(live: Live, number: int, folder: str, left: int, earlier: Floats) -> Stage:
    stage, store = _stage(live, number, f"{folder}/batch.json"), live.store
    selection = store.read(f"{folder}/selection.json", Selection)
    stage = replace(stage, trained=(live.root / folder / "model.json").exists())
    if (live.root / folder / "evaluation-dev.parquet").exists():
        stage = replace(stage, dev=store.read(f"{folder}/evaluation-dev.parquet", Evaluation))
    if (live.root / folder / "before.parquet").exists():
        before = store.read(f"{folder}/before.parquet", Evaluation)
        sliced = np.isin(before.columns["id"], selection.ids[len(selection.ids) - selection.audit :])
        right = _right(before)
        found = audit.audit(right[sliced], earlier, left) if sliced.any() else None
        stage = replace(stage, sliced=int(sliced.sum()), audit=found, chosen=tuple(right[~sliced]), slice_right=tuple(right[sliced]))
    return stage


def _right(evaluation: Evaluation) -> Floats:
    return np.asarray(evaluation.columns["correct"], dtype=np.float64)
