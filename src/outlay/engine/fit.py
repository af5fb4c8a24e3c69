"""The training loop: updates, schedule, dev split, and checkpoints of a training that may be killed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import OutlayError
from .lesson import answers, minibatches
from .render import Rendered

if TYPE_CHECKING:
    import torch

Decay = Literal["linear", "cosine", "none"]


class Reader(Protocol):
    """How a network reads a minibatch."""

    def split(self, batch: Sequence[Rendered]) -> list[list[Rendered]]:
        """Into parts, each for one forward and backward pass."""

    def losses(self, part: Sequence[Rendered]) -> torch.Tensor:
        """Of every response token. (total,)"""

    def refresh(self) -> None:
        """The weights have changed."""


class Padded:
    """Any model through its own forward, padded; the LM head at response positions only."""

    def __init__(self, network, *, autocast: bool, gradient_checkpointing: bool) -> None:
        self.network, self.autocast = network, autocast
        if gradient_checkpointing:
            _recompute(network)

    def split(self, batch: Sequence[Rendered]) -> list[list[Rendered]]:
        return [list(batch)]

    def losses(self, part: Sequence[Rendered]) -> torch.Tensor:
        import torch

        from .losses import token_losses

        device = next(self.network.parameters()).device
        with torch.autocast(device.type, dtype=torch.bfloat16) if self.autocast else nullcontext():
            return token_losses(self.network, part)[0]

    def refresh(self) -> None:
        pass


def _recompute(network) -> None:
    """Keep no activations within a layer; compute them again in the backward pass. transformers' own switch works in training mode only,
    which also turns dropout on."""
    from functools import partial

    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise OutlayError(f"{type(network).__name__} has no layers that gradient_checkpointing knows; leave it out")
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Numbers of a training; see SFT for what they mean."""

    epochs: int
    learning_rate: float
    minibatch: int
    accumulation: int
    bucket: int
    decay: Decay
    warmup_share: float
    weight_decay: float
    clip: float
    patience: int
    fused: bool


@dataclass
class Course:
    """What happened: updates, the mean loss per response token of each (nats), the dev split's loss after each epoch, and seconds. With a
    dev split the weights are those after epoch `best` (from 0)."""

    updates: int = 0
    losses: list[float] = field(default_factory=list)
    dev: list[float] = field(default_factory=list)
    best: int = -1
    seconds: float = 0.0


def rate(total: int, warmup_share: float, decay: Decay) -> Callable[[int], float]:
    """Update number from 0 -> share of the peak rate: up over the warm-up, then down to 0 after the last update, or constant."""
    warm = int(total * warmup_share)

    def share(update: int) -> float:
        if update < warm:
            return (update + 1) / (warm + 1)
        left = (total - update) / max(1, total - warm)
        return {"linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left), "none": 1.0}[decay]

    return share


def updates_of(examples: int, plan: Plan) -> int:
    """Updates of a whole training; an epoch's last one may have fewer examples."""
    return plan.epochs * math.ceil(math.ceil(examples / plan.minibatch) / plan.accumulation)


def fit(network, reader: Reader, lesson: Sequence[Rendered], dev: Sequence[Rendered], plan: Plan, *, seed: int, checkpoint: Checkpoint) -> Course:
    """Train the parameters of `network` that require gradients, in place. Goes on from the checkpoint if there is one of this training.

    Raises OutlayError if loss or gradient are not finite.
    """
    import torch

    weights = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=plan.fused or None)
    total = updates_of(len(lesson), plan)
    share = rate(total, plan.warmup_share, plan.decay)
    per_epoch = total // plan.epochs
    lengths = [len(e.ids) for e in lesson]
    course, best = checkpoint.load(weights, optimizer)
    reader.refresh()
    begin = time.perf_counter() - course.seconds
    # An epoch whose updates are done and whose dev loss is not has nothing left but that.
    for epoch in range(len(course.dev) if dev else course.updates // per_epoch, plan.epochs):
        batches = list(minibatches(lengths, plan.minibatch, epoch=epoch, seed=seed, bucket=plan.bucket))
        for number in range(course.updates - epoch * per_epoch, per_epoch):
            group = [[lesson[row] for row in rows] for rows in batches[number * plan.accumulation : (number + 1) * plan.accumulation]]
            loss = _gradients(reader, group)
            norm = torch.nn.utils.clip_grad_norm_(weights, plan.clip)
            if not (math.isfinite(loss) and torch.isfinite(norm)):
                raise OutlayError(
                    f"training stopped at update {course.updates + 1} of {total}: loss {loss}, gradient norm {float(norm)} (prompt '{group[0][0].id}' and others); lower learning_rate"
                )
            for setting in optimizer.param_groups:
                setting["lr"] = plan.learning_rate * share(course.updates)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            reader.refresh()
            course.updates += 1
            course.losses.append(loss)
            course.seconds = time.perf_counter() - begin
            checkpoint.save_in_time(weights, optimizer, course, best)
        if not dev:
            continue
        course.dev.append(_mean_loss(reader, dev, plan.minibatch))
        if course.best < 0 or course.dev[-1] < course.dev[course.best]:
            course.best, best = epoch, [p.detach().clone() for p in weights]
        elif epoch - course.best >= plan.patience:
            break
    if best:
        with torch.no_grad():
            for parameter, kept in zip(weights, best, strict=True):
                parameter.copy_(kept)
    course.seconds = time.perf_counter() - begin
    return course


def _gradients(reader: Reader, group: Sequence[Sequence[Rendered]]) -> float:
    """Add up the gradient of the mean loss per response token of the whole group -> that loss."""
    tokens = sum(answers(batch) for batch in group)
    total = 0.0
    for batch in group:
        for part in reader.split(batch):
            loss = reader.losses(part).sum() / tokens
            loss.backward()
            total += float(loss.detach())
    return total


def _mean_loss(reader: Reader, dev: Sequence[Rendered], minibatch: int) -> float:
    import torch

    total = 0.0
    with torch.no_grad():
        for at in range(0, len(dev), minibatch):
            total += sum(float(reader.losses(part).double().sum()) for part in reader.split(dev[at : at + minibatch]))
    return total / answers(dev)


@dataclass
class Checkpoint:
    """One safetensors file from which a killed training goes on to the same bytes. `key` names the training: another one's file is not read.
    minutes: between two writes; a training that is over sooner writes none."""

    file: Path
    key: str
    minutes: float
    written: float = field(default_factory=time.monotonic)

    def save_in_time(self, weights: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer, course: Course, best: Sequence[torch.Tensor]) -> None:
        """Write one if it is time to."""
        from safetensors.torch import save_file

        if time.monotonic() - self.written < 60 * self.minutes:
            return
        tensors = {}
        for i, parameter in enumerate(weights):
            state = optimizer.state[parameter]
            tensors |= {f"{i}.weight": parameter, f"{i}.first": state["exp_avg"], f"{i}.second": state["exp_avg_sq"]}
        tensors |= {f"{i}.best": kept for i, kept in enumerate(best)}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_name(self.file.name + ".tmp")
        said = json.dumps({"key": self.key, "course": course.__dict__})
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata={"outlay": said})
        os.replace(partial, self.file)
        self.written = time.monotonic()

    def load(self, weights: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer) -> tuple[Course, list[torch.Tensor]]:
        """Put the stored state into weights and optimizer -> the course so far and the best weights (none before the first dev loss)."""
        import torch
        from safetensors import safe_open

        if not self.file.exists():
            return Course(), []
        with safe_open(self.file, "pt") as stored, torch.no_grad():
            said = json.loads(stored.metadata()["outlay"])
            if said["key"] != self.key:
                return Course(), []
            course = Course(**said["course"])
            for i, parameter in enumerate(weights):
                parameter.copy_(stored.get_tensor(f"{i}.weight"))
                step = torch.tensor(float(course.updates), device=parameter.device if optimizer.defaults["fused"] else "cpu")
                moments = {name: stored.get_tensor(f"{i}.{kind}").to(parameter.device) for name, kind in (("exp_avg", "first"), ("exp_avg_sq", "second"))}
                optimizer.state[parameter] = {"step": step, **moments}
            best = [stored.get_tensor(f"{i}.best").to(p.device) for i, p in enumerate(weights)] if course.best >= 0 else []
        return course, best

    def drop(self) -> None:
        self.file.unlink(missing_ok=True)


def key_of(*facts: Any, lesson: Sequence[Rendered]) -> str:
    """Names a training: JSON-able facts, and the examples token by token."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for example in lesson:
        digest.update(json.dumps([example.id, example.answer, example.ids]).encode())
    return digest.hexdigest()
