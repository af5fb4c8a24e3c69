"""Responses for annotators to edit."""

from __future__ import annotations

from collections.abc import Sequence

from ..types import Model, Prompt
from .runtime import Runtime


def write(model: Model, prompts: Sequence[Prompt], runtime: Runtime, *, max_new_tokens: int) -> list[str]:
    """The model's greedy response to each prompt; one that did not end within max_new_tokens ends there."""
    from .generate import generate
    from .load import load
    from .render import format_of
    from .render import prompts as rendered

    with runtime.active():
        loaded = load(model, runtime)
        form = format_of(loaded, runtime.template)
        asked = rendered(loaded, form, [p.id for p in prompts], [p.text for p in prompts], room=max_new_tokens)
        return [text.strip() for text in generate(loaded, asked, stops=form.stops, max_new_tokens=max_new_tokens, minibatch=runtime.minibatch).texts]
