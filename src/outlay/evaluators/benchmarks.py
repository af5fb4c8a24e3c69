"""BBH and MMLU as evaluators of a study."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ..engine.runtime import Backend, Runtime
from ..errors import ConfigError
from ..measure import flops
from ..registry import register
from ..types import Cost, Evaluation, Model
from .ask import Answered, ask
from .bbh import bbh
from .bbh_data import TASKS
from .items import Benchmark, chosen_tasks
from .mmlu import SUBJECTS, mmlu, style_for


@register("evaluator", "bbh")
@dataclass(frozen=True, kw_only=True)
class BBH:
    """BIG-Bench Hard, scored by the published rule. benchmark: the name in the results. folder: a checkout of BIG-Bench-Hard; without
    one $OUTLAY_DATA/bbh, then the hub. tasks: some of the 27 (default: all). max_items: of each task, drawn by hash of `item_seed`.
    cot: with reasoning, else answer-only. shots: worked examples (default: three). chat: in the tokenizer's chat template.
    max_new_tokens: where responses are cut off (what was said until then is scored, as in the published runs). backend: what decodes, "torch" or "vllm".
    """

    benchmark: str
    runtime: Runtime = field(default_factory=Runtime)
    folder: Path | None = None
    tasks: tuple[str, ...] = ()
    max_items: int | None = None
    cot: bool = True
    shots: int | None = None
    chat: bool = False
    max_new_tokens: int = 512
    item_seed: int = 0
    backend: Backend = "torch"

    def __post_init__(self) -> None:
        chosen_tasks("BBH", self.tasks, TASKS)
        _check("bbh", self.folder, max_items=self.max_items, max_new_tokens=self.max_new_tokens)

    def __call__(self, model: Model, *, seed: int = 0) -> Evaluation:
        """Columns, (n_items,): id, group (the task), response, correct, lenient, parsed, cut_off, too_long. `seed` is not used."""
        bench = bbh(folder=self.folder, tasks=self.tasks, max_items=self.max_items, cot=self.cot, shots=self.shots, seed=self.item_seed)
        return _evaluation(self.benchmark, bench, model, self.runtime, chat=self.chat, max_new_tokens=self.max_new_tokens, backend=self.backend)


@register("evaluator", "mmlu")
@dataclass(frozen=True, kw_only=True)
class MMLU:
    """MMLU, 57 subjects. benchmark: the name in the results. folder: with dev/ and test/; without one $OUTLAY_DATA/mmlu, then the
    hub. tasks: some of the subjects (default: all). max_items: of each subject, drawn by hash of `item_seed`. style: "letter" compares
    the likelihoods of A to D, "cloze" those of the choices' texts per character, "auto" goes by the size of the model. shots: dev
    questions in the prompt. chat: in the tokenizer's chat template.
    """

    benchmark: str
    runtime: Runtime = field(default_factory=Runtime)
    folder: Path | None = None
    tasks: tuple[str, ...] = ()
    max_items: int | None = None
    style: Literal["auto", "letter", "cloze"] = "auto"
    shots: int = 5
    chat: bool = False
    item_seed: int = 0

    def __post_init__(self) -> None:
        chosen_tasks("MMLU", self.tasks, SUBJECTS)
        _check("mmlu", self.folder, max_items=self.max_items)

    def __call__(self, model: Model, *, seed: int = 0) -> Evaluation:
        """Columns, (n_items,): id, group (the subject), response, correct, lenient, parsed, cut_off, too_long. `seed` is not used."""
        from ..engine.load import arch

        style = style_for(arch(model.base).parameters)[0] if self.style == "auto" else self.style
        bench = mmlu(style=style, folder=self.folder, tasks=self.tasks, max_items=self.max_items, shots=self.shots, seed=self.item_seed)
        return _evaluation(self.benchmark, bench, model, self.runtime, chat=self.chat, max_new_tokens=0)


def _check(name: str, folder: Path | None, **numbers: int | None) -> None:
    for option, value in numbers.items():
        if value is not None and value < 1:
            raise ConfigError(f"evaluator '{name}', option '{option}' = {value}: it must be at least 1")
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"evaluator '{name}', option 'folder': {folder} does not exist")


def _evaluation(name: str, bench: Benchmark, model: Model, runtime: Runtime, *, chat: bool, max_new_tokens: int, backend: Backend = "torch") -> Evaluation:
    from ..engine.load import load

    with runtime.active():
        loaded = load(model, runtime)
        start = time.perf_counter()
        answered: list[Answered] = []
        for items in bench.tasks.values():
            answered += ask(loaded, bench, items, chat=chat, max_new_tokens=max_new_tokens, minibatch=runtime.minibatch, backend=backend)
        seconds = time.perf_counter() - start
    read = [a for a in answered if not a.too_long]
    prompts, tokens = [a.prompt_tokens for a in read], [a.tokens for a in read]
    cost = Cost(seconds=seconds, flops=flops.scoring(loaded.arch, prompts, tokens), prompt_tokens=sum(prompts), generated_tokens=sum(tokens))
    return Evaluation(name, bench.fingerprint, _columns(answered), cost)


def _columns(answered: Sequence[Answered]) -> dict[str, np.ndarray]:
    texts = {"id": [a.item.id for a in answered], "group": [a.item.task for a in answered], "response": [a.response for a in answered]}
    flags = {flag: np.array([getattr(a, flag) for a in answered]) for flag in ("correct", "lenient", "parsed", "cut_off", "too_long")}
    return {name: np.array(values, dtype=np.str_) for name, values in texts.items()} | flags
