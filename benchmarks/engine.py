"""Scoring a pool against the tools that people would use instead: one thread, CPU seconds, ours and the peer in turns in one run.

    python benchmarks/engine.py [--quick] [--case NAME ...] [--json FILE]

Every arm must give the same tokens for every prompt, and signals and embeddings within 1e-3, or the run stops. Prompts are FLAN V2 CoT
questions from $OUTLAY_DATA/flan_v2_cot; without it, reasoning-gym questions stand in, and other figures come out. The median of the
repeats is reported with the least and the greatest; "of peak" is the share of this machine's float32 matrix product, measured in the same
run, that our arm's FLOPs (by formula; a shared beginning counted once) are per second.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from _common import interleaved, row, show
from _scoring import Job, Said, compare, matmul_peak
from _study import compare as compare_study

from outlay import config
from outlay.engine import Runtime
from outlay.engine.generate import generate
from outlay.engine.load import load
from outlay.engine.render import format_of, prompts
from outlay.types import Model


@dataclass(frozen=True)
class Case:
    """One row: our minibatch and the peer's (each the fastest of those tried), and the goal: how many times less CPU time."""

    name: str
    peer: str
    goal: float
    model: str
    prompts: int
    quick: int
    new: int
    ours: int
    theirs: int
    embedding: bool = True


CASES = (
    Case("scoring 16, per prompt", "hf", 5.0, "smollm2", 64, 16, 16, 64, 1),
    Case("scoring 16, batched", "hf", 2.5, "smollm2", 64, 32, 16, 64, 32),
    Case("scoring 48, per prompt", "hf", 6.0, "smollm2", 64, 8, 48, 64, 1),
    Case("scoring 48, batched", "hf", 2.3, "smollm2", 64, 16, 48, 64, 32),
    Case("log-prob only, 16", "generate_batch", 2.0, "smollm2", 64, 16, 16, 64, 64, embedding=False),
    Case("vLLM, 16", "vllm", 1.0, "smollm2", 64, 16, 16, 64, 64, embedding=False),
    Case("vLLM, 48", "vllm", 1.0, "smollm2", 64, 16, 48, 64, 64, embedding=False),
    Case("tiny model, 32", "hf", 1.7, "tiny", 512, 256, 32, 128, 128),
)

STUDY = "quickstart study"


def texts(model: str, n: int) -> tuple[list[str], str]:
    """n prompts and where they are from. The tiny model knows the characters of the skills world only."""
    if model == "tiny":
        from outlay.pools.procedural import Skills

        return Skills(size=n)().column("text").to_pylist(), "skills"
    folder = Path(os.environ.get("OUTLAY_DATA", "")) / "flan_v2_cot"
    if folder.is_dir():
        from outlay.pools.flan import FlanCot

        return FlanCot(folder=folder, size=n)().column("text").to_pylist(), "FLAN V2 CoT"
    from outlay.pools.gym import ReasoningGym

    print("OUTLAY_DATA names no folder with flan_v2_cot: reasoning-gym questions stand in, and figures are not those of the documentation", file=sys.stderr)
    return ReasoningGym(size=n)().column("text").to_pylist(), "reasoning-gym"


def job(case: Case, quick: bool) -> tuple[Job, str]:
    loaded = load(Model(case.model), Runtime(device="cpu", threads=1))
    form = format_of(loaded, "auto")
    asked, source = texts(case.model, case.quick if quick else case.prompts)
    rows = prompts(loaded, form, [f"p{i}" for i in range(len(asked))], asked, room=case.new)
    return Job(loaded, rows, form.stops, case.new, case.ours, case.theirs, case.embedding), source


def agree(case: Case, ours: Said, theirs: Said) -> float:
    """Greatest difference in a signal or embedding. Stops the run where tokens differ or the difference is above 1e-3."""
    others, far = compare(ours, theirs)
    if others:
        raise SystemExit(f"{case.name}: prompt {others[0]} got other tokens from {case.peer}: {ours.tokens[others[0]]} and {theirs.tokens[others[0]]}")
    if far > 1e-3:
        raise SystemExit(f"{case.name}: a signal differs from {case.peer}'s by {far:.2g}; at most 1e-3 is allowed")
    return far


def measure(case: Case, *, quick: bool, repeats: int, best: float) -> dict:
    """One row of the table."""
    task, source = job(case, quick)
    generate(task.loaded, task.rows[:2], stops=task.stops, max_new_tokens=2, minibatch=2)  # packs the weights, once a model
    timings = interleaved({"ours": task.outlay, case.peer: getattr(task, case.peer)}, repeats)
    us, peer = timings["ours"], timings[case.peer]
    far = agree(case, us.result, peer.result)
    return row(
        case.name, us, peer, case.goal, of_peak=f"{task.flops(us.result) / us.median / best:.0%}", tool=f"{case.peer}, minibatch {case.theirs}", minibatch=case.ours,
        prompts=len(task.rows), source=source, new_tokens=case.new, difference=float(f"{far:.1e}"), peak_gflops=round(best / 1e9),
    )  # fmt: skip


def study(quick: bool) -> dict:
    """The quickstart study; quick: one seed, and smaller."""
    sizes = ["seeds=1", "rounds=[1,2]", "pool.size=400", "pool_per_seed=200", "budgets=[16]", *(f"evaluators.{name}.source.size=48" for name in ("like_pool", "balanced"))] if quick else []
    asked = config.load(Path(__file__).parents[1] / "configs/quickstart.yaml", sizes)
    found = compare_study(asked, time.process_time)
    return row(
        STUDY, found.whole, found.alone, 1.4, tool=f"{found.cells} campaigns one by one", source="skills", prompts=asked.pool["size"],
        different_campaigns=found.runs, different_campaigns_seconds=round(found.once, 2), different_campaigns_ratio=round(found.once / found.whole.median, 2),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer prompts; within five minutes")
    parser.add_argument("--case", action="append", choices=[*(c.name for c in CASES), STUDY], help="only this row; may be given several times")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    best = matmul_peak(1024, clock=time.process_time)
    print(f"one thread, CPU seconds; float32 matrix product {best / 1e9:.0f} GFLOP/s")
    rows = []
    there = bool(find_spec("vllm"))
    if not there:
        print("vLLM is not installed: its rows are left out")
    for case in CASES:
        if case.name in args.case if args.case else there or case.peer != "vllm":
            print(f"{case.name}:")
            rows.append(measure(case, quick=args.quick, repeats=args.repeats, best=best))
    if not args.case or STUDY in args.case:
        print(f"{STUDY}:")
        rows.append(study(args.quick))
        print(f"without cells that are the same run as another: {rows[-1]['different_campaigns_ratio']}x")
    show(rows, args.json, more={"of peak": "of_peak", "peer": "tool", "prompts": "prompts", "from": "source"})


if __name__ == "__main__":
    main()
