"""Decoding steps of a LlamaNetwork as CUDA graphs: one launch where there were about forty a layer, which is what bounds a small model."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .network import Step

if TYPE_CHECKING:
    import torch

    from .llama import LlamaNetwork

# A size is recorded when it has been wanted this often: recording costs about as much as two ordinary steps.
PATIENCE = 2
LEAST_ROWS, LEAST_LENGTH = 16, 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A graph that reads `tokens` and `lengths` (rows,) and leaves the answers in `step`."""

    graph: torch.cuda.CUDAGraph
    tokens: torch.Tensor
    lengths: torch.Tensor
    step: Step


class Graphs:
    """The recorded steps of one network, by the number of rows and of cached tokens that they have room for.

    Each is compared with the ordinary step on the spot, and none is used any more after one that could not be recorded or gave other
    log-probabilities.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.wanted: Counter[tuple[int, int]] = Counter()
        self.recorded: dict[tuple[int, int], Recorded] = {}
        self.usable = True

    def step(self, network: LlamaNetwork, tokens: np.ndarray) -> Step | None:
        """The answers for these tokens (b,), good until the next call; None: take the ordinary step."""
        rows, longest = len(tokens), int(network.lengths.max()) + 1
        # One that is far too large is slower than one that is recorded anew.
        fitting = [size for size in self.recorded if rows <= size[0] <= max(LEAST_ROWS, 4 * rows) and size[1] >= longest]
        if not self.usable or not fitting:
            return None
        found = self.recorded[min(fitting)]
        self._fill(found.tokens, tokens)
        self._fill(found.lengths, network.lengths)
        found.graph.replay()
        return Step(found.step.hidden[:rows], found.step.logits[:rows])

    def learn(self, network: LlamaNetwork, tokens: np.ndarray, ordinary: Step) -> None:
        """After an ordinary step, before the rows' lengths grow: record its size where that size is wanted often."""
        size = self._size(network, tokens)
        self.wanted[size] += 1
        if not self.usable or size in self.recorded or self.wanted[size] < PATIENCE:
            return
        try:
            self.recorded[size] = self._record(network, tokens, size)
            again = self.step(network, tokens)
            far = float((again.logits.float().log_softmax(-1) - ordinary.logits.float().log_softmax(-1)).abs().max())
            self.usable = far <= self.tolerance
            why = f"its log-probabilities are off by {far:.2g}"
        except (RuntimeError, AssertionError, ValueError) as error:  # whatever torch or CUDA refuses
            self.usable, why = False, str(error).splitlines()[0]
        if not self.usable:
            self.recorded.clear()
            log.warning("decoding is not recorded as a CUDA graph, which is slower: %s", why)

    @staticmethod
    def _size(network: LlamaNetwork, tokens: np.ndarray) -> tuple[int, int]:
        """Powers of two, no more than there is room for."""
        rows, longest = len(tokens), int(network.lengths.max()) + 1
        return min(network.capacity, max(LEAST_ROWS, 1 << (rows - 1).bit_length())), min(network.longest, max(LEAST_LENGTH, 1 << (longest - 1).bit_length()))

    def _record(self, network: LlamaNetwork, tokens: np.ndarray, size: tuple[int, int]) -> Recorded:
        import torch

        # The true tokens and lengths: recording writes into the cache what is there already. Rows without a prompt have length 0.
        inputs = [torch.zeros(size[0], dtype=torch.long, device=network.device) for _ in range(2)]
        for place, values in zip(inputs, (tokens, network.lengths), strict=True):
            self._fill(place, values)
        aside = torch.cuda.Stream(network.device)
        aside.wait_stream(torch.cuda.current_stream(network.device))
        with torch.cuda.stream(aside):  # libraries allocate their workspaces in a first pass, which may not be recorded
            network.decoded(*inputs, size[1])
        torch.cuda.current_stream(network.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.recorded.values())).graph.pool() if self.recorded else None
        with torch.cuda.graph(graph, pool=pool):
            step = network.decoded(*inputs, size[1])
        return Recorded(graph, *inputs, step)

    @staticmethod
    def _fill(place: torch.Tensor, values: np.ndarray) -> None:
        import torch

        place.zero_()
        place[: len(values)] = torch.as_tensor(values, device=place.device)
