"""TRL's SFTTrainer as a trainer: for what ours does not do, that is QLoRA, FSDP and DeepSpeed, and its kind of packing."""

from __future__ import annotations

import json
import logging
import math
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError, OutlayError, near
from ..registry import register
from ..types import Annotation, Cost, Model, Prompt
from .fit import Course, Decay, rate
from .folders import new_folder
from .lesson import examples, minibatches
from .load import hub_errors, load, quiet_peft, resolve, tokenizer_of
from .render import Rendered
from .runtime import Runtime
from .trainer import adapters_on, check_options, check_start, epoch_flops, network_of, save

# What TRL is told by us: setting it again would have two options say different things.
OURS = {
    "output_dir", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay", "max_grad_norm", "learning_rate",
    "packing", "max_length", "gradient_checkpointing", "completion_only_loss", "seed", "use_cpu", "bf16", "resume_from_checkpoint",
}  # fmt: skip


@register("trainer", "trl")
@dataclass(frozen=True, kw_only=True)
class TRL:
    """Fine-tune on responses with TRL's SFTTrainer (pip install 'outlay[trl]'); the same order of data, learning rates and loss as trainer sft.

    The options that sft has, too, mean the same here. With several processes `minibatch` is that of each. A killed training begins anew.

    packing: TRL puts examples end to end into rows of max_tokens tokens; a minibatch is then so many rows. quantize: "nf4" is QLoRA
    (Dettmers et al. 2023, arXiv 2305.14314): the frozen weights in four bits; needs the package bitsandbytes. accelerate_config: the
    file that `accelerate config` writes; training then runs in processes of its own, with FSDP or DeepSpeed as it says. arguments:
    handed to TRL's SFTConfig as they are.
    """

    runtime: Runtime = field(default_factory=Runtime)
    method: Literal["lora", "full"] = "lora"
    epochs: int = 3
    learning_rate: float = 1e-3
    minibatch: int = 8
    accumulation: int = 1
    decay: Decay = "linear"
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    lora_r: int = 16
    lora_alpha: float = 32
    lora_targets: str | tuple[str, ...] = "all-linear"
    max_tokens: int = 2048
    gradient_checkpointing: bool = False
    packing: bool = False
    quantize: Literal["none", "nf4"] = "none"
    accelerate_config: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_options("trl", self)
        if taken := OURS & set(self.arguments):
            raise ConfigError(f"trainer 'trl', option 'arguments' sets {min(taken)}, which follows from the trainer's own options; set those")
        if self.quantize != "none" and self.method == "full":
            raise ConfigError(f"trainer 'trl', option 'quantize' = '{self.quantize}' freezes the weights; use method: lora")
        if self.accelerate_config and not Path(self.accelerate_config).is_file():
            raise ConfigError(f"trainer 'trl', option 'accelerate_config': there is no file {self.accelerate_config}; write one with: accelerate config --config_file {self.accelerate_config}")

    def __call__(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int = 0) -> Model:
        """Train `start` on aligned prompts and annotations (skips are left out) and write weights as safetensors into the folder `out`.

        Raises ConfigError if TRL is not installed, DataError naming the prompt whose response is empty or would be cut off.
        """
        return self.train(start, prompts, annotations, out, seed=seed)[0]

    def train(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int = 0) -> tuple[Model, Course]:
        """As a call, with the loss of each update."""
        _check_installed(self)
        check_start(start, self.method)
        out = Path(out)
        with self.runtime.active(), new_folder(out) as folder:
            loaded = load(Model(start.base), self.runtime)
            lesson = examples(loaded, self.runtime.template, prompts, annotations, most=self.max_tokens, trainer="trl")
            begin = time.perf_counter()
            course = self._launch(start, lesson, folder, seed) if self.accelerate_config else learn(self, start, lesson, folder, seed)
            seconds = time.perf_counter() - begin
            spent = self.epochs * epoch_flops(loaded.arch, [len(e.ids) for e in lesson], [len(e.ids) - e.answer for e in lesson], self.method, _parameters(folder))
        cost = Cost(seconds=seconds, flops=spent, trained_tokens=self.epochs * sum(len(e.ids) for e in lesson))
        return Model(start.base, str(out), self.method, updates=start.updates + course.updates, cost=cost), replace(course, seconds=seconds)

    def _launch(self, start: Model, lesson: Sequence[Rendered], folder: Path, seed: int) -> Course:
        """The same in processes that accelerate starts."""
        with tempfile.TemporaryDirectory(prefix="outlay-trl-") as place:
            job = {"options": asdict(self), "start": asdict(start), "lesson": [asdict(e) for e in lesson], "folder": str(folder.resolve()), "seed": seed}
            Path(place, "job.json").write_text(json.dumps(job))
            command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(self.accelerate_config), "-m", "outlay.engine.trl_job", place]
            done = subprocess.run(command, capture_output=True, text=True)
            result = Path(place, "course.json")
            if done.returncode or not result.exists():
                lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines() or ["it said nothing"]
                raise OutlayError(f"training under {self.accelerate_config} failed (exit code {done.returncode}): {lines[0].strip()}; to see all: {' '.join(command[:5])} ...")
            return Course(**json.loads(result.read_text()))


def learn(options: TRL, start: Model, lesson: Sequence[Rendered], folder: Path, seed: int) -> Course:
    """Train with TRL in this process (one of several under accelerate) and write the weights into `folder`."""
    import torch
    from transformers import PrinterCallback
    from trl import SFTTrainer

    class Ordered(SFTTrainer):
        """In the order and with the learning rates of trainer sft."""

        def _get_train_sampler(self, dataset=None):
            return _Order([len(ids) for ids in (dataset if dataset is not None else self.train_dataset)["input_ids"]], options.minibatch, seed)

        def create_scheduler(self, num_training_steps, optimizer=None):
            share = rate(num_training_steps, options.warmup_share, options.decay)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer if optimizer is None else optimizer, share)
            return self.lr_scheduler

    from datasets import Dataset

    rows = {"input_ids": [list(e.ids) for e in lesson], "completion_mask": [[int(i >= e.answer) for i in range(len(e.ids))] for e in lesson]}
    with tempfile.TemporaryDirectory(prefix="outlay-trl-") as scratch, _quiet(), _own_generators():
        trainer = Ordered(
            model=_network(options, start, seed), args=_config(options, scratch, seed), train_dataset=Dataset.from_dict(rows), processing_class=tokenizer_of(start.base)
        )
        trainer.remove_callback(PrinterCallback)
        trainer.model.config.use_cache = False
        trainer.train()
        losses = [float(said["loss"]) for said in trainer.state.log_history if "loss" in said]
        if not all(map(math.isfinite, losses)):
            raise OutlayError(f"training diverged: losses {losses[:20]}; lower learning_rate")
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled else None
        if trainer.is_world_process_zero():
            save(trainer.accelerator.unwrap_model(trainer.model), folder, start.base, state)
        trainer.accelerator.wait_for_everyone()
        return Course(updates=trainer.state.global_step, losses=losses)


def _config(options: TRL, scratch: str, seed: int):
    from trl import SFTConfig

    device = options.runtime.torch_device()
    return SFTConfig(
        **{
            "output_dir": scratch, "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no", "dataloader_pin_memory": False, "logging_nan_inf_filter": False,
            "num_train_epochs": options.epochs, "per_device_train_batch_size": options.minibatch, "gradient_accumulation_steps": options.accumulation,
            "learning_rate": options.learning_rate, "weight_decay": options.weight_decay, "max_grad_norm": options.clip, "warmup_steps": 0,
            "packing": options.packing, "max_length": options.max_tokens if options.packing else None, "completion_only_loss": True,
            "gradient_checkpointing": options.gradient_checkpointing, "seed": seed % (1 << 32),
            "use_cpu": device.type == "cpu", "bf16": options.runtime.dtype == "bfloat16" and (options.method == "full" or options.quantize != "none"),
        }
        | dict(options.arguments)
    )  # fmt: skip


def _network(options: TRL, start: Model, seed: int):
    loaded = load(Model(start.base), options.runtime)
    if options.quantize == "none":
        return network_of(start, loaded, options, seed)
    import torch
    from peft import PeftModel, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    small = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=options.quantize, bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=options.runtime.torch_dtype())
    where = resolve(start.base)
    with hub_errors(where):
        network = AutoModelForCausalLM.from_pretrained(
            where, quantization_config=small, dtype=options.runtime.torch_dtype(), device_map={"": options.runtime.torch_device()}, trust_remote_code=False, use_safetensors=True
        )
    network = prepare_model_for_kbit_training(network, use_gradient_checkpointing=options.gradient_checkpointing)
    if start.weights:
        with quiet_peft(), torch.random.fork_rng():
            return PeftModel.from_pretrained(network, start.weights, is_trainable=True)
    return adapters_on(network, options, seed)


def _parameters(folder: Path) -> int:
    """Numbers in a folder's weights files."""
    from safetensors import safe_open

    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "np") as stored:
            total += sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118
    return total


class _Order:
    """A sampler: the order of trainer sft, epoch after epoch."""

    def __init__(self, lengths: Sequence[int], minibatch: int, seed: int) -> None:
        self.lengths, self.minibatch, self.seed, self.epoch = lengths, minibatch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for rows in minibatches(self.lengths, self.minibatch, epoch=epoch, seed=self.seed):
            yield from rows


def _check_installed(options: TRL) -> None:
    try:
        from trl import SFTConfig
    except ImportError as missing:
        raise ConfigError(f"trainer 'trl' needs the package trl, which cannot be imported ({missing}); pip install 'outlay[trl]', or use trainer: sft") from None
    known = {f.name for f in fields(SFTConfig)}
    for name in options.arguments:
        if name not in known:
            raise ConfigError(f"trainer 'trl', option 'arguments': TRL's SFTConfig has no '{name}'; {near(name, known)}")
    if options.quantize != "none":
        try:
            import bitsandbytes  # noqa: F401
        except ImportError:
            raise ConfigError("trainer 'trl', option 'quantize' needs the package bitsandbytes; pip install bitsandbytes, or use quantize: none") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and the advice that libraries print."""
    import datasets
    import transformers

    before, bars = transformers.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    log = logging.getLogger("trl")
    level, _ = log.level, log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(before)
        log.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def _own_generators() -> Iterator[None]:
    """transformers seeds the global generators; they are as before after the block."""
    import numpy as np
    import torch

    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
