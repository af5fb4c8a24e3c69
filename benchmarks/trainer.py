"""LoRA fine-tuning: trainer sft, packed and padded, against TRL's SFTTrainer as a user sets it up, with and without gradient checkpointing.

    make .venv/stamp-smollm2 .venv/stamp-trl
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/trainer.py [--quick] [--json FILE]

One epoch over FLAN V2 CoT questions with their rationales from $OUTLAY_DATA/flan_v2_cot (without it, reasoning-gym questions stand in, and
other figures come out): the same examples in the same order, learning rates, rank and targets, SmolLM2-135M in float32, one thread, CPU seconds
of a whole call with the model in memory (making adapters, training, writing them). The losses of all updates must be the same within 1e-3, or the run fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from _common import interleaved, row, show

from outlay.engine import SFT, TRL, Runtime
from outlay.engine.lesson import answers, examples
from outlay.engine.load import load
from outlay.engine.trl_backend import learn
from outlay.types import Annotation, Model, Prompt

CPU = Runtime(device="cpu", threads=1)
# The goals of the project: against TRL without and with gradient checkpointing.
GOALS = {"TRL": 1.6, "TRL, gradient checkpointing": 2.0}


def data(n: int) -> tuple[list[Prompt], list[Annotation], str]:
    folder = Path(os.environ.get("OUTLAY_DATA", "")) / "flan_v2_cot"
    if folder.is_dir():
        from outlay.pools.flan import FlanCot

        table, source = FlanCot(folder=folder, response="rationale", size=n)(), "FLAN V2 CoT"
    else:
        from outlay.pools.gym import ReasoningGym

        table, source = ReasoningGym(size=n)(), "reasoning-gym"
    rows = list(zip(*(table.column(name).to_pylist() for name in ("id", "text", "response")), strict=True))
    return [Prompt(name, text) for name, text, _ in rows], [Annotation(name, response=said) for name, _, said in rows], source


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--minibatch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="16 examples: within five minutes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    n = 16 if args.quick else args.examples
    torch.set_num_threads(1)

    start = Model(args.model)
    loaded = load(start, CPU)
    prompts, annotations, source = data(n)
    common = {"runtime": CPU, "epochs": 1, "minibatch": args.minibatch, "learning_rate": 5e-4}
    packed, padded, peer = SFT(packed=True, **common), SFT(**common), TRL(**common)
    lesson = examples(loaded, "auto", prompts, annotations, most=packed.max_tokens, trainer="sft")
    tokens = sum(len(e.ids) for e in lesson)
    print(f"{n} examples of {source}, {tokens} tokens, {answers(lesson)} of them responses; minibatch {args.minibatch}, {args.model}, one thread:")

    def ours(trainer: SFT) -> Callable[[], list[float]]:
        def arm() -> list[float]:
            with tempfile.TemporaryDirectory() as place:
                return trainer.train(start, prompts, annotations, Path(place, "w"), seed=1)[1].losses

        return arm

    def trl(**options) -> Callable[[], list[float]]:
        def arm() -> list[float]:
            with tempfile.TemporaryDirectory() as place:
                return learn(replace(peer, **options), start, lesson, Path(place), 1).losses

        return arm

    # What runs but once, such as imports and packing for the check of the build, is not timed; everything else of a call is, in both.
    for trainer in (packed, peer):
        with tempfile.TemporaryDirectory() as place:
            trainer(start, prompts[:1], annotations[:1], Path(place, "w"))
    begin = time.perf_counter()
    arms = {
        "packed": ours(packed), "TRL": trl(), "padded": ours(padded), "TRL, gradient checkpointing": trl(gradient_checkpointing=True),
        "packed, gradient checkpointing": ours(replace(packed, gradient_checkpointing=True)),
    }  # fmt: skip
    timings = interleaved(arms, args.repeats)
    print(f"{time.perf_counter() - begin:.0f} s in all")

    reference = np.array(timings["TRL"].result)
    far = {name: float(np.abs(np.array(timing.result) - reference).max()) for name, timing in timings.items()}
    setting = {"examples": n, "tokens": tokens, "source": source, "minibatch": args.minibatch, "model": args.model, "threads": 1}
    rows = [row(f"packed, against {name}", timings["packed"], timings[name], goal, difference=far[name], **setting) for name, goal in GOALS.items()]
    rows.append(row("padded (the default), against TRL", timings["padded"], timings["TRL"], difference=far["padded"], **setting))
    both = "packed, gradient checkpointing", "TRL, gradient checkpointing"
    rows.append(row("packed, against TRL, both with gradient checkpointing", timings[both[0]], timings[both[1]], difference=far[both[0]], **setting))
    show(rows, args.json)
    print("greatest difference of a loss from TRL's: " + ", ".join(f"{name} {value:.1g}" for name, value in far.items() if name != "TRL"))
    return 1 if max(far.values()) > 1e-3 else 0


if __name__ == "__main__":
    sys.exit(main())
