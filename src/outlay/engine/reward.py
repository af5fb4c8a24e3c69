"""The implicit reward of preference training: how much likelier a model has made a response than its untouched base finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..measure import flops
from ..types import Model
from .load import Loaded, load
from .losses import response_nll
from .render import Format, pairs
from .runtime import Runtime


@dataclass(frozen=True, slots=True)
class Ratios:
    """`nats`: (n,) log pi(y|x) - log pi_base(y|x) of each response, end token included. `tokens`: (n, 2) of the whole text and of the response in it."""

    nats: np.ndarray
    tokens: np.ndarray


def log_ratios(model: Model, loaded: Loaded, form: Format, runtime: Runtime, ids: Sequence[str], texts: Sequence[str], responses: Sequence[str]) -> Ratios:
    """The implicit reward of each response, before beta multiplies it (Rafailov et al. 2023, arXiv 2305.18290, equation 5 without the term of
    the prompt alone). `loaded`, `form`: of `model`. Responses are read as training reads them, not as the tokens that were drawn."""
    lesson = pairs(loaded, form, ids, texts, responses)
    base = load(Model(model.base), runtime)
    now, before = (response_nll(one, lesson, minibatch=runtime.minibatch)["nll_sum"].astype(np.float64) for one in (loaded, base))
    return Ratios(before - now, np.array([[len(e.ids), len(e.ids) - e.answer] for e in lesson], dtype=np.int64).reshape(-1, 2))


def reading(arch: flops.Arch, tokens: np.ndarray) -> int:
    """FLOPs of `log_ratios` on texts of these lengths, (n, 2): each is read by both models."""
    return 2 * flops.forward(arch, tokens[:, 0], int(tokens[:, 1].sum()))
