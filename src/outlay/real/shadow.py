"""The shadow arm: what random prompts alone would have taught, beside what the strategy chose, at equal numbers of labels.

Models are trained cold on the answers of the random sample (see `outlay.slices`) and on as many of those that the strategy chose, drawn at random, and
graded on the dev set. So are models of four disjoint parts of each: what they differ by says how much hangs on the draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from .. import seeds, slices
from ..campaign import Desk, discard, train
from ..measure.contrasts import single
from ..measure.stats import Interval
from ..types import Annotation, Batch, Cost, Evaluation, Selection
from .setup import DEV_TABLE, Live

ARMS = ("random", "chosen")
PARTS = 4  # of each arm
LEAST = 2 * PARTS  # labels of an arm


@dataclass(frozen=True, slots=True)
class Lessons:
    """What was trained on: ids of each arm, equally many, in random order. `cost`: of all trainings and gradings; it is measurement."""

    random: tuple[str, ...]
    chosen: tuple[str, ...]
    cost: Cost


@dataclass(frozen=True, slots=True)
class Comparison:
    """After round `round`, with `labels` on each arm: dev accuracies as fractions, and chosen minus random (n: dev items)."""

    round: int
    labels: int
    random: float
    chosen: float
    difference: Interval

    def words(self, strategy: str) -> str:
        """The verdict and what it rests on."""
        d = self.difference
        verdict = f"cannot tell whether {strategy} teaches more than random"
        if d.low > 0:
            verdict = f"{strategy} is worth it"
        elif d.high < 0:
            verdict = f"{strategy} is not worth it, random prompts teach more"
        return (
            f"{verdict}: by the shadow arm after round {self.round}, at equal numbers of labels ({self.labels} each), dev accuracy is {100 * self.chosen:.1f} % with what was chosen and {100 * self.random:.1f} % with random prompts "
            f"(n = {d.n}): {100 * d.mean:+.1f} points, 95 % interval {100 * d.low:+.1f} to {100 * d.high:+.1f}, paired over dev items, and with the draw of the labels in it"
        )


def samples(live: Live, number: int) -> tuple[list[Annotation], list[Annotation]]:
    """Answers that rounds 1 to `number` bought, in random order: those of the random sample, whoever took them, and those that the strategy chose."""
    answers: dict[str, Annotation] = {}
    sliced: set[str] = set()
    for folder in live.folders[:number]:
        selection = live.store.read(f"{folder}/selection.json", Selection)
        sliced.update(selection.ids[len(selection.ids) - selection.audit :])
        answers |= {a.prompt_id: a for a in live.store.read(f"{folder}/batch.json", Batch).annotations if a.kind != "skip"}
    campaign, pool = live.campaign, live.bench.pool()
    ids = [pool.ids[row] for row in live.bench.rows(campaign.seed)]
    sample = slices.sample(campaign.seed, ids, live.config.slice_share, campaign.sizes[:number])
    chosen = [key for key in answers if key not in sliced]
    drawn = dict(zip(chosen, seeds.lottery(campaign.seed, chosen, "shadow", "chosen"), strict=True))
    return [answers[ids[row]] for row in sample if ids[row] in answers], [answers[key] for key in sorted(chosen, key=drawn.__getitem__)]


def compare(live: Live, number: int, say: Callable[[str], None]) -> None:
    """Train, grade and keep what is compared after round `number`, whose model is there; nothing with fewer than LEAST answers of an arm, or
    two dev items. Killed and repeated, it goes on with the model that it was at. For the holder of the run's lock."""
    folder = f"{live.folders[number - 1]}/shadow"
    if not live.config.shadow or (live.root / f"{folder}.json").exists():
        return
    arms = samples(live, number)
    labels = min(map(len, arms))
    if labels < LEAST or live.dev_answers() < 2:
        return
    say(f"shadow arm: {plan(labels)}")
    desk = live.bench.desk(live.campaign, list(live.folders), len(live.folders))
    cost = Cost()
    for name, arm in zip(ARMS, arms, strict=True):
        for part, lesson in _lessons(arm[:labels], name):
            cost += live.store.keep(f"{folder}/{part}.parquet", Evaluation, partial(_graded, live, desk, lesson, folder, part)).cost
    live.store.write(f"{folder}.json", Lessons(*(tuple(a.prompt_id for a in arm[:labels]) for arm in arms), cost))


def plan(labels: int) -> str:
    """What is trained with so many answers of the random sample."""
    return f"{len(ARMS) * (1 + PARTS)} trainings, of {labels} labels or a quarter of them"


def _lessons(arm: Sequence[Annotation], name: str) -> list[tuple[str, Sequence[Annotation]]]:
    return [(name, arm), *((f"{name}-{at}", arm[at::PARTS]) for at in range(PARTS))]


def _graded(live: Live, desk: Desk, lesson: Sequence[Annotation], folder: str, name: str) -> Evaluation:
    """The dev set's grades of a model that is trained for that and not kept."""
    model = train(desk, live.campaign.seed, desk.base, None, lesson, folder, name)
    where = live.root / str(model.weights)
    found = live.grade(replace(model, weights=str(where)), DEV_TABLE, "dev")
    discard(where)
    return replace(found, cost=found.cost + model.cost)


def comparison(live: Live) -> Comparison | None:
    """The latest one that was made; None where there is none."""
    for number in range(live.trained(), 0, -1):
        folder = f"{live.folders[number - 1]}/shadow"
        if (live.root / f"{folder}.json").exists():
            labels = len(live.store.read(f"{folder}.json", Lessons).random)
            right = {name: [live.store.read(f"{folder}/{part}.parquet", Evaluation).columns["correct"] for part, _ in _lessons((), name)] for name in ARMS}
            random, chosen = right["random"], right["chosen"]
            return Comparison(number, labels, float(random[0].mean()), float(chosen[0].mean()), single(chosen[0], random[0], chosen[1:], random[1:]))
    return None
