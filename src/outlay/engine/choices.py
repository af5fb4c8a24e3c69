"""How likely the model finds given options: multiple choice without decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .load import Loaded
from .losses import longest_first
from .network import open_network
from .render import Rendered
from .statistics import check_finite

if TYPE_CHECKING:
    import torch

# Rows of logits that are kept at once: one option's positions, at most about 256 MiB together in float32.
MOST_LOGITS = 1 << 26


def option_logprobs(
    loaded: Loaded,
    prompts: Sequence[Rendered],
    options: Sequence[Sequence[tuple[int, ...]]],
    *,
    minibatch: int,
    on_finish: Callable[[int, np.ndarray], None] | None = None,
) -> list[np.ndarray]:
    """The summed log-probability (nats) of each option's tokens after its prompt: one float64 array (options of the prompt,) a prompt.

    options[i]: the options of prompts[i], as tokens. A beginning that all prompts share is read once, and each prompt once for all
    its options: first tokens are read off its last position, and what follows them takes one more pass. minibatch: prompts read
    together, and options in that pass. on_finish: called with (row, log-probabilities) as each prompt is done, in any order. Raises
    DataError for a prompt without options, an empty option, one beyond the context, and a log-probability that is not a number.
    """
    import torch

    most = max((len(option) for those in options for option in those), default=0)
    for prompt, those in zip(prompts, options, strict=True):
        if not those or not all(those):
            raise DataError(f"prompt '{prompt.id}' has {'an empty option' if those else 'no options'}; give each prompt options with at least one token")
        longest = max(map(len, those))
        if len(prompt.ids) + longest > loaded.context:
            raise DataError(f"prompt '{prompt.id}' has {len(prompt.ids)} tokens and an option of {longest}: beyond the model's context of {loaded.context}; shorten it")
    found = [np.zeros(len(those)) for those in options]
    order = longest_first(prompts)
    with torch.inference_mode():
        network = open_network(loaded, prompts, None, minibatch=minibatch, room=most)
        for at in range(0, len(order), minibatch):
            rows = order[at : at + minibatch]
            logits = network.admit([prompts[row] for row in rows]).logits
            longer = []
            for i, row in enumerate(rows):
                found[row][:] = _logprobs(logits[i], [option[0] for option in options[row]])
                longer += [(i, row, j, option) for j, option in enumerate(options[row]) if len(option) > 1]
            # Options of one length together: less padding.
            longer.sort(key=lambda o: -len(o[3]))
            while longer:
                size = max(1, min(minibatch, MOST_LOGITS // (loaded.arch.vocabulary * len(longer[0][3]))))
                part, longer = longer[:size], longer[size:]
                for (_, row, j, option), logits in zip(part, network.extend([o[0] for o in part], [o[3][:-1] for o in part]), strict=True):
                    found[row][j] += sum(_logprobs(logits[k], [token])[0] for k, token in enumerate(option[1:]))
            network.keep(np.zeros(len(rows), dtype=bool))
            for row in rows:
                check_finite("the log-probability of an option", found[row][None], [prompts[row]])
                if on_finish is not None:
                    on_finish(row, found[row])
    return found


def _logprobs(logits: torch.Tensor, tokens: Sequence[int]) -> np.ndarray:
    """Log-probabilities of these tokens; (v,) -> (tokens,), float64."""
    logits = logits.double()
    return (logits[list(tokens)] - logits.logsumexp(0)).cpu().numpy()
