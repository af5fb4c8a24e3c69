"""How fast this machine is: the study's own scorer, trainer and tests, run for a moment on a sample of its own prompts.

As many processes measure at once as the study will have workers, because they share caches and memory: one alone would be faster.
"""

from __future__ import annotations

import math
import resource
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import registry, seeds
from .types import POOL_SIGNALS, Annotation, Cost, Model
from .workbench import Workbench, open_bench, part

FEW, LEAST, MOST = 2, 8, 24  # updates of the short training, and of the long one; their difference is the price of an update
ENOUGH = 4.0  # seconds that the long training is to take: over less the difference is mostly noise
MINIBATCHES = 4  # of prompts in a sample: with fewer a decoder that runs dry has more weight than in the study
PATIENCE = 5.0  # seconds: where reading such a sample takes longer, half of it must do
GREEDY = "mean_logprob"  # a signal that needs a response, and that every scorer of responses gives


@dataclass(frozen=True, slots=True)
class Rates:
    """Device seconds, and what the untouched base says.

    score: a token of a prompt and a generated one, by what is scored (`kind_of`). decode: a generated token of which nothing is asked. train: a trained token; start: of each
    training, whatever its size; load: to make a trained model ready. evaluate: by test, a token of an item's prompt beside what is
    decoded. response: (sample,) tokens of the base's greedy responses in scoring; sampled: (sample, samples) of sampled ones; said: by test, the mean tokens of its
    responses. weights: bytes of a trained model's folder. memory: bytes of a worker at its greatest.
    """

    score: dict[tuple, tuple[float, float]]
    decode: float
    train: float
    start: float
    load: float
    evaluate: dict[str, float]
    response: np.ndarray
    sampled: np.ndarray
    said: dict[str, float]
    weights: int
    memory: int


def sample(bench: Workbench, size: int) -> np.ndarray:
    """Rows of the pool that are measured: a random choice that is the same every time."""
    return np.sort(np.argsort(seeds.lottery(0, bench.pool().ids, "plan"), kind="stable")[:size])


def needs_of(bench: Workbench) -> list[frozenset[str]]:
    """Every set of signals that is scored together somewhere in the study, and one that needs a response."""
    sets = [frozenset(group) for group in bench.study["needs"]]
    frozen = {"embedding"} if bench.config.embedding == "frozen" else set()
    for entry in bench.study["campaigns"].values():
        card = registry.card("strategy", registry.parse(entry["strategy"])[0])
        sets += [card.needs - POOL_SIGNALS, card.needs - POOL_SIGNALS - frozen, (card.needs - POOL_SIGNALS - frozen) & card.of_labeled]
        if bench.config.proxy:  # the model itself scores samples, and embeds the pool
            sets += [card.needs - POOL_SIGNALS - {"embedding"}, frozenset({"embedding"})]
    if GREEDY in bench.scorer().provides:
        sets.append(frozenset({GREEDY}))
    return [needs for needs in dict.fromkeys(sets) if needs]


def kind_of(bench: Workbench, needs: frozenset[str]) -> tuple:
    """Sets of signals with the same kind cost the same: two tokens of response after one of prompt are billed alike."""
    counts = {"prompt_tokens": np.array([1]), "response_tokens": np.array([2]), "sampled_tokens": np.full((1, bench.scorer().samples), 2)}
    cost = bench.scorer().bill(bench.base, counts, needs)
    return (cost.flops, cost.prompt_tokens, cost.generated_tokens)


def measure(job: tuple[str, int, bool]) -> Rates:
    """Measure in this process: (a run directory that was set up, this worker's number, whether to say what is going on)."""
    root, number, aloud = job
    bench = open_bench(root, 0)
    scratch = Path(root) / f"calibration-{number}"

    def say(what: str) -> None:
        if aloud:
            print(f"measuring on this machine: {what}", file=sys.stderr, flush=True)

    try:
        return _measure(bench, scratch, say)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _measure(bench: Workbench, scratch: Path, say: Any) -> Rates:
    minibatch = bench.config.runtime.minibatch
    scorer, trainer = bench.scorer(), part(bench.config, "trainer", bench.config.trainer)

    say("reading prompts")
    some = bench.pool().take(sample(bench, 4))
    for _ in range(2):  # the first one makes weights and caches ready
        pace = scorer(bench.base, some, frozenset({"embedding"}), seed=0).cost.seconds / len(some)
    size = max(8, MINIBATCHES * minibatch)
    size = size // 2 if size * pace > PATIENCE else size
    pool = bench.pool().take(sample(bench, min(bench.config.shard, size)))
    cost = scorer(bench.base, pool, frozenset({"embedding"}), seed=0).cost
    read = cost.seconds / cost.prompt_tokens
    score: dict[tuple, tuple[float, float]] = {}
    response, sampled = np.ones(1, dtype=np.int64), np.ones((1, scorer.samples), dtype=np.int64)
    for needs in needs_of(bench):
        kind = kind_of(bench, needs)
        if kind in score:
            continue
        if kind[2] == 0:
            score[kind] = read, 0.0
            continue
        say("responding to prompts")
        found = scorer(bench.base, pool, needs, seed=0)
        alone = min(read, found.cost.seconds / found.cost.prompt_tokens)  # less where an embedding is what costs
        score[kind] = alone, (found.cost.seconds - alone * found.cost.prompt_tokens) / found.cost.generated_tokens
        if found.columns["response_tokens"].any():
            response = np.asarray(found.columns["response_tokens"])
        if "sampled_tokens" in found.columns:
            sampled = np.asarray(found.columns["sampled_tokens"])

    say("training")
    trained, start, train = _train(bench, trainer, scratch)
    plain = score[kind_of(bench, frozenset({GREEDY}))][1] if GREEDY in scorer.provides else 0.0
    load, evaluate, said = 0.0, {}, {}
    for name, evaluator in bench.evaluators().items():
        if not hasattr(evaluator, "bill"):
            continue
        say(f"test {name}")
        few, some = (_few(evaluator, scratch / f"{name}-{n}.parquet", n) for n in (2, size))
        cost = some(bench.base, seed=0).cost
        items = len(some.lengths(bench.base.base)[0])
        evaluate[name], said[name] = max(0.0, cost.seconds - plain * cost.generated_tokens) / cost.prompt_tokens, cost.generated_tokens / items
        if not load:
            first, again = (few(trained, seed=0).cost.seconds for _ in range(2))
            load = max(0.0, first - again)
    weights = sum(file.stat().st_size for file in Path(trained.weights or "").rglob("*") if file.is_file())
    return Rates(score, plain, train, start, load, evaluate, response, sampled, said, weights, _memory(bench))


def _train(bench: Workbench, trainer: Any, scratch: Path) -> tuple[Model, float, float]:
    """Two short trainings of one epoch -> a trained model, seconds that each training costs, seconds a trained token."""
    import pyarrow.parquet as pq

    gold = dict(zip(*pq.read_table(bench.store.root / "shared/vault.parquet").to_pydict().values(), strict=True))
    rows = sample(bench, MOST * trainer.minibatch)
    some = [p for p in bench.pool().at(rows) if gold[p.id].strip()]
    most = max(entry["budget"] for entry in bench.study["campaigns"].values())
    once = replace(trainer, epochs=1)

    def learn(updates: int) -> Model:
        lesson = some[: min(most, updates * trainer.minibatch)]
        answers = [Annotation(p.id, response=gold[p.id]) for p in lesson]
        return once(bench.base, lesson, answers, scratch / f"model-{updates}", seed=0)

    learn(1)  # warms up
    short = learn(FEW).cost
    model = learn(min(MOST, max(LEAST, math.ceil(ENOUGH * FEW / max(short.seconds, 1e-9)))))
    long = model.cost
    more = long.trained_tokens - short.trained_tokens
    slope = max(0.0, long.seconds - short.seconds) / more if more > 0 else long.seconds / long.trained_tokens
    return model, max(0.0, short.seconds - slope * short.trained_tokens), slope


def _few(evaluator: Any, path: Path, size: int) -> Any:
    """The evaluator on at most `size` of its items, a random choice."""
    import pyarrow.parquet as pq

    items = pq.read_table(evaluator.items)
    rows = np.argsort(seeds.lottery(0, items.column("id").to_pylist(), "plan"), kind="stable")[:size]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(items.take(np.sort(rows)), path)
    return replace(evaluator, items=path)


def _memory(bench: Workbench) -> int:
    """Of the device where the model lies on a GPU, else of this process."""
    if registry.parse(bench.config.scorer)[0] == "llm":
        import torch

        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def together(found: list[Rates]) -> Rates:
    """The mean over workers; what the base says is the same for all, memory is the greatest."""
    first = found[0]

    def mean(values: list[Any]) -> Any:
        return {key: mean([v[key] for v in values]) for key in values[0]} if isinstance(values[0], dict) else tuple(np.mean(values, axis=0)) if isinstance(values[0], tuple) else float(np.mean(values))

    names = ("score", "decode", "train", "start", "load", "evaluate")
    return replace(first, **{name: mean([getattr(r, name) for r in found]) for name in names}, memory=max(r.memory for r in found))


def seconds_of(rates: Rates, cost: Cost, kind: tuple) -> float:
    """Of a scoring pass with this many tokens."""
    read, decode = rates.score[kind]
    return read * cost.prompt_tokens + decode * cost.generated_tokens
