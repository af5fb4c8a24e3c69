"""FLAN V2 chain-of-thought questions as a benchmark: the same data that a pool can be made of, so keep the two apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError, DataError
from ..pools.flan import read_tsv
from .bbh_data import NEXT, THINK
from .items import Benchmark, Item, chosen_tasks, draw

HEAD = "Answer the questions."


def flan(
    *, file: Path | None = None, tasks: Sequence[str] = (), max_items: int | None = None, cot: bool = True, shots: int | None = None, seed: int = 0
) -> Benchmark:
    """Questions of FLAN V2 CoT files (prompt, answer, rationale). file: a .tsv or .tsv.gz file, or a folder of *_train.tsv[.gz];
    without one $OUTLAY_DATA/flan_v2_cot. Worked examples (default: three) are rows of the same file drawn by hash, and are
    never asked. max_items: of each file. The prompts have the form of BBH's. Raises DataError or ConfigError."""
    files = _files(file)
    shots = 3 if shots is None else shots
    items = {}
    for task in chosen_tasks("FLAN CoT", tasks, files):
        path = files[task]
        rows = [(prompt.strip(), answer.strip(), rationale.strip()) for prompt, answer, rationale in read_tsv(path)]
        if not 0 <= shots < len(rows):
            raise ConfigError(f"FLAN CoT: shots = {shots}, and {path} has {len(rows)} rows; choose 0 to {len(rows) - 1}")
        examples = draw(f"{task}-examples", len(rows), shots, 0) if shots else []
        shown = {rows[e][0] for e in examples}
        left = [row for row in range(len(rows)) if rows[row][0] not in shown]
        head = HEAD + "".join(f"{NEXT}{rows[e][0]}" + (f"{THINK}\n{rows[e][2]} So the answer is {rows[e][1]}." if cot else f"\nA: {rows[e][1]}") for e in examples)
        picked = [left[i] for i in draw(task, len(left), max_items, seed)]
        items[task] = [Item(f"{task}/{row}", task, head + NEXT + rows[row][0] + (THINK if cot else "\nA:"), rows[row][1], rows[row][0]) for row in picked]
    note = f"FLAN V2 CoT from {file or files[next(iter(items))].parent}; these questions are also what the pool flan_cot sells: not a test of a model that was tuned on them"
    return Benchmark("flan", items, "reasoned" if cot else "direct", notes=(note,))


def _files(file: Path | None) -> dict[str, Path]:
    if file is None:
        if not os.environ.get("OUTLAY_DATA"):
            raise DataError("FLAN mode needs the key flan_file: a .tsv of flan/v2/cot_data of https://github.com/google-research/FLAN, or a folder of them")
        file = Path(os.environ["OUTLAY_DATA"]) / "flan_v2_cot"
    if file.is_file():
        return {file.name.split(".tsv")[0].removesuffix("_train"): file}
    files = {p.name.split("_train")[0]: p for p in sorted(file.glob("*_train.tsv*"))}
    if not files:
        raise DataError(f"no FLAN file {file}, and no *_train.tsv[.gz] in a folder of that name; get flan/v2/cot_data of https://github.com/google-research/FLAN")
    return files
