"""What TRL's trainers have in common here: the order and the learning rates of trainer sft, quiet, and without touching global generators."""

from __future__ import annotations

import logging
import math
import random
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import ConfigError, OutlayError, near
from .fit import Course, rate
from .lesson import minibatches
from .trainer import save

# What TRL is told by us: setting it again would have two options say different things.
OURS = {
    "output_dir", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay", "max_grad_norm", "learning_rate",
    "max_length", "gradient_checkpointing", "seed", "use_cpu", "bf16", "resume_from_checkpoint",
}  # fmt: skip


def check_arguments(trainer: str, options: Any, more: set[str]) -> None:
    """ConfigError for an entry of the option `arguments` that follows from the trainer's own options (`more`: beside those of all)."""
    if taken := (OURS | more) & set(options.arguments):
        raise ConfigError(f"trainer '{trainer}', option 'arguments' sets {min(taken)}, which follows from the trainer's own options; set those")


def check_installed(trainer: str, options: Any, config: str, instead: str) -> None:
    """ConfigError where TRL cannot be imported, or its `config` class has no such argument."""
    try:
        import trl
    except ImportError as missing:
        raise ConfigError(f"trainer '{trainer}' needs the package trl, which cannot be imported ({missing}); pip install 'outlay[trl]'{instead}") from None
    known = {f.name for f in fields(getattr(trl, config))}
    for name in options.arguments:
        if name not in known:
            raise ConfigError(f"trainer '{trainer}', option 'arguments': TRL's {config} has no '{name}'; {near(name, known)}")


def settings(options: Any, scratch: str, seed: int) -> dict[str, Any]:
    """The arguments of TRL's configs that follow from the options that our trainers share."""
    return {
        "output_dir": scratch, "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no", "dataloader_pin_memory": False, "logging_nan_inf_filter": False,
        "num_train_epochs": options.epochs, "per_device_train_batch_size": options.minibatch, "gradient_accumulation_steps": options.accumulation,
        "learning_rate": options.learning_rate, "weight_decay": options.weight_decay, "max_grad_norm": options.clip, "warmup_steps": 0,
        "gradient_checkpointing": options.gradient_checkpointing, "seed": seed % (1 << 32), "use_cpu": options.runtime.torch_device().type == "cpu",
    }  # fmt: skip


def ordered(kind: type, options: Any, seed: int) -> type:
    """A trainer class of TRL, in the order and with the learning rates of trainer sft."""
    import torch

    class Ordered(kind):
        def _get_train_sampler(self, dataset=None):
            return _Order(len(dataset if dataset is not None else self.train_dataset), options.minibatch, seed)

        def create_scheduler(self, num_training_steps, optimizer=None):
            share = rate(num_training_steps, options.warmup_share, options.decay)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer if optimizer is None else optimizer, share)
            return self.lr_scheduler

    return Ordered


@contextmanager
def workplace() -> Iterator[str]:
    """A scratch folder, within which TRL is quiet and the global generators are put back in the end."""
    with tempfile.TemporaryDirectory(prefix="outlay-trl-") as scratch, _quiet(), _own_generators():
        yield scratch


def trained(trainer: Any, folder: Path, base: str) -> Course:
    """Train, and write the weights into `folder`. Raises OutlayError if a loss is not finite."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.model.config.use_cache = False
    trainer.train()
    losses = [float(said["loss"]) for said in trainer.state.log_history if "loss" in said]
    if not all(map(math.isfinite, losses)):
        raise OutlayError(f"training diverged: losses {losses[:20]}; lower learning_rate")
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled else None
    if trainer.is_world_process_zero():
        save(trainer.accelerator.unwrap_model(trainer.model), folder, base, state)
    trainer.accelerator.wait_for_everyone()
    return Course(updates=trainer.state.global_step, losses=losses)


def parameters(folder: Path) -> int:
    """Numbers in a folder's weights files."""
    from safetensors import safe_open

    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "np") as stored:
            total += sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118
    return total


class _Order:
    """A sampler: the order of trainer sft, epoch after epoch."""

    def __init__(self, count: int, minibatch: int, seed: int) -> None:
        self.count, self.minibatch, self.seed, self.epoch = count, minibatch, seed, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for rows in minibatches([0] * self.count, self.minibatch, epoch=epoch, seed=self.seed):
            yield from rows


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
