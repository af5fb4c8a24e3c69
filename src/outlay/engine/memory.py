"""How many prompts fit into a minibatch, from sizes alone: nothing is tried out, so the same machine always gives the same number."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError
from ..measure.flops import Arch
from ..types import Model
from .load import arch, load
from .render import format_of, prompts
from .runtime import Runtime, device_memory

# Of the device's whole memory: of what weights leave free on a GPU; of all on a CPU, where workers and other programs share it.
SHARE = {"cuda": 0.5, "cpu": 0.25}
# Larger minibatches are no faster: matrix products are as large as they need to be.
MOST = {"cuda": 512, "cpu": 64}
LONGEST = 16  # texts with the most characters, of which the one with the most tokens counts


def minibatch(model: str, runtime: Runtime, texts: Sequence[str], *, new: int, workers: int, least: int = 0) -> int:
    """The largest power of two that fits, for these prompts, or prompts of `least` tokens where these are shorter, and at most `new` tokens after each.
    `runtime.minibatch` is not read.

    Raises ConfigError where not even one prompt fits.
    """
    device, sizes = runtime.torch_device(), arch(model)
    loaded = load(Model(model), runtime)
    longest = sorted(texts, key=len)[-LONGEST:]
    rendered = prompts(loaded, format_of(loaded, runtime.template), [str(i) for i in range(len(longest))], longest)
    tokens = max([least, *(len(p.ids) for p in rendered)]) + new
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    free = (device_memory(device) - 2 * weights) * SHARE[device.type] / workers  # twice: a trained model lies beside the base
    row = row_bytes(sizes, tokens, 2 if runtime.dtype == "bfloat16" else 4)
    if row > free:
        raise ConfigError(f"a prompt of {tokens - new} tokens with {new} new ones needs {row / 2**30:.1f} GiB beside the weights, and {max(free, 0) / 2**30:.1f} GiB may be used; use shorter prompts, fewer workers, or set runtime.minibatch")
    return min(MOST[device.type], 1 << (int(free / row).bit_length() - 1))


def row_bytes(sizes: Arch, tokens: int, width: int) -> int:
    """Memory of one prompt of this many tokens at most, its response among them: cached keys and values, what a layer holds at once
    while the prompt is read, and its logits with the copies that statistics and sampling make (float32 and float64)."""
    cache = 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * tokens * width
    layer = tokens * (6 * sizes.width + 3 * sizes.feed) * width + sizes.heads * tokens * tokens * width
    return cache + layer + 24 * sizes.vocabulary

