"""The run directory of a campaign with annotators: set up once, then the same for every command; a changed pool or config is refused."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import growth, pools, registry, seeds
from .. import study as studies
from ..campaign import Campaign, campaign_of
from ..config import StudyConfig, validate_as
from ..errors import ConfigError, RunConflict
from ..store import Store, write_atomic
from ..types import Annotation, Evaluation, Model, Prompt, Selection
from ..workbench import Workbench, part
from . import money
from .config import CampaignConfig, Sum

if TYPE_CHECKING:
    import pyarrow as pa

FREE = {"note", "prices", "sample", "replay", "shadow_each_round"}
DEV = "dev/round-000/batch.json"
DEV_TABLE = "shared/tests/dev.parquet"


@dataclass(frozen=True, eq=False)
class Live:
    """A campaign that is under way: its config, its parts, and where its rounds lie."""

    config: CampaignConfig  # with a number of judgements as its budget
    asked: CampaignConfig  # as it was written
    bench: Workbench
    campaign: Campaign
    folders: tuple[str, ...]

    @property
    def store(self) -> Store:
        return self.bench.store

    @property
    def root(self) -> Path:
        return self.store.root

    @cached_property
    def ledger(self) -> money.Ledger | None:
        """The money, where the budget is in minutes or dollars."""
        return money.Ledger(self, self.asked.budget) if isinstance(self.asked.budget, Sum) else None

    @property
    def ended(self) -> bool:
        """Whether the last round is trained, or the money was spent before it."""
        done = self.trained()
        if done == len(self.folders):
            return True
        path = f"{self.folders[done]}/selection.json"
        return (self.root / path).exists() and not self.store.read(path, Selection).ids

    def batch_path(self, number: int) -> str:
        """Where the annotations of a round lie once they are taken; 0: of the dev set."""
        return f"{self.folders[number - 1]}/batch.json" if number else DEV

    @property
    def asks_people(self) -> bool:
        """Whether the oracle writes hand-offs, and waits for them."""
        return "run" in registry.card("oracle", registry.parse(self.config.oracle)[0]).options

    def dev_prompts(self) -> list[Prompt]:
        """The random prompts that are set aside for the dev set, spares last: those outside of this seed's share of the pool."""
        pool = self.bench.pool()
        rows = np.setdiff1d(np.arange(len(pool)), self.bench.rows(self.campaign.seed))
        drawn = seeds.lottery(self.campaign.seed, pool.ids, "dev")[rows]
        return pool.at(rows[np.argsort(drawn, kind="stable")])

    @cached_property
    def added(self) -> dict[str, str]:
        """Prompt id -> when it was added, for prompts that were not there at the start."""
        ids = self.bench.pool().ids
        return {key: a.at for a in self.bench.grown() for key in ids[a.before : a.before + a.prompts]}

    def dev_answers(self) -> int:
        """Items of the dev set; 0 where there is none, or all of it was skipped."""
        import pyarrow.parquet as pq

        return pq.read_metadata(self.root / DEV_TABLE).num_rows if (self.root / DEV_TABLE).exists() else 0

    def trained(self) -> int:
        """Rounds whose model is there, from the first one on."""
        done = [(self.root / folder / "model.json").exists() for folder in self.folders]
        return done.index(False) if False in done else len(done)

    def grade(self, model: Model, table: str, name: str) -> Evaluation:
        """The grader's verdict on the items of a table in the run directory (path relative to it)."""
        return part(self.bench.config, "evaluator", self.config.grader, benchmark=name, items=self.root / table)(model, seed=0)

    def write_items(self, path: str, prompts: Sequence[Prompt], annotations: Sequence[Annotation]) -> None:
        """Bought items in the form that a grader reads."""
        import pyarrow as pa

        columns = {"id": [p.id for p in prompts], "text": [p.text for p in prompts], "group": [p.group for p in prompts], "response": [a.response for a in annotations]}
        write_atomic(self.root / path, parquet(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})))


def parquet(table: pa.Table) -> bytes:
    """The table as the bytes of a Parquet file."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def check(config: CampaignConfig) -> None:
    """Everything that can be wrong before anything is read."""
    use = registry.parse(config.grader)[0]
    if "items" not in registry.card("evaluator", use).options:
        raise ConfigError(f"grader '{use}' brings items of its own; use one that grades yours, such as heldout")
    small = config.study(config.items + config.reserve)
    studies.check_parts(small)
    part(small, "evaluator", config.grader, benchmark="dev", items=Path("unused"))
    for spec in (config.dev_set, config.test_set, config.sample):
        if spec is not None:
            registry.build("pool", spec)


def check_size(config: CampaignConfig, prompts: int) -> None:
    """ConfigError for a pool of too few prompts."""
    spares = config.reserve - config.dev_items
    if prompts < config.buys + config.reserve:
        raise ConfigError(f"the pool has {prompts} prompts, too few for {config.buys + config.dev_items} bought ones and {spares} spares; lower the budget or enlarge the pool")


def pool_table(config: CampaignConfig) -> pa.Table:
    """The pool as it is now, checked."""
    return pools.check("pool", registry.build("pool", config.pool)())


def counted(config: CampaignConfig, table: pa.Table) -> CampaignConfig:
    """The config with a number of judgements as its budget: as it says, or what its minutes or dollars are assumed to pay over this pool."""
    if not isinstance(config.budget, Sum):
        return config
    return config.counted(money.judgements(config, config.budget, pools.pool_of("pool", table)))


def set_up(asked: CampaignConfig, root: Path) -> Live:
    """Write the run directory, or check that it holds this campaign over this pool. For the holder of the run's lock."""
    store, config, table = Store(root), asked, None
    _sweep(store)
    raw = store.read("campaign.json", dict) if (root / "campaign.json").exists() else None
    if raw:
        same(CampaignConfig.model_validate(raw["config"]), asked, root)
    if isinstance(asked.budget, Sum):  # how many judgements that is depends on the prompts of the start
        table = pool_table(asked)
        config = asked.counted(raw["judgements"]) if raw else counted(asked, table)
    check(config)
    if not raw and (root / "study.json").exists() and set(store.read("study.json", dict)["campaigns"]) != {config.campaign.id}:  # else the set-up was cut off
        raise RunConflict(f"{root} holds a study; choose another --out")
    if table is None:
        table = pool_table(config)
    if raw:
        table = unchanged(root, table)
    start = table.slice(0, growth.start(growth.additions(root), table.num_rows))
    check_size(config, start.num_rows)
    if config.test_set is not None:
        pools.require_disjoint(table, test_table(config), "test_set")
    study = studies.set_up(config.study(start.num_rows), store, cells=[config.campaign], pool=start)
    record = {"config": asked.model_dump(mode="json")} | ({"judgements": config.budget} if isinstance(asked.budget, Sum) else {})
    if raw != record:
        store.write("campaign.json", record)
    return _live(config, asked, store, study)


def unchanged(root: Path, table: pa.Table) -> pa.Table:
    """The pool in the order of the run: what was added later comes last. RunConflict with the difference if it is another one."""
    old = pools.read(growth.file(root, "pool"))
    if growth.additions(root):
        table = in_order(old, table)
    if what := difference(old, table):
        only_new = not difference(old, in_order(old, table).slice(0, old.num_rows))
        advice = f"`outlay campaign add {root}` takes new prompts in; or restore it" if only_new else "restore it"
        raise RunConflict(f"the pool has changed since {root} was started: {what}; {advice}, or start another campaign with another --out")
    if growth.additions(root) and not pools.read(growth.file(root, "vault")).equals(pools.vault_of(table)):
        raise RunConflict(f"the responses of the pool have changed since {root} was started; restore them or choose another --out")
    return table


def in_order(old: pa.Table, table: pa.Table) -> pa.Table:
    """The rows of `table`: those of `old` first, in its order, then the others."""
    place = {key: row for row, key in enumerate(old.column("id").to_pylist())}
    rows = [place.get(key, len(place)) for key in table.column("id").to_pylist()]
    return table.take(np.argsort(rows, kind="stable"))


def _sweep(store: Store) -> None:
    """Delete what killed processes left. A page may be writing into the hand-offs, under their own locks."""
    store.sweep(but="handoff")
    for folder in sorted((store.root / "handoff").glob("round-*")):
        with Store(folder).lock(".lock", wait=60):
            Store(folder).sweep()


def opened(root: Path) -> Live:
    """The campaign of a run directory, to be looked at. ConfigError where there is none."""
    store = Store(root)
    if not (root / "campaign.json").exists():
        raise ConfigError(f"{root} holds no campaign yet (no campaign.json in it); run `outlay campaign next` first")
    raw = store.read("campaign.json", dict)
    asked = validate_as(CampaignConfig, raw["config"], str(root / "campaign.json"))
    return _live(asked.counted(raw["judgements"]) if "judgements" in raw else asked, asked, store, store.read("study.json", dict))


def test_table(config: CampaignConfig) -> pa.Table:
    """The test set, checked."""
    return pools.check("test_set", registry.build("pool", config.test_set)())


def _live(config: CampaignConfig, asked: CampaignConfig, store: Store, study: dict[str, Any]) -> Live:
    entry = study["campaigns"][config.campaign.id]
    bench = Workbench(store, study, StudyConfig.model_validate(study["config"]))
    return Live(config, asked, bench, campaign_of(entry), tuple(entry["folders"]))


def same(old: CampaignConfig, new: CampaignConfig, root: Path) -> None:
    """RunConflict names the first key in which another campaign differs."""
    for key in CampaignConfig.model_fields.keys() - FREE:
        if getattr(old, key) != getattr(new, key):
            raise RunConflict(f"{root} holds another campaign: {key} was {getattr(old, key)!r}, is {getattr(new, key)!r}; restore it, or choose another --out")


def difference(old: pa.Table, new: pa.Table) -> str:
    """What changed between two pools, with an example of each; empty if nothing did."""
    before, after = ({row["id"]: (row["text"], row["group"]) for row in table.select(["id", "text", "group"]).to_pylist()} for table in (old, new))
    changed = [key for key in before if key in after and before[key] != after[key]]
    said = []
    for what, keys in (("new", [k for k in after if k not in before]), ("gone", [k for k in before if k not in after]), ("with another text or group", changed)):
        if keys:
            said.append(f"{len(keys)} {'prompt is' if len(keys) == 1 else 'prompts are'} {what}, e.g. '{keys[0]}'")
    if not said and list(before) != list(after):
        said.append("its prompts are in another order")
    return ", ".join(said)
