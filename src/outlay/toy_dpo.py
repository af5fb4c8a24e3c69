"""Preferences in the toy world: direct preference optimization of its softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from .engine.lesson import given
from .registry import register
from .seeds import generator
from .toy import FLOPS_PER_SECOND, RESPONSES, encode, featurise, forward_flops, load, save
from .types import Annotation, Cost, Model, Prompt


@register("trainer", "toy_dpo")
@dataclass(frozen=True, kw_only=True)
class ToyDPO:
    """Stochastic gradient descent on -log sigmoid(beta * (reward of the chosen - that of the rejected)), from the start's weights.

    The reward is log p - log p of the untouched base, so the normalisers cancel and only the logits of the two drafts are moved.
    """

    judgements: ClassVar[tuple[str, ...]] = ("preferences",)

    epochs: int = 6
    minibatch: int = 8
    learning_rate: float = 4.0
    beta: float = 0.5

    def __call__(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int) -> Model:
        """Write weights.npy and config.json into the folder `out`, all or nothing. Same set of annotations and seed, same bytes."""
        pairs = sorted(given(prompts, annotations, "preference", "toy_dpo"), key=lambda pair: pair[0].id)
        ids = [prompt.id for prompt, _ in pairs]
        sides = [encode([getattr(a, name) for _, a in pairs], ids) for name in ("chosen", "rejected")]
        step = np.zeros((len(pairs), len(RESPONSES)), dtype=np.float32)  # what the gradient of each pair's margin has per feature
        for side, sign in zip(sides, (1, -1), strict=True):
            step[np.arange(len(pairs)), side] += sign
        features, weights, base = featurise([prompt.text for prompt, _ in pairs]), load(start).copy(), load(Model(start.base))
        rng, updates = generator(seed, "toy", "train"), start.updates
        for _ in range(self.epochs):
            order = rng.permutation(len(pairs))
            for first in range(0, len(order), self.minibatch):
                rows = order[first : first + self.minibatch]
                margin = ((features[rows] @ (weights - base)) * step[rows]).sum(axis=1)
                pull = self.beta / (1 + np.exp(self.beta * margin))
                weights += np.float32(self.learning_rate / len(rows)) * (features[rows].T @ (pull[:, None] * step[rows]))
                updates += 1
        save(weights, Path(out))
        tokens = self.epochs * sum(len(prompt.text.split()) for prompt, _ in pairs)
        flops = 3 * forward_flops(tokens, start.base, outputs=len(RESPONSES))  # forward by the model and by the base, and the gradient
        return Model(start.base, weights=str(out), kind="full", updates=updates, cost=Cost(seconds=flops / FLOPS_PER_SECOND, flops=flops, trained_tokens=tokens))
