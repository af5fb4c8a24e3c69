"""A whole study against its campaigns run one by one, each as a study of its own that shares nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from _common import Timing

from outlay import grid, pools, results
from outlay.campaign import Campaign
from outlay.config import StudyConfig
from outlay.study import run_study
from outlay.workbench import open_bench

Clock = Callable[[], float]


@dataclass(frozen=True)
class Compared:
    """`whole`: the study. `alone`: every cell that was asked for, by itself. `once`: of these, the sum over different campaigns only
    (cells that are known to be the same run as another one are counted once). `cells`, `runs`: how many these are."""

    whole: Timing
    alone: Timing
    once: float
    cells: int
    runs: int


def compare(config: StudyConfig, clock: Clock) -> Compared:
    """Run both in this process, without the reference curve. Stops where a campaign alone bought other prompts or has another accuracy."""
    config = config.model_copy(update={"executor": "serial", "reference_curve": False})
    with tempfile.TemporaryDirectory() as folder:
        whole, alone = Path(folder, "whole"), []
        start = clock()
        run_study(config, whole, quiet=True)
        together = clock() - start
        found = _found(whole)
        for cell, own in _cells(config, whole):
            where = Path(folder, f"alone-{len(alone)}")
            start = clock()
            run_study(own, where, quiet=True)
            alone.append(clock() - start)
            name = grid.runs_as(cell, config).id
            print(f"  {cell.id}: {alone[-1]:.1f} s", flush=True)
            if _found(where)[name] != found[name]:
                raise SystemExit(f"campaign {name} bought other prompts or has another accuracy when it is run alone")
        once = {grid.runs_as(cell, config).id: seconds for cell, seconds in zip(grid.asked(config), alone, strict=True)}
    return Compared(Timing((together,), found), Timing((sum(alone),), found), sum(once.values()), len(alone), len(once))


def _cells(config: StudyConfig, whole: Path) -> Iterator[tuple[Campaign, StudyConfig]]:
    """Every cell and the study of it alone, whose pool is no more than what its seed may buy from."""
    bench = open_bench(str(whole), (whole / "study.json").stat().st_mtime_ns)
    gold = pools.read(whole / "shared/vault.parquet")
    for cell in grid.asked(config):
        share = whole.parent / f"seed-{cell.seed}.parquet"
        if not share.exists():
            rows = pa.array(bench.rows(cell.seed))
            table = pools.read(whole / "shared/pool.parquet").take(rows)
            pq.write_table(table.append_column("response", gold.column("response").take(rows)), share)
        only = {"strategies": [cell.strategy], "rounds": [cell.rounds], "seeds": [cell.seed], "budgets": [cell.budget], "pool_per_seed": None}
        yield cell, config.model_copy(update=only | {"pool": {"use": "file", "path": str(share), "text": "text", "id": "id", "group": "group"}})


def _found(root: Path) -> dict[str, tuple]:
    """Campaign -> what it bought in each round, in order, and its accuracies."""
    bought, table = results.bought(root), results.results(root).drop_duplicates(["campaign", "round", "benchmark"])
    return {
        name: (bought[bought["campaign"] == name][["round", "rank", "id"]].to_numpy().tolist(), table[table["campaign"] == name][["round", "benchmark", "accuracy"]].to_numpy().tolist())
        for name in table["campaign"].unique()
    }
