"""Write the table of sizes into docs/cluster.md: python scripts/cluster_table.py

Every constant is read off a table of measured figures: docs/engine.md (benchmarks/engine.py, engine_gpu.py) and docs/selection.md
(benchmarks/selection.py). A figure measured anew changes the table; a row that is not there any more is an error.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "cluster.md"
POOLS = (10**5, 10**6, 10**7, 10**8)
WIDTH = 576  # of SmolLM2-135M, whose prompts and embeddings all these benchmarks have
PICKS = 1000  # for k-center, whose work is one product a prompt and pick
BEGIN, END = "<!-- made by scripts/cluster_table.py -->\n", "<!-- end -->\n"


@dataclass(frozen=True, slots=True)
class Measured:
    """gpu: prompts a second on one H100, bfloat16; cpu: prompts a CPU second, float32; both with 16 new tokens. small, large: (rows, CPU
    seconds, GiB) of facility location in mode cells, k = n/10. center: CPU seconds of k-center a row and pick."""

    gpu: float
    cpu: float
    small: tuple[int, float, float]
    large: tuple[int, float, float]
    center: float


def figures(page: str, row: str) -> list[float | None]:
    """The first number of each cell of the one row of a table that begins so."""
    lines = [line for line in (DOCS / page).read_text(encoding="utf-8").splitlines() if line.startswith(f"| {row} |")]
    if len(lines) != 1:
        raise SystemExit(f"docs/{page} has {len(lines)} rows that begin with '| {row} |', not one; change scripts/cluster_table.py with the page")
    found = [re.search(r"\d[\d,]*\.?\d*", cell) for cell in lines[0].split("|")[2:-1]]
    return [float(m[0].replace(",", "")) if m else None for m in found]


def prompts_of(page: str, pattern: str) -> int:
    """How many prompts a benchmark had, from the sentence over its table."""
    found = re.search(pattern, (DOCS / page).read_text(encoding="utf-8"))
    if not found:
        raise SystemExit(f"docs/{page} does not say '{pattern}' any more; change scripts/cluster_table.py with the page")
    return int(found[1])


def measured() -> Measured:
    gpu = prompts_of("engine.md", r"SmolLM2-135M-Instruct, (\d+) FLAN V2 CoT prompts, median") / figures("engine.md", "scoring, 16 new tokens, bfloat16")[0]
    cpu = prompts_of("engine.md", r"float32, (\d+) FLAN V2 CoT questions \(mean") / figures("engine.md", "scoring, 16 new tokens, with embedding")[1]
    small = figures("selection.md", "facility location 100k, `cells`")
    large = figures("selection.md", "facility location 1M (float16 file), `cells`, two threads")
    center = figures("selection.md", "k-center 50k | lightly-mundig 0.1.16, on threads of its own")
    return Measured(gpu, cpu, (100_000, small[1], small[4]), (1_000_000, large[1], large[4]), center[1] / (50_000 * 5_000))


def hours(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{_two(seconds / length)} {unit}"
    return f"{_two(seconds)} s"


def size(count: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= length:
            return f"{_two(count / length)} {unit}"
    return f"{_two(count / 1e3)} kB"


def _two(value: float) -> str:
    """Two digits that count."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def table() -> str:
    of = measured()
    (n0, s0, g0), (n1, s1, g1) = of.small, of.large
    power, row = math.log(s1 / s0) / math.log(n1 / n0), (g1 - g0) * 2**30 / (n1 - n0)
    lines = [
        "| prompts | embeddings, float32 | a signal | one pass, one H100 | the same on one CPU core | facility location (`cells`, k = n/10), one core | its memory | k-center, k = 1000, one core |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for n in POOLS:
        beyond = "" if n <= n1 else "≈ "
        choice, memory = s1 * (n / n1) ** power, g1 * 2**30 + row * (n - n1)
        cells = [f"10^{round(math.log10(n))}", size(4 * WIDTH * n), size(4 * n), hours(n / of.gpu), hours(n / of.cpu), beyond + hours(choice), beyond + size(memory), "≈ " + hours(of.center * n * PICKS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """docs/cluster.md with the table of the figures as they stand."""
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
