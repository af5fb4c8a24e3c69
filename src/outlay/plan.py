"""What a study will cost, before it is paid: every stage that the grid really asks for, counted from the lengths of its own prompts.

Expected and worst differ where lengths are not fixed: which prompts a strategy will buy (expected: as long as the average of the seed's share;
worst: the longest ones), and how long responses are (the base's: as on a sample; a trained model's: as its gold answers; worst: max_new_tokens).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from . import calibrate, grid, registry, seeds
from .acquisition import select
from .calibrate import Rates, kind_of, seconds_of
from .campaign import Campaign, campaign_of
from .config import StudyConfig
from .errors import ConfigError
from .proxy import SAMPLE, pays_for_every_training
from .store import Store
from .types import POOL_SIGNALS, Cost, Indices, Signals, View
from .workbench import Workbench, open_bench, part

COUNTED = ("flops", "prompt_tokens", "generated_tokens", "trained_tokens")
KINDS = ("base signals", "space", "base evaluation", "signals", "proxy", "agreement", "batch", "model", "evaluation")
SMALL_FILES = 16384  # bytes of a round's selection, annotations and measures, about


@dataclass(frozen=True, slots=True)
class Estimate:
    """A cost as expected, and at worst."""

    expected: Cost
    worst: Cost

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.expected + other.expected, self.worst + other.worst)

    def times(self, share: float) -> Estimate:
        """This share of it. Counts are rounded."""
        return Estimate(*(Cost(**{f.name: type(f.default)(round(getattr(c, f.name) * share, 6 if f.name in ("usd", "seconds") else 0)) for f in fields(Cost)}) for c in (self.expected, self.worst)))


NOTHING = Estimate(Cost(), Cost())


@dataclass(frozen=True, slots=True)
class Line:
    """What a campaign of this cell costs, the mean over its seeds: `cost` without measurement, `measured` the tests on top."""

    strategy: str
    rounds: int
    rounds_run: int
    schedule: str
    start: str
    budget: int
    cost: Estimate
    measured: Estimate


@dataclass(frozen=True, slots=True)
class Plan:
    """lines: every cell of the grid, seeds together. total: the whole study, shared stages once, tests and reference points included; stages: the same by
    kind of stage. timed: whether seconds were measured (else 0). uncounted: tests whose cost cannot be known before. memory: bytes of a
    worker; disk: bytes of the run directory; both (expected, worst)."""

    config: StudyConfig
    lines: tuple[Line, ...]
    total: Estimate
    stages: dict[str, Estimate]
    campaigns: int
    workers: int
    timed: bool
    uncounted: tuple[str, ...]
    memory: tuple[int, int] | None
    disk: tuple[int, int]


def plan(config: StudyConfig, *, measure: bool = True, quiet: bool = False) -> Plan:
    """The plan of this study, as a new run. Nothing is run but the short measurement, nothing is kept.

    Raises what setting up the study would raise, and ConfigError for a scorer or trainer that cannot say what it costs.
    """
    from . import study as studies

    studies.check(config)
    if config.judgements == "preferences":
        raise ConfigError("outlay plan cannot count a study of preferences yet: how long drafts are and how often two differ is not known before; run it with one seed and a small budget, and read its ledger")
    _countable(config)
    workers = 1 if registry.parse(config.executor)[0] == "serial" else studies.workers_of(config)

    def counter(config: StudyConfig, where: str, reader: Counter | None = None) -> Counter:
        studies.set_up(config, Store(Path(where)))
        bench, rates = open_bench(where, 0), None
        if measure:
            executor = registry.build("executor", "processes", workers=workers)
            rates = calibrate.together(list(executor.map(calibrate.measure, [(where, i, not quiet and i == 0) for i in range(workers)])))
        return Counter(bench, rates, reader)

    with tempfile.TemporaryDirectory(prefix="outlay-plan-") as where, tempfile.TemporaryDirectory(prefix="outlay-plan-") as beside:
        if config.proxy is None:
            return counter(config, where).plan(workers)
        alone = {"model": config.proxy, "trainer": config.proxy_trainer or config.trainer, "evaluators": {}, "proxy": None, "proxy_trainer": None}
        return counter(config, where, counter(config.model_copy(update=alone), beside)).plan(workers)


def _countable(config: StudyConfig) -> None:
    for kind, spec in (("scorer", config.scorer), ("trainer", config.trainer), ("trainer", config.proxy_trainer or config.trainer)):
        card = registry.card(kind, registry.parse(spec)[0])
        if not hasattr(card.part, "bill"):
            raise ConfigError(f"outlay plan cannot count the {kind} '{card.name}': it has no method `bill`; see docs/plan.md")


class Counter:
    """Counts the stages of a study that was set up. rates: None leaves seconds at 0 and takes gold answers for what the base says; reader: counts what a
    proxy does."""

    def __init__(self, bench: Workbench, rates: Rates | None, reader: Counter | None = None) -> None:
        import pyarrow.parquet as pq

        self.reader = reader or self
        self.bench, self.rates, self.config = bench, rates, bench.config
        self.scorer, self.trainer = bench.scorer(), part(bench.config, "trainer", bench.config.trainer)
        ids, texts = bench.pool().ids, bench.pool().texts
        vault = pq.read_table(bench.store.root / "shared/vault.parquet").to_pydict()
        gold = dict(zip(vault["id"], vault["response"], strict=True))
        self.base = bench.base.base
        self.prompts, self.answers = self.trainer.lengths(self.base, texts, [gold[i] for i in ids])
        blank = np.array([not gold[i].strip() for i in ids])
        most = self.scorer.max_new_tokens
        if blank.any():  # nobody has answered yet
            known = self.answers[~blank]
            self.answers = np.where(blank, round(float(known.mean())) if len(known) else most, self.answers)
        longest = np.where(blank, np.maximum(self.answers, most), self.answers)
        self.most = most
        self.taught = [_table(lambda p, r: self.trainer.bill(self.base, [p], [r]), np.column_stack([self.prompts, a])) for a in (self.answers, longest)]
        self._scored: dict[tuple, tuple[np.ndarray, ...]] = {}

    # -- stages ------------------------------------------------------------------------------------------------------------

    def scored(self, needs: frozenset[str]) -> tuple[np.ndarray, ...]:
        """What each prompt of the pool costs to score for these signals, columns COUNTED: by the base, by a trained model, at worst. 3 x (n, 4)"""
        kind = kind_of(self.bench, needs)
        if kind not in self._scored:
            n, samples = len(self.prompts), self.scorer.samples
            after = np.clip(self.answers, 1, self.most)
            base = np.resize(self.rates.response, n) if self.rates else after
            drawn = np.resize(self.rates.sampled, (n, samples)) if self.rates else np.repeat(after[:, None], samples, 1)
            full = np.full(n, self.most)
            cases = ((base, drawn), (after, np.repeat(after[:, None], samples, 1)), (full, np.repeat(full[:, None], samples, 1)))

            def bill(prompt: int, said: int, *each: int) -> Cost:
                counts = {"prompt_tokens": np.array([prompt]), "response_tokens": np.array([said]), "sampled_tokens": np.array([each])}
                return self.scorer.bill(self.bench.base, counts, needs)

            self._scored[kind] = tuple(_table(bill, np.column_stack([self.prompts, said, each])) for said, each in cases)
        return self._scored[kind]

    def scoring(self, needs: frozenset[str], rows: Indices, *, trained: bool, count: int | None = None) -> Estimate:
        """One pass over `count` of these rows, which ones being unknown (None: over all)."""
        base, after, worst = self.scored(needs)
        found = Estimate(_some(after if trained else base, rows, count), _most(worst, rows, count))
        return self._timed(found, lambda cost: seconds_of(self.rates, cost, kind_of(self.bench, needs)))

    def training(self, rows: Indices, count: int | None = None) -> Estimate:
        """On `count` of these rows, which ones being unknown (None: on all)."""
        found = Estimate(_some(self.taught[0], rows, count), _most(self.taught[1], rows, count))
        return self._timed(found, lambda cost: self.rates.start + self.rates.train * cost.trained_tokens)

    def evaluating(self, name: str, *, trained: bool, first: bool = False) -> Estimate:
        """One pass of this test. `first`: it is the first to load the trained model."""
        evaluator = self.bench.evaluators()[name]
        if not hasattr(evaluator, "bill"):
            return NOTHING
        prompts, gold = evaluator.lengths(self.base)
        most = getattr(evaluator, "max_new_tokens", self.most)
        said = np.clip(gold, 1, most)
        if self.rates and not trained:
            steps = np.arange(len(gold) + 1) * self.rates.said[name]
            said = np.floor(steps[1:]).astype(int) - np.floor(steps[:-1]).astype(int)
        found = Estimate(*(evaluator.bill(self.base, prompts, gold, s) for s in (said, np.full_like(said, most))))

        def seconds(cost: Cost) -> float:
            return self.rates.evaluate[name] * cost.prompt_tokens + self.rates.decode * cost.generated_tokens + (self.rates.load if first else 0.0)

        return self._timed(found, seconds)

    def _timed(self, found: Estimate, seconds: Callable[[Cost], float]) -> Estimate:
        if not self.rates:
            return Estimate(*(_with_seconds(c, 0.0) for c in (found.expected, found.worst)))
        return Estimate(*(_with_seconds(c, seconds(c)) for c in (found.expected, found.worst)))

    # -- campaigns ---------------------------------------------------------------------------------------------------------

    def rounds(self, campaign: Campaign) -> Iterator[dict[str, Estimate]]:
        """The stages of each round, as if the campaign ran alone."""
        card = registry.card("strategy", registry.parse(campaign.strategy)[0])
        share = self.bench.rows(campaign.seed)
        needs = card.needs - POOL_SIGNALS
        live = needs - ({"embedding"} if self.config.embedding == "frozen" else set())
        picked = self.picks(campaign) if not card.needs else None
        bought = lesson = 0
        for number, size in enumerate(campaign.sizes, 1):
            stages: dict[str, Estimate] = {}
            left = len(share) - bought
            if number == 1 and needs:
                stages["signals"] = self.reader.scoring(needs, share, trained=False)
            elif live:
                if self.config.scored_share < 1:
                    left = min(left, max(size, math.ceil(self.config.scored_share * left)))
                stages["signals"] = self.reader.scoring(live, share, trained=True, count=left)
                if live & card.of_labeled:
                    stages["signals"] += self.reader.scoring(live & card.of_labeled, share, trained=True, count=bought)
                if self.config.proxy:
                    stages["proxy"] = self.reader.training(share, lesson)
            again = live if number > 1 else needs - {"embedding"}  # of a sample
            if self.config.proxy and again:
                stages["agreement"] = self.scoring(again, share, trained=number > 1, count=min(left, SAMPLE))
                if bought and again & card.of_labeled:
                    stages["agreement"] += self.scoring(again & card.of_labeled, share, trained=True, count=bought)
            paid = Cost(labels=size)
            stages["batch"] = Estimate(paid, paid)
            first, bought = (bought if campaign.start == "warm_new" else 0), bought + size
            lesson = bought - first
            stages["model"] = self.training(share[np.concatenate(picked[:number])[first:]]) if picked else self.training(share, lesson)
            for at, name in enumerate(self.config.evaluators):
                stages[f"evaluation-{name}"] = self.evaluating(name, trained=True, first=at == 0)
            yield stages

    def picks(self, campaign: Campaign) -> list[Indices]:
        """What a strategy that reads no signal will buy: rows of the seed's share, by round. It is known before."""
        pool = self.bench.pool().take(self.bench.rows(campaign.seed))
        groups, lottery, n = pool.groups, seeds.lottery(campaign.seed, pool.ids), len(pool)
        rounds: list[Indices] = []
        for number, size in enumerate(campaign.sizes, 1):
            labeled = np.concatenate([np.empty(0, dtype=np.int64), *rounds])
            view = View(Signals({}), np.setdiff1d(np.arange(n), labeled), labeled, groups, lottery)
            rounds.append(select(campaign.strategy, view, size, seeds.generator(campaign.seed, "select", campaign.strategy, number)).rows)
        return rounds

    # -- the whole ---------------------------------------------------------------------------------------------------------

    def plan(self, workers: int) -> Plan:
        entries = self.bench.study["campaigns"]
        everything = np.arange(len(self.prompts))
        stages = dict.fromkeys(KINDS, NOTHING)
        for group in self.bench.study["needs"]:
            stages["base signals"] += self.reader.scoring(frozenset(group), everything, trained=False)
        if self.config.proxy:
            stages["space"] = self.scoring(frozenset({"embedding"}), everything, trained=False)
        for name in self.config.evaluators:
            stages["base evaluation"] += self.evaluating(name, trained=False)
        alone: dict[str, tuple[Estimate, Estimate]] = {}
        seen: set[str] = set()
        for name, entry in entries.items():
            cost, measured = NOTHING, NOTHING
            for number, (folder, found) in enumerate(zip(entry["folders"], self.rounds(campaign_of(entry)), strict=True), 1):
                for stage, estimate in found.items():
                    kind = stage.partition("-")[0]
                    later = number < len(entry["folders"]) and not pays_for_every_training(self.config.proxy, entry["start"])
                    if kind in ("evaluation", "agreement") or (kind == "model" and later):
                        measured += estimate
                    else:
                        cost += estimate
                    if folder not in seen and not (stage == "signals" and number == 1):
                        stages[kind] += estimate
                seen.add(folder)
            alone[name] = cost, measured
        total = sum(stages.values(), NOTHING)
        uncounted = tuple(name for name, e in self.bench.evaluators().items() if not hasattr(e, "bill"))
        lines = tuple(self._lines(alone))
        return Plan(self.config, lines, total, stages, len(entries), workers, self.rates is not None, uncounted, self._memory(), self._disk(seen))

    def _lines(self, alone: dict[str, tuple[Estimate, Estimate]]) -> Iterator[Line]:
        cells: dict[tuple, list[str]] = {}
        for cell in grid.asked(self.config):
            run = grid.runs_as(cell, self.config)
            plan = cell.schedule if isinstance(cell.schedule, str) else "-".join(map(str, cell.schedule))
            cells.setdefault((cell.strategy, cell.rounds, run.rounds, plan, cell.start, cell.budget), []).append(run.id)
        for key, runs in cells.items():
            cost, measured = (sum((alone[run][i] for run in runs), NOTHING).times(1 / len(runs)) for i in (0, 1))
            yield Line(*key, cost, measured)

    def _memory(self) -> tuple[int, int] | None:
        if not self.rates:
            return None
        longest = peak = max(self.rates.memory, self.reader.rates.memory)
        if registry.parse(self.config.scorer)[0] == "llm":
            from .engine.load import arch
            from .engine.memory import row_bytes

            width = 2 if self.config.runtime.dtype == "bfloat16" else 4
            longest += self.config.runtime.minibatch * row_bytes(arch(self.base), int(self.prompts.max()) + self.most, width)
        return peak, longest

    def _disk(self, folders: set[str]) -> tuple[int, int]:
        """Signals of the base, embeddings of live rounds, trained models (worst: those of all rounds, before they are deleted), small files."""
        n, width = len(self.prompts), self._width()
        base = len(self.bench.study["needs"]) * n * 48 + n * 4 * width + n * 4 * 256
        if self.config.proxy:
            base += n * 48 + n * 4 * self.reader._width()
        live = sum(len(self.bench.rows(e["seed"])) * 4 * self.reader._width() for e in self.bench.study["campaigns"].values() if self.config.embedding == "live" for _ in e["folders"])
        size = self.rates.weights if self.rates else 0
        last = {e["folders"][-1] for e in self.bench.study["campaigns"].values()} | set(self.bench.study["shared_folders"])
        items = sum(len(e.lengths(self.base)[0]) for e in self.bench.evaluators().values() if hasattr(e, "lengths")) * 96
        rest = base + live + len(folders) * (SMALL_FILES + items)
        if self.config.proxy and self.rates:  # a proxy beside each model at most
            rest += len(folders) * self.reader.rates.weights
        kept = len(folders) if self.config.keep_models == "all" else len(last)
        return rest + kept * size, rest + len(folders) * size

    def _width(self) -> int:
        if registry.parse(self.config.scorer)[0] != "llm":
            return 32
        from .engine.load import arch

        return arch(self.base).width


def _with_seconds(cost: Cost, seconds: float) -> Cost:
    return Cost(cost.labels, cost.usd, seconds, *(getattr(cost, name) for name in COUNTED))


def _table(bill: Callable[..., Cost], rows: np.ndarray) -> np.ndarray:
    """The cost of each row of lengths, columns COUNTED. (n, any) -> (n, 4); equal rows are billed once."""
    distinct, where = np.unique(rows, axis=0, return_inverse=True)
    found = [bill(*(int(v) for v in row)) for row in distinct]
    return np.array([[getattr(cost, name) for name in COUNTED] for cost in found], dtype=np.float64)[where.ravel()]


def _cost(values: Iterable[float]) -> Cost:
    return Cost(**dict(zip(COUNTED, (round(v) for v in values), strict=True)))


def _some(table: np.ndarray, rows: Indices, count: int | None) -> Cost:
    part = table[rows]
    return _cost(part.sum(0) if count is None else part.mean(0) * count)


def _most(table: np.ndarray, rows: Indices, count: int | None) -> Cost:
    """Each number of the `count` rows in which it is largest."""
    part = table[rows]
    return _cost(part.sum(0) if count is None else np.sort(part, axis=0)[len(part) - count :].sum(0))
