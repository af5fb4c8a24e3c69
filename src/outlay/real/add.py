"""`outlay campaign add`: prompts that are new in the pool are taken into a campaign that has begun."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .. import growth, pools, registry
from ..errors import ConfigError, RunConflict
from ..store import Store, write_atomic
from . import setup
from .config import CampaignConfig
from .setup import Live

if TYPE_CHECKING:
    import pyarrow as pa


def add(config: CampaignConfig, root: Path, *, dry_run: bool = False) -> str:
    """Take what is new in the config's pool into the campaign of this run directory; -> what was done, in a sentence. From the first round that
    has not begun they can be bought; the dev set, and all that was chosen, answered and trained so far, stay. Repeated or killed, it
    ends the same. RunConflict if anything but new prompts is different, with the difference; ConfigError if no round is left to buy them."""
    with Store(root).lock(".lock"):
        live = setup.opened(root)
        setup.same(live.asked, config, root)
        if live.config.shadow:
            raise ConfigError(f"{root} has a shadow arm, whose random sample is drawn from the pool of the start and would be none of a larger one; start another campaign with another --out, over the larger pool")
        old = live.bench.pool().table
        table = setup.in_order(old, setup.pool_table(config))
        if what := setup.difference(old, table.slice(0, old.num_rows)):
            raise RunConflict(f"only new prompts can be added to the pool of {root}, and there {setup.difference(old, table) or what}; restore the others")
        new = table.slice(old.num_rows)
        if not new.num_rows:
            return f"there is no new prompt in the pool: {root} knows all {old.num_rows}"
        number = _first_free(live)
        _check(live, new)
        more = growth.Addition(datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), number, old.num_rows, new.num_rows, pools.pool_of("pool", table).fingerprint)
        said = f"{setup.difference(old, table)}; {old.num_rows} are there and unchanged. The pool has {table.num_rows} prompts, and rounds from {number} on may buy them"
        if dry_run:
            return f"would be added: {said}"
        for name, part in (("pool", pools.pool_of("pool", table).table), ("vault", pools.vault_of(table))):
            write_atomic(growth.file(root, name, len(live.bench.grown()) + 1), setup.parquet(part))
        growth.record(root, more)
        return f"added: {said}"


def _first_free(live: Live) -> int:
    """The first round that has not begun: what a round scored or chose stays as it is."""
    begun = [n for n, folder in enumerate(live.folders, 1) if any((live.root / folder / name).exists() for name in ("signals.parquet", "selection.json"))]
    number = max(begun, default=0) + 1
    if number > len(live.folders):
        raise ConfigError(f"all {len(live.folders)} rounds of {live.root} have begun, so nothing more can be bought; start another campaign with another --out")
    return number


def _check(live: Live, new: pa.Table) -> None:
    """DataError if a new prompt is one of the dev set's or the test set's: accuracy on them would be memory."""
    import pyarrow as pa

    pools.require_disjoint(new, pa.table({"text": pa.array([prompt.text for prompt in live.dev_prompts()], pa.string())}), "the bought dev set")
    for name, spec in (("dev_set", live.config.dev_set), ("test_set", live.config.test_set)):
        if spec is not None:
            pools.require_disjoint(new, pools.check(name, registry.build("pool", spec)()), name)
