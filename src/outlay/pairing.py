"""Two drafts of a prompt, for somebody to say which is better: which of the sampled responses they are, and for which prompts there are two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .store import Store
from .types import Cost, Indices, Pairs, Pool, Prompt, View


def pair_of(texts: Sequence[str], ended: Sequence[bool]) -> tuple[int, int] | None:
    """Places of the two responses that are shown: the first one that can be, and the first after it with other words. None if there are no two.

    One that is blank or did not end by itself is not shown: an end that the model did not choose would be learned.
    """
    first: int | None = None
    for place, (text, whole) in enumerate(zip(texts, ended, strict=True)):
        if not whole or not text.strip():
            continue
        if first is None:
            first = place
        elif text.split() != texts[first].split():
            return first, place
    return None


def offer(
    store: Store, path: str, pool: Pool, view: View, k: int, pick: Callable[[Indices, int], Indices], write: Callable[[Sequence[Prompt]], Pairs]
) -> tuple[View, int, Cost]:
    """Have drafts written of the k prompts that `pick(rows, k)` chooses, and keep them at `path`. -> (the view without the prompts that
    were found to have no two drafts, how many of k can be bought of it, what the drafts cost)."""
    found = store.keep(path, Pairs, lambda: choose(pool, view.unlabeled, k, pick, write))
    left = np.setdiff1d(view.unlabeled, pool.rows_of(found.unfit))
    return replace(view, unlabeled=left), min(k, len(left)), found.cost


def choose(pool: Pool, unlabeled: Indices, k: int, pick: Callable[[Indices, int], Indices], write: Callable[[Sequence[Prompt]], Pairs]) -> Pairs:
    """Drafts of the k prompts that `pick(rows, k)` chooses from `unlabeled`; a prompt without two drafts leaves it, and the choice is made again.

    So only prompts that a strategy wants are drafted, and the choice is the one from all prompts but those found `unfit`.
    """
    drafts: dict[str, tuple[str, str]] = {}
    unfit: list[str] = []
    cost = Cost()
    while k and len(left := np.setdiff1d(unlabeled, pool.rows_of(unfit))):
        chosen = pool.at(pick(left, min(k, len(left))))
        found = write([prompt for prompt in chosen if prompt.id not in drafts])
        drafts |= found.drafts
        unfit += found.unfit
        cost += found.cost
        if not found.unfit:
            return Pairs({prompt.id: drafts[prompt.id] for prompt in chosen}, tuple(unfit), cost)
    return Pairs({}, tuple(unfit), cost)
