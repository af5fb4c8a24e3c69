"""Supervised fine-tuning on bought responses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from .. import seeds
from ..errors import ConfigError
from ..measure import flops
from ..registry import register
from ..store import hash_folder
from ..types import Annotation, Cost, Model, Prompt
from .fit import Checkpoint, Course, Padded, Plan, Reader, fit, key_of
from .folders import new_folder
from .lesson import answers, examples, held_out
from .load import Loaded, adapted, arch, load, no_progress_bar, quiet_peft, weights_folder
from .recipe import Recipe
from .render import Rendered, lengths

if TYPE_CHECKING:
    import torch


@register("trainer", "sft")
@dataclass(frozen=True, kw_only=True)
class SFT(Recipe):
    """Fine-tune on responses: AdamW, linear warm-up, then a decay to 0; the schedule starts anew in each call.

    The loss is the mean over the response tokens (end token included) of an update's examples; prompts get none. Dropout is off.
    Examples go into one order by prompt id before they are shuffled by the seed, so the same set gives the same weights.

    method: "lora" trains adapters, "full" all weights (kept in float32, computed in runtime.dtype). The other options: see Recipe.

    packed: examples end to end instead of padded, by our own forward and backward pass: faster and the same up to rounding, for
    adapters of Llama-type models in float32. bucket: of so many minibatches, examples of like length go together (1: none; pays
    where minibatches are padded). dev_share: share of the prompts whose annotations are kept out of training, to stop early by their
    loss and keep the weights of the best epoch; they are part of the budget. patience: epochs without a better loss before it stops.
    checkpoint_minutes: between two files from which a killed training goes on, to the same weights.
    """

    method: Literal["lora", "full"] = "lora"
    packed: bool = False
    bucket: int = 1
    dev_share: float = 0.0
    patience: int = 1
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        self.check("sft")
        for name in ("bucket", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer 'sft', option '{name}' = {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.dev_share < 1:
            raise ConfigError(f"trainer 'sft', option 'dev_share' = {self.dev_share}: it is a share, from 0 to less than 1")
        if self.checkpoint_minutes < 0:
            raise ConfigError(f"trainer 'sft', option 'checkpoint_minutes' = {self.checkpoint_minutes}: it must not be negative")
        if self.packed and self.method == "full":
            raise ConfigError("trainer 'sft', option 'packed' trains adapters; use method: lora, or leave it out")

    def __call__(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int = 0) -> Model:
        """Train `start` on aligned prompts and annotations (skips are left out) and write weights as safetensors into the folder `out`.

        Raises DataError naming the prompt whose response is empty or would be cut off, OutlayError if the loss is not finite.
        """
        return self.train(start, prompts, annotations, out, seed=seed)[0]

    def train(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int = 0) -> tuple[Model, Course]:
        """As a call, with the losses on the way. A call that was killed goes on from its checkpoint, a hidden file beside `out`."""
        check_start(start, self.method)
        out = Path(out)
        with self.runtime.active():
            loaded = load(Model(start.base), self.runtime)
            given = examples(loaded, self.runtime.template, prompts, annotations, most=self.max_tokens, trainer="sft")
            lesson, dev = held_out(given, self.dev_share, seed)
            network = network_of(start, loaded, self, seed)
            options = asdict(self)
            minutes = options.pop("checkpoint_minutes")
            begin = hash_folder(weights_folder(start)) if start.weights else ""
            checkpoint = Checkpoint(out.with_name(f".{out.name}.checkpoint.safetensors"), key_of(options, start.base, start.kind, begin, seed, lesson=given), minutes)
            course = fit(network, self._reader(network, loaded), lesson, dev, self._plan(), seed=seed, checkpoint=checkpoint)
            with new_folder(out) as folder:
                save(network, folder, start.base)
            checkpoint.drop()
        model = Model(start.base, str(out), self.method, updates=start.updates + course.updates)
        return replace(model, cost=self._cost(loaded, network, lesson, dev, course)), course

    def lengths(self, base: str, prompts: Sequence[str], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of prompts and of their responses, each (n,)."""
        return lengths(base, self.runtime.template, prompts, responses)

    def bill(self, base: str, prompts: Sequence[int], responses: Sequence[int]) -> Cost:
        """Tokens and FLOPs of training `base` on examples of these lengths, each (n,), without a dev split and in all epochs."""
        sizes = arch(base)
        whole = [a + b for a, b in zip(prompts, responses, strict=True)]
        epoch = epoch_flops(sizes, whole, responses, self.method, sizes.lora_parameters(self.lora_r, self.lora_targets))
        return Cost(flops=self.epochs * epoch, trained_tokens=self.epochs * sum(whole))

    def _reader(self, network, loaded: Loaded) -> Reader:
        if self.packed:
            from .packed import Packed

            return Packed(network, loaded, gradient_checkpointing=self.gradient_checkpointing)
        return Padded(network, autocast=self.method == "full" and self.runtime.dtype == "bfloat16", gradient_checkpointing=self.gradient_checkpointing)

    def _plan(self) -> Plan:
        names = ("epochs", "learning_rate", "minibatch", "accumulation", "bucket", "decay", "warmup_share", "weight_decay", "clip", "patience")
        return Plan(fused=self.packed, **{name: getattr(self, name) for name in names})

    def _cost(self, loaded: Loaded, network, lesson: Sequence[Rendered], dev: Sequence[Rendered], course: Course) -> Cost:
        """Of the epochs that were run; reading the dev split counts in FLOPs, not in trained tokens."""
        epochs = len(course.dev) if dev else self.epochs
        whole = [len(e.ids) for e in lesson]
        spent = epochs * epoch_flops(loaded.arch, whole, _responses(lesson), self.method, sum(p.numel() for p in network.parameters() if p.requires_grad))
        if dev:
            spent += epochs * flops.forward(loaded.arch, [len(e.ids) for e in dev], answers(dev))
        return Cost(seconds=course.seconds, flops=spent, trained_tokens=epochs * sum(whole))


def check_start(start: Model, method: str) -> None:
    if start.kind not in ("base", method):
        raise ConfigError(f"method '{method}' cannot go on from '{start.kind}' weights; use method: {start.kind} or start: cold")


def epoch_flops(sizes: flops.Arch, whole: Sequence[int], responses: Sequence[int], method: str, trained: int) -> int:
    """FLOPs of one epoch, by formula, over sequences of these lengths, which end with responses of these. trained: parameters that are."""
    if method == "full":
        return flops.train_full(sizes, whole, responses)
    return flops.train_lora(sizes, whole, responses, trained)


def _responses(lesson: Sequence[Rendered]) -> list[int]:
    return [len(e.ids) - e.answer for e in lesson]


def network_of(start: Model, loaded: Loaded, options, seed: int):
    """A model of our own whose trainable parameters require gradients, as a trainer's options say; the shared base stays as it is."""
    import copy

    if options.method == "full":
        network = copy.deepcopy(load(start, options.runtime).model).float()
        return network.requires_grad_(True)
    if start.kind == "lora":
        saved = json.loads((weights_folder(start) / "adapter_config.json").read_text())
        if (saved["r"], saved["lora_alpha"]) != (options.lora_r, options.lora_alpha):
            raise ConfigError(f"the adapter to go on from has lora_r {saved['r']} and lora_alpha {saved['lora_alpha']}, the config {options.lora_r} and {options.lora_alpha}; use the same")
        return adapted(start, options.runtime, trainable=True)
    return adapters_on(copy.deepcopy(loaded.model), options, seed)


def adapters_on(model, options, seed: int):
    """A PeftModel with new adapters, drawn by the seed, around `model`."""
    import torch
    from peft import LoraConfig, get_peft_model

    targets = options.lora_targets if isinstance(options.lora_targets, str) else list(options.lora_targets)
    config = LoraConfig(r=options.lora_r, lora_alpha=options.lora_alpha, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    with torch.random.fork_rng(), quiet_peft():  # peft draws from the global generator
        torch.manual_seed(seeds.seed(seed, "init"))
        try:
            return get_peft_model(model, config).eval()
        except ValueError as error:
            raise ConfigError(f"option 'lora_targets' = {options.lora_targets!r}: {str(error).splitlines()[0]}") from None


def save(network, folder: Path, base: str, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Weights as safetensors and their config as JSON; the tokenizer stays with the base. state: the weights, where the network holds
    a part of them only."""
    from safetensors.torch import save_file

    if not hasattr(network, "peft_config"):
        with no_progress_bar():
            network.save_pretrained(folder, state_dict=state)
        return
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(network, state_dict=state, save_embedding_layers=False)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = network.peft_config["default"].to_dict()
    # peft holds sets, whose order changes from process to process, and the path of this machine.
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()} | {"base_model_name_or_path": base, "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True, default=str) + "\n")
