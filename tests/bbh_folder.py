"""A checkout of BIG-Bench-Hard in small: three of its tasks, with questions of our own that fit into the tiny model's context."""

import json
from pathlib import Path

QUESTIONS = {
    "navigate": [(f"Go {n} steps on and {m} back. At the start?\nOptions:\n- Yes\n- No", "Yes" if n == m else "No") for n, m in ((1, 1), (2, 1), (3, 3), (4, 2), (5, 5), (2, 2), (1, 3))],
    "object_counting": [(f"I have {n} pens and a cup. How many things?", str(n + 1)) for n in range(1, 8)],
    "snarks": [(f"Which is it?\nOptions:\n(A) {a}\n(B) {b}", "(A)") for a, b in (("up", "down"), ("left", "right"), ("in", "out"), ("on", "off"), ("hot", "cold"), ("wet", "dry"), ("big", "small"))],
}


def make(folder: Path) -> Path:
    """Write it; -> its root."""
    for name in ("bbh", "cot-prompts"):
        (folder / name).mkdir(parents=True)
    for task, rows in QUESTIONS.items():
        examples = [{"input": question, "target": target} for question, target in rows[3:]]
        (folder / f"bbh/{task}.json").write_text(json.dumps({"canary": "none", "examples": examples}))
        shown = "".join(f"\n\nQ: {question}\nA: Let's think step by step.\nHm. So the answer is {target}." for question, target in rows[:3])
        (folder / f"cot-prompts/{task}.txt").write_text(f"made up\n-----\nAnswer.{shown}")
    return folder
