"""The matrices of a Llama-type model as the engine multiplies by them.

Llama, Mistral, Qwen 2 and 3 and others of that build: RMS norms before attention and a gated feed-forward block, rotary positions over
whole heads, grouped keys. Told by structure, never by name; `llama.py` then compares a few tokens with the model's own forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .runtime import device_memory

if TYPE_CHECKING:
    import torch

# Copies of the matrices, in the layout of the CPU's kernels or side by side, may take this share of the device's memory.
MEMORY_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Layer:
    """x -> qkv(norm(x)), attention, out; x -> down(act(gate) * up), gate and up from one product. `norm_*`: the norms' weights, None where
    they are folded into the matrix behind them. `qk_norm`: (heads + kv_heads, head_dim) or None."""

    norm_in: torch.Tensor | None
    qkv: Callable[[torch.Tensor], torch.Tensor]
    qk_norm: torch.Tensor | None
    out: Callable[[torch.Tensor], torch.Tensor]
    norm_feed: torch.Tensor | None
    gate_up: Callable[[torch.Tensor], torch.Tensor]
    act: Callable[[torch.Tensor], torch.Tensor]
    down: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Weights:
    """`paired`: queries and keys come with the two coordinates that a rotation mixes side by side, not half a head apart."""

    embed: torch.Tensor
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    head: Callable[[torch.Tensor], torch.Tensor]
    rotary: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    eps: float
    scale: float
    heads: int
    kv_heads: int
    head_dim: int
    paired: bool


def read(model) -> Weights | None:
    """The weights of a model of this build, or None for any other."""
    import torch

    if not _is_llama(model):
        return None
    inner, config = model.model, model.config
    attention = inner.layers[0].self_attn
    head_dim = attention.head_dim
    heads, kv_heads = (getattr(attention, name).out_features // head_dim for name in ("q_proj", "k_proj"))
    where = inner.embed_tokens.weight
    fits = sum(p.numel() * p.element_size() for p in model.parameters()) < MEMORY_SHARE * device_memory(where.device)
    packed = fits and where.device.type == "cpu" and where.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    dense = _packed if packed else _joined if fits else _shared
    pairs = torch.arange(head_dim).view(2, -1).T.flatten()  # 0, h/2, 1, h/2 + 1, ...

    def layer(block) -> Layer:
        attention, feed = block.self_attn, block.mlp
        norm_in, norm_feed = block.input_layernorm.weight.detach(), block.post_attention_layernorm.weight.detach()
        qk_norm = None
        if hasattr(attention, "q_norm"):
            qk_norm = torch.cat([n.weight.detach().expand(h, head_dim) for n, h in ((attention.q_norm, heads), (attention.k_norm, kv_heads))])
            qk_norm = qk_norm[:, pairs] if packed else qk_norm
        order = torch.cat([(torch.arange(heads + kv_heads) * head_dim)[:, None].add(pairs).flatten(), torch.arange(-kv_heads * head_dim, 0)])
        return Layer(
            norm_in=None if packed else norm_in,
            qkv=dense([attention.q_proj, attention.k_proj, attention.v_proj], norm_in, order),
            qk_norm=qk_norm,
            out=dense([attention.o_proj]),
            norm_feed=None if packed else norm_feed,
            gate_up=dense([feed.gate_proj, feed.up_proj], norm_feed),
            act=feed.act_fn,
            down=dense([feed.down_proj]),
        )

    return Weights(
        embed=where.detach(),
        layers=tuple(layer(block) for block in inner.layers),
        norm=inner.norm.weight.detach(),
        head=dense([model.lm_head]),
        rotary=inner.rotary_emb,
        eps=float(config.rms_norm_eps),
        scale=float(attention.scaling),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        paired=packed,
    )


def _shared(linears: Sequence[torch.nn.Linear], norm: torch.Tensor | None = None, order: torch.Tensor | None = None):
    """x -> the products with these matrices side by side, from the model's own tensors: no memory of its own."""
    import torch

    parts = [(linear.weight.detach(), None if linear.bias is None else linear.bias.detach()) for linear in linears]

    def product(x: torch.Tensor) -> torch.Tensor:
        found = [torch.nn.functional.linear(x, weight, bias) for weight, bias in parts]
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)

    return product


def _joined(linears: Sequence[torch.nn.Linear], norm: torch.Tensor | None = None, order: torch.Tensor | None = None):
    """The same as one product with a copy of the matrices side by side; a single matrix is the model's own."""
    import torch

    if len(linears) == 1:
        return _shared(linears)
    weight = torch.cat([linear.weight.detach() for linear in linears])
    bias = torch.cat([linear.bias.detach() for linear in linears]) if linears[0].bias is not None else None
    return lambda x: torch.nn.functional.linear(x, weight, bias)


def _packed(linears: Sequence[torch.nn.Linear], norm: torch.Tensor | None = None, order: torch.Tensor | None = None):
    """The same as one product with a copy in oneDNN's blocked layout, which is what it is fast at for few rows; the norm's weights
    before it are folded in. order: of the outputs; negative numbers count from the end."""
    import torch

    weight = torch.cat([linear.weight.detach() for linear in linears])
    bias = torch.cat([linear.bias.detach() for linear in linears]) if linears[0].bias is not None else None
    if order is not None:
        weight, bias = weight[order], None if bias is None else bias[order]
    if norm is not None:
        weight = weight * norm
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 32)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, packed, bias, "none", [], "")


def _is_llama(model) -> bool:
    """Whether the modules, their kinds and the config are those that `llama.py` computes."""
    import torch

    def linear(module, *names: str) -> bool:
        return all(type(getattr(module, name, None)) is torch.nn.Linear for name in names)

    def children(module) -> set[str]:
        return {name for name, child in module.named_children() if any(True for _ in child.parameters())}

    config = model.config
    inner = getattr(model, "model", None)
    if inner is None or children(model) != {"model", "lm_head"} or children(inner) != {"embed_tokens", "layers", "norm"} or not hasattr(inner, "rotary_emb"):
        return False
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    windowed = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    # These change the rotation with the length of the text.
    if kinds or windowed or rope.get("rope_type", "default") in ("dynamic", "longrope") or type(inner.embed_tokens) is not torch.nn.Embedding:
        return False
    for block in inner.layers:
        if children(block) != {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}:
            return False
        attention, feed = block.self_attn, block.mlp
        if not linear(attention, "q_proj", "k_proj", "v_proj", "o_proj") or not linear(feed, "gate_proj", "up_proj", "down_proj"):
            return False
        if children(attention) - {"q_proj", "k_proj", "v_proj", "o_proj"} not in (set(), {"q_norm", "k_norm"}) or not hasattr(attention, "scaling"):
            return False
    return linear(model, "lm_head") and hasattr(config, "rms_norm_eps")
