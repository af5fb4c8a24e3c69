"""A model that reads and continues a minibatch of prompts: the same few calls, whichever code runs it.

`HFNetwork` (hf.py) runs any decoder-only model through its own forward, `LlamaNetwork` (llama.py) those of the Llama's build through ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from .load import Loaded
from .render import Rendered

if TYPE_CHECKING:
    import torch

# Tokens that sharing a prefix must save: below it, the extra pass over the weights costs more.
PAYS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingSpec:
    """Which vector stands for a prompt. layer: index into Hugging Face's `hidden_states` (-1: the last, after the final norm).
    pooling: "mean" over the tokens of the user's text, or "last": the position from which the response is generated.
    normalise: to length 1."""

    layer: int = -1
    pooling: Literal["mean", "last"] = "mean"
    normalise: bool = True

    def pool(self, prompt: Rendered, tail: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """The prompt's vector (d,) from the hidden states of a shared beginning (p, d) and of the tokens after it (t, d)."""
        import torch

        if self.pooling == "last":
            vector = tail[-1].float()
        else:
            first, last = prompt.user
            shared = len(prefix)
            total = tail[max(first - shared, 0) : max(last - shared, 0)].float().sum(0)
            if first < shared:
                total = total + prefix[first:last].float().sum(0)
            vector = total / (last - first)
        return torch.nn.functional.normalize(vector, dim=0) if self.normalise else vector


    def pool_packed(self, prompts: Sequence[Rendered], states: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """The same for all of these prompts (b, d), whose tails' hidden states lie end to end in `states` (t, d): few calls, for a GPU."""
        import torch

        shared = len(prefix)
        ends = np.cumsum([len(p.ids) - shared for p in prompts])
        begins = np.concatenate([[0], ends[:-1]])
        if self.pooling == "last":
            vectors = states[torch.as_tensor(ends - 1, device=states.device)].float()
        else:
            spans = np.array([p.user for p in prompts])
            own = (spans - shared).clip(min=0) + begins[:, None]
            places = torch.as_tensor(np.concatenate([np.arange(*span) for span in own]), device=states.device)
            sums = torch.segment_reduce(states[places].float(), "sum", lengths=torch.as_tensor(own[:, 1] - own[:, 0], device=states.device), initial=0)
            for row in np.flatnonzero(spans[:, 0] < shared):
                sums[row] += prefix[spans[row, 0] : spans[row, 1]].float().sum(0)
            vectors = sums / torch.as_tensor(spans[:, 1] - spans[:, 0], device=states.device)[:, None]
        return torch.nn.functional.normalize(vectors, dim=1) if self.normalise else vectors


@dataclass(frozen=True, slots=True)
class Step:
    """What the newest position of each row says: `hidden` after the final norm (b, d), `logits` (b, v). `vectors`: embeddings (b, d)
    of prompts that were just read, if asked for."""

    hidden: torch.Tensor
    logits: torch.Tensor | None
    vectors: torch.Tensor | None = None


def common_prefix(prompts: Sequence[Rendered]) -> tuple[int, ...]:
    """The longest beginning that all prompts share and that leaves each at least one token; () where sharing it does not pay."""
    if len(prompts) < 2:
        return ()
    # All sequences lie between the least and the greatest one, so what these two share is shared by all.
    low, high = min(p.ids for p in prompts), max(p.ids for p in prompts)
    most = min(len(p.ids) for p in prompts) - 1
    shared = next((i for i in range(min(most, len(low), len(high))) if low[i] != high[i]), most)
    return low[:shared] if shared * (len(prompts) - 1) >= PAYS else ()


class Network(Protocol):
    """Rows are prompts that are being continued. `refills`: prompts may be admitted beside rows, not only when there are none."""

    refills: bool

    def admit(self, prompts: Sequence[Rendered]) -> Step:
        """Read these prompts, longest first; where the network decodes, they become the last rows."""

    def repeat(self, times: int) -> None:
        """Each row becomes `times` rows, one after another."""

    def step(self, tokens: np.ndarray) -> Step:
        """Read one more token of each row. (b,)"""

    def keep(self, going: np.ndarray) -> np.ndarray:
        """Only these rows go on: (b,) bool -> their numbers in the new order."""

    def extend(self, owners: Sequence[int], tails: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        """For each tail, read after the prompt in row owners[i], the logits at its positions (t, v). The rows stay as they are."""


def open_network(loaded: Loaded, prompts: Sequence[Rendered], spec: EmbeddingSpec | None, *, minibatch: int, room: int, decode: bool = True, copies: int = 1) -> Network:
    """The network for these prompts, which has read what they share. minibatch: most rows; room: most tokens that a row gets after its
    prompt; decode: whether rows are continued at all; copies: how often each prompt becomes a row."""
    from .hf import HFNetwork
    from .llama import LlamaNetwork, weights_of

    prefix = common_prefix(prompts)
    weights = weights_of(loaded.model)
    if weights is None:
        return HFNetwork(loaded, prefix, spec, decode=decode)
    longest = max((len(p.ids) for p in prompts), default=0) - len(prefix) + room
    return LlamaNetwork(weights, prefix, spec, rows=min(minibatch, copies * len(prompts)), longest=longest, decode=decode)
