"""Training LoRA adapters of a Llama-type model on examples packed end to end: no padding, adapters merged before each pass, and no gradient
of anything frozen.

With W' = W + s B A, the product x W' and the gradient dy W' of its input are one matrix product each, exactly those of the adapter beside
the matrix; the adapters' own gradients are dB = s dy' (x A') and dA = s (dy B)' x, as in Hu et al. 2021 (arXiv 2106.09685).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .llama import weights_of
from .load import Loaded
from .render import Rendered

if TYPE_CHECKING:
    import torch

# Tokens that are read together: their activations are kept for the backward pass.
CHUNK = {"cpu": 1024}
CHUNK_ELSEWHERE = 16384
# Response tokens whose logits exist at the same time.
LOGITS = 256


class Packed:
    """The losses of a PeftModel (its copy of `loaded`), and their gradients in the adapters.

    Raises ConfigError for a model of another build, for bfloat16 (merging would round adapters away) and for adapters elsewhere than in
    the layers' matrices.
    """

    def __init__(self, network, loaded: Loaded, *, gradient_checkpointing: bool) -> None:
        import torch

        model = network.get_base_model()
        weights = weights_of(loaded.model)
        if weights is None:
            raise ConfigError(f"trainer 'sft', option 'packed' needs a model of the Llama's build, and {type(model).__name__} is none; leave it out")
        if model.lm_head.weight.dtype != torch.float32:
            raise ConfigError("trainer 'sft', option 'packed' needs dtype: float32; leave it out for bfloat16")
        self.scale, self.eps, self.heads, self.kv_heads, self.head_dim = weights.scale, weights.eps, weights.heads, weights.kv_heads, weights.head_dim
        self.model, self.recompute, self.device = model, gradient_checkpointing, model.lm_head.weight.device
        self.chunk = CHUNK.get(self.device.type, CHUNK_ELSEWHERE)
        self.layers = [_Layer(block) for block in model.model.layers]
        if sum(len(group.adapters) for layer in self.layers for group in layer.groups) * 2 != sum(p.requires_grad for p in network.parameters()):
            raise ConfigError("trainer 'sft', option 'packed' trains adapters in the layers' matrices only; leave it out, or set lora_targets: all-linear")
        self.refresh()

    def refresh(self) -> None:
        """Merge the adapters as they are now: after each update."""
        for layer in self.layers:
            for group in layer.groups:
                group.refresh()

    def split(self, batch: Sequence[Rendered]) -> list[list[Rendered]]:
        """Examples to read together, shortest first."""
        parts: list[list[Rendered]] = [[]]
        tokens = 0
        for example in sorted(batch, key=lambda e: len(e.ids)):
            if parts[-1] and tokens + len(example.ids) > self.chunk:
                parts.append([])
                tokens = 0
            parts[-1].append(example)
            tokens += len(example.ids)
        return parts

    def losses(self, part: Sequence[Rendered]) -> torch.Tensor:
        """Cross-entropy (nats) of every response token, end token included, example by example. (total,)"""
        import torch
        from torch.utils.checkpoint import checkpoint

        lengths = [len(e.ids) for e in part]
        flat = [token for e in part for token in e.ids]
        predicting, at = [], 0
        for example in part:
            predicting += range(at + example.answer - 1, at + len(example.ids) - 1)
            at += len(example.ids)
        where = torch.tensor(predicting, device=self.device)
        ids = torch.tensor(flat, device=self.device)
        positions = torch.cat([torch.arange(n) for n in lengths]).to(self.device)
        inner = self.model.model
        cos, sin = inner.rotary_emb(torch.empty(0, device=self.device), positions[None])
        half = self.head_dim // 2
        turns = cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()
        x = torch.nn.functional.embedding(ids, inner.embed_tokens.weight)
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(self._layer, layer, x, turns, lengths, use_reentrant=False, preserve_rng_state=False)
            else:
                x = self._layer(layer, x, turns, lengths)
        hidden = _functions().norm(x[where], inner.norm.weight, self.eps)
        return _functions().loss(hidden, self.model.lm_head.weight, ids[where + 1])

    def _layer(self, layer: _Layer, x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], lengths: Sequence[int]) -> torch.Tensor:
        f, d = _functions(), self.head_dim
        turned = self.heads + self.kv_heads
        qk, v = layer.qkv(f.norm(x, layer.norm_in, self.eps)).split([turned * d, self.kv_heads * d], dim=1)
        qk, v = qk.unflatten(1, (turned, d)), v.unflatten(1, (self.kv_heads, d))
        if layer.qk_norm is not None:
            qk = f.norm(qk, layer.qk_norm, self.eps)
        q, k = f.turn(qk, *turns).split([self.heads, self.kv_heads], dim=1)
        x = x + layer.out(self._attend(q, k, v, lengths))
        return x + layer.down(f.gate(layer.gate_up(f.norm(x, layer.norm_feed, self.eps)), layer.act))

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Causal attention within each example; those of one length in one call. (t, heads, head_dim) -> (t, heads * head_dim)"""
        import torch

        runs = [(length, len(list(same))) for length, same in groupby(lengths)]
        sizes = [length * rows for length, rows in runs]
        seen = []
        for (length, rows), *qkv in zip(runs, *(x.split(sizes) for x in (q, k, v)), strict=True):
            parts = (x.unflatten(0, (rows, length)).transpose(1, 2) for x in qkv)
            out = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True, scale=self.scale, enable_gqa=self.heads != self.kv_heads)
            seen.append(out.transpose(1, 2).flatten(0, 1).flatten(1))
        return torch.cat(seen)


class _Layer:
    def __init__(self, block) -> None:
        import torch

        attention, feed = block.self_attn, block.mlp
        self.qkv = _Group([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out = _Group([attention.o_proj])
        self.gate_up = _Group([feed.gate_proj, feed.up_proj])
        self.down = _Group([feed.down_proj])
        self.groups = (self.qkv, self.out, self.gate_up, self.down)
        self.norm_in, self.norm_feed, self.act = block.input_layernorm.weight, block.post_attention_layernorm.weight, feed.act_fn
        self.qk_norm = None
        if hasattr(attention, "q_norm"):
            d = attention.head_dim
            self.qk_norm = torch.cat([n.weight.expand(base(p).out_features // d, d) for n, p in ((attention.q_norm, attention.q_proj), (attention.k_norm, attention.k_proj))])


class _Group:
    """Linear layers that read the same input, as one product with their merged matrices."""

    def __init__(self, linears: Sequence) -> None:
        import torch

        bases = [base(linear) for linear in linears]
        self.frozen = torch.cat([b.weight.detach() for b in bases])
        self.bias = torch.cat([b.bias.detach() for b in bases]) if bases[0].bias is not None else None
        self.adapters: list[tuple[slice, torch.Tensor, torch.Tensor, float]] = []
        end = 0
        for linear, b in zip(linears, bases, strict=True):
            rows = slice(end, end + b.out_features)
            end = rows.stop
            b.weight.data = self.frozen[rows]  # no second copy of what is frozen
            if linear is not b:
                self.adapters.append((rows, linear.lora_A["default"].weight, linear.lora_B["default"].weight, linear.scaling["default"]))
        self.merged = self.frozen.clone() if self.adapters else self.frozen

    def refresh(self) -> None:
        import torch

        with torch.no_grad():
            for rows, a, b, scale in self.adapters:
                torch.addmm(self.frozen[rows], b, a, alpha=scale, out=self.merged[rows])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        if not self.adapters:
            return torch.nn.functional.linear(x, self.frozen, self.bias)
        return _functions().product(x, self, *(matrix for _, a, b, _ in self.adapters for matrix in (a, b)))


def base(linear):
    """The frozen layer under an adapter, or the layer itself."""
    return getattr(linear, "base_layer", linear)


class _Functions:
    """Operations with a backward pass of their own, each made to read and write memory once."""

    def __init__(self) -> None:
        import torch

        class Product(torch.autograd.Function):
            """x -> x W'. The adapters are arguments only so that autograd takes their gradients."""

            @staticmethod
            def forward(ctx, x, group, *adapters):
                ctx.save_for_backward(x)
                ctx.group = group
                return torch.nn.functional.linear(x, group.merged, group.bias)

            @staticmethod
            def backward(ctx, dy):
                (x,), group = ctx.saved_tensors, ctx.group
                down = torch.cat([a for _, a, _, _ in group.adapters])
                h = x @ down.T
                g = torch.empty_like(h)
                ups, at = [], 0
                for rows, a, b, scale in group.adapters:
                    own, part = slice(at, at + len(a)), dy[:, rows]
                    at = own.stop
                    g[:, own] = (part @ b).mul_(scale)
                    ups.append((part.T @ h[:, own]).mul_(scale))
                downs = (g.T @ x).split([len(a) for _, a, _, _ in group.adapters])
                dx = dy @ group.merged if ctx.needs_input_grad[0] else None
                return dx, None, *(matrix for pair in zip(downs, ups, strict=True) for matrix in pair)

        class Norm(torch.autograd.Function):
            """RMS norm over the last axis, its weight frozen."""

            @staticmethod
            def forward(ctx, x, weight, eps):
                r = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
                ctx.save_for_backward(x, weight, r)
                return (x * r).mul_(weight)

            @staticmethod
            def backward(ctx, dy):
                x, weight, r = ctx.saved_tensors
                g = dy * weight
                along = (g * x).sum(-1, keepdim=True).mul_(r.pow(3)).div_(x.shape[-1])
                return g.mul_(r).addcmul_(x, along, value=-1), None, None

        class Turn(torch.autograd.Function):
            """Rotary positions: (t, heads, head_dim) with the cosines and sines of half a head, (t, 1, head_dim / 2)."""

            @staticmethod
            def forward(ctx, x, cos, sin):
                ctx.save_for_backward(cos, sin)
                return turned(x, cos, sin, 1)

            @staticmethod
            def backward(ctx, dy):
                return turned(dy, *ctx.saved_tensors, -1), None, None

        def turned(x, cos, sin, way):
            (a, b), out = x.chunk(2, dim=-1), torch.empty_like(x, memory_format=torch.contiguous_format)
            first, second = out.chunk(2, dim=-1)
            torch.mul(a, cos, out=first).addcmul_(b, sin, value=-way)
            torch.mul(b, cos, out=second).addcmul_(a, sin, value=way)
            return out

        class Gate(torch.autograd.Function):
            """(t, 2 f) -> silu(first half) * second half."""

            @staticmethod
            def forward(ctx, both):
                ctx.save_for_backward(both)
                a, b = both.chunk(2, dim=-1)
                return torch.nn.functional.silu(a).mul_(b)

            @staticmethod
            def backward(ctx, dy):
                (both,) = ctx.saved_tensors
                a, b = both.chunk(2, dim=-1)
                out = torch.empty_like(both)
                first, second = out.chunk(2, dim=-1)
                torch.mul(dy, torch.nn.functional.silu(a), out=second)
                first.copy_(torch.ops.aten.silu_backward(dy * b, a))
                return out

        class Loss(torch.autograd.Function):
            """Cross-entropy of targets under a frozen LM head; the gradient of the hidden states comes from the same logits."""

            @staticmethod
            def forward(ctx, hidden, head, targets):
                losses = torch.empty(len(hidden), device=hidden.device)
                grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
                for begin in range(0, len(hidden), LOGITS):
                    some = slice(begin, begin + LOGITS)
                    logits, wanted = hidden[some] @ head.T, targets[some, None]
                    top, picked = logits.amax(1, keepdim=True), logits.gather(1, wanted)
                    total = logits.sub_(top).exp_().sum(1, keepdim=True)
                    losses[some] = (total.log() + top - picked)[:, 0]
                    if grad is not None:
                        grad[some] = (logits @ head).div_(total).sub_(head[wanted[:, 0]])
                ctx.save_for_backward(grad)
                return losses

            @staticmethod
            def backward(ctx, dy):
                (grad,) = ctx.saved_tensors
                return grad * dy[:, None], None, None

        self.product, self.norm, self.turn, self.loss, self._gate = Product.apply, Norm.apply, Turn.apply, Loss.apply, Gate.apply

    def gate(self, both: torch.Tensor, act) -> torch.Tensor:
        """(t, 2 f) -> act(first half) * second half."""
        if type(act).__name__ in ("SiLU", "SiLUActivation"):
            return self._gate(both)
        a, b = both.chunk(2, dim=-1)
        return act(a) * b


@cache
def _functions() -> _Functions:
    return _Functions()
