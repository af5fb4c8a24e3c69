"""`outlay campaign plan`: price and days before anything is asked, and a suggestion with its reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import pools, registry, seeds, slices
from ..config import StudyConfig, validate_as
from ..errors import ConfigError
from ..measure.forecast import POINTS
from ..measure.stats import Interval, paired_difference
from ..store import Store, fingerprint, write_atomic
from ..study import run_study
from . import money, setup, shadow
from .config import CampaignConfig, Sum
from .status import count

SMALL = 25  # prompts of a batch, below which a round is hardly worth its wait


@dataclass(frozen=True, slots=True)
class Cell:
    """What the replay found of a strategy and a number of rounds: mean test accuracy over seeds; and minus random at once, seed by seed, with
    an interval that holds for all cells together (Bonferroni); None for random at once itself."""

    strategy: str
    rounds: int
    accuracy: float
    difference: Interval | None


def lines(config: CampaignConfig, root: Path, *, quiet: bool = False) -> Iterator[str]:
    """The plan in sentences, one a line. Runs (or resumes) the replay in RUN/replay where the config names a sample."""
    asked, table = config, setup.pool_table(config)
    config = setup.counted(asked, table)
    setup.check(config)
    setup.check_size(config, table.num_rows)
    yield from cost(config, table.num_rows)
    if isinstance(asked.budget, Sum):
        yield money.words(config, asked.budget, pools.pool_of("pool", table))
    if asked.per_cost:
        yield f"  ranked by {asked.how}, so cheap prompts are preferred and more of them are bought than that" + ("; the replay counts prompts and ranks by the score alone" if asked.sample is not None else "")
    if config.sample is None:
        yield from reasons(config)
        return
    cells, seeds_run, budget = replay(config, root / "replay", quiet=quiet)
    yield from found(cells, seeds_run, budget)
    chosen, why = suggest(cells)
    said = f"{chosen.strategy} in {count(chosen.rounds, 'round')}: {why}"
    yield f"suggestion: {said}"
    if chosen.strategy == "random":
        yield f"  more rounds do not change what random buys; they let you stop early: `status` forecasts from {POINTS} trained rounds on (the config has {config.rounds})"
    elif (chosen.strategy, chosen.rounds) != (config.strategy, config.rounds):
        yield f"  the config says {config.strategy} in {count(config.rounds, 'round')}; to change it: strategy: {chosen.strategy}, rounds: {chosen.rounds}"
    Store(root).write("replay.json", {"verdict": f"by replay on {count(budget, 'labelled prompt')} of the sample, {said}"})


def cost(config: CampaignConfig, prompts: int) -> Iterator[str]:
    """Price and days."""
    k, price, sizes = config.annotators.per_item, config.prices.per_annotation, config.sizes
    yield f"campaign {config.name}: {config.strategy}, {count(config.rounds, 'round')} of {', '.join(map(str, sizes))} prompts out of {prompts}"
    random = sum(slices.size(config.slice_share, size) for size in sizes)
    most, least = (" up to", " at least") if config.shadow else ("", "")  # what the strategy takes itself is not bought again
    left = config.budget - k * config.items
    yield (
        f"budget: {count(config.budget, 'judgement')}, ${config.budget * price:,.2f} at ${price:,.2f} each: dev set {k * config.dev_items}, random slices{most} {k * random}, "
        f"chosen{least} {k * (config.buys - random)}" + (f", probes of the machine {config.probes}" if config.probes else "") + (f", {left} left over since each prompt needs {k}" if left else "")
    )
    if config.shadow:
        yield f"shadow arm: {shadow.plan(random)}, {'after each round' if config.shadow_each_round else 'by finish'}"
    yield f"days: {days(config)}"
    if config.prices.per_day_of_delay and config.prices.days_per_round is not None:
        yield f"price of the delay: ${config.prices.per_day_of_delay * config.prices.days_per_round * config.rounds:,.2f}"


def days(config: CampaignConfig) -> str:
    """How long people take, in words."""
    people, k = config.annotators, config.annotators.per_item
    if people.per_day is not None:
        batches = [k * size for size in config.sizes]
        batches[0] += k * config.dev_items
        each = [math.ceil(batch / (people.people * people.per_day)) for batch in batches]
        return f"{sum(each)} ({', '.join(map(str, each))} a round, the dev set in the first one; {people.people} people, {people.per_day:g} judgements a day each), and the model's time between rounds"
    if config.prices.days_per_round is not None:
        return f"{config.rounds * config.prices.days_per_round:g} ({config.prices.days_per_round:g} a round), and the model's time between rounds"
    return "unknown; set annotators.per_day (judgements a person gives in a day) or prices.days_per_round"


def reasons(config: CampaignConfig) -> Iterator[str]:
    """A suggestion without data: rules of thumb, and said to be that."""
    rounds = max(1, min(POINTS + 1, config.buys // SMALL))
    yield f"suggestion: {count(rounds, 'round')} (a rule of thumb: nothing was measured on your data)"
    yield f"  a batch below about {SMALL} prompts is hardly worth the wait and a training; {config.buys} prompts make {config.buys // SMALL or 1}"
    if rounds > POINTS:
        yield f"  from the third round on, `status` can say what more annotations would bring: stop when that is little. So {POINTS + 1} rounds rather than one, and not many more: each is a wait for your annotators"
    yield f"  strategy: the config says {config.strategy}. In our own measurements several rounds of min_margin or badge beat random in one world, on a skewed pool and on a balanced one (docs/study/tiny.md), nothing did in another (docs/study/smollm2-flan.md), and a single round of mean_entropy was worse than random on the skewed pool and in the other world (there by likelihood)"
    yield "  to choose by data: name some hundred labelled prompts like the pool's as `sample`, and this command replays strategies on them"


def replay(config: CampaignConfig, root: Path, *, quiet: bool = False) -> tuple[list[Cell], int, int]:
    """Strategies and numbers of rounds on the labelled sample, as a study. -> (cells, seeds, prompts bought in the replay)."""
    table = pools.check("sample", registry.build("pool", config.sample)())
    if not all(answer.strip() for answer in table.column("response").to_pylist()):
        raise ConfigError("sample: some of its prompts have no response; a replay needs labelled ones")
    drawn = np.argsort(seeds.lottery(config.seed, table.column("id").to_pylist(), "replay"), kind="stable")
    tests = max(1, round(config.replay.test_share * table.num_rows))
    share = int(0.8 * (table.num_rows - tests))  # each seed has its own part of the pool
    budget = min(config.buys, share // 2)
    if budget < max(config.replay.rounds):
        raise ConfigError(f"sample: {table.num_rows} prompts leave {budget} to buy in a replay of {max(config.replay.rounds)} rounds; name a larger sample, or fewer replay.rounds")
    parts = {"test": table.take(np.sort(drawn[:tests])), "pool": table.take(np.sort(drawn[tests:]))}
    fixed = config.model_dump(mode="json", include={"model", "scorer", "trainer", "runtime", "embedding", "scored_share", "shard", "start"})
    if config.judgements == "preferences":
        fixed["judgements"] = config.judgements
    home = root / fingerprint([fixed, config.grader, share, {name: part.to_pydict() for name, part in parts.items()}])  # another sample or trainer is another replay
    for name, part in parts.items():
        if not (home / f"{name}.parquet").exists():
            write_atomic(home / f"{name}.parquet", setup.parquet(part))
    run_study(_study(config, home, share, budget), home / "study", quiet=quiet)
    return *_cells(home / "study", budget), budget


def _study(config: CampaignConfig, home: Path, share: int, budget: int) -> StudyConfig:
    def file(name: str) -> dict[str, Any]:
        return {"use": "file", "path": str(home / f"{name}.parquet"), "text": "text", "response": "response", "group": "group", "id": "id"}

    use, options = registry.parse(config.grader)
    values = config.model_dump(mode="json", include={"model", "scorer", "trainer", "judgements", "runtime", "embedding", "scored_share", "shard"})
    values["oracle"] = "judge" if config.judgements == "preferences" else "replay"  # by the sample's responses
    rounds = sorted({1, *config.replay.rounds, config.rounds} & set(range(1, budget + 1)))
    values |= {"name": "replay", "pool": file("pool"), "pool_per_seed": share, "evaluators": {"test": {"use": use, **options, "source": file("test")}}}
    values |= {"strategies": list(dict.fromkeys(["random", *config.replay.strategies, config.strategy])), "rounds": rounds, "starts": [config.start]}
    return validate_as(StudyConfig, values | {"seeds": config.replay.seeds, "budgets": [budget], "reference_curve": False, "executor": "serial"}, "replay")


def _cells(root: Path, budget: int) -> tuple[list[Cell], int]:
    """The cells of this budget, also those that an earlier call asked for; and how many seeds they have."""
    import pandas as pd

    table = pd.read_parquet(root / "results.parquet")
    table = table[(table["round"] == table["rounds_run"]) & ~table["reference"] & (table["budget"] == budget)]
    by_cell = {key: dict(zip(part["seed"], part["accuracy"], strict=True)) for key, part in table.groupby(["strategy", "rounds"], sort=False) if (part["rounds_run"] == key[1]).all()}
    others = len(by_cell) - 1
    base = by_cell["random", 1]
    cells = [
        Cell(strategy, rounds, float(np.mean(list(values.values()))), None if (strategy, rounds) == ("random", 1) else paired_difference(values, base, 1 - 0.05 / others))
        for (strategy, rounds), values in by_cell.items()
    ]
    return cells, len(base)


def found(cells: list[Cell], seeds_run: int, budget: int) -> Iterator[str]:
    """What the replay measured, one cell a line."""
    yield f"replay: {budget} of the sample's prompts bought, {seeds_run} seeds; accuracy on its test, and minus random in 1 round (95 % interval for all comparisons together)"
    for cell in sorted(cells, key=lambda c: -c.accuracy):
        d = cell.difference
        tail = "" if d is None else f"  {100 * d.mean:+.1f} points [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
        yield f"  {cell.strategy}, {count(cell.rounds, 'round')}: {100 * cell.accuracy:.1f} %{tail}"


def suggest(cells: list[Cell]) -> tuple[Cell, str]:
    """The cell to take, and why: the most accurate one of those that surely beat random at once; random where none does."""
    random = next(c for c in cells if c.difference is None)
    better = [c for c in cells if c.difference is not None and c.difference.low > 0]
    if not better:
        best = max(cells, key=lambda c: c.accuracy)
        tail = "" if best is random else f"; {best.strategy} in {count(best.rounds, 'round')} had the highest mean, which chance can make, too"
        return random, f"none of the others is surely better on your sample{tail}"
    best = max(better, key=lambda c: c.accuracy)
    d = best.difference
    return best, f"on your sample it beats random by {100 * d.mean:.1f} points [{100 * d.low:.1f}, {100 * d.high:.1f}], jointly with all other comparisons"
