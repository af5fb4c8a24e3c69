"""The options that all trainers of language models share."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import ConfigError
from .fit import Decay
from .runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """runtime: see Runtime. epochs: passes over the examples. learning_rate: the peak; 1e-3 suits adapters, 1e-5 to 1e-4 all weights. minibatch:
    examples per forward pass. accumulation: minibatches per update; 1 x 8 and 8 x 1 are the same training up to rounding. decay: of the
    learning rate after the warm-up. warmup_share: of all updates. weight_decay: of AdamW. clip: greatest norm of the gradient. lora_r,
    lora_alpha: rank and scale of adapters. lora_targets: names of linear layers, or "all-linear". max_tokens: an example with more is refused,
    never cut off. gradient_checkpointing: keep the activations between layers only and compute the rest twice: less memory, about a third
    slower.
    """

    runtime: Runtime = field(default_factory=Runtime)
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

    def check(self, trainer: str) -> None:
        """Raises ConfigError naming the option that is wrong."""
        for name in ("epochs", "minibatch", "accumulation", "lora_r", "max_tokens", "learning_rate", "clip", "lora_alpha"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"trainer '{trainer}', option '{name}' = {getattr(self, name)}: it must be positive")
        if not 0 <= self.warmup_share <= 1:
            raise ConfigError(f"trainer '{trainer}', option 'warmup_share' = {self.warmup_share}: it is a share, from 0 to 1")
