"""A worker's view of a run directory: builds the parts from study.json and does one task at a time.

Everything a worker needs is in the run directory, so a task is a few strings and runs anywhere.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, wraps
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from . import growth, pools, registry, seeds
from .campaign import Campaign, Desk, campaign_of, run
from .caps import guarded
from .config import StudyConfig
from .errors import CapReached, ConfigError
from .measure import diversity, text
from .proxy import Proxy, space_path
from .store import Store
from .types import Annotation, Evaluation, Indices, Model, Pool, Signals

EMBEDDINGS = ("model", "tfidf")  # diversity is measured in both; no strategy sees the second one
TOKEN_COUNTS = frozenset({"prompt_tokens", "response_tokens", "sampled_tokens"})


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work of a study: a shared stage, or a campaign."""

    root: str
    kind: str
    args: tuple[Any, ...] = ()


def perform(task: Task, away: Any = None) -> bool:
    """Do a task; what it makes is in the run directory. False where a cap of the study stopped it between two stages. With `away`
    (executors/away.py) scorer, trainer and evaluators are called on other machines, and the executor has set the threads of BLAS."""
    import scipy.linalg  # noqa: F401  only libraries that are loaded already are limited below, and SciPy brings a BLAS of its own
    from threadpoolctl import threadpool_limits

    try:
        stamp = os.stat(Path(task.root) / "study.json").st_mtime_ns
    except FileNotFoundError:
        raise ConfigError(f"{platform.node()} does not see the run directory {task.root}; put it on storage that every node mounts there, or use executor: {{use: ray, unit: stages}}") from None
    bench = open_bench(task.root, stamp, away)
    # Many workers with a BLAS thread per core each slow one another down several times, and the number of threads can change last bits.
    threads = bench.config.runtime.threads if away is None else None
    try:
        with threadpool_limits(threads, user_api="blas"):
            getattr(bench, f"do_{task.kind}")(*task.args)
    except CapReached:
        return False
    return True


def _once(cached: Callable) -> Callable:
    """A cache in which the threads of one driver wait for each other, and do not all compute the same."""
    lock = RLock()

    @wraps(cached)
    def read(*args: Any) -> Any:
        with lock:
            return cached(*args)

    return read


@_once
@lru_cache(maxsize=1)
def open_bench(root: str, _mtime: int, away: Any = None) -> Workbench:
    """The workbench of a run, kept between the tasks of one process."""
    store = Store(Path(root))
    study = store.read("study.json", dict)
    config = StudyConfig.model_validate(study["config"])
    return Workbench(guarded(store, study, config), study, config, away)


def part(config: StudyConfig, kind: str, spec: Any, **extra: Any) -> Any:
    """Build a part. It gets the study's runtime and those of the `extra` options that it takes."""
    takes = registry.card(kind, registry.parse(spec)[0]).options
    if "runtime" in takes:
        extra["runtime"] = runtime_of(config)
    return registry.build(kind, spec, **{k: v for k, v in extra.items() if k in takes})


def runtime_of(config: StudyConfig) -> Any:
    """The engine's Runtime. A minibatch of "auto" is a number in every study that has been set up; before that, 1 stands for it."""
    from .engine.runtime import Runtime

    values = config.runtime.model_dump()
    return Runtime(**values | ({"minibatch": 1} if values["minibatch"] == "auto" else {}))


@dataclass(frozen=True, eq=False)
class Workbench:
    """The parts of a run, built when they are first used."""

    store: Store
    study: dict
    config: StudyConfig
    away: Any = None

    # -- parts -------------------------------------------------------------------------------------------------------------

    @property
    def base(self) -> Model:
        return Model(self.config.model)

    @property
    def reader(self) -> Model:
        """The untouched model whose signals of the pool strategies read: the base, or the proxy."""
        return Model(self.config.proxy or self.config.model)

    @_once
    @cache  # noqa: B019  (one workbench a process)
    def pool(self) -> Pool:
        return pools.pool_of(registry.parse(self.config.pool)[0], pools.read(growth.file(self.store.root, "pool")))

    @_once
    @cache  # noqa: B019
    def grown(self) -> tuple[growth.Addition, ...]:
        """What was added to the pool after the start."""
        return tuple(growth.additions(self.store.root))

    def rows(self, seed: int) -> Indices:
        """This seed's share of the pool, in pool order: the prompts with the smallest hash(seed, id), and all that were added later."""
        start = growth.start(self.grown(), len(self.pool()))
        drawn = np.argsort(seeds.lottery(seed, self.pool().ids[:start], "share"), kind="stable")
        return np.concatenate([np.sort(drawn[: self.config.pool_per_seed or start]), np.arange(start, len(self.pool()))])

    @_once
    @cache  # noqa: B019
    def scorer(self) -> Any:
        return part(self.config, "scorer", self.config.scorer)

    @_once
    @cache  # noqa: B019
    def evaluators(self) -> dict[str, Any]:
        parts = {}
        for name, spec in self.config.evaluators.items():
            use, options = registry.parse(spec)
            options.pop("source", None)  # written to shared/tests when the study was set up
            test = part(self.config, "evaluator", {"use": use, **options}, benchmark=name, items=self.store.root / f"shared/tests/{name}.parquet")
            parts[name] = self.away.evaluator(name, test) if self.away else test
        return parts

    def scoring(self) -> Any:
        """The scorer, to be called."""
        return self.away.scorer(self.scorer()) if self.away else self.scorer()

    # -- shared stages -----------------------------------------------------------------------------------------------------

    def shards(self) -> int:
        return len(self._shards())

    def _shards(self) -> list[range]:
        return growth.shards(self.grown(), len(self.pool()), self.config.shard)

    def shard_path(self, group: int, shard: int) -> str:
        return f"shared/signals-{group}/shard-{shard:05d}.parquet"

    def do_signals(self, group: int, shard: int) -> None:
        """The base model's signals of one shard of the whole pool, or the proxy's. `group` is a set of needs: a grown study adds one."""
        needs = frozenset(self.study["needs"][group])
        self.store.keep(self.shard_path(group, shard), Signals, lambda: self.scoring()(self.reader, self._prompts_of(shard), needs, seed=0))

    def do_space(self, shard: int) -> None:
        """Where a proxy gives the signals: the base model's embedding of one shard, in which diversity is measured."""
        self.store.keep(space_path(shard), Signals, lambda: self.scoring()(self.base, self._prompts_of(shard), frozenset({"embedding"}), seed=0))

    def _prompts_of(self, shard: int) -> Pool:
        return self.pool().take(self._shards()[shard])

    def do_base_evaluation(self, name: str) -> None:
        """Round 0: the untouched base on one benchmark."""
        self.store.keep(f"shared/base/evaluation-{name}.parquet", Evaluation, lambda: self.evaluators()[name](self.base, seed=0))

    def do_tfidf(self) -> None:
        """The embedding that no strategy sees."""
        from .measure.embed import tfidf

        self.store.keep(self._tfidf(), dict, lambda: {"array": self.store.array(tfidf(self.pool().texts))})

    def _tfidf(self) -> str:
        return f"shared/tfidf-{len(self.grown()):03d}.json" if self.grown() else "shared/tfidf.json"

    def do_band(self, seed: int, size: int) -> None:
        """Diversity of random sets of this size from this seed's share of the pool; of their words, that of the prompts only."""

        def make() -> dict:
            rng = seeds.generator(seed, "band", size)
            space, groups = self.spaces(seed), self.pool().take(self.rows(seed)).groups
            band = {name: _known(diversity.random_band(space[name], groups, size, self.config.random_sets, rng)) for name in EMBEDDINGS}
            texts, surely = self.prompts(seed)
            sets = [rng.choice(len(texts), size, replace=False) for _ in range(self.config.random_sets)]
            panels = [text.panel([texts[row] for row in rows], int(surely[size])) for rows in sets]
            words = {name: np.array([panel[name] for panel in panels]) for name in panels[0]}
            spread = {name: (float(v.mean()), *map(float, np.percentile(v, [2.5, 97.5]))) for name, v in words.items()}
            return band | {"words": {"prompts": _known(spread)}}

        self.store.keep(f"shared/bands/s{seed}-n{size}.json", dict, make)

    # -- what campaigns read -----------------------------------------------------------------------------------------------

    @_once
    @cache  # noqa: B019
    def base_signals(self) -> tuple[Signals, np.ndarray]:
        """Base signals of the whole pool and the share of the measured seconds of each prompt. (n,) and (n, d)."""
        columns: dict[str, np.ndarray] = {}
        seconds = np.zeros(len(self.pool()))
        for group in range(len(self.study["needs"])):
            parts = [self.store.read(self.shard_path(group, shard), Signals) for shard in range(self.shards())]
            for name in parts[0].columns:
                values = np.concatenate([np.asarray(p.columns[name]) for p in parts])
                columns[name] = np.maximum(columns[name], values) if name in TOKEN_COUNTS and name in columns else values
            if group == 0:
                at = np.cumsum([0, *(len(p.columns["prompt_tokens"]) for p in parts)])
                for p, low, high in zip(parts, at[:-1], at[1:], strict=True):
                    seconds[low:high] = p.cost.seconds / (high - low)
        return Signals(columns), seconds

    def signals_for(self, seed: int, needs: frozenset[str]) -> Signals:
        """The base's signals of this seed's share, priced as if it had been scored alone, for these needs only."""
        rows = self.rows(seed)
        whole, seconds = self.base_signals()
        counts = {name: whole.columns[name][rows] for name in sorted(TOKEN_COUNTS & whole.columns.keys())}
        columns = {name: whole.columns[name][rows] for name in sorted(needs)} | counts
        cost, everything = (self.scorer().bill(self.reader, counts, signals) for signals in (needs, frozenset(self.study["needs"][0])))
        cost = replace(cost, seconds=float(seconds[rows].sum() * cost.flops / max(everything.flops, 1)))
        return Signals(columns, needs, cost)

    @_once
    @cache  # noqa: B019
    def embedding(self) -> np.ndarray:
        """The base model's embedding of the whole pool. (n, d)"""
        if not self.config.proxy:
            return self.base_signals()[0].columns["embedding"]
        return np.concatenate([self.store.read(space_path(shard), Signals).columns["embedding"] for shard in range(self.shards())])

    @_once
    @cache  # noqa: B019
    def spaces(self, seed: int) -> dict[str, np.ndarray]:
        """Embeddings of this seed's share in which diversity is measured, centred and normalised. name -> (n, d)."""
        rows = self.rows(seed)
        other = np.load(self.store.root / self.store.read(self._tfidf(), dict)["array"], mmap_mode="r", allow_pickle=False)
        return {"model": diversity.prepare(self.embedding()[rows]), "tfidf": diversity.prepare(np.asarray(other[rows]))}

    @_once
    @cache  # noqa: B019
    def prompts(self, seed: int) -> tuple[list[str], Indices]:
        """Texts of this seed's share, (n,); and the tokens that its k shortest texts have together, (n + 1,) for k = 0..n: so many
        have any k texts, so the words of all sets of k prompts are compared at this number."""
        texts = self.pool().take(self.rows(seed)).texts
        return texts, np.cumsum([0, *sorted(len(text.tokens(t)) for t in texts)])

    # -- campaigns ---------------------------------------------------------------------------------------------------------

    def desk(self, campaign: Campaign, folders: list[str], rounds: int) -> Desk:
        root, pool = self.store.root, self.pool().take(self.rows(campaign.seed))
        trainer, teacher = (part(self.config, "trainer", spec) for spec in (self.config.trainer, self.config.proxy_trainer or self.config.trainer))
        if self.away:
            trainer, teacher = self.away.trainer(trainer), self.away.trainer(teacher)
        vault, journal = growth.file(root, "vault"), root / "campaigns" / campaign.id / "reveals.jsonl"
        return Desk(
            store=self.store,
            pool=pool,
            base=self.base,
            base_signals=lambda needs: self.signals_for(campaign.seed, needs),
            scorer=self.scoring(),
            oracle=part(self.config, "oracle", self.config.oracle, vault=vault, journal=journal, run=root),
            trainer=trainer,
            evaluators=self.evaluators(),
            diversity=lambda bought, new: self.measured(campaign.seed, bought, new),
            embedding=self.spaces(campaign.seed)["model"],
            folders=folders[:rounds],
            shared=frozenset(self.study["shared_folders"]),
            frozen=frozenset({"embedding"}) if self.config.embedding == "frozen" else frozenset(),
            scored_share=self.config.scored_share,
            shard=self.config.shard,
            each=self.away.each if self.away else map,
            grown=self.grown(),
            keep_models=self.config.keep_models,
            pairs=(lambda model, prompts, seed: self.scorer().pairs(model, prompts, seed=seed)) if self.config.judgements == "preferences" else None,
            proxy=Proxy(self.reader, teacher, self.embedding()[self.rows(campaign.seed)]) if self.config.proxy else None,
        )

    def measured(self, seed: int, bought: Sequence[Annotation], new: Sequence[Annotation]) -> dict[str, Any]:
        """Diversity of what was bought (of prompts in each embedding, of responses, of the words of both), and of its last batch alone."""
        pool, spaces = self.pool().take(self.rows(seed)), self.spaces(seed)
        rows, batch = (pool.rows_of(a.prompt_id for a in part) for part in (bought, new))
        texts, surely = self.prompts(seed)
        from .measure.embed import hashed

        responses = [a.text for a in bought]
        found: dict[str, Any] = {name: _known(diversity.panel(spaces[name], pool.groups, rows)) for name in EMBEDDINGS}
        prompt_words, response_words = text.panel([texts[row] for row in rows], int(surely[len(rows)])), text.panel(responses, _step(responses))
        found["words"] = {"prompts": _known(prompt_words), "responses": _known(response_words)}
        found["responses"] = _known(diversity.among(hashed(responses), np.arange(len(responses))))
        if len(batch):
            found["batch"] = {name: _known(diversity.panel(spaces[name], pool.groups, batch)) for name in EMBEDDINGS}
            found["batch"]["responses"] = _known(diversity.among(hashed([a.text for a in new]), np.arange(len(new))))
        return found

    def do_campaign(self, name: str, rounds: int | None = None) -> None:
        """Run one campaign, or its first rounds where others branch off there."""
        entry = self.study["campaigns"][name]
        campaign = campaign_of(entry)
        rounds = rounds or campaign.rounds
        with self.store.lock(f"campaigns/{name}/.lock", wait=180):  # NFS frees what a lost node held after 90 s
            cut = replace(campaign, rounds=rounds, schedule=campaign.sizes[:rounds], budget=sum(campaign.sizes[:rounds])) if rounds < campaign.rounds else campaign
            desk = self.desk(campaign, entry["folders"], rounds)
            for _ in run(cut, desk):
                pass


def _step(texts: Sequence[str]) -> int:
    """The largest of 1, 4, 16, ... tokens a text that these texts have together: sets of one size mostly fall on the same step, so
    their words are compared at the same number. What has less than one token a text is measured at what it has."""
    have = sum(len(text.tokens(t)) for t in texts)
    return len(texts) * 4 ** ((have // len(texts)).bit_length() - 1 >> 1) if have >= len(texts) else have


def _known(measures: dict[str, Any]) -> dict[str, Any]:
    """Without the measures that a pool without groups does not have (NaN, which JSON does not have either)."""
    return {name: value for name, value in measures.items() if not np.isnan(np.atleast_1d(value)).any()}
