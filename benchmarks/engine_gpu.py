"""Scoring and fine-tuning on one GPU, against Hugging Face's generate(): wall-clock seconds, ours and the peer in turns in one run.

    python benchmarks/engine_gpu.py --model FOLDER --prompts FILE.jsonl [--quick] [--json FILE] [--device cpu]

FOLDER holds a Llama-type model as safetensors; every line of FILE has a "text" and may have a "response", which fine-tuning then learns
(otherwise the model's own answers stand in). The peer is what a careful user writes: minibatches of neighbouring lengths, the fastest of a
few sizes. In float32 the tokens must be the same; in bfloat16, where another order of sums changes tokens, the share that is the same is
reported. Where vLLM is installed it is a peer, too (`backend: vllm`), with no embedding on either side. "of peak" is the share of this card's matrix product in that type, measured in the same run, that our FLOPs (by formula, a shared
beginning counted once) are per second. Needs numpy, torch, transformers, safetensors and annotated_types (and src on PYTHONPATH); peft for LoRA, without which all weights are trained.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from _common import Timing, interleaved, row, show
from _scoring import Job, compare, matmul_peak

from outlay.engine import SFT, Runtime, graphs
from outlay.engine.load import load
from outlay.engine.render import format_of, prompts
from outlay.types import Annotation, Model, Prompt

GOAL = 3.0  # times HF generate, batched
FAR = 1e-3  # between signals, in float32


class Bench:
    """One device, one model, one file of prompts; `rows` and `facts` are what was found."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device, self.cuda = args, args.device, args.device.startswith("cuda")
        lines = [json.loads(line) for line in args.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
        self.asked = lines[: args.limit or (64 if args.quick else 512)]
        self.begin = time.perf_counter()
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__, "prompts": len(self.asked)}
        if self.cuda:
            properties = torch.cuda.get_device_properties(self.device)
            self.facts |= {"card": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
        self.peaks: dict[str, float] = {}

    def clock(self) -> float:
        if self.cuda:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def late(self, what: str) -> bool:
        """Whether the time is up; then `what` is left out, and said so."""
        if time.perf_counter() - self.begin < self.args.seconds:
            return False
        print(f"left out after {self.args.seconds} s: {what}", flush=True)
        self.facts.setdefault("left_out", []).append(what)
        return True

    def memory(self, arm) -> float:
        """GiB that the arm takes at most beside what is there; 0 without CUDA."""
        if not self.cuda:
            return 0.0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        arm()
        torch.cuda.synchronize(self.device)
        return round((torch.cuda.max_memory_allocated(self.device) - before) / 2**30, 2)

    def peak(self, dtype: str) -> float:
        size = (8192 if dtype == "bfloat16" else 4096) if self.cuda else 512
        if dtype not in self.peaks:
            self.peaks[dtype] = matmul_peak(size, device=self.device, dtype=getattr(torch, dtype), clock=self.clock)
            self.facts[f"peak_tflops_{dtype}"] = round(self.peaks[dtype] / 1e12, 2)
            print(f"{dtype} matrix product: {self.peaks[dtype] / 1e12:.2f} TFLOP/s", flush=True)
        return self.peaks[dtype]

    def job(self, dtype: str, new: int, ours: int, theirs: int, *, embedding: bool = True) -> Job:
        loaded = load(Model(self.args.model), Runtime(device=self.device, dtype=dtype))
        form = format_of(loaded, "auto")
        texts = [line["text"] for line in self.asked]
        return Job(loaded, prompts(loaded, form, [f"p{i}" for i in range(len(texts))], texts, room=new), form.stops, new, ours, theirs, embedding)

    def fastest(self, dtype: str, new: int, arm: str, sizes: list[int]) -> int:
        """The minibatch at which this arm is fastest, of one run each after a first one that warms up."""
        seconds = {}
        for size in sizes:
            job = self.job(dtype, new, size, size)
            call = getattr(job, arm)
            if not seconds:
                call()
            start = self.clock()
            said = call()
            seconds[size] = self.clock() - start
            read, made = job.tokens(said)
            print(f"  {arm} {dtype} {new} new, minibatch {size}: {seconds[size]:.2f} s, {(read + made) / seconds[size]:,.0f} tokens/s", flush=True)
        return min(seconds, key=lambda size: seconds[size])

    # -- the parts ---------------------------------------------------------------------------------------------------------

    def score(self, dtype: str, new: int, repeats: int) -> None:
        ours, theirs = self.sizes()
        if self.late(f"scoring {new}, {dtype}"):
            return
        job = self.job(dtype, new, self.fastest(dtype, new, "outlay", ours), self.fastest(dtype, new, "hf", theirs))
        timings = interleaved({"ours": job.outlay, "HF generate": job.hf}, repeats, clock=self.clock)
        far = self.enter(f"scoring {new}, {dtype}", job, dtype, timings["ours"], timings["HF generate"], GOAL, peer_memory_gib=self.memory(job.hf))
        print(f"  same tokens {self.rows[-1]['same_tokens']}, greatest difference of signals {far:.1e}", flush=True)

    def enter(self, case: str, job: Job, dtype: str, us: Timing, peer: Timing, goal: float, **more: Any) -> float:
        """Add the row of a case; -> the greatest difference of signals."""
        others, far = compare(us.result, peer.result)
        read, made = job.tokens(us.result)
        self.rows.append(
            row(
                case, us, peer, goal, tokens_per_second=round((read + made) / us.median), peer_tokens_per_second=round((read + made) / peer.median),
                generated_per_second=round(made / us.median), of_peak=round(job.flops(us.result) / us.median / self.peak(dtype), 4), minibatch=job.ours, peer_minibatch=job.theirs,
                same_tokens=f"{len(job.rows) - len(others)}/{len(job.rows)}", difference=float(f"{far:.1e}"), least_margin_of_others=[float(f"{us.result.signals['min_margin'][i]:.1e}") for i in others[:8]], memory_gib=self.memory(job.outlay), **more,
            )
        )  # fmt: skip
        return far

    def beside_vllm(self, dtype: str, new: int, repeats: int) -> None:
        """The same without embeddings, beside vLLM in the same process; it is started and warmed up before."""
        if importlib.util.find_spec("vllm") is None:
            self.facts["vllm"] = "not installed"
            return
        if self.late(f"vLLM, {dtype}"):
            return
        size = self.sizes()[0][-1]
        job = self.job(dtype, new, size, size, embedding=False)
        job.outlay(), job.vllm()
        timings = interleaved({"ours": job.outlay, "vLLM": job.vllm}, repeats, clock=self.clock)
        self.facts["vllm"] = sys.modules["vllm"].__version__
        self.enter(f"vLLM {new}, {dtype}", job, dtype, timings["ours"], timings["vLLM"], 1.0)

    def sizes(self) -> tuple[list[int], list[int]]:
        """Minibatches to choose from: ours, the peer's."""
        if not self.cuda:
            return [8, 16], [4, 8]
        return ([64], [64]) if self.args.quick else ([256, 512], [128, 256, 512])

    def sweep(self, dtype: str, new: int) -> None:
        """Tokens per second and peak memory by minibatch, and with and without recorded graphs."""
        found = []
        for size in (4, 16) if not self.cuda else (16, 64, 256) if self.args.quick else (16, 32, 64, 128, 256, 512):
            if self.late(f"minibatch {size}"):
                break
            job = self.job(dtype, new, size, size)
            each = []
            for patience in (graphs.PATIENCE, 1 << 30):
                kept, graphs.PATIENCE = graphs.PATIENCE, patience
                try:
                    job.outlay()
                    start = self.clock()
                    said = job.outlay()
                    each.append(self.clock() - start)
                finally:
                    graphs.PATIENCE = kept
            total = sum(job.tokens(said))
            found.append({"minibatch": size, "tokens_per_second": round(total / each[0]), "without_graphs": round(total / each[1]), "memory_gib": self.memory(job.outlay)})
            print(f"  {found[-1]}", flush=True)
        self.facts["sweep"] = found

    def train(self, dtype: str) -> None:
        """Fine-tuning: seconds per update, and model FLOPs (by formula) per second as a share of the peak."""
        if self.late(f"fine-tuning, {dtype}"):
            return
        method = "lora" if importlib.util.find_spec("peft") else "full"
        count = min(len(self.asked), 16 if self.args.quick else 128)
        rows = self.asked[:count]
        if not all(line.get("response") for line in rows):
            job = self.job(dtype, 16, 64, 64)
            said = job.loaded.tokenizer.batch_decode(job.outlay().tokens[:count], skip_special_tokens=True)
            rows = [{"text": line["text"], "response": answer.strip() or "I do not know."} for line, answer in zip(rows, said, strict=True)]
        asked = [Prompt(f"p{i}", line["text"]) for i, line in enumerate(rows)]
        notes = [Annotation(p.id, response=line["response"]) for p, line in zip(asked, rows, strict=True)]
        minibatch = 8
        trainer = SFT(runtime=Runtime(device=self.device, dtype=dtype), method=method, epochs=2, minibatch=minibatch, learning_rate=1e-4)
        base = Model(self.args.model)
        with tempfile.TemporaryDirectory() as folder:
            trainer(base, asked[:minibatch], notes[:minibatch], Path(folder, "warm"))
            runs = []
            for turn in range(1 if self.args.quick else 3):
                start = self.clock()
                model = trainer(base, asked, notes, Path(folder, str(turn)))
                runs.append(self.clock() - start)
            memory = self.memory(lambda: trainer(base, asked, notes, Path(folder, "memory")))
        seconds = statistics.median(runs)
        # With bfloat16, "full" keeps float32 weights and multiplies in bfloat16.
        found = {
            "method": method, "dtype": dtype, "examples": len(asked), "updates": model.updates, "seconds": round(seconds, 2), "seconds_all": [round(s, 2) for s in runs],
            "ms_per_update": round(1000 * seconds / model.updates, 1), "trained_tokens_per_second": round(model.cost.trained_tokens / seconds),
            "flops_utilisation": round(model.cost.flops / seconds / self.peak(dtype), 4), "memory_gib": memory,
        }  # fmt: skip
        self.facts.setdefault("fine_tuning", []).append(found)
        print(f"fine-tuning (model copied and written included): {found}", flush=True)

    def write(self) -> None:
        if self.args.json:
            self.args.json.write_text(json.dumps({**self.facts, "seconds": round(time.perf_counter() - self.begin, 1), "rows": self.rows}, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder with config.json, tokenizer and *.safetensors (or tiny)")
    parser.add_argument("--prompts", type=Path, required=True, help='JSONL file with "text" and, if there, "response"')
    parser.add_argument("--limit", type=int, help="prompts to take (default: 512; 64 with --quick)")
    parser.add_argument("--quick", action="store_true", help="fewer prompts and repetitions: within a minute")
    parser.add_argument("--seconds", type=int, default=240, help="begin nothing new after so many seconds")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu only shows that the script runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="what was found, written after every part")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU: torch sees no CUDA device here; run this on a machine with one, or with --device cpu --quick to see that it works", file=sys.stderr)
        return 2
    bench = Bench(args)
    print(f"{bench.facts}", flush=True)
    repeats = 1 if args.quick else 3
    parts = [
        ("scoring", lambda: bench.score("bfloat16" if bench.cuda else "float32", 16, repeats)),
        ("scoring", lambda: bench.score("float32", 16 if bench.cuda else 8, repeats)),
        ("scoring", lambda: bench.score("bfloat16", 48, repeats) if bench.cuda else None),
        ("sweep", lambda: bench.sweep("bfloat16" if bench.cuda else "float32", 16)),
        ("fine-tuning", lambda: bench.train("bfloat16" if bench.cuda else "float32")),
        ("fine-tuning", lambda: bench.train("float32") if bench.cuda else None),
        ("vLLM", lambda: bench.beside_vllm("bfloat16" if bench.cuda else "float32", 16, repeats)),
        ("vLLM", lambda: bench.beside_vllm("float32", 16, repeats) if bench.cuda else None),
    ]
    failed = []
    for name, part in parts:
        try:
            part()
        except Exception as error:  # one part must not take the others' minutes with it
            import traceback

            traceback.print_exc()
            failed.append(f"{name}: {type(error).__name__}: {error}")
        bench.facts["failed"] = failed
        bench.write()
    if bench.rows:
        show(bench.rows, unit="s", more={"tokens/s": "tokens_per_second", "of peak": "of_peak", "same tokens": "same_tokens", "GiB": "memory_gib"})
    exact = [r for r in bench.rows if r["case"].startswith("scoring") and r["case"].endswith("float32")]  # vLLM's attention sums in another order on a GPU
    wrong = [r for r in exact if r["same_tokens"].split("/")[0] != r["same_tokens"].split("/")[1] or r["difference"] > FAR]
    for r in wrong:
        print(f"{r['case']}: tokens {r['same_tokens']} the same, signals differ by {r['difference']}", file=sys.stderr)
    print(f"{time.perf_counter() - bench.begin:.0f} s in all" + "".join(f"; failed: {f}" for f in failed))
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    sys.exit(main())
