"""Hard caps: a study stops between two stages once it has spent what its config allows, and goes on under a higher cap."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatch

from .campaign import campaign_of
from .config import StudyConfig
from .errors import CapReached
from .store import Store
from .types import Cost

# The stages that cost something. A campaign's first signals are the base model's: paid for in shared/.
PAID = (
    "shared/signals-*/shard-*.parquet",
    "shared/space/shard-*.parquet",
    "shared/base/evaluation-*.parquet",
    "campaigns/*/round-*/signals.parquet",
    "campaigns/*/round-*/pairs*.json",
    "campaigns/*/round-*/proxy-*.json",
    "campaigns/*/round-*/batch.json",
    "campaigns/*/round-*/model.json",
    "campaigns/*/round-*/evaluation-*.parquet",
)
FREE = "campaigns/*/round-001/signals.parquet"


@dataclass(frozen=True, eq=False)
class Meter:
    """What a run has spent so far, each stage once: the ledger's paid rows together. A stage file never changes, so it is read once."""

    store: Store
    known: dict[str, Cost] = field(default_factory=dict)

    def spent(self) -> Cost:
        root = self.store.root
        for pattern in PAID:
            for path in root.glob(pattern):
                name = path.relative_to(root).as_posix()
                if name not in self.known and not fnmatch(name, FREE):
                    self.known[name] = self.store.cost(name)
        return sum(self.known.values(), Cost())


def exceeded(config: StudyConfig, spent: Cost, labels: int = 0) -> str | None:
    """The first cap that is used up, or that so many labels more would pass: in words; None if there is none."""
    ahead = Cost(labels=labels)
    used = {"max_usd": (config.prices.usd(spent), config.prices.usd(ahead), "dollars"), "max_hours": (spent.seconds / 3600, 0.0, "device hours"), "max_flops": (spent.flops, 0, "FLOPs")}
    for name, (have, more, unit) in used.items():
        cap = getattr(config, name)
        if cap is not None and (have >= cap or have + more > cap):
            coming = f", and the next stage costs {more:.4g}" if have < cap else ""
            return f"{have:.4g} {unit} are spent{coming}; {name} is {cap:g}"
    return None


def guarded(store: Store, study: dict, config: StudyConfig) -> Store:
    """The store with a gate: it raises CapReached before a stage that would begin with a cap used up. What annotations will cost is
    known before they are bought, so they never pass the cap; a device stage may, since its time is not: at most one for each worker."""
    if config.max_usd is None and config.max_hours is None and config.max_flops is None:
        return store
    meter = Meter(store)
    labels = {folder: size for entry in study["campaigns"].values() for folder, size in zip(entry["folders"], campaign_of(entry).sizes, strict=True)}

    def gate(path: str) -> None:
        if any(fnmatch(path, pattern) for pattern in PAID) and not fnmatch(path, FREE):
            buys = labels[path.rpartition("/")[0]] if path.endswith("batch.json") else 0
            if why := exceeded(config, meter.spent(), buys):
                raise CapReached(why)

    return replace(store, gate=gate)


def reached(store: Store, study: dict) -> CapReached:
    """The error of a study that stopped: what was reached, and what to do."""
    from .progress import stage_files

    config = StudyConfig.model_validate(study["config"])
    files = stage_files(study)
    done = sum((store.root / file).exists() for file in files)
    spent = Meter(store).spent()
    why = exceeded(config, spent)
    if why is None:  # it was the price of a batch that did not fit
        why = f"{config.prices.usd(spent):.4g} dollars are spent, and the next batch of annotations would pass the cap: max_usd is {config.max_usd:g}"
    return CapReached(f"stopped at a cap: {why}; {done} of {len(files)} stages are done and kept; raise the cap and run the same command to go on")
