"""Evaluation with a shared few-shot prompt: our generate() against lm-evaluation-harness' HFLM and Hugging Face's generate().

    make .venv/stamp-smollm2 .venv/stamp-lm-eval
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/eval.py --data FOLDER [--quick] [--json FILE]

All arms get the prompts that the harness renders for one BBH task, the same model in memory, one thread, the same limit of new tokens
and the same stop strings, and must give the same responses. HFLM is timed with minibatches of one and with the fastest of a few
larger ones; Hugging Face's generate() gets the prefix's cache, computed once and repeated over the minibatch. FOLDER holds
bbh/ and cot-prompts/ of https://github.com/suzgunmirac/BIG-Bench-Hard.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from _common import interleaved, row, show

from outlay.engine.generate import generate
from outlay.engine.load import Loaded, load
from outlay.engine.network import common_prefix
from outlay.engine.render import format_of, prompts
from outlay.engine.runtime import Runtime
from outlay.evaluators import lm_eval
from outlay.evaluators.bbh import bbh
from outlay.types import Model

# The goals of the project: against minibatches of one, and against the fastest minibatch.
GOALS = {"one": 6, "best": 4}
CPU = Runtime(device="cpu", threads=1)


def ours(loaded: Loaded, texts: list[str], until: list[str], limit: int, minibatch: int) -> list[str]:
    form = dataclasses.replace(format_of(loaded, "plain"), tail="")
    rows = prompts(loaded, form, [str(i) for i in range(len(texts))], texts, room=limit)
    return generate(loaded, rows, stops=form.stops, max_new_tokens=limit, minibatch=minibatch, until=until).texts


def hugging_face(loaded: Loaded, texts: list[str], until: list[str], limit: int, minibatch: int) -> list[str]:
    """generate() after a cache of what all prompts share; padding stands between it and the rest of each prompt."""
    import torch
    from transformers import DynamicCache

    form = dataclasses.replace(format_of(loaded, "plain"), tail="")
    rows = prompts(loaded, form, [str(i) for i in range(len(texts))], texts, room=limit)
    prefix = list(common_prefix(rows))
    shared = DynamicCache(config=loaded.model.config)
    with torch.inference_mode():
        loaded.model(input_ids=torch.tensor([prefix]), past_key_values=shared, use_cache=True, logits_to_keep=1)
        said = [""] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
        for at in range(0, len(order), minibatch):
            part = order[at : at + minibatch]
            longest = max(len(rows[i].ids) for i in part)
            pads = [longest - len(rows[i].ids) for i in part]
            ids = torch.tensor([[*prefix, *[loaded.tokenizer.pad_token_id] * pad, *rows[i].ids[len(prefix) :]] for i, pad in zip(part, pads, strict=True)])
            mask = torch.ones_like(ids)
            for i, pad in enumerate(pads):
                mask[i, len(prefix) : len(prefix) + pad] = 0
            cache = copy.deepcopy(shared)
            cache.batch_repeat_interleave(len(part))
            out = loaded.model.generate(
                input_ids=ids, attention_mask=mask, past_key_values=cache, max_new_tokens=limit, do_sample=False,
                stop_strings=until, tokenizer=loaded.tokenizer, pad_token_id=loaded.tokenizer.pad_token_id,
            )  # fmt: skip
            for i, text in zip(part, loaded.tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True), strict=True):
                said[i] = cut(text, until)
    return said


def cut(text: str, until: list[str]) -> str:
    return text[: min(at for at in [len(text), *(text.find(s) for s in until)] if at >= 0)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ["OUTLAY_DATA"], "bbh") if os.environ.get("OUTLAY_DATA") else None, help="folder with bbh/ and cot-prompts/ (default: $OUTLAY_DATA/bbh)")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--task", default="web_of_lies")
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="most new tokens")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16], help="HFLM's minibatches to choose the fastest from")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="6 items, 24 tokens, one minibatch: within five minutes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data is missing: the folder with bbh/ and cot-prompts/ of BIG-Bench-Hard")
    if args.quick:
        args.items, args.tokens, args.batches = 6, 24, [6]

    loaded = load(Model(args.model), CPU)
    bench = bbh(folder=args.data, tasks=[args.task], max_items=args.items)
    with CPU.active(), lm_eval.opened(bench, bench.items, max_new_tokens=args.tokens) as found:
        task = found[args.task]
        texts, until = lm_eval.rendered(task), lm_eval.stop_strings(task)
        same = (loaded, texts, until, args.tokens, args.items)
        ours(*same[:3], 1, args.items)  # what runs but once, such as building a kernel, is not timed

        def hflm(minibatch: int):
            return lambda: lm_eval.model(loaded, minibatch).generate_until(task.instances)

        sizes = sorted({size for size in args.batches if size <= args.items})
        best = sizes[0]
        if len(sizes) > 1:
            print(f"HFLM with minibatches of {', '.join(map(str, sizes))}:")
            trial = interleaved({str(size): hflm(size) for size in sizes}, 1)
            best = min(sizes, key=lambda size: trial[str(size)].median)
        print(f"{args.task}, {args.items} items, at most {args.tokens} new tokens, {args.model}, one thread:")
        arms = {"ours": lambda: ours(*same), "HFLM 1": hflm(1), f"HFLM {best}": hflm(best), "HF generate, cached prefix": lambda: hugging_face(*same)}
        timings = interleaved(arms, args.repeats)

    us, one, many, cached = timings.values()
    wrong = {name: [i for i, (a, b) in enumerate(zip(us.result, timing.result, strict=True)) if a != b] for name, timing in timings.items()}
    setting = {"task": args.task, "items": args.items, "tokens": args.tokens, "model": args.model, "threads": 1}
    agree = {name: f"{args.items - len(rows)}/{args.items}" for name, rows in wrong.items()}
    show(
        [
            row("lm-eval HFLM, minibatch 1", us, one, GOALS["one"], same_responses=agree["HFLM 1"], **setting),
            row(f"lm-eval HFLM, minibatch {best} (its best)", us, many, GOALS["best"], same_responses=agree[f"HFLM {best}"], **setting),
            row("HF generate, cached prefix", us, cached, same_responses=agree["HF generate, cached prefix"], **setting),
        ],
        args.json,
    )
    print("same responses: " + ", ".join(f"{name} {share}" for name, share in agree.items() if name != "ours"))
    return 1 if any(wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
