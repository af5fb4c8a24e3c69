"""Items with one right response each: a test split of the same kind as the pool."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..engine.runtime import Backend, Runtime
from ..errors import ConfigError, DataError
from ..measure import flops
from ..registry import register
from ..types import Cost, Evaluation, Model

COLUMNS = ("id", "text", "group", "response")


@register("evaluator", "heldout")
@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Exact match of the model's greedy response with the gold one, and the NLL of the gold one.

    Both are compared after outer blanks are stripped and inner ones collapsed. benchmark: the name in the results. items: a parquet
    file with the string columns id, text, group, response. runtime: see Runtime. max_new_tokens: where responses are cut off; a
    response that was cut off is never correct. nll: also measure the gold responses' negative log-likelihood, by our own pass. backend: what decodes, "torch" or "vllm".
    """

    benchmark: str
    items: Path
    runtime: Runtime = field(default_factory=Runtime)
    max_new_tokens: int = 32
    nll: bool = True
    backend: Backend = "torch"

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"evaluator 'heldout', option 'max_new_tokens' = {self.max_new_tokens}: it must be at least 1")

    def __call__(self, model: Model, *, seed: int = 0) -> Evaluation:
        """Columns, (n_items,): id, group, response (the model's), correct, parsed (something, and not cut off), cut_off (no end token
        within max_new_tokens); with nll: nll (mean per token, nats), nll_sum, response_tokens (of the gold). `seed` is not used."""
        from ..engine.generate import generate
        from ..engine.load import load
        from ..engine.losses import response_nll
        from ..engine.render import format_of, pairs, prompts

        items = read_items(self.items, self.benchmark)
        with self.runtime.active():
            loaded = load(model, self.runtime)
            start = time.perf_counter()
            form = format_of(loaded, self.runtime.template)
            asked = prompts(loaded, form, items["id"], items["text"], room=self.max_new_tokens)
            out = generate(loaded, asked, stops=form.stops, max_new_tokens=self.max_new_tokens, minibatch=self.runtime.minibatch, backend=self.backend)
            said = out.texts
            asked_tokens, gold_tokens = np.array([len(p.ids) for p in asked]), np.zeros(len(asked), dtype=np.int64)
            parsed = np.array([bool(text.strip()) for text in said]) & out.stopped
            same = np.array([_plain(a) == _plain(b) for a, b in zip(said, items["response"], strict=True)])
            columns = {
                "id": np.array(items["id"], dtype=np.str_), "group": np.array(items["group"], dtype=np.str_), "response": np.array(said, dtype=np.str_),
                "correct": same & parsed, "parsed": parsed, "cut_off": ~out.stopped,
            }  # fmt: skip
            if self.nll:
                gold = pairs(loaded, form, items["id"], items["text"], items["response"])
                columns |= response_nll(loaded, gold, minibatch=self.runtime.minibatch)
                gold_tokens = columns["response_tokens"].astype(np.int64)
            cost = replace(self.bill(model.base, asked_tokens, gold_tokens, out.response_tokens), seconds=time.perf_counter() - start)
        return Evaluation(self.benchmark, _fingerprint(items), columns, cost)

    def lengths(self, base: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of the items' prompts and of their gold responses, each (n_items,)."""
        from ..engine.render import lengths

        items = read_items(self.items, self.benchmark)
        return lengths(base, self.runtime.template, items["text"], items["response"])

    def bill(self, base: str, prompts: np.ndarray, gold: np.ndarray, said: np.ndarray) -> Cost:
        """Tokens and FLOPs of items of these lengths where the model says so many tokens, each (n_items,)."""
        from ..engine.load import arch

        sizes = arch(base)
        cost = Cost(flops=flops.scoring(sizes, prompts, said), prompt_tokens=int(prompts.sum()), generated_tokens=int(said.sum()))
        if self.nll:
            cost += Cost(flops=flops.forward(sizes, prompts + gold, int(gold.sum())), prompt_tokens=int((prompts + gold).sum()))
        return cost


def read_items(path: Path, benchmark: str) -> dict[str, list[str]]:
    """The columns of a file of items. DataError names what is missing in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"items of benchmark '{benchmark}' cannot be read from {path}: {str(error).splitlines()[0]}") from None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(f"{path} lacks the column '{missing[0]}'; it needs {', '.join(COLUMNS)}, all text")
    items = {name: table.column(name).to_pylist() for name in COLUMNS}
    for name, values in items.items():
        for row, value in enumerate(values):
            if not isinstance(value, str):
                raise DataError(f"{path}, row {row}, column '{name}' is {value!r}, not text")
    if not items["id"]:
        raise DataError(f"{path} holds no items")
    return items


def _plain(text: str) -> str:
    return " ".join(text.split())


def _fingerprint(items: dict[str, list[str]]) -> str:
    """Hash of ids, texts and responses in order."""
    digest = hashlib.sha256()
    for name in ("id", "text", "response"):
        for value in items[name]:
            raw = value.encode()
            digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:16]
