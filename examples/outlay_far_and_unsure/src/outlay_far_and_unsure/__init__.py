"""An example plug-in for Outlay: one acquisition strategy."""

from __future__ import annotations

import numpy as np

from outlay import strategy


@strategy(needs=("min_margin", "embedding"), source="an example")
def far_and_unsure(view, k, rng, *, trade_off: float = 0.5):
    """Prompts that the model is unsure of and that lie far from what is labeled."""
    unsure = -view.score("min_margin")  # (m,), aligned with view.unlabeled
    if len(view.labeled):
        near = view.score("embedding") @ view.signals.columns["embedding"][view.labeled].T
        unsure = unsure - trade_off * near.max(axis=1)
    return view.unlabeled[np.lexsort((view.lottery[view.unlabeled], -unsure))[:k]]
