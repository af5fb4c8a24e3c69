"""Options that scoring, training and evaluation have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import ConfigError

if TYPE_CHECKING:
    import torch

# What decodes: our own network, or vLLM (vllm_backend.py).
Backend = Literal["torch", "vllm"]


def device_memory(device: torch.device) -> int:
    """Bytes of the whole memory of a device: not what is free at the moment, so that the same machine gives the same bytes."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """How a model is run. The same values must be used for scoring, training and evaluation, or the model sees other texts.

    template: "chat" is the tokenizer's chat template, "plain" is the prompt and a line break; "auto" takes the chat template if
    the tokenizer has one. dtype: of the weights; on a CPU bfloat16 is about ten times slower than float32. device: "auto" (the
    GPU if there is one), "cpu", "cuda", "cuda:1". minibatch: prompts per forward pass in scoring and evaluation; it changes
    memory and speed, signals by less than 1e-3. threads: CPU threads per worker; the same number gives the same bytes.
    """

    # Read by pydantic when a config is parsed: a misspelt key is an error.
    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    template: Literal["auto", "chat", "plain"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    minibatch: int = 32
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("minibatch", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"runtime option '{name}' = {getattr(self, name)}: it must be at least 1")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use this number of CPU threads within the block, and the earlier number after it."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def torch_device(self):
        """The torch.device. Raises ConfigError for a GPU that is not there."""
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise ConfigError(f"unknown device '{self.device}'; use auto, cpu, cuda or cuda:1") from None
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(f"device '{self.device}' is not there ({torch.cuda.device_count()} GPUs visible); use device: auto or cpu")
        return device

    def torch_dtype(self):
        """The torch.dtype."""
        import torch

        return getattr(torch, self.dtype)
