"""FLOPs by formula, from a model's config alone: matrix products, a multiply and an add each; norms, softmax and the embedding
look-up are left out, as in torch.utils.flop_counter. Padding is never counted.

Per position that a forward pass reads: 2 x (parameters of the layers), plus attention: 2 x 2 x layers x context x width. Masked
positions are counted within one forward pass (a prompt of t tokens has context t at every position, as eager attention computes
it); a decoded token has the context it really sees. The LM head costs 2 x d x V, only at positions whose logits are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Model types whose feed-forward block has two matrices; all others have three (gate, up, down).
UNGATED = {"gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "bloom", "falcon", "phi", "mpt", "starcoder2", "codegen"}
# How the families spell the same number.
SPELLINGS = {
    "width": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "feed": ("intermediate_size", "n_inner", "ffn_dim"),
}


@dataclass(frozen=True, slots=True)
class Arch:
    """The sizes of a decoder-only transformer that the formulas need. `feed` is the width of the feed-forward block that one
    token passes through (all its experts together, in a mixture)."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    feed: int
    feed_matrices: int
    vocabulary: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Arch:
        """From the content of a Hugging Face config.json. A tied head costs what an untied one does."""
        config = {**config, **(config.get("text_config") or {})}

        def read(size: str, default: int | None = None) -> int:
            for key in SPELLINGS[size]:
                if config.get(key) is not None:
                    return int(config[key])
            if default is None:
                raise ValueError(f"the model's config has none of {', '.join(SPELLINGS[size])}")
            return default

        width, heads = read("width"), read("heads")
        feed = read("feed", 4 * width)
        if config.get("num_experts_per_tok"):
            feed = int(config.get("moe_intermediate_size") or feed) * int(config["num_experts_per_tok"])
        return cls(
            layers=read("layers"),
            width=width,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or width // heads),
            feed=feed,
            feed_matrices=2 if config.get("model_type") in UNGATED else 3,
            vocabulary=int(config["vocab_size"]),
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Name -> (inputs, outputs) of the matrices of one layer, by their names in the Llama family."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        feed = {"gate_proj": (self.width, self.feed), "up_proj": (self.width, self.feed), "down_proj": (self.feed, self.width)}
        if self.feed_matrices == 2:
            feed.pop("gate_proj")
        return {"q_proj": (self.width, query), "k_proj": (self.width, key), "v_proj": (self.width, key), "o_proj": (query, self.width)} | feed

    @property
    def parameters(self) -> int:
        """Parameters of the layers' matrices: without embeddings, LM head, norms and biases."""
        return self.layers * sum(a * b for a, b in self.linears.values())

    @property
    def first_inputs(self) -> int:
        """Parameters of the matrices that read the embeddings: nothing is propagated through them if the embeddings are frozen."""
        return sum(a * b for name, (a, b) in self.linears.items() if name in ("q_proj", "k_proj", "v_proj"))

    def lora_parameters(self, r: int, targets: str | Sequence[str] = "all-linear") -> int:
        """Trainable parameters of LoRA adapters of rank r."""
        chosen = self.linears if targets == "all-linear" else {name: size for name, size in self.linears.items() if name in targets}
        return self.layers * sum(r * (a + b) for a, b in chosen.values())


def _attention(arch: Arch, pairs: int) -> int:
    return 4 * arch.layers * arch.heads * arch.head_dim * pairs


def _head(arch: Arch, positions: int) -> int:
    return 2 * arch.width * arch.vocabulary * positions


def forward(arch: Arch, lengths: Iterable[int], head_positions: int) -> int:
    """One forward pass over sequences of these lengths (tokens), with logits at `head_positions` positions in all."""
    lengths = [int(t) for t in lengths]
    return 2 * arch.parameters * sum(lengths) + _attention(arch, sum(t * t for t in lengths)) + _head(arch, head_positions)


def scoring(arch: Arch, prompt_tokens: Iterable[int], response_tokens: Iterable[int]) -> int:
    """Reading prompts and decoding responses greedily (tokens per prompt, the end token included; 0: only the prompt is read,
    without the head)."""
    return sampling(arch, prompt_tokens, ([g] for g in response_tokens))


def sampling(arch: Arch, prompt_tokens: Iterable[int], response_tokens: Iterable[Iterable[int]]) -> int:
    """Reading each prompt once and decoding several responses to it, (n, samples) tokens. The last token of a response is never fed
    back; the first ones come from the logits of the prompt, so the head is applied once for all of them."""
    total = 0
    for t, tokens in zip(prompt_tokens, response_tokens, strict=True):
        t, tokens = int(t), [int(g) for g in tokens]
        fed = [max(g - 1, 0) for g in tokens]
        contexts = sum(f * t + f * (f + 1) // 2 for f in fed)
        total += 2 * arch.parameters * (t + sum(fed)) + _attention(arch, t * t + contexts) + _head(arch, sum(fed) + any(tokens))
    return total


def sketching(arch: Arch, tokens: int, width: int) -> int:
    """The gradients of the LM head at this many tokens, sketched: a sign and a sum per coordinate, and two real Fourier transforms of
    2.5 width log2(width) each. It is no matrix product, and counted all the same."""
    return round(tokens * (2 * (arch.vocabulary + arch.width) + 5 * width * math.log2(width)))


def train_full(arch: Arch, lengths: Sequence[int], response_lengths: Sequence[int]) -> int:
    """One epoch over all weights: a forward pass, and a backward pass that costs two. Logits at response positions only."""
    return 3 * forward(arch, lengths, sum(int(r) for r in response_lengths))


def train_lora(arch: Arch, lengths: Sequence[int], response_lengths: Sequence[int], adapters: int) -> int:
    """One epoch over `adapters` LoRA parameters: frozen matrices cost their forward pass and the gradient of their input (4N per
    token instead of 6N), attention has no weights and costs three passes, adapters cost three."""
    tokens, pairs = sum(int(t) for t in lengths), sum(int(t) ** 2 for t in lengths)
    frozen = (4 * arch.parameters - 2 * arch.first_inputs) * tokens + 2 * _head(arch, sum(int(r) for r in response_lengths))
    return frozen + 3 * _attention(arch, pairs) + 6 * adapters * tokens
