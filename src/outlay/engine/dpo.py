"""TRL's DPOTrainer as a trainer: it learns from which of two drafts is better."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import ConfigError
from ..measure import flops
from ..registry import register
from ..types import Annotation, Cost, Model, Prompt
from . import trl_common
from .fit import Course
from .folders import new_folder
from .lesson import preferences
from .load import arch, load, tokenizer_of
from .losses import response_nll
from .recipe import Recipe
from .render import Rendered, lengths
from .trainer import check_start, epoch_flops, network_of


@register("trainer", "dpo")
@dataclass(frozen=True, kw_only=True)
class DPO(Recipe):
    """Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290) of LoRA adapters with TRL's DPOTrainer (pip install 'outlay[trl]').

    The reference is the untouched base of the model, also where training goes on from a round's adapters. It reads each draft once for all
    epochs. Order of data and learning rates are those of trainer sft, and the options that it has, too, mean the same here; minibatch counts
    pairs. A killed training begins anew.

    beta: how strongly the model is held to the base; higher holds more. arguments: handed to TRL's DPOConfig as they are.
    """

    judgements: ClassVar[tuple[str, ...]] = ("preferences",)
    method: ClassVar[str] = "lora"

    learning_rate: float = 5e-4
    beta: float = 0.1
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check("dpo")
        if not self.beta > 0:
            raise ConfigError(f"trainer 'dpo', option 'beta' = {self.beta}: it must be positive")
        trl_common.check_arguments("dpo", self, {"beta", "precompute_ref_log_probs", "truncation_mode"})

    def __call__(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int = 0) -> Model:
        """Train `start` on aligned prompts and preferences (skips are left out) and write adapters as safetensors into the folder `out`.

        Raises ConfigError if TRL is not installed, DataError naming the prompt whose drafts are empty, would be cut off, or are a response.
        """
        return self.train(start, prompts, annotations, out, seed=seed)[0]

    def train(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int = 0) -> tuple[Model, Course]:
        """As a call, with the loss of each update."""
        trl_common.check_installed("dpo", self, "DPOConfig", "")
        check_start(start, self.method)
        out = Path(out)
        with self.runtime.active(), new_folder(out) as folder:
            loaded = load(Model(start.base), self.runtime)
            sides = preferences(loaded, self.runtime.template, prompts, annotations, most=self.max_tokens, trainer="dpo")
            begin = time.perf_counter()
            before = [-response_nll(loaded, side, minibatch=self.runtime.minibatch)["nll_sum"] for side in sides]
            course = self._learn(start, sides, before, folder, seed)
            seconds = time.perf_counter() - begin
            both = [*sides[0], *sides[1]]
            cost = self._bill(loaded.arch, [len(e.ids) for e in both], [len(e.ids) - e.answer for e in both], trl_common.parameters(folder))
        model = Model(start.base, str(out), self.method, updates=start.updates + course.updates, cost=replace(cost, seconds=seconds))
        return model, replace(course, seconds=seconds)

    def lengths(self, base: str, prompts: Sequence[str], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of prompts and of their responses, each (n,)."""
        return lengths(base, self.runtime.template, prompts, responses)

    def bill(self, base: str, prompts: Sequence[int], responses: Sequence[int]) -> Cost:
        """Tokens and FLOPs of training `base` on pairs of drafts of these lengths each, (n,)."""
        sizes = arch(base)
        whole = [a + b for a, b in zip(prompts, responses, strict=True)]
        return self._bill(sizes, [*whole, *whole], [*responses, *responses], sizes.lora_parameters(self.lora_r, self.lora_targets))

    def _bill(self, sizes: flops.Arch, whole: Sequence[int], responses: Sequence[int], trained: int) -> Cost:
        """Of all epochs, and of the reference's one reading, over both sides of all pairs."""
        spent = self.epochs * epoch_flops(sizes, whole, responses, self.method, trained) + flops.forward(sizes, whole, sum(responses))
        return Cost(flops=spent, trained_tokens=self.epochs * sum(whole))

    def _learn(self, start: Model, sides: Sequence[Sequence[Rendered]], before: Sequence[np.ndarray], folder: Path, seed: int) -> Course:
        """`before`: log-probabilities of both sides under the reference, two times (n,)."""
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        class Read(trl_common.ordered(DPOTrainer, self, seed)):
            """On tokens as the model sees them everywhere else, and with the reference's log-probabilities that come along."""

            def _prepare_dataset(self, dataset, *args, **kwargs):
                return dataset

            def _precompute_ref_logps(self, dataset, *args, **kwargs):
                return dataset

        chosen, rejected = sides
        rows = {"prompt_ids": [list(e.ids[: e.answer]) for e in chosen]}
        rows |= {f"{name}_ids": [list(e.ids[e.answer :]) for e in side] for name, side in (("chosen", chosen), ("rejected", rejected))}
        rows |= {f"ref_{name}_logps": logps.tolist() for name, logps in zip(("chosen", "rejected"), before, strict=True)}
        with trl_common.workplace() as scratch:
            own = {"beta": self.beta, "max_length": None, "precompute_ref_log_probs": True, "bf16": False}
            config = DPOConfig(**trl_common.settings(self, scratch, seed) | own | dict(self.arguments))
            network = network_of(start, load(Model(start.base), self.runtime), self, seed)
            trainer = Read(model=network, args=config, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer_of(start.base))
            network.delete_adapter("ref")  # TRL's copy of where training starts: it would be the reference, and ours is the base
            return trl_common.trained(trainer, folder, start.base)
