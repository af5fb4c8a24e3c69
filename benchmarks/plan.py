"""How far `outlay plan` is from what its study then consumes, by kind of stage.

    OMP_NUM_THREADS=1 python benchmarks/plan.py configs/quickstart.yaml seeds=1 [--json FILE]

Both are done in this process, one after the other, with CPU seconds in the place of device seconds: other programs on the machine then
do not count. The study is run in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

KINDS = {"shard": "base signals", "signals": "signals", "batch": "batch", "model": "model", "evaluation": "evaluation"}
NUMBERS = ("seconds", "flops", "prompt_tokens", "generated_tokens", "trained_tokens")


def kind_of(campaign: str, stage: str) -> str:
    """The plan's kind of a stage of the ledger."""
    if not campaign:
        return "base evaluation" if "evaluation" in stage else "base signals"
    return KINDS[stage.partition("-")[0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    time.perf_counter = time.process_time  # the clock of every part

    import pandas as pd

    from outlay import config as configs
    from outlay.plan import plan
    from outlay.study import run_study

    config = configs.load(asked.config, [*asked.overrides, "executor=serial"])
    begin = time.process_time()
    found = plan(config, quiet=True)
    print(f"the plan took {time.process_time() - begin:.1f} CPU seconds", flush=True)
    with tempfile.TemporaryDirectory() as where:
        root = run_study(config, Path(where) / "run", quiet=True)
        table = pd.read_parquet(root / "ledger.parquet")
        size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    table = table[table["paid"]]
    actual = table.groupby([kind_of(c, s) for c, s in zip(table["campaign"], table["stage"], strict=True)])[list(NUMBERS)].sum()
    rows = []
    for kind, estimate in [*found.stages.items(), ("together", found.total)]:
        real = actual.sum() if kind == "together" else actual.loc[kind] if kind in actual.index else None
        for name in NUMBERS:
            if real is not None and real[name]:
                expected, worst = getattr(estimate.expected, name), getattr(estimate.worst, name)
                rows.append({"stage": kind, "number": name, "expected": expected, "worst": worst, "actual": float(real[name]), "ratio": expected / real[name]})
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    print(f"disk: expected {found.disk[0] / 1e6:.1f} MB, worst {found.disk[1] / 1e6:.1f} MB, actual {size / 1e6:.1f} MB; memory of a worker: {found.memory}")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
