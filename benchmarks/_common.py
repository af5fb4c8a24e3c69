"""What the benchmarks share: arms timed in turn, here or each in a process of its own, and rows (case, ours, peer, ratio, goal) as a table and as JSON.

Times are CPU seconds of the whole process unless another clock is given; run those with OMP_NUM_THREADS=1, or a second thread is counted, too.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Timing:
    """One arm: its seconds, one a repetition, and what the last repetition returned; of arms in processes of their own also the
    elapsed seconds and the greatest resident memory (GiB) of each repetition."""

    seconds: tuple[float, ...]
    result: Any
    elapsed: tuple[float, ...] = ()
    memory: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def interleaved(arms: Mapping[str, Callable[[], Any]], repeats: int, *, clock: Callable[[], float] = time.process_time) -> dict[str, Timing]:
    """Call every arm once, in order; then all again, `repeats` times: a noisy minute then hits all arms alike."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    results = {}
    for turn in range(repeats):
        for name, arm in arms.items():
            start = clock()
            results[name] = arm()
            seconds[name].append(clock() - start)
            print(f"  {turn + 1}/{repeats} {name}: {seconds[name][-1]:.2f} s", flush=True)
    return {name: Timing(tuple(seconds[name]), results[name]) for name in arms}


@dataclass(frozen=True, slots=True)
class Arm:
    """A job for a process of its own: `prepare(**options)`, which is not timed, loads what is needed and returns what is timed."""

    prepare: Callable[..., Callable[[], Any]]
    options: Mapping[str, Any]


def interleaved_apart(arms: Mapping[str, Arm], repeats: int) -> dict[str, Timing]:
    """interleaved() with every repetition of an arm in a new process, so that memory, compiled code and caches are its own."""
    found: dict[str, list[tuple[Any, float, float, float]]] = {name: [] for name in arms}
    for turn in range(repeats):
        for name, arm in arms.items():
            with multiprocessing.get_context("spawn").Pool(1) as process:
                found[name].append(process.apply(_alone, (arm,)))
            _, seconds, elapsed, memory = found[name][-1]
            print(f"  {turn + 1}/{repeats} {name}: {seconds:.2f} CPU s, {elapsed:.2f} s elapsed, {memory:.2f} GiB", flush=True)
    return {name: Timing(tuple(r[1] for r in runs), runs[-1][0], tuple(r[2] for r in runs), tuple(r[3] for r in runs)) for name, runs in found.items()}


def _alone(arm: Arm) -> tuple[Any, float, float, float]:
    job = arm.prepare(**arm.options)
    begin, start = time.perf_counter(), time.process_time()
    result = job()
    seconds, elapsed = time.process_time() - start, time.perf_counter() - begin
    # Not ru_maxrss, which a new process inherits from the one that started it.
    peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return result, seconds, elapsed, peak / 2**20


def row(case: str, ours: Timing, peer: Timing, goal: float | None = None, **more: Any) -> dict[str, Any]:
    """A line of the table. ratio: how many times less time ours takes, the median over the repetitions, each of which pairs the
    two within minutes (with the least and the greatest); goal: the ratio asked for (None: none). Memory is the greatest of all repetitions."""
    ratios = [p / o for o, p in zip(ours.seconds, peer.seconds, strict=True)]
    if ours.memory:
        more = {"ours_elapsed": round(statistics.median(ours.elapsed), 2), "peer_elapsed": round(statistics.median(peer.elapsed), 2), "ours_gib": round(max(ours.memory), 2), "peer_gib": round(max(peer.memory), 2)} | more
    return {
        "case": case, "ours": round(ours.median, 3), "peer": round(peer.median, 3), "ratio": round(statistics.median(ratios), 2), "goal": goal,
        "ratio_least": round(min(ratios), 2), "ratio_most": round(max(ratios), 2),
        "ours_all": [round(s, 3) for s in ours.seconds], "peer_all": [round(s, 3) for s in peer.seconds], **more,
    }  # fmt: skip


def show(rows: list[dict[str, Any]], json_file: Path | None = None, *, unit: str = "CPU s", more: Mapping[str, str] | None = None) -> None:
    """Print the table; with `json_file` write all keys of the rows there, too. more: head -> key of further columns."""
    more = more or {}
    heads = ("case", f"ours ({unit})", f"peer ({unit})", "ratio", "spread", "goal", *more)
    cells = [
        (r["case"], f"{r['ours']:.2f}", f"{r['peer']:.2f}", f"{r['ratio']:.1f}x", f"{r['ratio_least']:.1f} to {r['ratio_most']:.1f}", _goal(r), *(str(r.get(key, "")) for key in more.values()))
        for r in rows
    ]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in (heads, *cells):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    if json_file:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")


def _goal(row: Mapping[str, Any]) -> str:
    if row["goal"] is None:
        return ""
    return f"{row['goal']:g}x {'met' if row['ratio'] >= row['goal'] else 'missed'}"
