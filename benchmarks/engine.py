"""Scoring a pool against the tools that people would use instead: one thread, CPU seconds, ours and the peer in turns in one run.

    python benchmarks/engine.py [--quick] [--case NAME ...] [--json FILE]

Every arm must give the same tokens for every prompt, and signals and embeddings within 1e-3, or the run stops. Prompts are FLAN V2 CoT
questions from $OUTLAY_DATA/flan_v2_cot; without it, reasoning-gym questions stand in, and other figures come out. The median of the
repeats is reported with the least and the greatest; "of peak" is the share of this machine's float32 matrix product, measured in the same
run, that our arm's FLOPs (by formula; a shared beginning counted once) are per second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from outlay.engine import Runtime
from outlay.engine.generate import Generated, generate
from outlay.engine.load import Loaded, load
from outlay.engine.network import EmbeddingSpec, common_prefix
from outlay.engine.render import Rendered, format_of, prompts
from outlay.measure import flops
from outlay.types import Model

SIGNALS = ("mean_entropy", "max_entropy", "sum_logprob", "mean_logprob", "mean_margin", "min_margin")


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
    Case("tiny model, 32", "hf", 1.7, "tiny", 512, 256, 32, 128, 128),
)


@dataclass
class Said:
    """What an arm says of each prompt: tokens with the end token, signals, embedding."""

    tokens: list[list[int]]
    signals: dict[str, np.ndarray] = field(default_factory=dict)
    embedding: np.ndarray | None = None


@dataclass(frozen=True)
class Job:
    loaded: Loaded
    rows: list[Rendered]
    stops: frozenset[int]
    case: Case

    def ours(self) -> Said:
        spec = EmbeddingSpec(normalise=False) if self.case.embedding else None
        out: Generated = generate(self.loaded, self.rows, stops=self.stops, max_new_tokens=self.case.new, minibatch=self.case.ours, embedding=spec)
        return Said(out.tokens, out.signals, out.embedding)

    def hf(self) -> Said:
        """generate() on left-padded minibatches of neighbouring lengths, statistics of the steps' logits, and a second forward for the embedding."""
        model, n = self.loaded.model, len(self.rows)
        said = Said([[] for _ in range(n)], {name: np.zeros(n) for name in SIGNALS}, np.zeros((n, self.loaded.arch.width)))
        order = sorted(range(n), key=lambda i: -len(self.rows[i].ids))
        for at in range(0, n, self.case.theirs):
            part = order[at : at + self.case.theirs]
            longest = max(len(self.rows[i].ids) for i in part)
            ids = torch.zeros(len(part), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for k, i in enumerate(part):
                ids[k, longest - len(self.rows[i].ids) :] = torch.tensor(self.rows[i].ids)
                mask[k, longest - len(self.rows[i].ids) :] = 1
            out = model.generate(
                ids, attention_mask=mask, max_new_tokens=self.case.new, do_sample=False, eos_token_id=sorted(self.stops), pad_token_id=0, output_scores=True, return_dict_in_generate=True
            )
            with torch.inference_mode():
                steps = []
                for scores in out.scores:
                    logp = scores.log_softmax(-1)
                    top = logp.topk(2).values
                    steps.append(torch.stack([-(logp.exp() * logp).sum(-1), top[:, 0], top[:, 0] - top[:, 1]], dim=1))
                numbers = torch.stack(steps, dim=1).numpy()
                hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            for k, i in enumerate(part):
                new = out.sequences[k, longest:].tolist()
                end = next((j for j, token in enumerate(new) if token in self.stops), None)
                count = len(new) if end is None else end + 1
                said.tokens[i] = new[:end]
                entropy, logp, margin = numbers[k, :count].T
                values = (entropy.mean(), entropy.max(), logp.sum(), logp.mean(), margin.mean(), margin.min())
                for name, value in zip(SIGNALS, values, strict=True):
                    said.signals[name][i] = value
                first, last = self.rows[i].user
                pad = longest - len(self.rows[i].ids)
                said.embedding[i] = hidden[k, pad + first : pad + last].mean(0)
        return said

    def generate_batch(self) -> Said:
        """transformers' continuous batching with the chosen tokens' log-probabilities."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        config = GenerationConfig(max_new_tokens=self.case.new, do_sample=False, eos_token_id=sorted(self.stops), pad_token_id=0)
        batching = ContinuousBatchingConfig(return_logprobs=True, page_size=32, num_blocks=512, max_batch_tokens=1024, max_requests_per_batch=self.case.theirs)
        found = self.loaded.model.generate_batch([list(r.ids) for r in self.rows], generation_config=config, continuous_batching_config=batching, warmup=False)
        answers = sorted(found.values(), key=lambda o: int(o.request_id.rsplit("_", 1)[1]))
        said = Said([], {"sum_logprob": np.zeros(len(answers))})
        for i, answer in enumerate(answers):
            new = list(answer.generated_tokens)
            said.signals["sum_logprob"][i] = sum(answer.logprobs)
            said.tokens.append(new[:-1] if new and new[-1] in self.stops else new)
        return said

    def flops(self, said: Said) -> int:
        """Of our arm, a shared beginning counted once."""
        lengths = [len(r.ids) for r in self.rows]
        shared = len(common_prefix(self.rows))
        counts = [min(len(t) + 1, self.case.new) for t in said.tokens]
        once = (len(self.rows) - 1) * flops.forward(self.loaded.arch, [shared], 0)
        return flops.scoring(self.loaded.arch, lengths, counts) - once


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
    return Job(loaded, prompts(loaded, form, [f"p{i}" for i in range(len(asked))], asked, room=case.new), form.stops, case), source


def agree(case: Case, ours: Said, theirs: Said) -> float:
    """Greatest difference in a signal or embedding. Stops the run where tokens differ or the difference is above 1e-3."""
    for row, (a, b) in enumerate(zip(ours.tokens, theirs.tokens, strict=True)):
        if a != b:
            raise SystemExit(f"{case.name}: prompt {row} got other tokens from {case.peer}: {a} and {b}")
    far = [np.abs(ours.signals[name] - values).max() for name, values in theirs.signals.items()]
    if theirs.embedding is not None:
        far.append(np.abs(ours.embedding - theirs.embedding).max())
    if max(far) > 1e-3:
        raise SystemExit(f"{case.name}: a signal differs from {case.peer}'s by {max(far):.2g}; at most 1e-3 is allowed")
    return float(max(far))


def peak() -> float:
    """FLOP/s of the best of several float32 products of 1024 x 1024 matrices."""
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    seconds = []
    for _ in range(12):
        start = time.process_time()
        torch.mm(a, b)
        seconds.append(time.process_time() - start)
    return 2 * 1024**3 / min(seconds)


def timed(arm: Callable[[], Said]) -> tuple[float, Said]:
    start = time.process_time()
    said = arm()
    return time.process_time() - start, said


def measure(case: Case, *, quick: bool, repeats: int, best: float) -> dict:
    """One row of the table."""
    task, source = job(case, quick)
    ours, theirs = [], []
    peer = getattr(task, case.peer)
    task.rows[:2] and generate(task.loaded, task.rows[:2], stops=task.stops, max_new_tokens=2, minibatch=2)  # packs the weights, once a model
    for _ in range(repeats):
        seconds, said = timed(task.ours)
        other, reference = timed(peer)
        ours.append(seconds)
        theirs.append(other)
        far = agree(case, said, reference)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "case": case.name, "ours": round(statistics.median(ours), 2), "peer": round(statistics.median(theirs), 2), "ratio": round(statistics.median(ratios), 2), "goal": case.goal,
        "ratio_least": round(min(ratios), 2), "ratio_most": round(max(ratios), 2), "ours_all": [round(x, 2) for x in ours], "peer_all": [round(x, 2) for x in theirs],
        "of_peak": round(task.flops(said) / statistics.median(ours) / best, 2), "peer_tool": f"{case.peer}, minibatch {case.theirs}", "minibatch": case.ours,
        "prompts": len(task.rows), "source": source, "new_tokens": case.new, "difference": float(f"{far:.1e}"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer prompts; within five minutes")
    parser.add_argument("--case", action="append", choices=[c.name for c in CASES], help="only this row; may be given several times")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    best = peak()
    print(f"one thread, CPU seconds; float32 matrix product {best / 1e9:.0f} GFLOP/s\n{'case':24} {'ours':>8} {'peer':>8} {'ratio':>6} {'spread':>13} {'goal':>5} {'of peak':>8}")
    rows = []
    for case in CASES:
        if args.case and case.name not in args.case:
            continue
        row = measure(case, quick=args.quick, repeats=args.repeats, best=best)
        rows.append(row)
        spread = f"{row['ratio_least']} .. {row['ratio_most']}"
        print(f"{row['case']:24} {row['ours']:8.2f} {row['peer']:8.2f} {row['ratio']:6.2f} {spread:>13} {row['goal']:5.1f} {row['of_peak']:8.0%}   {row['peer_tool']}; {row['prompts']} prompts, {row['source']}", flush=True)
        if args.json:
            args.json.write_text(json.dumps({"peak_gflops": round(best / 1e9, 1), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
