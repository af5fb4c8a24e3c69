"""A Llama-type model without its framework: prompts packed end to end instead of padded, a cache allocated once, rows that leave and enter
while others go on, and the shared beginning kept once."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from . import weights
from .graphs import Graphs
from .network import EmbeddingSpec, Step
from .render import Rendered
from .together import Group, Run, alike, chunks, padded

if TYPE_CHECKING:
    import torch

# Tokens that are read together: activations of so many stay in a CPU's cache.
CHUNK = 1024
CHUNK_ELSEWHERE = 16384
# How far log-probabilities may be from those of the model's own forward (nats), by type.
TOLERANCE = {"float32": 1e-3}
TOLERANCE_ELSEWHERE = 1.0

_READ: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
log = logging.getLogger(__name__)


def weights_of(model) -> weights.Weights | None:
    """The weights of a model that LlamaNetwork runs, or None: it is of another build, or its own forward gives other numbers."""
    if model not in _READ:
        read = weights.read(model)
        if read is not None and not _agrees(model, read):
            log.warning("%s has the build of a Llama and computes something else; its own forward is used, which is slower", type(model).__name__)
            read = None
        _READ[model] = read
    return _READ[model]


def _agrees(model, read: weights.Weights) -> bool:
    """Whether a few tokens of two prompts, the second token of one decoded, get the log-probabilities of the model's own forward."""
    import torch

    size = read.embed.shape[0]
    texts = [[(7 * i * i + 3 * i + 11) % size for i in range(n)] for n in (13, 9)]
    prompts = [Rendered("", tuple(text[:-1]), (0, 1), len(text) - 1) for text in texts]
    with torch.inference_mode():
        network = LlamaNetwork(read, texts[0][:4], None, rows=2, longest=16, decode=True)
        network.admit(prompts)
        ours = network.step(np.array([text[-1] for text in texts])).logits
        theirs = [model(input_ids=torch.tensor([text], device=model.device), use_cache=False).logits[0, -1] for text in texts]
        far = (ours.float().log_softmax(-1) - torch.stack(theirs).float().log_softmax(-1)).abs().max()
    return bool(far <= _tolerance(read.embed.dtype))


def _tolerance(dtype: torch.dtype) -> float:
    return TOLERANCE.get(str(dtype).removeprefix("torch."), TOLERANCE_ELSEWHERE)


class LlamaNetwork:
    """The calls of HFNetwork, for the weights of `weights.read`. `rows`: the most rows at once; `longest`: tokens of a row after the prefix."""

    refills = True

    def __init__(self, w: weights.Weights, prefix: Sequence[int], spec: EmbeddingSpec | None, *, rows: int, longest: int, decode: bool) -> None:
        import torch

        self.w, self.spec, self.decode = w, spec, decode
        self.device, self.dtype = w.embed.device, w.embed.dtype
        self.chunk = CHUNK if self.on_cpu else CHUNK_ELSEWHERE
        self.capacity, self.longest = rows, longest
        positions = torch.arange(len(prefix) + longest, device=self.device)
        cos, sin = w.rotary(torch.empty(0, device=self.device, dtype=torch.float32), positions[None])
        half = w.head_dim // 2
        self.turns = torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())[:, None]  # (positions, 1, head_dim / 2)
        self.deep = None
        if spec is not None and spec.layer != -1 and spec.layer % (len(w.layers) + 1) < len(w.layers):
            self.deep = spec.layer % (len(w.layers) + 1)
        size = (len(w.layers), rows if decode else 0, w.kv_heads)
        # Keys lie coordinate by coordinate: that is the order in which one query reads them. Zeros: what is masked is still multiplied,
        # and uninitialised memory may hold NaN.
        self.keys = torch.zeros(*size, w.head_dim, longest, device=self.device, dtype=self.dtype)
        self.values = torch.zeros(*size, longest, w.head_dim, device=self.device, dtype=self.dtype)
        self.lengths = np.zeros(0, dtype=np.int64)
        self.shared = 0
        self.graphs = Graphs(_tolerance(self.dtype)) if self.device.type == "cuda" else None
        self.prefix_keys, self.prefix_values = (torch.zeros(len(w.layers), w.kv_heads, len(prefix), w.head_dim, device=self.device, dtype=self.dtype) for _ in range(2))
        self.prefix_hidden = torch.zeros(0, w.embed.shape[1], device=self.device)
        if prefix:

            def store(layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
                self.prefix_keys[layer], self.prefix_values[layer] = k.transpose(0, 1), v.transpose(0, 1)

            ids = torch.tensor(list(prefix), device=self.device)
            hidden, deep = self._read(ids, positions[: len(prefix)], [Run(0, 1, len(prefix))], store)
            self.prefix_hidden = hidden if deep is None else deep
            self.shared = len(prefix)

    @property
    def on_cpu(self) -> bool:
        """Elsewhere a call costs more than padding: texts are padded for attention, and rows are attended to all together."""
        return self.device.type == "cpu"

    def admit(self, prompts: Sequence[Rendered]) -> Step:
        """Read these prompts, longest first; they become the last rows."""
        import torch

        hidden, vectors = [], []
        for part in chunks(prompts, self.chunk):
            states, deep = self._admit(part)
            ends = np.cumsum([len(p.ids) - self.shared for p in part])
            hidden.append(states[torch.as_tensor(ends - 1, device=self.device)])
            if self.spec is not None and not self.on_cpu:
                vectors += self.spec.pool_packed(part, states if deep is None else deep, self.prefix_hidden)
            elif self.spec is not None:
                tails = np.split(np.arange(ends[-1]), ends[:-1])
                vectors += [self.spec.pool(p, (states if deep is None else deep)[t[0] : t[-1] + 1], self.prefix_hidden) for p, t in zip(part, tails, strict=True)]
        last = torch.cat(hidden)
        return Step(last, self.w.head(last) if self.decode else None, torch.stack(vectors) if vectors else None)

    def _admit(self, prompts: Sequence[Rendered]) -> tuple[torch.Tensor, torch.Tensor | None]:
        import torch

        tails = [p.ids[self.shared :] for p in prompts]
        runs, at = [], 0
        if self.on_cpu:
            for length, same in groupby(map(len, tails)):
                rows = len(list(same))
                runs.append(Run(at, rows, length, self._mask(length, self.shared)))
                at += rows * length
        else:
            longest = max(map(len, tails))
            runs.append(padded([len(tail) for tail in tails], self._mask(longest, self.shared), self.device))

        def store(layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
            row = len(self.lengths)
            for run in runs if self.decode else ():
                self.keys[layer, row : row + run.rows, ..., : run.length] = k[run.tokens].unflatten(0, (run.rows, run.length)).permute(0, 2, 3, 1)
                self.values[layer, row : row + run.rows, :, : run.length] = v[run.tokens].unflatten(0, (run.rows, run.length)).transpose(1, 2)
                row += run.rows

        ids = torch.tensor([token for tail in tails for token in tail], device=self.device)
        positions = torch.cat([torch.arange(self.shared, self.shared + len(tail)) for tail in tails]).to(self.device)
        found = self._read(ids, positions, runs, store)
        if self.decode:
            self.lengths = np.concatenate([self.lengths, [len(tail) for tail in tails]])
        return found

    def repeat(self, times: int) -> None:
        """Each row becomes `times` rows, one after another."""
        rows, most = len(self.lengths), int(self.lengths.max())
        for cache in (self.keys[..., :most], self.values[..., :most, :]):
            cache[:, : rows * times] = cache[:, :rows].repeat_interleave(times, dim=1)
        self.lengths = self.lengths.repeat(times)

    def step(self, tokens: np.ndarray) -> Step:
        """Read one more token of each row. (b,)"""
        import torch

        found = self.graphs.step(self, tokens) if self.graphs else None
        if found is None:
            read, lengths = (torch.as_tensor(x, device=self.device) for x in (tokens, self.lengths))
            longest = int(self.lengths.max()) + 1
            found = self._decode(read, lengths, self._groups()) if self.on_cpu else self.decoded(read, lengths, longest)
            if self.graphs:
                self.graphs.learn(self, tokens, found)
        self.lengths = self.lengths + 1
        return found

    def decoded(self, tokens: torch.Tensor, lengths: torch.Tensor, longest: int) -> Step:
        """The next step of the first rows, all attended to together; tokens, lengths (b,) on the device, longest: at least max(lengths) + 1.
        Nothing here waits for the device, and shapes depend on b and `longest` alone: a CUDA graph can record it."""
        return self._decode(tokens, lengths, [Group(0, len(tokens), longest, self._beyond(lengths + 1, longest))])

    def _decode(self, tokens: torch.Tensor, lengths: torch.Tensor, groups: Sequence[Group]) -> Step:
        import torch

        w = self.w
        each = torch.arange(len(tokens), device=self.device)
        positions = lengths + self.shared
        x = torch.nn.functional.embedding(tokens, w.embed)
        for i, layer in enumerate(w.layers):
            q, k, v = self._qkv(layer, x, positions)
            self.keys[i][each, ..., lengths], self.values[i][each, :, lengths] = k, v
            x = self._feed(layer, x.add_(layer.out(self._attend_all(i, q, groups))))
        hidden = self._norm(x, w.norm)
        return Step(hidden, w.head(hidden))

    def keep(self, going: np.ndarray) -> np.ndarray:
        """Only these rows go on: (b,) bool -> their numbers in the new order. The last rows move into the places that become free."""
        import torch

        left = int(going.sum())
        order = np.arange(left)
        free, movers = np.flatnonzero(~going[:left]), left + np.flatnonzero(going[left:])
        if len(free):
            order[free] = movers
            most = int(self.lengths[movers].max())
            to, source = (torch.as_tensor(rows, device=self.device) for rows in (free, movers))
            self.keys[:, to, ..., :most] = self.keys[:, source, ..., :most]
            self.values[:, to, :, :most] = self.values[:, source, :, :most]
        self.lengths = self.lengths[order]
        return order

    def extend(self, owners: Sequence[int], tails: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        """For each tail, read after the prompt in row owners[i], the logits at its positions (t, v). The rows stay as they are."""
        import torch

        by_owner = sorted(range(len(tails)), key=lambda i: owners[i])
        ids, positions, runs, spans = [], [], [], {}
        for owner, those in groupby(by_owner, key=lambda i: owners[i]):
            begin, context = len(ids), int(self.lengths[owner])
            blocks = []
            for i in those:
                spans[i] = slice(len(ids), len(ids) + len(tails[i]))
                blocks.append(torch.ones(len(tails[i]), len(tails[i]), dtype=torch.bool).tril())
                ids += tails[i]
                positions += range(self.shared + context, self.shared + context + len(tails[i]))
            # Every tail sees the prompt and itself, and none of the others.
            own = torch.block_diag(*blocks).bool().to(self.device)
            mask = torch.cat([own.new_ones(len(own), self.shared + context), own], dim=1)
            runs.append(Run(begin, 1, len(ids) - begin, mask, owner, context))
        hidden, _ = self._read(torch.tensor(ids, device=self.device), torch.tensor(positions, device=self.device), runs, lambda layer, k, v: None)
        for i in range(len(tails)):
            yield self.w.head(hidden[spans[i]])

    # -- one pass ----------------------------------------------------------------------------------------------------------

    def _read(self, ids: torch.Tensor, positions: torch.Tensor, runs: Sequence[Run], store: Callable) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Packed tokens (t,) -> hidden states after the final norm (t, d), and those of the embedding's layer where that is another."""
        import torch

        x = torch.nn.functional.embedding(ids, self.w.embed)
        deep = None
        for i, layer in enumerate(self.w.layers):
            if i == self.deep:
                deep = x.clone()
            q, k, v = self._qkv(layer, x, positions)
            store(i, k, v)
            seen = torch.empty_like(q)
            for run in runs:
                some = run.tokens
                out = self._attend(i, run, q[some], k[some], v[some])
                if run.real is None:
                    seen[some] = out
                else:
                    seen = out[run.real]
            x = self._feed(layer, x.add_(layer.out(seen.flatten(1))))
        return self._norm(x, self.w.norm), deep

    def _qkv(self, layer: weights.Layer, x: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(t, d) -> turned queries (t, heads, head_dim) and keys, and values (t, kv_heads, head_dim)."""
        import torch

        w = self.w
        turned = w.heads + w.kv_heads
        both = layer.qkv(self._norm(x, layer.norm_in))
        qk, v = both[:, : turned * w.head_dim].unflatten(1, (turned, w.head_dim)), both[:, turned * w.head_dim :].unflatten(1, (w.kv_heads, w.head_dim))
        if layer.qk_norm is not None:
            qk = self._norm(qk, layer.qk_norm)
        pairs = qk.unflatten(2, (-1, 2)) if w.paired else qk.unflatten(2, (2, -1)).transpose(2, 3).contiguous()
        qk = torch.view_as_real(torch.view_as_complex(pairs.float()) * self.turns[positions]).flatten(2).to(self.dtype)
        return qk[:, : w.heads], qk[:, w.heads :], v

    def _attend(self, i: int, run: Run, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attention within one run: (rows * length, heads, head_dim) -> the same shape."""
        import torch

        q, k, v = (x.unflatten(0, (run.rows, run.length)).transpose(1, 2) for x in (q, k, v))

        def whole(prefix: torch.Tensor, cached: torch.Tensor | None, own: torch.Tensor) -> torch.Tensor:
            parts = [prefix[i].expand(run.rows, -1, -1, -1)] if self.shared else []
            parts += [] if cached is None else [cached[None, :, : run.context]]
            return torch.cat([*parts, own], dim=2) if parts else own

        k = whole(self.prefix_keys, self.keys[i, run.row].transpose(1, 2) if run.context else None, k)
        v = whole(self.prefix_values, self.values[i, run.row] if run.context else None, v)
        shared = self.w.heads // self.w.kv_heads
        if not self.on_cpu and shared > 1:  # the fast kernels there know no grouped heads, or no mask with them
            k, v = (x[:, :, None].expand(-1, -1, shared, -1, -1).flatten(1, 2) for x in (k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=run.mask, is_causal=run.mask is None, scale=self.w.scale, enable_gqa=k.shape[1] != q.shape[1])
        return out.transpose(1, 2).flatten(0, 1)

    def _attend_all(self, i: int, q: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
        """One query for each row: (b, heads, head_dim) -> (b, heads * head_dim)."""
        import torch

        w, rows, prefix = self.w, len(q), self.shared
        q = q.unflatten(1, (w.kv_heads, -1))  # (b, kv_heads, group, head_dim)
        if prefix:
            # All rows read the same keys: one product for each head instead of one for each row.
            before = torch.bmm(q.transpose(0, 1).flatten(1, 2), self.prefix_keys[i].transpose(1, 2)).mul_(w.scale).unflatten(1, (rows, -1))
            shares = torch.empty(before.shape, device=self.device, dtype=self.dtype)  # (kv_heads, b, group, prefix)
        out = torch.empty(q.shape, device=self.device, dtype=self.dtype)
        for group in groups:
            some = slice(group.begin, group.end)
            keys, values = self.keys[i, some, ..., : group.longest].flatten(0, 1), self.values[i, some].flatten(0, 1)[:, : group.longest]
            scores = torch.bmm(q[some].flatten(0, 1), keys)
            scores = torch.add(group.mask, scores, alpha=w.scale)
            if prefix:
                scores = torch.cat([before[:, some].transpose(0, 1).flatten(0, 1), scores], dim=-1)
            weight = scores.softmax(-1).to(self.dtype)
            if prefix:
                shares[:, some] = weight[..., :prefix].unflatten(0, (-1, w.kv_heads)).transpose(0, 1)
            out[some] = torch.bmm(weight[..., prefix:], values).unflatten(0, (-1, w.kv_heads))
        if prefix:
            out += torch.bmm(shares.flatten(1, 2), self.prefix_values[i]).unflatten(1, (rows, -1)).transpose(0, 1)
        return out.flatten(1)

    def _groups(self) -> list[Group]:
        """How the rows, each with one more token, are attended to on a CPU."""
        import torch

        lengths = torch.as_tensor(self.lengths + 1)
        size = 2 * self.w.kv_heads * self.w.head_dim * self.keys.element_size()
        return [Group(begin, end, longest, self._beyond(lengths[begin:end], longest)) for begin, end, longest in alike(lengths.tolist(), size)]

    def _beyond(self, lengths: torch.Tensor, longest: int) -> torch.Tensor:
        """A Group's mask over `longest` places of rows of these lengths (b,)."""
        import torch

        own = lengths[:, None].expand(-1, self.w.kv_heads).reshape(-1, 1, 1)
        return torch.zeros(len(own), 1, longest, device=self.device).masked_fill_(torch.arange(longest, device=self.device) >= own, -torch.inf)

    def _feed(self, layer: weights.Layer, x: torch.Tensor) -> torch.Tensor:
        """The feed-forward block, added to x in place."""
        gate, up = layer.gate_up(self._norm(x, layer.norm_feed)).chunk(2, dim=-1)
        return x.add_(layer.down(layer.act(gate).mul_(up)))

    def _norm(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """RMS norm over the last axis, in float32. weight None: it is folded into the next matrix."""
        import torch

        if not self.on_cpu:
            out = torch.nn.functional.rms_norm(x, x.shape[-1:], eps=self.w.eps)
            return out if weight is None else out.mul_(weight)
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        out = (wide * length.square_().div_(x.shape[-1]).add_(self.w.eps).rsqrt_()).to(self.dtype)
        return out if weight is None else out.mul_(weight)

    def _mask(self, length: int, before: int) -> torch.Tensor | None:
        """Causal over `length` tokens, with all of `before` visible."""
        import torch

        if not before:
            return None
        return torch.ones(length, before + length, dtype=torch.bool, device=self.device).tril(before)
