"""Oracles: whoever answers."""

from . import human, llm, mixed, noisy, replay  # noqa: F401  (registers the parts)
