"""Supervised fine-tuning on bought responses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from .. import seeds
from ..errors import ConfigError, DataError, OutlayError
from ..measure import flops
from ..registry import register
from ..types import Annotation, Cost, Model, Prompt
from .folders import new_folder
from .load import Loaded, adapted, arch, load, no_progress_bar, quiet_peft, weights_folder
from .render import Rendered, format_of, lengths, pairs
from .runtime import Runtime


@register("trainer", "sft")
@dataclass(frozen=True, kw_only=True)
class SFT:
    """Fine-tune on responses: AdamW, linear warm-up, then linear decay to 0; the schedule starts anew in each call.

    The loss is the mean over the response tokens (end token included) of a minibatch; prompts get none. Dropout is off. Examples
    go into one order by prompt id before they are shuffled by the seed, so the same set gives the same weights.

    runtime: see Runtime. method: "lora" trains adapters, "full" all weights (kept in float32, computed in runtime.dtype). epochs:
    passes over the examples. learning_rate: the peak; 1e-3 suits adapters, 1e-5 to 1e-4 all weights. minibatch: examples per update.
    warmup_share: of all updates. weight_decay: of AdamW. clip: greatest norm of the gradient. lora_r, lora_alpha: rank and scale of
    adapters. lora_targets: names of linear layers, or "all-linear". max_tokens: an example with more is refused, never cut off.
    """

    runtime: Runtime = field(default_factory=Runtime)
    method: Literal["lora", "full"] = "lora"
    epochs: int = 3
    learning_rate: float = 1e-3
    minibatch: int = 8
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    lora_r: int = 16
    lora_alpha: float = 32
    lora_targets: str | tuple[str, ...] = "all-linear"
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        for name in ("epochs", "minibatch", "lora_r", "max_tokens", "learning_rate", "clip", "lora_alpha"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"trainer 'sft', option '{name}' = {getattr(self, name)}: it must be positive")
        if not 0 <= self.warmup_share <= 1:
            raise ConfigError(f"trainer 'sft', option 'warmup_share' = {self.warmup_share}: it is a share, from 0 to 1")

    def __call__(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int = 0) -> Model:
        """Train `start` on aligned prompts and annotations (skips are left out) and write weights as safetensors into the folder `out`.

        Raises DataError naming the prompt whose response is empty or would be cut off, OutlayError if the loss is not finite.
        """
        if start.kind not in ("base", self.method):
            raise ConfigError(f"method '{self.method}' cannot go on from '{start.kind}' weights; use method: {start.kind} or start: cold")
        with self.runtime.active():
            loaded = load(Model(start.base), self.runtime)
            begin = time.perf_counter()
            examples = self._examples(loaded, prompts, annotations)
            network = self._network(start, loaded, seed)
            updates = self._train(network, examples, seed)
            with new_folder(Path(out)) as folder:
                _save(network, folder, start.base)
        whole, responses = [len(e.ids) for e in examples], [len(e.ids) - e.answer for e in examples]
        cost = self._cost(loaded.arch, whole, responses, sum(p.numel() for p in network.parameters() if p.requires_grad))
        cost = replace(cost, seconds=time.perf_counter() - begin)
        return Model(start.base, str(out), self.method, updates=start.updates + updates, cost=cost)

    def lengths(self, base: str, prompts: Sequence[str], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of prompts and of their responses, each (n,)."""
        return lengths(base, self.runtime.template, prompts, responses)

    def bill(self, base: str, prompts: Sequence[int], responses: Sequence[int]) -> Cost:
        """Tokens and FLOPs of training `base` on examples of these lengths, each (n,)."""
        sizes = arch(base)
        return self._cost(sizes, [a + b for a, b in zip(prompts, responses, strict=True)], responses, sizes.lora_parameters(self.lora_r, self.lora_targets))

    def _examples(self, loaded: Loaded, prompts: Sequence[Prompt], annotations: Sequence[Annotation]) -> list[Rendered]:
        """Prompts with responses, by prompt id."""
        chosen = []
        for prompt, annotation in zip(prompts, annotations, strict=True):
            if prompt.id != annotation.prompt_id:
                raise DataError(f"prompt '{prompt.id}' was paired with the annotation of '{annotation.prompt_id}'; prompts and annotations must be aligned")
            if annotation.kind == "preference":
                raise DataError(f"prompt '{prompt.id}' has a preference, and trainer 'sft' learns from responses; ask for responses")
            if annotation.kind == "response":
                chosen.append((prompt.id, prompt.text, annotation.response))
        if not chosen:
            raise DataError(f"there is nothing to train on: {len(prompts)} annotations, none of them a response")
        # By response too: k annotators may have answered the same prompt.
        ids, texts, responses = zip(*sorted(chosen), strict=True)
        return pairs(loaded, format_of(loaded, self.runtime.template), ids, texts, responses, most=self.max_tokens)

    def _network(self, start: Model, loaded: Loaded, seed: int):
        """A model of our own whose trainable parameters require gradients; the shared base stays as it is."""
        import copy

        import torch

        if self.method == "full":
            network = copy.deepcopy(load(start, self.runtime).model).float()
            return network.requires_grad_(True)
        if start.kind == "lora":
            saved = json.loads((weights_folder(start) / "adapter_config.json").read_text())
            if (saved["r"], saved["lora_alpha"]) != (self.lora_r, self.lora_alpha):
                raise ConfigError(f"the adapter to go on from has lora_r {saved['r']} and lora_alpha {saved['lora_alpha']}, the config {self.lora_r} and {self.lora_alpha}; use the same")
            return adapted(start, self.runtime, trainable=True)
        from peft import LoraConfig, get_peft_model

        targets = self.lora_targets if isinstance(self.lora_targets, str) else list(self.lora_targets)
        config = LoraConfig(r=self.lora_r, lora_alpha=self.lora_alpha, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
        with torch.random.fork_rng(), quiet_peft():  # peft draws from the global generator
            torch.manual_seed(seeds.seed(seed, "init"))
            try:
                return get_peft_model(copy.deepcopy(loaded.model), config).eval()
            except ValueError as error:
                raise ConfigError(f"trainer 'sft', option 'lora_targets' = {self.lora_targets!r}: {str(error).splitlines()[0]}") from None

    def _train(self, network, examples: Sequence[Rendered], seed: int) -> int:
        """Run all updates on `network` in place -> their number."""
        import torch

        from .losses import token_losses

        device = next(network.parameters()).device
        mixed = torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.method == "full" and self.runtime.dtype == "bfloat16")
        weights = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self.learning_rate, weight_decay=self.weight_decay)
        total = self.epochs * -(-len(examples) // self.minibatch)
        rate = _schedule(total, self.warmup_share)
        update = 0
        for epoch in range(self.epochs):
            order = seeds.generator(seed, "order", epoch).permutation(len(examples))
            for at in range(0, len(order), self.minibatch):
                batch = [examples[i] for i in order[at : at + self.minibatch]]
                with mixed:
                    losses, _ = token_losses(network, batch)
                loss = losses.mean()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(weights, self.clip)
                if not (torch.isfinite(loss) and torch.isfinite(norm)):
                    raise OutlayError(
                        f"training stopped at update {update + 1} of {total}: loss {float(loss.detach())}, gradient norm {float(norm)} (prompt '{batch[0].id}' and others); lower learning_rate"
                    )
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate * rate(update)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                update += 1
        return update

    def _cost(self, sizes: flops.Arch, whole: Sequence[int], responses: Sequence[int], trainable: int) -> Cost:
        """Of sequences of these lengths, which end with responses of these lengths."""
        full = self.method == "full"
        epoch = flops.train_full(sizes, whole, responses) if full else flops.train_lora(sizes, whole, responses, trainable)
        return Cost(flops=self.epochs * epoch, trained_tokens=self.epochs * sum(whole))


def _schedule(total: int, warmup_share: float) -> Callable[[int], float]:
    """Update number from 0 -> share of the peak rate: up over the warm-up, then down, 0 after the last update."""
    warm = int(total * warmup_share)
    return lambda update: (update + 1) / (warm + 1) if update < warm else (total - update) / max(1, total - warm)


def _save(network, folder: Path, base: str) -> None:
    """Weights as safetensors and their config as JSON; the tokenizer stays with the base."""
    from safetensors.torch import save_file

    if not hasattr(network, "peft_config"):
        with no_progress_bar():
            network.save_pretrained(folder)
        return
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(network, save_embedding_layers=False)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = network.peft_config["default"].to_dict()
    # peft holds sets, whose order changes from process to process, and the path of this machine.
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()} | {"base_model_name_or_path": base, "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True, default=str) + "\n")
